"""How much π and the target p overlap: total variation and Jensen-Shannon divergence, from draws of both.

Both are finite whatever either law lacks. π's own draws and the reference draws are independent; Ẑ comes from the
latter. Means over prompts, equal weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import expit, log_ndtr, ndtr

from alignbench.stats import discrete, unseen
from alignbench.stats.divergences import Sample
from alignbench.stats.intervals import (
    FLAT,
    Z95,
    folded,
    mean_over_prompts,
    moved,
    normal,
    satterthwaite,
    share,
    spread_or_none,
    total,
)
from alignbench.stats.jackknife import prompts_in, spread_of_sum, strata
from alignbench.stats.normaliser import log_z_by_prompt
from alignbench.stats.weights import SHARES, is_boolean, p_draws, refusal, scaled
from alignbench.types import Array, Estimate


@dataclass(frozen=True)
class _Prompt:
    """One prompt: log P − log π on own draws (n,) and on reference draws (m,), the latter's weights over their mean."""

    own: Array
    ref: Array  # 0 where the weight is 0
    weight: Array
    log_norm: float  # log Ẑ
    error: float  # its standard error, at least 1e-12


Prompts = list[tuple[Array, Array, _Prompt]]


def _prompts(own: Sample, ref: Sample) -> Prompts:
    """The rows of own draws and of reference draws, and what they say, prompt by prompt."""
    errors = log_z_by_prompt(ref.prompt, ref.ratio, ref.group, ref.component)[1]
    answer = []
    for (mine, _), (theirs, _), error in zip(strata(own.prompt), strata(ref.prompt), errors, strict=True):
        w, shift = scaled(ref.ratio[theirs])
        gap = np.where(w > 0, ref.excess[theirs], 0.0)
        norm = float(np.log(w.mean()) + shift)
        answer.append((mine, theirs, _Prompt(own.excess[mine], gap, w / w.mean(), norm, max(float(error), 1e-12))))
    return answer


def tv(own: Sample, ref: Sample) -> Estimate:
    """Total variation distance (0 to 1): 1 − E_π[min(1, P/(Zπ))], right where π lacks what p has; delta interval.

    The mean of two forms whose biases by the error of log Ẑ cancel: that one reads the error as distance, and
    p(A) − π(A) on A = {P/Ẑ > π} loses what an edge of A in the wrong place costs. Both are smoothed over a normal
    error of log Ẑ. Where many draws have P/(Zπ) = 1, as at π = p, they do not cancel: the lower limit makes up for it.
    Source: Scheffé's identity (1947).
    """
    refused = _refused(own, ref)
    if refused:
        return Estimate.missing(refused, n=np.size(own.prompt))
    prompts = _prompts(own, ref)
    answer = _with_few_hits(spread_or_none(_sum_of(own, ref, prompts, _tv_of_prompt)), own, lambda s: 1 - s)
    return folded(_allowing(_near_zero(answer, prompts), ref, 1.0), 1.0)


def _near_zero(answer: Estimate, prompts: Prompts) -> Estimate:
    """The TV with a lower limit that makes up for what the error of log Ẑ feigns."""
    feigned = float(np.mean([_feigned(prompt) for _, _, prompt in prompts]))
    if answer.ci_low is None or answer.stderr is None or feigned < answer.stderr / 100:
        return answer
    low = answer.ci_low - feigned
    return replace(answer, ci_low=low).noted(NEAR_ZERO if low <= 0 else "")


NEAR_ZERO = "cannot be told from 0, which the error of log Z hides"


def js(own: Sample, ref: Sample) -> Estimate:
    """Jensen-Shannon divergence of π and p in nats, at most log 2, in mixture form over both draw sets; delta interval.

    log 2 − ½ E_π log(1 + e^u) − ½ E_p log(1 + e^−u) with u = log p − log π. Ẑ enters to second order only, because
    E_π σ(u) = E_p σ(−u); its first-order term is carried all the same.
    """
    refused = _refused(own, ref)
    if refused:
        return Estimate.missing(refused, n=np.size(own.prompt))
    prompts = _prompts(own, ref)
    answer = _sum_of(own, ref, prompts, _js_of_prompt)
    lost = np.array([_js_lost(prompt) for _, _, prompt in prompts])
    shifted = moved(answer, answer.value + float(lost.mean())) if answer.value is not None else answer
    answer = spread_or_none(_at_least(shifted, 2 * float((lost**2).sum()) / lost.size**2))
    top = discrete.TOP["js"]
    return folded(_allowing(_with_few_hits(answer, own, _js_of_share), ref, top), top)


