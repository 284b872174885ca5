"""What a page shows of each table: its sentences, its rows, its plot, its draws."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from markupsafe import Markup

from alignbench.reports.charts.data import Curves, charted, series, steps_of, sweeps, tradeoff
from alignbench.reports.charts.drawing import draw
from alignbench.reports.charts.drawing.curves import picture_of
from alignbench.reports.charts.picture import SCREEN, Picture
from alignbench.reports.charts.svg import inline
from alignbench.reports.charts.two_parts import rows_of, two_parts
from alignbench.reports.examples import Example, Shown
from alignbench.reports.formats.latex_compact import compact
from alignbench.reports.formats.page.drawn import as_json, of_table, packed
from alignbench.reports.table.board import Cell, Column, Leaderboard, Row, Table
from alignbench.reports.table.brief import kept
from alignbench.reports.table.columns import COST
from alignbench.reports.table.definitions import definition
from alignbench.reports.table.families import families_of
from alignbench.reports.table.lines import HASH, SEED
from alignbench.reports.table.suite import COUNTED, long_name

FIRST = 9
"""Rows of a task's table that are seen at once, the base's among them."""
FIRST_IN_SUITE = 20
PARTLY = re.compile(r"^(\d+) of (\d+) draws left out: their proposals ran out$")
"""A note that says how many draws all numbers of a row lack."""


Kind = tuple[str, bool, bool]
"""Key of a column, and whether it is exact values or differences."""


@dataclass(frozen=True)
class Head:
    """A column of the page's table: `group` is "" for what is seen at once, else what a button shows."""

    column: Column
    group: str
    notes: tuple[int, ...] = ()

    @property
    def definition(self) -> str:
        """The key of what it means in the page's legend; "" where nothing does."""
        found = definition(self.column.key)
        return "" if found is None or self.column.aside else found[0]


@dataclass(frozen=True)
class Line:
    """A row of the page's table, in the order of its heads."""

    number: int
    row: Row
    cells: tuple[Cell, ...]
    first: bool  # whether it is seen at once
    partly: str = ""  # how many of its draws count, where not all do, such as "46/64"
    why: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """Its verdict; "base" for the base."""
        return "base" if self.row.is_base else self.cells[0].point or "—"


@dataclass(frozen=True)
class Section:
    """What the page shows of one table; `number` counts from 1 and is part of ids."""

    number: int
    table: Table
    summary: str = ""  # what the task asks, in a sentence
    draws: Mapping[int, tuple[Example, ...]] = field(default_factory=dict)  # by number of the row
    curves: Mapping[str, tuple[Picture, ...]] = field(default_factory=dict)  # over training, over a number

    @cached_property
    def heads(self) -> tuple[Head, ...]:
        """The columns: the brief table's, then what the whole table has besides, cost apart."""
        brief = self.table.brief
        shown = () if brief is None else brief.columns
        keys = {column.key for column in shown}
        rest = [column for column in self.table.columns if column.key not in keys or column.aside]
        if brief is None:
            return tuple(Head(column, "", column.notes) for column in rest)
        rank = [Head(Column("rank", "rank", "lower"), "more", self.table.rank_notes)] if self.table.ranked else []
        groups = [Head(column, "cost" if column.key in COST else "more", column.notes) for column in rest]
        return (*(Head(column, "") for column in shown), *rank, *sorted(groups, key=lambda head: head.group))

    @cached_property
    def lines(self) -> tuple[Line, ...]:
        """The rows, in the order of the table."""
        brief, table = self.table.brief, self.table
        first = {id(row) for row in kept(brief.rows, FIRST)} if brief is not None else set()
        lines = []
        for number, row in enumerate(table.rows, 1):
            short = brief.rows[number - 1] if brief is not None else None
            whole = dict(zip(((c.key, c.exact, c.delta) for c in table.columns), row.cells, strict=True))
            digits = dict(zip((c.key for c in brief.columns), short.cells, strict=True)) if brief and short else {}
            cells = [self._cell(head, row, digits, whole) for head in self.heads]
            partly, why = _partly(self._notes(cells), table)
            shown = replace(row, label=short.label) if short else row
            lines.append(Line(number, shown, tuple(cells), short is None or id(short) in first, partly, why))
        return tuple(lines)

    def _cell(self, head: Head, row: Row, digits: Mapping[str, Cell], whole: Mapping[Kind, Cell]) -> Cell:
        """A cell in two digits where the brief table has the column, with the notes of the whole table's."""
        column = head.column
        if column.key == "rank":
            return row.rank
        full = whole.get((column.key, column.exact, column.delta), Cell())
        if head.group or column.key not in digits:
            return full
        return replace(digits[column.key], notes=full.notes, best=full.best)

    def _notes(self, cells: Iterable[Cell]) -> list[str]:
        numbers = dict.fromkeys(n for cell in cells for n in cell.notes)
        return [self.table.footnotes[n - 1] for n in numbers]

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups of columns that buttons show."""
        return tuple(dict.fromkeys(head.group for head in self.heads if head.group))

    @property
    def more(self) -> int:
        """How many rows are not seen at once."""
        return sum(not line.first for line in self.lines)

    @property
    def size(self) -> str:
        """The base, and how much was drawn."""
        brief = self.table.brief
        return self.table.subtitle if brief is None else brief.heading.removeprefix(f"{self.table.task} · ")

    @property
    def plot(self) -> Markup:
        """The two parts of KL(p‖π) of all rows; where they are not known, what is asked against KL(π‖a)."""
        brief = self.table.brief
        if brief is None or is_mixed(self.table):
            return Markup("")
        words = {row.label: row.cells[0].point for row in brief.rows}
        rows = rows_of(brief, words)
        both = sum(row.asked.value is not None for row in rows) > 1
        chart = two_parts(rows, self.table.title) if both else tradeoff(self.table, verdicts=words)
        return Markup("") if chart is None else inline(draw(chart, SCREEN), f"plot-{self.number}")

    @property
    def pictures(self) -> Iterator[tuple[str, Markup]]:
        """Curves: what they are over, and the pictures."""
        for k, (name, pictures) in enumerate(self.curves.items(), 1):
            made = (inline(picture, f"curve-{self.number}-{k}-{i}") for i, picture in enumerate(pictures, 1))
            yield name, Markup("").join(made)

    @property
    def tex(self) -> Markup:
        """The table in LaTeX, as a string of JSON; nothing where there is no brief table."""
        return Markup("") if self.table.brief is None else as_json(compact([self.table]))

    @property
    def legend(self) -> tuple[str, ...]:
        """What is said of the whole table, the notes of the brief one first."""
        return (*(() if self.table.brief is None else self.table.brief.legend), *self.table.legend)

    def marks(self, cell: Cell) -> tuple[int, ...]:
        """The notes of a cell, but for those that the row's badge says."""
        return tuple(n for n in cell.notes if not _is_partly(self.table.footnotes[n - 1]))

    @property
    def means(self) -> bool:
        """Whether some rows are means over seeds."""
        return any(row.who and not row.who[SEED] for row in self.table.rows)

    @property
    def data(self) -> Markup:
        """The example draws, as JSON."""
        return packed(self.draws)


