"""Satisfaction: what own draws reach of what the target asks."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from alignbench.errors import unknown
from alignbench.registry import metric
from alignbench.stats.intervals import (
    LEVEL,
    influence_of_ratio,
    mean_over_prompts,
    moved,
    scaled,
    score_limits,
    share,
    spread_or_none,
)
from alignbench.stats.jackknife import strata
from alignbench.types import Array, Estimate, Evidence, Wanted

MEAN_OF_SIZES = "mean of |reached − wanted|"
HALF = "half the sum of |reached − wanted|"
FOLDED = "limits: those of the error, folded at 0"
BIASED = "biased up where the errors are mere noise"
TWO_VALUED = "limits as for a feature of 0 and 1"


@dataclass(frozen=True)
class Reached:
    """What own draws reach of one thing that is wanted; of a category's share also what each draw adds to it."""

    wanted: Wanted
    value: float
    influence: Array | None = None  # (B,) to first order; its mean over prompts is 0
    hits: tuple[int, int] = (0, 0)  # draws in the category, and in any listed one


@metric(
    needs={"own"}, better={"always": "higher", "reward": "higher", "share": "", "moment": ""},
    range={"always": (0, 1), "share": (0, 1)},
)  # fmt: skip
def satisfaction(evidence: Evidence) -> dict[str, Estimate]:
    """What own draws reach: share that keeps all hard constraints, moments, shares of categories, mean rewards.

    A category's share is among the draws that fall in a listed category: P(category) over P(any), each averaged over
    prompts. Parts: always, moment.<feature>, share.<feature>.<category>, reward.<feature>.
    """
    parts: dict[str, Estimate] = {}
    always = [w.feature for w in evidence.fit.wanted if w.kind == "always"]
    kept = [_values(evidence, name) > 0 for name in always]
    draws = evidence.own.draws
    if kept:
        parts["always"] = share(draws.prompt, np.all(kept, axis=0), draws.group).noted(f"wanted {' and '.join(always)}")
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


@metric(needs={"own"}, better="lower", opt_in=True)
def calibration(evidence: Evidence, *, feature: str | None = None) -> dict[str, Estimate]:
    """Mean |share reached − share wanted| of the categories of each `distribution` asked for, and total variation.

    Parts: mae.<feature>, tv.<feature> (half the sum of the sizes), and mae, the mean over all categories of all these
    features where there are several. Shares as in `satisfaction`, intervals as in `moment_error`. `feature`: only
    that one. Raises UsageError where the target asks for no distribution of it.
    """
    asked = list(dict.fromkeys(w.feature for w in evidence.fit.wanted if w.kind == "distribution"))
    if feature is not None and feature not in asked:
        raise unknown("distribution of the feature", feature, asked, "metric 'calibration'")
    if not asked:
        return {"": Estimate.missing("the target asks for no distribution")}
    parts: dict[str, Estimate] = {}
    reached = {name: _shares(evidence, name) for name in (asked if feature is None else [feature])}
    if len(reached) > 1:
        parts["mae"] = _calibrated(evidence, [r for shares in reached.values() for r in shares])
    for name, shares in reached.items():
        parts[f"mae.{name}"] = mean = _calibrated(evidence, shares)
        parts[f"tv.{name}"] = replace(scaled(mean, len(shares) / 2), note=mean.note.replace(MEAN_OF_SIZES, HALF))
    return parts


def _shares(evidence: Evidence, feature: str) -> list[Reached | None]:
    asked = [w for w in evidence.fit.wanted if w.kind == "distribution" and w.feature == feature]
    return [_share(evidence, w) for w in asked]


def _calibrated(evidence: Evidence, reached: list[Reached | None]) -> Estimate:
    present = [r for r in reached if r is not None]
    if len(present) < len(reached):
        return Estimate.missing("no own draw falls in a listed category", n=len(evidence.own.draws))
    return _mean_size(evidence, present)


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


def _error(evidence: Evidence, reached: Reached | None, level: float = LEVEL) -> Estimate:
    if reached is None:
        return Estimate.missing("no own draw falls in a listed category", n=len(evidence.own.draws))
    estimate = _estimate(evidence, reached, level)
    return moved(estimate, reached.value - float(reached.wanted.value or 0.0))


def _measured(evidence: Evidence, wanted: Wanted) -> Reached | None:
    """None where no own draw falls in a listed category."""
    if wanted.kind == "distribution":
        return _share(evidence, wanted)
    values = _values(evidence, wanted.feature)
    mean = float(mean_over_prompts(evidence.own.draws.prompt, values).value or 0.0)
    return Reached(wanted, mean)


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


def _estimate(evidence: Evidence, reached: Reached, level: float = LEVEL) -> Estimate:
    """Wilson's interval for a share and for a feature of 0 and 1, else the delta interval."""
    draws = evidence.own.draws
    if reached.influence is not None:
        return _of_share(evidence, reached, reached.influence, level)
    values = _values(evidence, reached.wanted.feature)
    if not np.isin(values, (0, 1)).all():
        return spread_or_none(mean_over_prompts(draws.prompt, values, draws.group, level))
    answer = share(draws.prompt, values > 0, draws.group, level)
    return answer.noted(TWO_VALUED) if answer.value in (0.0, 1.0) else answer


def _of_share(evidence: Evidence, reached: Reached, influence: Array, level: float) -> Estimate:
    """Wilson's limits, at the number of draws that has the delta method's variance."""
    draws, n = evidence.own.draws, float(reached.hits[1])
    delta = moved(mean_over_prompts(draws.prompt, influence, draws.group), reached.value)
    if draws.group is not None and spread_or_none(delta).stderr is None:  # a group is worth one draw at least
        n = min(n, float(sum(unit.max() + 1 for _, unit in strata(draws.prompt, draws.group))))
    return replace(score_limits(delta, n, level), n=reached.hits[1])


def _mean_size(evidence: Evidence, reached: list[Reached]) -> Estimate:
    """Mean of |reached − wanted|, between the means of the parts' limits folded at 0.

    The upper limits are the parts' own: their mean is as wide as if all errors moved together. The lower ones are
    Bonferroni's, since a mean of 0 is covered only if no part tells its error from 0.
    """
    free = _free(reached)
    parts = [_error(evidence, r) for r in reached]
    value = float(np.mean([abs(p.value or 0.0) for p in parts]))
    n = len(evidence.own.draws)
    named = f"limits: means of the parts', folded at 0, the lower at 1 − 0.05/{free}" if free > 1 else FOLDED
    note = f"{MEAN_OF_SIZES}; {named}; {BIASED}"
    absent = [p for p in parts if p.stderr is None or p.ci_low is None or p.ci_high is None]
    if absent:
        return Estimate(value, n=n, note="; ".join(filter(None, (MEAN_OF_SIZES, BIASED, absent[0].note))))
    wide = parts if free == 1 else [_error(evidence, r, 1 - (1 - LEVEL) / free) for r in reached]
    low = float(np.mean([max(0.0, p.ci_low or 0.0, -(p.ci_high or 0.0)) for p in wide]))
    high = float(np.mean([max(abs(p.ci_low or 0.0), abs(p.ci_high or 0.0)) for p in parts]))
    return Estimate(value, float(np.mean([p.stderr for p in parts])), low, high, n=n, note=note)


def _free(reached: list[Reached]) -> int:
    """How many errors there are; the shares of two categories are mirror images and count once."""
    shares = [r.wanted.feature for r in reached if r.wanted.kind == "distribution"]
    return len(reached) - sum(shares.count(feature) == 2 for feature in set(shares))
