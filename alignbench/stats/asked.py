"""What was asked of π and what else it changed: KL(p‖π) = KL(p_φ‖π_φ) + E_{p_φ} KL(p(·|φ)‖π(·|φ)), nats.

φ are the features that the target asks about, so that p(x|φ) = a(x|φ). The first part is the asked gap, which needs the
cells of φ alone and no density; the second, the collateral, is the rest of KL(p‖π). Where a cell holds several values
of φ, the asked gap is at least what its cells tell, and the collateral at most (data processing).
Source: Cover and Thomas, Elements of Information Theory (2006), theorem 2.5.3 (chain rule) and §4.4.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy.special import rel_entr

from alignbench.stats import unseen
from alignbench.stats.divergences import Sample, kl_influence, log_z_of
from alignbench.stats.intervals import minus, moved, normal, on_root_scale, satterthwaite, spread_or_none, total
from alignbench.stats.jackknife import jackknife, spread_of_sum, strata, unit_sums
from alignbench.stats.normaliser import log_z
from alignbench.stats.partition import Celled
from alignbench.stats.weights import LOGS, few_carriers, is_tied, p_draws, refusal, scaled
from alignbench.types import Array, Estimate

AT_LEAST = "at least: a cell holds several values of what is asked"
AT_MOST = "at most: a cell holds several values of what is asked"
ON_CELLS = "on cells that hold several values of what is asked"
BOTH_INFINITE = "∞ − ∞: what is asked may be all that is missing"


class Parts(NamedTuple):
    """The two parts of KL(p‖π), and how much more the first is than the base's on the same cells, nats."""

    asked: Estimate
    collateral: Estimate
    asked_vs_base: Estimate


def parts(cells: Celled, whole: Estimate, gap: Array | None) -> Parts:
    """The parts of KL(p‖π), mean over prompts, jackknifed jointly over reference and own draws.

    `whole` is KL(p‖π) as it is printed, so that asked gap and collateral add up to it; `gap` (B,) = log P − log π on
    reference draws, None where π has no density.
    """
    refused = cells.refused or ("" if cells.one else refusal(cells.ref.prompt, cells.ref.ratio, LOGS))
    told = _missing(refused, cells, whole) if refused else _told(cells, whole, gap)
    if not cells.coarse:
        return told
    if told.collateral.value == np.inf:
        told = told._replace(collateral=Estimate.missing(BOTH_INFINITE))
    return Parts(*map(_noted, told, (AT_LEAST, AT_MOST, ON_CELLS)))


def _told(cells: Celled, whole: Estimate, gap: Array | None) -> Parts:
    return Parts(*map(spread_or_none, _one_cell(cells, whole) if cells.one else _cell_by_cell(cells, whole, gap)))


def _missing(why: str, cells: Celled, whole: Estimate) -> Parts:
    nothing = Estimate.missing(why, n=cells.own_prompt.size)
    return Parts(nothing, _not_finite(nothing, whole) or nothing, nothing)


def _noted(estimate: Estimate, note: str) -> Estimate:
    said = (estimate.value, estimate.ci_low, estimate.ci_high) != (None, None, None)
    return estimate.noted(note) if said else estimate


def _not_finite(asked: Estimate, whole: Estimate) -> Estimate | None:
    """The collateral where KL(p‖π) is ∞ or not known; None where it is a number.

    ∞ less a finite asked gap is ∞; less one of which only a lower limit is known it is not known.
    """
    if whole.value is None:
        return Estimate.missing(whole.note or "KL(p‖π) is not known", n=whole.n)
    if np.isfinite(whole.value):
        return None
    if asked.value is None or not np.isfinite(asked.value):
        return Estimate.missing(BOTH_INFINITE, n=whole.n)
    return Estimate(np.inf, n=whole.n, note=whole.note)


def _one_cell(cells: Celled, whole: Estimate) -> Parts:
    """Hard constraints alone: −log of the share of π that keeps them, and KL(p‖π_b)."""
    kept = np.where(cells.own_cell == 0, 0.0, -np.inf)
    share = log_z(cells.own_prompt, kept, cells.own_group)
    of_base = log_z_of(replace(cells.ref, log_target=np.where(cells.ref_cell == 0, cells.ref.log_base, -np.inf)))
    collateral, n = _not_finite(minus(share), whole), cells.own_prompt.size
    if collateral is None:
        few = f"own draws that keep what is asked: {int((kept == 0).sum())}; too few"
        collateral = Estimate.missing(few, n=n) if share.value is None else total([whole, share], n=n)
    known = share.value is not None and of_base.value is not None
    versus = total([minus(share), of_base], n=n) if known else Estimate.missing(share.note or of_base.note, n=n)
    return Parts(minus(share), collateral, versus)


class _Prompt(NamedTuple):
    """One prompt: values less their bias, what reference draws add to each, and what own draws add to both."""

    asked: float
    versus: float  # the asked gap less that of the base on the same cells
    ref_asked: Array  # (n,)
    ref_versus: Array  # (n,)
    own: Array  # (m,)
    bent: float  # variance by the second order: twice the squared biases


