"""Charts as inline SVG: classes for the page's style sheet, a title for each point, every string escaped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import inf, isfinite

from markupsafe import Markup

from alignbench.reports.charts.axes import Axis
from alignbench.reports.charts.data import Bar, Curve, Point, Scatter, Stop
from alignbench.reports.formats.page.places import Box, placed
from alignbench.reports.table.board import Cell

WIDTH, HEIGHT = 400.0, 290.0
LEFT, RIGHT, TOP, BOTTOM = 50.0, 14.0, 26.0, 40.0
RADIUS = 4.0
DIGIT = 6.0  # the width of a digit of a point's number


def _at(value: float) -> str:
    """A coordinate to a tenth of a unit."""
    return f"{value:.1f}".removesuffix(".0")


def _tick(value: float) -> str:
    """A round number as short as it is."""
    return f"{value:.4g}"


@dataclass(frozen=True)
class Frame:
    """Where the values of two axes stand on the canvas; what is beyond an axis stands at its end."""

    x: Axis
    y: Axis

    def across(self, value: float) -> float:
        """Units from the left."""
        return LEFT + _clipped(self.x, value) * (WIDTH - LEFT - RIGHT)

    def down(self, value: float) -> float:
        """Units from the top."""
        return HEIGHT - BOTTOM - _clipped(self.y, value) * (HEIGHT - BOTTOM - TOP)


def _clipped(axis: Axis, value: float) -> float:
    return min(max(axis.place(value) if isfinite(value) else value, 0.0), 1.0)


def scatter(chart: Scatter, numbers: Mapping[str, int], ident: str) -> Markup:
    """The trade-off: numbered points with their 95 % limits, the front joined by a line. `numbers`: label → number."""
    frame = Frame(chart.x, chart.y)
    front = " ".join(f"{_at(frame.across(p.x.value or 0))},{_at(frame.down(p.y.value or 0))}" for p in chart.front)
    line = Markup('<polyline class="front-line" points="{}"/>').format(front) if len(chart.front) > 1 else ""
    points = Markup("\n").join(_points(chart, frame, numbers))
    told = f"{len(chart.points)} generators; {len(chart.front)} on the Pareto front. The table below has the numbers."
    return _svg(f"{chart.y.title} against {chart.x.title}", told, ident, _axes(frame) + line + points)


def _points(chart: Scatter, frame: Frame, numbers: Mapping[str, int]) -> Iterator[Markup]:
    texts = [str(numbers[p.label]) for p in chart.points]
    spots = [(frame.across(p.x.value or 0), frame.down(p.y.value or 0)) for p in chart.points]
    inside = Box(LEFT, TOP, WIDTH, HEIGHT - BOTTOM)
    boxes = placed(spots, [DIGIT * len(text) + 3 for text in texts], RADIUS, inside)
    for point, text, spot, box in zip(chart.points, texts, spots, boxes, strict=True):
        told = f"{point.label}: x {point.x.text}, y {point.y.text}"
        label = Markup('<text x="{}" y="{}">{}</text>').format(_at(box.left), _at(box.bottom - 2), text)
        yield Markup('<g data-n="{}"><title>{}</title>{}{}{}{}</g>').format(
            text, told, _whiskers(frame, point, spot), _leader(spot, box), _dot(point, *spot), label
        )


def _whiskers(frame: Frame, point: Point, spot: tuple[float, float]) -> Markup:
    """The limits of both numbers; a limit that is not known draws nothing, an infinite one reaches the edge."""
    x, y = (_at(v) for v in spot)
    parts = []
    if _has_limits(point.x):
        parts.append(f"M{_at(frame.across(_low(point.x)))} {y}H{_at(frame.across(_high(point.x)))}")
    if _has_limits(point.y):
        parts.append(f"M{x} {_at(frame.down(_low(point.y)))}V{_at(frame.down(_high(point.y)))}")
    return Markup('<path d="{}"/>').format("".join(parts)) if parts else Markup("")


def _has_limits(cell: Cell) -> bool:
    return cell.low is not None or cell.high is not None


def _low(cell: Cell) -> float:
    return -inf if cell.low is None else cell.low


def _high(cell: Cell) -> float:
    return inf if cell.high is None else cell.high


def _dot(point: Point, x: float, y: float) -> Markup:
    """A filled diamond on the front, a square for the base, a triangle for draws of p, else a ring."""
    r = RADIUS
    if point.front:
        return _shape("front", (x, y - r - 1), (x + r + 1, y), (x, y + r + 1), (x - r - 1, y))
    if point.mark == "base":
        return _shape("dot", (x - r, y - r), (x + r, y - r), (x + r, y + r), (x - r, y + r))
    if point.mark == "ceiling":
        return _shape("dot", (x, y - r - 1), (x + r + 1, y + r), (x - r - 1, y + r))
    return Markup('<circle cx="{}" cy="{}"/>').format(_at(x), _at(y))


def _shape(kind: str, *corners: tuple[float, float]) -> Markup:
    return Markup('<path class="{}" d="M{}Z"/>').format(kind, "L".join(f"{_at(x)} {_at(y)}" for x, y in corners))


def _leader(spot: tuple[float, float], box: Box) -> Markup:
    """A thin line to a number that found no place beside its point."""
    x, y = box.nearest(*spot)
    if abs(x - spot[0]) + abs(y - spot[1]) < 3 * RADIUS:
        return Markup("")
    return Markup('<path class="leader" d="M{} {}L{} {}"/>').format(*map(_at, (*spot, x, y)))


def _axes(frame: Frame) -> Markup:
    """Lines at the ticks, their numbers, and what the axes are."""
    floor, end = HEIGHT - BOTTOM, WIDTH - RIGHT
    rules = "".join(f"M{_at(frame.across(t))} {TOP}V{floor}" for t in frame.x.ticks)
    rules += "".join(f"M{LEFT} {_at(frame.down(t))}H{end}" for t in frame.y.ticks)
    x = [_text(frame.across(t), floor + 14, _tick(t), "middle") for t in _apart(frame.x, frame.across)]
    y = [_text(LEFT - 5, frame.down(t) + 4, _tick(t), "end") for t in _apart(frame.y, frame.down)]
    names = _text((LEFT + end) / 2, HEIGHT - 6, _named(frame.x), "middle") + _text(2, 12, _named(frame.y), "start")
    grid = Markup('<path class="grid" d="{}"/>').format(rules)
    return grid + Markup('<g class="axis">{}</g>').format(Markup("").join([*x, *y, names]))


def _apart(axis: Axis, place: Callable[[float], float]) -> Iterator[float]:
    """The ticks whose numbers do not run into the one before."""
    last = -inf
    for tick in axis.ticks:
        where = abs(place(tick))
        if abs(where - last) >= 14 + 4 * len(_tick(tick)):
            last = where
            yield tick


def _named(axis: Axis) -> str:
    """The title, an arrow towards better, and that it is bent where it is."""
    arrow = {"higher": "↑", "lower": "↓"}.get(axis.better, "")
    scale = "" if axis.linear_below is None else f"(logarithmic above {_tick(axis.linear_below)})"
    return " ".join(filter(None, (axis.title, arrow, scale)))


def _text(x: float, y: float, text: str, anchor: str) -> Markup:
    return Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>').format(_at(x), _at(y), anchor, text)


def _svg(title: str, told: str, ident: str, body: Markup) -> Markup:
    """A picture with a name and a description for those who do not see it."""
    return Markup(
        '<svg class="chart" viewBox="0 0 {} {}" role="img" aria-labelledby="{i}-title {i}-told">'
        '<title id="{i}-title">{}</title><desc id="{i}-told">{}</desc>{}</svg>'
    ).format(_at(WIDTH), _at(HEIGHT), title, told, body, i=ident)


def curves(x: Axis, curve: Curve, ident: str) -> Markup:
    """Lines over a number with the 95 % limits of their points; rows to compare with as level lines."""
    frame = Frame(x, curve.axis)
    lines = [_line(frame, i, curve) for i in range(len(curve.lines))]
    beside = [_level(frame, bar) for bar in curve.beside]
    told = f"{len(lines)} lines; the table below has the numbers."
    return _svg(f"{curve.axis.title} over {x.title}", told, ident, _axes(frame) + Markup("").join([*beside, *lines]))


def _level(frame: Frame, bar: Bar) -> Markup:
    """A row to compare with, as a line across."""
    y, end = frame.down(bar.cell.value or 0), WIDTH - RIGHT
    return Markup('<g><title>{}: {}</title><path class="beside" d="M{} {}H{}"/>{}</g>').format(
        bar.label, bar.cell.text, _at(LEFT), _at(y), _at(end), _text(end, y - 3, bar.label, "end")
    )


def _line(frame: Frame, i: int, curve: Curve) -> Markup:
    line = curve.lines[i]
    spots = [(frame.across(s.x), frame.down(s.cell.value or 0)) for s in line.stops]
    path = " ".join(f"{_at(x)},{_at(y)}" for x, y in spots)
    dots = Markup("").join(_stop(frame, stop, spot) for stop, spot in zip(line.stops, spots, strict=True))
    number = _text(spots[-1][0] + 6, spots[-1][1] + 4, str(i + 1), "start") if spots and len(curve.lines) > 1 else ""
    return Markup('<g class="line line-{}"><polyline points="{}"/>{}{}</g>').format(i % 4 + 1, path, dots, number)


def _stop(frame: Frame, stop: Stop, spot: tuple[float, float]) -> Markup:
    x, y = (_at(v) for v in spot)
    told = f"{stop.label}: {stop.cell.text}"
    low, high = (_at(frame.down(v)) for v in (_low(stop.cell), _high(stop.cell)))
    limits = Markup('<path d="M{} {}V{}"/>').format(x, low, high) if _has_limits(stop.cell) else ""
    return Markup('<g><title>{}</title>{}<circle cx="{}" cy="{}"/></g>').format(told, limits, x, y)
