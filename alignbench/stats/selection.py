"""Divergences of laws that pick one of n base draws by r = log P − log a: no density needed, only the masses of r.

π(x) = a(x) · w(r(x)), so that everything is a function of the masses m_k of r's distinct values (cells), prompt by
prompt: best-of-n keeps the largest r with random ties, π_k = F_k^n − F_{k−1}^n; rejection keeps exactly p. Where
best-of-n ranks by something else, the cells are the distinct pairs (rank, r): the rank decides π, and r decides p.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from alignbench.stats import discrete, unseen
from alignbench.stats.discrete import TOP
from alignbench.stats.divergences import Sample, kl_target, violations
from alignbench.stats.intervals import (
    Transform,
    folded,
    hull,
    independent,
    minus,
    monotone,
    mover,
    normal,
    on_root_scale,
    satterthwaite,
    spread_or_none,
    wilson,
)
from alignbench.stats.jackknife import jackknife, jackknife_path, strata, unit_sums
from alignbench.stats.weights import LOGS, SHARES, UNDERFLOW, cells, is_boolean, p_draws, refusal
from alignbench.types import Array, Estimate, Selection

PER_N = 32
"""Base draws a prompt that best-of-n needs for each of its n where scores are continuous: it lives on the top 1/n of
them. Gaussian scores, n = 16: TV covered 89 % with 8 for each, 93 % with 20; n = 4: 94 % with 32."""
PER_RANK = 10
"""Base draws a prompt of each of two ranks that best-of-n needs."""
GRID = 257  # shares tried between Wilson's limits where a prompt has two cells


WITHIN = "exact by construction: π_b = p"  # of a boolean target


class Laws(NamedTuple):
    """The laws on a prompt's cells, each (…, K) and normalised."""

    base: Array
    p: Array
    pi: Array
    within: Array  # π given the hard constraints


FORMS: Mapping[str, Callable[[Laws], Array]] = {
    "kl_target": lambda on: discrete.kl(on.p, on.pi),
    "kl_target_within": lambda on: discrete.kl(on.p, on.within),
    "kl_reverse": lambda on: discrete.kl(on.pi, on.p),
    "kl_reverse_within": lambda on: discrete.kl(on.within, on.p),
    "kl_base": lambda on: discrete.kl(on.pi, on.base),
    "kl_target_vs_base": lambda on: discrete.kl(on.p, on.pi) - discrete.kl(on.p, on.base),
    "tv": lambda on: discrete.tv(on.p, on.pi),
    "js": lambda on: discrete.js(on.p, on.pi),
}
PARTS = tuple(FORMS)
PLAIN = ("tv", "kl_base", "kl_target_vs_base")  # limits are not set on the root scale


def selected(masses: Array, values: Array, selection: Selection) -> Array:
    """(…, K) probabilities under π of atoms with base masses (…, K) and ratios r = log P − log a `values` (K,).

    Masses need not be normalised; ties share in proportion to their mass. "first" gives p itself; for "best", `values`
    may be ranks of any kind.
    """
    masses = np.asarray(masses, float)
    if selection.kind == "first":
        return shares(masses * np.exp(values - np.max(values)))
    if selection.n == 1:
        return shares(masses)  # the base itself, without the rounding of what follows
    code = cells(values)[1]
    order = np.argsort(code, kind="stable")
    starts = np.flatnonzero(np.diff(code[order], prepend=-1))
    cell = np.add.reduceat(masses[..., order], starts, axis=-1)
    below = np.cumsum(cell, axis=-1) / cell.sum(axis=-1, keepdims=True)
    power = np.minimum(below, 1.0) ** selection.n
    chosen = np.diff(power, axis=-1, prepend=0.0)
    return np.asarray(masses * np.divide(chosen, cell, out=np.zeros(cell.shape), where=cell > 0)[..., code])


class Drawn(NamedTuple):
    """Draws of the base, (B,) arrays: log-weights r, the rank that decides what is kept, and what bounds r."""

    prompt: Array
    r: Array
    by: Array
    group: Array | None
    bound: Array | None  # the largest r that a draw of the same prompt can have, where it is known


