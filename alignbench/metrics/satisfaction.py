"""Satisfaction: what own draws reach of what the target asks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from alignbench.registry import metric
from alignbench.stats.intervals import influence_of_ratio, mean_over_prompts, moved, share, wilson
from alignbench.types import Array, Estimate, Evidence, Wanted


@dataclass(frozen=True)
class Reached:
    """What own draws reach of one thing that is wanted, and what each draw adds to it to first order."""

    wanted: Wanted
    value: float
    influence: Array  # (B,) its mean over prompts is 0
    hits: tuple[int, int] | None = None  # draws in the category, and in any listed one


@metric(needs={"own"}, better={"always": "higher", "reward": "higher"})
def satisfaction(evidence: Evidence) -> dict[str, Estimate]:
    """What own draws reach: share that keeps all hard constraints, moments, shares of categories, mean rewards.

    A category's share is among the draws that fall in a listed category: P(category) over P(any), each averaged over
    prompts. Parts: always, moment.<feature>, share.<feature>.<category>, reward.<feature>.
    """
    parts: dict[str, Estimate] = {}
    kept = [_values(evidence, w.feature) > 0 for w in evidence.fit.wanted if w.kind == "always"]
    draws = evidence.own.draws
    if kept:
        parts["always"] = share(draws.prompt, np.all(kept, axis=0), draws.group)
    for wanted in evidence.fit.wanted:
        if wanted.kind != "always":
            parts[_part(wanted)] = _reached(evidence, wanted)
    return parts or {"": Estimate.missing("the target asks nothing")}


@metric(needs={"own"}, better={"": "lower"})
def moment_error(evidence: Evidence) -> dict[str, Estimate]:
    """Reached minus wanted, by moment (<feature>) and share (<feature>.<category>), and "": the mean of their sizes."""
    asked = [w for w in evidence.fit.wanted if w.kind in ("moment", "distribution") and w.value is not None]
    if not asked:
        return {"": Estimate.missing("the target asks for no moment")}
    reached = {_part(w).partition(".")[2]: _measured(evidence, w) for w in asked}
    absent = [name for name, r in reached.items() if r is None]
    parts = {name: _error(evidence, r) for name, r in reached.items()}
    if absent:
        feature = absent[0].partition(".")[0]
        return {"": Estimate.missing(f"no own draw falls in a listed category of {feature}")} | parts
    return {"": _mean_size(evidence, [r for r in reached.values() if r is not None])} | parts


def _values(evidence: Evidence, feature: str) -> Array:
    return np.asarray(evidence.own.features[feature], float)


def _part(wanted: Wanted) -> str:
    if wanted.kind == "distribution":
        return f"share.{wanted.feature}.{wanted.category}"
    return f"{wanted.kind}.{wanted.feature}"


def _reached(evidence: Evidence, wanted: Wanted) -> Estimate:
    note = "" if wanted.value is None else f"wanted {wanted.value:.6g}"
    reached = _measured(evidence, wanted)
    if reached is None:
        return Estimate.missing("no own draw falls in a listed category", n=len(evidence.own.draws)).noted(note)
    return _estimate(evidence, reached).noted(note)


def _error(evidence: Evidence, reached: Reached | None) -> Estimate:
    if reached is None:
        return Estimate.missing("no own draw falls in a listed category", n=len(evidence.own.draws))
    estimate = _estimate(evidence, reached)
    return moved(estimate, reached.value - float(reached.wanted.value or 0.0))


def _measured(evidence: Evidence, wanted: Wanted) -> Reached | None:
    """None where no own draw falls in a listed category."""
    if wanted.kind == "distribution":
        return _share(evidence, wanted)
    values = _values(evidence, wanted.feature)
    mean = float(mean_over_prompts(evidence.own.draws.prompt, values).value or 0.0)
    return Reached(wanted, mean, values - mean)


def _share(evidence: Evidence, wanted: Wanted) -> Reached | None:
    names = evidence.categories[wanted.feature]
    listed = [w.category for w in evidence.fit.wanted if w.kind == "distribution" and w.feature == wanted.feature]
    code = np.asarray(evidence.own.features[wanted.feature])
    inside = np.isin(code, [names.index(c) for c in listed])
    hit = code == names.index(wanted.category)
    below = mean_over_prompts(evidence.own.draws.prompt, inside).value
    if not below:
        return None
    value = float(mean_over_prompts(evidence.own.draws.prompt, hit).value or 0.0) / below
    return Reached(wanted, value, influence_of_ratio(hit, inside, value, below), (int(hit.sum()), int(inside.sum())))


def _estimate(evidence: Evidence, reached: Reached) -> Estimate:
    """Delta interval; for a share Wilson's, at the number of draws that has the delta method's variance."""
    draws = evidence.own.draws
    delta = moved(mean_over_prompts(draws.prompt, reached.influence, draws.group), reached.value)
    if reached.hits is None:
        return delta
    v, n = reached.value, float(reached.hits[1])
    if 0 < v < 1 and delta.stderr:
        n = min(n, v * (1 - v) / delta.stderr**2)
    low, high = (float(x) for x in wilson(v * n, n))
    return Estimate(v, delta.stderr, low, high, n=reached.hits[1], note=delta.note)


def _mean_size(evidence: Evidence, reached: list[Reached]) -> Estimate:
    draws = evidence.own.draws
    errors = np.array([r.value - float(r.wanted.value or 0.0) for r in reached])
    moves = np.mean([np.sign(e) * r.influence for e, r in zip(errors, reached, strict=True)], axis=0)
    estimate = moved(mean_over_prompts(draws.prompt, moves, draws.group), float(np.abs(errors).mean()))
    return estimate.noted("mean of |reached − wanted|; delta interval; biased up where the errors are mere noise")


def wanted_by_part(evidence: Evidence) -> Mapping[str, float]:
    """What is asked, by part of `satisfaction`; hard constraints ask for 1."""
    return {
        "always" if w.kind == "always" else _part(w): 1.0 if w.kind == "always" else float(w.value or 0.0)
        for w in evidence.fit.wanted
        if w.kind == "always" or w.value is not None
    }
