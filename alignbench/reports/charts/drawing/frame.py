"""What charts share: axes with ticks, marks with limits, labels, and below them what marks and numbers stand for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import hypot, inf, isfinite
from textwrap import wrap

from alignbench.reports.charts.axes import Axis
from alignbench.reports.charts.drawing.places import Box, Label, placed
from alignbench.reports.charts.picture import XY, Dot, Mark, Path, Picture, Size, Text, short, text_width
from alignbench.reports.table.board import ARROWS, Cell

LETTER = 0.55  # of the font's size: the mean width of a letter
NAMES = 22
"""Letters of a name in a plot."""
FAR = 4.0  # radii from a point, from where on a line leads to its label


@dataclass(frozen=True)
class Frame:
    """Where the values of two axes stand; what is beyond an axis stands at its end."""

    x: Axis
    y: Axis
    box: Box

    def across(self, value: float) -> float:
        """Units from the left."""
        return self.box.left + _clipped(self.x, value) * (self.box.right - self.box.left)

    def down(self, value: float) -> float:
        """Units from the top."""
        return self.box.bottom - _clipped(self.y, value) * (self.box.bottom - self.box.top)


def _clipped(axis: Axis, value: float) -> float:
    return min(max(axis.place(value) if isfinite(value) else value, 0.0), 1.0)


def tick(value: float) -> str:
    """A round number as short as it is."""
    return f"{value:.4g}".replace("e+0", "e").replace("e-0", "e-")


def heading(axis: Axis) -> str:
    """The title, an arrow towards better, and that it is bent where it is."""
    bent = "" if axis.linear_below is None else f"(log above {tick(axis.linear_below)})"
    return " ".join(filter(None, (axis.title, ARROWS.get(axis.better, ""), bent)))


def room_of(axis: Axis, size: Size) -> float:
    """The width of the numbers at a vertical axis."""
    return max((text_width(tick(t), size.font) for t in axis.ticks), default=0.0) + size.font


def axes(frame: Frame, size: Size, *, across: bool = True, left: float = 0.0) -> Iterator[Mark]:
    """Lines and numbers at the ticks, and what the axes are; the vertical one's name is above it, from `left` on."""
    box, font = frame.box, size.font
    xs, ys = list(map(frame.across, frame.x.ticks)), list(map(frame.down, frame.y.ticks))
    yield Path((*(((x, box.top), (x, box.bottom)) for x in xs), *(((box.left, y), (box.right, y)) for y in ys)), "grid")
    yield Path((((box.left, box.top), (box.left, box.bottom), (box.right, box.bottom)),), "rail")
    for t in _apart(frame.y, frame.down, font, lambda t: 1.2 * font):
        yield Text(box.left - 0.5 * font, frame.down(t) + 0.35 * font, tick(t), "axis", "end")
    if across:
        yield from below(frame.x, frame.across, box, size)
        yield Text((box.left + box.right) / 2, box.bottom + 2.7 * font, heading(frame.x), "axis", "middle")
    yield Text(left + 0.2 * font, box.top - 0.8 * font, heading(frame.y), "axis")


def below(axis: Axis, place: Callable[[float], float], box: Box, size: Size) -> Iterator[Mark]:
    """The numbers below a horizontal axis."""
    for t in _apart(axis, place, size.font, lambda t: text_width(tick(t), size.font) + 0.6 * size.font):
        yield Text(place(t), box.bottom + 1.3 * size.font, tick(t), "axis", "middle")


def _apart(axis: Axis, place: Callable[[float], float], font: float, room: Callable[[float], float]) -> Iterator[float]:
    """The ticks whose numbers do not run into the one before."""
    last = -inf
    for t in sorted(axis.ticks, key=place):
        if place(t) - room(t) / 2 >= last:
            last = place(t) + room(t) / 2
            yield t


def limits_of(cell: Cell) -> tuple[float, float] | None:
    """From where to where the 95 % limits go, infinite where one is not known; None where none is."""
    if cell.low is None and cell.high is None:
        return None
    return -inf if cell.low is None else cell.low, inf if cell.high is None else cell.high


def whiskers(frame: Frame, spot: XY, x: Cell, y: Cell) -> tuple[tuple[XY, ...], ...]:
    """The limits of both numbers of a point; an infinite one reaches the edge."""
    parts = list[tuple[XY, ...]]()
    if ends := limits_of(x):
        parts.append(tuple((frame.across(end), spot[1]) for end in ends))
    if ends := limits_of(y):
        parts.append(tuple((spot[0], frame.down(end)) for end in ends))
    return tuple(parts)


@dataclass(frozen=True)
class Named:
    """A point that has a label: its row, the label, and all that belongs to its group in the picture."""

    spot: XY
    text: str
    look: str
    row: int | None
    title: str
    bold: bool = False
    parts: tuple[tuple[XY, ...], ...] = ()  # its limits
    also: tuple[Mark, ...] = ()  # such as arrows