@dataclass(frozen=True)
class _Spreads:
    """All prompts: (C,) values, and the variances of the asked gap, of the rest of KL(p‖π), and of the difference."""

    asked: Array
    versus: Array
    of_asked: Array
    of_rest: Array
    of_versus: Array
    worth: Array  # draws that each prompt's error is known by
    few: str  # why the weights' error is not to be trusted; "" where it is
    n: int

    def mean(self, values: Array, variances: Array) -> Estimate:
        """Mean over prompts of values (C,) with these variances."""
        df = satterthwaite(variances, self.worth)
        return normal(float(values.mean()), float(variances.sum()) / values.size**2, n=self.n, df=df)


def _spreads(cells: Celled, of_kl: Array | None) -> _Spreads:
    """`of_kl` (B,): what each reference draw adds to the error of KL(p‖π); None where that is not known."""
    ref = cells.ref
    table, influence = [], np.zeros((2, ref.prompt.size))
    pairs = zip(strata(ref.prompt, ref.group), strata(cells.own_prompt, cells.own_group), strict=True)
    for (rows, unit), (mine, own) in pairs:
        it = _of_prompt(cells, (rows, unit), (mine, own))
        drawn = None if ref.component is None else np.asarray(ref.component)[rows]
        from_own = spread_of_sum(it.own, own) + it.bent
        rest = it.ref_asked if of_kl is None else of_kl[rows] - it.ref_asked
        spreads = [spread_of_sum(psi, unit, drawn) + from_own for psi in (it.ref_asked, rest, it.ref_versus)]
        table.append((it.asked, it.versus, *spreads, float(own.max()) + 1))
        influence[:, rows] = it.ref_asked, it.ref_versus
    asked, versus, of_asked, of_rest, of_versus, units = np.array(table).T
    few = "" if is_tied(ref.prompt, ref.ratio) else next(filter(None, map(few_carriers, influence)), "")
    worth = np.minimum(p_draws(ref.prompt, ref.ratio), units)
    return _Spreads(asked, versus, of_asked, of_rest, of_versus, worth, few, cells.own_prompt.size)


def _cell_by_cell(cells: Celled, whole: Estimate, gap: Array | None) -> Parts:
    """Several cells with p > 0."""
    ref, rows = cells.ref, None if gap is None else gap[cells.ref.allowed]
    known = whole.value is not None and rows is not None and bool(np.isfinite(rows).all())
    found = _spreads(cells, kl_influence(ref, gap) if gap is not None and known else None)
    if found.few:
        return _missing(found.few, cells, whole)
    change = _change(cells)
    asked = _allowing(ref, _near_zero(found.mean(found.asked, found.of_asked)), change)
    collateral = _not_finite(asked, whole)
    if collateral is None and (gap is None or not known or asked.value is None):
        collateral = Estimate.missing(asked.note or "the generator has no density", n=found.n)
    if collateral is None:
        assert gap is not None
        rest = moved(found.mean(0.0 * found.asked, found.of_rest), (whole.value or 0.0) - (asked.value or 0.0))
        collateral = _allowing(ref, rest, _less(unseen.of_kl(gap), change))
    if asked.value is None:
        return Parts(asked, collateral, Estimate.missing(asked.note, n=found.n))
    versus = _bent(found.mean(found.versus, found.of_versus), asked)
    return Parts(asked, collateral, _allowing(ref, versus, _less(change, _change(cells, of_base=True))))


def _less(change: unseen.Change, other: unseen.Change) -> unseen.Change:
    return lambda rows, at: change(rows, at) - other(rows, at)


def _allowing(ref: Sample, estimate: Estimate, change: unseen.Change) -> Estimate:
    """The estimate with limits that allow for draws of p that were hardly or never seen."""
    return unseen.widened(estimate, unseen.moves(ref.prompt, ref.ratio, ref.bound, change))


def _near_zero(estimate: Estimate) -> Estimate:
    """The same with limits on the root scale, at 0 where the estimate is below it.

    Two cells, 2 · 128 draws, KL 0.014: the plain limits of estimates below 0 end too soon, 90.8 % were covered.
    """
    value = estimate.value or 0.0
    if value > 0 or estimate.ci_high is None:
        return on_root_scale(estimate)
    at_zero = on_root_scale(moved(estimate, 1e-12))
    return replace(at_zero, value=value, ci_low=min(value, 0.0))


def _bent(versus: Estimate, asked: Estimate) -> Estimate:
    """The difference with limits as far from it as those of the asked gap, which bends near 0, are from that."""
    by = moved(asked, versus.value or 0.0)
    if versus.ci_low is None or versus.ci_high is None or by.ci_low is None or by.ci_high is None:
        return versus
    return replace(versus, ci_low=min(versus.ci_low, by.ci_low), ci_high=max(versus.ci_high, by.ci_high))


