"""Losses of values: how far Q of each token is from its target. Pure functions; nothing knows a network.

`inside` (B, T) tells which tokens are drawn; r = log P − log a (B,) comes with a draw's last token. Losses are means
over tokens.
"""

from __future__ import annotations

import torch


def backed_up(after: torch.Tensor, reward: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """(B, T) what Q of each token is to be: the value `after` it, and r at the last one.

    `after` (B, T) are values before each token, so that the next one's is taken.
    """
    following = torch.cat([after[:, 1:], torch.zeros_like(after[:, :1])], 1)
    is_last = inside & ~torch.cat([inside[:, 1:], torch.zeros_like(inside[:, :1])], 1)
    return torch.where(is_last, reward[:, None], following).detach()


def squared(q: torch.Tensor, wanted: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """½ (Q − wanted)²."""
    return (0.5 * (q - wanted).square() * inside).sum() / inside.sum()


def inconsistent(log_t: torch.Tensor, v: torch.Tensor, reward: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """½ (V(x_<t) + Σ_k≥t log(π/a) − r)², 0 for all prefixes of all draws only where π is p (Nachum et al. 2017).

    Both have gradients, V = log Σ a·e^Q and log(π/a) = Q − V (B, T).
    """
    later = (log_t * inside).flip(1).cumsum(1).flip(1)
    return squared(v + later, reward[:, None].expand_as(v), inside)


def expectile(value: torch.Tensor, q: torch.Tensor, inside: torch.Tensor, *, tau: float) -> torch.Tensor:
    """|τ − 1[q < value]|·(q − value)²: the value is the τ-expectile of Q over the tokens that follow (ILQL, 2022)."""
    gap = q.detach() - value
    weight = torch.where(gap < 0, 1 - tau, tau)
    return (weight * gap.square() * inside).sum() / inside.sum()
