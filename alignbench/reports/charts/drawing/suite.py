"""Rows × tasks: in each cell the mark of the verdict and the asked gap."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from alignbench.reports.charts.drawing.frame import LETTER, finished, headed, legend
from alignbench.reports.charts.looks import entries_of
from alignbench.reports.charts.picture import Dot, Mark, Path, Picture, Size, Text, short, text_width
from alignbench.reports.charts.suite import Suite, SuiteRow

LABELS = 0.4  # of the width, for the names of the rows, at most
LEAST, TASK = 22, 24  # letters of such a name at least, of a task's at most
CELL = 4.8  # fonts, a cell at least
WIDEST = 11.0  # fonts, a cell at most
TURN = -35.0  # degrees of names of tasks that are wider than a cell
TALL = 1.55  # fonts, from row to row
NARROWEST = 32.0  # fonts, the whole


@dataclass(frozen=True)
class _Grid:
    """Where the cells stand: the first one's left end, their width, the first row's top; whether names are turned."""

    left: float
    cell: float
    top: float
    turned: bool
    over: float  # how far a turned name reaches

    @classmethod
    def of(cls, chart: Suite, size: Size, top: float) -> _Grid:
        """As wide as the picture is, or as the cells need."""
        font, count = size.font, max(len(chart.tasks), 1)
        name = max((text_width(short(task, TASK), font) for task in chart.tasks), default=0.0)
        longest = max((len(row.label) for row in chart.rows), default=0) * LETTER * font + font
        cell = (size.width - min(longest, LABELS * size.width)) / count
        turned = name > cell - 0.5 * font
        over = max(0.85 * name - CELL * font, 0.0) if turned else 0.0
        left = min(longest, max(size.width - count * CELL * font - over, LEAST * LETTER * font))
        cell = min(max((size.width - left - over) / count, CELL * font), WIDEST * font)
        return cls(left, cell, top + (0.58 * name + 1.5 * font if turned else 2.2 * font), turned, over)

    def x(self, place: int) -> float:
        """The left end of a column."""
        return self.left + place * self.cell


def drawn(chart: Suite, size: Size) -> Picture:
    """The grid, as wide as its cells need."""
    title, end = headed(chart.title, size)
    grid, font, count = _Grid.of(chart, size, end), size.font, len(chart.rows)
    right, end = grid.x(len(chart.tasks)), grid.top + count * TALL * font + 0.4 * font
    lines = tuple(((0.0, grid.top + i * TALL * font), (right, grid.top + i * TALL * font)) for i in range(count + 1))
    heads = [
        Text(grid.x(i) + 0.2 * font, grid.top - 0.6 * font, short(task, TASK), "axis", turn=TURN if grid.turned else 0)
        for i, task in enumerate(chart.tasks)
    ]
    marks: list[Mark] = [*title, *heads, Path(lines, "grid")]
    letters = int((grid.left - 0.5 * font) / (LETTER * font))
    for i, row in enumerate(chart.rows):
        y = grid.top + (i + 0.5) * TALL * font
        marks.append(Text(0.2 * font, y + 0.35 * font, short(row.label, letters), "text", "start", row.number))
        marks += _cells(row, chart, grid, y, size)
    size = replace(size, width=max(right + grid.over + 0.2 * font, NARROWEST * font))
    if size.legend:
        more, end = _legend(chart, end, size)
        marks += more
    told = f"{count} rows on {len(chart.tasks)} tasks. The table has the numbers."
    return finished(marks, end, size, f"verdicts and asked gaps: {chart.title}", told)


def _legend(chart: Suite, top: float, size: Size) -> tuple[list[Mark], float]:
    """What the marks, the numbers beside them and empty cells are."""
    outcomes = [outcome for row in chart.rows for outcome in row.outcomes]
    shown = {outcome.verdict for outcome in outcomes}
    marks, end = legend(entries_of(shown), top, size)
    said = ["beside each: the asked gap, nats"] * any(o.gap for o in outcomes) + ["empty: no result"] * ("" in shown)
    if said:
        end += size.line
        marks.append(Text(0.6 * size.font, end, "; ".join(said), "told"))
    return marks, end


def _cells(row: SuiteRow, chart: Suite, grid: _Grid, y: float, size: Size) -> Iterator[Mark]:
    """The marks of one row; a cell without a result is empty."""
    for i, (task, outcome) in enumerate(zip(chart.tasks, row.outcomes, strict=True)):
        x = grid.x(i)
        title = f"{row.label} on {task}: {outcome.verdict or 'no result'} {outcome.gap}".rstrip()
        if outcome.verdict:
            yield Dot(x + 0.9 * size.font, y, size.radius, outcome.verdict, row.number, title)
            yield Text(x + 1.8 * size.font, y + 0.35 * size.font, outcome.gap, "text", "start", row.number, title)
