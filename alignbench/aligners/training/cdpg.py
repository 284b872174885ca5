"""CDPG: DPG whose Z_c of each prompt comes from the policy's own draws (Korbak et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from alignbench.aligners.base import whole
from alignbench.aligners.training.batch import Batch
from alignbench.aligners.training.dpg import Matches, Matching
from alignbench.aligners.training.method import Method
from alignbench.aligners.training.options import unlabelled
from alignbench.aligners.training.work import Work, log_totals
from alignbench.registry import aligner
from alignbench.types import Array


@aligner("cdpg", target_driven=True, density="exact")
@dataclass(frozen=True, kw_only=True)
class CDPG(Matches):
    """Descends the mean over prompts of KL(p_c‖π_c), each Z_c from own draws: the mean of P/q (Korbak et al. 2022).

    No base draw is needed: for many prompts, or constraints that the base rarely keeps. A prompt with fewer than `hits`
    draws of P > 0 so far is left out of the step.
    """

    hits: int = unlabelled(10)

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("cdpg:hits", self.hits)

    def method(self, work: Work) -> Method:
        """See `Trained.method`."""
        return OwnZ(work, self)


class OwnZ(Matching):
    """As `Matching`, with Ẑ_c of all draws so far."""

    recipe: CDPG

    def __init__(self, work: Work, recipe: CDPG) -> None:
        count = len(work.prompts)
        self.log_total, self.count, self.hits = np.full(count, -np.inf), np.zeros(count), np.zeros(count)
        super().__init__(work, recipe)

    def first_log_z(self) -> Array:
        """(C,) log of the mean of P/q over all draws so far; −inf while none had P > 0."""
        return np.asarray(self.log_total - np.log(np.maximum(self.count, 1)))  # no draws: −inf in any case

    def batches(self, step: int) -> Mapping[str, Batch]:
        """See `Method.batches`; draws of prompts that are not known enough weigh 0."""
        batch = super().batches(step)["loss"]
        self._learn(batch)
        known = self.hits >= self.recipe.hits
        self.log_z = np.where(known, self.first_log_z(), np.inf)  # p/q is 0 where nothing is known
        return {"loss": replace(batch, weight=known[batch.draws.prompt].astype(float))}

    def _learn(self, batch: Batch) -> None:
        """Count a step's draws, those of all processes."""
        log_q = batch.draws.log_prob if batch.log_proposal is None else batch.log_proposal
        assert log_q is not None
        allowed = batch.log_ratio > -np.inf
        log_weight = batch.log_ratio + np.where(allowed, batch.log_base, 0) - log_q
        prompt, size = batch.draws.prompt, len(self.count)
        counted = [np.bincount(prompt, values, size) for values in (np.ones(len(batch)), allowed)]
        hands = self.work.processes.gathered((log_totals(log_weight, prompt, size), np.stack(counted)))
        self.log_total = np.logaddexp.reduce([self.log_total, *(total for total, _ in hands)])
        count, hits = np.sum([numbers for _, numbers in hands], axis=0)
        self.count, self.hits = self.count + count, self.hits + hits

    def state(self) -> dict[str, Any]:
        """See `Method.state`."""
        return {name: getattr(self, name).tolist() for name in ("log_total", "count", "hits")}

    def resume(self, step: int, state: Mapping[str, Any]) -> None:
        """See `Method.resume`."""
        for name, values in state.items():
            setattr(self, name, np.array(values))
