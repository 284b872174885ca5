"""Black boxes: how far two laws are at least, from what their draws show of features with few fixed cells.

Data processing: a divergence between distributions of a feature is at most that of the draws themselves, so that a
lower limit of the former is one of the latter. The plug-in point is no bound: noise alone makes it positive.
Source: Cover and Thomas, Elements of Information Theory (2006), §4.4; Clopper and Pearson (1934).
"""

from __future__ import annotations

import numpy as np
from scipy.special import betaincinv

from alignbench.errors import UsageError
from alignbench.stats import discrete
from alignbench.stats.jackknife import prompts_in, strata
from alignbench.types import Array, Estimate

MOST = 10  # cells: more spread the draws so thin that the limit is 0
PARTS = ("kl_target", "kl_reverse", "tv")
_STEPS = 4000


def lower_limits(
    own: tuple[Array, Array], wanted: tuple[Array, Array] | Array, cells: int, group: Array | None = None
) -> dict[str, Estimate]:
    """One-sided 95 % lower limits of KL(p‖π), KL(π‖p) (nats) and TV between feature distributions: `PARTS`.

    `own` = (prompt, cell) of draws of π, `wanted` likewise of exact draws of p, or p's cell shares (`cells`,) where
    they are known, as by a distribution constraint. Cells are 0 … `cells` − 1, fixed beforehand. With several prompts
    the law of the cell is averaged over prompts (equal draws of each are used), which cannot increase a divergence.
    Simultaneous Clopper-Pearson limits of all shares, by Bonferroni; the smallest divergence that they allow.
    """
    if not 2 <= cells <= MOST:
        raise UsageError(f"a feature with 2 to {MOST} cells is needed, not {cells}")
    if group is not None and any(unit.max() + 1 < rows.size for rows, unit in strata(own[0], group)):
        return dict.fromkeys(PARTS, Estimate.missing("draws depend on each other in groups: no exact limits"))
    laws = 1 if not isinstance(wanted, tuple) else 2  # that have a limit on either side of each cell
    mine, used = _counts(own[0], own[1], cells)
    box = shares_box(mine, 0.05 / (2 * cells * laws))
    if isinstance(wanted, tuple):
        other = shares_box(_counts(wanted[0], wanted[1], cells)[0], 0.05 / (2 * cells * laws))
    else:
        other = _given(wanted, cells)
    note = f"lower limit by {cells} cells of a feature (data processing)"
    found = zip(PARTS, (nearest_kl(other, box), nearest_kl(box, other), nearest_tv(other, box)), strict=True)
    return {part: Estimate(None, ci_low=low, n=used, note=note) for part, low in found}


def _given(shares: Array, cells: int) -> tuple[Array, Array]:
    shares = np.asarray(shares, float)
    if shares.shape != (cells,) or np.any(shares < 0) or abs(shares.sum() - 1) > 1e-6:
        raise UsageError(f"the shares of {cells} cells must be {cells} numbers that sum to 1")
    return shares, shares


def _counts(prompt: Array, cell: Array, cells: int) -> tuple[Array, int]:
    """(cells,) counts over the first draws of each prompt, as many as the prompt with the fewest has; their number."""
    prompt, cell = np.asarray(prompt), np.asarray(cell)
    if cell.size and not (cell.min() >= 0 and cell.max() < cells):
        raise UsageError(f"cells must be 0 to {cells - 1}; give what is in none a cell of its own")
    each = min((int((prompt == c).sum()) for c in prompts_in(prompt)), default=0)
    kept = [np.flatnonzero(prompt == c)[:each] for c in prompts_in(prompt)]
    rows = np.concatenate(kept) if kept else np.zeros(0, int)
    return np.bincount(cell[rows], minlength=cells), rows.size


def shares_box(counts: Array, alpha: float) -> tuple[Array, Array]:
    """(K,) lowest and highest share of each cell, each side exact at level `alpha` (Clopper and Pearson, 1934).

    They hold for sums over prompts with unequal shares too: those spread less than a binomial (Hoeffding, 1956).
    """
    n = counts.sum()
    low = np.where(counts > 0, betaincinv(np.maximum(counts, 1), n - counts + 1, alpha), 0.0)
    high = np.where(counts < n, betaincinv(counts + 1, np.maximum(n - counts, 1), 1 - alpha), 1.0)
    return np.asarray(low), np.asarray(high)


def nearest_kl(p_box: tuple[Array, Array], q_box: tuple[Array, Array]) -> float:
    """The least KL(p‖q) in nats over distributions p and q within their boxes: by turns, less the gap that is left.

    KL is convex in both; scaling one side to the other and cutting at the box solves each turn (Csiszár and Tusnády,
    1984). The gap is that of the linearisation at the end, so that what is returned is never above the minimum.
    """
    p, q = _scaled_into(p_box[0], p_box), _scaled_into(q_box[0], q_box)
    for _ in range(_STEPS):
        before = q
        q = _scaled_into(p, q_box)
        p = _scaled_into(q, p_box)
        if np.abs(q - before).max() < 1e-13:
            break
    value = float(discrete.kl(p, q))
    if not np.isfinite(value) or value <= 0:
        return max(value, 0.0)
    with np.errstate(divide="ignore"):
        slope_p = np.where(p > 0, np.log(np.where(p > 0, p, 1.0) / q), 0.0)
        slope_q = -np.divide(p, q, out=np.zeros(q.shape), where=p > 0)
    least = value + _linear(slope_p, p_box) - slope_p @ p + _linear(slope_q, q_box) - slope_q @ q
    return max(float(least), 0.0)


def nearest_tv(p_box: tuple[Array, Array], q_box: tuple[Array, Array]) -> float:
    """A total variation that no distributions within the boxes can go below: the larger one-sided sum of gaps."""
    above = np.maximum(p_box[0] - q_box[1], 0.0).sum()
    below = np.maximum(q_box[0] - p_box[1], 0.0).sum()
    return float(max(above, below))


def _scaled_into(law: Array, box: tuple[Array, Array]) -> Array:
    """The distribution min(high, max(low, t·law)) for the t that makes it sum to 1."""
    low, high = box
    logs = np.log(np.maximum(law, 1e-300))  # of an unseen cell, which may still be raised
    small, large = -1500.0, 1500.0  # log t, beyond all that 1e-300 needs
    for _ in range(200):
        t = (small + large) / 2
        total = np.clip(np.exp(np.minimum(logs + t, 50.0)), low, high).sum()
        small, large = (t, large) if total < 1 else (small, t)
    return np.asarray(np.clip(np.exp(np.minimum(logs + large, 50.0)), low, high))


def _linear(slope: Array, box: tuple[Array, Array]) -> float:
    """The least of slope · x over distributions x within the box: the cheapest cells are filled first."""
    x = box[0].copy()
    left = 1.0 - x.sum()
    for k in np.argsort(slope):
        add = min(left, box[1][k] - x[k])
        x[k], left = x[k] + add, left - add
    return float(slope @ x)
