"""Leaderboards in a terminal: columns that do not fit side by side follow below; no number is ever cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table as Grid
from rich.text import Text

from alignbench.reports.table.board import Cell, Leaderboard, Row, Table, units

GAP = 2  # between columns: one of padding, one that the box draws
LABEL_SHARE = 0.4  # labels take at most so much of the width, and are folded beyond it
RANK = -1  # stands for the column of ranks among the numbers of the others


def to_terminal(shown: Table | Leaderboard) -> RenderableType:
    """A rich renderable of one table, or of all of them."""
    if isinstance(shown, Table):
        return _Folding(shown)
    return tables_to_terminal(shown.shown) if shown.shown else Text("No results.")


def tables_to_terminal(tables: Sequence[Table]) -> RenderableType:
    """A rich renderable of several tables."""
    return Group(*map(_Folding, tables))


@dataclass(frozen=True)
class _Folding:
    """A table that asks for the console's width when it is printed."""

    table: Table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = self.table
        label = _label_width(table, options.max_width)
        yield Text(table.title, style="bold")
        whole = [[*range(len(table.columns))]]
        for columns in whole if table.in_words else _groups(table, options.max_width - label - GAP):
            yield _grid(table, columns, label)
            yield Text()
        for number, note in enumerate(table.footnotes, 1):
            yield Text(f"{superscript((number,))} {note}", style="dim")
        yield from (Text(line, style="dim") for line in table.legend)
        if table.signature:
            yield Text(table.signature, style="dim", no_wrap=True, overflow="ignore")  # one line, to be copied
        yield Text()


def _label_width(table: Table, width: int) -> int:
    return min(
        max([cell_len(table.named), *(cell_len(_label(row)) for row in table.rows)]), max(int(width * LABEL_SHARE), 8)
    )


def _groups(table: Table, room: int) -> Iterator[list[int]]:
    """Columns that fit side by side, in order; what stands beside an estimate stays there."""
    group: list[int] = []
    for unit in [[RANK]] * table.ranked + units(table):
        if group and sum(_width(table, i) + GAP for i in group + unit) > room:
            yield group
            group = []
        group = group + unit
    yield group


def _width(table: Table, i: int) -> int:
    return max(cell_len(text) for text in (_heading(table, i), *(_cell(row, i) for row in table.rows)))


def _heading(table: Table, i: int) -> str:
    if i == RANK:
        return "rank" + superscript(table.rank_notes)
    return table.columns[i].heading + superscript(table.columns[i].notes)


def _label(row: Row) -> str:
    return row.label + " ◆" * row.front + superscript(row.notes)


def _of(row: Row, i: int) -> Cell:
    return row.rank if i == RANK else row.cells[i]


def _cell(row: Row, i: int) -> str:
    return _of(row, i).text + superscript(_of(row, i).notes)


def _shown(row: Row, i: int) -> Text:
    text = Text(_cell(row, i))
    if _of(row, i).best:
        text.stylize("bold", 0, len(_of(row, i).point))
    return text


def _grid(table: Table, columns: Sequence[int], label: int) -> Grid:
    grid = Grid(box=box.SIMPLE_HEAD, padding=(0, GAP - 1, 0, 0), pad_edge=False, show_edge=False)
    grid.add_column(Text(table.named), width=label, overflow="fold")
    for i in columns:
        words = i != RANK and table.columns[i].words
        grid.add_column(Text(_heading(table, i)), justify="left" if words else "right", overflow="fold", min_width=1)
    for number, row in enumerate(table.rows):
        if number and number == table.ranking:
            grid.add_section()
        grid.add_row(Text(_label(row), style="dim" if row.mark else ""), *(_shown(row, i) for i in columns))
    return grid


def superscript(numbers: Sequence[int]) -> str:
    """Footnote numbers as raised digits: `¹,²`."""
    raised = str.maketrans("0123456789,", "⁰¹²³⁴⁵⁶⁷⁸⁹,")
    return ",".join(str(n) for n in numbers).translate(raised)
