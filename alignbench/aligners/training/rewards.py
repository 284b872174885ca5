"""Losses of policy gradients on the reward r = log P − log a, with the KL to the base: pure functions, as in `losses`.

All are of own draws: `by_token` (B, T) is log π of each token with its gradient, 0 after the end; t is π/a.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from alignbench.aligners.training.batch import Known
from alignbench.aligners.training.losses import others
from alignbench.types import Array

STD = 1e-4
"""What is added to the standard deviation of a prompt's rewards, as the field does (Shao et al. 2024)."""

ESTIMATES: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "k1": lambda log_t: log_t.sum(1),
    "k2": lambda log_t: 0.5 * log_t.sum(1).square(),
    "k2_by_token": lambda log_t: 0.5 * log_t.square().sum(1),
    "k3": lambda log_t: by_token_k3(log_t).sum(1),
}
"""(B, T) log π − log a → (B,) whose mean over draws of π is KL(π‖a), or near it (Schulman 2020)."""


def by_token_k3(log_t: torch.Tensor) -> torch.Tensor:
    """1/t − 1 + log t of each token, never below 0."""
    return torch.expm1(-log_t) + log_t


@dataclass(frozen=True)
class Rollout:
    """What is known of B own draws, nothing of it with a gradient."""

    base: torch.Tensor  # (B, T) log a by token, 0 after the end
    old: torch.Tensor  # (B, T) log π by token as it was when they were drawn
    reward: torch.Tensor  # (B,) r
    prompt: torch.Tensor  # (B,)
    inside: torch.Tensor  # (B, T) whether a token is drawn there

    @staticmethod
    def of(known: Known, by_token: torch.Tensor) -> Rollout:
        """What a batch says of its draws; those of the policy as it is now have no older log π."""
        assert known.log_base_by_token is not None
        assert (known.log_q_by_token is None) == (known.log_proposal is None)
        old = by_token.detach() if known.log_q_by_token is None else known.log_q_by_token
        return Rollout(known.log_base_by_token, old, known.log_ratio, known.prompt, known.inside)

    def now(self, by_token: torch.Tensor) -> torch.Tensor:
        """(B,) π/π_old of each draw."""
        return (by_token.detach() - self.old).sum(1).exp()

    @property
    def net(self) -> torch.Tensor:
        """(B,) r − log(π_old/a): the reward with the KL to the base in it, as k1."""
        return self.reward - (self.old - self.base).sum(1)


def reinforced(by_token: torch.Tensor, rollout: Rollout, *, kl: str) -> torch.Tensor:
    """(B,) whose mean over draws of π_old has the gradient of −E_π[r], and that of the KL to the base as `kl` has it.

    The baseline is the mean of the other draws of the prompt (Kool et al. 2019; RLOO, Ahmadian et al. 2024).

    `kl` "reward": a draw's log(π/a) is taken off its reward, and not differentiated: the gradient is that of KL(π‖p).
    "reward_k3": k3 instead. "loss_…": one of `ESTIMATES` is added to the loss and differentiated, which is not the
    gradient of the KL, unless it is k2 of the whole draw on draws of π. "none": there is no KL.
    """
    log_t = by_token - rollout.base
    place, _, name = kl.partition("_")
    reward = rollout.reward - ESTIMATES[name or "k1"](log_t.detach()) if place == "reward" else rollout.reward
    now = rollout.now(by_token)
    loss = -now * (reward - others(reward, rollout.prompt)) * by_token.sum(1)
    return loss + now * ESTIMATES[name](log_t) if place == "loss" else loss


def clipped(by_token: torch.Tensor, rollout: Rollout, advantage: torch.Tensor, *, epsilon: float) -> torch.Tensor:
    """(B, T) −min(ρA, clip(ρ, 1 − ε, 1 + ε)A), ρ = π/π_old of the token; 0 after the end (Schulman et al. 2017, 7)."""
    rho = (by_token - rollout.old).exp()
    return -torch.minimum(rho * advantage, rho.clamp(1 - epsilon, 1 + epsilon) * advantage) * rollout.inside


def standardised(reward: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
    """(B,) rewards less the mean over the draws of their prompt, over the standard deviation there."""
    found = torch.zeros_like(reward)
    for c in sorted(set(prompt.tolist())):
        mine = prompt == c
        values = reward[mine]
        spread = values.std(correction=min(1, len(values) - 1))
        found[mine] = (values - values.mean()) / (spread + STD)
    return found


def grouped(by_token: torch.Tensor, rollout: Rollout, *, epsilon: float, beta: float) -> torch.Tensor:
    """A scalar, the mean over tokens: `clipped` of standardised rewards, and β·ρ·k3 (GRPO, Shao et al. 2024).

    ρ = π/π_old of the token, as trainers have it since. The standard deviation takes the reward's size away, and with
    it what β is worth; ρ·k3 has the gradient of k2 by token, another divergence's. So the optimum is not p.
    """
    advantage = standardised(rollout.reward, rollout.prompt)[:, None]
    k3 = (by_token - rollout.old).exp() * by_token_k3(by_token - rollout.base) * rollout.inside
    return (clipped(by_token, rollout, advantage, epsilon=epsilon) + beta * k3).sum() / rollout.inside.sum()


def ungrouped(by_token: torch.Tensor, rollout: Rollout, *, epsilon: float) -> torch.Tensor:
    """(B,) `clipped` of r − log(π_old/a) less the others' mean, summed over tokens.

    On draws of π its gradient is that of KL(π‖p), as of `reinforced` (without the standard deviation: Liu et al. 2025).
    """
    advantage = (rollout.net - others(rollout.net, rollout.prompt))[:, None]
    return clipped(by_token, rollout, advantage, epsilon=epsilon).sum(1)


def by_token_reward(old: Array, base: Array, reward: Array, length: Array, beta: float = 1.0) -> Array:
    """(B, T) −β·log(π_old/a) of each token, and r at a draw's last, be it an EOS or the last that may be drawn."""
    found = -beta * (old - base)
    found[np.arange(len(found)), length - 1] += reward
    return np.where(np.arange(found.shape[1]) < length[:, None], found, 0.0)


def advantages(reward: Array, values: Array, length: Array, trace: float) -> tuple[Array, Array]:
    """(B, T) generalised advantages, and the returns, the targets of values (Schulman et al. 2016, equation 16).

    Both from rewards and V before each token, of draws of `length` tokens; V is 0 after the end. δ_t = reward_t +
    V_t+1 − V_t, A_t = Σ_k traceᵏ δ_t+k, and A_t + V_t is the return.
    """
    inside = np.arange(reward.shape[1]) < length[:, None]
    values = np.where(inside, values, 0.0)
    after = np.concatenate([values[:, 1:], np.zeros((len(values), 1))], 1)
    surprise, found, later = reward + after - values, np.zeros(reward.shape), np.zeros(len(reward))
    for t in reversed(range(reward.shape[1])):
        later = surprise[:, t] + trace * later
        found[:, t] = later
    found = np.where(inside, found, 0.0)
    return found, found + values
