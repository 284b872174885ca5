"""Asked gap against collateral: logarithmic between rails for 0, ∞ and what is not measured; nearer p than the base."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from math import dist, inf, isfinite, log10

import numpy as np

from alignbench.reports.charts.axes import TITLES, ruled
from alignbench.reports.charts.drawing.frame import (
    NAMES,
    Named,
    arrow,
    below,
    finished,
    headed,
    legend,
    limits_of,
    listed,
    points,
)
from alignbench.reports.charts.drawing.places import Box
from alignbench.reports.charts.looks import entries_of
from alignbench.reports.charts.picture import XY, Area, Mark, Path, Picture, Size, Text, short, text_width
from alignbench.reports.charts.two_parts import HIGH, LOW, TwoParts, TwoPartsPoint
from alignbench.reports.table.brief_columns import COLLATERAL
from alignbench.reports.table.verdict import ASKED

ACROSS, UP = f"{TITLES[ASKED]} ↓", f"{TITLES[COLLATERAL]} ↓ (logarithmic)"
NEARER = "nearer p than the base"
RIGHT, DOWN, LEFT = (1.0, 0.0), (0.0, 1.0), (-1.0, 0.0)
STEPS = 64  # of the curve
EDGE = 1.6  # fonts beside the right edge, for arrows
ORDER = ("ceiling", "—", "worse", "unclear", "same", "asked only", "trade", "better", "base")
"""Looks from below to above, where marks cover each other."""


@dataclass(frozen=True)
class Rails:
    """Where the two parts stand, in units of the picture."""

    left: float
    right: float
    unknown: float  # the rail of what is not measured
    infinite: float
    top: float  # HIGH nats
    bottom: float  # LOW nats
    zero: float
    limit: float  # nats at the right edge

    @classmethod
    def of(cls, chart: TwoParts, size: Size, top: float) -> Rails:
        """So that names of rails have room at the left, and `size.height` is from the first rail to the last."""
        left, gap = text_width("measured", size.font) + size.font, 1.7 * size.font
        end = top + size.height
        return cls(left, size.width - EDGE * size.font, top, top + 2 * gap, top + 3 * gap, end - gap, end, chart.limit)

    def across(self, asked: float) -> float:
        """Units from the left; what is beyond stands at the edge."""
        return self.left + min(max(asked / self.limit, 0.0), 1.0) * (self.right - self.left)

    def down(self, collateral: float | None) -> float:
        """Units from the top."""
        if collateral is None:
            return self.unknown
        if collateral == inf:
            return self.infinite
        if collateral <= 0:
            return self.zero
        share = log10(min(max(collateral, LOW), HIGH) / LOW) / log10(HIGH / LOW)
        return self.bottom - share * (self.bottom - self.top)


def drawn(chart: TwoParts, size: Size) -> Picture:
    """The plot; alone, what its numbers stand for is listed below it."""
    title, end = headed(chart.title, size)
    rails = Rails.of(chart, size, end + 2.6 * size.font)
    order = sorted(chart.points, key=lambda point: ORDER.index(point.look) if point.look in ORDER else 0)
    labels = _labels(chart, rails, size)
    named = [_named(point, rails, size, labels[point.row.number]) for point in order]
    note = _note(chart, rails, [point.spot for point in named], size)
    inside = Box(rails.left, rails.unknown - size.font, rails.right + EDGE * size.font, rails.zero + 0.9 * size.font)
    hard = [_box(text, size.font) for text in note]
    marks: list[Mark] = [*title, *_nearer(chart, rails), *_ground(rails, size), *_curve(chart, rails), *note]
    if len(chart.front) > 1:
        spots = tuple((rails.across(p.asked), rails.down(p.collateral)) for p in chart.front)
        marks.append(Path((spots,), "front"))
    marks += points(named, inside, size, hard)
    end = rails.zero + 3.2 * size.font
    said = {point.row.number for point in chart.points if _name(point) in labels[point.row.number]}
    for some, last in _below(chart, end, size, said):
        marks, end = [*marks, *some], last
    told = (f"{len(chart.points)} rows, {len(chart.front)} on the Pareto front. "
            "Below the curve is nearer p than the base. The table has the numbers.")  # fmt: skip
    return finished(marks, end, size, f"collateral against asked gap: {chart.title}", told)


def _name(point: TwoPartsPoint) -> str:
    return "base" if point.row.is_base else short(point.row.label, NAMES)


def _labels(chart: TwoParts, rails: Rails, size: Size) -> dict[int, str]:
    """Number of a row → its label: its name or number. Points that cover each other have one label, at the first."""
    heaps: list[tuple[XY, list[TwoPartsPoint]]] = []
    for point in sorted(chart.points, key=lambda point: (not point.named, point.row.number)):
        spot = rails.across(point.asked), rails.down(point.collateral)
        heap = next((heap for at, heap in heaps if dist(at, spot) < size.radius), None)
        heaps.append((spot, [point])) if heap is None else heap.append(point)
    found: dict[int, str] = {}
    for _, (first, *others) in heaps:
        name = _name(first) if first.named else str(first.row.number)
        also = "".join(f", {point.row.number}" for point in others)
        found |= {first.row.number: f"{name}{also} {first.keeps}".rstrip(), **{p.row.number: "" for p in others}}
    return found


def _below(chart: TwoParts, end: float, size: Size, said: Collection[int]) -> Iterator[tuple[list[Mark], float]]:
    """The legend of the marks, and the names of the rows that are not `said` in the plot."""
    entries = entries_of(point.look for point in chart.points)
    if size.legend:
        marks, end = legend(entries, end, size)
        yield marks, end
    if size.alone:
        others = [(p.row.number, p.look, p.row.label) for p in chart.points if p.row.number not in said]
        yield listed(others, end + 0.3 * size.font, size)


def _ground(rails: Rails, size: Size) -> Iterator[Mark]:
    """The axes: lines at the powers of ten, rails, and what they are called."""
    font = size.font
    powers, box = (0.01, 0.1, 1.0, 10.0, 100.0), Box(rails.left, rails.unknown, rails.right, rails.zero)
    axis = ruled("", "lower", 0.0, rails.limit)
    lines = [((rails.left, rails.down(p)), (rails.right, rails.down(p))) for p in powers]
    ups = [((rails.across(t), rails.top), (rails.across(t), rails.zero)) for t in axis.ticks]
    yield Path((*lines, *ups), "grid")
    flat = [((rails.left, y), (rails.right, y)) for y in (rails.unknown, rails.infinite, rails.zero)]
    yield Path((*flat, ((rails.left, rails.top), (rails.left, rails.bottom))), "rail")
    names = [(rails.zero, "0"), (rails.infinite, "∞"), *((rails.down(p), f"{p:g}") for p in powers)]
    for y, name in names:
        yield Text(rails.left - 0.6 * font, y + 0.35 * font, name, "axis", "end")
    for y, name in ((rails.unknown - 0.15 * font, "not"), (rails.unknown + 0.85 * font, "measured")):
        yield Text(rails.left - 0.6 * font, y, name, "axis", "end")
    yield from below(axis, rails.across, box, size)
    yield Text((rails.left + rails.right) / 2, rails.zero + 2.7 * font, ACROSS, "axis", "middle")
    yield Text(0.2 * font, rails.unknown - 1.6 * font, UP, "axis")


def _line(chart: TwoParts, rails: Rails) -> tuple[XY, ...]:
    """Where asked gap + collateral is the base's KL: from the left edge to the rail of 0, or to the right edge."""
    kl = chart.kl or 0.0
    ends = np.linspace(0.0, min(kl, rails.limit), STEPS), kl - np.geomspace(LOW, HIGH, STEPS)
    asked = sorted({float(x) for x in np.concatenate(ends) if max(0.0, kl - HIGH) <= x <= min(kl, rails.limit)})
    spots = [(rails.across(x), rails.down(max(kl - x, min(LOW, kl)))) for x in asked]
    return (*spots, (rails.across(kl), rails.zero)) if kl <= rails.limit else tuple(spots)


