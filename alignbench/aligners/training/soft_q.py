"""Soft Q-learning: Q of each next token from draws of the base, by the soft backup or by path consistency."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import nn

from alignbench.aligners.base import whole
from alignbench.aligners.training.ahead import BaseDraws
from alignbench.aligners.training.backups import backed_up, inconsistent, squared
from alignbench.aligners.training.batch import Batch, Known
from alignbench.aligners.training.method import Method
from alignbench.aligners.training.options import unlabelled
from alignbench.aligners.training.recipe import Trained
from alignbench.aligners.training.reinforce import check_floor, p_epsilon
from alignbench.aligners.training.work import Work
from alignbench.errors import UsageError, did_you_mean
from alignbench.generators.head import HeadedLaw, Valued, Values
from alignbench.registry import aligner
from alignbench.target import Target

BACKUPS = ("path", "soft")


@dataclass(frozen=True, kw_only=True)
class ValueBased(Trained):
    """What aligners have in common that learn Q of each token and act by π ∝ a·e^Q: a head, on draws of the base.

    The reward r = log P − log a comes at a draw's end, of a broken hard constraint log ε = `floor`. A backup reads
    a target head, a copy that is made anew every `sync` steps.
    """

    adapter: str = unlabelled("head:rank=64")
    floor: float = unlabelled(0.01)
    sync: int = unlabelled(10)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.adapter.startswith("head"):
            raise UsageError(f"{self.name}:adapter={self.adapter}: must be a head, such as head:rank=64")
        check_floor(self.name, self.floor)
        whole(f"{self.name}:sync", self.sync)

    def remark(self, target: Target) -> str:
        """See `Trained.remark`."""
        return p_epsilon(self.floor, target)


@aligner("soft_q", target_driven=True, density="exact")
@dataclass(frozen=True, kw_only=True)
class SoftQ(ValueBased):
    """Learns the soft values, nats, of which π ∝ a·e^{Q−V} is p_ε (Guo et al. 2021).

    `backup` "path": V(x_<t) + Σ log(π/a) of the rest is to be r, of every prefix (Nachum et al. 2017); "soft": Q of a
    token is to be V = log Σ a·e^Q after it, of the target head.
    """

    backup: str = "path"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.backup not in BACKUPS:
            raise UsageError(f"soft_q:backup={self.backup}: unknown.{did_you_mean(str(self.backup), BACKUPS)}")

    def method(self, work: Work) -> Method:
        """See `Trained.method`."""
        return Soft(work, self)


class ValueSteps(Method):
    """Steps on draws of the base, each used once."""

    draws_own = False
    compares = True  # whether it asks the target head

    def __init__(self, work: Work, recipe: ValueBased) -> None:
        super().__init__(work, recipe.batch)
        assert isinstance(work.policy, HeadedLaw)
        self.recipe = recipe
        self.base = BaseDraws(work, floor=float(np.log(recipe.floor)))
        self.target = copy.deepcopy(work.policy.head).requires_grad_(False)

    @cached_property
    def module(self) -> nn.Module:
        """See `Method.module`: log π and values."""
        assert isinstance(self.work.policy, HeadedLaw)
        return Values(self.work.policy, self.target if self.compares else None)

    def batches(self, step: int) -> Mapping[str, Batch]:
        """See `Method.batches`."""
        if step % self.recipe.sync == 0:
            self._renew()
        return {"loss": self.base.batch(self.work.rows(step, self.batch))}

    def _renew(self) -> None:
        assert isinstance(self.work.policy, HeadedLaw)
        self.target.load_state_dict(self.work.policy.head.state_dict())

    def loss(self, term: str, by_token: torch.Tensor, known: Known) -> torch.Tensor:
        """See `Method.loss`; of what `Values` says."""
        return self.error(Valued.of(by_token), known)

    def error(self, valued: Valued, known: Known) -> torch.Tensor:
        """How far values are from what they are to be."""
        raise NotImplementedError

    def resumable(self, step: int) -> bool:
        """See `Method.resumable`: where the target head is the trained one."""
        return not self.compares or step % self.recipe.sync == 0


class Soft(ValueSteps):
    """The soft backup, or path consistency."""

    recipe: SoftQ

    @property
    def compares(self) -> bool:  # type: ignore[override]
        """Path consistency asks the trained head alone."""
        return self.recipe.backup == "soft"

    def error(self, valued: Valued, known: Known) -> torch.Tensor:
        """See `ValueSteps.error`."""
        if self.recipe.backup == "path":
            return inconsistent(valued.log_t, valued.v, known.log_ratio, known.inside)
        return squared(valued.log_t + valued.v, backed_up(valued.soft, known.log_ratio, known.inside), known.inside)
