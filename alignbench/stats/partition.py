"""Cells of the asked features: the finest that draws of p and draws of π fill.

In which order cells are joined the reference draws say alone, never π: of two laws the coarser cells are unions of the
finer. How far they are joined depends on own draws too, so that asked gaps of joined cells are limits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from alignbench.stats.divergences import Sample
from alignbench.stats.jackknife import prompts_in, strata
from alignbench.stats.weights import scaled
from alignbench.types import Array

EACH = 10.0
"""Draws of p, and own draws, that every cell with p > 0 needs in every prompt. Three cells, four prompts, 64 own draws:
the asked gap covered 93.9 %; with 5 expected a cell 89 %."""
MOST = 10  # cells with p > 0: more spread the draws so thin that few have `EACH`
OUTSIDE = -1  # the cell of what p never says


@dataclass(frozen=True)
class Celled:
    """Reference draws of p and draws of π, each in its cell (0 … K − 1, `OUTSIDE` where p has no mass)."""

    ref: Sample
    ref_cell: Array  # (B,) int
    own_prompt: Array  # (M,) int
    own_cell: Array  # (M,) int
    own_group: Array | None = None
    coarse: bool = False  # some cell holds several values of φ
    refused: str = ""  # why no cells are fine enough to tell anything

    @property
    def count(self) -> int:
        """K, the number of cells with p > 0."""
        return int(self.ref_cell.max(initial=OUTSIDE)) + 1

    @property
    def one(self) -> bool:
        """Whether p is all in one cell: hard constraints and nothing else."""
        return self.count <= 1


def celled(
    ref: Sample, ref_code: Array, own_prompt: Array, own_code: Array, own_group: Array | None, coarse: bool
) -> Celled:
    """The finest cells that draws of p and of π fill, by codes (any integers) of the values of φ.

    Cells are joined with their neighbours in log P/a, those with the fewest draws of p first: an order that knows
    nothing of π, so that two laws whose draws fill the same cells are compared on these.
    """
    codes, at = np.unique(ref_code, return_inverse=True)
    place = np.searchsorted(codes, own_code).clip(max=codes.size - 1)
    found = np.where(codes[place] == own_code, place, codes.size)  # the last: no reference draw has that code
    drawn = Celled(ref, at, own_prompt, found, own_group)
    finest = True
    for label in _joined(ref, at):
        cells = replace(
            drawn, ref_cell=label[at], own_cell=np.append(label, OUTSIDE)[found], coarse=coarse or not finest
        )
        if cells.one and not finest and not _outside(cells):
            break  # one cell that holds all says nothing
        if label.max() < MOST and (cells.one or _filled(cells)):
            return cells
        finest = False
    return replace(drawn, refused=f"fewer than {EACH:g} draws of p, or own draws, in some cell of what is asked")


def is_coarse(cells: Celled, ref_code: Array, own_code: Array) -> bool:
    """Whether some cell with p > 0 holds several codes."""
    cell, code = np.append(cells.ref_cell, cells.own_cell), np.append(ref_code, own_code)
    inside = cell > OUTSIDE
    pairs = np.unique(np.stack([cell[inside], code[inside]], axis=1), axis=0)
    return bool(pairs.shape[0] > np.unique(pairs[:, 0]).size)


def _joined(ref: Sample, code: Array) -> Iterator[Array]:
    """(K,) the cell of each code, from as many cells as codes with p > 0 down to one."""
    weight, worth = _worth(ref, code)
    label = np.full(weight.shape[1], OUTSIDE)
    inside = np.flatnonzero(weight.sum(axis=0) > 0)
    with np.errstate(divide="ignore"):
        level = np.log(weight.sum(axis=0)) - np.log(np.bincount(code))
    order = inside[np.argsort(level[inside], kind="stable")]
    groups = [[k] for k in order]
    while groups:
        for number, members in enumerate(groups):
            label[members] = number
        yield label.copy()
        if len(groups) == 1:
            return
        counts = [float(_fewest(worth[:, members].sum(axis=1))) for members in groups]
        least = int(np.argmin(counts))
        sides = [i for i in (least - 1, least + 1) if 0 <= i < len(groups)]
        other = min(sides, key=lambda i: counts[i])
        low, high = sorted((least, other))
        groups[low : high + 1] = [groups[low] + groups[high]]


def _worth(ref: Sample, code: Array) -> tuple[Array, Array]:
    """(C, K) p's share of each code in each prompt, and how many draws of p it is told by (Kish)."""
    prompts, count = prompts_in(ref.prompt), int(code.max()) + 1
    weight, worth = np.zeros((2, prompts.size, count))
    for c, (rows, _) in enumerate(strata(ref.prompt)):
        w = scaled(ref.ratio[rows])[0]
        sums, squares = (np.bincount(code[rows], w**power, count) for power in (1, 2))
        weight[c] = sums / max(w.sum(), 1e-300)
        worth[c] = np.divide(sums**2, squares, out=np.zeros(count), where=squares > 0)
    return weight, worth


def _fewest(worth: Array) -> float:
    """The least number of draws that a prompt has of a cell, of those that have any."""
    return float(worth[worth > 0].min(initial=np.inf))


def _filled(cells: Celled) -> bool:
    """Whether every cell with p > 0 has `EACH` draws of p and of π in every prompt."""
    worth = _worth(cells.ref, np.where(cells.ref_cell == OUTSIDE, cells.count, cells.ref_cell))[1][:, : cells.count]
    own = np.zeros(worth.shape)
    for c, (rows, unit) in enumerate(strata(cells.own_prompt, cells.own_group)):
        pairs = np.unique(np.stack([cells.own_cell[rows], unit], axis=1), axis=0)[:, 0]  # a group counts once
        own[c] = np.bincount(pairs[pairs >= 0], minlength=worth.shape[1])
    told = worth > 0
    return bool((worth[told] >= EACH * (1 - 1e-9)).all() and (own[told] >= EACH).all())


def _outside(cells: Celled) -> bool:
    """Whether some draw is where p has no mass."""
    return bool((cells.ref_cell == OUTSIDE).any() or (cells.own_cell == OUTSIDE).any())
