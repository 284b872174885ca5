"""Sampling importance resampling: one of n draws of q is kept with probability ∝ w = P/q. What is known of that law.

π(x) ∝ q(x) E[w(x) / (w(x) + S)] with S the sum of n − 1 independent weights: a function of the law of w under q alone,
which draws of q tell. Batches all of whose weights are 0 are left out. Where draws are too few for it, bounds remain:
1/x being convex, π(x) ≥ n P(x) / (w(x) + (n − 1) Z), so that p/π ≤ 1 + (w/Z − 1)/n.
Source: Rubin, Using the SIR algorithm to simulate posterior distributions (1988).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from alignbench.stats import discrete, unseen
from alignbench.stats.discrete import TOP
from alignbench.stats.intervals import (
    inside,
    mover,
    normal,
    on_log_scale,
    on_logit_scale,
    on_root_scale,
    satterthwaite,
    spread_or_none,
)
from alignbench.stats.jackknife import corrected, leave_out, strata
from alignbench.stats.selection import of_two_cells, shares
from alignbench.stats.weights import (
    CARRIED,
    LOGS,
    SHARES,
    UNDERFLOW,
    cells,
    few_carriers,
    is_boolean,
    is_tied,
    p_draws,
    refusal,
    scaled,
)
from alignbench.types import Array, Estimate

PARTS = ("kl_target", "tv", "js", "kl_reverse", "kl_base", "kl_target_vs_base")
BOUNDED = ("kl_target", "tv", "js")
BY_SHARES = ("tv", "js")
SCALES: Mapping[str, Callable[[Estimate], Estimate]] = {
    "kl_target": on_log_scale,
    "kl_reverse": on_log_scale,
    "tv": on_logit_scale,
    "js": lambda e: on_logit_scale(e, TOP["js"]),
    "kl_base": on_root_scale,
    "kl_target_vs_base": lambda e: e,
}
"""Where the error of each is even: the distances from p are spreads of the weights, known to a factor. 2 · 128 Gaussian
scores of standard deviation 0.3, n = 2: KL(p‖π) covered 92 % on the root scale and 94 % on the log scale."""
BOUND = "an upper bound: p/π ≤ 1 + (w/Z − 1)/n"
CLOSED = "closed form from the proposal's weights"
STEP = 0.25
"""Of the trapezoid rule in s: right to 1e-14 for weights 1e-20 to 1e4 and n from 1 to 64; a step of 0.5 to 1e-7."""
FIRST, LAST = -3.7, 4.0  # t = exp(s − exp(−s))/n begins at 1e-19/n, and exp(−wt) ends at 1e-23 for the least weight
AT_ONCE = 20_000_000  # numbers of a table of atoms and nodes
UNITS = 256
"""Units left out at most, each of several draws then: 4 times fewer than 1,024 cost 4 times less."""


def law(masses: Array, log_weight: Array, n: int) -> Array:
    """(…, K) probabilities under π of atoms with masses (…, K) under q and log P − log q (K,).

    What is missing of q's mass to 1 has weight 0. w/(w + S) = ∫ w exp(−(w + S)t) dt, and so π ∝ q ∫ w exp(−wt)
    L(t)^(n − 1) dt with L(t) = E_q exp(−Wt): no companions are drawn or listed. With t = exp(s − exp(−s))/n, times the
    largest weight, the trapezoid rule in s converges doubly exponentially.
    Source: Takahasi and Mori, Double exponential formulas for numerical integration (1974).
    """
    r = np.asarray(log_weight, float)
    r = r - r.max() if (r > -np.inf).any() else r
    nodes = np.arange(FIRST, np.log(n) + LAST - r[r > -np.inf].min(initial=0.0), STEP)
    missing = 1 - masses.sum(axis=-1, keepdims=True)
    kept = np.zeros(masses.shape)
    for s in np.array_split(nodes, 1 + r.size * nodes.size // AT_ONCE):
        x = np.exp(np.minimum(np.add.outer(r, s - np.exp(-s) - np.log(n)), UNDERFLOW))
        decay = np.exp(-x)
        companions = (masses @ decay + missing) ** (n - 1)
        kept += (companions * (1 + np.exp(-s))) @ (x * decay).T
    return shares(masses * kept)


def divergences(
    prompt: Array, r: Array, n: int, *, group: Array | None = None, log_base: Array | None = None,
    bound: Array | None = None,
) -> dict[str, Estimate]:  # fmt: skip
    """`PARTS` in nats (TV: 0 to 1), mean over prompts, from r = log P − log q (B,) on draws of q; jackknife.

    kl_target = KL(p‖π), kl_reverse = KL(π‖p), kl_base = KL(π‖a) with `log_base` (B,) = log a − log q, 0 by default;
    kl_target_vs_base = KL(p‖π) − KL(p‖a).
    `bound` (B,): the largest r of any draw of its prompt, where it is known. Limits allow for weights that were hardly
    or never drawn. Where one is refused, KL(p‖π), TV and JS keep their upper bounds.
    """
    r = np.asarray(r, float)
    refused = {part: refusal(prompt, r, SHARES if part in BY_SHARES else LOGS) for part in PARTS}
    found = {part: Estimate.missing(why, n=r.size) for part, why in refused.items()}
    if not all(refused.values()):
        offset = np.zeros(r.size) if log_base is None else np.where(r > -np.inf, log_base, 0.0)
        table = [_of_prompt(r[rows], offset[rows], unit, n) for rows, unit in strata(prompt, group)]
        worth = p_draws(prompt, r)
        found |= {part: _mean(part, [t[k] for t in table], worth, r.size)
                  for k, part in enumerate(PARTS) if not refused[part]}  # fmt: skip
        if not is_boolean(prompt, r):
            for k, part in enumerate(PARTS):
                by_unseen = unseen.moves(prompt, r, bound, _of_counts(k, r, offset, n))
                found[part] = _allowing(found[part], by_unseen, part)
    lost = [part for part in BOUNDED if found[part].value is None]
    limits = bounds(prompt, r, n, group, bound) if lost else {}
    return found | {part: limits[part].noted(found[part].note) for part in lost if limits[part].ci_high is not None}


def _allowing(answer: Estimate, by: unseen.Moves, part: str) -> Estimate:
    """The estimate with limits that allow for these moves, inside what it can be."""
    wider = unseen.widened(answer, by, unseen.SETTLED * TOP.get(part, 1.0))
    return wider if part == "kl_target_vs_base" else inside(wider, (0.0, TOP.get(part, np.inf)))


def _of_counts(k: int, r: Array, offset: Array, n: int) -> unseen.Change:
    """Changes of the k-th of `PARTS` where draws are counted otherwise; a class never drawn has the offset below it."""

    def change(rows: Array, at: unseen.Classes) -> Array:
        values, code = cells(r[rows])
        drawn, counts = np.bincount(code).astype(float), at.counts(code)
        each = np.bincount(code, offset[rows]) / drawn
        values, each = np.append(values, at.log_weight), np.append(each, each[-1])
        here = np.append(drawn, 0.0)
        return np.asarray(_of_cells(counts, counts * each, values, n)[k] - _of_cells(here, here * each, values, n)[k])

    return change


class _Part(NamedTuple):
    """One divergence in one prompt: limits are NaN unless its draws have two weights."""

    value: float
    variance: float
    low: float
    high: float
    influence: Array  # (U,) what each unit adds to it


def _of_prompt(r: Array, offset: Array, unit: Array, n: int) -> list[_Part]:
    """Each of `PARTS`; where a prompt has two weights, what it takes between Wilson's limits of their shares."""
    values, code = cells(r)
    block = unit % UNITS
    counts, offsets = np.zeros((2, block.max() + 1, len(values)))
    np.add.at(counts, (block, code), 1.0)
    np.add.at(offsets, (block, code), offset)
    rest = _of_cells(counts.sum(axis=0) - counts, offsets.sum(axis=0) - offsets, values, n)
    value, variance = corrected(_of_cells(counts.sum(axis=0), offsets.sum(axis=0), values, n), rest.T)
    influence = rest - rest.mean(axis=1, keepdims=True)
    found = [_Part(value[k], variance[k], np.nan, np.nan, influence[k]) for k in range(len(PARTS))]
    if len(values) == 2:
        for k in range(len(PARTS) - 2 * int(offset.any())):  # log a − log q varies within a cell
            found[k] = _Part(*of_two_cells(_form(k, values, n), code == 1, unit), influence[k])
    return found


