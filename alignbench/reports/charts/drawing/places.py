"""Where the labels of points stand: beside their point, on no other point and on no other label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from alignbench.types import Array

TURNS, RINGS = 16, 10
NEAR = 3  # rings within which what is better kept free is kept free


@dataclass(frozen=True)
class Box:
    """A rectangle, y downwards."""

    left: float
    top: float
    right: float
    bottom: float

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
    taken, kept_free, room = _array(hard), _array(soft), _array([inside])[0]
    boxes = []
    for label in labels:
        box = _place(_around(label, radius), room, taken, kept_free)
        taken = np.vstack([taken, box])
        boxes.append(Box(*map(float, box)))
    return boxes


def _array(boxes: Sequence[Box]) -> Array:
    """(n, 4): left, top, right, bottom."""
    return np.array([(b.left, b.top, b.right, b.bottom) for b in boxes], dtype=float).reshape(-1, 4)


def _place(found: Array, inside: Array, taken: Array, soft: Array) -> Array:
    """First of the boxes `found` (k, 4) that overlaps nothing `taken`; nearby ones also avoid `soft` boxes."""
    found = found[(found[:, :2] >= inside[:2]).all(axis=1) & (found[:, 2:] <= inside[2:]).all(axis=1)]
    near = found[: NEAR * TURNS]
    free = near[~_covers(near, taken)]
    best = free[~_covers(free, soft)]
    free = free if len(free) else found[~_covers(found, taken)]
    if len(best) or len(free):
        return np.asarray(best[0] if len(best) else free[0])
    return np.asarray(found[int(np.argmin(_shared(found, taken)))])


def _sides(some: Array, others: Array) -> Array:
    """(k, n, 2): width and height of what `some` (k, 4) share with each of `others` (n, 4); ≤ 0 where nothing."""
    low = np.maximum(some[:, None, :2], others[None, :, :2])
    return np.asarray(np.minimum(some[:, None, 2:], others[None, :, 2:]) - low)


def _covers(some: Array, others: Array) -> Array:
    """(k,) bool: which of `some` share any area with one of `others`."""
    return np.asarray(np.any(np.all(_sides(some, others) > 0, axis=2), axis=1))


def _shared(some: Array, others: Array) -> Array:
    """(k,): the area that each of `some` shares with all of `others`."""
    return np.asarray(np.maximum(_sides(some, others), 0.0).prod(axis=2).sum(axis=1))


def _around(label: Label, radius: float) -> Array:
    """(RINGS · TURNS, 4): boxes around a spot, the nearest ring first, beginning at the right."""
    reach = radius + 1 + np.arange(RINGS)[:, None] * label.height * 0.75
    angle = 2 * np.pi * np.arange(TURNS)[None, :] / TURNS
    x = (label.x + (reach + label.width / 2) * np.cos(angle)).ravel()
    y = (label.y - (reach + label.height / 2) * np.sin(angle)).ravel()
    half = label.width / 2, label.height / 2
    return np.stack([x - half[0], y - half[1], x + half[0], y + half[1]], axis=1)
