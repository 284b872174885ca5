"""How marks of charts look: a shape, a colour on white and one on near-black for each; no other colour is drawn.

Verdicts are told by word, shape and colour (Okabe and Ito's, never red against green); a fill too pale for its
background has an edge that is not. What only decorates may be paler.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple


class Colour(NamedTuple):
    """One colour on white, and on near-black."""

    light: str
    dark: str


PAPER = Colour("#ffffff", "#14161a")
INK, QUIET, PALE = Colour("#14161a", "#f0f1f4"), Colour("#5a5d66", "#a6aab6"), Colour("#e3e5ea", "#2d3037")
GREY = Colour("#767676", "#9aa0ac")
BLUE, ORANGE, SKY = Colour("#0072b2", "#0072b2"), Colour("#e69f00", "#e69f00"), Colour("#56b4e9", "#56b4e9")
RED, PINK = Colour("#d55e00", "#d55e00"), Colour("#cc79a7", "#cc79a7")


@dataclass(frozen=True)
class Look:
    """A line, an outline or a text in the colour `edge`; of a shape or an area also what fills it."""

    edge: Colour
    fill: Colour | None = None
    shape: str = ""
    width: float = 1.0
    dash: str = ""
    size: float = 1.0  # of a shape, in usual ones
    bold: bool = False
    decor: bool = False  # says nothing: need not be seen


VERDICTS: Mapping[str, Look] = {
    "better": Look(BLUE, BLUE, "circle"),
    "trade": Look(Colour("#a87400", "#e69f00"), ORANGE, "diamond"),
    "same": Look(Colour("#2b86ba", "#56b4e9"), SKY, "square"),
    "unclear": Look(GREY, PAPER, "circle", width=1.4),
    "worse": Look(RED, RED, "triangle-down"),
    "asked only": Look(PINK, PINK, "triangle-up"),
    "—": Look(GREY, None, "cross", width=1.4, size=0.9),
    "base": Look(INK, INK, "square", size=1.3),
}
"""Verdict of a row, and the base → its mark."""
LINES = (
    VERDICTS["better"], VERDICTS["trade"], replace(VERDICTS["asked only"], dash="5 2"),
    replace(VERDICTS["same"], dash="2 2"), replace(VERDICTS["worse"], dash="5 2 1 2"),
    Look(INK, PAPER, "circle", dash="1 2"),
)  # fmt: skip
"""Families of rows in curves."""
LOOKS: Mapping[str, Look] = {
    **VERDICTS,
    **{f"line {i}": look for i, look in enumerate(LINES, 1)},
    "row": Look(GREY, GREY, "circle"),  # without a verdict
    "ceiling": Look(INK, PAPER, "star", size=1.3),  # draws of p
    "axis": Look(QUIET), "text": Look(INK), "name": Look(INK, bold=True), "told": Look(QUIET),
    "rail": Look(GREY, width=0.8), "whisker": Look(GREY, width=0.7), "leader": Look(GREY, width=0.4),
    "arrow": Look(INK, width=1.0), "front": Look(QUIET, width=0.9, dash="3 2"),
    "level": Look(INK, width=0.8, dash="4 2"),
    "as far": Look(BLUE, width=1.0), "wanted": Look(RED, width=1.0, dash="3 2"),
    "grid": Look(PALE, width=0.6, decor=True),
    "nearer": Look(Colour("#e8f1f8", "#17242f"), Colour("#e8f1f8", "#17242f"), decor=True),
}  # fmt: skip
"""Name of a look, which marks of pictures bear → the look."""


def entries_of(looks: Iterable[str]) -> list[tuple[str, str]]:
    """(look, what it says) of the verdicts, the base and draws of p among some looks: a legend."""
    words = {**{word: word for word in VERDICTS}, "—": "not known", "ceiling": "draws of p"}
    shown = set(looks)
    return [(look, word) for look, word in words.items() if look in shown]


def line_look(i: int) -> str:
    """The look of the family at place `i`."""
    return f"line {i % len(LINES) + 1}"


def look_of(mark: str, verdict: str) -> str:
    """The look of a row by its mark in the table and its verdict."""
    if mark in ("base", "ceiling"):
        return mark
    return verdict if verdict in VERDICTS else "row"
