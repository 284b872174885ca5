"""Which of several generators is better, from what each draw contributes on draws that they share: paired differences.

A row of values (B,) is one generator's: their mean over prompts is its number, and value i is what draw i adds to it.
Two generators are paired when value i of both belongs to one shared reference draw, or to one (prompt, index). What
both share (Ẑ, easy prompts) then cancels; overlap of their own intervals says nothing of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from alignbench.stats.flips import sign_flips
from alignbench.stats.intervals import mean_over_prompts, normal, spread_or_none
from alignbench.stats.jackknife import strata, unit_sums
from alignbench.types import Array, CiOver, Estimate

LEVEL = 0.05


@dataclass(frozen=True)
class Pairing:
    """Which draws belong together, and what an interval is meant to hold for.

    `over`: "prompts_given" (these prompts are all there are: stratified, clustered by `group`), or
    "prompts_like_these" (they stand for others: clustered by prompt, Student's t with C − 1 degrees of freedom).
    """

    prompt: Array  # (B,) int
    group: Array | None = None  # (B,) int: draws of one dependent run
    over: CiOver = "prompts_given"


def paired(first: Array, second: Array, pairing: Pairing) -> Estimate:
    """Mean over prompts of first − second (B,), in their unit, with the interval that `pairing.over` asks for."""
    difference = np.asarray(first, float) - np.asarray(second, float)
    if pairing.over == "prompts_given":
        return spread_or_none(mean_over_prompts(pairing.prompt, difference, pairing.group))
    means = _prompt_means(difference, pairing)
    if means.size < 2:
        return Estimate(float(means.mean()), n=difference.size, note="one prompt says nothing of others: no interval")
    found = normal(
        float(means.mean()), float(means.var(ddof=1)) / means.size, n=difference.size, df=means.size - 1,
        note="the interval is for prompts like these",
    )  # fmt: skip
    return spread_or_none(found)


def permuted(first: Array, second: Array, pairing: Pairing, rng: np.random.Generator) -> float:
    """Sign-flip p-value of first − second (B,): exact where both are one law, whatever its shape.

    Each independent unit (draw, group or prompt) swaps its two values with probability ½; see `flips.sign_flips`.
    """
    return sign_flips(_shares(np.asarray(first, float) - np.asarray(second, float), pairing), rng)


def holm(p_values: Array) -> Array:
    """(m,) p-values adjusted so that rejecting those <= α is wrong anywhere with probability <= α.

    Source: Holm, A simple sequentially rejective multiple test procedure (1979).
    """
    p = np.asarray(p_values, float)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * (p.size - np.arange(p.size)))
    adjusted = np.empty(p.size)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def _prompt_means(values: Array, pairing: Pairing) -> Array:
    """(C,) mean of each prompt's values."""
    return np.array([values[rows].mean() for rows, _ in strata(pairing.prompt)])


def _tables(difference: Array, pairing: Pairing) -> list[Array]:
    """Per stratum, (units, 2): sums and counts of the units; whole prompts are units of one stratum."""
    if pairing.over == "prompts_like_these":
        means = _prompt_means(difference, pairing)
        return [np.stack([means, np.ones(means.size)], axis=1)]
    both = np.stack([difference, np.ones(difference.size)], axis=1)
    return [unit_sums(both[rows], unit) for rows, unit in strata(pairing.prompt, pairing.group)]


def _shares(difference: Array, pairing: Pairing) -> Array:
    """(units,) what each independent unit adds to the mean over prompts."""
    tables = _tables(difference, pairing)
    return np.concatenate([t[:, 0] / t[:, 1].sum() for t in tables]) / len(tables)
