"""Panels side by side: a line for each row, its number with limits, what is wanted; ∞ and bounds as such."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import inf, isfinite
from textwrap import wrap

from alignbench.reports.charts.data import Bar, Bars, Panel
from alignbench.reports.charts.drawing.frame import LETTER, Frame, below, finished, headed, heading, tick
from alignbench.reports.charts.drawing.places import Box
from alignbench.reports.charts.looks import look_of
from alignbench.reports.charts.picture import Dot, Mark, Path, Picture, Size, Text, short

LABELS = 0.36  # of the width, for the names of the rows, at most
EDGE = 0.04  # of an axis, free at its ends
ABREAST = 5  # panels
WIDEST = 19  # fonts, a panel
READING = "95 % limits; an end with a stroke is a bound; n/a: no number"


def drawn(chart: Bars, size: Size) -> Picture:
    """The panels, below each other where they are many."""
    marks, end = headed(chart.title, size)
    names = {number: f"{number}  {label}" for number, label in chart.labels.items()}
    longest = max(map(len, names.values()), default=0) * LETTER * size.font + 1.5 * size.font
    left, count = min(LABELS * size.width, longest), min(ABREAST, len(chart.panels))
    letters, wide = int((left - size.font) / (LETTER * size.font)), (size.width - left) / count
    for start in range(0, len(chart.panels), count):
        some = chart.panels[start : start + count]
        heads = [_heads(panel, wide - size.font, size) for panel in some]
        top = end + (max(map(len, heads)) + 0.6) * size.line
        rows = {number: top + (i + 0.5) * size.line for i, number in enumerate(names)}
        marks += [Text(left - size.font, y + 0.35 * size.font, short(names[n], letters), "text", "end", n)
                  for n, y in rows.items()]  # fmt: skip
        for i, (panel, head) in enumerate(zip(some, heads, strict=True)):
            width = min(wide - size.font, WIDEST * size.font)
            box = Box(left + i * wide, top, left + i * wide + width, top + size.line * len(names))
            marks += _panel(panel, head, box, rows, size)
        end = top + size.line * len(names) + 1.6 * size.font
    if size.legend:
        marks.append(Text(0.2 * size.font, end + size.font, READING, "told"))
    told = f"{len(names)} rows in {len(chart.panels)} panels. The table has the numbers."
    return finished(marks, end + size.font, size, f"{', '.join(p.name for p in chart.panels)}: {chart.title}", told)


def _heads(panel: Panel, width: float, size: Size) -> list[str]:
    """The lines above a panel."""
    shown = panel.name if panel.axis.title == panel.axis.key else heading(panel.axis)
    more = [] if panel.wanted is None else [f"wanted {tick(panel.wanted)}"]
    return [*wrap(shown, max(int(width / (LETTER * size.font)), 8)), *more]


def _panel(panel: Panel, head: list[str], box: Box, rows: Mapping[int, float], size: Size) -> Iterator[Mark]:
    axis = panel.axis.padded(EDGE)
    frame = Frame(axis, axis, box)
    for i, line in enumerate(reversed(head)):
        yield Text(box.left, box.top - 0.5 * size.font - i * size.line, line, "axis")
    ups = tuple(((frame.across(t), box.top), (frame.across(t), box.bottom)) for t in axis.ticks)
    yield Path(ups, "grid")
    yield Path((((box.left, box.bottom), (box.right, box.bottom)),), "rail")
    yield from below(axis, frame.across, box, size)
    if panel.wanted is not None:
        x = frame.across(panel.wanted)
        yield Path((((x, box.top), (x, box.bottom)),), "wanted")
    for bar in panel.bars:
        yield from _bar(bar, frame, rows[bar.number], size)
    for row in panel.left_out:
        title = f"{row.label}: {row.reason}"
        yield Text(box.left + 2, rows[row.number] + 0.35 * size.font, "n/a", "axis", "start", row.number, title)


def _bar(bar: Bar, frame: Frame, y: float, size: Size) -> Iterator[Mark]:
    """A value with its limits; of a bound all that it leaves open, with a stroke at its ends; ∞ at the right end."""
    cell, own = bar.cell, (bar.number, f"{bar.label}: {bar.cell.text}")
    if cell.value is not None and not isfinite(cell.value):
        end, anchor = (frame.box.right, "end") if cell.value > 0 else (frame.box.left, "start")
        yield Text(end, y + 0.35 * size.font, "∞" if cell.value > 0 else "−∞", "name", anchor, *own)
        return
    low, high = -inf if cell.low is None else cell.low, inf if cell.high is None else cell.high
    if (cell.low, cell.high) != (None, None) and low < high:
        yield Path((((frame.across(low), y), (frame.across(high), y)),), "whisker", *own)
    if cell.value is not None:
        yield Dot(frame.across(cell.value), y, size.radius, look_of(bar.mark, ""), *own)
        return
    half = 0.4 * size.font
    ends = [frame.across(end) for end in (low, high) if isfinite(end)]
    yield Path(tuple(((x, y - half), (x, y + half)) for x in ends), "whisker", *own)
