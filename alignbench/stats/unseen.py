"""What weights that were hardly drawn, or never, could change: p may sit on rare heavy draws that a sample lacks.

Draws whose weights are alike are a class. Each class of few draws is taken at the limits that its count allows, and the
class above the largest weight seen at those of a count of 0; what an estimate would be then widens its interval. A
gate alone does not do: read off the same draws, it lets lucky runs through. Random worlds with steep rewards on a
count, 32 to 1,024 draws a prompt: of all runs 21 % printed a wrong log Z and 24 % a wrong KL(p‖π), with this 0 and 4 %.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy.special import gammaincinv

from alignbench.stats.jackknife import prompts_in, strata
from alignbench.stats.weights import TIE, scaled
from alignbench.types import Array, Estimate

ALIKE = float(np.log(2))  # nats: weights that differ by less than a factor of 2 are one class
WELL = 10  # draws from which the share of a class is known well enough for the usual error
NONE = float(gammaincinv(1, 0.975))  # 3.69: the most draws that can be expected, where there were none
EACH = 0.5
"""Draws of the class above all seen that may be expected in every prompt at once: where what classes add to Z at least
halves from one to the next, a quarter of those of the class below."""
NEGLIGIBLE = 1e-3  # of p: classes that cannot have more say nothing
SETTLED = 0.2  # width of an interval, in nats or as a share, that is narrow enough whatever the value
HALF = 0.5
"""Of the value: a wider interval is not printed. And of p: where classes never drawn could hold more, nothing is."""
LITTLE = 1.5
"""Times the width that the usual error gives: limits that are no wider are printed, however wide."""


class Classes(NamedTuple):
    """One prompt's draws counted otherwise, in A ways.

    The class above all seen is added in the last two: in the one before the last for this prompt alone, in the last for
    all prompts at once.
    """

    times: Array  # (A, n) how often each draw is counted
    more: Array  # (A,) draws of the class above the largest weight seen
    log_weight: float  # of that class
    weight: Array  # (n,) weights over their sum
    top: Array  # (n,) bool: the class of the largest weight
    step: float  # nats from the largest weight to the class above it

    def counts(self, code: Array) -> Array:
        """(A, K + 1) draws in each of the K cells `code` (n,), and in the class above all seen."""
        first = np.unique(code, return_index=True)[1]
        return np.column_stack([np.bincount(code) * self.times[:, first], self.more])

    @property
    def added(self) -> Array:
        """(A,) what is added to Z, over Z."""
        return (self.times - 1) @ self.weight + self.above

    @property
    def above(self) -> Array:
        """(A,) what the class above the largest weight adds to Z, over Z.

        Draws like those seen are missing too, of which the usual error knows: what is more than their mean counts.
        """
        heavier = float(self.weight.max()) * np.exp(self.step) - float(self.weight[self.weight > 0].mean())
        return np.asarray(self.more * heavier)


Change = Callable[[Array, Classes], Array]
"""Rows (n,) of a prompt and its `Classes` → (A,) how much its value changes."""


class Moves(NamedTuple):
    """How far a mean over prompts could move, down (≤ 0) and up: by classes of few draws, and by those of none."""

    few: tuple[float, float]
    none: tuple[float, float]
    share: float  # of p, in classes never drawn (0 to 1)


def moves(prompt: Array, r: Array, bound: Array | None, change: Change) -> Moves:
    """What classes of few or no draws could do to a mean over prompts, from log-weights r (B,).

    `bound` (B,): the largest log-weight that a draw of the same prompt can have; None where none is known. Classes are
    changed one at a time, but those never drawn in all prompts at once too: each prompt may lack one.
    """
    few, none, together, share, count = [0.0], [0.0], 0.0, 0.0, prompts_in(prompt).size
    for rows, _ in strata(prompt):
        if not np.isfinite(r[rows]).any():
            continue
        most = np.inf if bound is None else float(bound[rows[0]])
        classes = _classes(np.asarray(r, float)[rows], most, count)
        *seen, alone, also = change(rows, classes) / count
        few, none, together = few + seen, [*none, alone], together + also
        share += float(classes.above[-2] / (1 + classes.above[-2])) / count
    none.append(together)
    return Moves(_ends(few), _ends(none), share)


def _ends(values: list[float]) -> tuple[float, float]:
    return float(min(values)), float(max(values))


def _classes(r: Array, bound: float, prompts: int) -> Classes:
    """The classes of one prompt's log-weights, at least one of which is finite."""
    w, code = scaled(r)[0], _code(r)
    drawn = np.bincount(code)
    most = gammaincinv(drawn + 1, 0.975) / drawn
    few = np.flatnonzero((drawn < WELL) & (most * np.bincount(code, w) > NEGLIGIBLE * w.sum()))
    times = np.ones((2 * few.size + 2, r.size))
    for k, which in enumerate(few):
        times[2 * k : 2 * k + 2, code == which] = [[gammaincinv(drawn[which], 0.025) / drawn[which]], [most[which]]]
    more = np.zeros(len(times))
    step = _step(r, bound)
    if step > 0:
        more[-2:] = NONE, EACH + (NONE - EACH) / prompts
    return Classes(times, more, float(r.max()) + step, w / w.sum(), code == 0, step)


