"""GRPO: policy gradients on rewards standardised within the draws of a prompt (Shao et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from alignbench.aligners.training.batch import Known
from alignbench.aligners.training.method import Method
from alignbench.aligners.training.options import joined, unlabelled
from alignbench.aligners.training.reinforce import Reinforcing, Rewarded
from alignbench.aligners.training.rewards import Rollout, grouped, ungrouped
from alignbench.aligners.training.work import Work
from alignbench.errors import UsageError
from alignbench.registry import aligner
from alignbench.target import Target


@aligner("grpo", target_driven=True, density="exact")
@dataclass(frozen=True, kw_only=True)
class GRPO(Rewarded):
    """Rewards less their mean over a prompt's draws, over their standard deviation, clipped by token; β·k3 in the loss.

    As the field has it: the mean over all tokens of a batch (Shao et al. 2024; Yu et al. 2025), k3 times the ratio of
    the token (trl 1.16); its optimum is not p.
    `unbiased`: no standard deviation, sums over tokens, and the KL to the base in the reward, so that on draws of π it
    has the gradient of `reinforce`. `epsilon` clips a token's π/π_old; `beta` weighs k3, nats a token.
    """

    unbiased: bool = False
    epsilon: float = unlabelled(0.2)
    beta: float = unlabelled(1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._positive("epsilon", "beta")
        if not isinstance(self.unbiased, bool):
            raise UsageError(f"grpo:unbiased={self.unbiased}: must be true or false")
        if self.unbiased and self.beta != 1:
            raise UsageError(f"grpo:beta={self.beta:g}: unbiased=true has the KL in the reward, at weight 1")

    def remark(self, target: Target) -> str:
        """See `Trained.remark`."""
        own = "" if self.unbiased else "its optimum is not p: rewards are standardised, k3 is in the loss"
        return joined(own, super().remark(target))

    def method(self, work: Work) -> Method:
        """See `Trained.method`."""
        return Grouped(work, self)


class Grouped(Reinforcing):
    """As `Reinforcing`, by token."""

    recipe: GRPO

    def loss(self, term: str, by_token: torch.Tensor, known: Known) -> torch.Tensor:
        """See `Method.loss`."""
        rollout, recipe = Rollout.of(known, by_token), self.recipe
        if recipe.unbiased:
            return ungrouped(by_token, rollout, epsilon=recipe.epsilon).mean()
        return grouped(by_token, rollout, epsilon=recipe.epsilon, beta=recipe.beta)
