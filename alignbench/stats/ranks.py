"""Which rows of a table are best, by paired differences: ties with the best, ranks with limits, and fronts.

Each row is one generator's number, with its value and its delete-a-block jackknife replicates: block g is the same
draws for all rows, so that the replicates of a difference know what the rows share. Overlap of the rows' own intervals
knows nothing of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr

from alignbench.stats.compare import LEVEL, holm
from alignbench.types import Array

SAME = 1e-7
"""Of the larger size (or of 1): numbers closer than this are one number; replicates are kept to 8 digits."""


@dataclass(frozen=True)
class Numbers:
    """What m rows reached by one metric.

    `values`: NaN where it was not measured, ±∞ where that was seen. `replicates` (m, G): NaN where a row has none, and
    G = 0 where no row has any. `error`: each row's own standard error, NaN where it is not known, and `df` its degrees
    of freedom (m,), None where all are ∞; a pair of rows without replicates is told apart by the sum of both errors,
    which is as far as their difference can err whatever they share.
    """

    values: Array  # (m,)
    replicates: Array  # (m, G)
    error: Array  # (m,)
    better: str = "lower"
    df: Array | None = None  # (m,)

    def take(self, rows: Array) -> Numbers:
        """The rows at these places."""
        df = None if self.df is None else self.df[rows]
        return Numbers(self.values[rows], self.replicates[rows], self.error[rows], self.better, df)


@dataclass(frozen=True)
class Ranks:
    """(m,) ranks from 1, 1 the best, and their limits; NaN where a row is not ranked."""

    rank: Array
    low: Array
    high: Array


def jackknife_error(differences: Array) -> Array:
    """(…,) standard error of a number from its replicates (…, G): √((G − 1)/G Σ (d_g − mean)²)."""
    count = differences.shape[-1]
    off = differences - differences.mean(axis=-1, keepdims=True)
    return np.asarray(np.sqrt((off**2).sum(axis=-1) * (count - 1) / count))


def ahead(numbers: Numbers) -> Array:
    """(m, m) one-sided p-values: small where row i is better than row j; 1 where that cannot be told.

    Student's t of the paired difference with G − 1 degrees of freedom; where rows are not paired, or no block moves
    their difference, of the sum of their errors with the fewer degrees of the two. ∞ is told from what is finite, and
    is tied with itself.
    """
    values = _signed(numbers.values, numbers.better)
    with np.errstate(invalid="ignore"):  # ∞ − ∞
        gap = values[None, :] - values[:, None]
        size = np.maximum(np.abs(values[None, :]), np.abs(values[:, None]))
        same = np.abs(gap) <= SAME * np.maximum(size, 1.0)
    error, df = _errors(numbers)
    told = np.isfinite(gap) & ~same & ~np.isnan(error)
    p = np.where(gap == np.inf, 0.0, 1.0)
    exact = told & (error == 0)
    p[exact] = gap[exact] <= 0
    told &= error > 0
    p[told] = stdtr(df[told], -gap[told] / error[told])
    return p


def _errors(numbers: Numbers) -> tuple[Array, Array]:
    """(m, m) standard errors of differences, NaN where not known, and their degrees of freedom."""
    values, own = np.asarray(numbers.error, float), np.full(len(numbers.error), np.inf)
    own = own if numbers.df is None else numbers.df
    error, df = values[None, :] + values[:, None], np.minimum(own[None, :], own[:, None])
    rows = np.flatnonzero(np.isfinite(numbers.replicates).all(axis=1) & bool(numbers.replicates.shape[1]))
    table, size = numbers.replicates[rows], np.maximum(np.abs(numbers.values[rows]), 1.0)
    for i, mine, large in zip(rows, table, size, strict=True):
        paired = jackknife_error(mine - table)
        moved = paired > SAME * np.maximum(size, large)
        error[i, rows[moved]], df[i, rows[moved]] = paired[moved], table.shape[1] - 1
    return error, df


def _signed(values: Array, better: str) -> Array:
    """The values, so that lower is better."""
    return np.asarray(values, float) * (1.0 if better == "lower" else -1.0)


def tied(numbers: Numbers) -> Array:
    """(m,) bool: rows that no other row is surely better than; the truly best is one of them with 1 − `LEVEL`.

    Each of the m − 1 one-sided tests of a row is at `LEVEL`/(m − 1): whichever row is truly the best, one of the
    others may look better by chance. Source: Hsu, Multiple Comparisons: Theory and Methods (1996), §4.
    """
    known = ~np.isnan(numbers.values)
    others = max(int(known.sum()) - 1, 1)
    return np.asarray(known & ~(ahead(numbers) * others <= LEVEL).any(axis=0))


def ranks(numbers: Numbers) -> Ranks:
    """1 + the rows with a better value, with limits that hold for all rows at once with 1 − `LEVEL`.

    low = 1 + the rows surely better, high = m − those surely worse, by Holm's procedure over all ordered pairs. Source:
    Mogstad, Romano, Shaikh and Wilhelm, Inference for ranks with applications to mobility across neighbourhoods and
    academic achievement across countries (2024), §3.
    """
    known = np.flatnonzero(~np.isnan(numbers.values))
    m, answer = known.size, np.full((3, numbers.values.size), np.nan)
    if m:
        some = numbers.take(known)
        pairs = ~np.eye(m, dtype=bool)
        sure = np.zeros((m, m), bool)
        sure[pairs] = holm(ahead(some)[pairs]) <= LEVEL
        answer[:, known] = competition_ranks(some.values, some.better), 1 + sure.sum(axis=0), m - sure.sum(axis=1)
    return Ranks(*answer)


def competition_ranks(values: Array, better: str = "lower") -> Array:
    """(m,) 1 + how many values are better: equal values share the best of their ranks, and the next one is skipped."""
    signed = _signed(values, better)
    return np.asarray(1 + (signed[None, :] < signed[:, None]).sum(axis=1))


def pareto(values: Array, better: Sequence[str]) -> Array:
    """(m,) bool: rows of `values` (m, K) than which no other is at least as good in all K objectives and better in one.

    By the point values alone, whatever their errors; a row with a NaN is neither on the front nor compared.
    """
    signed = np.asarray(values, float) * [1.0 if way == "lower" else -1.0 for way in better]
    known = ~np.isnan(signed).any(axis=1)
    no_worse = (signed[:, None, :] <= signed[None, :, :]).all(axis=2)
    ahead_once = (signed[:, None, :] < signed[None, :, :]).any(axis=2)
    return np.asarray(known & ~(no_worse & ahead_once & known[:, None]).any(axis=0))
