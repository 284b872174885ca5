"""How all plots look: sizes in points, colours that colour-blind people can tell apart, axes, and lists of marks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf, isinf
from types import ModuleType
from typing import Any, NamedTuple

from alignbench.errors import UsageError
from alignbench.reports.charts.axes import Axis
from alignbench.reports.table.board import ARROWS, Cell

COLUMN = 240  # points, the width of a column of a paper; a pixel of Vega is a point
PAGE = 504  # its two columns
FONT = 8  # points
LETTER = 4.4  # points, a little more than the mean width of a letter at that size
TICK = 18  # points for the number at a tick below a plot
LINE = 11  # points from line to line
SANS = "Liberation Sans, Arial, Helvetica, DejaVu Sans, sans-serif"
BLACK, BLUE, GREEN, RED, GREY = "#000000", "#0072B2", "#009E73", "#D55E00", "#767676"
PALETTE = (BLUE, RED, GREEN, "#CC79A7", "#E69F00", "#56B4E9", BLACK)
"""Okabe and Ito's colours, but for the yellow, which paper swallows."""
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")


class Look(NamedTuple):
    """How a mark is drawn: shapes tell kinds apart where colours do not."""

    shape: str
    fill: str
    stroke: str


LOOKS = {
    "front": Look("circle", BLUE, BLUE),
    "": Look("circle", "white", GREY),
    "base": Look("square", BLACK, BLACK),
    "baseline": Look("square", "white", BLACK),
    "ceiling": Look("diamond", GREEN, GREEN),
    "constant": Look("cross", "white", BLACK),
    "copy": Look("triangle-up", "white", BLACK),
}
"""Mark of a row (or that it is on the front) → how it is drawn."""


def altair() -> ModuleType:
    """The library; raises UsageError with what to install where it is absent."""
    try:
        import altair
        import vl_convert  # noqa: F401 (without it nothing can be saved)
    except ImportError:
        raise UsageError("plots need altair and vl-convert-python: pip install 'alignbench[plots]'") from None
    return altair


def data(values: Iterable[dict[str, Any]]) -> Any:
    """Records as data that stand in the chart itself."""
    return altair().InlineData(values=list(values))


def channels(looks: dict[str, Look]) -> dict[str, Any]:
    """Shape, fill and stroke of marks by their field `look`; the same in all parts of a plot."""
    alt, names = altair(), list(looks)

    def scale(i: int) -> Any:
        return alt.Scale(domain=names, range=[look[i] for look in looks.values()])

    return {
        "shape": alt.Shape("look:N", scale=scale(0), legend=None),
        "fill": alt.Fill("look:N", scale=scale(1), legend=None),
        "stroke": alt.Stroke("look:N", scale=scale(2), legend=None),
    }


def points(values: Sequence[dict[str, Any]], looks: dict[str, Look], **where: Any) -> Any:
    """Marks at `where`."""
    return altair().Chart(data(values)).mark_point(size=26, strokeWidth=1, opacity=1).encode(**where, **channels(looks))


def rounded(value: float) -> float:
    """To six digits, more than ink shows, so that a specification is the same on every machine."""
    return float(f"{value:.6g}")


def scale(axis: Axis) -> Any:
    """The scale that `Axis.place` describes."""
    kind = {"type": "linear"} if axis.linear_below is None else {"type": "symlog", "constant": axis.linear_below}
    return altair().Scale(domain=[rounded(axis.low), rounded(axis.high)], nice=False, zero=False, **kind)


def ruler(axis: Axis, most: int, title: str | list[str] | None) -> Any:
    """At most so many of the axis's ticks, and a title."""
    far = max(map(abs, axis.ticks), default=0.0)
    return altair().Axis(
        values=_with_room(axis, most), format="~s" if far >= 1e4 or far < 1e-3 else "~r", labelFlush=False,
        labelOverlap=False, title=title,
    )  # fmt: skip


def _with_room(axis: Axis, most: int) -> list[float]:
    """At most so many of the ticks (but two), the first and the last among them, evenly where the axis is linear."""
    gaps = len(axis.ticks) - 1
    if gaps < most:
        return list(axis.ticks)
    if axis.linear_below is None:
        most = next((n for n in range(most, 2, -1) if gaps % (n - 1) == 0), 2)
    wide = max(most - 1, 1)
    return [axis.ticks[round(i * gaps / wide)] for i in range(wide + 1)]


def heading(axis: Axis) -> str:
    """The title of an axis with an arrow towards better; ‖ as two bars, since common fonts lack it."""
    return " ".join(filter(None, (axis.title, ARROWS.get(axis.better, "")))).replace("‖", "||")


def span(cell: Cell, axis: Axis) -> tuple[float, float] | None:
    """From where to where the interval is drawn; None where there is none."""
    if cell.low is None and cell.high is None:
        return None
    middle = axis.low if cell.value is None else cell.value
    low, high = middle if cell.low is None else cell.low, middle if cell.high is None else cell.high
    return axis.low if low == -inf else low, axis.high if isinf(high) else high


def listed(entries: Sequence[tuple[str, str, str]], looks: dict[str, Look], width: float) -> Any:
    """A list of (look, number, label) beside a plot: what its marks and numbers stand for."""
    alt = altair()
    letters = int((width - 26) / LETTER)
    values = [
        {"row": i, "look": k, "number": n, "label": short(label, letters)} for i, (k, n, label) in enumerate(entries)
    ]
    y = alt.Y("row:O", axis=None)
    texts = alt.Chart(data(values))
    numbers = texts.mark_text(align="right", baseline="middle", x=22).encode(y=y, text="number:N")
    labels = texts.mark_text(align="left", baseline="middle", x=26).encode(y=y, text="label:N")
    marks = points(values, looks, x=alt.value(4), y=y)
    return alt.layer(marks, numbers, labels).properties(width=width, height=LINE * len(values))


def short(text: str, letters: int) -> str:
    """At most so many letters of a text: its beginning and its end."""
    if len(text) <= letters:
        return text
    tail = letters // 3
    return f"{text[: letters - tail - 1].rstrip(' …')}…{text[-tail:].lstrip(' …')}"


def finished(chart: Any, title: str, subtitle: str) -> Any:
    """The chart with its titles, fonts and thin lines."""
    alt = altair()
    text = {"labelFontSize": FONT, "titleFontSize": FONT, "titleFontWeight": "normal"}
    return (
        chart.properties(
            title=alt.TitleParams(
                title,
                subtitle=subtitle,
                fontSize=FONT + 1,
                fontWeight="bold",
                subtitleFontSize=FONT,
                anchor="start",
                limit=PAGE,
            )
        )
        .configure(font=SANS, background="white", padding=4)
        .configure_view(stroke=None)
        .configure_axis(**text, domainColor=GREY, tickColor=GREY, grid=True, gridColor="#eeeeee", tickSize=3)
        .configure_text(fontSize=FONT, color=BLACK)
        .configure_title(fontSize=FONT, fontWeight="normal")
    )
