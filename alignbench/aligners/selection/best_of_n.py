"""Best-of-n: draw n times, keep the draw that ranks highest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from alignbench.aligners.base import PICKING, Immediate, Named, Setting, checked, whole
from alignbench.aligners.identities import recipe_identity
from alignbench.errors import Unsupported, UsageError, brief, did_you_mean
from alignbench.generators.described import check, described, drawn_on, identity_of, log_prob_of, readable
from alignbench.generators.pool import NoPool, Pool
from alignbench.registry import aligner
from alignbench.seeds import TIES, Seed, attempts
from alignbench.stats.weights import TIE
from alignbench.target import Target
from alignbench.types import Array, Distribution, Draws, Sampler, Selection

RANKS = ("target", "likelihood")
"""What draws can be ranked by besides a feature of the task."""


@aligner("best_of_n", target_driven=True, density="closed form")
@dataclass(frozen=True)
class BestOfN(Immediate):
    """The best of n base draws by the target's ratio, by likelihood or by a feature of the task, ties broken at random.

    `rank`: "target", log P − log a; "likelihood", log a(x), summed over the draw; a feature's name, its value, the
    larger the better. `proposal`: an aligner or a generator to draw from instead of the base, ranked in the same way;
    no closed form then. The declaration is that of the defaults: only `rank` "target" reads the target.
    Source: Stiennon et al., Learning to summarize from human feedback (2020).
    """

    format: ClassVar[int] = PICKING
    n: int = 16
    rank: str = "target"
    proposal: Named | None = None

    def __post_init__(self) -> None:
        whole("best_of_n:n", self.n)
        if not isinstance(self.rank, str):
            raise UsageError(f"best_of_n:rank={brief(self.rank)}: must be {', '.join(RANKS)} or the name of a feature")
        if self.proposal is not None:
            checked(self.proposal, "best_of_n:proposal")

    def align(self, setting: Setting) -> BestOfNSampler:
        """See `Aligner.align`; raises UsageError where the task has no number called `rank`."""
        _check_rank(self.rank, setting.target)
        where, proposal = "best_of_n:proposal", None
        if self.proposal is not None:
            proposal = setting.built(checked(self.proposal, where), where)
            check(proposal, setting.prompts, setting.max_tokens)
        return BestOfNSampler(self, setting.base, setting.target, proposal, setting.pool)


def _check_rank(rank: str, target: Target) -> None:
    """Raise UsageError unless draws can be put in order by `rank`."""
    known = [*RANKS, *(name for name in target.measures if name not in target.categories)]
    if rank in RANKS:
        return
    if rank in target.categories:
        raise UsageError(f"best_of_n:rank={rank}: is categorical, and its codes have no order; rank by a number")
    if rank not in known:
        raise UsageError(f"best_of_n:rank={rank}: is no feature of the task.{did_you_mean(rank, known)}")


@dataclass(frozen=True)
class BestOfNSampler:
    """Draw i is the best of the attempts 0 … n − 1 at the proposal's draw i; `proposal` None: the base."""

    aligner: BestOfN
    base: Distribution
    target: Target
    proposal: Sampler | None = None
    pool: Pool = field(default_factory=NoPool, compare=False)

    @property
    def selection(self) -> Selection | None:
        """How it picks among base draws; None where it picks among others."""
        return Selection("best", self.aligner.n) if self.proposal is None else None

    @property
    def rank(self) -> Callable[[Sequence[str], Draws], Array] | None:
        """(prompts, draws) → (B,) what base draws are ranked by; None: log P − log a, or they are no base draws."""
        return None if self.selection is None or self._ranks_by == "target" else self._rank_of

    def identity(self) -> Mapping[str, Any] | None:
        """All that a draw depends on besides prompt, length and seed; None where the proposal does not say."""
        own = identity_of(self.proposal)
        if self.proposal is not None and own is None:
            return None
        feature = getattr(self.target.measures.get(self._ranks_by), "identity", None)
        parts = {"draws_of": own, "ranks_by": feature, "format": self.aligner.format}
        found = recipe_identity(self.aligner, self.base, self.target)
        return None if found is None else {**found, **parts}

    def sample(self, prompts: Sequence[str], rows: Array, *, max_tokens: int, seed: Seed) -> Iterator[Draws]:
        """See `Sampler.sample`; yields after each full batch of proposals."""
        n, source = self.aligner.n, self.base if self.proposal is None else self.proposal
        rows = rows[np.lexsort((rows[:, 1], rows[:, 0]))]
        step = max(1, described(source).rows_at_once // n)
        for begin in range(0, len(rows), step):
            part = rows[begin : begin + step]
            wanted = np.stack([np.repeat(part[:, 0], n), attempts(part[:, 1], n).ravel()], axis=1)
            proposals = self.pool.draws(source, prompts, wanted, max_tokens=max_tokens, seed=seed)
            yield self._best(prompts, part, proposals, seed)

    def _best(self, prompts: Sequence[str], rows: Array, proposals: Draws, seed: Seed) -> Draws:
        n = self.aligner.n
        log_base = proposals.log_prob if self.proposal is None else None
        score = self._rank_of(prompts, proposals, log_base).reshape(-1, n)
        coins = seed.salted(TIES).salted(self._depth)
        ties = np.stack([coins.rng(prompts[c], i).random(n) for c, i in rows])
        best = np.where(score >= score.max(1, keepdims=True) - TIE, ties, -1).argmax(1)  # what rounding parts is tied
        kept = proposals.take(np.arange(len(rows)) * n + best)
        return self._billed(replace(kept, index=rows[:, 1], log_prob=None, token_log_prob=None), proposals)

    def _billed(self, kept: Draws, proposals: Draws) -> Draws:
        """With what each n proposals cost together; accepted, if all of them were: fewer than n are another law."""
        each, one = (len(proposals) // self.aligner.n, self.aligner.n), np.ones(len(proposals), int)
        spent = proposals.length if proposals.spent is None else proposals.spent
        calls = spent if proposals.calls is None else proposals.calls
        if self.proposal is not None and self._ranks_by == "likelihood":  # the base reads each of them
            calls = calls + proposals.length
        tried = one if proposals.proposals is None else proposals.proposals
        spent, calls, tried = (x.reshape(each).sum(1) for x in (spent, calls, tried))
        if proposals.accepted is not None:
            kept = replace(kept, accepted=np.asarray(proposals.accepted.reshape(each).all(axis=1)))
        return replace(kept, spent=spent, calls=calls, proposals=tried)

    @property
    def _depth(self) -> int:
        """How many best-of-n it draws from, one in another; each breaks its ties by coins of its own."""
        return sum(isinstance(law, BestOfNSampler) for law in drawn_on(self.proposal))

    @property
    def _ranks_by(self) -> str:
        """The rank; "target" where a target of one constraint orders draws as the feature does."""
        asked, rank = self.target.constraints, self.aligner.rank
        same = len(asked) == 1 and asked[0].feature == rank and asked[0].kind in ("always", "reward")
        return "target" if same else rank

    def _rank_of(self, prompts: Sequence[str], draws: Draws, log_base: Array | None = None) -> Array:
        """(B,) what draws are ranked by, the larger the better; `log_base` where it is known."""
        by = self._ranks_by
        if by == "target":
            return self.target.log_ratio_of(prompts, draws)
        if by == "likelihood":
            return self._log_base(prompts, draws) if log_base is None else log_base
        return np.asarray(self.target.measures[by](prompts, draws), dtype=float)

    def _log_base(self, prompts: Sequence[str], draws: Draws) -> Array:
        """(B,) log a in nats, the same for equal draws, which batches part by up to 1e-4."""
        if not readable(self.base, draws):
            raise Unsupported("best_of_n:rank=likelihood: the base cannot read what is proposed; rank by a feature")
        values = log_prob_of(self.base, prompts, draws)
        if draws.tokens is None:
            return values
        said = np.column_stack([draws.prompt, draws.tokens])
        first, back = np.unique(said, axis=0, return_index=True, return_inverse=True)[1:]
        return np.asarray(values[first][back])
