"""What a page shows of each table: its sentences, its rows, its plot, its draws."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from markupsafe import Markup

from alignbench.reports.charts.data import Curves, charted, series, steps_of, sweeps, tradeoff
from alignbench.reports.charts.drawing import draw
from alignbench.reports.charts.drawing.curves import names_of, picture_of
from alignbench.reports.charts.looks import line_look
from alignbench.reports.charts.picture import SCREEN, SMALL
from alignbench.reports.charts.suite import Outcome
from alignbench.reports.charts.suite import suite as outcomes_of
from alignbench.reports.charts.svg import inline
from alignbench.reports.charts.two_parts import rows_of, two_parts
from alignbench.reports.examples import Example, Shown
from alignbench.reports.formats.latex_compact import compact
from alignbench.reports.formats.page.drawn import as_json, of_table, packed
from alignbench.reports.table.board import Cell, Column, Leaderboard, Row, Table
from alignbench.reports.table.brief import kept
from alignbench.reports.table.columns import COST
from alignbench.reports.table.definitions import definition
from alignbench.reports.table.digits import spelled
from alignbench.reports.table.families import families_of
from alignbench.reports.table.lines import HASH, SEED
from alignbench.reports.table.suite import COUNTED, long_name
from alignbench.reports.table.verdict import ORDER

FIRST = 9
"""Rows of a task's table that are seen at once, the base's among them."""
FIRST_IN_SUITE = 20
TRAINING = "Training"
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
class Figure:
    """Pictures side by side, and which family has which look; of the only one of a sweep `name` says enough."""

    name: str
    families: tuple[tuple[str, str], ...]
    pictures: tuple[Markup, ...]


@dataclass(frozen=True)
class Section:
    """What the page shows of one table; `number` counts from 1 and is part of ids."""

    number: int
    table: Table
    summary: str = ""  # what the task asks, in a sentence
    draws: Mapping[int, tuple[Example, ...]] = field(default_factory=dict)  # by number of the row
    curves: Mapping[str, Curves] = field(default_factory=dict)  # over training, over a number

    @cached_property
    def heads(self) -> tuple[Head, ...]:
        """The columns: the brief table's, then what the whole table has besides, cost apart."""
        table, brief = self.table, self.table.brief
        if brief is None:
            return tuple(self._head(table, column) for column in table.columns)
        keys = {column.key for column in brief.columns}
        asides = {key: [column for column in table.columns if column.key == key and column.aside] for key in keys}
        first = [
            head for column in brief.columns
            for head in (self._head(brief, column), *(self._head(table, aside) for aside in asides[column.key]))
        ]  # fmt: skip
        rank = [Column("rank", "rank", "lower", notes=table.rank_notes)] if table.ranked else []
        rest = [column for column in table.columns if column.key not in keys]
        heads = [self._head(table, c, "cost" if c.key in COST else "more") for c in (*rank, *rest)]
        return (*first, *sorted(heads, key=lambda head: head.group))

    def _head(self, table: Table, column: Column, group: str = "") -> Head:
        return Head(column, group, self._numbers(table, column.notes))

    @cached_property
    def footnotes(self) -> list[str]:
        """The notes of the whole table, then those that the brief one alone has; a row's badge says what it says."""
        brief = self.table.brief
        every = (*self.table.footnotes, *(() if brief is None else brief.footnotes))
        return list(dict.fromkeys(filter(None, map(_without_badge, every))))

    def _numbers(self, table: Table, notes: Iterable[int]) -> tuple[int, ...]:
        """The notes of a table by their numbers on the page."""
        texts = (_without_badge(table.footnotes[n - 1]) for n in notes)
        return tuple(self.footnotes.index(text) + 1 for text in texts if text)

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
            partly, why = _partly(self._said(row, short))
            shown = replace(row, label=short.label if short else row.label, notes=self._numbers(table, row.notes))
            lines.append(Line(number, shown, tuple(cells), short is None or id(short) in first, partly, why))
        return tuple(lines)

    def _cell(self, head: Head, row: Row, digits: Mapping[str, Cell], whole: Mapping[Kind, Cell]) -> Cell:
        """A cell in two digits where the brief table has the column, with its notes; bold as in the whole table."""
        column, brief = head.column, self.table.brief
        if column.key == "rank":
            return replace(row.rank, notes=self._numbers(self.table, row.rank.notes))
        full = whole.get((column.key, column.exact, column.delta), Cell())
        if head.group or column.aside or brief is None or column.key not in digits:
            return replace(full, notes=self._numbers(self.table, full.notes))
        cell = digits[column.key]
        spread = cell.spread or (spelled(cell.value, cell.low, cell.high)[1] if cell.value is not None else "")
        return replace(cell, spread=spread, notes=self._numbers(brief, cell.notes), best=full.best)

    def _said(self, row: Row, short: Row | None) -> list[str]:
        """All notes of a row's cells."""
        brief = self.table.brief
        found = [self.table.footnotes[n - 1] for cell in row.cells for n in cell.notes]
        if short is not None and brief is not None:
            found += [brief.footnotes[n - 1] for cell in short.cells for n in cell.notes]
        return list(dict.fromkeys(found))

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
        rows = rows_of(brief)
        both = sum(row.asked.value is not None for row in rows) > 1
        chart = two_parts(rows, self.table.title) if both else tradeoff(self.table)
        return Markup("") if chart is None else inline(draw(chart, SCREEN), f"plot-{self.number}")

    @property
    def figures(self) -> Iterator[Figure]:
        """Curves, a small picture for each number."""
        for k, (name, chart) in enumerate(self.curves.items(), 1):
            pictures = (picture_of(chart, curve, SMALL) for curve in chart.curves)
            made = (inline(picture, f"curve-{self.number}-{k}-{i}") for i, picture in enumerate(pictures, 1))
            names = names_of(chart)
            families = tuple((line_look(i), family) for i, family in enumerate(names))
            yield Figure(name, families if len(names) > 1 or name == TRAINING else (), tuple(made))

    @property
    def tex(self) -> Markup:
        """The table in LaTeX, as a string of JSON; nothing where there is no brief table."""
        return Markup("") if self.table.brief is None else as_json(compact([self.table]))

    @property
    def legend(self) -> tuple[str, ...]:
        """What is said of the whole table, the notes of the brief one first."""
        lines = (*(() if self.table.brief is None else self.table.brief.legend), *self.table.legend)
        return tuple(line for line in lines if not line.startswith("◆"))  # its plot has a front of its own

    @property
    def means(self) -> bool:
        """Whether some rows are means over seeds."""
        return any(row.who and not row.who[SEED] for row in self.table.rows)

    @property
    def data(self) -> Markup:
        """The example draws, as JSON."""
        return packed(self.draws)


