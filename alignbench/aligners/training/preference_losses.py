"""Losses of preferences as pure functions of (log π, log a, log P − log a) of pairs: the chosen draw, the rejected one.

All take (N, 2) numbers, the chosen draw's in the first column, and give (N,) nats a pair. log t is log π/a of the draw.
"""

from __future__ import annotations

import torch
from torch.nn.functional import logsigmoid


def gap(pair: torch.Tensor) -> torch.Tensor:
    """(N,) the chosen draw's number less the rejected one's."""
    return pair[:, 0] - pair[:, 1]


def dpo(log_t: torch.Tensor, *, beta: float) -> torch.Tensor:
    """−log σ(β·Δ log t) (Rafailov et al. 2023, 7): under labels of probability σ(β·Δr) its optimum is p ∝ a·e^r."""
    return -logsigmoid(beta * gap(log_t))


def squared(log_t: torch.Tensor, reward: torch.Tensor) -> torch.Tensor:
    """½ (Δ log t − Δr)²: a regression on the rewards themselves, whose optimum is p ∝ a·e^r (Gao et al. 2024)."""
    return 0.5 * (gap(log_t) - gap(reward)).square()


def ipo(log_t: torch.Tensor, *, beta: float) -> torch.Tensor:
    """(Δ log t − 1/(2β))² (Azar et al. 2023, 17): of the labels alone, whatever the rewards' sizes."""
    return (gap(log_t) - 1 / (2 * beta)).square()


def kto(log_t: torch.Tensor, kl: torch.Tensor, *, beta: float) -> torch.Tensor:
    """1 − σ(β(log t − z)) of the chosen draw, and 1 − σ(β(z − log t)) of the other; z = KL(π‖a).

    Ethayarajh et al. 2024, equation 8.
    """
    z = kl.clamp(min=0).detach()
    return (1 - torch.sigmoid(beta * (log_t[:, 0] - z))) + (1 - torch.sigmoid(beta * (z - log_t[:, 1])))


def simpo(log_pi: torch.Tensor, length: torch.Tensor, *, beta: float, gamma: float) -> torch.Tensor:
    """−log σ(β·Δ(log π / tokens) − γ), without a base (Meng et al. 2024, 6)."""
    return -logsigmoid(beta * gap(log_pi / length) - gamma)


def orpo(log_pi: torch.Tensor, length: torch.Tensor, *, weight: float) -> torch.Tensor:
    """−log π / tokens of the chosen draw, and −λ·log σ of the log odds ratio of both (Hong et al. 2024, 6 to 8)."""
    mean = log_pi / length
    odds = mean - torch.log1p(-mean.exp().clamp(max=1 - 1e-7))
    return -mean[:, 0] - weight * logsigmoid(gap(odds))
