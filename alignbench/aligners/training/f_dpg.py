"""f-DPG: any of five divergences between π and p by their pseudo-rewards (Go et al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from alignbench.aligners.training.batch import Known
from alignbench.aligners.training.dpg import Matching, Pooled
from alignbench.aligners.training.losses import FLOORED, SLOPES, divergence, f_matching
from alignbench.aligners.training.method import Method
from alignbench.aligners.training.options import unlabelled
from alignbench.aligners.training.work import Work
from alignbench.errors import UsageError, did_you_mean
from alignbench.registry import aligner
from alignbench.types import Array


@aligner("f_dpg", target_driven=True, density="exact")
@dataclass(frozen=True, kw_only=True)
class FDPG(Pooled):
    """Descends a divergence of π and p: gradient E_π[f′(π/p) ∇log π] (Go et al. 2023).

    `f`: kl (KL(p‖π)), reverse_kl (KL(π‖p)), tv, js (at most log 2), chi2 (χ²(p‖π)). Where p forbids draws, KL(π‖p) is
    infinite: reverse_kl then aims at p_ε ∝ a·max(b, ε)·…, ε = `floor`, with KL(p‖p_ε) = log(1 + ε(1 − Z)/Z).
    """

    f: str = "kl"
    floor: float = unlabelled(0.01)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.f not in SLOPES:
            raise UsageError(f"f_dpg:f={self.f}: unknown.{did_you_mean(str(self.f), SLOPES)}")
        self._positive("floor")

    def method(self, work: Work) -> Method:
        """See `Trained.method`."""
        return FMatching(work, self)


class FMatching(Matching):
    """Draws of the policy, weighed by −f′(π/p)."""

    def __init__(self, work: Work, recipe: FDPG) -> None:
        self.f = recipe.f
        super().__init__(work, recipe, floor=float(np.log(recipe.floor)) if recipe.f in FLOORED else -np.inf)

    def divergence(self, log_u: Array) -> Array:
        """See `Matching.divergence`."""
        return divergence(self.f, log_u)

    def weights(self, log_pi: torch.Tensor, known: Known) -> torch.Tensor:
        """See `Matching.weights`."""
        return f_matching(log_pi, known.log_p(self.log_z), known.log_q(log_pi), f=self.f, prompt=known.prompt)
