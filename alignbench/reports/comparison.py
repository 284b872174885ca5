"""Generators beside a baseline: the paired difference of every number that a leaderboard shows, and how sure it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite, sqrt
from pathlib import Path

import numpy as np

from alignbench.errors import AlignbenchError
from alignbench.reports.common_draws import aligned, of_each_draw, shared
from alignbench.reports.contenders import Contender, Measured, Pair, pairs
from alignbench.reports.shifts import Example, Shift, examples, shifts
from alignbench.reports.table import ARROWS, leaderboard, plain_text
from alignbench.results import Row, frame, measure, remembered
from alignbench.stats.compare import Pairing, holm, paired, permuted
from alignbench.stats.flips import sign_flips
from alignbench.stats.intervals import normal, spread_or_none
from alignbench.types import CiOver, Estimate, Evidence

LEVEL = 0.05
SAME = "no interval: all pairs differ alike"
FLIPS = 0  # seed of the flips of signs: the same data give the same p-value
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Difference:
    """One number of a generator beside the baseline's, on what they share; p-values are two-sided.

    `effect`: Cohen's d_z, the difference in standard deviations of what one pair of draws adds to it (for a mean over
    draws the mean of their differences over its standard deviation). Source: Cohen, Statistical Power Analysis (1988).
    """

    key: str
    better: str
    first: Estimate
    other: Estimate
    difference: Estimate  # other − first
    p_value: float | None = None  # of flipped signs; None where nothing is tested
    adjusted: float | None = None  # Holm's, for all p-values of the comparison
    effect: float | None = None

    @property
    def heading(self) -> str:
        """The key, and an arrow towards better."""
        return " ".join(filter(None, (plain_text(self.key), ARROWS.get(self.better, ""))))

    @property
    def verdict(self) -> str:
        """ "better", "worse" or "differs" where it is told from 0 or known exactly; else ""."""
        value = self.difference.value
        exact = self.difference.stderr == 0.0 or (value is not None and not isfinite(value))
        sure = exact or (self.adjusted is not None and self.adjusted <= LEVEL)
        if not value or not sure:
            return ""
        return "differs" if not self.better else "better" if (value > 0) == (self.better == "higher") else "worse"


@dataclass(frozen=True)
class Compared:
    """One generator beside the baseline on one task."""

    task: str
    version: int
    task_hash: str
    base: str
    first: str
    other: str
    prompts: int
    draws: int  # per prompt
    notes: tuple[str, ...]
    differences: tuple[Difference, ...]  # of all numbers; `shown` are those of a leaderboard
    shown: tuple[str, ...]
    shifts: tuple[Shift, ...] = ()
    examples: tuple[Example, ...] = ()
    signatures: tuple[str, str] = ("", "")

    @property
    def title(self) -> str:
        """Task, and who is beside whom."""
        return plain_text(f"{self.task} v{self.version} · {self.other} beside {self.first}")

    @property
    def table(self) -> tuple[Difference, ...]:
        """The differences shown, in the order of a leaderboard's columns."""
        by_key = {d.key: d for d in self.differences}
        return tuple(by_key[key] for key in self.shown)


@dataclass(frozen=True)
class Comparison:
    """All candidates beside the baseline, and a line for all that could not be compared."""

    baseline: str
    tables: tuple[Compared, ...]
    failures: tuple[str, ...]


def compare(found: Sequence[Contender], told: Progress = lambda what: None) -> Comparison:
    """Each of `found` but the first beside the first, on every task that both were measured on.

    The p-values of all shown numbers, tasks and candidates are one family for Holm's adjustment.
    """
    tables, failures = [], []
    for other in found[1:]:
        fitting, skipped = pairs(found[0], other)
        failures += skipped
        for pair in fitting:
            told(pair.first.key.task)
            try:
                tables.append(compare_pair(pair, (found[0].name, other.name), failures.append))
            except AlignbenchError as error:
                failures.append(f"{pair.first.key.task}: {error}")
    return Comparison(found[0].name, tuple(_adjusted(tables)), tuple(failures))


def compare_pair(pair: Pair, names: tuple[str, str], failed: Callable[[str], None]) -> Compared:
    """One generator beside another on one task, with p-values not adjusted."""
    a, b, notes = shared(pair)
    first, other = (_rows(m, e, failed) for m, e in ((pair.first, a), (pair.other, b)))
    key = pair.first.key
    board = leaderboard(frame([*first.values(), *other.values()], {key.task: _primary(pair.first.path, key.task)}))
    return Compared(
        key.task, key.task_version, key.task_hash, key.base, *names, len(a.prompts),
        min(key.draws, pair.other.key.draws), tuple(notes), tuple(differences((a, first), (b, other), key.ci_over)),
        tuple(c.key for c in board.tables[0].columns if not c.exact), tuple(shifts(a, b)), tuple(examples(a, b)),
        (key.signature, pair.other.key.signature),
    )  # fmt: skip


