"""Means over the prompts given, and their intervals: 95 % unless a `level` is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.special import betaincinv, expit, logit, ndtri, stdtrit

from alignbench.stats.jackknife import jackknife, prompts_in, strata, unit_sums
from alignbench.types import Array, Estimate

Z95 = 1.959963984540054
Transform = Callable[[Array], Array]
LEVEL = 0.95
FLAT = "no interval: the draws do not differ"
BETWEEN = "some prompt has one independent draw: the interval takes the spread between prompts (conservative)"
ROUNDING = 1e-12  # of the value (or of 1): a standard error this small is rounding


def normal(
    value: float, variance: float, *, n: int, df: float = np.inf, note: str = "", level: float = LEVEL
) -> Estimate:
    """An estimate with a symmetric interval, by Student's t with `df` degrees of freedom.

    There is none where the variance is ∞, that is, unknown. A variance of 0 stays one, so that errors can be added;
    what is printed goes through `spread_or_none`.
    """
    value = float(value)
    if not np.isfinite(variance) or not np.isfinite(value):
        return Estimate(value=value, n=n, note=note)
    error = float(np.sqrt(max(variance, 0.0)))  # a sum of squares: below 0 only by rounding
    tail = 0.5 + level / 2
    half = error * float(ndtri(tail) if np.isinf(df) else stdtrit(max(df, 1.0), tail))
    return Estimate(value=value, stderr=error, ci_low=value - half, ci_high=value + half, n=n, note=note)


def spread_or_none(estimate: Estimate, note: str = FLAT) -> Estimate:
    """The estimate; without its interval, and with `note`, where the sample has no spread.

    Draws that happen to agree say that the spread is small, not that it is 0. What is exact by construction has an
    interval of width 0 and its own note, and does not come here.
    """
    if estimate.value is None or estimate.stderr is None or not np.isfinite(estimate.value):
        return estimate
    if estimate.stderr > ROUNDING * max(1.0, abs(estimate.value)):
        return estimate
    return without_interval(estimate, note)


def without_rounding(estimate: Estimate) -> Estimate:
    """The estimate in nats with 0 for what is as near to it as the rounding of log-probabilities.

    Sums of 100 nats are known to 1e-13: a divergence that is 0 comes out as 1e-14 where its terms are not the same
    sums, and has digits, a sign and limits on one side of 0 that say nothing.
    """
    told = {name: getattr(estimate, name) for name in ("value", "ci_low", "ci_high")}
    settled: dict[str, Any] = {name: 0.0 if x is not None and abs(x) <= ROUNDING else x for name, x in told.items()}
    return replace(estimate, **settled)


ENOUGH = 30
"""Independent draws in all below which a mean of sums of log-probabilities has no interval: two prompts of 4, 16 and 32
draws covered 84, 92 and 95 % of entropies, the far tail not being among the few."""


def told_by_enough(estimate: Estimate, prompt: Array, group: Array | None = None) -> Estimate:
    """The mean of a log-probability; without its interval where it is of fewer than `ENOUGH` independent draws."""
    units = sum(int(unit.max()) + 1 for _, unit in strata(prompt, group))
    if units >= ENOUGH or estimate.stderr is None:
        return estimate
    return without_interval(estimate, f"no interval: {units} independent draws, {ENOUGH} are needed")


def without_interval(estimate: Estimate, note: str) -> Estimate:
    """The same number without limits, and why."""
    return replace(estimate, stderr=None, ci_low=None, ci_high=None).noted(note)


def on_root_scale(estimate: Estimate) -> Estimate:
    """The same with limits set on the square root, of which a divergence near 0 is the square; only where above 0.

    Best-of-4 at KL(p‖π_b) = 0.009 from 3 · 128 base draws: plain limits covered 91.8 %, too low on the one side.
    """
    if estimate.value is None or estimate.ci_low is None or estimate.ci_high is None or estimate.value <= 0:
        return estimate
    value, root = estimate.value, float(np.sqrt(estimate.value))
    below, above = (_root_half(value, half) for half in (value - estimate.ci_low, estimate.ci_high - value))
    return replace(estimate, ci_low=(root - below) ** 2 if root > below else 0.0, ci_high=(root + above) ** 2)


def on_angle_scale(estimate: Estimate, top: float = 1.0) -> Estimate:
    """The same with limits between 0 and `top`, both of which they reach: set on the angle arcsin √(value/top).

    Near either end it is the root scale; a value outside is `folded`. Source: Anscombe, The transformation of Poisson,
    binomial and negative-binomial data (1948).
    """
    if estimate.value is None or estimate.ci_low is None or estimate.ci_high is None:
        return estimate
    if not 0 <= estimate.value <= top:
        return folded(estimate, top)
    share = estimate.value / top
    angle, spread = float(np.arcsin(np.sqrt(share))), share * (1 - share)
    below = angle - _root_half(spread, (estimate.value - estimate.ci_low) / top)
    above = angle + _root_half(spread, (estimate.ci_high - estimate.value) / top)
    low = top * float(np.sin(below)) ** 2 if below > 0 else 0.0
    high = top * float(np.sin(above)) ** 2 if above < np.pi / 2 else top
    return replace(estimate, ci_low=min(low, estimate.value), ci_high=max(high, estimate.value))


def _root_half(value: float, half: float) -> float:
    """Half the width on the root scale of a `value` ≥ 0 ± `half`: half/(2 √value), and finite at 0.

    (√value + ε)² with ε of variance v has the variance 4 v·value + 2 v², which is solved for v.
    """
    variance = (half / Z95) ** 2 / 2
    return Z95 * float(np.sqrt(variance / (np.sqrt(value**2 + variance) + value))) if half > 0 else 0.0


def folded(estimate: Estimate, top: float = np.inf) -> Estimate:
    """The size, 0 to `top`, of what was estimated as if it had a sign: reflected at 0 and at `top`, as its limits are.

    An interval that holds an end stops there: what it covers is all that the plain one covers between 0 and `top`. A
    total variation near 0 is such a size, and its estimate below 0 in half of all runs where π = p.
    """
    if estimate.value is None:
        return estimate
    size = _reflected(estimate.value, top)
    if estimate.ci_low is None or estimate.ci_high is None:
        return replace(estimate, value=size)
    ends = [_reflected(end, top) for end in (estimate.ci_low, estimate.ci_high)]
    low = 0.0 if estimate.ci_low <= 0 else min(*ends, size)
    high = top if estimate.ci_high >= top else max(*ends, size)
    return replace(estimate, value=size, ci_low=low, ci_high=high)


def _reflected(value: float, top: float) -> float:
    return abs(value) if abs(value) <= top else abs(2 * top - abs(value))


def inside(estimate: Estimate, span: tuple[float, float]) -> Estimate:
    """The same with limits inside the span that its value lies in: on the angle or root scale where one is outside."""
    (low, high), value = span, estimate.value
    if value is None or estimate.ci_low is None or estimate.ci_high is None or not low <= value <= high:
        return estimate
    if low <= estimate.ci_low and estimate.ci_high <= high:
        return estimate
    if np.isinf(low):
        return estimate
    from_low = moved(estimate, value - low)
    bounded = on_root_scale(from_low) if np.isinf(high) else on_angle_scale(from_low, high - low)
    return moved(bounded, value)


def on_logit_scale(estimate: Estimate, top: float = 1.0) -> Estimate:
    """The same with limits that are symmetric on the logit scale and so stay between 0 and `top`."""
    if estimate.value is None or estimate.ci_high is None:
        return estimate
    share = float(np.clip(estimate.value / top, 1e-9, 1 - 1e-9))
    half = (estimate.ci_high - estimate.value) / top / (share * (1 - share))
    low, high = (top * float(expit(logit(share) + side * half)) for side in (-1, 1))
    return replace(estimate, ci_low=min(low, estimate.value), ci_high=max(high, estimate.value))


def on_log_scale(estimate: Estimate) -> Estimate:
    """The same with limits symmetric on the log scale; on the root scale where the value is below half their width."""
    value, high = estimate.value, estimate.ci_high
    if value is None or high is None or high - value >= value:
        return on_root_scale(estimate)
    factor = float(np.exp((high - value) / value))
    return replace(estimate, ci_low=value / factor, ci_high=value * factor)


def satterthwaite(variances: Array, worth: Array) -> float:
    """Degrees of freedom of a mean of independent means (C,) with these variances, from `worth` draws each; at least 1.

    A prompt with few draws and most of the variance sets them. Source: Satterthwaite (1946).
    """
    variances = np.asarray(variances, float)
    if not np.isfinite(variances).all() or not variances.any():
        return 1.0
    shares = variances / variances.sum()
    return max(1.0, float(1 / (shares**2 / np.maximum(np.asarray(worth, float) - 1, 1.0)).sum()))


def wilson(hits: Array | float, n: Array | float, level: float = LEVEL) -> tuple[Array, Array]:
    """Limits of a share, from `hits` of `n` (Wilson, 1927); never empty, right at 0 and at n."""
    hits, n, z = np.asarray(hits, float), np.asarray(n, float), float(ndtri(0.5 + level / 2))
    centre = (hits + z**2 / 2) / (n + z**2)
    half = z / (n + z**2) * np.sqrt(np.maximum(hits * (1 - hits / n), 0.0) + z**2 / 4)
    low = np.where(hits <= 0, 0.0, centre - half)
    high = np.where(hits >= n, 1.0, centre + half)
    return low, high


def until(hits: float, trials: float, all_hit: bool = True) -> tuple[float, float, float]:
    """A chance per trial and its exact 95 % limits, from the `trials` that it took to get `hits`.

    The trials are negative binomial: (hits − 1)/(trials − 1) is unbiased, and the upper limit has one failure less
    to its name than Clopper and Pearson's. Not `all_hit`, where some were given up: hits/trials, and their limits.
    Source: Haldane, On a method of estimating frequencies (1945); Clopper and Pearson (1934).
    """
    given_up = not all_hit or hits < 1
    value = hits / trials if given_up or hits < 2 else (hits - 1) / (trials - 1)
    low = float(betaincinv(hits, trials - hits + 1, 0.025)) if hits else 0.0
    high = float(betaincinv(hits + given_up, trials - hits, 0.975)) if trials > hits else 1.0
    return value, low, high


def mover(values: Array, lows: Array, highs: Array) -> tuple[float, float]:
    """95 % limits of the mean of independent estimates, from the limits of each (C,).

    The squared distances to the limits add as variances do, each side for itself, so that skewed intervals stay
    skewed. Source: Zou and Donner, Construction of confidence limits about effect measures (2008).
    """
    values = np.asarray(values, float)
    centre = values.mean()
    below = np.sqrt(((values - lows) ** 2).sum()) / values.size
    above = np.sqrt(((highs - values) ** 2).sum()) / values.size
    return float(centre - below), float(centre + above)


def hull(estimate: Estimate, values: Array, lows: Array, highs: Array) -> Estimate:
    """The same with limits that hold those of `mover` too, from the values and limits of each prompt (C,).

    Where a prompt's limits are not known (NaN), those of the estimate stand.
    """
    if estimate.ci_low is None or estimate.ci_high is None or not np.isfinite([lows, highs]).all():
        return estimate
    low, high = mover(values, np.minimum(lows, values), np.maximum(highs, values))
    return replace(estimate, ci_low=min(low, estimate.ci_low), ci_high=max(high, estimate.ci_high))


def total(parts: Sequence[Estimate], *, n: int = 0) -> Estimate:
    """The sum of independent estimates; limits combine as in `mover`. An infinite part passes through.

    Where a part is missing but has limits, the sum has those of all parts added, which is wider than need be.
    """
    for part in parts:
        if part.value is None:
            ends = [[p.ci_low for p in parts], [p.ci_high for p in parts]]
            least, most = (None if None in limits else sum(x or 0.0 for x in limits) for limits in ends)
            return Estimate(None, None, least, most, n or part.n, note=part.note)
        if not np.isfinite(part.value):
            return part
    values = [float(p.value or 0.0) for p in parts]
    notes = "; ".join(dict.fromkeys(p.note for p in parts if p.note))
    if any(p.stderr is None or p.ci_low is None or p.ci_high is None for p in parts):
        return Estimate(value=sum(values), n=n or parts[0].n, note=notes)
    lows = np.array([p.ci_low for p in parts], float)
    highs = np.array([p.ci_high for p in parts], float)
    low, high = (len(parts) * limit for limit in mover(np.array(values), lows, highs))
    error = float(np.sqrt(sum((p.stderr or 0.0) ** 2 for p in parts)))
    sizes = [p.ess for p in parts if p.ess is not None]
    return Estimate(sum(values), error, low, high, n or parts[0].n, min(sizes) if sizes else None, notes)


def mean_over_prompts(prompt: Array, values: Array, group: Array | None = None, level: float = LEVEL) -> Estimate:
    """Mean over prompts of the mean of `values` (B,), in their unit; stratified by prompt, clustered by group.

    Where a prompt has a single unit, its spread is unknown: the interval then takes the spread between the prompts'
    means, which is at least as wide on average, and the note says so. Source: Cochran, Sampling Techniques (1977).
    """
    values = np.asarray(values, float)
    if not values.size:
        return Estimate.missing("no draws")
    means, variances, units = (np.array(x) for x in zip(*_spread(prompt, values, group), strict=True))
    if not np.all(np.isfinite(means)):
        return Estimate(value=float(means.mean()), n=values.size)
    if np.all(units >= 2):
        df = satterthwaite(variances, units)
        return normal(means.mean(), variances.sum() / means.size**2, n=values.size, df=df, level=level)
    if means.size == 1:
        return Estimate(float(means[0]), n=values.size, note="one independent draw: no interval")
    between = float(means.var(ddof=1)) / means.size
    return normal(means.mean(), between, n=values.size, df=means.size - 1, note=BETWEEN, level=level)


def _spread(prompt: Array, values: Array, group: Array | None) -> list[tuple[float, float, int]]:
    """(mean, variance of the mean, units) of each prompt."""
    answer = []
    for rows, unit in strata(prompt, group):
        mean, units = float(values[rows].mean()), int(unit.max()) + 1
        off = unit_sums((values[rows] - mean)[:, None], unit) if np.isfinite(mean) else np.zeros((units, 1))
        variance = float((off**2).sum()) / rows.size**2 * units / (units - 1) if units > 1 else np.inf
        answer.append((mean, variance, units))
    return answer


def of_totals(prompt: Array, columns: Array, theta: Callable[[Array], Array], group: Array | None = None) -> Estimate:
    """θ of the totals of `columns` (B, K) over all draws; jackknife interval, stratified by prompt, clustered by group.

    `theta` maps (R, K) totals to (R,). The other units of its prompt stand for one that is left out, so that prompts
    keep their shares; where some prompt has a single unit, the units of all prompts stand for each other.
    Source: Jones, Jackknife estimation of functions of stratum means (1974).
    """
    columns = np.asarray(columns, float)
    parts, note = [unit_sums(columns[rows], unit) for rows, unit in strata(prompt, group)], ""
    if min(map(len, parts)) < 2:
        parts, note = [np.concatenate(parts)], BETWEEN
    sums = columns.sum(axis=0)
    value = float(theta(sums[None])[0])
    if len(parts[0]) < 2:
        return Estimate(value, n=len(columns), note="one independent draw: no interval")
    variances = np.array([_by_leaving_out(sums, part, theta) for part in parts])
    if not np.isfinite(variances).all():
        return Estimate(value, n=len(columns), note="no interval: it cannot be had without some draw")
    df = satterthwaite(variances, np.array([len(part) for part in parts]))
    return spread_or_none(normal(value, float(variances.sum()), n=len(columns), df=df, note=note))


def _by_leaving_out(sums: Array, units: Array, theta: Callable[[Array], Array]) -> float:
    """What the (U, K) sums of one prompt's units add to the variance of θ of all sums (K,)."""
    count, mine = len(units), units.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):  # of what cannot be had without some unit: no variance
        without = theta(sums - mine + (mine - units) * count / (count - 1))
    return float(((without - without.mean()) ** 2).sum()) * (count - 1) / count


