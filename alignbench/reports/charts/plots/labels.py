"""Where the numbers of points stand, so that they cover neither each other nor points."""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, pi, sin
from typing import NamedTuple

NEAR = 6.0  # points of a plot (1/72 inch) within which marks are one heap and share a label
DIRECTIONS = [pi / 4 * k for k in (0, 1, 7, 2, 6, 3, 5, 4)]
REACHES = (8.0, 15.0, 24.0, 34.0)
LETTER, HEIGHT = 4.6, 8.0
MARGIN = 12.0  # points above a plot and to its right that labels may use


class Label(NamedTuple):
    """A text and its middle, and the mark that it belongs to, in points from the left and the bottom."""

    text: str
    x: float
    y: float
    of_x: float
    of_y: float

    @property
    def far(self) -> bool:
        """Whether it takes a line to say which mark is meant."""
        return abs(self.x - self.of_x) - LETTER * len(self.text) / 2 > 12 or abs(self.y - self.of_y) > 12


Box = tuple[float, float, float, float]


def placed(marks: Sequence[tuple[float, float, str]], bars: Sequence[Box], width: float, height: float) -> list[Label]:
    """A label for each heap of `marks` (x, y, text); error bars are avoided where there is room."""
    heaps = _heaps(marks)
    taken: list[tuple[Box, float]] = [((x - 4, y - 4, x + 4, y + 4), 4.0) for x, y, _ in marks]
    taken += [(bar, 0.6) for bar in bars]
    labels = []
    for x, y, text in heaps:
        found = min(
            (_candidate(x, y, text, angle, reach) for reach in REACHES for angle in DIRECTIONS),
            key=lambda label: _cost(label, taken, width, height),
        )
        taken.append((_box(found), 10.0))
        labels.append(found)
    return labels


def _heaps(marks: Sequence[tuple[float, float, str]]) -> list[tuple[float, float, str]]:
    """Marks that lie nearly on each other, as one with all their texts from left to right."""
    found: list[tuple[float, float, list[str]]] = []
    for x, y, text in sorted(marks, key=lambda mark: mark[:2]):
        near = next((h for h in found if max(abs(h[0] - x), abs(h[1] - y)) <= NEAR), None)
        if near is None:
            found.append((x, y, [text]))
        else:
            near[2].append(text)
    return [(x, y, " ".join(texts)) for x, y, texts in found]


def _candidate(x: float, y: float, text: str, angle: float, reach: float) -> Label:
    half = LETTER * len(text) / 2
    return Label(text, x + cos(angle) * (reach + half - 2), y + sin(angle) * reach, x, y)


def _box(label: Label) -> Box:
    half = LETTER * len(label.text) / 2
    return label.x - half, label.y - HEIGHT / 2, label.x + half, label.y + HEIGHT / 2


def _cost(label: Label, taken: Sequence[tuple[Box, float]], width: float, height: float) -> float:
    """What speaks against a place: what it covers, how far it sticks out, and its distance."""
    left, low, right, high = box = _box(label)
    outside = max(0.0, -left) + max(0.0, -low) + max(0.0, right - width - MARGIN) + max(0.0, high - height - MARGIN)
    distance = abs(label.x - label.of_x) + abs(label.y - label.of_y)
    return sum(weight * _overlap(box, other) for other, weight in taken) + 20 * outside + 0.5 * distance


def _overlap(a: Box, b: Box) -> float:
    """The area that two boxes share; bars without a width count as a point wide."""
    wide = min(a[2], max(b[2], b[0] + 1)) - max(a[0], b[0])
    tall = min(a[3], max(b[3], b[1] + 1)) - max(a[1], b[1])
    return wide * tall if wide > 0 and tall > 0 else 0.0