def _is_partly(note: str) -> bool:
    return all(PARTLY.match(part) for part in note.split("; "))


def _partly(notes: Sequence[str], table: Table) -> tuple[str, tuple[str, ...]]:
    """The fewest draws that a number of the row is of, as `46/64`, and the notes that say so."""
    found = {part: match for note in notes for part in note.split("; ") if (match := PARTLY.match(part))}
    counts = [(int(m[2]) - int(m[1]), int(m[2])) for m in found.values() if 0 < int(m[1]) < int(m[2])]
    worst = min(counts, default=None, key=lambda pair: pair[0] / pair[1])
    return ("", ()) if worst is None else (f"{worst[0]}/{worst[1]}", tuple(found))


@dataclass(frozen=True)
class GridLine:
    """A row of a suite."""

    row: Row
    better: str  # on how many tasks
    cells: tuple[Cell, ...]  # by task: verdict and asked gap
    first: bool  # whether it is seen at once


@dataclass(frozen=True)
class Grid:
    """A suite as the page shows it: rows × tasks, each with its verdict; `tasks` has the section of each column."""

    number: int
    table: Table
    tasks: tuple[tuple[Column, int], ...]  # number of the section, 0 where the page has none

    @property
    def best(self) -> tuple[Cell, ...]:
        """Of each task the best row at little cost."""
        return self.table.rows[0].cells[len(COUNTED) :]

    @property
    def lines(self) -> tuple[GridLine, ...]:
        """The rows below that of the best."""
        rows = self.table.rows[1:]
        return tuple(
            GridLine(row, row.cells[0].point, row.cells[len(COUNTED) :], i < FIRST_IN_SUITE)
            for i, row in enumerate(rows)
        )

    @property
    def more(self) -> int:
        """How many rows are not seen at once."""
        return sum(not line.first for line in self.lines)


def sections(board: Leaderboard, examples: Sequence[Shown] = ()) -> tuple[Section, ...]:
    """A section for each table, in the order of the leaderboard."""
    curves = _curves(board)
    return tuple(
        Section(number, table, board.asked.summaries.get(table.task, ""), of_table(table, examples), curves[number - 1])
        for number, table in enumerate(board.tables, 1)
    )


def _curves(board: Leaderboard) -> list[Mapping[str, tuple[Picture, ...]]]:
    """The curves of each table; none is looked for where no row is a checkpoint and no aligner is swept."""
    steps = steps_of(board.rows)
    if not steps and not any(families_of(table.rows, table.base) for table in board.tables):
        return [{} for _ in board.tables]
    return [
        {} if is_mixed(table) else dict(_named(series(table, steps), sweeps(table)))
        for table in charted(board.rows, board.asked)
    ]


def is_mixed(table: Table) -> bool:
    """Whether rows of several versions of the task share it: their numbers make no curve."""
    return len({row.who[HASH] for row in table.rows if row.who}) > 1


def _named(over_training: Curves | None, swept: Sequence[Curves]) -> Iterator[tuple[str, tuple[Picture, ...]]]:
    named = [("Training", over_training), *((f"Sweep of {chart.x.title}", chart) for chart in swept)]
    for name, chart in named:
        if chart is not None:
            yield name, tuple(picture_of(chart, curve, SCREEN) for curve in chart.curves)


def grids(board: Leaderboard) -> tuple[Grid, ...]:
    """A grid for each suite."""
    return tuple(_grid(number, suite, board) for number, suite in enumerate(board.suite, 1))


def _grid(number: int, suite: Table, board: Leaderboard) -> Grid:
    numbered = {name: i for i, table in enumerate(board.tables, 1) for name in (table.task, long_name(table))}
    columns = suite.columns[len(COUNTED) :]
    return Grid(number, suite, tuple((column, numbered.get(column.label, 0)) for column in columns))
