"""The cell of what is asked that a draw is in, as a text: what control codes say, and baselines go by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from alignbench.target import Target
from alignbench.types import Array, Draws


def codes_of(target: Target, prompts: Sequence[str], draws: Draws) -> list[str]:
    """(B,) the code of each draw: the cell that each asked feature is in, as text."""
    features = target.measure(prompts, draws)
    parts = [_cells(target, name, np.asarray(features[name])) for name in target.feature_names]
    return [", ".join(cells) for cells in zip(*parts, strict=True)] if parts else [""] * len(draws)


def edges_of(target: Target) -> dict[str, list[float]]:
    """What cells depend on besides the target's own identity: the edges of the bins of each number."""
    bins = {} if target.fit is None else target.fit.bins
    return {name: np.asarray(bins[name]).tolist() for name in target.feature_names if name in bins}


def _cells(target: Target, name: str, values: Array) -> list[str]:
    """(B,) the cell of one feature: "word: yes", "pronoun: she", "length: 3 of 10"."""
    if name in target.categories:
        known = target.categories[name]
        return [f"{name}: {known[int(v)] if v >= 0 else 'none'}" for v in values]
    edges = target.fit.bins.get(name) if target.fit is not None else None
    if edges is None or name not in target.binned:
        return [f"{name}: {'yes' if v == 1 else 'no'}" for v in values]
    return [f"{name}: {k + 1} of {len(edges) + 1}" for k in np.searchsorted(edges, values, side="right")]
