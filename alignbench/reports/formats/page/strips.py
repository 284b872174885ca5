"""Bars in the cells of a table, beside their numbers: from 0 to the value, its 95 % limits, what is wanted.

A page has thousands, so that they are as short as they can be: whole units, and what they have in common is in the
style sheet. They are hidden from screen readers, which read the number.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf, isfinite

from markupsafe import Markup

from alignbench.reports.charts.axes import Axis
from alignbench.reports.charts.data import Bar, Panel
from alignbench.reports.table.board import Cell

WIDTH = 120
STRIP = Markup('<svg aria-hidden="true">{}</svg>')


def strip(panel: Panel, bar: Bar) -> Markup:
    """The bar of one cell."""
    parts = [*_bar(panel.axis, bar.cell), *_limits(panel.axis, bar.cell)]
    if panel.wanted is not None:
        parts.append(Markup('<path class="w" d="M{} 0V12"/>').format(_at(panel.axis, panel.wanted)))
    return STRIP.format(Markup("").join(parts))


def scale(panel: Panel) -> Markup:
    """The ends of a panel's axis, above its strips."""
    axis = panel.axis
    low, high = (f"{end:.3g}" for end in (axis.low, axis.high))
    return STRIP.format(Markup('<text y="10">{}</text><text x="{}" y="10">{}</text>').format(low, WIDTH, high))


def _at(axis: Axis, value: float) -> int:
    """Where a value stands, in units; what is beyond the axis stands at its end."""
    return round(WIDTH * min(max(axis.place(value) if isfinite(value) else value, 0.0), 1.0))


def _bar(axis: Axis, cell: Cell) -> Iterator[Markup]:
    """From 0 to the value."""
    if cell.value is not None:
        ends = _at(axis, 0.0), _at(axis, cell.value)
        kind = Markup("") if isfinite(cell.value) else Markup(' class="o"')
        yield Markup('<rect{} x="{}" width="{}"/>').format(kind, min(ends), max(ends) - min(ends))


def _limits(axis: Axis, cell: Cell) -> Iterator[Markup]:
    """A line between the limits; without one, to the end of the axis."""
    known = cell.low is not None or cell.high is not None
    if known and (cell.value is None or isfinite(cell.value)):
        low = _at(axis, -inf if cell.low is None else cell.low)
        yield Markup('<path d="M{} 6H{}"/>').format(low, _at(axis, inf if cell.high is None else cell.high))
