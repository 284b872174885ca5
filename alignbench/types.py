"""The vocabulary of alignbench: draws, estimates, evidence, and the protocols that plug-ins are written against."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from alignbench.seeds import Seed

Array = NDArray[Any]

CEILING = "draws of p"
"""The generator's name in the row of draws of the target itself."""
CiOver = Literal["prompts_given", "prompts_like_these"]
"""What an interval is meant to hold for: these prompts, each with an equal weight, or others that they stand for."""
PRIMARY = "divergence.kl_target"
"""What a leaderboard is sorted by unless the task says otherwise."""


@dataclass(frozen=True)
class Draws:
    """B sampled continuations, at most T tokens long.

    A draw is a token sequence that ended in an EOS id, or was cut at `max_tokens`; a cut draw has no EOS term.
    """

    prompt: Array  # (B,) int: index into the prompts given
    index: Array  # (B,) int: sample number within its prompt
    texts: tuple[str, ...]  # decoded, special tokens removed
    tokens: Array | None  # (B, T) int: ids as sampled, -1 after the end; None for a remote black box
    length: Array  # (B,) int: tokens drawn, EOS counted
    finished: Array  # (B,) bool: ended by EOS (False: cut at max_tokens)
    log_prob: Array | None  # (B,) nats under the law that drew them; None if it has no density
    token_log_prob: Array | None  # (B, T) the same by token, 0 after the end
    model_log_prob: Array | None  # (B,) nats under the model before the law warped it
    group: Array | None = None  # (B,) int: draws of one dependent run (SMC particles, a Markov chain)
    vocab: str = ""  # fingerprint of the tokenizer; a KL across two fingerprints is refused
    proposals: Array | None = None  # (B,) int: draws of the proposal spent on this one; None: one each
    spent: Array | None = None  # (B,) int: tokens decoded to get this draw; None: its own length
    accepted: Array | None = None  # (B,) bool: False where the proposals ran out and the draw is not from the law
    calls: Array | None = None  # (B,) int: model calls spent on this draw, see `Cost.calls`; None: one for each token

    def __len__(self) -> int:
        return len(self.texts)

    @staticmethod
    def from_texts(rows: Array, texts: Sequence[str]) -> Draws:
        """Draws of a black box that returns text alone: `rows` (B, 2) = (prompt, index), no ids, no density.

        Length is counted in words, since the tokens are not known.
        """
        words = np.array([len(text.split()) for text in texts], dtype=np.int64)
        return Draws(
            prompt=rows[:, 0], index=rows[:, 1], texts=tuple(texts), tokens=None, length=words,
            finished=np.ones(len(texts), dtype=bool), log_prob=None, token_log_prob=None, model_log_prob=None,
        )  # fmt: skip

    def take(self, rows: Array) -> Draws:
        """The draws at `rows` (integers or a mask), in that order."""
        rows = np.flatnonzero(rows) if np.asarray(rows).dtype == bool else np.asarray(rows, dtype=np.int64)
        picked: dict[str, Any] = {
            f.name: value[rows] for f in fields(self) if isinstance(value := getattr(self, f.name), np.ndarray)
        }
        return replace(self, texts=tuple(self.texts[i] for i in rows), **picked)

    @staticmethod
    def concat(parts: Sequence[Draws]) -> Draws:
        """All draws of `parts` in order; token arrays are padded to the longest. Raises ValueError on no parts."""
        if not parts:
            raise ValueError("no draws to concatenate")
        joined: dict[str, Any] = {
            f.name: _join([getattr(p, f.name) for p in parts], pad=-1 if f.name == "tokens" else 0)
            for f in fields(Draws)
            if f.name not in ("texts", "vocab")
        }
        for name, default in (
            ("proposals", lambda d: np.ones(len(d), int)),
            ("spent", lambda d: d.length),
            ("calls", lambda d: d.length if d.spent is None else d.spent),
            ("accepted", lambda d: np.ones(len(d), bool)),
        ):
            if any(getattr(p, name) is not None for p in parts):
                values = [default(p) if getattr(p, name) is None else getattr(p, name) for p in parts]
                joined[name] = np.concatenate(values)
        return Draws(texts=tuple(t for p in parts for t in p.texts), vocab=parts[0].vocab, **joined)

    def sorted(self) -> Draws:
        """The same draws ordered by prompt, then sample number."""
        return self.take(np.lexsort((self.index, self.prompt)))


def _join(values: list[Array | None], pad: int) -> Array | None:
    """The arrays one after the other, columns padded with `pad`; None if any is missing."""
    present = [v for v in values if v is not None]
    if len(present) < len(values):
        return None
    if present[0].ndim == 1:
        return np.concatenate(present)
    width = max(v.shape[1] for v in present)
    return np.concatenate([np.pad(v, ((0, 0), (0, width - v.shape[1])), constant_values=pad) for v in present])