def points(named: Sequence[Named], inside: Box, size: Size, hard: Sequence[Box] = ()) -> Iterator[Mark]:
    """The points with their limits, dots and labels; a thin line where a label found no place beside its point."""
    radius, font = size.radius, size.font
    dots = [Box(x - radius, y - radius, x + radius, y + radius) for x, y in (n.spot for n in named)]
    arrows = [_bounds(mark) for n in named for mark in n.also if isinstance(mark, Path)]
    bars = [_around(part) for n in named for part in n.parts]
    order = sorted(range(len(named)), key=lambda i: len(named[i].text))  # numbers first: a name may stand further off
    labels = [_label(named[i], font) for i in order]
    boxes = dict(zip(order, placed(labels, inside, radius, [*dots, *arrows, *hard], bars), strict=True))
    for i, point in enumerate(named):
        yield from _point(point, boxes[i], size)


def _label(point: Named, font: float) -> Label:
    return Label(*point.spot, text_width(point.text, font, bold=point.bold) + 2, 1.05 * font)


def _point(point: Named, box: Box, size: Size) -> Iterator[Mark]:
    own, (x, y) = (point.row, point.title), point.spot
    if point.parts:
        yield Path(point.parts, "whisker", *own)
    yield from point.also
    end = box.nearest(x, y)
    if hypot(end[0] - x, end[1] - y) > FAR * size.radius and point.text:
        yield Path((((x, y), end),), "leader", *own)
    yield Dot(x, y, size.radius, point.look, *own)
    if point.text:
        look = "name" if point.bold else "text"
        yield Text(box.left + 1, box.bottom - 0.22 * size.font, point.text, look, "start", *own)


def _bounds(path: Path) -> Box:
    return _around([point for part in path.parts for point in part])


def _around(part: Sequence[XY]) -> Box:
    xs, ys = [x for x, _ in part], [y for _, y in part]
    return Box(min(xs) - 0.5, min(ys) - 0.5, max(xs) + 0.5, max(ys) + 0.5)


def arrow(spot: XY, towards: XY, size: Size, row: int | None, title: str) -> Path:
    """An arrow from a point's edge: what is known of it is a limit, and it may lie further that way."""
    (x, y), (dx, dy), r = spot, towards, size.radius
    tail, tip = (x + 1.4 * r * dx, y + 1.4 * r * dy), (x + 3.4 * r * dx, y + 3.4 * r * dy)
    head = tuple((tip[0] - 0.8 * r * dx + s * 0.7 * r * dy, tip[1] - 0.8 * r * dy + s * 0.7 * r * dx) for s in (1, -1))
    return Path(((tail, tip), (head[0], tip, head[1])), "arrow", row, title)


def legend(entries: Iterable[tuple[str, str]], top: float, size: Size) -> tuple[list[Mark], float]:
    """(look, word) of marks, in lines as wide as the picture; and where they end."""
    marks, x, y = list[Mark](), 0.6 * size.font, top + size.line
    for look, word in entries:
        wide = text_width(word, size.font) + 3.2 * size.font
        if x + wide > size.width and x > size.font:
            x, y = 0.6 * size.font, y + size.line
        marks.append(Dot(x + size.radius, y - 0.33 * size.font, size.radius, look))
        marks.append(Text(x + 1.3 * size.font, y, word, "told"))
        x += wide
    return marks, y if marks else top


def listed(entries: Sequence[tuple[int, str, str]], top: float, size: Size) -> tuple[list[Mark], float]:
    """(number, look, label) of rows, in as many columns as tell the labels apart; and where they end."""
    most = max(1, int(size.width // 118))
    rooms = {n: int((size.width / n - 3.6 * size.font) / (LETTER * size.font)) for n in range(most, 0, -1)}
    labels = {label for _, _, label in entries}
    count = next((n for n in rooms if len({short(label, rooms[n]) for label in labels}) == len(labels)), 1)
    wide, deep, letters = size.width / count, -(-len(entries) // count), rooms[count]
    marks = list[Mark]()
    for i, (number, look, label) in enumerate(entries):
        x, y = (i // deep) * wide, top + (1 + i % deep) * size.line
        marks.append(Dot(x + 0.9 * size.font, y - 0.33 * size.font, size.radius, look, number))
        marks.append(Text(x + 2.8 * size.font, y, str(number), "told", "end", number))
        marks.append(Text(x + 3.2 * size.font, y, short(label, letters), "told", "start", number))
    return marks, top + deep * size.line


def headed(title: str, size: Size) -> tuple[list[Mark], float]:
    """The title of a picture that stands alone, in lines; and where they end."""
    if not size.alone:
        return [], 0.0
    lines = wrap(title, int(size.width / (0.6 * size.font)))
    marks = [Text(0.2 * size.font, (i + 1) * size.line, line, "name") for i, line in enumerate(lines)]
    return list[Mark](marks), (len(lines) + 0.3) * size.line


def finished(marks: Iterable[Mark], end: float, size: Size, title: str, told: str) -> Picture:
    """The picture of these marks, as high as they reach."""
    return Picture(size.width, round(end + 0.5 * size.font, 2), title, told, tuple(marks), size.font)
