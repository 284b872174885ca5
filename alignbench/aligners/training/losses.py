"""Losses and weights as pure functions of (log π, log a, log P − log a): nothing here knows a network or a loop.

All are means over a step's draws, so that its gradient does not depend on how they are split over passes or processes.
`t` is π/p. Weights are detached: the gradient of Σ weight·log π is what is meant.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch

from alignbench.types import Array

FLOORED = ("reverse_kl",)
"""Divergences that are infinite where p is 0 and π is not: they aim at p_ε, see `Target.log_ratio`."""


def likelihood(log_pi: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """−Σ weight·log π / B, nats: what all weights below, which are detached, are put into."""
    return -(weight * log_pi).mean()


def matching(log_pi: torch.Tensor, log_p: torch.Tensor, log_q: torch.Tensor, *, baseline: bool) -> torch.Tensor:
    """(B,) weights of draws of q by which `likelihood` descends KL(p‖π): p/q − π/q, or p/q without the baseline.

    E_q[π/q ∇log π] = 0, so that both gradients have one mean; with the baseline they vanish where π = p, draw by draw.
    DPG: Parshakova et al. 2019; its baseline: Korbak et al. 2022 (GDC++).
    """
    weight = (log_p - log_q).exp()
    return weight - (log_pi.detach() - log_q).exp() if baseline else weight


def matching_by_token(
    wanted: torch.Tensor, reached: torch.Tensor, values: torch.Tensor, inside: torch.Tensor, *, trace: float = 1.0
) -> torch.Tensor:
    """(B, T) weights of tokens of draws of q by which −Σ weight·log π descends KL(p‖π): p/q − (a/q)(x_<t)·(π/q)(x_t)·V.

    `wanted` (B,) is p/q, `reached` (B, T) is (a/q)(x_<t)·(π/q)(x_t|x_<t): on draws of the base the ratio of one token.
    `inside` (B, T) tells which tokens are drawn.

    E_q[(π/q)(x_t|x_<t)·∇log π(x_t|x_<t)] = 0 after any prefix, whatever V. The nearer V(x_<t) is to E_a[p/a|x_<t] the
    smaller the variance: a token after which nothing is open any more has none. With `trace` λ < 1 what p/q rises by k
    tokens later counts λᵏ: less variance, none where π = p, but the mean is right only where V is E_a[p/a|x_<t] of each
    prefix (the generalised advantage of Schulman et al. 2016, of the reward p/q at the end).
    """
    end = wanted[:, None]
    here = torch.where(inside, reached * values, end)
    rise = torch.cat([here[:, 1:], end], 1) - here
    weight = torch.zeros_like(rise)
    later = torch.zeros_like(end[:, 0])
    for t in reversed(range(rise.shape[1])):
        later = rise[:, t] + trace * later
        weight[:, t] = later
    return weight


def f_matching(
    log_pi: torch.Tensor, log_p: torch.Tensor, log_q: torch.Tensor, *, f: str, prompt: torch.Tensor
) -> torch.Tensor:
    """(B,) weights of draws of q by which `likelihood` descends D_f(π‖p): −π/q·f′(π/p) (Go et al. 2023, theorem 1).

    f′ less its mean over the other draws of the prompt, which leaves the gradient's mean as it is.
    """
    now = log_pi.detach()
    slope = SLOPES[f](now - log_p)
    return -(now - log_q).exp() * (slope - others(slope, prompt))


def reinforcing(log_pi: torch.Tensor, cost: torch.Tensor, log_q: torch.Tensor, *, prompt: torch.Tensor) -> torch.Tensor:
    """(B,) weights of draws of q by which `likelihood` descends E_π[cost]: −π/q·(cost − mean of its prompt's)."""
    return -(log_pi.detach() - log_q).exp() * (cost - others(cost, prompt))


def others(value: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
    """(B,) the mean of `value` over the other draws of each draw's prompt; 0 where there are none."""
    count = torch.zeros(int(prompt.max()) + 1, dtype=value.dtype, device=value.device)
    total = count.index_add(0, prompt, value)[prompt] - value
    count = count.index_add(0, prompt, torch.ones_like(value))[prompt] - 1
    return torch.where(count > 0, total / count.clamp(min=1), torch.zeros_like(value))


def _js(log_t: torch.Tensor) -> torch.Tensor:
    """½ log(2t/(t + 1)), written so that t = ∞ gives ½ log 2."""
    return 0.5 * (math.log(2.0) - torch.nn.functional.softplus(-log_t))


def divergence(f: str, log_u: Array) -> Array:
    """(B,) whose mean over draws of π is the divergence f of π and p, nats but for tv and chi2; u = p/π."""
    u = np.exp(log_u)
    with np.errstate(invalid="ignore"):
        u_log_u = np.where(u > 0, u * log_u, 0.0)
        if f == "js":
            return np.asarray(0.5 * ((1 + u) * (math.log(2) - np.log1p(u)) + u_log_u))
    simple = {"kl": u_log_u, "reverse_kl": -log_u, "tv": 0.5 * np.abs(1 - u), "chi2": (1 - u) ** 2}
    return np.asarray(simple[f])


SLOPES: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "kl": lambda log_t: -torch.exp(-log_t),
    "reverse_kl": lambda log_t: log_t + 1,
    "tv": lambda log_t: 0.5 * torch.sign(log_t),
    "js": _js,
    "chi2": lambda log_t: 1 - torch.exp(-2 * log_t),
}
"""f′ as a function of log t, t = π/p (∞ where p is 0): KL(p‖π), KL(π‖p), TV, JS (at most log 2), χ²(p‖π)."""
