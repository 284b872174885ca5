"""Curves over one number, a line for each family; the base, draws of p and what is wanted as level lines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby
from math import isfinite

from alignbench.reports.charts.data import Curve, Curves, Line, Stop
from alignbench.reports.charts.drawing.frame import (
    Frame,
    arrow,
    axes,
    finished,
    headed,
    legend,
    room_of,
    whiskers,
)
from alignbench.reports.charts.drawing.places import Box
from alignbench.reports.charts.looks import line_look
from alignbench.reports.charts.picture import COLUMN, XY, Dot, Mark, Path, Picture, Size, Text, short, text_width
from alignbench.reports.table.board import Cell

EDGE = 0.04  # of an axis, free at its ends
LETTERS = 40  # of a row's name beside its number
SHARE = 0.6
"""Of the usual height, each of several curves."""


def drawn(chart: Curves, size: Size) -> Picture:
    """The curves, on a page two side by side; alone, which family is which is told below them."""
    marks, end = headed(chart.title, size)
    names = names_of(chart)
    abreast = 1 if len(chart.curves) == 1 else max(1, int(size.width // COLUMN.width))
    left, right = _margins(chart, size)
    tall, wide = size.height * (SHARE if len(chart.curves) > 1 else 1.0), size.width / abreast
    for start in range(0, len(chart.curves), abreast):
        top, lowest = end + 2.4 * size.font, False
        for i, curve in enumerate(chart.curves[start : start + abreast]):
            box = Box(i * wide + left, top, (i + 1) * wide - right, top + tall)
            last = start + i + abreast >= len(chart.curves)
            frame = Frame(chart.x.padded(EDGE), curve.axis.padded(EDGE), box)
            marks += [*axes(frame, size, across=last, left=i * wide), *_levels(curve, frame, size)]
            marks += [mark for line in curve.lines for mark in _line(frame, names.index(line.name), line, size)]
            lowest = lowest or last
        end = top + tall + (2.9 if lowest else 0.3) * size.font
    if len(names) > 1 and size.legend:
        letters = int(size.width / (0.6 * size.font)) - 4
        more, end = legend([(line_look(i), short(name, letters)) for i, name in enumerate(names)], end, size)
        marks += more
    told = f"{len(names)} lines in {len(chart.curves)} panels. " if len(chart.curves) > 1 else ""
    what = ", ".join(curve.axis.title for curve in chart.curves)
    about = f"{what} over {chart.x.title}: {chart.title}"
    return finished(marks, end, size, about, f"{told}The table has the numbers.")


def picture_of(chart: Curves, curve: Curve, size: Size) -> Picture:
    """One of the curves alone, whose lines look as among all."""
    return drawn(replace(chart, curves=(curve,)), size)


def names_of(chart: Curves) -> list[str]:
    """The families, in the order of their looks."""
    return list(dict.fromkeys(line.name for curve in chart.curves for line in curve.lines))


def _margins(chart: Curves, size: Size) -> tuple[float, float]:
    """Left and right of a curve, for its numbers and for the names of its levels."""
    words = [word for curve in chart.curves for _, word, _, _ in _told(curve)]
    right = max((text_width(word, size.font) for word in words), default=0.0) + size.font
    return max(room_of(curve.axis, size) for curve in chart.curves), right


Level = tuple[float, str, str, tuple[int | None, str]]


def _told(curve: Curve) -> list[Level]:
    """(value, name, look, whose) of each level line."""
    found: list[Level] = [
        (b.cell.value or 0.0, b.mark, "level", (b.number, f"{b.label}: {b.cell.text}")) for b in curve.beside
    ]
    return found if curve.wanted is None else [*found, (curve.wanted, "wanted", "wanted", (None, ""))]


def _levels(curve: Curve, frame: Frame, size: Size) -> Iterator[Mark]:
    """A level line for each number to compare with, and its name at the right, one above the other where need be."""
    box, free = frame.box, frame.box.bottom + 2 * size.font
    for value, name, look, own in sorted(_told(curve), key=lambda level: level[0]):
        y = frame.down(value)
        free = min(y, free - size.font)
        yield Path((((box.left, y), (box.right, y)),), look, *own)
        yield Text(box.right + 0.4 * size.font, free + 0.35 * size.font, name, "told", "start", *own)


def _line(frame: Frame, place: int, line: Line, size: Size) -> Iterator[Mark]:
    """The lines between neighbours with finite numbers, the limits of these numbers, then the stops."""
    look = line_look(place)
    runs = [tuple(_spot(frame, stop) for stop in run) for finite, run in groupby(line.stops, _is_finite) if finite]
    if parts := tuple(run for run in runs if len(run) > 1):
        yield Path(parts, look)
    limits = [whiskers(frame, _spot(frame, stop), Cell(), stop.cell) for stop in line.stops if _is_finite(stop)]
    if bars := tuple(bar for some in limits for bar in some):
        yield Path(bars, "whisker")
    for stop in line.stops:
        yield from _stop(frame, stop, look, size)


def _title(stop: Stop) -> str:
    return f"{short(stop.label, LETTERS)}: {stop.cell.text}"


def _is_finite(stop: Stop) -> bool:
    return stop.cell.value is not None and isfinite(stop.cell.value)


def _spot(frame: Frame, stop: Stop) -> XY:
    return frame.across(stop.x), frame.down(stop.cell.value or 0.0)


def _stop(frame: Frame, stop: Stop, look: str, size: Size) -> Iterator[Mark]:
    """A dot at a number; ∞ at the end of the axis; of limits alone what they leave open, see `_bound`."""
    cell, own = stop.cell, (None, _title(stop))
    if cell.value is None:
        yield from _bound(frame, stop, look, size)
    elif not isfinite(cell.value):
        y = frame.box.top + 0.7 * size.font if cell.value > 0 else frame.box.bottom
        yield Text(frame.across(stop.x), y, "∞" if cell.value > 0 else "−∞", "name", "middle", *own)
    else:
        yield Dot(*_spot(frame, stop), size.radius, look, *own)


def _bound(frame: Frame, stop: Stop, look: str, size: Size) -> Iterator[Mark]:
    """A dot at the limit and an arrow to where the number may lie; between two limits a line with a stroke at each."""
    x, half, own = frame.across(stop.x), 0.4 * size.font, (None, _title(stop))
    ends = [(limit, up) for limit, up in ((stop.cell.low, -1.0), (stop.cell.high, 1.0)) if limit is not None]
    known = [(frame.down(limit), up) for limit, up in ends if isfinite(limit)]
    if len(known) == 1:
        [(y, up)] = known
        yield arrow((x, y), (0.0, up), size, *own)
        yield Dot(x, y, size.radius, look, *own)
    else:
        strokes = [((x - half, y), (x + half, y)) for y, _ in known]
        yield Path((((x, known[0][0]), (x, known[1][0])), *strokes), "whisker", *own)
