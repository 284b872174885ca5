"""Where the numbers of a chart's points stand: beside their point, on no other point and on no other number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import cos, pi, sin

TALL = 11.0  # the height of a number
TURNS, RINGS = 16, 8


@dataclass(frozen=True)
class Box:
    """A rectangle in units of the canvas, y downwards."""

    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: Box) -> bool:
        """Whether the two share any area."""
        return (self.left < other.right and other.left < self.right
                and self.top < other.bottom and other.top < self.bottom)  # fmt: skip

    def holds(self, other: Box) -> bool:
        """Whether `other` is inside."""
        return (self.left <= other.left and other.right <= self.right
                and self.top <= other.top and other.bottom <= self.bottom)  # fmt: skip

    def nearest(self, x: float, y: float) -> tuple[float, float]:
        """The point of the rectangle that is nearest to (x, y)."""
        return min(max(x, self.left), self.right), min(max(y, self.top), self.bottom)


def placed(spots: Sequence[tuple[float, float]], widths: Sequence[float], radius: float, inside: Box) -> list[Box]:
    """A box for the number of each spot, one after the other: the nearest free place in rings around the spot.

    Where all places are taken (more points than there is room), the number stands right of its point.
    """
    taken = [Box(x - radius, y - radius, x + radius, y + radius) for x, y in spots]
    boxes = []
    for (x, y), width in zip(spots, widths, strict=True):
        free = (b for b in _places(x, y, width, radius) if inside.holds(b) and not any(b.overlaps(t) for t in taken))
        box = next(free, _around(x + radius + width / 2, y, width))
        boxes.append(box)
        taken.append(box)
    return boxes


def _places(x: float, y: float, width: float, radius: float) -> Iterator[Box]:
    """Boxes around a spot, the nearest ring first, beginning at the right."""
    for ring in range(RINGS):
        reach = radius + 1 + ring * TALL * 0.75
        for turn in range(TURNS):
            angle = 2 * pi * turn / TURNS
            yield _around(x + (reach + width / 2) * cos(angle), y - (reach + TALL / 2) * sin(angle), width)


def _around(x: float, y: float, width: float) -> Box:
    return Box(x - width / 2, y - TALL / 2, x + width / 2, y + TALL / 2)
