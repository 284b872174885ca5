"""Leaderboards in a terminal: columns that do not fit side by side follow below; no number is ever cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table as Grid
from rich.text import Text

from alignbench.reports.table import Leaderboard, Row, Table

GAP = 2  # between columns: one of padding, one that the box draws
LABEL_SHARE = 0.4  # labels take at most so much of the width, and are folded beyond it


def to_terminal(shown: Table | Leaderboard) -> RenderableType:
    """A rich renderable of one table, or of all of them."""
    if isinstance(shown, Table):
        return _Folding(shown)
    return Group(*map(_Folding, shown)) if len(shown) else Text("No results.")


@dataclass(frozen=True)
class _Folding:
    """A table that asks for the console's width when it is printed."""

    table: Table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = self.table
        label = _label_width(table, options.max_width)
        yield Text(table.title, style="bold")
        for columns in _groups(table, options.max_width - label - GAP):
            yield _grid(table, columns, label)
            yield Text()
        for number, note in enumerate(table.footnotes, 1):
            yield Text(f"{superscript((number,))} {note}", style="dim")
        if table.signature:
            yield Text(table.signature, style="dim", no_wrap=True, overflow="ignore")  # one line, to be copied
        yield Text()


def _label_width(table: Table, width: int) -> int:
    return min(max([cell_len(row.label) for row in table.rows], default=0), max(int(width * LABEL_SHARE), 8))


def _groups(table: Table, room: int) -> Iterator[list[int]]:
    """Columns that fit side by side, in order; an exact value stays beside its estimate."""
    group: list[int] = []
    for unit in _units(table):
        if group and sum(_width(table, i) + GAP for i in group + unit) > room:
            yield group
            group = []
        group = group + unit
    yield group


def _units(table: Table) -> Iterator[list[int]]:
    for i, column in enumerate(table.columns):
        if not column.exact:
            pair = i + 1 < len(table.columns) and table.columns[i + 1].exact
            yield [i, i + 1] if pair else [i]


def _width(table: Table, i: int) -> int:
    return max(cell_len(text) for text in (_heading(table, i), *(_cell(row, i) for row in table.rows)))


def _heading(table: Table, i: int) -> str:
    return table.columns[i].heading + superscript(table.columns[i].notes)


def _cell(row: Row, i: int) -> str:
    return row.cells[i].text + superscript(row.cells[i].notes)


def _grid(table: Table, columns: Sequence[int], label: int) -> Grid:
    grid = Grid(box=box.SIMPLE_HEAD, padding=(0, GAP - 1, 0, 0), pad_edge=False, show_edge=False)
    grid.add_column(Text(""), width=label, overflow="fold")
    for i in columns:
        grid.add_column(Text(_heading(table, i)), justify="right", overflow="fold", min_width=1)
    for row in table.rows:
        grid.add_row(Text(row.label, style="dim" if row.mark else ""), *(Text(_cell(row, i)) for i in columns))
    return grid


def superscript(numbers: Sequence[int]) -> str:
    """Footnote numbers as raised digits: `¹,²`."""
    raised = str.maketrans("0123456789,", "⁰¹²³⁴⁵⁶⁷⁸⁹,")
    return ",".join(str(n) for n in numbers).translate(raised)