def _code(r: Array) -> Array:
    """(n,) the class of each draw: 0 that of the largest weight, downwards; weights of 0 are one class."""
    code, left = np.zeros(r.size, int), r > -np.inf
    while left.any():
        left &= r <= r[left].max() - ALIKE + TIE
        code[left] += 1
    code[r == -np.inf] = code.max() + 1
    return np.unique(code, return_inverse=True)[1]


def _step(r: Array, bound: float) -> float:
    """Nats from the largest log-weight to the class above it; 0 where the largest is at its bound.

    As far as it is from the next below; where that is less, as far as from the median, but at most `ALIKE`.
    """
    top, allowed = float(r.max()), r[r > -np.inf]
    below = allowed[allowed < top - TIE]
    step = max(top - float(below.max()), min(ALIKE, top - float(np.median(allowed)))) if below.size else ALIKE
    left = bound - top
    return 0.0 if left <= TIE else min(step, left)


def of_log_z(rows: Array, at: Classes) -> Array:
    """(A,) changes of log Z in nats."""
    return np.log1p(at.added)


def most_added(prompt: Array, r: Array, bound: Array) -> float:
    """Nats by which draws not seen can raise the mean over prompts of log Z, if all were as heavy as can be.

    At most `NONE` of n draws; −∞ weights alone say nothing of Z, and ∞ is what they leave.
    """
    more = []
    for rows, _ in strata(prompt):
        w, shift = scaled(np.asarray(r, float)[rows])
        more.append(np.log1p(NONE * np.exp(float(bound[rows[0]]) - shift) / w.sum()) if w.any() else np.inf)
    return float(np.mean(more))


def of_kl(gap: Array) -> Change:
    """Changes of E_p[gap] − log Z in nats: gap (B,) is log P − log π.

    A class never drawn has the gap of the one below it and the nats between the two: π there is as it is here.
    """

    def change(rows: Array, at: Classes) -> Array:
        p, values = at.weight, np.where(at.weight > 0, gap[rows], 0.0)
        mean = float(p @ values)
        above = float(p[at.top] @ values[at.top] / p[at.top].sum()) + at.step
        moved = (mean + (at.times - 1) @ (p * values) + at.above * above) / (1 + at.added)
        return np.asarray(moved - mean - np.log1p(at.added))

    return change


def of_mean(values: Array) -> Change:
    """Changes of E_p of `values` (B,); a class never drawn has those of the one below it."""

    def change(rows: Array, at: Classes) -> Array:
        p, mine = at.weight, np.where(at.weight > 0, values[rows], 0.0)
        mean, above = float(p @ mine), float(p[at.top] @ mine[at.top] / p[at.top].sum())
        return np.asarray((mean + (at.times - 1) @ (p * mine) + at.above * above) / (1 + at.added) - mean)

    return change


def of_share(top: float) -> Change:
    """Changes of an average under p of what lies between 0 and `top`: at most those of what is elsewhere."""
    return lambda rows, at: top * np.abs(at.added) / (1 + at.added)


def either_way(found: Moves) -> Moves:
    """The same, down as far as up."""
    few, none = (max(-low, high) for low, high in (found.few, found.none))
    return found._replace(few=(-few, few), none=(-none, none))


def widened(estimate: Estimate, by: Moves, settled: float = SETTLED) -> Estimate:
    """The estimate with limits that allow for these moves; refused where they could be too far.

    Too far: where more than half of p may never have been drawn, or where the limits are wider than `settled`, than
    half of the value, and than by a little what the usual error makes them.
    """
    value, low, high = estimate.value, estimate.ci_low, estimate.ci_high
    if value is None or low is None or high is None or not np.isfinite(value):
        return estimate
    if by.share > HALF:
        return Estimate.missing(f"weights heavier than all seen may hold {by.share:.0%} of the target", n=estimate.n)
    below, above = min(low, value + by.few[0]) + by.none[0], max(high, value + by.few[1]) + by.none[1]
    if above - below > max(settled, HALF * abs(value), LITTLE * (high - low)):
        could = f"weights hardly or never drawn could take it from {below:.3g} to {above:.3g}"
        return Estimate.missing(f"{could}: more draws are needed, or features with a known range", n=estimate.n)
    return replace(estimate, ci_low=below, ci_high=above)
