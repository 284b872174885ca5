"""From a generator on a task to Evidence: draw, measure features, score under every model. GPU work ends here."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

try:
    import resource
except ImportError:  # Windows does not say
    resource = None  # type: ignore[assignment]

from alignbench.errors import RunError, Unsupported, UsageError
from alignbench.generators.law import Law, Warp, compare
from alignbench.seeds import Seed
from alignbench.stats.normaliser import log_z_by_prompt
from alignbench.store import DrawStore, Stored, Wish
from alignbench.target import Target
from alignbench.task import Task
from alignbench.truth import exact_values
from alignbench.types import Array, Cost, Distribution, Draws, Evidence, Fit, Sampler, Scored, rows_of

Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""progress(what, total) is a context that gives a function to call with the number of draws just done."""

RESCORING = 0.1
"""Nats: a law that rescores its own draws further off is not trusted; fp32 stays within 1e-4, bf16 near 0.05."""
EDGE = 0.25
"""Share of its own draws that a law may rescore as impossible: a token at the very edge of a nucleus may come out as
cut, once in a while in fp32 and more often in bf16; a forgotten mask does it to most draws."""


@dataclass
class Bench:
    """One task on one base: the prompts, the fitted target and the reference draws that all generators share."""

    task: Task
    base: Any
    base_name: str
    store: DrawStore
    draws: int
    seed: Seed
    progress: Progress
    limit: int | None = None  # the run's --limit, for the record: the task is already cut to it
    judge: Law | None = None
    fresh: int = field(default=0, init=False)  # draws that were not found on disk

    def __post_init__(self) -> None:
        if not isinstance(self.base, Distribution):
            raise Unsupported(f"base '{self.base_name}': needs log_prob, else nothing can be measured against it")

    @property
    def prompts(self) -> tuple[str, ...]:
        """The task's prompts."""
        return self.task.prompts

    def check(self, generator: Any = None, what: str = "a KL divergence between them") -> None:
        """Raise UsageError before anything is drawn, where a prompt does not fit or tokenizers differ."""
        law = self.base if generator is None else generator
        if not isinstance(law, Law):
            return
        law.check(self.prompts, self.task.max_tokens)
        if isinstance(self.base, Law) and law.vocab.fingerprint != self.base.vocab.fingerprint:
            raise UsageError(
                f"{law.name} and {self.base.name} have different tokenizers: {what} is not "
                "defined; run them apart, or give a --base that shares the tokenizer"
            )

    @cached_property
    def target(self) -> Target:
        """The task's target with λ fitted on the stream `fit` and tested on `heldout`."""
        target = replace(self.task.target, measures=self.task.features)
        nothing: tuple[dict[str, Array], Array] = {}, np.zeros(0, dtype=int)
        fit, heldout = (self._measured(s) if target.needs_fit else nothing for s in ("fit", "heldout"))
        return target.fitted(*fit, *heldout, self.prompts)

    def _measured(self, stream: str) -> tuple[dict[str, Array], Array]:
        """Features of fresh base draws of a stream, and which prompt each is of."""
        draws = self._draw(f"{stream} draws of the base", self.base, stream).draws
        return {name: measure(self.prompts, draws) for name, measure in self.task.features.items()}, draws.prompt

    @cached_property
    def ref(self) -> Scored:
        """The reference draws, shared by all generators, scored under base and target."""
        stored = self._draw("reference draws of the base", self.base, "ref")
        log_base = self._log_base(stored.draws)
        assert log_base is not None
        return self._scored(stored.draws, log_base)

    def _draw(self, what: str, generator: Sampler, stream: str) -> Stored:
        rows = rows_of(len(self.prompts), self.draws)
        with self.progress(f"{self.task.name}: {what}", len(rows)) as advance:
            wish = Wish(self.prompts, rows, self.task.max_tokens, self.seed.on(stream))
            stored = self.store.sample(generator, identity_of(generator), wish, advance)
        self.fresh += stored.fresh
        return stored

    def _scored(self, draws: Draws, log_base: Array | None, **scores: Array | None) -> Scored:
        features = self.target.measure(self.prompts, draws)
        ratio = self.target.log_ratio(features, draws.prompt)
        log_judge = self.judge.log_prob(self.prompts, draws) if self.judge and log_base is not None else log_base
        return Scored(
            draws=draws, features=features, log_base=log_base,
            log_target=None if log_base is None else log_base + ratio,
            log_gen=scores.get("log_gen"), log_judge=log_judge, kl_base=scores.get("kl_base"),
        )  # fmt: skip

    def _log_base(self, draws: Draws, drawn_from_base: bool = True) -> Array | None:
        """Log a of draws; free where they were drawn from the base itself, None where the base cannot read them."""
        plain = isinstance(self.base, Law) and self.base.warp == Warp()
        if drawn_from_base and plain and draws.model_log_prob is not None:
            return draws.model_log_prob
        if drawn_from_base and draws.log_prob is not None:
            return draws.log_prob
        if isinstance(self.base, Law) and (draws.tokens is None or draws.vocab != self.base.vocab.fingerprint):
            return None
        return np.asarray(self.base.log_prob(self.prompts, draws))

    def measure(self, label: str, generator: Any) -> Evidence:
        """Everything that is measured about `generator`; raises RunError when it kept no draw of some prompt."""
        ref = self.ref
        stored = self._draw(label, generator, "own")
        own = stored.draws if stored.draws.accepted is None else stored.draws.take(stored.draws.accepted)
        self._check_kept(own, stored.draws)
        with self.progress(f"{self.task.name}: scoring {label}", 1) as advance:
            scored, log_gen_ref, reasons = self._score(generator, own)
            advance(1)
        return self._evidence(
            scored, replace(ref, log_gen=log_gen_ref), cost=_cost(stored, own, generator), reasons=reasons,
            selection=getattr(generator, "selection", None), is_base=generator is self.base,
            proposed=_proposed(stored.draws),
            truncates=bool(getattr(generator, "truncates", False)), truth=self._truth(generator),
        )  # fmt: skip

    def _evidence(self, own: Scored, ref: Scored, **more: Any) -> Evidence:
        return Evidence(
            own=own, ref=ref, fit=self._fit, prompts=self.prompts, references=self.task.references,
            categories=dict(self.target.categories),
            judge=self.judge.name if self.judge else "", base=self.base_name, max_tokens=self.task.max_tokens, **more,
        )  # fmt: skip

    @cached_property
    def _fit(self) -> Fit:
        """λ and log Ẑ of each prompt, with their errors."""
        assert self.target.fit is not None
        ref = self.ref
        log_z, error = log_z_by_prompt(ref.draws.prompt, self.target.log_ratio(ref.features, ref.draws.prompt))
        return replace(self.target.fit, log_z=log_z, log_z_stderr=error)

    def _check_kept(self, own: Draws, drawn: Draws) -> None:
        kept = np.bincount(own.prompt, minlength=len(self.prompts))
        if (kept == 0).any():
            worst = self.prompts[int(kept.argmin())]
            spent = 0 if drawn.proposals is None else int(drawn.proposals.max())
            raise RunError(
                f"every one of {self.draws} draws of prompt '{worst}' used up its {spent} "
                "proposals; raise the cap or ask for less"
            )

    def _score(self, generator: Any, own: Draws) -> tuple[Scored, Array | None, dict[str, str]]:
        """Own draws scored, log π of the reference draws, and why what is missing is missing."""
        reasons: dict[str, str] = {}
        if generator is self.base:
            log_base = self._log_base(own)
            zeros = np.zeros(len(own))
            return self._scored(own, log_base, log_gen=log_base, kl_base=zeros), self.ref.log_base, reasons
        if isinstance(generator, Law) and isinstance(self.base, Law):
            return self._score_law(generator, own, reasons)
        selection = getattr(generator, "selection", None)
        log_base = self._log_base(own, drawn_from_base=selection is not None)
        log_gen = log_gen_ref = None
        if isinstance(generator, Distribution) and log_base is not None:
            log_gen = np.asarray(generator.log_prob(self.prompts, own))
            reasons |= _rescored(own, log_gen)
            log_gen = None if reasons else log_gen if own.log_prob is None else own.log_prob
        if log_gen is not None:
            log_gen_ref = np.asarray(generator.log_prob(self.prompts, self.ref.draws))
        if log_base is None:
            reasons["log_base"] = "the generator's tokens are not the base's, so the base cannot score them"
        if log_gen is None:
            reasons.setdefault("log_gen", reasons.get("log_base", "the generator has no density (no log_prob)"))
        reasons["kl_base"] = "the generator's next-token distributions are not known"
        return self._scored(own, log_base, log_gen=log_gen), log_gen_ref, reasons

    def _score_law(self, law: Law, own: Draws, reasons: dict[str, str]) -> tuple[Scored, Array | None, dict[str, str]]:
        again, log_base, kl_base = compare(law, self.base, self.prompts, own)
        reasons |= _rescored(own, again)
        if reasons:
            return self._scored(own, log_base), None, reasons
        log_gen_ref = law.log_prob(self.prompts, self.ref.draws)
        return self._scored(own, log_base, log_gen=own.log_prob, kl_base=kl_base), log_gen_ref, reasons

    def _truth(self, generator: Any) -> Mapping[str, float] | None:
        return exact_values(self.base, generator, self.target, self.prompts, self.task.max_tokens)

    def ceiling(self) -> Evidence:
        """Draws of p itself, from the reference draws by rejection: what a perfect generator would score.

        Raises Unsupported where log P − log a has no known bound or a prompt has no such draw.
        """
        bound = self.target.log_bound(len(self.prompts))
        if bound is None:
            raise Unsupported("draws of p: log P − log a has no known bound")
        draws, log_base = self.ref.draws, self.ref.log_base
        ratio = self.target.log_ratio(self.ref.features, draws.prompt)
        coin = [self.seed.on("ref").salted(1).rng(self.prompts[c], i).random()
                for c, i in zip(draws.prompt, draws.index, strict=True)]  # fmt: skip
        rows = np.flatnonzero(np.array(coin) < np.exp(ratio - bound[draws.prompt]))
        if len(np.unique(draws.prompt[rows])) < len(self.prompts):
            raise Unsupported("draws of p: none among the reference draws of some prompt")
        assert log_base is not None
        own = self._scored(draws.take(rows), log_base[rows])
        return self._evidence(own, self.ref, reasons={"log_gen": "draws of p itself"})