@dataclass(frozen=True)
class Estimate:
    """A number that knows its error.

    `value` None means it was not measured and `note` says why; infinity is a value. An interval may be one-sided
    (a bound) when `value` is None. `ci_low`/`ci_high` are 95 % limits.
    """

    value: float | None
    stderr: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    n: int = 0
    ess: float | None = None
    note: str = ""

    @staticmethod
    def missing(note: str, n: int = 0, **bounds: float) -> Estimate:
        """A quantity that could not be measured, and why."""
        return Estimate(value=None, n=n, note=note, **bounds)

    def noted(self, note: str) -> Estimate:
        """The same number with one more note."""
        return replace(self, note="; ".join(filter(None, (self.note, note))))


@dataclass(frozen=True)
class Selection:
    """A law that keeps one of `n` draws of a proposal q, by their weights P/q; no density of it is needed.

    q is the base, unless the evidence has draws of another (`Evidence.proposal`).
    "best": the largest `Scored.rank` of n base draws, ties broken at random (best-of-n); without ranks, the largest
    r = log P − log a.
    "first": the first accepted, each with probability P/q over a bound of it (rejection); draws that used up their n
    proposals are left out, so what is kept is exactly p whatever n is, if q says all that p says.
    "quasi": the first accepted, each with probability min(1, P/(βq)), so that π ∝ min(P, βq) (quasi-rejection).
    "resampled": one of n drawn with probability ∝ P/q (sampling importance resampling).
    "filtered": the first that keeps the hard constraints, b = 1, so that π ∝ q·b; draws without one are left out.
    """

    kind: Literal["best", "first", "quasi", "resampled", "filtered"]
    n: int
    log_beta: tuple[float, ...] = ()  # "quasi": log β of each prompt, nats


@dataclass(frozen=True)
class Wanted:
    """One thing that a constraint asks: feature `feature` (category `category`) should be `value`."""

    feature: str
    kind: Literal["always", "moment", "distribution", "reward"]
    category: str = ""
    value: float | None = None


@dataclass(frozen=True)
class Fit:
    """What the target asks, and what was fitted to make the base reach it.

    `lam` is (1, K) for one λ for the task or (C, K) for one per prompt, K = number of free moments (maybe 0).
    """

    wanted: tuple[Wanted, ...]
    lam: Array  # (1 or C, K) nats per unit of moment
    lam_stderr: Array  # the same shape
    heldout: Mapping[str, Estimate] = field(default_factory=dict)  # moment name → E_p[feature] − wanted, fresh draws
    log_z: Array | None = None  # (C,) nats, estimated from the shared reference draws
    log_z_stderr: Array | None = None  # (C,)
    log_bound: Array | None = None  # (C,) nats: max over x of log P − log a; None where no bound is known
    bins: Mapping[str, Array] = field(default_factory=dict)  # asked number → edges between its values, or p's tenths


@dataclass(frozen=True)
class Training:
    """What it took to train a generator: wall seconds, tokens drawn, scored and trained on, optimiser steps, memory."""

    seconds: float = 0.0
    drawn: int = 0
    scored: int = 0
    trained: int = 0
    steps: int = 0
    peak_bytes: int = 0  # the memory's high-water mark; 0: not measured

    def __add__(self, other: Training) -> Training:
        """One after the other: the larger peak, and the sums of all else."""
        summed = {f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(Training)}
        return Training(**summed | {"peak_bytes": max(self.peak_bytes, other.peak_bytes)})


@dataclass(frozen=True)
class Cost:
    """What it took to get the draws: wall seconds, tokens decoded, proposals, and the memory's high-water mark."""

    seconds: float | None = None
    tokens: int = 0
    calls: int = 0  # next-token distributions asked of a model for one row, whether drawn from or scored
    proposals: int = 0
    kept: int = 0
    exhausted: int = 0  # draws left out because their proposals ran out
    peak_bytes: int | None = None
    device: str = ""
    uncounted: str = ""  # what was drawn once, before all draws, and is in none of these
    training: Training | None = None  # of the generator, before all draws; in none of these


@dataclass(frozen=True)
class Scored:
    """Draws with everything that the models and features say of them; (B,) arrays, nats."""

    draws: Draws
    features: Mapping[str, Array]
    log_base: Array | None
    log_target: Array | None  # log P, unnormalised; −inf where a hard constraint is broken
    log_gen: Array | None  # log π; of reference draws where π selects from another proposal, its log q
    log_judge: Array | None
    kl_base: Array | None = None  # Σ_t KL(π(·|x_<t) ‖ a(·|x_<t)) of each draw (Rao-Blackwell)
    phi: Array | None = None  # (B, K) moments, centred: E_p[φ] = 0 is wanted, and λ·φ is their part of log P
    log_proposal: Array | None = None  # log of the mixture that drew them; None: one law did
    component: Array | None = None  # int: which law of that mixture, 0 the base
    rank: Array | None = None  # (B,) what best-of-n ranks by, where that is not log P − log a
    cell: Array | None = None  # int: of what is asked, where it was settled with more draws (replicates); −1: p is 0

    @property
    def of_base(self) -> Array:
        """(B,) bool: the reference draws of the base itself, which closed forms and rejection count."""
        return np.ones(len(self.draws), bool) if self.component is None else np.asarray(self.component == 0)


