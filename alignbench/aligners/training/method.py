"""What one aligner's file brings to the loop: which draws a step learns from, and the loss that they have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from alignbench.aligners.training.batch import Batch, Known
from alignbench.aligners.training.work import Work
from alignbench.seeds import WATCHED
from alignbench.types import Array, Distribution

WATCH_EVERY = 20
"""Steps between two looks at own draws, of a method that trains on other draws."""


class Method:
    """The steps of one training. A method overrides `batches` and `loss`; the rest has defaults."""

    draws_own: bool = True
    """Whether its batches hold own draws of the policy, which tell what it reaches."""

    patience = 0
    """Looks at the held-out loss without a new best before it stops; 0: it looks at none."""

    def __init__(self, work: Work, batch: int) -> None:
        self.work, self.batch = work, batch
        work.processes.check_share(batch, "draws of a step")

    @property
    def module(self) -> nn.Module:
        """(prompts, draws) → log π by token (B, T), or (B, T, K) what else a loss needs, log π first."""
        return self.work.policy.module

    def batches(self, step: int) -> Mapping[str, Batch]:
        """Term of the loss → this process's draws for it; most have one term, called "loss"."""
        raise NotImplementedError

    def loss(self, term: str, by_token: torch.Tensor, known: Known) -> torch.Tensor:
        """A scalar, nats: the term's loss of all processes' draws, from log π by token (B, T)."""
        raise NotImplementedError

    def after(self, step: int, values: Mapping[str, tuple[Batch, Array]]) -> dict[str, float]:
        """Called after each step with all processes' draws and their log π (B,), as it was; numbers for the curve.

        "objective" is what is aimed at, nats, where the loss itself has its gradient and not its value.
        """
        return {}

    def resumable(self, step: int) -> bool:
        """Whether a training that is killed may go on after `step` steps from weights, optimiser and `state` alone."""
        return True

    def state(self) -> dict[str, Any]:
        """Plain data to go on with."""
        return {}

    def resume(self, step: int, state: Mapping[str, Any]) -> None:
        """Take it in again, before the step after `step`."""

    def held_out(self) -> Batch:
        """Draws of p that no step learns from, by which to stop early; asked for where it has `patience`."""
        raise NotImplementedError

    def watched(self, step: int) -> Batch | None:
        """Own draws by which the training is only watched, every `WATCH_EVERY` steps where no step makes any."""
        return self.watched_draws(step, self.work.policy)

    def watched_draws(self, step: int, law: Distribution) -> Batch | None:
        """The same of what the policy is used as."""
        if self.draws_own or step % WATCH_EVERY:
            return None
        rows = self.work.rows(step // WATCH_EVERY, max(32, len(self.work.prompts)))
        draws = self.work.own_draws(law, self.work.mine(rows), WATCHED)
        draws = replace(draws, log_prob=self.work.log_q(law, draws))
        mine = self.work.of_policy(draws, spared=len(draws))
        return Batch.concat(self.work.processes.gathered(mine))


def kl_to_base(batch: Batch, log_pi: Array) -> float:
    """KL(π‖a) from own draws, nats: E[log π − log a], those of P = 0 by the few that the base scored."""
    gap, allowed = log_pi - batch.log_base, batch.log_ratio > -np.inf
    parts = [(side.mean(), gap[side & np.isfinite(batch.log_base)]) for side in (allowed, ~allowed) if side.any()]
    if any(not len(values) for _, values in parts):
        return float("nan")
    return float(sum(share * values.mean() for share, values in parts))
