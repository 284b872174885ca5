"""Draws of our world as those of a policy that was: what losses of policy gradients are proven on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from training_worlds import BASE, HARD, PROMPTS, ROWS, WORDS, Listed, exact_gradient, moved

from alignbench.aligners.training.rewards import STD, Rollout, by_token_k3, clipped, reinforced

EPSILON = 0.01


def by_token_law(logits: torch.Tensor, draws) -> torch.Tensor:
    """(B, T) log π by token from the logits of a table, by hand; 0 after the end."""
    table, columns = torch.log_softmax(logits, -1), []
    first, number = torch.as_tensor(draws.prompt) * ROWS, torch.zeros(len(draws), dtype=torch.long)
    for t, ids in enumerate(torch.as_tensor(draws.tokens).clamp(min=0).T):
        inside = torch.as_tensor(draws.length > t)
        columns.append(torch.where(inside, table[first + torch.where(inside, number, 0), ids], 0.0))
        number = len(WORDS) * number + 1 + ids
    return torch.stack(columns, 1)


@dataclass(frozen=True, eq=False)
class Rewarded:
    """All draws of our world, of a target with log ε where it forbids, and of a policy that is not its base."""

    target: object = HARD
    stale: bool = False  # whether they are of another policy than the one that is trained

    @cached_property
    def listed(self) -> Listed:
        return Listed(BASE, self.target, float(np.log(EPSILON)))

    @cached_property
    def policy(self):
        return moved()

    @cached_property
    def base(self) -> torch.Tensor:
        return by_token_law(BASE.model.network.logits, self.listed.draws)

    @cached_property
    def old(self) -> torch.Tensor:
        law = moved(seed=2) if self.stale else self.policy
        return by_token_law(law.parameters[0].detach(), self.listed.draws)

    @cached_property
    def rollout(self) -> Rollout:
        draws = self.listed.draws
        inside = torch.as_tensor(np.arange(draws.tokens.shape[1]) < draws.length[:, None])
        return Rollout(self.base, self.old, self.listed.log_ratio, self.listed.prompt, inside)

    def gradient(self, loss) -> torch.Tensor:
        """That of E_old[loss(log π by token)], loss (B,), by the logits; a mean over prompts."""
        logits = self.policy.parameters[0].detach().clone().requires_grad_(True)
        found = loss(by_token_law(logits, self.listed.draws))
        return torch.autograd.grad((self.old.sum(1).exp() * found).sum() / len(PROMPTS), logits)[0]

    @cached_property
    def exact(self) -> torch.Tensor:
        """The gradient of KL(π‖p_ε)."""
        return exact_gradient(lambda log_pi: self.listed.divergence("reverse_kl", log_pi), self.policy, self.listed)

    def off(self, loss) -> float:
        return float((self.gradient(loss) - self.exact).abs().max())


def ended(loss, steps=500, lr=0.2) -> torch.Tensor:
    """(B,) log π of all draws after as many steps of Adam on the exact gradients of loss(log π by token), a scalar."""
    draws = Listed().draws
    logits = BASE.model.network.logits.detach().clone().requires_grad_(True)
    optimiser = torch.optim.Adam([logits], lr=lr)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = lr * min(1, 2 * (steps - step) / steps)
        optimiser.zero_grad()
        loss(by_token_law(logits, draws)).backward()
        optimiser.step()
    return by_token_law(logits.detach(), draws).sum(1)


def mean_of_grpo(listed: Listed, base: torch.Tensor):
    """E_π of GRPO's loss over E_π of a draw's tokens, rewards standardised as all draws of π say."""

    def loss(by_token):
        inside = torch.as_tensor(np.arange(base.shape[1]) < listed.draws.length[:, None])
        rollout = Rollout(base, by_token.detach(), listed.log_ratio, listed.prompt, inside)
        mass, advantage = by_token.detach().sum(1).exp(), torch.zeros_like(listed.log_ratio)
        for c in range(len(PROMPTS)):
            mine = listed.prompt == c
            gap = listed.log_ratio[mine] - (mass[mine] * listed.log_ratio[mine]).sum()
            advantage[mine] = gap / ((mass[mine] * gap.square()).sum().sqrt() + STD)
        k3 = (by_token - rollout.old).exp() * by_token_k3(by_token - base) * inside
        by_draw = (clipped(by_token, rollout, advantage[:, None], epsilon=0.2) + k3).sum(1)
        return (mass * by_draw).sum() / (mass * inside.sum(1)).sum()

    return loss


def mean_of(kl: str, listed: Listed, base: torch.Tensor):
    """E_π of the loss, all draws listed, with the gradient of the policy's own draws."""

    def loss(by_token):
        rollout = Rollout(
            base, by_token.detach(), listed.log_ratio, listed.prompt, torch.ones_like(base, dtype=torch.bool)
        )
        return listed.mean(by_token.detach().sum(1).exp() * reinforced(by_token, rollout, kl=kl))

    return loss
