"""Rejection sampling: a proposal's draws, each kept with probability P/(q·bound), so that what is kept is exactly p."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from alignbench.aligners.base import PICKING, Immediate, Named, Setting, whole
from alignbench.aligners.selection.proposal import Weighing, check_proposal, proposal_of
from alignbench.aligners.selection.rounds import Rounds
from alignbench.errors import Unsupported
from alignbench.registry import aligner
from alignbench.seeds import Seed
from alignbench.types import Array, Draws, Selection


@aligner("rejection", target_driven=True, density="closed form")
@dataclass(frozen=True)
class Rejection(Immediate):
    """Exact draws of p by rejection (von Neumann 1951) from the base, at most `cap` proposals each.

    `proposal`: another law that masks the base's tokens; then exactly p if that law says all that p says. A draw whose
    proposals run out is marked, left out of every metric but the acceptance rate, and reported.
    """

    format: ClassVar[int] = PICKING
    cap: int = 256
    proposal: Named | None = None

    def __post_init__(self) -> None:
        whole("rejection:cap", self.cap)
        check_proposal(self.proposal, "rejection: proposal")

    def align(self, setting: Setting) -> RejectionSampler:
        """See `Aligner.align`; raises Unsupported where log P − log q has no known bound."""
        q, target, count = proposal_of(self.proposal, setting, "rejection"), setting.target, len(setting.prompts)
        bound = q.log_bound(count)
        if bound is not None:
            return RejectionSampler(self, q, tuple(float(b) for b in bound))
        if target.log_bound(count) is not None:
            raise Unsupported(
                "aligner 'rejection' needs a bound on log P − log q, known for the base and laws that mask it, "
                "not for this proposal; use quasi_rejection"
            )
        raise Unsupported(
            "aligner 'rejection' needs a bound on log P − log a, and a feature of this target declares no range; "
            "use quasi_rejection or best_of_n, or a feature with a range"
        )


@dataclass(frozen=True)
class RejectionSampler(Weighing):
    """Draw i is the first accepted of the attempts 0, 1, …, cap − 1 at the proposal's draw i."""

    aligner: Rejection
    bound: tuple[float, ...]

    @property
    def selection(self) -> Selection:
        """How it picks among the proposal's draws."""
        return Selection("first", self.aligner.cap)

    def sample(self, prompts: Sequence[str], rows: Array, *, max_tokens: int, seed: Seed) -> Iterator[Draws]:
        """See `Rounds.sample`."""
        rounds = Rounds(self.weighed, self.aligner.cap, self.bound)
        return rounds.sample(prompts, rows, max_tokens=max_tokens, seed=seed)
