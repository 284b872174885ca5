"""Charts as data: which numbers of a table stand against which, with their limits; no drawing.

Here: `Scatter` (one number against another), `Bars` (moments, divergences) and `Curves` (series, sweeps). What is asked
of a chart and cannot be drawn is in its `left_out`, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite, nan

import numpy as np
import pandas as pd

from alignbench.reports.charts.axes import Axis, axis_over
from alignbench.reports.table.board import Arrangement, Cell, Row, Table, plain_text
from alignbench.reports.table.brief import VERDICT
from alignbench.reports.table.brief_columns import limit_alone
from alignbench.reports.table.families import families_of
from alignbench.reports.table.labels import short_labels
from alignbench.reports.table.leaderboards import arranged
from alignbench.spec import training_of, without_step
from alignbench.stats.ranks import pareto

CHARTED = ("satisfaction", "moment_error", "divergence", "cost")
"""Metrics that charts need."""
X = "divergence.kl_base"
DIVERGENCES = tuple(f"divergence.{part}" for part in ("kl_target", "kl_reverse", "kl_base", "tv", "js"))
SWEPT = ("divergence.kl_target", "divergence.kl_base")
"""What curves over a number of an aligner show after what the task asks."""
TRAINED = ("divergence.kl_target", "divergence.kl_asked", "divergence.kl_collateral")
"""What curves over training show before all that the task asks."""
Families = Mapping[str, Sequence[tuple[float, int]]]
GENERATORS = ("", "base", "baseline")  # marks of rows that can be on a front: neither the ceiling nor a null


@dataclass(frozen=True)
class Point:
    """A row of the table in a chart; `number` is its place in the table, from 1."""

    number: int
    label: str
    mark: str
    x: Cell
    y: Cell
    front: bool = False
    verdict: str = ""


@dataclass(frozen=True)
class Bar:
    """A number of one row: finite, infinite, or only a bound (no value, one limit or both)."""

    number: int
    label: str
    mark: str
    cell: Cell


@dataclass(frozen=True)
class LeftOut:
    """What a chart does not show of a row, and why."""

    number: int
    label: str
    reason: str


@dataclass(frozen=True)
class Scatter:
    """One number of each row against another; the front are the points that no other beats in both."""

    title: str
    x: Axis
    y: Axis
    points: tuple[Point, ...]
    left_out: tuple[LeftOut, ...]

    @property
    def front(self) -> tuple[Point, ...]:
        """The points on the front from left to right, and none where an axis has no better end."""
        return tuple(sorted((p for p in self.points if p.front), key=lambda p: p.x.value or 0.0))


@dataclass(frozen=True)
class Panel:
    """One number of all rows, and what is wanted of it."""

    name: str
    axis: Axis
    bars: tuple[Bar, ...]
    left_out: tuple[LeftOut, ...]
    wanted: float | None = None


@dataclass(frozen=True)
class Bars:
    """Panels side by side that share their rows."""

    title: str
    panels: tuple[Panel, ...]

    @property
    def labels(self) -> dict[int, str]:
        """Number → label of all rows, also of those without a number in any panel."""
        shown = {bar.number: bar.label for panel in self.panels for bar in panel.bars}
        return dict(sorted({**shown, **{row.number: row.label for p in self.panels for row in p.left_out}}.items()))


@dataclass(frozen=True)
class Stop:
    """A point of a curve: finite, infinite, or only a bound, see `Bar`."""

    x: float
    label: str
    cell: Cell


@dataclass(frozen=True)
class Line:
    """A family of rows that differ in one number, in its order."""

    name: str
    stops: tuple[Stop, ...]


@dataclass(frozen=True)
class Curve:
    """One number of some families, and what is wanted of it; `beside` are rows to compare with."""

    axis: Axis
    lines: tuple[Line, ...]
    beside: tuple[Bar, ...]  # the base, and where nothing is `wanted` draws of p
    left_out: tuple[LeftOut, ...]
    wanted: float | None = None


@dataclass(frozen=True)
class Curves:
    """Curves over one number."""

    title: str
    x: Axis
    curves: tuple[Curve, ...]


def charted(
    rows: pd.DataFrame, asked: Arrangement, also: Iterable[str] = (), *, judged: bool = False
) -> tuple[Table, ...]:
    """The tables of tidy `rows` with the columns that charts are made of, and those of the metrics in `also`.

    Verdicts are among them where rows are to be `judged`.
    """
    known = set(rows["metric"])
    metrics = [name for name in CHARTED if name in known]
    return arranged(rows, asked, [*metrics, *also], judged=judged).tables if len(rows) else ()


def verdicts_of(table: Table) -> Mapping[str, str]:
    """Label → verdict of the rows of a table that has such a column."""
    place = next((i for i, column in enumerate(table.columns) if column.key == VERDICT.key), None)
    return {} if place is None else {row.label: row.cells[place].point for row in table.rows}


def tradeoff(table: Table, x: str = X, y: str | None = None) -> Scatter | None:
    """One column against another, by default what the task asks against KL(π‖a); None where no row has both."""
    y, told = y or goal(table), verdicts_of(table)
    if y is None or not _has(table, x) or not _has(table, y):
        return None
    points, left_out = [], []
    for number, row in enumerate(table.rows, 1):
        cells = (_cell(table, row, x), _cell(table, row, y))
        absent = [f"{key}: {reason}" for key, cell in zip((x, y), cells, strict=True) if (reason := _why(table, cell))]
        if absent:
            left_out.append(LeftOut(number, row.label, "; ".join(absent)))
        else:
            points.append(Point(number, row.label, row.mark, *cells, verdict=told.get(row.label, "")))
    axes = (_axis(table, x, [p.x for p in points]), _axis(table, y, [p.y for p in points]))
    return Scatter(table.title, *axes, _with_front(points, *axes), tuple(left_out)) if points else None


def goal(table: Table) -> str | None:
    """What the task asks: all hard constraints kept, else the moment error, else the first reward; None if nothing."""
    rewards = [c.key for c in table.columns if c.key.startswith("satisfaction.reward.")]
    return next((key for key in ("satisfaction.always", "moment_error", *rewards) if _has(table, key)), None)


def asked_of(table: Table) -> list[str]:
    """The columns of all that the target asks; of two shares that are each other's complement the first."""
    found = [c.key for c in table.columns if c.key.startswith("satisfaction.") and not c.aside]
    shares = [key for key in found if key.startswith("satisfaction.share.")]
    return [key for key in found if len(shares) != 2 or key != shares[1]]


