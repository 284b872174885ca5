"""Brief tables as text lines for a terminal: columns that do not fit are left out, and no number is cut."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from textwrap import wrap

from rich.cells import cell_len

from alignbench.reports.table.board import Row, Table
from alignbench.reports.table.brief import kept
from alignbench.reports.table.brief_columns import LENGTH
from alignbench.reports.table.labels import digits
from alignbench.reports.table.verdict import ORDER
from alignbench.spec import without_step

GAP = 2  # between columns
ROWS = 12  # of a table, the base's among them
LABEL = 24  # characters of a row's name at most
LEAST = 5  # columns that always stand: verdict, asked gap, collateral, KL, and the first thing asked
RULE = "── {} ──"


def brief_lines(brief: Table, width: int, most: int = ROWS) -> Iterator[str]:
    """The lines of a table of `most` rows, the base's always; none wider than `width` unless a number is."""
    rows = kept(brief.rows, most)
    yield from wrap(brief.heading, width)
    yield from wrap(brief.conclusion.replace("\n", " "), width) if brief.conclusion else ()
    if rows:
        yield from _grid(brief, rows, width)
    if left := left_out(brief, rows):
        yield left
    for note in brief.legend:
        yield from wrap(note, width)


def left_out(brief: Table, rows: Sequence[Row]) -> str:
    """How many rows of a table are not among `rows`, by verdict: `9 more: 5 worse, 4 —`; "" where all are."""
    every = [row for row in brief.rows if row.mark != "ceiling"]
    lost = Counter(map(_verdict, every)) - Counter(map(_verdict, rows))
    words = ", ".join(f"{lost[word]} {word}" for word in ORDER if lost[word])
    return f"{lost.total()} more: {words}" if lost else ""


def one_line(brief: Table) -> str:
    """A world whose truth is known, in one line."""
    return f"{brief.heading}: {brief.truth}"


def _verdict(row: Row) -> str:
    return row.cells[0].point


def _text(row: Row, i: int) -> str:
    return row.cells[i].text if i else row.cells[i].point


@dataclass(frozen=True)
class _Column:
    """A column as printed."""

    key: str
    label: str
    below: str
    cells: Sequence[str]

    @property
    def width(self) -> int:
        """Of its widest line; a unit that reaches over the columns beside it takes no room of its own."""
        below = "" if len(self.below) > 2 * LEAST else self.below
        return max(map(cell_len, (self.label, below, *self.cells)))


def _dispensable(columns: Sequence[_Column]) -> _Column:
    """What is left out first: lengths, then from the second last to the left, at the end the last."""
    long = next((column for column in columns if column.key == LENGTH), None)
    return long or columns[-2 if len(columns) > LEAST + 1 else -1]


def _grid(brief: Table, rows: Sequence[Row], width: int) -> Iterator[str]:
    """The table, in as many columns as fit."""
    names = _names(rows)
    columns = [_Column(c.key, c.label, c.below, [_text(row, i) for row in rows]) for i, c in enumerate(brief.columns)]
    label = max(map(cell_len, names), default=0)
    while len(columns) > LEAST and label + sum(c.width + GAP for c in columns) > width:
        columns.remove(_dispensable(columns))
    widths = [column.width for column in columns]
    yield _line(" " * label, [column.label for column in columns], widths)
    yield _line(" " * label, [column.below for column in columns], widths)
    for i, name in enumerate(names):
        yield _line(_padded(name, label), [column.cells[i] for column in columns], widths)


def _names(rows: Sequence[Row]) -> list[str]:
    """The rows' names, the base's between rules."""
    return [RULE.format(name) if row.is_base else name for row, name in zip(rows, short_names(rows), strict=True)]


def short_names(rows: Sequence[Row]) -> list[str]:
    """The rows' names, cut where they are long; of those that would look alike the digits tell which is which."""
    short = [_cut(row.label) for row in rows]
    return [
        _cut(row.label, f"#{digits(without_step(row.label)[0])[:4]}") if short.count(name) > 1 else name
        for row, name in zip(rows, short, strict=True)
    ]


def _cut(label: str, more: str = "") -> str:
    """The label's beginning, then `more`, then the step of a checkpoint."""
    if len(label) <= LABEL and not more:
        return label
    name, _ = without_step(label)
    end = more + label[len(name) :]
    return f"{name[: max(LABEL - 1 - len(end), 1)].rstrip()}…{end}"


def _line(label: str, cells: Sequence[str], widths: Sequence[int]) -> str:
    """Cells side by side; one that is wider than its column takes room from those after it."""
    text, end = label, cell_len(label)
    for cell, width in zip(cells, widths, strict=True):
        begin = end + GAP
        text += " " * max(begin - cell_len(text), 1 if cell and cell_len(text) > begin - GAP else 0) + cell
        end = begin + width
    return text.rstrip()


def _padded(text: str, width: int) -> str:
    return text + " " * (width - cell_len(text))