def _allowing(answer: Estimate, ref: Sample, top: float) -> Estimate:
    """The distance, at most `top`, with limits that allow for draws of p that `ref` hardly has."""
    if ref.component is None and is_boolean(ref.prompt, ref.ratio):
        return answer
    by = unseen.moves(ref.prompt, ref.ratio, ref.bound, unseen.of_share(top))
    return unseen.widened(answer, unseen.either_way(by), unseen.SETTLED * top)


HITS = 10
"""Own draws that keep the hard constraints, below which nothing is known of their spread."""


def _with_few_hits(answer: Estimate, own: Sample, of_share: Callable[[float], float]) -> Estimate:
    """Limits by data processing where hardly an own draw keeps the hard constraints: they hold whatever such draws are.

    p gives the constraints probability 1, and π at most Wilson's limit s; `of_share` (s) is the divergence of these two
    coins, the least that π and p have, and of_share (0) the most.
    """
    hits = int(own.allowed.sum())
    if hits >= HITS or hits == own.allowed.size or answer.value is None:
        return answer
    rate = share(own.prompt, own.allowed, own.group).ci_high or 0.0
    low, high = (min(of_share(rate), answer.value), max(of_share(0.0), answer.value))
    note = f"{hits} own draws keep the hard constraints: limits by their share"
    told = "" if answer.note == FLAT else answer.note  # it has limits now
    return replace(answer, stderr=(high - low) / 2 / Z95, ci_low=low, ci_high=high, note=told).noted(note)


def _js_of_share(rate: float) -> float:
    """Jensen-Shannon divergence in nats of coins of probability 1 and `rate`."""
    return float(discrete.js(np.array([1.0, 0.0]), np.array([rate, 1.0 - rate])))


def _at_least(estimate: Estimate, variance: float) -> Estimate:
    """The estimate with at least this variance: what is left of its error where the first order vanishes."""
    if estimate.value is None or estimate.stderr is None or estimate.stderr**2 >= variance:
        return estimate
    return replace(normal(estimate.value, variance, n=estimate.n, note=estimate.note), ess=estimate.ess)


def _sum_of(own: Sample, ref: Sample, prompts: Prompts, adds: Callable[[_Prompt], tuple[Array, Array]]) -> Estimate:
    """Mean over prompts of what both draw sets add: in every prompt the sum of two means, which are independent."""
    ours, theirs = np.empty(np.size(own.prompt)), np.empty(np.size(ref.prompt))
    for mine, others, prompt in prompts:
        ours[mine], theirs[others] = adds(prompt)
    worth = p_draws(ref.prompt, ref.ratio)
    return replace(total([_of_own(own, ours), _of_p(ref, theirs, worth)]), ess=float(worth.sum()))


def _of_own(own: Sample, values: Array) -> Estimate:
    """Mean over prompts of `values` (B,), which are one number in a prompt where a hard constraint is broken.

    The share of such draws has Wilson's limits: where 1 % of own draws are on the target's support, the limits of a
    plain mean covered 71 %.
    """
    broken, kept, gap = ~own.allowed, values.copy(), 0.0
    mixed = np.zeros(values.size, bool)  # draws of the prompts that have both kinds
    for rows, _ in strata(own.prompt):
        out, inside = rows[broken[rows]], rows[~broken[rows]]
        if out.size and inside.size:
            mixed[rows] = True
            kept[out] = values[inside].mean()
            gap += float((values[out] - kept[out]).sum())
    whole = mean_over_prompts(own.prompt, values, own.group)
    if not mixed.any():
        return whole
    prompt, group = np.asarray(own.prompt), None if own.group is None else np.asarray(own.group)[mixed]
    rate = share(prompt[mixed], broken[mixed], group)
    size = gap / float(broken[mixed].sum()) * prompts_in(prompt[mixed]).size / prompts_in(prompt).size
    low, high = sorted(size * (limit or 0.0) for limit in (rate.ci_low, rate.ci_high))
    cost = Estimate(size * (rate.value or 0.0), abs(size) * (rate.stderr or 0.0), low, high, n=values.size)
    both = total([mean_over_prompts(prompt, kept, own.group), cost], n=values.size)
    return moved(both, float(whole.value or 0.0))


def _of_p(ref: Sample, values: Array, worth: Array) -> Estimate:
    """Mean over prompts of `values` (B,), linear in the weights; Student's t by the p-draws that they are worth."""
    table = []
    for rows, unit in strata(ref.prompt, ref.group):
        drawn = None if ref.component is None else np.asarray(ref.component)[rows]
        mean = float(values[rows].mean())
        table.append((mean, spread_of_sum(values[rows] - mean, unit, drawn) / rows.size**2))
    means, variances = np.array(table).T
    df = satterthwaite(variances, worth)
    return normal(float(means.mean()), float(variances.sum()) / means.size**2, n=values.size, df=df)


