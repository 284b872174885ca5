"""Sampling importance resampling: one of n draws of q is kept with probability ∝ w = P/q. What is known of that law.

π(x) = n q(x) E[w(x) / (w(x) + S)] with S the sum of n − 1 independent weights; by Jensen, 1/x being convex,
π(x) ≥ n P(x) / (w(x) + (n − 1) Z), so that p/π ≤ 1 + (w/Z − 1)/n. Leaving out the draws all of whose weights are 0
only raises π. Source: Rubin, Using the SIR algorithm to simulate posterior distributions (1988).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from alignbench.stats.intervals import normal, satterthwaite
from alignbench.stats.jackknife import leave_out, strata
from alignbench.stats.normaliser import scaled
from alignbench.stats.weights import LOGS, few_carriers, is_tied, p_draws, refusal
from alignbench.types import Array, Estimate

PARTS = ("kl_target", "tv", "js")
BOUND = "an upper bound: resampling has no density, and p/π ≤ 1 + (w/Z − 1)/n"
MOST = 200_000
"""Sums of weights that `law` goes through at most."""


def law(masses: Array, log_weight: Array, n: int) -> Array | None:
    """(K,) probabilities under π of atoms with masses (K,) under q, which may sum to less than 1, and log P − log q.

    What is missing of q's mass has weight 0. None where there are too many sums of n − 1 weights to go through.
    """
    w = scaled(log_weight)[0]
    values, code = np.unique(np.append(w, 0.0), return_inverse=True)
    mass = np.bincount(code, np.append(masses, max(1.0 - float(masses.sum()), 0.0)))
    sums: Array = np.zeros(1)
    share: Array = np.ones(1)
    for _ in range(n - 1):
        if sums.size * values.size > MOST:
            return None
        each = np.round(np.add.outer(sums, values), 12).ravel()
        sums, where = np.unique(each, return_inverse=True)
        share = np.bincount(where, np.outer(share, mass).ravel())
    if w.size * sums.size > 10 * MOST:
        return None
    total = w[:, None] + sums
    kept = np.divide(w[:, None], total, out=np.zeros(total.shape), where=total > 0) @ share
    return np.asarray(masses * kept / (masses @ kept))


def bounds(prompt: Array, r: Array, n: int, group: Array | None = None) -> dict[str, Estimate]:
    """Upper bounds of KL(p‖π) and JS in nats and TV (0 to 1), mean over prompts, from r = log P − log q on draws of q.

    KL(p‖π) ≤ E_p log(1 + (w/Z − 1)/n); TV = E_p (1 − π/p)⁺ ≤ E_p (w/Z − 1)⁺/(w/Z − 1 + n); JS ≤ log 2 · TV. Each is
    estimated (jackknife), and its upper 97.5 % limit told. Source of the last: Lin (1991).
    """
    r = np.asarray(r, float)
    refused = refusal(prompt, r, LOGS)
    if refused:
        return dict.fromkeys(PARTS, Estimate.missing(refused, n=r.size))
    influence = np.empty(r.size)
    table = []
    for rows, unit in strata(prompt, group):
        w = scaled(r[rows])[0]
        table.append(leave_out(_left(w, n), unit))
        influence[rows] = (w / w.mean() - 1) / w.size
    few = "" if is_tied(prompt, r) else few_carriers(influence)
    if few:
        return dict.fromkeys(PARTS, Estimate.missing(few, n=r.size))
    values, variances = (np.array(x) for x in zip(*table, strict=True))
    worth, found = p_draws(prompt, r), {}
    for k, part in enumerate(("kl_target", "tv")):
        df = satterthwaite(variances[:, k], worth)
        high = normal(float(values[:, k].mean()), float(variances[:, k].sum()) / len(table) ** 2, n=r.size, df=df)
        found[part] = Estimate.missing(BOUND, n=r.size, ci_high=high.ci_high) if high.ci_high is not None else high
        found[part] = replace(found[part], ess=float(worth.sum()))
    tv = found["tv"]
    js = tv if tv.ci_high is None else replace(tv, ci_high=float(np.log(2)) * tv.ci_high)
    return found | {"js": js}


def _left(w: Array, n: int) -> Callable[[Array], Array]:
    return lambda kept: of_weights(w[kept], n)


def of_weights(w: Array, n: int, masses: Array | None = None) -> Array:
    """(2,) the bounds of KL(p‖π) in nats and of TV, from weights P/q (m,) and their masses under q (default: equal)."""
    q = np.full(w.size, 1 / w.size) if masses is None else masses
    above = w / float(q @ w) - 1
    p = q * (above + 1)
    told = np.log1p(np.where(p > 0, above, 0.0) / n)  # where n = 1 and w = 0 the log of 0, of which p has nothing
    excess = np.maximum(above, 0.0)
    return np.array([p @ told, p @ (excess / (excess + n))])