def divergences(
    prompt: Array, r: Array, selection: Selection, group: Array | None = None, rank: Array | None = None,
    bound: Array | None = None,
) -> dict[str, Estimate]:  # fmt: skip
    """All of `PARTS` for a law that selects, in nats (TV: 0 to 1), from `r` (B,) on draws of the base alone.

    kl_target_vs_base = KL(p‖π) − KL(p‖a).
    `rank` (B,): what best-of-n keeps the largest of; None: r. `bound` (B,): the largest r of any draw of its prompt,
    where it is known.
    """
    if selection.kind == "first":
        return _exactly_p(prompt, r, group, bound)
    r = np.asarray(r, float)
    by = r if rank is None else np.asarray(rank, float)
    drawn = Drawn(np.asarray(prompt), r, by, group, bound)
    refused = uncountable(prompt, by, selection.n) if rank is None else unranked(prompt, by, selection.n)
    if refused:
        bounded = {"kl_base": Estimate.missing(refused, n=r.size, ci_high=kl_base_bound(selection.n))}
        return dict.fromkeys(PARTS, Estimate.missing(refused, n=r.size)) | bounded
    answer = {part: _by_cells(part, drawn, selection) for part in PARTS}
    if rank is None and is_boolean(prompt, r):
        answer |= _boolean(prompt, r > -np.inf, selection.n, group)
    if rank is not None:  # p has no part in it
        answer["kl_base"] = _by_cells("kl_base", drawn._replace(r=np.zeros(r.size)), selection)
        low = lower_rank(prompt, by, selection.n)
        answer |= {
            part: _with_lower_rank(answer[part], low) for part in ("kl_target", "kl_target_within", "kl_target_vs_base")
        }
    if selection.n == 1:
        answer["kl_target_vs_base"] = Estimate(
            0.0, 0.0, 0.0, 0.0, n=r.size, note="exact by construction: the base itself"
        )
        answer["kl_base"] = Estimate(0.0, 0.0, 0.0, 0.0, n=r.size, note="exact by construction: one draw of the base")
    elif not ties(prompt, by):
        few = too_few_to_tie(prompt)
        limit = Estimate.missing(few, n=r.size, ci_high=kl_base_bound(selection.n))
        answer["kl_base"] = limit if few else _untied(answer["kl_base"], selection.n)
    return answer | _hard(prompt, r, by, selection, group)


def kl_base_bound(n: int) -> float:
    """Log n − (n − 1)/n nats: KL(best-of-n‖a) where no two scores tie, and its upper bound where some do.

    Source: Beirami et al., Theoretical guarantees on the best-of-n alignment policy (2024).
    """
    return float(np.log(n) - (n - 1) / n)


def ties(prompt: Array, r: Array) -> bool:
    """Whether two base draws of some prompt have the same r."""
    return any(len(cells(r[rows])[0]) < rows.size for rows, _ in strata(prompt))


def too_few_to_tie(prompt: Array) -> str:
    """Why draws that do not tie tell nothing of ties: a prompt has one or two; empty when there are more."""
    fewest = min(rows.size for rows, _ in strata(prompt))
    return f"{fewest} base draws a prompt do not show whether scores tie" if fewest <= 2 else ""


def _untied(answer: Estimate, n: int) -> Estimate:
    """KL(best-of-n‖a) where no two draws tie: counting cells of one draw each has no spread to tell."""
    note = "no two base draws tie: log n − (n − 1)/n, its upper bound"
    return Estimate(kl_base_bound(n), n=answer.n, ess=answer.ess, note=note)


def _exactly_p(prompt: Array, r: Array, group: Array | None, bound: Array | None) -> dict[str, Estimate]:
    n = np.size(r)
    zero = Estimate(0.0, 0.0, 0.0, 0.0, n=n, note="exact by construction: what is kept is a draw of p")
    base = Sample(np.asarray(prompt), np.zeros(n), np.asarray(r, float), np.zeros(n), group, bound=bound)
    from_base = _kl_from_base(base)
    return dict.fromkeys(PARTS, zero) | {"kl_base": from_base, "kl_target_vs_base": minus(from_base)}


def _kl_from_base(base: Sample) -> Estimate:
    """KL(p‖a): −log Z, by Wilson, for a boolean target."""
    if not is_boolean(base.prompt, base.log_target):
        return kl_target(base)
    return _gated(monotone(base.prompt, base.allowed, _minus_log, base.group), base.prompt, base.log_target, LOGS)


def _minus_log(z: Array) -> Array:
    with np.errstate(divide="ignore"):
        return np.asarray(-np.log(z))


