"""A filter: a proposal's draws, of which those that break a hard constraint are dropped, so that π = q·b/AR."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from alignbench.aligners.base import PICKING, Immediate, Named, Setting, whole
from alignbench.aligners.selection.proposal import Proposal, Weighing, check_proposal, proposal_of
from alignbench.aligners.selection.rounds import Rounds
from alignbench.errors import Unsupported
from alignbench.registry import aligner
from alignbench.seeds import Seed
from alignbench.target import Target
from alignbench.types import Array, Draws, Selection

SOFT = "the filter reads hard constraints alone: moments and rewards of the target are ignored"


@aligner("filtered", target_driven=True, density="closed form")
@dataclass(frozen=True)
class Filtered(Immediate):
    """First of at most `cap` proposals that keeps the hard constraints: π = q·b/AR (Kim et al. 2025).

    `proposal`: an aligner or a generator q, best trained or prompted to be near p; by default the base. AR is the share
    of its draws with b = 1, and KL(p‖q) = KL(p‖π) − log AR. Moments and rewards are ignored. A draw whose proposals run
    out is marked, as in rejection. No model scores a draw to keep it.
    Source: Kim et al., Guaranteed generation from large language models (2025).
    """

    format: ClassVar[int] = PICKING
    cap: int = 256
    proposal: Named | None = None

    def __post_init__(self) -> None:
        whole("filtered:cap", self.cap)
        check_proposal(self.proposal, "filtered: proposal")

    def align(self, setting: Setting) -> FilteredSampler:
        """See `Aligner.align`; raises Unsupported where something is asked, and none of it is a hard constraint."""
        asked = setting.target.constraints
        if asked and not any(c.kind == "always" for c in asked):
            raise Unsupported(
                "aligner 'filtered' keeps draws by hard constraints ('always: true'), and this target has none; "
                "use quasi_rejection, sir or best_of_n"
            )
        return FilteredSampler(self, proposal_of(self.proposal, setting, "filtered"))


@dataclass(frozen=True)
class FilteredSampler(Weighing):
    """Draw i is the first of the attempts 0, 1, …, cap − 1 at the proposal's draw i that keeps the hard constraints."""

    aligner: Filtered

    @property
    def selection(self) -> Selection:
        """How it picks among the proposal's draws; exactly p, as rejection, where q is the base and all is hard."""
        exact = self.weighed.is_base and self.weighed.target.is_boolean
        return Selection("first" if exact else "filtered", self.aligner.cap)

    @property
    def remark(self) -> str:
        """See `Evidence.remark`."""
        return "" if self.weighed.target.is_boolean else SOFT

    def sample(self, prompts: Sequence[str], rows: Array, *, max_tokens: int, seed: Seed) -> Iterator[Draws]:
        """See `Rounds.sample`: rejection for the target q·b on the base q, so that nothing is scored."""
        q = self.weighed
        on_itself = Proposal(q.law, q.law, _hard(q.target), q.pool)
        rounds = Rounds(on_itself, self.aligner.cap, (0.0,) * len(prompts))
        return rounds.sample(prompts, rows, max_tokens=max_tokens, seed=seed)


def _hard(target: Target) -> Target:
    """The target's hard constraints alone, and the features that they read: soft ones may need a network."""
    kept = tuple(c for c in target.constraints if c.kind == "always")
    read = {c.feature for c in kept}
    return replace(target, constraints=kept, measures={k: f for k, f in target.measures.items() if k in read})
