"""A picture: flat marks in units (1/72 inch on paper, a pixel on a page), x to the right and y down. Pure data."""

from __future__ import annotations

from dataclasses import dataclass

XY = tuple[float, float]
NARROW, WIDE = frozenset("iljtfr.,:;|!'’()[]/ ·"), frozenset("mwMWABCDEGHKNOPQRUVXY%@—∞→‖&")


@dataclass(frozen=True)
class Path:
    """Lines, each through its points."""

    parts: tuple[tuple[XY, ...], ...]
    look: str
    row: int | None = None
    title: str = ""


@dataclass(frozen=True)
class Area:
    """What is inside of its corners."""

    corners: tuple[XY, ...]
    look: str
    row: int | None = None
    title: str = ""


@dataclass(frozen=True)
class Dot:
    """The shape of its look around a point, which reaches `radius` far."""

    x: float
    y: float
    radius: float
    look: str
    row: int | None = None
    title: str = ""


@dataclass(frozen=True)
class Text:
    """A line of text that starts, ends or has its middle at x, on the baseline y, turned by degrees around there."""

    x: float
    y: float
    text: str
    look: str
    anchor: str = "start"  # start, middle, end
    row: int | None = None
    title: str = ""
    turn: float = 0.0


Mark = Path | Area | Dot | Text


@dataclass(frozen=True)
class Picture:
    """What is drawn, with a name and a description for those who do not see it; `row` of marks is a table's row."""

    width: float
    height: float
    title: str
    description: str
    marks: tuple[Mark, ...]
    font: float


@dataclass(frozen=True)
class Size:
    """How large a chart is drawn: the whole's width, the height of what is between the axes, and the text."""

    width: float
    height: float
    font: float
    legend: bool = True  # of the marks
    alone: bool = False  # with a title and a list of names: no table stands beside it

    @property
    def radius(self) -> float:
        """How far a mark reaches."""
        return 0.36 * self.font

    @property
    def line(self) -> float:
        """From a line of text to the next."""
        return 1.35 * self.font


COLUMN, PAGE = Size(240, 190, 8, alone=True), Size(504, 190, 8, alone=True)
"""A column of a paper, and its two columns, in 1/72 inch."""
SCREEN, SMALL = Size(380, 280, 11.5, legend=False), Size(320, 150, 11.5, legend=False)
"""A page, which has a legend of its own, and one of several side by side on it; about pixels."""


def text_width(text: str, font: float, *, bold: bool = False) -> float:
    """How wide a text is at most in common fonts, about: DejaVu Sans is the widest of them."""
    return (1.12 if bold else 1.0) * font * sum(0.36 if c in NARROW else 0.82 if c in WIDE else 0.62 for c in text)


def short(text: str, letters: int) -> str:
    """At most so many letters of a text: its beginning and its end."""
    if len(text) <= letters:
        return text
    tail = letters // 3
    return f"{text[: letters - tail - 1].rstrip(' …')}…{text[-tail:].lstrip(' …')}"
