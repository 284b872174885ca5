"""Rows × tasks: in each cell the mark of the verdict and the asked gap."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from alignbench.reports.charts.drawing.frame import LETTER, finished, headed, legend
from alignbench.reports.charts.looks import VERDICTS
from alignbench.reports.charts.picture import Dot, Mark, Path, Picture, Size, Text, short, text_width
from alignbench.reports.charts.suite import Suite, SuiteRow

LABELS = 0.4  # of the width, for the names of the rows, at most
CELL = 6.0  # fonts, a cell at least
WIDEST = 11.0  # fonts, a cell at most
TURN = -35.0  # degrees of names of tasks that are wider than a cell
TALL = 1.55  # fonts, from row to row
LEAST = 32.0  # fonts, the whole


def drawn(chart: Suite, size: Size) -> Picture:
    """The grid, as wide as its cells need."""
    title, end = headed(chart.title, size)
    font = size.font
    longest = max((len(row.label) for row in chart.rows), default=0) * LETTER * font + font
    left = min(LABELS * size.width, longest)
    longest_task = max((text_width(short(task, 24), font) for task in chart.tasks), default=0.0)
    cell = min((size.width - left) / max(len(chart.tasks), 1), WIDEST * font)
    turned = longest_task > cell - 0.5 * font
    if turned:  # the last name reaches over the right end
        cell = max((size.width - left - 0.6 * longest_task) / max(len(chart.tasks) - 0.5, 1), CELL * font)
    top = end + (0.58 * longest_task + 1.5 * font if turned else 2.2 * font)
    right = left + cell * len(chart.tasks)
    marks: list[Mark] = list(title)
    for i, task in enumerate(chart.tasks):
        x, name = left + i * cell + 0.2 * font, short(task, 24)
        marks.append(Text(x, top - 0.6 * font, name, "axis", turn=TURN if turned else 0.0))
    lines = tuple(((0.0, top + i * TALL * font), (right, top + i * TALL * font)) for i in range(len(chart.rows) + 1))
    marks.append(Path(lines, "grid"))
    letters = int((left - 0.5 * font) / (LETTER * font))
    for i, row in enumerate(chart.rows):
        y = top + (i + 0.5) * TALL * font
        marks.append(Text(0.2 * font, y + 0.35 * font, short(row.label, letters), "text", "start", row.number))
        marks += _cells(row, chart, (left, cell, y), size)
    end = top + len(chart.rows) * TALL * font + 0.4 * font
    shown = {outcome.verdict for row in chart.rows for outcome in row.outcomes}
    if size.legend:
        words = {**{look: look for look in VERDICTS}, "—": "not told"}
        more, end = legend([(look, word) for look, word in words.items() if look in shown], end, size)
        empty = ["empty: no result"] if "" in shown else []
        gaps = any(outcome.gap for row in chart.rows for outcome in row.outcomes)
        said = "; ".join([*(["beside each: the asked gap, nats"] if gaps else []), *empty])
        marks, end = [*marks, *more, Text(0.5 * font, end + size.line, said, "told")], end + size.line * bool(said)
    last = max(right + (0.85 * longest_task - cell if turned else 0.0) + 0.5 * font, right)
    size = replace(size, width=max(last, LEAST * font))
    about = f"{len(chart.rows)} rows on {len(chart.tasks)} tasks. The table has the numbers."
    return finished(marks, end, size, f"verdicts and asked gaps: {chart.title}", about)


def _cells(row: SuiteRow, chart: Suite, at: tuple[float, float, float], size: Size) -> Iterator[Mark]:
    """The marks of one row; a cell without a result is empty."""
    left, cell, y = at
    for i, (task, outcome) in enumerate(zip(chart.tasks, row.outcomes, strict=True)):
        x = left + i * cell
        title = f"{row.label} on {task}: {outcome.verdict or 'no result'} {outcome.gap}".rstrip()
        if outcome.verdict:
            yield Dot(x + 0.9 * size.font, y, size.radius, outcome.verdict, row.number, title)
            yield Text(x + 1.8 * size.font, y + 0.35 * size.font, outcome.gap, "text", "start", row.number, title)
