"""From a generator on a task to Evidence: draw, measure features, score under every model. GPU work ends here."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

try:
    import resource
except ImportError:  # Windows does not say
    resource = None  # type: ignore[assignment]

from alignbench.aligners.base import Setting
from alignbench.errors import RunError, Unsupported, UsageError, brief, plain_failures
from alignbench.generators.base import Slotted
from alignbench.generators.law import Law, compare
from alignbench.generators.warp import PLAIN
from alignbench.seeds import APART, Seed
from alignbench.stats.mixture import joined_groups, log_proposal
from alignbench.stats.normaliser import log_z_by_prompt
from alignbench.store import DrawStore, Stored, Wish, digest
from alignbench.target import Target
from alignbench.target.truth import exact_values
from alignbench.task import Task
from alignbench.types import Array, Cost, Distribution, Draws, Evidence, Fit, Sampler, Scored, Selection, rows_of

Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""progress(what, total) is a context that gives a function to call with the number of draws just done."""

RESCORING = 0.1
"""Nats: in float32 a law that rescores any of its own draws further off is not trusted; it stays within 1e-3."""
HALF = 0.02
"""Nats per token, mean over draws: the same in half precision. Measured on SmolLM2-135M in bf16, 32 tokens: 0.26 nats a
draw (0.008 per token), at most 0.74; there every log-probability comes from the same kind of pass, so that most of it
cancels in a divergence."""
WEIGHED = 1000 * APART
"""Sample numbers of the draws by which the proposal of a generator is weighed begin here."""
EDGE = 0.25
"""Share of its own draws that a law may rescore as impossible: a token at the very edge of a nucleus may come out as
cut, once in a while in fp32 and more often in bf16; a forgotten mask does it to most draws."""