def ratio_over_prompts(
    prompt: Array, top: Array, bottom: Array, group: Array | None = None, note: str = ""
) -> Estimate:
    """Mean over prompts of `top` (B,) divided by mean over prompts of `bottom` (B,); delta interval, stratified.

    The denominator must not average to 0. Source: Cochran, Sampling Techniques (1977), §6.
    """
    below = mean_over_prompts(prompt, bottom).value
    above = mean_over_prompts(prompt, top).value
    if not below or above is None:
        return Estimate.missing("nothing to divide by", n=len(np.asarray(top)))
    value = above / below
    error = mean_over_prompts(prompt, influence_of_ratio(top, bottom, value, below), group)
    return spread_or_none(moved(error, value)).noted(note)


def influence_of_ratio(top: Array, bottom: Array, ratio: float, below: float) -> Array:
    """(B,) what each draw adds to a ratio of means, to first order; its mean over prompts is 0."""
    return (np.asarray(top, float) - ratio * np.asarray(bottom, float)) / below


def moved(error: Estimate, value: float) -> Estimate:
    """`error`, the estimate of something that is 0, with its interval moved to `value`."""
    shift = value - (error.value or 0.0)
    low = None if error.ci_low is None else error.ci_low + shift
    high = None if error.ci_high is None else error.ci_high + shift
    return replace(error, value=value, ci_low=low, ci_high=high)