def moments(table: Table, asked: Sequence[str] = ()) -> Bars | None:
    """What rows reach of all that the target asks; what it wants, from any row that has the error as well."""
    keys = asked or [c.key for c in table.columns if c.key.startswith("satisfaction.") and not c.aside]
    return _bars(table, keys, {key: _wanted(table, key) for key in keys})


def divergences(table: Table, asked: Sequence[str] = ()) -> Bars | None:
    """Columns of each row, by default KL(p‖π), KL(π‖p), KL(π‖a), total variation and Jensen–Shannon."""
    return _bars(table, asked or DIVERGENCES, {})


def series(table: Table, steps: Mapping[tuple[str, str], int], keys: Sequence[str] = ()) -> Curves | None:
    """Columns (default: KL(p‖π), its parts and all that is asked) over training steps: a line for each training.

    The base is step 0 of an aligner's.
    """
    families: dict[str, list[tuple[float, int]]] = {}
    on_base, short = set[str](), short_labels(row.aligner for row in table.rows)
    for number, row in enumerate(table.rows, 1):
        step = steps.get((row.generator, row.aligner))
        if step is not None:
            generator = "" if row.aligner and row.generator == table.base else row.generator
            name = training_of(generator, short[row.aligner], step)
            families.setdefault(name, []).append((step, number))
            on_base |= {name} if without_step(row.aligner)[1] is not None else set()
    for number, row in enumerate(table.rows, 1):
        for name in on_base if row.is_base else ():
            families[name] = [(0, number), *(stop for stop in families[name] if stop[0] > 0)]
    return _curves(table, "training step", families, keys or [*TRAINED, *asked_of(table)])


def steps_of(rows: pd.DataFrame) -> dict[tuple[str, str], int]:
    """(generator, aligner) → training step, of the checkpoints among tidy `rows`."""
    if "step" not in rows:
        return {}
    known = rows.loc[rows["step"].notna(), ["generator", "aligner", "step"]].drop_duplicates()
    return {(plain_text(g), plain_text(a)): int(s) for g, a, s in known.itertuples(index=False)}


def sweeps(table: Table, keys: Sequence[str] = ()) -> tuple[Curves, ...]:
    """A chart for each number of an aligner in which some rows differ and agree in all else."""
    found = families_of(table.rows, table.base)
    keys = keys or [key for key in (goal(table), *SWEPT) if key is not None]
    curves = [_curves(table, f"{aligner}: {argument}", lines, keys) for (aligner, argument), lines in found.items()]
    return tuple(c for c in curves if c is not None)


def _has(table: Table, key: str) -> bool:
    """Whether any row has a finite number there."""
    return any(_is_finite(_cell(table, row, key)) for row in table.rows)


def _cell(table: Table, row: Row, key: str) -> Cell:
    """The cell of a column, empty where the table has no such column."""
    for column, cell in zip(table.columns, row.cells, strict=True):
        if column.key == key and not column.aside:
            return cell
    return Cell()


