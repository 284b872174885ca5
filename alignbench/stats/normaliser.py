"""The normaliser Z: how much of the base the target keeps, from draws of the base."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from alignbench.stats import unseen
from alignbench.stats.intervals import monotone, normal, satterthwaite, spread_or_none
from alignbench.stats.jackknife import spread_of_sum, strata
from alignbench.stats.weights import LOGS, few_carriers, is_boolean, is_tied, p_draws, refusal, scaled
from alignbench.types import Array, Estimate


def log_z(
    prompt: Array, r: Array, group: Array | None = None, component: Array | None = None, bound: Array | None = None
) -> Estimate:
    """Mean over prompts of log Z_c = log E_a[exp r] in nats; each log Ẑ_c is corrected for its bias.

    `r` (B,) = log P − log a on draws of the base, or log P − log of a mixture whose `component` (B,) drew each.
    Boolean targets: Wilson, transformed; else the delta interval. With too few draws of the target there is no value,
    only the bounds that the counts allow. `bound` (B,): the largest `r` that a draw of the same prompt can have, where
    it is known.
    """
    refused = refusal(prompt, r, LOGS)
    if component is None and is_boolean(prompt, r):
        return _log_share(np.asarray(prompt), np.asarray(r, float), group, refused)
    if refused:
        return Estimate.missing(refused, n=np.size(r))
    if few := "" if is_tied(prompt, r) else few_carriers(_influence(prompt, r)):
        return Estimate.missing(few, n=np.size(r))
    values, errors = log_z_by_prompt(prompt, r, group, component)
    worth = p_draws(prompt, r)
    df = satterthwaite(errors**2, worth)
    plain = normal(values.mean(), float((errors**2).sum()) / values.size**2, n=np.size(r), df=df)
    by = unseen.moves(prompt, r, bound, unseen.of_log_z)
    answer = unseen.widened(plain, by)
    if answer.value is None and bound is not None:
        answer = _limits(plain, by.few, unseen.most_added(prompt, r, bound), answer.note)
    return replace(spread_or_none(answer), ess=float(worth.sum()))


def _limits(plain: Estimate, few: tuple[float, float], most: float, note: str) -> Estimate:
    """What remains of a log Z that is refused: limits by classes of few draws, and `most` nats of those of none."""
    if plain.value is None or plain.ci_low is None or plain.ci_high is None:
        return Estimate.missing(note, n=plain.n)
    low, high = min(plain.ci_low, plain.value + few[0]), max(plain.ci_high, plain.value + few[1]) + most
    return Estimate(None, None, low, high, n=plain.n, note=note)


def _influence(prompt: Array, r: Array) -> Array:
    """(B,) what each draw adds to the mean over prompts of log Ẑ_c, to first order."""
    answer = np.empty(np.size(r))
    for rows, _ in strata(prompt):
        w, _ = scaled(np.asarray(r, float)[rows])
        answer[rows] = (w / w.mean() - 1) / w.size
    return answer


def log_z_by_prompt(
    prompt: Array, r: Array, group: Array | None = None, component: Array | None = None
) -> tuple[Array, Array]:
    """(C,) log Ẑ_c in nats, bias-corrected, and (C,) standard errors; −inf with error ∞ where no draw has weight.

    log mean(w) falls short of log Z by half the mean's squared relative error v: log1p(v/2) is added, which for equal
    weights is half a hit (see `intervals.monotone`).
    """
    r = np.asarray(r, float)
    parts = None if component is None else np.asarray(component)
    pairs = np.array(
        [_log_mean(r[rows], unit, None if parts is None else parts[rows]) for rows, unit in strata(prompt, group)]
    )
    return pairs[:, 0], np.sqrt(pairs[:, 1])


def _log_mean(r: Array, unit: Array, component: Array | None) -> tuple[float, float]:
    w, shift = scaled(r)
    mean = float(w.mean())
    if mean == 0.0:
        return -np.inf, np.inf
    v = spread_of_sum(w - mean, unit, component) / (mean * w.size) ** 2
    return float(np.log(mean)) + shift + (np.log1p(v / 2) if np.isfinite(v) else 0.0), v / (1 + v / 2 * np.isfinite(v))


def _log_share(prompt: Array, r: Array, group: Array | None, refused: str) -> Estimate:
    """As `log_z`, for a boolean target whose one weight a prompt may differ from 1."""
    hit = r > -np.inf
    answer = monotone(prompt, hit, np.log, group)
    levels = np.array([scaled(r[rows])[1] for rows, _ in strata(prompt) if hit[rows].any()])
    note = answer.note or refused
    if answer.value is None and levels.any():  # a prompt without hits, and no word on what its weight would be
        return Estimate.missing(note, n=r.size)
    level = float(levels.mean()) if levels.size else 0.0
    low, high = (None if x is None else x + level for x in (answer.ci_low, answer.ci_high))
    bounds = replace(answer, value=None, stderr=None, ci_low=low, ci_high=high, ess=float(hit.sum()), note=note)
    return bounds if note or answer.value is None else replace(bounds, value=answer.value + level, stderr=answer.stderr)
