"""The trainers of trl as users run them, on our base, target and prompts: peers, to be measured by our laws."""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, fields, replace
from importlib.metadata import PackageNotFoundError, version
from math import gcd
from typing import Any
from warnings import catch_warnings, filterwarnings

import numpy as np
import torch
from torch import nn

from alignbench.aligners.base import Setting
from alignbench.aligners.training.folder import Curve, Folder
from alignbench.aligners.training.options import STEPS, joined, unlabelled
from alignbench.aligners.training.pairs import PairDraws
from alignbench.aligners.training.processes import launched
from alignbench.aligners.training.recipe import Trained
from alignbench.aligners.training.reinforce import check_floor, p_epsilon
from alignbench.aligners.training.work import Work, reached
from alignbench.errors import RunError, Unsupported, UsageError, brief, did_you_mean
from alignbench.generators.base import Networked, WithTokenizer
from alignbench.generators.hf.policy import Adapted, sharing
from alignbench.generators.hf.policy import Trained as Adapter
from alignbench.generators.hf.quiet import global_randomness_kept, no_bars, no_dataset_bars
from alignbench.generators.law import law_of
from alignbench.generators.memory import peak_memory, reset_peak
from alignbench.generators.window import Windowable
from alignbench.registry import aligner
from alignbench.target import Target
from alignbench.types import Distribution, Draws

TRAINERS = ("rloo", "grpo", "dpo")
LOGGED = {"lr": "learning_rate", "trl_loss": "loss", "trl_kl": "kl", "trl_reward": "reward", "grad_norm": "grad_norm"}
"""Columns of the curve, and what trl calls them; its KL is nats a token, of the estimate that its trainer uses."""
NOT_OF_TRL = ("tokens", "every", "cooldown", "accumulate")
"""Hyper-parameters of all trained aligners that this one cannot heed."""
UNENDING = 10**6
"""Steps of a training that ends by the clock."""


@aligner("trl", target_driven=True, density="exact")
@dataclass(frozen=True, kw_only=True)
class Trl(Trained):
    """The base as a trainer of trl leaves it: "rloo", "grpo" or "dpo"; needs `alignbench[trl]`.

    The reward is r = log P − log a, of a broken hard constraint log ε = `floor`; `beta` is the weight of trl's KL. Each
    prompt of a step has as many draws, two at least. "dpo" is given pairs of base draws, of which the first is chosen
    with σ(β·(r₁ − r₂)); it reads texts and appends an EOS to each, so that its optimum is p_ε only as far as draws end
    by themselves. The rate rises from 0 over `warmup` steps and falls linearly, or stays where the budget is minutes. A
    training that is killed begins anew.
    """

    trainer: str = "rloo"
    beta: float = unlabelled(1.0)
    floor: float = unlabelled(0.01)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.trainer not in TRAINERS:
            raise UsageError(f"trl:trainer={self.trainer}: unknown.{did_you_mean(str(self.trainer), TRAINERS)}")
        check_floor("trl", self.floor)
        if self.trainer == "dpo" and self.minutes is not None:
            raise UsageError("trl:trainer=dpo: its pairs are drawn before it begins: give steps, not minutes")
        if self.batch < 2:
            raise UsageError(f"trl:batch={self.batch}: it compares draws: give 2 at least")
        self._positive("beta")
        for known in fields(Trl):
            if known.name in NOT_OF_TRL and getattr(self, known.name) != known.default:
                raise UsageError(f"trl:{known.name}={getattr(self, known.name)}: trl has no such option: leave it out")
        if not self.adapter.startswith("lora"):
            raise UsageError(f"trl:adapter={self.adapter}: must be lora, such as lora:r=16")

    def remark(self, target: Target) -> str:
        """See `Trained.remark`."""
        own = ""
        if self.trainer == "grpo":
            own = "rewards are standardised: its optimum is not p"
        elif self.trainer == "dpo":
            own = "it appends an EOS to draws that were cut: where many are, its optimum is not p"
        elif self.trainer == "rloo" and self.beta != 1:
            own = f"beta={self.beta:g}: its optimum is not p"
        return joined(f"trained by trl {_version()}", own, p_epsilon(self.floor, target))

    def identity(self, setting: Setting) -> Mapping[str, Any]:
        """See `Trained.identity`; with the version of trl."""
        return {**super().identity(setting), "trl": _version()}

    def align(self, setting: Setting) -> Distribution:
        """See `Trained.align`; raises Unsupported where the base has decoding settings, which trl would leave out."""
        base = law_of(setting.base, "trl")
        if not base.plain or (isinstance(base.model, Windowable) and base.model.window is not None):
            raise Unsupported(f"trl: draws from {base.name} as it is: leave out its decoding settings")
        if launched() > 1:
            raise UsageError("trl: trains in one process: start it without a launcher")
        if base.device.type == "cuda" and torch.cuda.device_count() > 1:
            raise UsageError("trl: takes all GPUs that it sees, and is to have one: set CUDA_VISIBLE_DEVICES")
        return super().align(setting)

    def trained(self, work: Work, folder: Folder) -> None:
        """See `Trained.trained`."""
        Peer(self, work, folder).run()


