"""Curves one below the other over one number, a line for each family, the base and the ceiling as level lines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from alignbench.reports.charts.data import Curve, Curves, Line
from alignbench.reports.charts.drawing.frame import (
    Frame,
    axes,
    finished,
    headed,
    legend,
    room_of,
    whiskers,
)
from alignbench.reports.charts.drawing.places import Box
from alignbench.reports.charts.looks import line_look
from alignbench.reports.charts.picture import Dot, Mark, Path, Picture, Size, Text, short, text_width
from alignbench.reports.table.board import Cell

EDGE = 0.04  # of an axis, free at its ends
SHARE = 0.6
"""Of the usual height, each of several curves."""


def drawn(chart: Curves, size: Size) -> Picture:
    """The curves; alone, which family is which is told below them."""
    marks, end = headed(chart.title, size)
    names = list(dict.fromkeys(line.name for curve in chart.curves for line in curve.lines))
    left = max(room_of(curve.axis, size) for curve in chart.curves)
    right = max((text_width(b.mark, size.font) for c in chart.curves for b in c.beside), default=0.0) + size.font
    tall = size.height * (SHARE if len(chart.curves) > 1 else 1.0)
    for curve in chart.curves:
        top = end + 2.4 * size.font
        frame = Frame(chart.x.padded(EDGE), curve.axis.padded(EDGE), Box(left, top, size.width - right, top + tall))
        last = curve is chart.curves[-1]
        marks += [*axes(frame, size, across=last), *_levels(curve, frame, size)]
        marks += [mark for line in curve.lines for mark in _line(frame, names.index(line.name), line, size)]
        end = top + tall + (2.9 * size.font if last else 0.3 * size.font)
    if len(names) > 1 and size.legend:
        letters = int(size.width / (0.6 * size.font)) - 4
        more, end = legend([(line_look(i), short(name, letters)) for i, name in enumerate(names)], end, size)
        marks += more
    told = f"{len(names)} lines in {len(chart.curves)} panels. The table has the numbers."
    what = ", ".join(curve.axis.title for curve in chart.curves)
    return finished(marks, end, size, f"{what} over {chart.x.title}: {chart.title}", told)


def picture_of(chart: Curves, curve: Curve, size: Size) -> Picture:
    """One of the curves alone."""
    return drawn(replace(chart, curves=(curve,)), size)


def _levels(curve: Curve, frame: Frame, size: Size) -> Iterator[Mark]:
    """A level line for each row to compare with, and its name at the right end, one above the other where need be."""
    box, free = frame.box, frame.box.bottom + 2 * size.font
    for bar in sorted(curve.beside, key=lambda bar: bar.cell.value or 0.0):
        y, own = frame.down(bar.cell.value or 0.0), (bar.number, f"{bar.label}: {bar.cell.text}")
        free = min(y, free - size.font)
        yield Path((((box.left, y), (box.right, y)),), "level", *own)
        yield Text(box.right + 0.4 * size.font, free + 0.35 * size.font, bar.mark, "told", "start", *own)


def _line(frame: Frame, place: int, line: Line, size: Size) -> Iterator[Mark]:
    """The lines between the stops of a family, then the stops with their limits."""
    look = line_look(place)
    spots = [(frame.across(stop.x), frame.down(stop.cell.value or 0.0)) for stop in line.stops]
    if len(spots) > 1:
        yield Path((tuple(spots),), look)
    for stop, spot in zip(line.stops, spots, strict=True):
        title = f"{stop.label}: {stop.cell.text}"
        if parts := whiskers(frame, spot, Cell(), stop.cell):
            yield Path(parts, "whisker", None, title)
        yield Dot(*spot, size.radius, look, None, title)
