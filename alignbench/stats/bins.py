"""Edges that part the values of a number into few bins: between its values, or at quantiles of p."""

from __future__ import annotations

import numpy as np

from alignbench.stats.jackknife import prompts_in, strata
from alignbench.stats.weights import TIE, scaled
from alignbench.types import Array

BINS = 10  # at most: more spread the draws so thin that few hold enough of them


def p_shares(prompt: Array, r: Array) -> Array:
    """(B,) p's share of each base draw by its log-weight r, mean over prompts; 0 for a prompt without any."""
    shares, prompts = np.zeros(r.size), prompts_in(prompt).size
    for rows, _ in strata(prompt):
        w = scaled(np.asarray(r, float)[rows])[0]
        shares[rows] = w / max(w.sum(), 1e-300) / prompts
    return shares


def edges(values: Array, weight: Array, bins: int) -> Array:
    """(E,) ascending edges: midway between distinct values where these are at most `bins`, else at weighted quantiles.

    A value on an edge is above it. Quantiles too lie midway between two values that were drawn.
    """
    values = np.asarray(values, float)
    told = np.unique(values[weight > 0])
    between = (told[1:] + told[:-1]) / 2
    if told.size <= bins:
        return np.asarray(between[np.diff(told) > TIE])
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weight[order]) / weight.sum()
    at = values[order][np.searchsorted(reached, np.arange(1, bins) / bins, side="left").clip(max=values.size - 1)]
    return np.asarray(np.unique(between[np.searchsorted(told, at).clip(max=between.size - 1)]))