def identity_of(generator: Any) -> Mapping[str, Any] | None:
    """Plain data that a generator's draws depend on; None (nothing is stored) where it does not say."""
    identity = getattr(generator, "identity", None)
    return None if identity is None else identity()


def _rescored(own: Draws, again: Array) -> dict[str, str]:
    """Why a law that scores its own draws as `again` (B,) nats is not trusted; empty where it agrees with itself."""
    if own.log_prob is None:
        return {}
    finite = np.isfinite(again)
    gap, cut = float(np.abs(again - own.log_prob)[finite].max(initial=0.0)), float(np.mean(~finite))
    if gap > RESCORING:
        return {"log_gen": f"rescoring its own draws is off by up to {gap:.2g} nats (limit {RESCORING})"}
    if cut > EDGE:
        return {"log_gen": f"rescoring calls {cut:.0%} of its own draws impossible (limit {EDGE:.0%})"}
    return {}


def _proposed(drawn: Draws) -> Array | None:
    """(N, 3) prompt, proposals and acceptance of every draw that was asked for; None where nothing is rejected."""
    if drawn.proposals is None or drawn.accepted is None:
        return None
    return np.stack([drawn.prompt, drawn.proposals, drawn.accepted], axis=1)


def _cost(stored: Stored, own: Draws, generator: Any) -> Cost:
    drawn = stored.draws
    spent = drawn.length if drawn.spent is None else drawn.spent
    return Cost(
        seconds=stored.seconds, tokens=int(spent.sum()), kept=len(own), exhausted=len(drawn) - len(own),
        proposals=len(drawn) if drawn.proposals is None else int(drawn.proposals.sum()), peak_bytes=_peak_bytes(),
        device=str(getattr(getattr(generator, "model", None), "device", "")),
    )  # fmt: skip


def _peak_bytes() -> int | None:
    """The process's memory high-water mark, or the GPU's where one was used."""
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        return int(torch.cuda.max_memory_allocated())
    if resource is None:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)  # macOS counts bytes, Linux KiB