def _form(k: int, values: Array, n: int) -> Callable[[Array], Array]:
    return lambda counts: np.asarray(_of_cells(counts, np.zeros(counts.shape), values, n)[k])


def _of_cells(counts: Array, offsets: Array, values: Array, n: int) -> Array:
    """(6, …) `PARTS` of a prompt whose draws of q fall in cells of log-weight `values` (K,), `counts` (…, K) in each.

    `offsets` (…, K): the sums of log a − log q in each cell.
    """
    q, p = shares(counts), shares(counts * scaled(values)[0])
    pi = law(q, values, n)
    shift = np.divide(offsets, counts, out=np.zeros(counts.shape), where=counts > 0)
    from_base = discrete.kl(pi, q) - (pi * shift).sum(axis=-1)
    to_base = discrete.kl(p, q) - (p * shift).sum(axis=-1)
    to_target = discrete.kl(p, pi)
    distances = discrete.tv(p, pi), discrete.js(p, pi), discrete.kl(pi, p)
    return np.stack([to_target, *distances, from_base, to_target - to_base])


def _mean(part: str, table: list[_Part], worth: Array, n: int) -> Estimate:
    """Mean over prompts of a part; refused where few draws carry its error, which also set the degrees of freedom."""
    value, variance = float(np.mean([t.value for t in table])), sum(t.variance for t in table) / len(table) ** 2
    values, lows, highs = np.array([(t.value, t.low, t.high) for t in table]).T
    if np.isfinite(lows).all():
        low, high = mover(values, np.minimum(lows, values), np.maximum(highs, values))
        answer = replace(normal(value, variance, n=n), ci_low=low, ci_high=high)
    else:
        carried = [_carriers(t.influence) for t in table]
        df = satterthwaite(np.array([t.variance for t in table]), np.minimum(worth, carried))
        answer = spread_or_none(normal(value, variance, n=n, df=df))
        count = _carriers(np.concatenate([t.influence for t in table]))
        if answer.stderr is not None and count < CARRIED:
            return Estimate.missing(f"{count:.3g} draws carry its error, {CARRIED:g} are needed", n=n)
        answer = SCALES[part](answer)
    return replace(spread_or_none(answer), ess=float(worth.sum())).noted(CLOSED)


