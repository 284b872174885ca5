"""Quasi-rejection sampling: a proposal's draws, each kept with probability min(1, P/(βq)), so that π ∝ min(P, βq)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from alignbench.aligners.base import PICKING, Immediate, Named, Setting, whole
from alignbench.aligners.selection.proposal import Weighing, check_proposal, proposal_of
from alignbench.aligners.selection.rounds import Rounds
from alignbench.errors import UsageError, brief
from alignbench.registry import aligner
from alignbench.seeds import PILOT, Seed
from alignbench.stats.quasi import log_beta_for_acceptance, log_beta_for_tv
from alignbench.types import Array, Draws, Selection, rows_of


@aligner("quasi_rejection", target_driven=True, density="closed form")
@dataclass(frozen=True)
class QuasiRejection(Immediate):
    """First of at most `cap` proposals accepted with min(1, P/(βq)): π ∝ min(P, βq) (Eikema et al. 2022).

    One of: `beta`, in units of P/q (default 1: exact where P ≤ q, as for hard constraints on the base, and needs no
    pilot); `acceptance`, the share of proposals to accept; `tv`, a bound on TV(p, π). The last two choose β for each
    prompt by `pilot` draws of q, whose cost is not counted in that of draws. β ≥ max P/q gives p itself.
    """

    format: ClassVar[int] = PICKING
    beta: float | None = None
    acceptance: float | None = None
    tv: float | None = None
    pilot: int = 256
    cap: int = 256
    proposal: Named | None = None

    def __post_init__(self) -> None:
        whole("quasi_rejection:cap", self.cap)
        whole("quasi_rejection:pilot", self.pilot)
        wishes = {name: value for name in ("beta", "acceptance", "tv") if (value := getattr(self, name)) is not None}
        if len(wishes) > 1:
            raise UsageError(f"quasi_rejection: {' and '.join(wishes)} both set β: give one of beta, acceptance and tv")
        for name, value in wishes.items():
            _check(name, value)
        check_proposal(self.proposal, "quasi_rejection: proposal")

    @property
    def has_pilot(self) -> bool:
        """Whether β follows from a wish, by a pilot."""
        return self.acceptance is not None or self.tv is not None

    def align(self, setting: Setting) -> QuasiRejectionSampler:
        """See `Aligner.align`; β is chosen when the first draw is wanted."""
        return QuasiRejectionSampler(self, proposal_of(self.proposal, setting, "quasi_rejection"), setting)


RANGES: Mapping[str, tuple[Callable[[float], bool], str]] = {
    "beta": (lambda x: 0 < x < np.inf, "above 0"),
    "acceptance": (lambda x: 0 < x <= 1, "above 0 and at most 1"),
    "tv": (lambda x: 0 <= x < 1, "at least 0 and below 1"),
}


def _check(name: str, value: Any) -> None:
    """Raise UsageError unless `value` is a number that the wish `name` can be."""
    fits, words = RANGES[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not fits(value):
        raise UsageError(f"quasi_rejection:{name}={value}: must be a number {words}")


@dataclass(frozen=True)
class QuasiRejectionSampler(Weighing):
    """Draw i is the first accepted of the attempts 0, 1, …, cap − 1 at the proposal's draw i."""

    aligner: QuasiRejection
    setting: Setting

    @cached_property
    def log_beta(self) -> tuple[float, ...]:
        """(C,) nats, by prompt; draws the pilot where β follows from a wish."""
        recipe, prompts = self.aligner, self.setting.prompts
        if not recipe.has_pilot:
            return (float(np.log(1.0 if recipe.beta is None else recipe.beta)),) * len(prompts)
        rows = rows_of(len(prompts), recipe.pilot)
        seed = self.setting.seed.salted(PILOT)
        pilot = self.weighed.draw(prompts, rows, max_tokens=self.setting.max_tokens, seed=seed)
        return tuple(self._chosen(pilot.log_weight[pilot.draws.prompt == c], c) for c in range(len(prompts)))

    def _chosen(self, log_weight: Array, prompt: int) -> float:
        recipe, hits = self.aligner, int((log_weight > -np.inf).sum())
        if hits < max((recipe.acceptance or 0.0) * log_weight.size, 1):
            wish = f"tv={recipe.tv}" if recipe.acceptance is None else f"acceptance={recipe.acceptance}"
            raise UsageError(
                f"quasi_rejection:{wish}: cannot be had for prompt {brief(self.setting.prompts[prompt])}, "
                f"where {hits} of {log_weight.size} pilot draws of the proposal have P > 0; "
                "use a better proposal, or give beta"
            )
        if recipe.acceptance is not None:
            return log_beta_for_acceptance(log_weight, recipe.acceptance)
        assert recipe.tv is not None
        return log_beta_for_tv(log_weight, recipe.tv)

    @property
    def selection(self) -> Selection:
        """How it picks among the proposal's draws; as rejection does where it is known to accept with P/(βq) itself."""
        bound = self.weighed.log_bound(len(self.setting.prompts))
        below = bound is not None and bool((bound <= np.array(self.log_beta)).all())
        if below or (self.weighed.is_base and self.weighed.target.is_boolean):  # all that is accepted has one weight
            return Selection("first", self.aligner.cap)
        return Selection("quasi", self.aligner.cap, self.log_beta)

    @property
    def uncounted(self) -> str:
        """See `Cost.uncounted`."""
        return (
            f"the {self.aligner.pilot} draws of the proposal a prompt that choose β" if self.aligner.has_pilot else ""
        )

    def identity(self) -> Mapping[str, Any] | None:
        """See `Weighing.identity`; the seed of the pilot is part of it where there is one."""
        found = super().identity()
        return {**found, "pilot_seed": self.setting.seed.entropy} if found and self.aligner.has_pilot else found

    def sample(self, prompts: Sequence[str], rows: Array, *, max_tokens: int, seed: Seed) -> Iterator[Draws]:
        """See `Rounds.sample`."""
        rounds = Rounds(self.weighed, self.aligner.cap, self.log_beta)
        return rounds.sample(prompts, rows, max_tokens=max_tokens, seed=seed)
