"""Distillation: another generator's law, however slowly that samples, in the weights of one that samples at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from alignbench.aligners.base import Named, checked
from alignbench.aligners.training.batch import Batch, Known
from alignbench.aligners.training.losses import likelihood
from alignbench.aligners.training.method import Method
from alignbench.aligners.training.recipe import Trained
from alignbench.aligners.training.work import Work
from alignbench.errors import RunError
from alignbench.registry import aligner
from alignbench.target import Target
from alignbench.types import Sampler


@aligner("distil", target_driven=True, density="exact")
@dataclass(frozen=True, kw_only=True)
class Distil(Trained):
    """Descends −E_q[log π], nats, on draws of a `teacher` q, an aligner or a generator: its optimum is q, not p.

    The teacher, such as `best_of_n:n=4` or `rejection`, draws on the stream `train`, no draw twice (Kim and Rush 2016;
    of best-of-n: Gui et al. 2024; Sessa et al. 2024). Of one that may fail, what it did not accept is left out.
    """

    teacher: Named = "best_of_n:n=4"

    def __post_init__(self) -> None:
        super().__post_init__()
        checked(self.teacher, "distil: teacher")

    def remark(self, target: Target) -> str:
        """See `Trained.remark`."""
        return "its optimum is the law of its teacher, which need not be p"

    def method(self, work: Work) -> Method:
        """See `Trained.method`."""
        return Taught(work, self)


class Taught(Method):
    """Steps on draws of the teacher."""

    draws_own = False

    def __init__(self, work: Work, recipe: Distil) -> None:
        super().__init__(work, recipe.batch)
        self.recipe = recipe

    @cached_property
    def teacher(self) -> Sampler:
        """What draws."""
        return self.work.setting.built(self.recipe.teacher, "distil: teacher")

    def batches(self, step: int) -> Mapping[str, Batch]:
        """See `Method.batches`."""
        draws = self.work.own_draws(self.teacher, self.work.mine(self.work.rows(step, self.batch)), salt=0)
        if draws.tokens is None or draws.vocab != self.work.policy.vocab.fingerprint:
            raise RunError(
                "distil: the teacher's draws are not of the base's tokens: take one that is made of the base"
            )
        weight = np.ones(len(draws)) if draws.accepted is None else draws.accepted.astype(float)
        nothing = np.zeros(len(draws))
        return {"loss": Batch(draws, self.work.prompts, nothing, nothing + np.nan, weight=weight)}

    def loss(self, term: str, by_token: torch.Tensor, known: Known) -> torch.Tensor:
        """See `Method.loss`."""
        return likelihood(by_token.sum(1), known.weight)
