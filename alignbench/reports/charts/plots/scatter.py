"""The trade-off: numbered marks with error bars, the front joined by a line, and beside them who they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from alignbench.reports.charts.data import Point, Scatter
from alignbench.reports.charts.plots.labels import Box, placed
from alignbench.reports.charts.plots.style import (
    BLUE,
    COLUMN,
    GREY,
    LOOKS,
    PAGE,
    TICK,
    altair,
    data,
    heading,
    listed,
    points,
    rounded,
    ruler,
    scale,
    span,
)

READING = "95 % limits; blue: on the Pareto front, none is better in both"
EDGE = 0.03  # of an axis, free at its ends
WIDTH, HEIGHT = COLUMN - 45, 200
BELOW = 10  # so many generators are listed below the plot, more beside it


def drawn(chart: Scatter) -> Any:
    """An altair chart without its title."""
    alt = altair()
    chart = replace(chart, x=chart.x.padded(EDGE), y=chart.y.padded(EDGE))
    below = len(chart.points) <= BELOW
    entries = [(_look(p), str(p.number), p.label) for p in sorted(chart.points, key=lambda p: p.number)]
    beside = listed(entries, LOOKS, WIDTH if below else PAGE - COLUMN - 20)
    return (alt.vconcat if below else alt.hconcat)(_plot(chart), beside, spacing=10)


def _plot(chart: Scatter) -> Any:
    alt = altair()
    x = alt.X("x:Q", scale=scale(chart.x), axis=ruler(chart.x, WIDTH // TICK, heading(chart.x)))
    y = alt.Y("y:Q", scale=scale(chart.y), axis=ruler(chart.y, HEIGHT // TICK, heading(chart.y)))
    values = [{"x": p.x.value, "y": p.y.value, "look": _look(p), "label": p.label} for p in chart.points]
    front = alt.Chart(data({"x": p.x.value, "y": p.y.value} for p in chart.front))
    layers = [
        front.mark_line(color=BLUE, strokeWidth=0.8, strokeDash=[3, 2]).encode(x=x, y=y),
        *_error_bars(chart, x, y),
        points(values, LOOKS, x=x, y=y),
        *_numbers(chart, x, y),
    ]
    return alt.layer(*layers).properties(width=WIDTH, height=HEIGHT)


def _look(point: Point) -> str:
    return point.mark or ("front" if point.front else "")


def _error_bars(chart: Scatter, x: Any, y: Any) -> list[Any]:
    alt = altair()
    across, up = [], []
    for p in chart.points:
        if limits := span(p.x, chart.x):
            across.append({"x": limits[0], "end": limits[1], "y": p.y.value})
        if limits := span(p.y, chart.y):
            up.append({"y": limits[0], "end": limits[1], "x": p.x.value})
    how = {"color": GREY, "strokeWidth": 0.6}
    return [
        alt.Chart(data(across)).mark_rule(**how).encode(x=x, x2="end:Q", y=y),
        alt.Chart(data(up)).mark_rule(**how).encode(x=x, y=y, y2="end:Q"),
    ]


def _numbers(chart: Scatter, x: Any, y: Any) -> list[Any]:
    """The numbers of the points over a white edge, with a line where they had to go far."""
    alt = altair()
    width, height = WIDTH, HEIGHT

    def at(fx: float | None, fy: float | None) -> tuple[float, float]:
        return chart.x.place(fx or 0.0) * width, chart.y.place(fy or 0.0) * height

    marks = [(*at(p.x.value, p.y.value), str(p.number)) for p in chart.points]
    labels = placed(marks, _bars(chart, at), width, height)
    values = [
        {"text": t.text, "x": rounded(chart.x.value(t.x / width)), "y": rounded(chart.y.value(t.y / height)),
         "of_x": rounded(chart.x.value(t.of_x / width)), "of_y": rounded(chart.y.value(t.of_y / height)), "far": t.far}
        for t in labels
    ]  # fmt: skip
    leaders = alt.Chart(data(v for v in values if v["far"])).mark_rule(strokeWidth=0.4, color=GREY)
    text = alt.Chart(data(values)).encode(x=x, y=y, text="text:N")
    return [
        leaders.encode(x=x, y=y, x2="of_x:Q", y2="of_y:Q"),
        text.mark_text(stroke="white", strokeWidth=2, strokeJoin="round"),
        text.mark_text(),
    ]


def _bars(chart: Scatter, at: Any) -> Sequence[Box]:
    """The boxes of all error bars, in points of the plot."""
    found: list[Box] = []
    for p in chart.points:
        if limits := span(p.x, chart.x):
            found.append((*at(limits[0], p.y.value), *at(limits[1], p.y.value)))
        if limits := span(p.y, chart.y):
            found.append((*at(p.x.value, limits[0]), *at(p.x.value, limits[1])))
    return found