def _curve(chart: TwoParts, rails: Rails) -> list[Mark]:
    return [] if chart.kl is None else [Path((_line(chart, rails),), "as far")]


def _nearer(chart: TwoParts, rails: Rails) -> list[Mark]:
    """The side of the curve that is nearer to p than the base is."""
    if chart.kl is None or not (line := _line(chart, rails)):
        return []
    corner = (line[-1][0], rails.zero), (rails.left, rails.zero)
    top = [] if line[0][0] <= rails.left else [(rails.left, line[0][1])]
    return [Area((*line, *corner, *top), "nearer")]


def _note(chart: TwoParts, rails: Rails, spots: Sequence[XY], size: Size) -> list[Text]:
    """What the shaded side is, in the lowest place at its left that no point is in; nothing where there is none."""
    for line in range(int((rails.bottom - rails.top) / size.line) if chart.kl else 0):
        text = Text(rails.left + 0.5 * size.font, rails.bottom - (0.5 + 1.35 * line) * size.font, NEARER, "told")
        box = _box(text, size.font)
        if _sum(rails, box.right + 0.5 * size.font, box.top) > (chart.kl or 0.0):
            return []
        if all(dist(spot, box.nearest(*spot)) > 1.5 * size.radius for spot in spots):
            return [text]
    return []