def minus(estimate: Estimate) -> Estimate:
    """Minus the estimate, its limits exchanged."""
    value, low, high = (None if x is None else -x for x in (estimate.value, estimate.ci_high, estimate.ci_low))
    return replace(estimate, value=value, ci_low=low, ci_high=high)


def scaled(estimate: Estimate, factor: float) -> Estimate:
    """`factor` > 0 times the estimate, with its error and limits."""
    numbers = {name: getattr(estimate, name) for name in ("value", "stderr", "ci_low", "ci_high")}
    larger: dict[str, Any] = {name: x if x is None else factor * x for name, x in numbers.items()}
    return replace(estimate, **larger)


def share(prompt: Array, hit: Array, group: Array | None = None, level: float = LEVEL) -> Estimate:
    """Mean over prompts of the share of draws that `hit` (B,) bool; Wilson's limits, see `score_limits`."""
    hit = np.asarray(hit, bool)
    if not hit.size:
        return Estimate.missing("no draws")
    units = np.array([unit.max() + 1 for _, unit in strata(prompt, group)])
    worth = float(units.size**2 / (1 / units).sum())
    return replace(score_limits(mean_over_prompts(prompt, hit, group), worth, level), n=hit.size)


def score_limits(delta: Estimate, n: float, level: float = LEVEL) -> Estimate:
    """A share with Wilson's limits, at the number of draws, at most `n`, that has the variance of `delta`.

    By MOVER over the prompts' own limits, rare hits (2 % of 32 draws of each of 8 prompts) were covered in 88 % of
    3000 runs; like this in 96 %. Where nothing varies the standard error is half the width over 1.96, not 0.
    """
    value, seen = float(delta.value or 0.0), spread_or_none(delta, note="")
    if seen.stderr is not None and 0 < value < 1:
        n = min(n, value * (1 - value) / seen.stderr**2)
    low, high = (float(x) for x in wilson(value * n, n, level))
    if seen.stderr is None:
        return Estimate(value, (high - low) / 2 / float(ndtri(0.5 + level / 2)), low, high, n=delta.n)
    return replace(delta, ci_low=low, ci_high=high)