def _of_prompt(cells: Celled, of_ref: tuple[Array, Array], of_own: tuple[Array, Array]) -> _Prompt:
    """One prompt's asked gap, and how much more it is than the base's on the same cells; each (rows, units)."""
    (rows, unit), (mine, own_unit) = of_ref, of_own
    label, cell, count = cells.ref_cell[rows], cells.own_cell[mine], cells.count
    w, v = scaled(cells.ref.ratio[rows])[0], _weight_of_base(cells.ref)[rows]
    at = one_hot(label, count)
    columns = np.concatenate([at * w[:, None], at * v[:, None], v[:, None] * (label[:, None] < 0)], axis=1)
    own = np.concatenate([one_hot(cell, count), (cell[:, None] < 0).astype(float)], axis=1)
    held, counts = columns.sum(axis=0), own.sum(axis=0)
    here = [float(x) for x in _gaps(held, counts)]
    by_ref = [_bias(unit_sums(columns, unit), here[k], _part(k, counts)) for k in (0, 1)]
    by_own = _bias(unit_sums(own, own_unit), here[0], lambda m: _gaps(held, m)[0])
    p, a, pi = _shares(held, counts)
    of_p, of_a = w / w.mean() / rows.size, v / v.mean() / rows.size
    logs = [np.log(np.divide(x, pi, out=np.ones(count), where=p > 0))[label] for x in (p, a)]
    of_versus = of_p * (logs[1] - here[1]) + of_a * (_times(p, a, label) - 1)
    return _Prompt(
        here[0] - by_ref[0] - by_own, here[1] - by_ref[1] - by_own, of_p * (logs[0] - here[0]), of_versus,
        (1 - _times(p, pi, cell)) / mine.size, 2 * (by_ref[0] ** 2 + by_own**2),
    )  # fmt: skip


def one_hot(cell: Array, count: int) -> Array:
    """(n, K) 1 where a draw is in a cell; none for a cell below 0."""
    return np.asarray(cell[:, None] == np.arange(count), float)


def _shares(sums: Array, counts: Array) -> tuple[Array, Array, Array]:
    """Shares (…, K) of p, the base and π, from sums of w and v by cell, v outside (2 K + 1), and own counts (K + 1)."""
    count = counts.shape[-1] - 1
    p = sums[..., :count] / sums[..., :count].sum(axis=-1, keepdims=True)
    a = sums[..., count:-1] / sums[..., count:].sum(axis=-1, keepdims=True)
    return p, a, counts[..., :-1] / counts.sum(axis=-1, keepdims=True)


def _gaps(sums: Array, counts: Array) -> tuple[Array, Array]:
    """(…) the asked gap, and how much more it is than the base's."""
    p, a, pi = _shares(sums, counts)
    gap = _kl(p, pi)
    return gap, np.asarray(gap - _kl(p, a))


def _part(k: int, counts: Array) -> Callable[[Array], Array]:
    return lambda sums: _gaps(sums, counts)[k]


def _bias(sums: Array, value: float, theta: Callable[[Array], Array]) -> float:
    """By leaving out one unit at a time."""
    return value - jackknife(sums, theta)[0]


def _times(p: Array, law: Array, cell: Array) -> Array:
    """(n,) p over another law in the cell of each draw; 0 where p has no mass."""
    over = np.divide(p, law, out=np.zeros(p.size), where=(p > 0) & (law > 0))
    return np.where(cell >= 0, over[cell], 0.0)


def _kl(p: Array, law: Array) -> Array:
    """(…) KL in nats of shares (…, K), the second of which may not sum to 1; a cell that it lacks is left out."""
    return np.asarray(rel_entr(p, np.where(law > 0, law, np.maximum(p, 1e-300))).sum(axis=-1))


def _weight_of_base(ref: Sample) -> Array:
    """(B,) the base's weight of each reference draw: 1 where the base drew them, else a over the mixture's density."""
    if ref.log_proposal is None:
        return np.ones(ref.prompt.size)
    return np.asarray(np.exp(np.asarray(ref.log_base, float) - np.asarray(ref.log_proposal, float)))


def _change(cells: Celled, of_base: bool = False) -> unseen.Change:
    """Changes of the asked gap of π (or `of_base`) where draws are counted otherwise.

    A class never drawn is in the cell of the one below it.
    """
    at_cell, weight = one_hot(cells.ref_cell, cells.count), _weight_of_base(cells.ref)

    def change(rows: Array, at: unseen.Classes) -> Array:
        here, v, top = at_cell[rows], weight[rows], int(cells.ref_cell[rows][at.top].max())
        p = at.times @ (here * at.weight[:, None])
        p[:, top] += at.above
        if of_base:
            more = at.more * v[at.top].mean()
            law = at.times @ (here * v[:, None])
            law[:, top] += more
            law, before = law / (at.times @ v + more)[:, None], here.T @ v / v.sum()
        else:
            mine = cells.own_cell[cells.own_prompt == cells.ref.prompt[rows[0]]]
            law = before = one_hot(mine, cells.count).mean(axis=0)
        return np.asarray(_kl(p / p.sum(axis=1, keepdims=True), law) - _kl(at.weight @ here, before))

    return change
