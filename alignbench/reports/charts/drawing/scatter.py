"""One number of each row against another, with 95 % limits; the front is joined by a line."""

from __future__ import annotations

from dataclasses import replace

from alignbench.reports.charts.data import Point, Scatter
from alignbench.reports.charts.drawing.frame import (
    NAMES,
    Frame,
    Named,
    axes,
    finished,
    headed,
    legend,
    listed,
    points,
    room_of,
    whiskers,
)
from alignbench.reports.charts.drawing.places import Box
from alignbench.reports.charts.looks import entries_of, look_of
from alignbench.reports.charts.picture import Mark, Path, Picture, Size, short

EDGE = 0.03  # of an axis, free at its ends


def drawn(chart: Scatter, size: Size) -> Picture:
    """The plot; alone, what its numbers stand for is listed below it."""
    title, end = headed(chart.title, size)
    chart = replace(chart, x=chart.x.padded(EDGE), y=chart.y.padded(EDGE))
    top, left = end + 2.2 * size.font, room_of(chart.y, size)
    frame = Frame(chart.x, chart.y, Box(left, top, size.width - 1.2 * size.font, top + size.height))
    marks: list[Mark] = [*title, *axes(frame, size)]
    if len(chart.front) > 1:
        spots = tuple((frame.across(p.x.value or 0.0), frame.down(p.y.value or 0.0)) for p in chart.front)
        marks.append(Path((spots,), "front"))
    box = frame.box
    inside = Box(box.left, box.top - 0.6 * size.font, box.right + 1.2 * size.font, box.bottom)
    marks += points([_named(p, frame) for p in chart.points], inside, size)
    end = box.bottom + 3.2 * size.font
    if size.legend:
        more, end = legend(entries_of(look_of(p.mark, p.verdict) for p in chart.points), end, size)
        marks += more
    if size.alone:
        others = [(p.number, look_of(p.mark, p.verdict), p.label) for p in chart.points if not _is_named(p)]
        more, end = listed(sorted(others), end + 0.3 * size.font, size)
        marks += more
    told = f"{len(chart.points)} rows; {len(chart.front)} on the Pareto front. The table has the numbers."
    return finished(marks, end, size, f"{chart.y.title} against {chart.x.title}: {chart.title}", told)


def _is_named(point: Point) -> bool:
    return point.front or point.mark == "base"


def _named(point: Point, frame: Frame) -> Named:
    spot = frame.across(point.x.value or 0.0), frame.down(point.y.value or 0.0)
    title = f"{point.number} {point.label}: x {point.x.text}, y {point.y.text}"
    name = "base" if point.label.endswith("(base)") else short(point.label, NAMES)
    text = name if _is_named(point) else str(point.number)
    look, parts = look_of(point.mark, point.verdict), whiskers(frame, spot, point.x, point.y)
    return Named(spot, text, look, point.number, title, point.front, parts)
