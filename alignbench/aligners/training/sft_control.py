"""SFT with a control loss: next-token loss on train text, and the expected cost of the policy's own draws."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from alignbench.aligners.base import whole
from alignbench.aligners.training.ahead import BaseDraws, OwnDraws
from alignbench.aligners.training.batch import Batch, Known
from alignbench.aligners.training.corpus import corpus_batch
from alignbench.aligners.training.losses import likelihood, reinforcing
from alignbench.aligners.training.method import Method
from alignbench.aligners.training.options import unlabelled
from alignbench.aligners.training.recipe import Trained
from alignbench.aligners.training.work import Work
from alignbench.registry import aligner
from alignbench.target import Target
from alignbench.types import Array


@aligner("sft_control", target_driven=True, density="exact")
@dataclass(frozen=True, kw_only=True)
class SFTControl(Trained):
    """Descends L_main + λ·L_control: −E[log π] on train text, and E_π[c], c the cost of a draw.

    Train text is the task's corpus, or base draws where it has none. c is 1 where a hard constraint is broken, less
    λ·φ + r/β of the others. λ is `weight`. On text ~ a its optimum is a/(μ + λc), μ such that it sums to 1: not p. Half
    of `batch` is train text, half own draws, at most `renew` − 1 steps old.
    """

    REMARK: ClassVar[str] = "its objective's optimum is a/(μ + λc), which is not p"

    weight: float = 1.0
    renew: int = unlabelled(4)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._positive("weight")
        whole("sft_control:renew", self.renew)

    def remark(self, target: Target) -> str:
        """See `Trained.remark`."""
        return self.REMARK

    def method(self, work: Work) -> Method:
        """See `Trained.method`."""
        return TwoTerms(work, self)


class TwoTerms(Method):
    """Two terms, whose losses and gradients the curve has apart."""

    def __init__(self, work: Work, recipe: SFTControl) -> None:
        super().__init__(work, recipe.batch)
        self.recipe, self.half = recipe, max(1, recipe.batch // 2)
        self.base = BaseDraws(work)
        self.own = OwnDraws(work, self.half, recipe.renew, recipe.steps)

    def batches(self, step: int) -> Mapping[str, Batch]:
        """See `Method.batches`."""
        rows = self.work.rows(step, self.half)
        main = corpus_batch(self.work, rows) if self.work.setting.corpus else self.base.batch(rows)
        return {"main": main, "control": self.own.batch(step, self.work.policy)}

    def loss(self, term: str, by_token: torch.Tensor, known: Known) -> torch.Tensor:
        """See `Method.loss`; of the control term a number whose gradient is that of λ·E_π[c], and which is not it."""
        log_pi = by_token.sum(1)
        if term == "main":
            return likelihood(log_pi, known.weight)
        weight = reinforcing(log_pi, cost(known.log_ratio), known.log_q(log_pi), prompt=known.prompt)
        return likelihood(log_pi, self.recipe.weight * weight)

    def after(self, step: int, values: Mapping[str, tuple[Batch, Array]]) -> dict[str, float]:
        """See `Method.after`: the main loss, and λ times the mean cost of own draws."""
        (_, log_main), (own, log_pi) = values["main"], values["control"]
        weight = 1.0 if own.log_proposal is None else np.exp(log_pi - own.log_proposal)
        paid = float((weight * cost(torch.as_tensor(own.log_ratio)).numpy()).mean())
        return {"objective": self.recipe.weight * paid - float(log_main.mean()), "cost": paid}

    def resumable(self, step: int) -> bool:
        """See `Matching.resumable`."""
        return not self.own.held


def cost(log_ratio: torch.Tensor) -> torch.Tensor:
    """(B,) c: 1 where a hard constraint is broken, else −(λ·φ + r/β), nats."""
    return torch.where(log_ratio == -torch.inf, torch.ones_like(log_ratio), -log_ratio)