def _refused(own: Sample, ref: Sample) -> str:
    """Why TV and JS must not be printed; empty when they may."""
    counts = np.unique(np.asarray(own.prompt), return_counts=True)[1]
    if counts.min() < 2:
        return "fewer than 2 own draws for some prompt"
    if prompts_in(own.prompt).tolist() != prompts_in(ref.prompt).tolist():
        return "own draws and draws of the base are of different prompts"
    return refusal(ref.prompt, ref.ratio, SHARES)


def _tv_of_prompt(at: _Prompt) -> tuple[Array, Array]:
    """What each own draw and each draw of the base adds to a prompt's TV, half for each form.

    With u = log p − log π and log Ẑ off by a normal error of variance v, (1 − e^u)⁺ has the mean
    Φ(−u/√v) − e^(u + v/2) Φ(−u/√v − √v), and 1[u > 0] the mean Φ(u/√v).
    """
    u = at.own - at.log_norm - np.log1p(at.error**2 / 2)
    inside, theirs = (ndtr((x - at.log_norm) / at.error) for x in (at.own, at.ref))
    slope = float(_above(u, at.error).mean())
    p_mean = float((at.weight * theirs).mean())
    ours = (ndtr(-u / at.error) - _above(u, at.error) - inside) / 2
    return ours, (slope * (at.weight - 1) + p_mean + at.weight * (theirs - p_mean)) / 2


def _above(u: Array, error: float) -> Array:
    """E[e^(u + ε) 1(u + ε < 0)] for a normal ε of this standard deviation."""
    return np.asarray(np.exp(u + error**2 / 2 + log_ndtr(-u / error - error)))


def _feigned(at: _Prompt) -> float:
    """What the error of log Ẑ adds to the mean of the two forms of a prompt's TV, where draws gather at P/(Zπ) = 1.

    With t = u/σ and σ² = 2·error², for the smoothing and for the error itself, a draw adds ½ σ (φ(t) − 2 |t| Φ(−|t|)),
    whose integral over u is 0: nothing where draws are spread evenly, 0.28 errors where all lie at 0. Where u = 0 is,
    E_π[e^u] = 1 says; further than 3 errors off, π lacks some of p and its draws lie elsewhere.
    """
    u, error = at.own - at.log_norm, at.error
    off = float(np.logaddexp.reduce(u) - np.log(u.size))
    if not abs(off) <= 3 * error:
        return 0.0
    t = np.minimum(np.abs(u - off) / error / np.sqrt(2), 40.0)
    added = float((np.exp(-(t**2) / 2) / np.sqrt(2 * np.pi) - 2 * t * ndtr(-t)).mean())
    return float(max(added, 0.0) * error / np.sqrt(2))


def _js_of_prompt(at: _Prompt) -> tuple[Array, Array]:
    """What each own draw and each reference draw adds to a prompt's JS; the two means add up to it."""
    ours = np.log(2) / 2 - np.logaddexp(0.0, at.own - at.log_norm) / 2
    theirs = np.log(2) - np.logaddexp(0.0, at.log_norm - at.ref)
    slope_own, slope_ref = expit(at.own - at.log_norm), expit(at.log_norm - at.ref)
    p_mean, p_slope = float((at.weight * theirs).mean()), float((at.weight * slope_ref).mean())
    slope = float(slope_own.mean() - p_slope) / 2
    return ours, p_mean / 2 + at.weight * (theirs - p_mean) / 2 + slope * (at.weight - 1)


def _js_lost(at: _Prompt) -> float:
    """What the error of Ẑ takes off a prompt's JS on average, to second order; at π = p all its error is of that order.

    Both logs are concave in log Ẑ, and the weighted mean is a ratio.
    """
    theirs = np.log(2) - np.logaddexp(0.0, at.log_norm - at.ref)
    slope_own, slope_ref = expit(at.own - at.log_norm), expit(at.log_norm - at.ref)
    p_mean, p_slope = float((at.weight * theirs).mean()), float((at.weight * slope_ref).mean())
    bent = float((slope_own * (1 - slope_own)).mean() + (at.weight * slope_ref * (1 - slope_ref)).mean())
    skew = float((at.weight**2 * (theirs - p_mean + slope_ref - p_slope)).mean()) / at.weight.size
    return (skew + bent * at.error**2 / 2) / 2
