"""Generators beside a baseline: the paired difference of every number that a leaderboard shows, and how sure it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite, sqrt
from pathlib import Path

import numpy as np

from alignbench.errors import AlignbenchError, unknown
from alignbench.metrics.replicates import replicates_of
from alignbench.reports.compare.common_draws import aligned, of_each_draw, shared
from alignbench.reports.compare.contenders import Contender, Measured, Pair, pairs
from alignbench.reports.compare.shifts import Example, Shift, examples, shifts
from alignbench.reports.table.board import Column, plain_text
from alignbench.reports.table.columns import keys_named, label_of
from alignbench.reports.table.leaderboards import leaderboard
from alignbench.reports.table.pairs import difference, not_paired
from alignbench.run.rescore import remembered
from alignbench.run.rows import Row, frame, measure
from alignbench.stats.compare import Pairing, holm, paired, permuted
from alignbench.stats.flips import sign_flips
from alignbench.types import CiOver, Estimate, Evidence

LEVEL = 0.05
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
    adjusted: float | None = None  # Holm's, for the numbers of all candidates on the task
    effect: float | None = None

    @property
    def verdict(self) -> str:
        """Empty unless it is told from 0 or known exactly: better, worse, or differs, where neither is declared."""
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
    shown: Mapping[str, str]  # key → heading of a leaderboard's column
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
        return tuple(d for key in self.shown for d in self.differences if d.key == key)


@dataclass(frozen=True)
class Comparison:
    """All candidates beside the baseline, and a line for all that could not be compared."""

    baseline: str
    tables: tuple[Compared, ...]
    failures: tuple[str, ...]


@dataclass(frozen=True)
class Numbers:
    """Every metric that the runs asked for, of each evidence once; `failed` is told of those that fail."""

    failed: Callable[[str], None]
    trusted: bool = False  # whether metrics may run code that a folder names
    known: dict[tuple[int, int], tuple[Evidence, dict[str, Row]]] = field(default_factory=dict)

    def of(self, measured: Measured, evidence: Evidence, draws: int) -> dict[str, Row]:
        """Name → row, on `draws` of each prompt."""
        place = (id(evidence), draws)
        if place not in self.known:  # the evidence is kept too, so that no other gets its id
            told = remembered(measured.path.parent.parent, measured.key.task, trusted=self.trusted)
            for line in told.refused:
                self.failed(line)
            key = replace(measured.key, draws=draws)
            rows = measure(told.asked, key, evidence, lambda error: self.failed(f"{measured.path}: {error}"))
            self.known[place] = evidence, {row.name: row for row in rows}
        return self.known[place][1]


def compare(
    found: Sequence[Contender],
    told: Progress = lambda what: None,
    columns: Sequence[str] = (),
    *,
    trusted: bool = False,
) -> Comparison:
    """Each of `found` but the first beside the first, on every task that both were measured on.

    `columns` are the numbers to show, by metric, `metric.part` or heading; those of a leaderboard where there are none.
    The p-values of all numbers shown of a task, those of all candidates, are one family for Holm's adjustment. Metrics
    that run code which a folder names are left out unless it is `trusted`. Raises UnknownName on a column of no row.
    """
    tables: list[Compared] = []
    failures: list[str] = []
    measured = Numbers(failures.append, trusted)
    for other in found[1:]:
        fitting, skipped = pairs(found[0], other)
        failures += skipped
        for pair in fitting:
            told(pair.first.key.task)
            try:
                tables.append(compare_pair(pair, (found[0].name, other.name), measured))
            except AlignbenchError as error:
                failures.append(f"{pair.first.key.task}: {error}")
    known = {d.key for c in tables for d in c.differences}
    if lost := [name for name in columns if tables and not keys_named(sorted(known), name)]:
        raise unknown("metric", lost[0], known | {label_of(key) for key in known}, "--columns")
    tables = [_showing(c, columns) for c in tables] if columns else tables
    return Comparison(found[0].name, tuple(_adjusted(tables)), tuple(dict.fromkeys(failures)))


def _showing(compared: Compared, columns: Sequence[str]) -> Compared:
    """The same with these numbers shown."""
    better = {d.key: d.better for d in compared.differences}
    keys = dict.fromkeys(key for name in columns for key in keys_named(list(better), name))
    return replace(compared, shown={key: Column(key, label_of(key), better[key]).heading for key in keys})


def compare_pair(pair: Pair, names: tuple[str, str], measured: Numbers) -> Compared:
    """One generator beside another on one task, with p-values not adjusted."""
    a, b, notes = shared(pair)
    count = min(pair.first.key.draws, pair.other.key.draws)
    first, other = (measured.of(m, e, count) for m, e in ((pair.first, a), (pair.other, b)))
    key = pair.first.key
    board = leaderboard(frame([*first.values(), *other.values()], {key.task: _primary(pair.first.path, key.task)}))
    return Compared(
        key.task, key.task_version, key.task_hash, key.base, *names, len(a.prompts),
        count, tuple(notes), tuple(differences((a, first), (b, other), key.ci_over)),
        {c.key: c.heading for c in board.tables[0].columns if not c.aside}, tuple(shifts(a, b)), tuple(examples(a, b)),
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
        if x is not None and y is not None:
            found.append(_of_rows(x, y, by_draw.get(key), count))
        elif (row := x or y) is not None:
            found.append(_of_one(key, row, row is x))
    return found


def _of_one(key: str, row: Row, is_first: bool) -> Difference:
    """A number that only one of the two reports."""
    absent = Estimate.missing("not reported of " + ("the candidate" if is_first else "the baseline"))
    pair = (row.estimate, absent) if is_first else (absent, row.estimate)
    return Difference(key, row.better, *pair, absent)


def _of_rows(x: Row, y: Row, known: Units | None, count: int) -> Difference:
    """A number that both report: by draws where these are `known`, else by blocks of draws, else not tested."""
    bare = Difference(x.name, x.better, x.estimate, y.estimate, difference(y.flat(), x.flat()))
    value = bare.difference.value
    if value is None:
        return replace(bare, difference=Estimate.missing(_why_none(x.estimate, y.estimate)))
    if not isfinite(value):
        return bare
    if x.estimate.stderr == 0.0 and y.estimate.stderr == 0.0:
        return bare
    found = known or _by_block(x, y, bare.difference)
    return bare if found is None else _tested(bare, *found, count)


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


def _why_none(a: Estimate, b: Estimate) -> str:
    absent = {name: e for name, e in (("baseline", a), ("candidate", b)) if e.value is None}
    told = [f"not measured of the {name}: {e.note or 'no reason was given'}" for name, e in absent.items()]
    if len({e.note for e in absent.values()}) < len(absent):
        return f"not measured of both: {a.note or 'no reason was given'}"
    return "; ".join(told) or "infinite in both"


def _by_block(x: Row, y: Row, bare: Estimate) -> Units | None:
    """Units are blocks of draws: their jackknife pseudo-values; None where the two have no blocks in common."""
    if bare.value is None or not_paired(x.flat(), y.flat()):
        return None
    mine, theirs = replicates_of(x.flat()), replicates_of(y.flat())
    assert mine is not None and theirs is not None
    units = mine.size * bare.value - (mine.size - 1) * (theirs - mine)
    return bare, sign_flips(units, _rng())


def _tested(bare: Difference, found: Estimate, p: float, count: int) -> Difference:
    effect = found.value / (found.stderr * sqrt(count)) if found.value is not None and found.stderr else None
    return replace(bare, difference=found, p_value=p, effect=effect)


def _rng() -> np.random.Generator:
    return np.random.default_rng(FLIPS)


def _primary(path: Path, task: str) -> str:
    return remembered(path.parent.parent, task).primary


def _adjusted(tables: Sequence[Compared]) -> list[Compared]:
    """With Holm's p-values: what is shown of one task is one family, the numbers of all candidates."""
    return [replace(t, differences=_holm(t, [o for o in tables if o.task_hash == t.task_hash])) for t in tables]


def _holm(table: Compared, family: Sequence[Compared]) -> tuple[Difference, ...]:
    tested = [(t is table, d.key, d.p_value) for t in family for d in t.table if d.p_value is not None]
    values = holm(np.array([p for _, _, p in tested], float))
    own = {key: float(p) for (mine, key, _), p in zip(tested, values, strict=True) if mine}
    return tuple(replace(d, adjusted=own.get(d.key)) for d in table.differences)
