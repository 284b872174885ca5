"""The trainers of trl as users run them, on the same base, draws of their own and our reward: peers to measure."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from alignbench.aligners.base import Setting
from alignbench.aligners.training.ahead import BaseDraws
from alignbench.aligners.training.folder import Curve, Folder
from alignbench.aligners.training.options import unlabelled
from alignbench.aligners.training.processes import launched
from alignbench.aligners.training.recipe import Trained
from alignbench.aligners.training.reinforce import check_floor
from alignbench.aligners.training.work import Work
from alignbench.errors import Unsupported, UsageError, did_you_mean
from alignbench.generators.base import Networked, WithTokenizer
from alignbench.generators.law import law_of
from alignbench.registry import aligner
from alignbench.seeds import PAIRS
from alignbench.target import Target
from alignbench.types import Distribution, Draws, Training

TRAINERS = ("rloo", "grpo", "dpo")
LOGGED = {"objective": "loss", "trl_kl": "kl", "trl_reward": "reward", "lr": "learning_rate"}
"""Columns of the curve, and what trl calls them."""
UNUSED = ("tokens", "every", "cooldown", "accumulate")
"""Hyper-parameters of all trained aligners that trl has otherwise, or not at all."""


@aligner("trl", target_driven=True, density="exact")
@dataclass(frozen=True, kw_only=True)
class Trl(Trained):
    """What a trainer of trl makes of the base, measured by our laws; needs `alignbench[trl]`.

    Its reward is r = log P − log a, of a broken hard constraint log ε = `floor`, and `beta` the weight of its KL.
    `trainer` "dpo" gets pairs of base draws, labelled by Bradley–Terry with σ(β·Δr). It tokenises prompts, draws, cuts
    and pads as it does; its rate falls linearly. A training that is killed begins anew.
    """

    trainer: str = "rloo"
    lr: float = unlabelled(1e-4)
    beta: float = unlabelled(1.0)
    floor: float = unlabelled(0.01)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.trainer not in TRAINERS:
            raise UsageError(f"trl:trainer={self.trainer}: unknown.{did_you_mean(str(self.trainer), TRAINERS)}")
        check_floor("trl", self.floor)
        self._positive("beta")
        for name in UNUSED:
            if getattr(self, name) != Trl.__dataclass_fields__[name].default:
                raise UsageError(f"trl:{name}={getattr(self, name)}: trl has no such thing")

    def remark(self, target: Target) -> str:
        """See `Trained.remark`."""
        return f"trained by trl {_version()}"

    def identity(self, setting: Setting) -> Mapping[str, Any]:
        """See `Trained.identity`; with the version of trl."""
        return {**super().identity(setting), "trl": _version()}

    def align(self, setting: Setting) -> Distribution:
        """See `Trained.align`; raises Unsupported where the base has decoding settings, which trl does not know."""
        base = law_of(setting.base, "trl")
        if not base.plain:
            raise Unsupported(f"trl draws from {base.name} as it is: leave out the decoding settings")
        if launched() > 1:
            raise UsageError("trl: trains by itself: give one process")
        return super().align(setting)

    def trained(self, work: Work, folder: Folder) -> None:
        """See `Trained.trained`."""
        Peer(self, work, folder).run()


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("trl")
    except PackageNotFoundError:
        raise UsageError("aligner 'trl': needs the package trl: pip install 'alignbench[trl]'") from None


@dataclass
class Peer:
    """One training by trl."""

    recipe: Trl
    work: Work
    folder: Folder
    curve: Curve = field(default_factory=list)
    spent: Training = field(default_factory=Training)

    def run(self) -> None:
        """Train, and leave what a training of ours leaves."""
        began = time.monotonic()
        self.folder.begin()
        trainer = self._dpo() if self.recipe.trainer == "dpo" else self._online()
        trainer.add_callback(_callback(self, began))
        trainer.train()
        spent = self.spent + Training(seconds=time.monotonic() - began, steps=int(trainer.state.global_step))
        self.work.policy.learner.network.eval()
        self.folder.save(self.work.policy, torch.optim.AdamW(self.work.policy.parameters), spent.steps, {}, self.curve)
        self.work.setting.book(
            seconds=spent.seconds, steps=spent.steps, drawn=spent.drawn, scored=spent.scored, trained=spent.trained
        )
        self.folder.finish(self.work.policy, steps=spent.steps, seconds=round(spent.seconds, 1), processes=1)

    @property
    def parts(self) -> tuple[Any, Any]:
        """The network in peft's wrapping, and its tokenizer."""
        model = self.work.policy.model
        wrapped = getattr(getattr(model, "trained", None), "wrapped", None)
        if wrapped is None or not isinstance(model, WithTokenizer) or not isinstance(model, Networked):
            raise Unsupported(f"trl:adapter={self.recipe.adapter}: must be lora: trl trains an adapter of peft here")
        return wrapped, model.tokenizer

    def options(self, kind: Any, folder: str, **more: Any) -> Any:
        """The configuration that all trainers share."""
        recipe = self.recipe
        steps = recipe.steps or 10**6
        return kind(
            output_dir=folder, per_device_train_batch_size=recipe.batch, max_steps=steps, learning_rate=recipe.lr,
            warmup_steps=recipe.warmup, max_grad_norm=recipe.clip, weight_decay=0.0, beta=recipe.beta, logging_steps=1,
            save_strategy="no", report_to=[], disable_tqdm=True, seed=self.work.setting.seed.entropy,
            use_cpu=self.work.policy.device.type == "cpu", bf16=recipe.precision == "bfloat16",
            gradient_checkpointing=False, **more,
        )  # fmt: skip

    def _online(self) -> Any:
        """RLOO or GRPO: draws of its own, our reward."""
        import trl
        from datasets import Dataset

        network, tokenizer = self.parts
        work, recipe, prompts = self.work, self.recipe, self.work.prompts
        each, rest = divmod(recipe.batch, len(prompts))
        if rest or each < 2:
            raise UsageError(
                f"trl:batch={recipe.batch}: must be 2 or more draws for each of {len(prompts)} prompts alike"
            )
        rows = [{"prompt": work.policy.render(prompt), "number": c} for c, prompt in enumerate(prompts)]
        kind, config = {"rloo": (trl.RLOOTrainer, trl.RLOOConfig), "grpo": (trl.GRPOTrainer, trl.GRPOConfig)}[
            recipe.trainer
        ]
        with tempfile.TemporaryDirectory() as folder:
            options = self.options(
                config, folder, num_generations=each, max_completion_length=work.setting.max_tokens, temperature=1.0,
                top_p=1.0, top_k=0, shuffle_dataset=False,
            )  # fmt: skip
        return kind(
            model=network, reward_funcs=self.reward, args=options, train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
        )  # fmt: skip

    def reward(self, prompts: Sequence[str], completion_ids: Sequence[Sequence[int]], number: Sequence[int],
               **more: Any) -> list[float]:  # fmt: skip
        """R of completions, as our features read their tokens up to the first EOS."""
        draws = self.draws(completion_ids, number)
        tokens = int(draws.length.sum())
        self.spent = self.spent + Training(drawn=tokens, scored=tokens, trained=tokens)
        features = self.work.target.measure(self.work.prompts, draws)
        ratio = self.work.target.log_ratio(features, draws.prompt, float(np.log(self.recipe.floor)))
        return [float(r) for r in ratio]

    def draws(self, completion_ids: Sequence[Sequence[int]], number: Sequence[int]) -> Draws:
        """Completions as draws of the policy."""
        law, most = self.work.policy, self.work.setting.max_tokens
        said = [_until(ids, law.vocab.eos)[:most] for ids in completion_ids]
        tokens = np.full((len(said), max(map(len, said))), -1)
        for row, ids in zip(tokens, said, strict=True):
            row[: len(ids)] = ids
        length = np.array([len(ids) for ids in said])
        finished = np.array([bool(ids) and ids[-1] in law.vocab.eos for ids in said])
        found = Draws(
            prompt=np.array(number), index=np.arange(len(said)), texts=("",) * len(said), tokens=tokens, length=length,
            finished=finished, log_prob=None, token_log_prob=None, model_log_prob=None, vocab=law.vocab.fingerprint,
        )  # fmt: skip
        return replace(found, texts=law.texts_of(self.work.prompts, found))

    def _dpo(self) -> Any:
        """Pairs of base draws of the stream `train`."""
        import trl
        from datasets import Dataset

        network, tokenizer = self.parts
        rows = pairs(self.work, self.recipe)
        with tempfile.TemporaryDirectory() as folder:
            options = self.options(trl.DPOConfig, folder, max_length=None)
        return trl.DPOTrainer(
            model=network, args=options, train_dataset=Dataset.from_list(rows), processing_class=tokenizer
        )