def _version() -> str:
    try:
        return version("trl")
    except PackageNotFoundError:
        raise UsageError("trl: needs the package trl: pip install 'alignbench[trl]'") from None


@dataclass
class Peer:
    """One training by trl."""

    recipe: Trl
    work: Work
    folder: Folder
    curve: Curve = field(default_factory=list)
    of_pairs: int = 0  # tokens that a step of DPO scores and trains on, in the mean

    def run(self) -> None:
        """Train, and leave what a training of ours leaves.

        Raises RunError where trl leaves a weight that is no number.
        """
        self.folder.begin()
        began = time.monotonic()
        reset_peak()
        with ExitStack() as held:
            held.enter_context(global_randomness_kept())  # trl seeds it for the whole process
            held.enter_context(no_bars())
            held.enter_context(no_dataset_bars())
            held.enter_context(catch_warnings())
            filterwarnings("ignore", ".*checkpointing` is deprecated", FutureWarning)  # trl's name for it is old
            scratch = held.enter_context(tempfile.TemporaryDirectory())
            total = self.recipe.steps or 100
            advance = held.enter_context(self.work.setting.progress("training trl", total))
            trainer = self.trainer(scratch)
            trainer.add_callback(_watch(self, began, advance))
            trainer.train()
            self.take(trainer.model)
        steps, seconds = int(trainer.state.global_step), time.monotonic() - began
        policy, spent = self.work.policy, self.work.spent
        self.folder.save(policy, torch.optim.AdamW(policy.parameters), steps, {}, self.curve)
        self.work.setting.book(
            seconds=seconds,
            steps=steps,
            drawn=spent.drawn,
            scored=spent.scored,
            trained=spent.trained,
            peak_bytes=peak_memory(policy.device) or 0,
        )
        self.folder.finish(policy, steps=steps, seconds=round(seconds, 1), processes=1)

    def trainer(self, scratch: str) -> Any:
        """That of trl, which may write to a folder."""
        return self._paired(scratch) if self.recipe.trainer == "dpo" else self._rewarded(scratch)

    @torch.no_grad()
    def take(self, network: nn.Module) -> None:
        """Give the policy the weights that trl trained."""
        theirs = {name: p for name, p in network.named_parameters() if p.requires_grad}
        ours = dict(_adapter(self.work).wrapped.named_parameters())
        for name, p in theirs.items():
            if not torch.isfinite(p).all():
                raise RunError(
                    f"trl: {name} is no number (NaN or infinite) after training: lower lr={self.recipe.lr:g}"
                )
            ours[name].copy_(p)

    def _options(self, kind: Any, scratch: str, **more: Any) -> Any:
        """The configuration that its trainers share."""
        recipe = self.recipe
        return kind(
            output_dir=scratch, max_steps=recipe.steps or UNENDING, learning_rate=recipe.lr,
            lr_scheduler_type="linear" if recipe.steps else "constant_with_warmup", warmup_steps=recipe.warmup,
            max_grad_norm=recipe.clip, weight_decay=0.0, beta=recipe.beta, logging_steps=1, save_strategy="no",
            report_to=[], disable_tqdm=True, seed=self.work.setting.seed.entropy % 2**32, gradient_checkpointing=False,
            use_cpu=self.work.policy.device.type == "cpu", bf16=recipe.precision == "bfloat16", **more,
        )  # fmt: skip

    def _made(self, kind: Any, options: Any, rows: Sequence[Mapping[str, Any]], **more: Any) -> Any:
        """A trainer, on a network of its own that shares the base's tensors."""
        from datasets import Dataset

        adapter, base = _adapter(self.work).config, law_of(self.work.setting.base, "trl").model
        assert isinstance(base, Networked) and isinstance(base, WithTokenizer)
        self._reads_as_we_do(base.tokenizer)
        found = kind(model=sharing(base.network), args=options, train_dataset=Dataset.from_list(list(rows)),
                     processing_class=copy.deepcopy(base.tokenizer), peft_config=copy.copy(adapter),
                     **more)  # fmt: skip
        from transformers.trainer_callback import PrinterCallback

        found.remove_callback(PrinterCallback)
        return found

    def _reads_as_we_do(self, tokenizer: Any) -> None:
        """Raise Unsupported where trl would read other tokens than the law that is measured, or end at others."""
        law, own = self.work.policy, tokenizer.eos_token_id
        for prompt in self.work.prompts:
            text = law.render(prompt)
            if list(tokenizer(text)["input_ids"]) != list(law.model.encode(text, 0)):
                raise Unsupported(
                    f"trl: would read {brief(text)} as other tokens than {law.name} does: it adds the tokenizer's own "
                    "BOS, also to a chat template's, and reads no empty prompt"
                )
        if own is not None and own not in law.vocab.eos:
            raise Unsupported(f"trl: would end draws at the tokenizer's EOS too, which {law.name} does not")

    def _rewarded(self, scratch: str) -> Any:
        """RLOO or GRPO: draws of its own, our reward."""
        import trl

        prompts, recipe = self.work.prompts, self.recipe
        each = draws_each(recipe.batch, len(prompts))
        rows = [{"prompt": self.work.policy.render(prompt), "number": c} for c, prompt in enumerate(prompts)]
        kind, config = (
            (trl.RLOOTrainer, trl.RLOOConfig) if recipe.trainer == "rloo" else (trl.GRPOTrainer, trl.GRPOConfig)
        )
        options = self._options(
            config, scratch, per_device_train_batch_size=recipe.batch, num_generations=each, temperature=1.0, top_p=1.0,
            top_k=0, max_completion_length=self.work.setting.max_tokens, shuffle_dataset=False,
        )  # fmt: skip
        groups = recipe.batch // each
        rows *= groups // gcd(len(prompts), groups)  # whole steps: trl leaves out the rest of an epoch
        return self._made(kind, options, rows, reward_funcs=self.reward)

    def reward(
        self, prompts: Sequence[str], completion_ids: Sequence[Sequence[int]], number: Sequence[int], **more: Any
    ) -> list[float]:
        """Log P − log a of each completion, nats, of its tokens up to the first EOS."""
        draws = self.draws(completion_ids, number)
        tokens = int(draws.length.sum())
        self.work.book(drawn=tokens, scored=tokens, trained=tokens)
        features = self.work.target.measure(self.work.prompts, draws)
        self.work.seen = reached(self.work.target, features)
        return [float(r) for r in self.work.target.log_ratio(features, draws.prompt, float(np.log(self.recipe.floor)))]

    def draws(self, completion_ids: Sequence[Sequence[int]], number: Sequence[int]) -> Draws:
        """Completions as draws of the policy, `number` the prompt of each."""
        law, most = self.work.policy, self.work.setting.max_tokens
        said = [_until(ids, law.vocab.eos)[:most] for ids in completion_ids]
        length = np.array([len(ids) for ids in said])
        tokens = np.full((len(said), length.max()), -1)
        for row, ids in zip(tokens, said, strict=True):
            row[: len(ids)] = ids
        found = Draws(
            prompt=np.array(number), index=np.arange(len(said)), texts=("",) * len(said), tokens=tokens, length=length,
            finished=np.array([ids[-1] in law.vocab.eos for ids in said]), log_prob=None, token_log_prob=None,
            model_log_prob=None, vocab=law.vocab.fingerprint,
        )  # fmt: skip
        return replace(found, texts=law.texts_of(self.work.prompts, found))

    def _paired(self, scratch: str) -> Any:
        """DPO on pairs of base draws."""
        import trl

        each = max(1, self.recipe.batch // 2)
        options = self._options(trl.DPOConfig, scratch, per_device_train_batch_size=each, max_length=None)
        steps = self.recipe.steps or STEPS
        rows, tokens = pairs(self.work, self.recipe, each * steps)
        self.of_pairs = tokens // steps
        return self._made(trl.DPOTrainer, options, rows)


def pairs(work: Work, recipe: Trl, count: int) -> tuple[list[dict[str, str]], int]:
    """`count` rows of prompt, chosen, rejected, and their tokens: base draws, labelled as by Bradley and Terry (1952).

    The chance that the first of two is the chosen one is σ(β·(r₁ − r₂)).
    """
    found = PairDraws(work, floor=float(np.log(recipe.floor)), beta=recipe.beta).batch(work.rows(0, 2 * count, 2))
    assert found.group is not None and found.weight is not None
    texts, rows = found.draws.texts, []
    for chosen, rejected in np.lexsort((-found.weight, found.group)).reshape(count, 2):
        prompt = work.policy.render(work.prompts[int(found.draws.prompt[chosen])])
        rows.append({"prompt": prompt, "chosen": texts[chosen], "rejected": texts[rejected]})
    return rows, int(found.draws.length.sum())


def draws_each(batch: int, prompts: int) -> int:
    """Draws of a prompt in a step: the most that divide the batch and leave some to each prompt, and never one."""
    found = [n for n in range(2, batch + 1) if batch % n == 0]
    return max((n for n in found if n <= batch // prompts), default=found[0])


def _adapter(work: Work) -> Adapter:
    """The adapter of a policy, as peft knows it; raises Unsupported where it has none."""
    model = work.policy.model
    found = model.trained if isinstance(model, Adapted) else None
    if found is None or found.wrapped is None or found.network.config.is_encoder_decoder:
        raise Unsupported(f"trl: trains decoders of transformers, and {work.policy.name} is none")
    return found


def _until(ids: Sequence[int], eos: frozenset[int]) -> list[int]:
    """The ids up to the first EOS, with it."""
    end = next((i for i, one in enumerate(ids) if one in eos), len(ids) - 1)
    return [int(one) for one in ids[: end + 1]]


def _watch(peer: Peer, began: float, advance: Any) -> Any:
    """What trl calls after each step: a line of the curve, the report, and the end of the minutes."""
    from transformers import TrainerCallback, TrainerState

    minutes, steps = peer.recipe.minutes, peer.recipe.steps

    class Watch(TrainerCallback):  # type: ignore[misc]
        shown = 0

        def on_log(self, args: Any, state: TrainerState, control: Any, logs: Any = None, **more: Any) -> None:
            if "loss" not in (logs or {}):
                return
            seconds, spent = time.monotonic() - began, peer.work.spent
            told = {"step": float(state.global_step)}
            told |= {ours: float(logs[theirs]) for ours, theirs in LOGGED.items() if theirs in logs}
            told |= {**peer.work.seen, "seconds": seconds, "drawn": float(spent.drawn), "scored": float(spent.scored),
                     "trained": float(spent.trained)}  # fmt: skip
            peer.curve.append(told)
            share = state.global_step / steps if steps else seconds / (60 * (minutes or 1))
            left = seconds / share * (1 - share) if share < 1 else 0.0
            peer.work.setting.report(state.global_step, {**told, "left": left})
            done = int(min(1.0, share) * (steps or 100))
            advance(done - self.shown)
            self.shown = done

        def on_step_end(self, args: Any, state: TrainerState, control: Any, **more: Any) -> None:
            peer.work.book(scored=peer.of_pairs, trained=peer.of_pairs)
            if minutes is not None and time.monotonic() - began >= 60 * minutes:
                control.should_training_stop = True

    return Watch()
