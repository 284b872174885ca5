"""A proposal q that does not say all that the target does: what is kept of its draws is p on the set S that q reaches.

With c = p(S): KL(p_S‖p) = −log c, TV = 1 − c, and KL(p‖p_S) = ∞.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from alignbench.stats import unseen
from alignbench.stats.discrete import TOP
from alignbench.stats.intervals import folded, normal, on_angle_scale, on_root_scale, satterthwaite, spread_or_none
from alignbench.stats.jackknife import jackknife, strata, unit_sums
from alignbench.stats.weights import LOGS, SHARES, is_boolean, p_draws, refusal, scaled
from alignbench.types import Array, Estimate


def _js(c: Array) -> Array:
    """Jensen-Shannon divergence in nats of p and p on a set of p-mass c."""
    return np.asarray((c * np.log(2 * c / (1 + c)) + (1 - c) * np.log(2) + np.log(2 / (1 + c))) / 2)


FORMS: Mapping[str, Callable[[Array], Array]] = {  # of (w, w · 1_S) in sums (…, 2)
    "kl_reverse": lambda s: -np.log(s[..., 1] / s[..., 0]),
    "tv": lambda s: 1 - s[..., 1] / s[..., 0],
    "js": lambda s: _js(s[..., 1] / s[..., 0]),
}


def within_reach(
    prompt: Array, r: Array, reached: Array, group: Array | None = None, bound: Array | None = None
) -> dict[str, Estimate]:
    """KL(p_S‖p) and JS in nats and TV of p and p_S, mean over prompts, from log-weights r (B,) of p on reference draws.

    `reached` (B,) bool: whether q can say them. `bound` (B,): the largest r of any draw of the same prompt, where it is
    known. Jackknifed.
    """
    table: dict[str, list[tuple[float, float]]] = {part: [] for part in FORMS}
    for rows, unit in strata(prompt, group):
        w = scaled(np.asarray(r, float)[rows])[0]
        sums = unit_sums(np.stack([w, w * reached[rows]], axis=1), unit)
        for part, form in FORMS.items():
            table[part].append(jackknife(sums, form))
    worth = p_draws(prompt, r)
    found = {part: _mean(pairs, prompt, r, worth, SHARES if part in TOP else LOGS) for part, pairs in table.items()}
    scaled_to = {part: on_angle_scale(e, TOP[part]) if part in TOP else on_root_scale(e) for part, e in found.items()}
    if is_boolean(prompt, r):
        return scaled_to
    return {part: _allowing(part, e, unseen.moves(prompt, r, bound, _of_counts(FORMS[part], r, reached)))
            if e.value is not None and np.isfinite(e.value) else e for part, e in scaled_to.items()}  # fmt: skip


def _allowing(part: str, answer: Estimate, by: unseen.Moves) -> Estimate:
    """The estimate with limits that allow for draws of p that were hardly or never seen, inside what it can be."""
    wider = unseen.widened(answer, unseen.either_way(by), unseen.SETTLED * TOP.get(part, 1.0))
    return folded(wider, TOP.get(part, np.inf))


def _of_counts(form: Callable[[Array], Array], r: Array, reached: Array) -> unseen.Change:
    """Changes of a form where draws are counted otherwise, a class never drawn within reach or not, whichever is more.

    −log p(S) moves by more than log Z where p(S) is small and the class is in S.
    """

    def change(rows: Array, at: unseen.Classes) -> Array:
        inside = at.times @ (at.weight * reached[rows])
        here = form(np.array([1.0, at.weight @ reached[rows]]))
        out, within = (form(np.stack([1 + at.added, held], axis=-1)) - here for held in (inside, inside + at.above))
        return np.asarray(np.where(np.abs(within) > np.abs(out), within, out))

    return change


def _mean(pairs: list[tuple[float, float]], prompt: Array, r: Array, worth: Array, needed: float) -> Estimate:
    refused = refusal(prompt, r, needed)
    if refused:
        return Estimate.missing(refused, n=np.size(r))
    values, variances = np.array(pairs).T
    df = satterthwaite(variances, worth)
    found = normal(float(values.mean()), float(variances.sum()) / values.size**2, n=np.size(r), df=df)
    return replace(spread_or_none(found), ess=float(worth.sum()))
