"""Leave-one-out for smooth functions of sums: bias and variance of ratios and logs of means, jointly.

Every estimated normaliser enters as a column of the same sums, so that its error is carried and never subtracted
beforehand. A unit is one draw, or one group of dependent draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from alignbench.types import Array


def prompts_in(prompt: Array) -> Array:
    """(C,) the prompts that have draws, ascending."""
    return np.unique(np.asarray(prompt))


def strata(prompt: Array, group: Array | None = None) -> Iterator[tuple[Array, Array]]:
    """For each prompt, ascending: the rows (n,) of its draws, and the unit (n,) in 0..U−1 that each belongs to."""
    prompt = np.asarray(prompt)
    for c in prompts_in(prompt):
        rows = np.flatnonzero(prompt == c)
        unit = np.arange(rows.size) if group is None else np.unique(np.asarray(group)[rows], return_inverse=True)[1]
        yield rows, unit


def unit_sums(columns: Array, unit: Array) -> Array:
    """(U, K) sums of the (n, K) columns over each unit."""
    if unit.size == unit.max(initial=-1) + 1:  # one draw a unit, in order
        return columns[np.argsort(unit, kind="stable")]
    sums = np.zeros((unit.max() + 1, columns.shape[1]))
    np.add.at(sums, unit, columns)
    return sums


def jackknife(sums: Array, theta: Callable[[Array], Array]) -> tuple[float, float]:
    """θ of the column totals, bias-corrected, and its variance, by leaving out one unit at a time.

    `sums` is (U, K); `theta` maps (…, K) totals to (…). With a single unit there is nothing to leave out: variance ∞.
    The second-order term 2·bias² matters where θ is near a minimum, such as a KL near 0, and its slope vanishes: there
    θ̂ − θ is half a quadratic form HΣ of normal errors, of mean tr(HΣ)/2 and variance tr((HΣ)²)/2 ≤ 2·mean².
    Source: Efron and Stein, The jackknife estimate of variance (1981).
    """
    total, units = sums.sum(axis=0), len(sums)
    with np.errstate(divide="ignore", invalid="ignore"):  # a total may be 0; the gates speak of that
        whole = float(theta(total))
        if units < 2 or not np.isfinite(whole):
            return whole, np.inf
        without = theta(np.maximum(total - sums, 0.0) if np.all(sums >= 0) else total - sums)
    if not np.all(np.isfinite(without)):
        return whole, np.inf
    centre = float(without.mean())
    spread = float(((without - centre) ** 2).sum())
    bias = (units - 1) * (centre - whole)
    return whole - bias, spread * (units - 1) / units + 2 * bias**2


def spread_of_sum(values: Array, unit: Array, component: Array | None = None) -> float:
    """Sampling variance of Σ values (n,), units being independent; by component where each drew a fixed number.

    `values` are taken to have mean 0 unless components are given; ∞ where a component has a single unit.
    """
    sums = unit_sums(values[:, None], unit)[:, 0]
    code = np.zeros(sums.size, int) if component is None else stratum_of(unit, component)
    units = np.bincount(code)
    if units.min() < 2:
        return np.inf
    off = sums - (np.bincount(code, sums) / units)[code]
    return float((np.bincount(code, off**2) * units / (units - 1)).sum())


def stratum_of(unit: Array, component: Array) -> Array:
    """(U,) code 0, 1, … of the component that drew each unit (n,); a unit has one."""
    code = np.unique(component, return_inverse=True)[1]
    answer = np.zeros(unit.max() + 1, int)
    answer[unit] = code
    return answer


def leave_out(theta: Callable[[Array], Array], unit: Array) -> tuple[Array, Array]:
    """(P,) values of θ, bias-corrected, and their (P,) variances, for what is no function of sums.

    `theta` maps the rows kept (n,) to (P,) values; `unit` (B,) is left out one at a time. As `jackknife` otherwise, the
    second-order term too: weights of 1 and 7.4 near the β where JS(p, π_β) is largest, 3 · 128 draws, 298 runs: JS
    covered 90 % without it and 93 % with it, KL(p‖π_β) 93 and 98 %, TV 94 and 96 %.
    """
    units = int(unit.max()) + 1
    whole = theta(np.arange(unit.size))
    if units < 2:
        return whole, np.full(whole.shape, np.inf)
    return from_left_out(whole, np.array([theta(np.flatnonzero(unit != u)) for u in range(units)]))


def from_left_out(whole: Array, without: Array) -> tuple[Array, Array]:
    """(P,) values, bias-corrected, and their (P,) variances, from θ of all (P,) and without each unit (U, P)."""
    units = len(without)
    if units < 2:
        return whole, np.full(whole.shape, np.inf)
    centre = without.mean(axis=0)
    bias = (units - 1) * (centre - whole)
    variance = ((without - centre) ** 2).sum(axis=0) * (units - 1) / units + 2 * bias**2
    finite = np.isfinite(variance)
    return np.where(finite, whole - bias, whole), np.where(finite, variance, np.inf)