@contextmanager
def silent(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """No progress shown."""
    yield lambda count: None


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
    whole: int = 0  # prompts of the task before that cut
    judge: Any = None
    judge_name: str = ""
    fresh: int = field(default=0, init=False)  # draws that were not found on disk

    def __post_init__(self) -> None:
        for what, given in (("base", self.base_name), ("judge", self.judge_name)):
            scorer = getattr(self, what)
            if scorer is not None and not isinstance(scorer, Distribution):
                raise Unsupported(f"{what} '{given}': has no log_prob, so it cannot score draws")

    @property
    def prompts(self) -> tuple[str, ...]:
        """The task's prompts."""
        return self.task.prompts

    @property
    def base_identity(self) -> Mapping[str, Any] | None:
        """Plain data that the base's draws depend on; None where it does not say."""
        return identity_of(self.base)

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

    @property
    def setting(self) -> Setting:
        """What aligners are put to work on."""
        task, seed = self.task, self.seed.on("train")
        return Setting(self.base, self.target, self.prompts, task.max_tokens, seed, task.train)

    @cached_property
    def target_id(self) -> str:
        """8 hex digits of what p is: task, base and the fitted λ."""
        lam = self.target.fit.lam.tolist() if self.target.fit is not None else []
        return digest({"task": self.task.hash, "base": identity_of(self.base), "lam": lam})[:8]

    @cached_property
    def ref(self) -> Scored:
        """The reference draws, shared by all generators, scored under base and target."""
        draws = self._draw("reference draws of the base", self.base, "ref").draws
        log_base = self._log_base(draws)
        assert log_base is not None
        return self._mixed(draws, log_base) if self.task.proposals else self._scored(draws, log_base)

    def _mixed(self, draws: Draws, log_base: Array) -> Scored:
        """Draws of the base and as many of each of the task's proposals, weighed by their mixture."""
        parts, laws = [draws], self._proposals()
        for j, (label, law) in enumerate(laws.items(), start=1):
            parts.append(self._draw(f"reference draws of {label}", law, "ref", first=j * APART).draws)
        joined = replace(Draws.concat(parts), group=joined_groups([p.group for p in parts], [len(p) for p in parts]))
        others = joined.take(np.arange(len(draws), len(joined)))
        log_base = np.concatenate([log_base, np.asarray(self.base.log_prob(self.prompts, others), float)])
        logs = [log_base]
        for label, law in laws.items():
            with plain_failures(f"log_prob of the proposal '{label}'", RunError):
                logs.append(np.asarray(law.log_prob(self.prompts, joined), float))
        component = np.repeat(np.arange(len(parts)), [len(p) for p in parts])
        return replace(
            self._scored(joined, log_base), component=component,
            log_proposal=log_proposal(joined.prompt, component, np.stack(logs, axis=1)),
        )  # fmt: skip

    def _proposals(self) -> dict[str, Any]:
        """Label → the generator of each of the task's proposals; raises Unsupported for one without a density."""
        found = {}
        for spec in self.task.proposals:
            where = f"task '{self.task.name}': proposal '{spec.label}'"
            law = self.setting.built(spec, where)
            if not isinstance(law, Distribution):
                raise Unsupported(f"{where}: has no log_prob, which the mixture of reference draws needs")
            self.check(law)
            found[spec.label] = law
        return found

    def _draw(self, what: str, generator: Sampler, stream: str, first: int = 0) -> Stored:
        rows = rows_of(len(self.prompts), self.draws) + np.array([0, first])
        with self.progress(f"{self.task.name}: {what}", len(rows)) as advance:
            wish = Wish(self.prompts, rows, self.task.max_tokens, self.seed.on(stream))
            stored = self.store.sample(generator, identity_of(generator), wish, advance)
        self.fresh += stored.fresh
        for law in (*_drawn_on(generator), self.base):  # memory kept for the next batch
            model = getattr(law, "model", None)
            if isinstance(model, Slotted):
                model.forget()
        return stored

    def _scored(self, draws: Draws, log_base: Array | None, **scores: Array | None) -> Scored:
        features = self.target.measure(self.prompts, draws)
        ratio = self.target.log_ratio(features, draws.prompt)
        log_judge = self.judge.log_prob(self.prompts, draws) if self.judge and log_base is not None else log_base
        return Scored(
            draws=draws, features=features, log_base=log_base,
            log_target=None if log_base is None else log_base + ratio,
            log_gen=scores.get("log_gen"), log_judge=log_judge, kl_base=scores.get("kl_base"),
            phi=self.target.moments(features) if self.target.needs_fit else None,
        )  # fmt: skip

    def _log_base(self, draws: Draws, drawn_from_base: bool = True) -> Array | None:
        """Log a of draws; free where they were drawn from the base itself, None where the base cannot read them."""
        free = drawn_from_base and not _is_half(self.base)
        plain = isinstance(self.base, Law) and self.base.warp == PLAIN
        if free and plain and draws.model_log_prob is not None:
            return draws.model_log_prob
        if free and draws.log_prob is not None:
            return draws.log_prob
        if isinstance(self.base, Law) and (draws.tokens is None or draws.vocab != self.base.vocab.fingerprint):
            return None
        return np.asarray(self.base.log_prob(self.prompts, draws))

    def measure(self, label: str, generator: Any) -> Evidence:
        """Everything that is measured about `generator`; raises RunError when it kept no draw of some prompt."""
        ref = self.ref
        _reset_peak()
        stored = self._draw(label, generator, "own")
        own = stored.draws if stored.draws.accepted is None else stored.draws.take(stored.draws.accepted)
        self._check_kept(own, stored.draws)
        with self.progress(f"{self.task.name}: scoring {label}", 1) as advance:
            scores = self._score(generator, own)
            advance(1)
        proposal = self._proposal(generator)
        log_gen = scores.log_gen_ref if proposal is None else proposal.log_prob(self.prompts, ref.draws)
        ref = replace(ref, log_gen=log_gen, rank=self._rank(generator, ref))
        return self._evidence(
            scores.own, ref, cost=_cost(stored, own, generator),
            reasons=scores.reasons, rescoring=scores.rescoring,
            selection=getattr(generator, "selection", None), is_base=generator is self.base,
            proposed=_proposed(stored.draws), proposal=self._weighed(proposal),
            remark=getattr(generator, "remark", ""),
            truncates=bool(getattr(generator, "truncates", False)), truth=self._truth(generator),
        )  # fmt: skip

    def _rank(self, generator: Any, ref: Scored) -> Array | None:
        """What `generator` ranks the reference draws by; None where that is log P − log a, or it does not rank."""
        rank = getattr(generator, "rank", None)
        return None if rank is None else np.asarray(rank(self.prompts, ref.draws), dtype=float)

    def _proposal(self, generator: Any) -> Any:
        """What `generator` selects from; None where that is the base, or it does not select."""
        proposal = getattr(generator, "proposal", None)
        selects = getattr(generator, "selection", None) is not None
        return proposal if selects and proposal is not self.base else None

    def _weighed(self, proposal: Any) -> Scored | None:
        """Fresh draws of what a generator selects from, scored under it, base and target; None: the base."""
        if proposal is None:
            return None
        draws = self._draw("draws of its proposal", proposal, "ref", first=WEIGHED).draws
        log_q = draws.log_prob if draws.log_prob is not None else proposal.log_prob(self.prompts, draws)
        return self._scored(draws, self._log_base(draws, drawn_from_base=False), log_gen=np.asarray(log_q, dtype=float))

    def _evidence(self, own: Scored, ref: Scored, **more: Any) -> Evidence:
        return Evidence(
            own=own, ref=ref, fit=self._fit, prompts=self.prompts, references=self.task.references,
            categories=dict(self.target.categories),
            judge=self.judge_name, judge_is_base=self.judge is None, base=self.base_name,
            max_tokens=self.task.max_tokens, **more,
        )  # fmt: skip

    @cached_property
    def _fit(self) -> Fit:
        """λ and log Ẑ of each prompt, with their errors."""
        assert self.target.fit is not None
        ref, law = self.ref, self.ref.log_base if self.ref.log_proposal is None else self.ref.log_proposal
        assert ref.log_target is not None and law is not None
        log_z, error = log_z_by_prompt(ref.draws.prompt, ref.log_target - law, ref.draws.group, ref.component)
        return replace(self.target.fit, log_z=log_z, log_z_stderr=error)

    def _check_kept(self, own: Draws, drawn: Draws) -> None:
        kept = np.bincount(own.prompt, minlength=len(self.prompts))
        if (kept == 0).any():
            worst = self.prompts[int(kept.argmin())]
            spent = 0 if drawn.proposals is None else int(drawn.proposals.max())
            raise RunError(
                f"every one of {self.draws} draws of prompt {brief(worst)} used up its {spent} "
                "proposals; raise the cap (of sir: n) or ask for less"
            )

    def _score(self, generator: Any, own: Draws) -> _Scores:
        """Own draws scored, log π of the reference draws, and why what is missing is missing."""
        if generator is self.base:
            log_base = self._log_base(own)
            scored = self._scored(own, log_base, log_gen=log_base, kl_base=np.zeros(len(own)))
            return _Scores(scored, self.ref.log_base)
        if isinstance(generator, Law) and isinstance(self.base, Law):
            again, log_base, kl_base = compare(generator, self.base, self.prompts, own)
            return self._trusted(generator, own, again, log_base, kl_base)
        selected = getattr(generator, "selection", None) is not None
        log_base = self._log_base(own, drawn_from_base=selected and self._proposal(generator) is None)
        if isinstance(generator, Distribution) and log_base is not None:
            with plain_failures("log_prob of the generator", RunError):
                again = np.asarray(generator.log_prob(self.prompts, own), dtype=float)
                return self._trusted(generator, own, again, log_base, None)
        unread = "the generator's tokens are not the base's, so the base cannot score them"
        no_density = unread if log_base is None else "the generator has no density (no log_prob)"
        reasons = {"log_gen": no_density, **UNKNOWN_STEPS, **({"log_base": unread} if log_base is None else {})}
        return _Scores(self._scored(own, log_base), None, reasons)

    def _trusted(
        self, generator: Any, own: Draws, again: Array, log_base: Array | None, kl_base: Array | None
    ) -> _Scores:
        """The scores of a generator with a density, unless rescoring (`again`) contradicts what sampling said."""
        half = _is_half(generator)
        gap, refused = rescored(own, again, half)
        if refused:
            return _Scores(self._scored(own, log_base), None, {"log_gen": refused}, gap)
        # a token at the very edge of a nucleus may be rescored as cut: there the record of sampling stands
        said = again if own.log_prob is None else own.log_prob
        log_gen = np.where(np.isfinite(again), again, said) if half else said
        log_gen_ref = np.asarray(generator.log_prob(self.prompts, self.ref.draws), dtype=float)
        scored = self._scored(own, log_base, log_gen=log_gen, kl_base=kl_base)
        return _Scores(scored, log_gen_ref, {} if kl_base is not None else dict(UNKNOWN_STEPS), gap)

    def _truth(self, generator: Any) -> Mapping[str, float] | None:
        """Exact values; None where the world is too large to be listed."""
        try:
            return exact_values(self.base, generator, self.target, self.prompts, self.task.max_tokens)
        except UsageError:
            return None

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
        kept = np.array(coin) < np.exp(ratio - bound[draws.prompt])
        rows = np.flatnonzero(kept & self.ref.of_base)  # only draws of the base can be rejected into p
        if len(np.unique(draws.prompt[rows])) < len(self.prompts):
            raise Unsupported("draws of p: none among the reference draws of some prompt")
        assert log_base is not None
        own = self._scored(draws.take(rows), log_base[rows])
        reasons = {"log_gen": "draws of p itself"}
        return self._evidence(own, self.ref, reasons=reasons, selection=Selection("first", 1))


def identity_of(generator: Any) -> Mapping[str, Any] | None:
    """Plain data that a generator's draws depend on; None (nothing is stored) where it does not say."""
    identity = getattr(generator, "identity", None)
    if identity is None:
        return None
    with plain_failures(f"identity() of {type(generator).__name__}", UsageError):
        found = identity()
        return None if found is None else dict(json.loads(json.dumps(found)))


def _drawn_on(generator: Any) -> Iterator[Any]:
    """A generator, its proposal, if it draws from one, the proposal of that, and so on."""
    while generator is not None:
        yield generator
        generator = getattr(generator, "proposal", None)


@dataclass(frozen=True)
class _Scores:
    """What the models say of a generator's draws, and of the reference draws under it."""

    own: Scored
    log_gen_ref: Array | None
    reasons: Mapping[str, str] = field(default_factory=dict)
    rescoring: float | None = None


UNKNOWN_STEPS = {"kl_base": "the generator's next-token distributions are not known"}


def rescored(own: Draws, again: Array, half: bool) -> tuple[float | None, str]:
    """Max |Δ| in nats between sampling and rescoring, and why that is not to be trusted ("" where it is).

    `again` (B,) is the rescoring; `half` says that the models compute in half precision.
    """
    if own.log_prob is None:
        lost = float(np.mean(~np.isfinite(again)))
        return None, f"the generator calls {lost:.0%} of its own draws impossible" if lost else ""
    off = np.abs(again - own.log_prob)
    finite = np.isfinite(again)
    gap, cut = float(off[finite].max(initial=0.0)), float(np.mean(~finite))
    per_token = float((off / own.length)[finite].mean()) if finite.any() else 0.0
    if half and per_token > HALF:
        return gap, f"rescoring its own draws is off by {per_token:.2g} nats per token on average (limit {HALF})"
    if not half and gap > RESCORING:
        return gap, f"rescoring its own draws is off by up to {gap:.2g} nats (limit {RESCORING})"
    if cut > EDGE:
        return gap, f"rescoring calls {cut:.0%} of its own draws impossible (limit {EDGE:.0%})"
    return gap, ""


def _is_half(generator: Any) -> bool:
    """Whether the network of a law, or of what it masks or searches, computes in half precision."""
    network = None
    while network is None and generator is not None:
        network = getattr(generator, "network", None)
        generator = getattr(generator, "model", getattr(generator, "base", None))
    return str(getattr(network, "dtype", "")).endswith(("bfloat16", "float16"))


def _proposed(drawn: Draws) -> Array | None:
    """(N, 3) prompt, proposals and acceptance of every draw that was asked for; None where nothing is rejected."""
    if drawn.proposals is None or drawn.accepted is None:
        return None
    return np.stack([drawn.prompt, drawn.proposals, drawn.accepted], axis=1)


def _cost(stored: Stored, own: Draws, generator: Any) -> Cost:
    drawn = stored.draws
    spent = drawn.length if drawn.spent is None else drawn.spent
    return Cost(
        seconds=stored.seconds, tokens=int(spent.sum()), kept=len(own),
        calls=int((spent if drawn.calls is None else drawn.calls).sum()), exhausted=len(drawn) - len(own),
        proposals=len(drawn) if drawn.proposals is None else int(drawn.proposals.sum()), peak_bytes=_peak_bytes(),
        device=str(getattr(getattr(generator, "model", None), "device", "")),
        uncounted="; ".join(filter(None, (getattr(law, "uncounted", "") for law in _drawn_on(generator)))),
    )  # fmt: skip


def _reset_peak() -> None:
    """Begin the GPU's high-water mark anew; a process's cannot be."""
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()


def _peak_bytes() -> int | None:
    """The process's memory high-water mark, or the GPU's where one was used."""
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        return int(torch.cuda.max_memory_allocated())
    if resource is None:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)  # macOS counts bytes, Linux KiB
