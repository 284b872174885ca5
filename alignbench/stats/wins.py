"""Win rates: how often a draw of one law beats a draw of another by a score, ties counted half."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from alignbench.stats.intervals import (
    mean_over_prompts,
    moved,
    mover,
    normal,
    on_angle_scale,
    satterthwaite,
    score_limits,
    spread_or_none,
    total,
)
from alignbench.stats.jackknife import jackknife, prompts_in, strata, unit_sums
from alignbench.stats.selection import of_two_cells, selected, shares, ties, too_few_to_tie, uncountable
from alignbench.stats.weights import TIE, cells
from alignbench.types import Array, Estimate, Selection


def win_rate(own: tuple[Array, Array], ref: tuple[Array, Array], group: Array | None = None) -> Estimate:
    """P(r > r') + ½ P(r = r') for r of `own` and r' of `ref`, each (prompt, score) arrays; mean over prompts.

    The Mann-Whitney statistic by prompt, with the variance of its two projections and Wilson's limits at the number of
    draws that has it; scores within `weights.TIE` are ties. `group` (B,) clusters own draws.
    Source: Hoeffding, A class of statistics with asymptotically normal distribution (1948).
    """
    if prompts_in(own[0]).tolist() != prompts_in(ref[0]).tolist():
        return Estimate.missing("own draws and draws of the base are of different prompts", n=np.size(own[0]))
    beats, loses = np.empty(np.size(own[0])), np.empty(np.size(ref[0]))
    for (mine, _), (theirs, _) in zip(strata(own[0]), strata(ref[0]), strict=True):
        beats[mine] = _beaten(np.asarray(own[1], float)[mine], np.asarray(ref[1], float)[theirs])
        loses[theirs] = 1 - _beaten(np.asarray(ref[1], float)[theirs], np.asarray(own[1], float)[mine])
    found = mean_over_prompts(own[0], beats, group)
    other = mean_over_prompts(ref[0], loses)
    both = total([found, moved(other, 0.0)], n=beats.size)
    if both.stderr is None:
        return both
    seen = spread_or_none(both).stderr is not None  # else as for a share of that many draws
    fewest = min(int(np.unique(side[0], return_counts=True)[1].min()) for side in (own, ref))
    return score_limits(both, np.inf if seen else float(fewest * prompts_in(own[0]).size))


def _beaten(scores: Array, others: Array) -> Array:
    """(n,) for each score, the share of `others` below it, ties counted half."""
    ranked = np.sort(others)
    low, high = scores - TIE, scores + TIE
    return np.asarray((np.searchsorted(ranked, low) + np.searchsorted(ranked, high, side="right")) / (2 * ranked.size))


def of_best(prompt: Array, r: Array, n: int, group: Array | None = None) -> Estimate:
    """The win rate of best-of-n over one draw of the base by r (B,) of base draws alone; at most n/(n + 1).

    Mean over prompts, jackknifed. Where no two draws tie it is n/(n + 1) itself.
    """
    r = np.asarray(r, float)
    refused = uncountable(prompt, r, n) or ("" if ties(prompt, r) else too_few_to_tie(prompt))
    if refused:
        return Estimate.missing(refused, n=r.size, ci_high=n / (n + 1))
    if not ties(prompt, r):
        return Estimate(n / (n + 1), n=r.size, note="no two base draws tie: n/(n + 1), its upper bound")
    table = [_of_prompt(r[rows], unit, n) for rows, unit in strata(prompt, group)]
    values, variances, lows, highs = np.array(table).T
    each = np.array([rows.size for rows, _ in strata(prompt)])
    df = satterthwaite(variances, each)
    found = normal(float(values.mean()), float(variances.sum()) / values.size**2, n=r.size, df=df)
    found = on_angle_scale(found, n / (n + 1))
    if np.isfinite(lows).all():
        low, high = mover(values, np.minimum(lows, values), np.maximum(highs, values))
        found = replace(found, ci_low=low, ci_high=high)
    return spread_or_none(replace(found, note="closed form from base draws"))


def _of_prompt(r: Array, unit: Array, n: int) -> tuple[float, float, float, float]:
    """(value, variance, low, high) of one prompt; limits between Wilson's with two cells, none (NaN) with more."""
    values, code = cells(r)
    order, law = np.arange(len(values), dtype=float), Selection("best", n)
    counts = unit_sums(np.eye(len(values))[code], unit)

    def wins(m: Array) -> Array:
        base = shares(m)
        beaten = np.cumsum(base, axis=-1) - base / 2
        return np.asarray((selected(base, order, law) * beaten).sum(axis=-1))

    if len(values) == 2:
        return of_two_cells(wins, code == 1, unit)
    return (*jackknife(counts, wins), np.nan, np.nan)
