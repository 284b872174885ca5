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
from alignbench.stats.divergences import Sample
from alignbench.stats.jackknife import strata
from alignbench.types import Array

_OUT_OF = 1e-9  # nats: a proposal's densities are logs of probabilities; more than this above 0 is a mistake


def log_mixture(log_densities: Array, counts: Array) -> Array:
    """(B,) log Σ_j c_j q_j in nats from (B, J) log densities and (J,) or (B, J) counts; −inf is a density of 0.

    A law without draws (count 0) has no part in it.
    """
    counts = np.broadcast_to(np.asarray(counts, float), np.shape(log_densities))
    return np.asarray(logsumexp(log_densities, b=counts / counts.sum(axis=-1, keepdims=True), axis=-1))


def mixed(parts: Sequence[Sample], log_densities: Sequence[Array]) -> Sample:
    """One `Sample` of the draws of J laws, the base's first.

    `log_densities[j]` (B, J) is what all of them say of part j; column 0 is the base's. Counts are taken prompt by
    prompt; every prompt needs draws of the base. Draws of a law are a fixed number, which KLs and log Z make use of;
    TV and JS do too for p's side. Raises UsageError where a prompt has none, or a density is above 1.
    """
    logs = np.concatenate([np.asarray(x, float) for x in log_densities])
    component = np.repeat(np.arange(len(parts)), [np.size(p.prompt) for p in parts])
    prompt = np.concatenate([np.asarray(p.prompt) for p in parts])
    if logs.shape != (prompt.size, len(parts)):
        raise UsageError(f"{prompt.size} draws of {len(parts)} laws need log densities of that shape, not {logs.shape}")
    if np.isnan(logs).any() or logs.max() > _OUT_OF:
        raise UsageError("a proposal must be normalised: a log-probability is above 0, or no number")
    log_proposal = np.empty(prompt.size)
    for rows, _ in strata(prompt):
        counts = np.bincount(component[rows], minlength=len(parts))
        if not counts[0]:
            raise UsageError(f"prompt {prompt[rows[0]]} has no draws of the base, which a mixture always needs")
        log_proposal[rows] = log_mixture(logs[rows], counts)
    target, gen = (np.concatenate([np.asarray(getattr(p, f), float) for p in parts]) for f in ("log_target", "log_gen"))
    return Sample(prompt, logs[:, 0], target, gen, _groups(parts), log_proposal, component)


def _groups(parts: Sequence[Sample]) -> Array | None:
    """Groups of dependent draws, told apart by part; None where no part has any."""
    if all(p.group is None for p in parts):
        return None
    answer, used = [], 0
    for part in parts:
        own = np.arange(np.size(part.prompt)) if part.group is None else np.unique(part.group, return_inverse=True)[1]
        answer.append(own + used)
        used += int(own.max(initial=-1)) + 1
    return np.concatenate(answer)
