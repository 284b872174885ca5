"""Sign-flip tests of paired differences: every flip where units are few, else flips drawn at random."""

from __future__ import annotations

import numpy as np

from alignbench.types import Array

MOST = 20  # units whose million flips are all tried, in some hundredths of a second
RESAMPLES = 9_999
BATCH = 1_000  # flips at once: 1,000 × 1,000 units × 8 bytes = 8 MB
ROUNDING = 1e-12  # of the sum of sizes: flips that come so near to the sum reach it


def sign_flips(units: Array, rng: np.random.Generator) -> float:
    """p-value of a mean of 0 of the independent differences `units` (U,), each as likely with either sign.

    The share of the 2^U flips whose sum is at least as far from 0; of `RESAMPLES` drawn ones and the sample itself
    where U > `MOST`. Exact where both of each pair come from one law, whatever its shape. Sources: Good, Permutation,
    Parametric and Bootstrap Tests of Hypotheses (2005), §3; Phipson and Smyth, Permutation p-values should never be
    zero (2010).
    """
    units = np.asarray(units, float)
    reached = abs(float(units.sum())) - ROUNDING * float(np.abs(units).sum())
    if units.size <= MOST:
        return float((np.abs(_all_sums(units)) >= reached).mean())
    sizes = [min(BATCH, RESAMPLES - done) for done in range(0, RESAMPLES, BATCH)]
    far = sum(int((np.abs(_drawn_sums(units, size, rng)) >= reached).sum()) for size in sizes)
    return (far + 1) / (RESAMPLES + 1)


def _all_sums(units: Array) -> Array:
    """(2^U,) the sums under all flips of signs."""
    sums = np.zeros(1)
    for unit in units:
        sums = np.concatenate([sums + unit, sums - unit])
    return sums


def _drawn_sums(units: Array, count: int, rng: np.random.Generator) -> Array:
    """(count,) sums under flips drawn at random."""
    return np.asarray((2.0 * rng.integers(0, 2, (count, units.size)) - 1.0) @ units)