@dataclass(frozen=True)
class Evidence:
    """Everything measured about one generator on one task; metrics are functions of this alone."""

    own: Scored  # draws of the generator under test
    ref: Scored  # draws of the base, or of its mixture with the task's proposals, shared by all generators
    fit: Fit
    prompts: Sequence[str]
    references: Sequence[Sequence[str]] | None = None
    cost: Cost = field(default_factory=Cost)
    proposed: Array | None = None  # (N, 3) prompt, proposals, accepted of every draw asked for, left out ones too
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # categorical feature → its categories
    selection: Selection | None = None  # how π picks among draws of a proposal, where that is what it does
    proposal: Scored | None = None  # draws of that proposal, log q as `log_gen`; None: it is the base
    remark: str = ""  # what the generator says of its law, such as that it is a point mass; noted with divergences
    is_base: bool = False  # the generator is the base itself
    truncates: bool = False  # the law may give probability 0 to what the base can say
    judge: str = ""  # name of the judge
    judge_is_base: bool = True
    rescoring: float | None = None  # max |Δ| in nats between sampling and rescoring own draws
    base: str = ""
    max_tokens: int = 0
    reasons: Mapping[str, str] = field(default_factory=dict)  # missing array → why it is missing
    truth: Mapping[str, float] | None = None  # exact values, where the world can be enumerated


@runtime_checkable
class Sampler(Protocol):
    """Anything that can be asked for draws."""

    def sample(self, prompts: Sequence[str], rows: Array, *, max_tokens: int, seed: Seed) -> Iterable[Draws]:
        """Draws for `rows` (R, 2) = (prompt, index) in any order, yielded as they finish."""
        ...


@runtime_checkable
class Distribution(Sampler, Protocol):
    """A sampler that knows its own normalised density."""

    def log_prob(self, prompts: Sequence[str], draws: Draws) -> Array:
        """(B,) nats, normalised; −inf off the support."""
        ...


class Described(Protocol):
    """What a run asks of any generator besides draws; each attribute may be missing, see `generators.described`.

    There too: `rank` of a selection, `vocab` of a generator with tokens, `device`, and what only laws say.
    """

    name: str
    truncates: bool
    remark: str
    uncounted: str
    selection: Selection | None
    proposal: Sampler | None

    def identity(self) -> Mapping[str, Any] | None:
        """Plain data that its draws depend on; None: they are not stored."""
        ...


@runtime_checkable
class Checked(Protocol):
    """A generator that can tell before a draw whether it can read prompts."""

    def check(self, prompts: Sequence[str], max_tokens: int) -> None:
        """Raise UsageError where a prompt is unknown to it, or does not fit with so many tokens."""
        ...


@runtime_checkable
class Warpable(Protocol):
    """A generator with decoding settings."""

    def warped(self, **settings: Any) -> Sampler:
        """The same with some settings changed; raises UsageError on one that means nothing."""
        ...


@runtime_checkable
class Stepwise(Distribution, Protocol):
    """A distribution whose next-token probabilities can be laid beside those of a base of its kind."""

    def beside(self, base: Distribution, prompts: Sequence[str], draws: Draws) -> tuple[Array, Array, Array] | None:
        """(log π, log a, Σ_t KL(π(·|x_<t) ‖ a(·|x_<t))) of each draw, nats; None where the base is of another kind."""
        ...


@runtime_checkable
class Spelled(Protocol):
    """A generator that knows what each of its tokens adds to a text."""

    def token_bytes(self) -> Sequence[bytes]:
        """(V,) the bytes; raises UsageError where its tokenizer does not say them."""
        ...


@runtime_checkable
class Speaking(Protocol):
    """A generator that can tell the texts of its draws from their ids alone."""

    def texts_of(self, prompts: Sequence[str], draws: Draws) -> tuple[str, ...]:
        """(B,) the texts, as `sample` gives them."""
        ...


@runtime_checkable
class Forgetful(Protocol):
    """A generator that keeps memory only to be faster."""

    def forget(self) -> None:
        """Let go of it."""
        ...


Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""progress(what, total) is a context that gives a function to call with how many more of the total are done."""


@contextmanager
def silent(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """No progress shown."""
    yield lambda count: None


Feature = Callable[[Sequence[str], Draws], Array]
Metric = Callable[[Evidence], "Estimate | Mapping[str, Estimate]"]


def rows_of(prompts: int, draws: int) -> Array:
    """(prompts · draws, 2) rows (prompt, index), prompt by prompt."""
    return np.stack([np.repeat(np.arange(prompts), draws), np.tile(np.arange(draws), prompts)], axis=1)


def collect(batches: Iterable[Draws] | Iterator[Draws]) -> Draws:
    """All batches as one, ordered by prompt and sample number."""
    return Draws.concat(list(batches)).sorted()