def monotone(prompt: Array, hit: Array, transform: Transform, group: Array | None = None) -> Estimate:
    """Mean over prompts of `transform`(share of draws that `hit`), the transform being monotone and elementwise.

    A prompt's limits are Wilson's, transformed; several prompts combine by MOVER. Its value is jackknifed, or where
    the transform is infinite at 0 (logs) that of k + ½ hits in n + ½ draws, which is nearly unbiased from 3 expected
    hits on (0.002 nats; 0.026 at 2). The standard error of a prompt without hits or without misses is half the width
    over 1.96, not 0. Where a prompt's value is infinite (the log of no hits) the value is None and the finite limits
    remain as bounds, each the mean of the prompts' own limits (wider than 95 %).
    Source: Pettigrew, Gart and Thomas, The bias and higher cumulants of the logarithm of a binomial variate (1986).
    """
    hit = np.asarray(hit, bool)
    if not hit.size:
        return Estimate.missing("no draws")
    table = np.array([_transformed(hit[rows], unit, transform) for rows, unit in strata(prompt, group)])
    values, variances, lows, highs = table.T
    if not np.all(np.isfinite(values)):
        low, high = (float(x.mean()) if np.all(np.isfinite(x)) else None for x in (lows, highs))
        return Estimate(None, ci_low=low, ci_high=high, n=hit.size, note=_empty(prompt, hit))
    low, high = mover(values, lows, highs)
    spread = float(variances.sum())
    error = float(np.sqrt(spread)) / values.size if np.isfinite(spread) else None
    return Estimate(float(values.mean()), error, low, high, n=hit.size)