def uncountable(prompt: Array, r: Array, n: int = 1) -> str:
    """Why the masses of r's distinct values cannot be had by counting base draws; empty when they can."""
    tables = [(rows.size, len(cells(np.asarray(r, float)[rows])[0])) for rows, _ in strata(prompt)]
    for drawn, distinct in tables:
        if distinct > 2 and n * np.log(drawn) > UNDERFLOW:
            return f"best-of-{n}: its lowest shares, 1/{drawn} to the power of {n}, are too small for a float"
        if distinct > 2 and drawn < PER_N * n:
            return f"ranked best-of-{n} over {distinct} scores needs {PER_N * n} base draws a prompt, not {drawn}"
    return ""


def unranked(prompt: Array, rank: Array, n: int) -> str:
    """Why base draws do not show what best-of-`n` by a rank apart from r picks; empty when they do.

    Draws of the target, which the other gates count, say nothing of a rank that few base draws have.
    """
    for rows, _ in strata(prompt):
        held = np.bincount(cells(rank[rows])[1])
        if n > 1 and held.size == 1:
            return f"the {rows.size} base draws of a prompt all have one rank: what other ranks there are is not seen"
        if n > 1 and held.size == 2 and held.min() < PER_RANK:
            return f"{held.min()} of {rows.size} base draws of a prompt have one of two ranks, {PER_RANK} are needed"
    return uncountable(prompt, rank, n) if n > 1 else ""


def lower_rank(prompt: Array, rank: Array, n: int) -> Array:
    """(C,) nats that a rank below all that were seen may add to KL(p‖best-of-`n`); 0 where draws show such ranks.

    Of the base's share s, it is left to π with s^n: (n − 1) s log(1/s) nats where p has a share s of it too, and s is
    at most 3 in as many draws. Where the lowest rank seen was drawn once, as continuous ranks are, that is in the
    interval.
    """
    counts = [(rows.size, np.bincount(cells(rank[rows])[1])) for rows, _ in strata(prompt)]
    share = np.array([min(3 / drawn, 1.0) if held.size > 2 and held[0] > 1 else 1.0 for drawn, held in counts])
    return np.asarray((n - 1) * share * np.log(1 / share))


def _with_lower_rank(answer: Estimate, more: Array) -> Estimate:
    """KL(p‖π) with an upper limit that allows for ranks below all that were seen, which add `more` (C,) nats at most.

    Five ranks, the lowest of share 0.005, two prompts, n = 4: 128 draws of each covered 94 % and where the target
    doubles that share 73 %, those that saw it in neither 44 %; with the allowance 98 to 100 %.
    """
    if answer.value is None or answer.ci_high is None or not more.any():
        return answer
    above = float(np.hypot(answer.ci_high - answer.value, np.sqrt((more**2).sum()) / more.size))
    note = f"the upper limit allows for a rank lower than all seen, which could add {more.mean():.2g} nats"
    return replace(answer, ci_high=answer.value + above).noted(note)


def _by_cells(part: str, drawn: Drawn, selection: Selection) -> Estimate:
    """Mean over prompts of the jackknifed functional `part` of the cells' counts; π keeps the largest `by`.

    Prompts of two cells have the limits that the form takes between Wilson's: right where it is flat or has a kink.
    Others hold what it takes on the path of `jackknife.tilts`. Both allow for cells that were hardly or never drawn.
    """
    prompt, r, by, group, bound = drawn
    refused = refusal(prompt, r, SHARES if part in ("tv", "js") else LOGS)
    if refused:
        return Estimate.missing(refused, n=r.size)
    table = [_of_prompt(FORMS[part], r[rows], by[rows], unit, selection) for rows, unit in strata(prompt, group)]
    values, variances, lows, highs = np.array(table).T
    worth = p_draws(prompt, r)
    if by is not r:
        carried = np.array([_carriers(part, r[rows], by[rows], selection) for rows, _ in strata(prompt)])
        if not part.startswith("kl_target") and carried.mean() < LOGS:
            return Estimate.missing(f"{carried.mean():.3g} base draws a prompt carry it, {LOGS:g} are needed", n=r.size)
        worth = np.minimum(worth, carried)
    df = satterthwaite(variances, worth)
    answer = normal(float(values.mean()), float(variances.sum()) / values.size**2, n=r.size, df=df)
    two_cells = all(len(_pairs(r[rows], by[rows])[0]) == 2 for rows, _ in strata(prompt))
    if two_cells and np.isfinite(lows).all():
        low, high = mover(values, np.minimum(lows, values), np.maximum(highs, values))
        answer = replace(answer, ci_low=low, ci_high=high)
    else:
        answer = hull(answer if part in PLAIN else on_root_scale(answer), values, lows, highs)
    if np.isfinite(values).all() and not is_boolean(prompt, r):
        by_unseen = unseen.moves(prompt, r, bound, _of_counts(FORMS[part], r, by, selection))
        answer = unseen.widened(answer, by_unseen, unseen.SETTLED * TOP.get(part, 1.0))
    answer = answer if part not in TOP else folded(answer, TOP[part])
    return spread_or_none(replace(answer, ess=float(worth.sum()))).noted("closed form from base draws")