def _sum(rails: Rails, x: float, y: float) -> float:
    """Asked gap and collateral that stand at a place of the logarithmic part, nats."""
    share = (rails.bottom - y) / (rails.bottom - rails.top)
    return float((x - rails.left) / (rails.right - rails.left) * rails.limit + LOW * (HIGH / LOW) ** share)


def _box(text: Text, font: float) -> Box:
    return Box(text.x, text.y - 0.8 * font, text.x + text_width(text.text, font), text.y + 0.2 * font)


def _named(point: TwoPartsPoint, rails: Rails, size: Size, text: str) -> Named:
    """A point, its 95 % limits, arrows for bounds on one side, its label."""
    row = point.row
    spot = rails.across(point.asked), rails.down(point.collateral)
    title = f"{row.number} {point.told}"
    also = tuple(arrow(spot, way, size, row.number, title) for way in _ways(point, rails.limit))
    return Named(spot, text, point.look, row.number, title, point.front, _whiskers(point, rails, spot), also)


def _ways(point: TwoPartsPoint, limit: float) -> Iterator[XY]:
    """Where the point may lie further: beyond the edge, or on the open side of a limit."""
    asked, collateral = point.row.asked, point.row.collateral
    if point.asked > limit or (asked.value is None and asked.low is not None):
        yield RIGHT
    elif asked.value is None:
        yield LEFT
    if collateral.value is None and point.collateral is not None:
        yield DOWN if collateral.low is None else (0.0, -1.0)
    elif point.collateral is not None and HIGH < point.collateral < inf:
        yield (0.0, -1.0)


def _whiskers(point: TwoPartsPoint, rails: Rails, spot: XY) -> tuple[tuple[XY, ...], ...]:
    """95 % limits of what has a finite value, as far as the plot goes."""
    asked, collateral = point.row.asked, point.row.collateral
    parts = list[tuple[XY, ...]]()
    if asked.value is not None and isfinite(asked.value) and (ends := limits_of(asked)):
        parts.append(tuple((rails.across(end), spot[1]) for end in ends))
    if collateral.value is not None and isfinite(collateral.value) and (ends := limits_of(collateral)):
        parts.append(tuple((spot[0], rails.down(min(max(end, 0.0), HIGH))) for end in ends))
    return tuple(part for part in parts if part[0] != part[1])