def _carriers(influence: Array) -> float:
    """How many units carry the error, (Σψ²)²/Σψ⁴; ∞ where there is none."""
    squares = influence**2
    return float(squares.sum() ** 2 / (squares**2).sum()) if squares.any() else np.inf


def bounds(
    prompt: Array, r: Array, n: int, group: Array | None = None, bound: Array | None = None
) -> dict[str, Estimate]:
    """Upper bounds of KL(p‖π) and JS in nats and TV (0 to 1), mean over prompts, from r = log P − log q on draws of q.

    KL(p‖π) ≤ E_p log(1 + (w/Z − 1)/n); TV = E_p (1 − π/p)⁺ ≤ E_p (w/Z − 1)⁺/(w/Z − 1 + n); JS ≤ log 2 · TV. Each is
    estimated (jackknife), and its upper 97.5 % limit printed, which allows for weights that were hardly or never drawn;
    `bound` as in `divergences`. Source of the last: Lin (1991).
    """
    r = np.asarray(r, float)
    refused = refusal(prompt, r, LOGS)
    if refused:
        return dict.fromkeys(BOUNDED, Estimate.missing(refused, n=r.size))
    influence = np.empty(r.size)
    table = []
    for rows, unit in strata(prompt, group):
        w = scaled(r[rows])[0]
        table.append(leave_out(_left(w, n), unit))
        influence[rows] = (w / w.mean() - 1) / w.size
    few = "" if is_tied(prompt, r) else few_carriers(influence)
    if few:
        return dict.fromkeys(BOUNDED, Estimate.missing(few, n=r.size))
    values, variances = (np.array(x) for x in zip(*table, strict=True))
    worth, found = p_draws(prompt, r), {}
    for k, part in enumerate(("kl_target", "tv")):
        df = satterthwaite(variances[:, k], worth)
        high = normal(float(values[:, k].mean()), float(variances[:, k].sum()) / len(table) ** 2, n=r.size, df=df)
        if not is_boolean(prompt, r):
            high = unseen.widened(high, unseen.moves(prompt, r, bound, _of_bound(k, r, n)))
        found[part] = Estimate.missing(BOUND, n=r.size, ci_high=high.ci_high) if high.ci_high is not None else high
        found[part] = replace(found[part], ess=float(worth.sum()))
    tv = found["tv"]
    js = tv if tv.ci_high is None else replace(tv, ci_high=TOP["js"] * tv.ci_high)
    return found | {"js": js}


def _left(w: Array, n: int) -> Callable[[Array], Array]:
    return lambda kept: of_weights(w[kept], n)


def _of_bound(k: int, r: Array, n: int) -> unseen.Change:
    """Changes of the bound of KL(p‖π) (k = 0) or of TV (1) where draws are counted otherwise."""

    def change(rows: Array, at: unseen.Classes) -> Array:
        w, counts = np.append(scaled(r[rows])[0], np.exp(at.step)), np.column_stack([at.times, at.more])
        found = [of_weights(w, n, masses / masses.sum())[k] for masses in counts]
        return np.asarray(np.array(found) - of_weights(w[:-1], n)[k])

    return change


def of_weights(w: Array, n: int, masses: Array | None = None) -> Array:
    """(2,) the bounds of KL(p‖π) in nats and of TV, from weights P/q (m,) and their masses under q (default: equal)."""
    q = np.full(w.size, 1 / w.size) if masses is None else masses
    with np.errstate(invalid="ignore"):  # no weight is left without some draw: no bound there, and no limit of it
        above = w / float(q @ w) - 1
    p = q * (above + 1)
    told = np.log1p(np.where(p > 0, above, 0.0) / n)  # where n = 1 and w = 0 the log of 0, of which p has nothing
    excess = np.maximum(above, 0.0)
    return np.array([p @ told, p @ (excess / (excess + n))])
