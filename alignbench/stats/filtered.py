"""A filter: draws of q of which those with b = 0 are dropped, so that π = q·b/AR is known up to AR = q(b = 1).

KL(p‖π) = KL(p‖q) + log AR, and KL(π‖·) = E_q[log q − log · | b = 1] − log AR. Reference draws tell what is under p,
draws of q what is under π, and how many proposals each kept draw took tells AR: three independent sources.
Source: Kim et al., Guaranteed generation from large language models (2025).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.special import polygamma, psi

from alignbench.stats import divergences as of_density
from alignbench.stats.divergences import Sample, log_z_of
from alignbench.stats.intervals import (
    Z95,
    mean_over_prompts,
    minus,
    mover,
    spread_or_none,
    told_by_enough,
    total,
    until,
)
from alignbench.stats.jackknife import prompts_in, strata
from alignbench.stats.weights import LOGS, refusal
from alignbench.types import Array, Estimate


def log_rate(prompt: Array, trials: Array, kept: Array) -> Estimate:
    """Mean over prompts of log AR_c in nats, from the `trials` (N,) that each draw took and whether one was `kept`.

    Exact limits for each prompt, combined by MOVER.
    """
    rows_of = [rows for rows, _ in strata(prompt)]
    counts = [(int(kept[i].sum()), int(trials[i].sum()), bool(kept[i].all())) for i in rows_of]
    if lost := [int(c) for c, (hits, _, _) in zip(prompts_in(prompt), counts, strict=True) if not hits]:
        return Estimate.missing(f"no proposal was kept for prompt number {lost[0] + 1}", n=len(kept))
    values, variances, lows, highs = np.array([_log_chance(*count) for count in counts]).T
    low, high = mover(values, lows, highs)
    return Estimate(float(values.mean()), float(np.sqrt(variances.sum())) / values.size, low, high, n=len(kept))


def _log_chance(hits: int, trials: int, all_hit: bool) -> tuple[float, float, float, float]:
    """(value, variance, low, high) of the log of a chance per trial; limits as in `intervals.until`.

    ψ(hits) − ψ(trials) is unbiased where trials go on until so many hits: that of one hit is −Σ 1/j over the misses.
    Not `all_hit`, where some were given up: with one more of each, as for a fixed number of trials.
    """
    low, high = (float(np.log(limit)) for limit in until(hits, trials, all_hit)[1:])
    k, n = hits + (not all_hit), trials + (not all_hit)
    variance = float(polygamma(1, k) - polygamma(1, n)) if n > k else ((high - low) / 2 / Z95) ** 2
    return float(psi(k) - psi(n)), variance, low, high


def divergences(q: Sample, kept: Array, ref: Sample, rate: Estimate, truncates: bool = False) -> dict[str, Estimate]:
    """KL(p‖π), KL(π‖p), KL(π‖a) and KL(p‖π) − KL(p‖a) in nats, mean over prompts, with the error of the log `rate`.

    `q` are draws of the proposal, `kept` (B,) those with b = 1, `ref` reference draws; `log_gen` of both is log q.
    """
    found = {
        "kl_target": total([of_density.kl_target(ref, truncates), rate]),
        "kl_target_vs_base": total([of_density.kl_target_vs_base(ref, truncates), rate]),
    }
    unsaid = q.log_base[kept] == -np.inf
    if unsaid.any():
        nowhere = Estimate(np.inf, n=kept.size, note=f"{unsaid.mean():.3g} of π is what the base cannot say")
        return found | {"kl_reverse": nowhere, "kl_base": nowhere}
    return found | {
        "kl_reverse": total([_mean_under(q, kept, -q.excess), minus(rate), log_z_of(ref)]),
        "kl_base": total([_mean_under(q, kept, q.log_gen - q.log_base), minus(rate)]),
    }


def _mean_under(q: Sample, kept: Array, values: Array) -> Estimate:
    """Mean over prompts of E_π[values] (B,), from the draws of q that are `kept`."""
    if refused := refusal(q.prompt, np.where(kept, 0.0, -np.inf), LOGS):
        return Estimate.missing(f"draws of q that keep the hard constraints: {int(kept.sum())}; too few: {refused}")
    group = None if q.group is None else q.group[kept]
    found = spread_or_none(mean_over_prompts(q.prompt[kept], values[kept], group))
    return told_by_enough(replace(found, n=kept.size), q.prompt[kept], group)