def _transformed(hit: Array, unit: Array, transform: Transform) -> tuple[float, float, float, float]:
    """(value, variance, low, high) of one prompt's transformed share."""
    sums = unit_sums(np.stack([np.ones(hit.size), hit], axis=1), unit)
    n, mean = independent(sums), float(hit.mean())
    with np.errstate(divide="ignore"):
        low, high = (float(transform(limit)) for limit in wilson(mean * n, n))
        if np.isfinite(transform(np.zeros(1))).all() or mean == 0.0:
            value, variance = jackknife(sums, lambda s: transform(s[..., 1] / s[..., 0]))
        else:
            value, variance = _with_half_a_hit(mean * n, n, transform)
    low, high = min(low, high), max(low, high)
    if mean in (0.0, 1.0) and np.isfinite(variance) and np.isfinite(high - low):
        variance = ((high - low) / 2 / Z95) ** 2
    return value, variance, low, high


def _with_half_a_hit(hits: float, n: float, transform: Transform) -> tuple[float, float]:
    """The transform of (hits + ½)/(n + ½) and its variance, by its slope there."""
    z = (hits + 0.5) / (n + 0.5)
    step = 1e-5 * z
    slope = float(transform(np.array(z)) - transform(np.array(z - step))) / step
    return float(transform(np.array(z))), slope**2 * z * (1 - z) / n


def independent(sums: Array) -> float:
    """How many independent draws the (U, 2) sums (draws, hits) are worth: n over the design effect (at least 1)."""
    n, units = float(sums[:, 0].sum()), len(sums)
    mean = float(sums[:, 1].sum()) / n
    if units == n:
        return n
    if units == 1 or mean in (0.0, 1.0):
        return float(units)
    clustered = float(((sums[:, 1] - mean * sums[:, 0]) ** 2).sum()) * units / (units - 1) / n**2
    return min(n, mean * (1 - mean) / clustered) if clustered > 0 else n


def _empty(prompt: Array, hit: Array) -> str:
    empty = [c for c in prompts_in(prompt) if not hit[np.asarray(prompt) == c].any()]
    drawn = int(np.isin(prompt, empty).sum())
    return f"0 of {drawn} base draws reach the target for {len(empty)} of {prompts_in(prompt).size} prompts: a bound"