def _without_badge(note: str) -> str:
    """A note without what the badge of the row says."""
    return "; ".join(part for part in note.split("; ") if not PARTLY.match(part))


def _partly(notes: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """Smallest coverage of any cell of a row, as `46/64`, and the notes that say it."""
    found = {part: match for note in notes for part in note.split("; ") if (match := PARTLY.match(part))}
    counts = [(int(m[2]) - int(m[1]), int(m[2])) for m in found.values() if 0 < int(m[1]) < int(m[2])]
    worst = min(counts, default=None, key=lambda pair: pair[0] / pair[1])
    return ("", ()) if worst is None else (f"{worst[0]}/{worst[1]}", tuple(found))


@dataclass(frozen=True)
class GridLine:
    """A row of a suite."""

    row: Row
    better: str  # on how many tasks
    outcomes: tuple[Outcome, ...]  # by task
    why: tuple[str, ...]  # by task: the reason for a `—`
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
        notes = self.table.footnotes
        return tuple(
            GridLine(
                row, row.cells[0].point, shown.outcomes,
                tuple("; ".join(notes[n - 1] for n in cell.notes) for cell in row.cells[len(COUNTED) :]),
                i < FIRST_IN_SUITE,
            )
            for i, (row, shown) in enumerate(zip(self.table.rows[1:], outcomes_of(self.table).rows, strict=True))
        )  # fmt: skip

    @property
    def words(self) -> list[str]:
        """The verdicts that it shows."""
        found = {outcome.verdict for line in self.lines for outcome in line.outcomes}
        return [word for word in ORDER if word in found and word]

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


def _curves(board: Leaderboard) -> list[Mapping[str, Curves]]:
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


def _named(over_training: Curves | None, swept: Sequence[Curves]) -> Iterator[tuple[str, Curves]]:
    if over_training is not None:
        yield TRAINING, over_training
    yield from ((f"Sweep of {chart.x.title}", chart) for chart in swept)


def _who(table: Table) -> tuple[str, str, str]:
    return table.base_id, table.base, table.judge


def grids(board: Leaderboard) -> tuple[Grid, ...]:
    """A grid for each suite."""
    return tuple(_grid(number, suite, board) for number, suite in enumerate(board.suite, 1))


def _grid(number: int, suite: Table, board: Leaderboard) -> Grid:
    mine = [(i, t) for i, t in enumerate(board.tables, 1) if _who(t) == _who(suite)]
    numbered = {name: i for i, table in mine for name in (table.task, long_name(table))}
    columns = suite.columns[len(COUNTED) :]
    return Grid(number, suite, tuple((column, numbered.get(column.label, 0)) for column in columns))
