"""Reference draws for a rare target: draws of the base and of any normalised generators, weighed by their mixture.

The deterministic mixture (balance heuristic): with counts n_j of draws of laws q_j, every draw has the weight
P / Σ_j c_j q_j with c_j = n_j / Σ n. The base is always one of the laws, so that weights are at most max(P/a) / c_base
and nothing of the target can be missed. Source: Veach and Guibas (1995); Owen and Zhou, Safe and effective importance
sampling (2000).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import logsumexp

from alignbench.errors import UsageError
from alignbench.stats.jackknife import strata
from alignbench.types import Array

_OUT_OF = 1e-3  # nats: a proposal's densities are logs of probabilities; more than this above 0 is a mistake


def log_mixture(log_densities: Array, counts: Array) -> Array:
    """(B,) log Σ_j c_j q_j in nats from (B, J) log densities and (J,) or (B, J) counts; −inf is a density of 0.

    A law without draws (count 0) has no part in it.
    """
    counts = np.broadcast_to(np.asarray(counts, float), np.shape(log_densities))
    return np.asarray(logsumexp(log_densities, b=counts / counts.sum(axis=-1, keepdims=True), axis=-1))


def log_proposal(prompt: Array, component: Array, log_densities: Array) -> Array:
    """(B,) log density in nats of the mixture that drew each draw, from what all J laws say of it (B, J).

    `component` (B,) int says which law drew it, 0 the base; counts are taken prompt by prompt. Draws of a law are a
    fixed number, of which estimators make use. Raises UsageError where a prompt has no draw of the base, or a density
    is above 1.
    """
    logs = np.asarray(log_densities, float)
    if logs.ndim != 2 or len(logs) != component.size or component.max(initial=0) >= logs.shape[1]:
        raise UsageError(
            f"{component.size} draws of a mixture need a log density by each of its laws, not {logs.shape}"
        )
    if np.isnan(logs).any() or logs.max(initial=0.0) > _OUT_OF:
        raise UsageError("a proposal must be normalised: a log-probability is above 0, or no number")
    answer = np.empty(component.size)
    for rows, _ in strata(prompt):
        counts = np.bincount(component[rows], minlength=logs.shape[1])
        if not counts[0]:
            raise UsageError(f"prompt {prompt[rows[0]]} has no draws of the base, which a mixture always needs")
        answer[rows] = log_mixture(logs[rows], counts)
    return answer


def joined_groups(groups: Sequence[Array | None], sizes: Sequence[int]) -> Array | None:
    """(B,) groups of dependent draws of all parts, told apart by part; None where no part has any."""
    if all(group is None for group in groups):
        return None
    answer, used = [], 0
    for group, size in zip(groups, sizes, strict=True):
        own = np.arange(size) if group is None else np.unique(group, return_inverse=True)[1]
        answer.append(own + used)
        used += int(own.max(initial=-1)) + 1
    return np.concatenate(answer)