def _known(table: Table, row: Row, key: str) -> Cell:
    """The cell of a column; the limit alone where notes, its own or its column's, say that it is one."""
    cell = _cell(table, row, key)
    notes = [n for c in table.columns if c.key == key and not c.aside for n in c.notes] + [*cell.notes]
    return limit_alone(cell, "; ".join(table.footnotes[n - 1] for n in notes)) or cell


def _is_finite(cell: Cell) -> bool:
    return cell.value is not None and isfinite(cell.value)


def _why(table: Table, cell: Cell) -> str:
    """Why a cell is no point: nothing where it is one."""
    if _is_finite(cell):
        return ""
    notes = "; ".join(table.footnotes[n - 1] for n in cell.notes)
    return f"{cell.text} ({notes})" if notes else cell.text


def _axis(table: Table, key: str, cells: Sequence[Cell], more: Sequence[float] = ()) -> Axis:
    """The axis of a column over these cells and what else must be on it."""
    better = next((c.better for c in table.columns if c.key == key), "")
    values = [c.value for c in cells if c.value is not None] + list(more)
    return axis_over(key, values, [limit for c in cells for limit in (c.low, c.high) if limit is not None], better)


def _with_front(points: Sequence[Point], x: Axis, y: Axis) -> tuple[Point, ...]:
    """The points, those that no other generator's beats in both directions marked."""
    if not (x.better and y.better):
        return tuple(points)
    values = [(p.x.value, p.y.value) if p.mark in GENERATORS else (nan, nan) for p in points]
    front = pareto(np.array(values, dtype=float), (x.better, y.better))
    return tuple(replace(p, front=bool(best)) for p, best in zip(points, front, strict=True))


def _bars(table: Table, keys: Sequence[str], wanted: Mapping[str, float | None]) -> Bars | None:
    """A panel for each of the columns that has anything to show."""
    panels = [_panel(table, key, wanted.get(key)) for key in keys]
    shown = tuple(panel for panel in panels if panel.bars)
    return Bars(table.title, shown) if shown else None


def _panel(table: Table, key: str, wanted: float | None) -> Panel:
    bars, left_out = [], []
    for number, row in enumerate(table.rows, 1):
        cell = _cell(table, row, key)
        if cell.value is None and not _is_bound(cell):
            left_out.append(LeftOut(number, row.label, _why(table, cell)))
        else:
            bars.append(Bar(number, row.label, row.mark, cell))
    axis = _axis(table, key, [b.cell for b in bars], [] if wanted is None else [wanted])
    return Panel(key.partition(".")[2] or key, axis, tuple(bars), tuple(left_out), wanted)


def _is_bound(cell: Cell) -> bool:
    return any(limit is not None and isfinite(limit) for limit in (cell.low, cell.high))


def _wanted(table: Table, key: str) -> float | None:
    """What the target wants of a part of `satisfaction`: reached − error, in any row that has both; None of others."""
    metric, _, part = key.partition(".")
    kind, _, name = part.partition(".")
    if metric != "satisfaction":
        return None
    if kind == "always":
        return 1.0
    for row in table.rows:
        reached, error = (_cell(table, row, k).value for k in (key, f"moment_error.{name}"))
        if reached is not None and error is not None:
            return float(f"{reached - error:.6g}")
    return None


def _curves(table: Table, over: str, families: Families, keys: Sequence[str]) -> Curves | None:
    """Curves over a number, from family → (number, place in the table); None where none has two."""
    lines = {name: sorted(stops) for name, stops in families.items() if len({x for x, _ in stops}) > 1}
    curves = tuple(c for c in (_curve(table, key, lines) for key in keys) if any(line.stops for line in c.lines))
    x = axis_over(over, [x for stops in lines.values() for x, _ in stops], [], "", zero=False) if lines else None
    return Curves(table.title, x, curves) if x is not None and curves else None


def _curve(table: Table, key: str, families: Families) -> Curve:
    lines, left_out = [], []
    for name, stops in families.items():
        drawn = []
        for x, number in stops:
            row = table.rows[number - 1]
            cell = _known(table, row, key)
            if cell.value is None and not _is_bound(cell):
                left_out.append(LeftOut(number, row.label, f"{key}: {_why(table, cell)}"))
            else:
                drawn.append(Stop(x, row.label, cell))
        lines.append(Line(name, tuple(drawn)))
    wanted = _wanted(table, key)
    beside = [
        Bar(number, row.label, row.mark, cell) for number, row in enumerate(table.rows, 1)
        if row.mark in (("base", "ceiling") if wanted is None else ("base",))
        and _is_finite(cell := _known(table, row, key))
    ]  # fmt: skip
    cells = [stop.cell for line in lines for stop in line.stops] + [bar.cell for bar in beside]
    axis = _axis(table, key, cells, [] if wanted is None else [wanted])
    axis = replace(axis, title=axis.title.removeprefix("satisfaction."))
    return Curve(axis, tuple(lines), tuple(beside), tuple(left_out), wanted)