def _of_counts(form: Callable[[Laws], Array], r: Array, by: Array, selection: Selection) -> unseen.Change:
    """Changes of a form where draws are counted otherwise; those of the class never drawn have the rank of its r."""

    def change(rows: Array, at: unseen.Classes) -> Array:
        values, ranks, code = _pairs(r[rows], by[rows])
        top = int(np.argmax(values))
        above = ranks[top] + (0.5 if by is r else 0.0)
        values, ranks = np.append(values, at.log_weight), np.append(ranks, above)
        found = form(_laws(at.counts(code), values, ranks, selection))
        return np.asarray(found - form(_laws(np.bincount(code).astype(float), values[:-1], ranks[:-1], selection)))

    return change


def _of_prompt(
    form: Callable[[Laws], Array], r: Array, by: Array, unit: Array, selection: Selection
) -> tuple[float, float, float, float]:
    """(value, variance, low, high) of one prompt: between Wilson's limits with two cells, else by `tilts`."""
    values, ranks, code = _pairs(r, by)

    def of_counts(m: Array) -> Array:
        return form(_laws(m, values, ranks, selection))

    if len(values) == 2:
        return of_two_cells(of_counts, code == 1, unit)
    return jackknife_path(unit_sums(np.eye(len(values))[code], unit), of_counts)


def _carriers(part: str, r: Array, by: Array, selection: Selection) -> float:
    """How many draws of a prompt carry `part` of a law that ranks by something else than r; ∞ where that is no matter.

    KL(p‖π): (Σψ²)²/Σψ⁴ of what each adds to it. The others: Kish's number, of what π and p share, or of π_b. Few do
    where p goes against the rank. r = 0.8 z or 0.56 z + 0.57 z', rank −z, 128 draws for each of two prompts, n = 4:
    KL(p‖π) covered 85 and 88 % with as many degrees of freedom as draws of p, 90 and 93 % with as many as these.
    """
    values, ranks, code = _pairs(r, by)
    counts = np.bincount(code).astype(float)
    on = _laws(counts, values, ranks, selection)
    if part.startswith("kl_target"):
        excess = np.log(np.divide(on.p, on.pi, out=np.ones(on.p.shape), where=on.p > 0))
        weights = (on.p * (excess - on.p @ excess) / counts) ** 2
    elif part in ("tv", "js", "kl_reverse_within"):
        weights = (on.within if part == "kl_reverse_within" else np.minimum(on.p, on.pi)) / counts
    else:
        return np.inf
    return float((counts @ weights) ** 2 / (counts @ weights**2)) if weights.any() else np.inf


def _pairs(r: Array, by: Array) -> tuple[Array, Array, Array]:
    """The distinct pairs of r and rank: r (K,), rank (K,) as 0, 1, …, and the pair (B,) of each draw."""
    values, of_r = cells(r)
    pairs, code = np.unique(np.stack([cells(by)[1], of_r], axis=1), axis=0, return_inverse=True)
    return values[pairs[:, 1]], pairs[:, 0].astype(float), code


def of_two_cells(form: Callable[[Array], Array], upper: Array, unit: Array) -> tuple[float, float, float, float]:
    """(value, variance, low, high) of a form of two cells' counts (…, 2): what it takes between Wilson's limits.

    `upper` (n,) bool: the draws in the second cell. Right where the form is flat or has a kink.
    """
    sums = unit_sums(np.stack([~upper, upper], axis=1).astype(float), unit)
    value, variance = jackknife(sums, form)
    n = independent(np.stack([sums.sum(axis=1), sums[:, 1]], axis=1))
    low, high = (float(end) for end in wilson(float(upper.mean()) * n, n))
    share = np.linspace(low, high, GRID)
    between = form(np.stack([1 - share, share], axis=-1))
    return value, variance, float(between.min()), float(between.max())


