"""Panels side by side: a line for each row, its number with limits, what is wanted; ∞ and bounds as such."""

from __future__ import annotations

from dataclasses import replace
from math import isfinite
from textwrap import wrap
from typing import Any

from alignbench.reports.charts.data import Bars, Panel
from alignbench.reports.charts.plots.style import (
    FONT,
    GREY,
    LETTER,
    LINE,
    LOOKS,
    PAGE,
    RED,
    TICK,
    altair,
    data,
    heading,
    points,
    ruler,
    scale,
    short,
    span,
)

LABELS = 170  # points for the names of the rows
READING = "95 % limits; an end with a stroke is a bound; n/a: no number"
EDGE = 0.04  # of an axis, free at its ends
ABREAST = 5  # panels
WIDEST = 150  # a panel


def drawn(chart: Bars) -> Any:
    """An altair chart without its title."""
    names = {number: f"{number}  {short(label, int(LABELS / LETTER) - 4)}" for number, label in chart.labels.items()}
    alt, count = altair(), min(ABREAST, len(chart.panels))
    width = min(WIDEST, (PAGE - LABELS) / count - 12)
    panels = [_panel(panel, names, width, first=i % count == 0) for i, panel in enumerate(chart.panels)]
    rows = [alt.hconcat(*panels[i : i + count], spacing=12) for i in range(0, len(panels), count)]
    return alt.vconcat(*rows, spacing=12)


def _panel(panel: Panel, names: dict[int, str], width: float, *, first: bool) -> Any:
    alt = altair()
    panel = replace(panel, axis=panel.axis.padded(EDGE))
    named = alt.Axis(title=None, labels=first, labelLimit=LABELS, ticks=False, domain=False, labelPadding=6)
    y = alt.Y("row:N", scale=alt.Scale(domain=list(names.values())), axis=named)
    x = alt.X("x:Q", scale=scale(panel.axis), axis=ruler(panel.axis, int(width / TICK), None))
    layers = [*_wanted(panel, x), *_limits(panel, names, x, y), *_marks(panel, names, x, y), *_words(panel, names, y)]
    title = alt.TitleParams(_title(panel, width), fontSize=FONT, fontWeight="normal", offset=4)
    return alt.layer(*layers).properties(width=width, height=LINE * len(names), title=title)


def _title(panel: Panel, width: float) -> list[str]:
    """The lines above a panel."""
    shown = panel.name if panel.axis.title == panel.axis.key else heading(panel.axis)
    return [*wrap(shown, int(width / LETTER)), *([] if panel.wanted is None else [f"dashed: {panel.wanted:g} wanted"])]


def _wanted(panel: Panel, x: Any) -> list[Any]:
    if panel.wanted is None:
        return []
    rule = altair().Chart(data([{"x": panel.wanted}])).mark_rule(color=RED, strokeWidth=1, strokeDash=[3, 2])
    return [rule.encode(x=x)]


def _limits(panel: Panel, names: dict[int, str], x: Any, y: Any) -> list[Any]:
    """Intervals; of a bound, all that it leaves open."""
    values = []
    for bar in panel.bars:
        cell, axis = bar.cell, panel.axis
        limits = span(cell, axis) if cell.value is not None else (
            axis.low if cell.low is None else cell.low, axis.high if cell.high is None else cell.high
        )  # fmt: skip
        if limits and (cell.value is None or isfinite(cell.value)):
            values.append({"row": names[bar.number], "x": limits[0], "end": limits[1], "bound": cell.value is None})
    rules = altair().Chart(data(values)).mark_rule(color=GREY).encode(x=x, x2="end:Q", y=y)
    return [rules]


def _marks(panel: Panel, names: dict[int, str], x: Any, y: Any) -> list[Any]:
    """Values; at the finite ends of a bound a stroke."""
    known = [b for b in panel.bars if b.cell.value is not None and isfinite(b.cell.value)]
    values = [{"row": names[b.number], "x": b.cell.value, "look": b.mark} for b in known]
    ends = [
        {"row": names[b.number], "x": end} for b in panel.bars if b.cell.value is None
        for end in (b.cell.low, b.cell.high) if end is not None and isfinite(end)
    ]  # fmt: skip
    strokes = altair().Chart(data(ends)).mark_tick(color=GREY, thickness=1, size=7).encode(x=x, y=y)
    return [strokes, points(values, LOOKS, x=x, y=y)]


def _words(panel: Panel, names: dict[int, str], y: Any) -> list[Any]:
    """∞ at the right end; "n/a" where a row has no number (a dash would look like an interval)."""
    alt = altair()
    infinite = [b for b in panel.bars if b.cell.value is not None and not isfinite(b.cell.value)]
    absent = (row.number for row in panel.left_out)
    left = alt.Chart(data({"row": names[n]} for n in absent)).mark_text(text="n/a", align="left", color=GREY)
    right = alt.Chart(data({"row": names[b.number]} for b in infinite)).mark_text(text="∞", align="right", color=RED)
    return [left.encode(x=alt.value(2), y=y), right.encode(x=alt.value("width"), y=y)]