def differences(
    first: tuple[Evidence, Mapping[str, Row]], other: tuple[Evidence, Mapping[str, Row]], over: CiOver
) -> list[Difference]:
    """The paired difference of each number that either generator has; `over` is what intervals are meant for."""
    (a, mine), (b, theirs) = first, other
    by_draw = _by_draw(a, b, over)
    count = len(a.prompts) if over == "prompts_like_these" else min(len(a.own.draws), len(b.own.draws))
    found = []
    for key in dict.fromkeys([*mine, *theirs]):
        x, y = mine.get(key), theirs.get(key)
        known = x or y
        e, f = (Estimate.missing("not reported") if row is None else row.estimate for row in (x, y))
        bare = Difference(key, known.better if known else "", e, f, _unpaired(e, f))
        if bare.difference.value is not None and isfinite(bare.difference.value) and bare.difference.stderr != 0.0:
            units = by_draw.get(key) or _by_block(x, y, bare.difference)
            bare = bare if units is None else _tested(bare, *units, count)
        found.append(bare)
    return found


def _unpaired(a: Estimate, b: Estimate) -> Estimate:
    """B − a where no pairing is needed to know it: exact, infinite or missing; else the bare difference."""
    for name, estimate in (("the baseline", a), ("the other", b)):
        if estimate.value is None:
            return Estimate.missing(f"not measured of {name}: {estimate.note or 'no reason was given'}")
    x, y = float(a.value or 0.0), float(b.value or 0.0)
    if x == y and not isfinite(x):
        return Estimate.missing("infinite in both")
    if not isfinite(y - x):
        return Estimate(y - x, note="∞ was observed: no test")
    if a.stderr == 0.0 and b.stderr == 0.0:
        return Estimate(y - x, 0.0, y - x, y - x, note="both are exact")
    return Estimate(y - x, note="no paired interval: fewer than 8 blocks of draws, or one that cannot be left out")


Units = tuple[Estimate, float]
"""A difference with its interval, and the p-value of flipped signs."""


def _by_draw(a: Evidence, b: Evidence, over: CiOver) -> dict[str, Units]:
    """Of each mean over own draws: what each draw adds is known, so that draws themselves are the units."""
    x, y = a.own.draws, b.own.draws
    both = x.group is not None and y.group is not None
    if not aligned(a, b) or (both and not np.array_equal(np.asarray(x.group), np.asarray(y.group))):
        return {}
    pairing = Pairing(x.prompt, x.group if x.group is not None else y.group, over)
    mine, theirs = of_each_draw(a), of_each_draw(b)
    return {
        key: (paired(theirs[key], mine[key], pairing), permuted(theirs[key], mine[key], pairing, _rng()))
        for key in mine
        if key in theirs
    }


def _by_block(a: Row | None, b: Row | None, bare: Estimate) -> Units | None:
    """By leaving out one block of draws of both at a time; None where either has no such replicates."""
    if a is None or b is None or not a.replicates or not b.replicates:
        return None
    x, y = (np.array(row.replicates.split(), float) for row in (a, b))
    if x.size != y.size or bare.value is None:
        return None
    without, count = y - x, x.size
    variance = float(((without - without.mean()) ** 2).sum()) * (count - 1) / count
    units = count * bare.value - (count - 1) * without
    found = spread_or_none(normal(bare.value, variance, n=a.estimate.n, df=count - 1), SAME)
    return found, sign_flips(units, _rng())


def _tested(bare: Difference, found: Estimate, p: float, count: int) -> Difference:
    effect = found.value / (found.stderr * sqrt(count)) if found.value is not None and found.stderr else None
    return replace(bare, difference=found, p_value=p, effect=effect)


def _rng() -> np.random.Generator:
    return np.random.default_rng(FLIPS)


def _rows(measured: Measured, evidence: Evidence, failed: Callable[[str], None]) -> dict[str, Row]:
    """Name → row of every metric that the run asked for."""
    asked, _ = remembered(measured.path.parent.parent, measured.key.task)
    rows = measure(asked, measured.key, evidence, lambda error: failed(str(error)))
    return {row.name: row for row in rows}


def _primary(path: Path, task: str) -> str:
    return remembered(path.parent.parent, task)[1]


def _adjusted(tables: Sequence[Compared]) -> list[Compared]:
    """With Holm's p-values: all that is shown is one family, in all tables."""
    tested = [(t, d) for t in tables for d in t.table if d.p_value is not None]
    values = holm(np.array([d.p_value for _, d in tested], float)) if tested else np.zeros(0)
    adjusted = {(id(t), d.key): float(p) for (t, d), p in zip(tested, values, strict=True)}
    return [
        replace(t, differences=tuple(replace(d, adjusted=adjusted.get((id(t), d.key))) for d in t.differences))
        for t in tables
    ]