def pairs(work: Work, recipe: Trl) -> list[dict[str, str]]:
    """Prompt, chosen, rejected: two base draws of a prompt, the first chosen with σ(β·Δr) (Bradley and Terry 1952)."""
    base = BaseDraws(work, floor=float(np.log(recipe.floor)))
    steps = recipe.steps or 200
    rows = work.rows(0, 2 * recipe.batch * steps)
    found, rng = base.batch(rows), work.setting.seed.salted(PAIRS).rng("", 0)
    told: list[dict[str, str]] = []
    by_prompt = [np.flatnonzero(found.draws.prompt == c) for c in range(len(work.prompts))]
    for mine in by_prompt:
        for i, j in zip(mine[::2], mine[1::2], strict=False):
            first = rng.random() < 1 / (1 + np.exp(-recipe.beta * (found.log_ratio[i] - found.log_ratio[j])))
            chosen, rejected = (i, j) if first else (j, i)
            prompt = work.policy.render(work.prompts[int(found.draws.prompt[i])])
            told.append(
                {"prompt": prompt, "chosen": found.draws.texts[chosen], "rejected": found.draws.texts[rejected]}
            )
    return told


def _until(ids: Sequence[int], eos: frozenset[int]) -> list[int]:
    """The ids up to the first EOS, with it."""
    end = next((i for i, one in enumerate(ids) if one in eos), len(ids) - 1)
    return list(ids[: end + 1])


def _callback(peer: Peer, began: float) -> Any:
    """What trl calls after each step: a line of the curve, the report, and the end of the minutes."""
    from transformers import TrainerCallback

    class Watch(TrainerCallback):  # type: ignore[misc]
        def on_log(
            self, args: Any, state: Any, control: Any, logs: Mapping[str, float] | None = None, **more: Any
        ) -> None:
            seconds = time.monotonic() - began
            told = {"step": float(state.global_step), "seconds": seconds, "drawn": float(peer.spent.drawn),
                    "scored": float(peer.spent.scored), "trained": float(peer.spent.trained)}  # fmt: skip
            told |= {ours: float(logs[theirs]) for ours, theirs in LOGGED.items() if logs and theirs in logs}
            if "objective" not in told:
                return
            peer.curve.append(told)
            total = peer.recipe.steps or state.global_step
            left = seconds / max(1, state.global_step) * (total - state.global_step)
            peer.work.setting.report(state.global_step, {**told, "left": left})

        def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            if peer.recipe.minutes is not None and time.monotonic() - began >= 60 * peer.recipe.minutes:
                control.should_training_stop = True

    return Watch()