def _laws(counts: Array, values: Array, ranks: Array, selection: Selection) -> Laws:
    p = counts * np.exp(values - values.max())
    pi = selected(counts, ranks, selection)
    kept = np.where(values > -np.inf, pi, 0.0)
    return Laws(*(shares(masses) for masses in (counts, p, pi, kept)))


def shares(masses: Array) -> Array:
    """Masses over their sum; all 0 where there is none (p, at a share of 0 that a boolean target allows)."""
    total = masses.sum(axis=-1, keepdims=True)
    return np.asarray(np.divide(masses, total, out=np.zeros(masses.shape), where=total > 0))


def miss(n: int) -> Transform:
    """Z ↦ (1 − Z)^n, the probability that none of n draws satisfies a boolean target: TV(p, best-of-n)."""
    return lambda z: np.asarray((1 - np.asarray(z)) ** n)


def minus_log_success(n: int) -> Transform:
    """Z ↦ −log(1 − (1 − Z)^n) in nats: KL(p‖best-of-n) for a boolean target."""
    return lambda z: np.asarray(-np.log1p(-((1 - np.asarray(z)) ** n)))


def log_share_of_success(n: int) -> Transform:
    """Z ↦ log Z − log(1 − (1 − Z)^n) in nats: KL(p‖best-of-n) − KL(p‖a) for a boolean target; −log n at Z = 0."""

    def transform(z: Array) -> Array:
        some = np.maximum(np.asarray(z, float), 1e-300)
        return np.asarray(np.log(some) - np.log(-np.expm1(n * np.log1p(-some))))

    return transform


def _boolean(prompt: Array, hit: Array, n: int, group: Array | None) -> dict[str, Estimate]:
    """KL(p‖π_n) = −log s and TV = 1 − s, s = 1 − (1 − Z)^n: monotone in Z, so Wilson's limits carry over."""
    r = np.where(hit, 0.0, -np.inf)
    with np.errstate(divide="ignore"):
        kl = monotone(prompt, hit, minus_log_success(n), group)
        nearer = monotone(prompt, hit, log_share_of_success(n), group)
    zero = Estimate(0.0, 0.0, 0.0, 0.0, n=hit.size, note=WITHIN)
    return {
        "kl_target": _gated(kl, prompt, r, LOGS).noted("closed form from base draws"),
        "kl_target_vs_base": _gated(nearer, prompt, r, LOGS).noted("closed form from base draws"),
        "tv": replace(monotone(prompt, hit, miss(n), group), ess=float(hit.sum()), note="closed form from base draws"),
        "kl_target_within": zero,
        "kl_reverse_within": zero,
    }


def _hard(prompt: Array, r: Array, by: Array, selection: Selection, group: Array | None) -> dict[str, Estimate]:
    """KL(π‖p) = ∞ for finite n as soon as the base breaks a hard constraint; all n draws may."""
    allowed = r > -np.inf
    if allowed.all():
        return {}
    note = f"{_broken(prompt, allowed, by, selection):.3g} of π breaks a hard constraint"
    if by is r:
        note = violations(monotone(prompt, allowed, miss(selection.n), group))
    return {"kl_reverse": Estimate(np.inf, n=r.size, note=note)}


def _broken(prompt: Array, allowed: Array, by: Array, selection: Selection) -> float:
    """The share of π that the target forbids, mean over prompts; each draw of a rank shares in what the rank has."""
    each = [
        selected(np.ones(rows.size), cells(by[rows])[1], selection)[~allowed[rows]].sum() for rows, _ in strata(prompt)
    ]
    return float(np.mean(each))


def _gated(answer: Estimate, prompt: Array, r: Array, needed: float) -> Estimate:
    """`answer`, its value taken away but not its bounds where the draws of the target are too few."""
    refused = refusal(prompt, r, needed)
    answer = replace(answer, ess=float(p_draws(prompt, r).sum()))
    return replace(answer, value=None, stderr=None, note=answer.note or refused) if refused else answer
