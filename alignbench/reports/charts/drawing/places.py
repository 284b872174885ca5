"""Where the labels of points stand: beside their point, on no other point and on no other label."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import cos, pi, sin

TURNS, RINGS = 16, 10
NEAR = 3  # rings within which what is better kept free is kept free


@dataclass(frozen=True)
class Box:
    """A rectangle, y downwards."""

    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: Box) -> bool:
        """Whether the two share any area."""
        return (self.left < other.right and other.left < self.right
                and self.top < other.bottom and other.top < self.bottom)  # fmt: skip

    def shared(self, other: Box) -> float:
        """The area that the two share."""
        wide = min(self.right, other.right) - max(self.left, other.left)
        tall = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(wide, 0.0) * max(tall, 0.0)

    def holds(self, other: Box) -> bool:
        """Whether `other` is inside."""
        return (self.left <= other.left and other.right <= self.right
                and self.top <= other.top and other.bottom <= self.bottom)  # fmt: skip

    def nearest(self, x: float, y: float) -> tuple[float, float]:
        """The point of the rectangle that is nearest to (x, y)."""
        return min(max(x, self.left), self.right), min(max(y, self.top), self.bottom)


@dataclass(frozen=True)
class Label:
    """What is to be placed: the spot that it belongs to, and how large it is."""

    x: float
    y: float
    width: float
    height: float


def placed(labels: Sequence[Label], inside: Box, radius: float, hard: Sequence[Box], soft: Sequence[Box]) -> list[Box]:
    """A box for each label, one after the other: the nearest free place in rings around its spot.

    No box covers a `hard` one (the points) or another label, nor near its spot a `soft` one (error bars). Where all
    places are taken (more points than there is room), it stands where it covers least.
    """
    taken, boxes = list(hard), list[Box]()
    for label in labels:
        box = _place([box for box in _around(label, radius) if inside.holds(box)], taken, soft)
        boxes.append(box or _at(label.x + radius + label.width / 2, label.y, label))
        taken.append(boxes[-1])
    return boxes


def _place(found: Sequence[Box], taken: Sequence[Box], soft: Sequence[Box]) -> Box | None:
    free = [box for box in found if not any(box.overlaps(other) for other in taken)]
    best = next((box for box in free[: NEAR * TURNS] if not any(box.overlaps(other) for other in soft)), None)
    if best is not None or free:
        return best or free[0]
    return min(found, key=lambda box: sum(box.shared(other) for other in taken), default=None)


def _around(label: Label, radius: float) -> Iterator[Box]:
    """Boxes around a spot, the nearest ring first, beginning at the right."""
    for ring in range(RINGS):
        reach = radius + 1 + ring * label.height * 0.75
        for turn in range(TURNS):
            angle = 2 * pi * turn / TURNS
            x = label.x + (reach + label.width / 2) * cos(angle)
            yield _at(x, label.y - (reach + label.height / 2) * sin(angle), label)


def _at(x: float, y: float, label: Label) -> Box:
    return Box(x - label.width / 2, y - label.height / 2, x + label.width / 2, y + label.height / 2)
