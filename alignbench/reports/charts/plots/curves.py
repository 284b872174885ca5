"""Curves one below the other over one number, a line for each family, the base and the ceiling as level lines."""

from __future__ import annotations

from dataclasses import replace
from textwrap import wrap
from typing import Any

from alignbench.reports.charts.axes import Axis
from alignbench.reports.charts.data import Curve, Curves
from alignbench.reports.charts.plots.style import (
    BLACK,
    COLUMN,
    GREEN,
    LETTER,
    LINE,
    PALETTE,
    SHAPES,
    TICK,
    Look,
    altair,
    data,
    heading,
    listed,
    points,
    ruler,
    scale,
    span,
)

READING = "95 % limits"
EDGE = 0.04  # of an axis, free at its ends
WIDTH, HEIGHT = COLUMN - 80, 100
LEVELS = {"base": BLACK, "ceiling": GREEN}


def drawn(chart: Curves) -> Any:
    """An altair chart without its title."""
    names = list(dict.fromkeys(line.name for curve in chart.curves for line in curve.lines))
    looks = {str(i): _look(i) for i in range(len(names))}
    last = len(chart.curves) - 1
    parts = [_curve(curve, chart.x, looks, last=i == last) for i, curve in enumerate(chart.curves)]
    if len(names) > 1:
        parts.append(listed([(str(i), "", name) for i, name in enumerate(names)], looks, WIDTH))
    return altair().vconcat(*parts, spacing=8)


def _look(i: int) -> Look:
    colour = PALETTE[i % len(PALETTE)]
    return Look(SHAPES[(i + i // len(PALETTE)) % len(SHAPES)], colour, colour)


def _curve(curve: Curve, over: Axis, looks: dict[str, Look], *, last: bool) -> Any:
    alt = altair()
    over, curve = over.padded(EDGE), replace(curve, axis=curve.axis.padded(EDGE))
    x = alt.X("x:Q", scale=scale(over), axis=ruler(over, WIDTH // TICK, heading(over) if last else None))
    y = alt.Y(
        "y:Q",
        scale=scale(curve.axis),
        axis=ruler(curve.axis, HEIGHT // LINE, wrap(heading(curve.axis), int(HEIGHT / LETTER))),
    )
    values, limits = [], []
    for i, line in enumerate(curve.lines):
        for stop in line.stops:
            values.append({"x": stop.x, "y": stop.cell.value, "look": str(i)})
            if found := span(stop.cell, curve.axis):
                limits.append({"x": stop.x, "y": found[0], "end": found[1], "look": str(i)})
    colour = alt.Stroke(
        "look:N", scale=alt.Scale(domain=list(looks), range=[k.stroke for k in looks.values()]), legend=None
    )
    layers = [
        *_levels(curve, y),
        alt.Chart(data(limits)).mark_rule(strokeWidth=0.8).encode(x=x, y=y, y2="end:Q", stroke=colour),
        alt.Chart(data(values)).mark_line(strokeWidth=1.2).encode(x=x, y=y, stroke=colour),
        points(values, looks, x=x, y=y),
    ]
    return alt.layer(*layers).properties(width=WIDTH, height=HEIGHT)


def _levels(curve: Curve, y: Any) -> list[Any]:
    """A level line for each row to compare with, and its name at the right end, one above the other where need be."""
    alt, layers, free = altair(), list[Any](), -float(LINE)
    for bar in sorted(curve.beside, key=lambda bar: bar.cell.value or 0.0):
        level = alt.Chart(data([{"y": bar.cell.value, "name": bar.mark}])).encode(y=y)
        colour, at = LEVELS[bar.mark], curve.axis.place(bar.cell.value or 0.0) * HEIGHT
        free = max(at, free + LINE)
        layers.append(level.mark_rule(color=colour, strokeWidth=0.8, strokeDash=[4, 2]))
        name = level.mark_text(align="left", dx=3, dy=at - free, color=colour)
        layers.append(name.encode(x=alt.value(WIDTH), text="name:N"))
    return layers
