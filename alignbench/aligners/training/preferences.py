"""Aligners that learn from preferences between two draws: DPO, a regression on rewards, and four that miss p."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from alignbench.aligners.training import preference_losses as losses
from alignbench.aligners.training.batch import Batch, Known
from alignbench.aligners.training.method import Method
from alignbench.aligners.training.options import joined, unlabelled
from alignbench.aligners.training.pairs import PairDraws, check_labels, paired, preference_batch
from alignbench.aligners.training.recipe import Trained
from alignbench.aligners.training.reinforce import check_floor, p_epsilon
from alignbench.aligners.training.work import Work
from alignbench.errors import UsageError, did_you_mean
from alignbench.registry import aligner
from alignbench.target import Target

DATA = ("base", "preferences")


@dataclass(frozen=True, kw_only=True)
class Prefers(Trained):
    """What aligners have in common that learn from pairs of base draws, one chosen and one rejected, see `PairDraws`.

    r = log P − log a, of a broken hard constraint log ε = `floor`. A step's `batch` draws are half as many pairs.
    `data` "preferences": the task's own pairs instead, whatever they prefer.
    """

    reaches: ClassVar[bool] = False
    """Whether its optimum is p."""

    beta: float = unlabelled(1.0)
    floor: float = unlabelled(0.01)
    labels: str = unlabelled("bradley_terry")
    data: str = "base"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_floor(self.name, self.floor)
        check_labels(self.name, self.labels)
        self._positive("beta")
        if self.data not in DATA:
            raise UsageError(f"{self.name}:data={self.data}: unknown.{did_you_mean(str(self.data), DATA)}")
        if self.batch % 2:
            raise UsageError(f"{self.name}:batch={self.batch}: must be even, two draws a pair")

    def remark(self, target: Target) -> str:
        """See `Trained.remark`."""
        if self.data == "preferences":
            return "trained on the task's preferences, which need not be those of p"
        own = "" if self.reaches else "its optimum is not p"
        if self.reaches and self.labels == "argmax":
            own = "labels=argmax: its optimum is not p"
        return joined(own, p_epsilon(self.floor, target))

    def method(self, work: Work) -> Method:
        """See `Trained.method`."""
        return Preferring(work, self)

    def of_pairs(self, log_pi: torch.Tensor, known: Known) -> torch.Tensor:
        """(N,) the loss of each pair, nats, from log π of the draws (B,)."""
        raise NotImplementedError

    def log_t(self, log_pi: torch.Tensor, known: Known) -> torch.Tensor:
        """(N, 2) log π/a of the chosen draw and the rejected one."""
        return paired(log_pi - known.log_base, known)


class Preferring(Method):
    """Steps on pairs of base draws, none of them twice."""

    draws_own = False

    def __init__(self, work: Work, recipe: Prefers) -> None:
        super().__init__(work, recipe.batch)
        self.recipe = recipe
        floor = float(np.log(recipe.floor))
        self.base = PairDraws(work, floor=floor, labels=recipe.labels, beta=recipe.beta)

    def batches(self, step: int) -> Mapping[str, Batch]:
        """See `Method.batches`."""
        if self.recipe.data == "preferences":
            return {"loss": preference_batch(self.work, step, self.batch)}
        return {"loss": self.base.batch(self.work.rows(step, self.batch, 2))}

    def loss(self, term: str, by_token: torch.Tensor, known: Known) -> torch.Tensor:
        """See `Method.loss`; over all pairs, those without a preference too."""
        log_pi = by_token.sum(1)
        return 2 * self.recipe.of_pairs(log_pi, known).sum() / len(log_pi)


@aligner("dpo", target_driven=True, density="exact")
@dataclass(frozen=True, kw_only=True)
class DPO(Prefers):
    """Descends −log σ(β·Δ log(π/a)), nats, of pairs whose chosen draw is so with σ(β·Δr): its optimum is p, at any β.

    Pairs are base draws of the stream `train` (Rafailov et al. 2023). `labels` "argmax", the larger r is chosen, is the
    habit of the field, and another target; see `Prefers`.
    """

    reaches: ClassVar[bool] = True

    def of_pairs(self, log_pi: torch.Tensor, known: Known) -> torch.Tensor:
        """See `Prefers.of_pairs`."""
        return losses.dpo(self.log_t(log_pi, known), beta=self.beta)


@aligner("squared", target_driven=True, density="exact")
@dataclass(frozen=True, kw_only=True)
class Squared(Prefers):
    """Descends ½ (Δ log(π/a) − Δr)², nats², of pairs of base draws: its optimum is p (REBEL, Gao et al. 2024).

    No label is read: both rewards are. See `Prefers`.
    """

    reaches: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.data != "base":
            raise UsageError(f"squared:data={self.data}: it reads rewards, which preferences do not tell: take dpo")

    def of_pairs(self, log_pi: torch.Tensor, known: Known) -> torch.Tensor:
        """See `Prefers.of_pairs`."""
        return losses.squared(self.log_t(log_pi, known), paired(known.log_ratio, known))


@aligner("ipo", target_driven=True, density="exact")
@dataclass(frozen=True, kw_only=True)
class IPO(Prefers):
    """Descends (Δ log(π/a) − 1/(2β))² of pairs (Azar et al. 2023): labels alone, not the size of r; not p.

    `by_token`: log(π/a) is divided by the draw's tokens, as some trainers do. See `Prefers`.
    """

    by_token: bool = unlabelled(False)

    def of_pairs(self, log_pi: torch.Tensor, known: Known) -> torch.Tensor:
        """See `Prefers.of_pairs`."""
        log_t = self.log_t(log_pi, known)
        return losses.ipo(log_t / lengths(known) if self.by_token else log_t, beta=self.beta)


@aligner("kto", target_driven=True, density="exact")
@dataclass(frozen=True, kw_only=True)
class KTO(Prefers):
    """Ascends σ(β(log(π/a) − z)) of chosen draws and σ(β(z − log(π/a))) of others, z = KL(π‖a): not p.

    z is taken of the step's draws, weighed by π/a (Ethayarajh et al. 2024 take mismatched prompts). See `Prefers`.
    """

    def of_pairs(self, log_pi: torch.Tensor, known: Known) -> torch.Tensor:
        """See `Prefers.of_pairs`."""
        log_t = (log_pi - known.log_base).detach()
        kl = (torch.softmax(log_t, 0) * log_t).sum()
        return losses.kto(self.log_t(log_pi, known), kl, beta=self.beta)


@aligner("simpo", target_driven=True, density="exact")
@dataclass(frozen=True, kw_only=True)
class SimPO(Prefers):
    """Descends −log σ(β·Δ(log π / tokens) − γ) of pairs, which knows no base (Meng et al. 2024): not p.

    See `Prefers`.
    """

    beta: float = unlabelled(2.0)
    gamma: float = unlabelled(1.0)

    def of_pairs(self, log_pi: torch.Tensor, known: Known) -> torch.Tensor:
        """See `Prefers.of_pairs`."""
        return losses.simpo(paired(log_pi, known), lengths(known), beta=self.beta, gamma=self.gamma)


@aligner("orpo", target_driven=True, density="exact")
@dataclass(frozen=True, kw_only=True)
class ORPO(Prefers):
    """Descends −log π / tokens of chosen draws, less `weight`·log σ of the log odds ratio (Hong et al. 2024): not p.

    See `Prefers`.
    """

    weight: float = unlabelled(0.1)

    def of_pairs(self, log_pi: torch.Tensor, known: Known) -> torch.Tensor:
        """See `Prefers.of_pairs`."""
        return losses.orpo(paired(log_pi, known), lengths(known), weight=self.weight)


def lengths(known: Known) -> torch.Tensor:
    """(N, 2) tokens of the chosen draw and the rejected one."""
    return paired(known.inside.sum(1).to(known.log_base), known)
