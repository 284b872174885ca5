"""A baseline by prefix: what a draw will weigh, as far as the asked features of its first tokens tell."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from alignbench.aligners.training.cells import codes_of
from alignbench.target import Target
from alignbench.types import Array, Draws, Speaking

PRIOR = 2.0
"""Draws' worth of the value 1, which is the mean weight, that a cell begins with."""
Place = tuple[int, int, str]


@dataclass
class Prefixes:
    """V(prompt, t, cell): E_a[p/a], from base draws whose first t tokens were in the same cell.

    Cells are those of `codes_of`, of the text of the prefix. A draw is not in the values that it is given itself: any
    function of prompt and prefix is a baseline that leaves the gradient's mean as it is. They depend on base and target
    alone, so that no change of the policy makes them old.
    """

    target: Target
    law: Speaking
    prompts: Sequence[str]
    known: dict[Place, tuple[float, float]] = field(default_factory=dict)  # Σ p/a, number

    def values(self, draws: Draws, counted: Array | None = None) -> tuple[Array, list[list[Place]]]:
        """(B, T) V before each token, 1 after the end; and where each stands.

        `counted` (B,): the p/a of draws that were learned from, which are left out of their own values; NaN of others.
        """
        places = self._places(draws)
        assert draws.tokens is not None
        found = np.ones(draws.tokens.shape)
        left_out = np.full(len(draws), np.nan) if counted is None else counted
        for row, mine, own in zip(found, places, left_out, strict=True):
            row[: len(mine)] = [self._value(place, own) for place in mine]
        return found, places

    def _value(self, place: Place, own: float) -> float:
        total, count = self.known.get(place, (0.0, 0.0))
        if not math.isnan(own):
            total, count = total - own, count - 1
        return (total + PRIOR) / (count + PRIOR)

    def learn(self, seen: Iterable[tuple[Sequence[Place], float]]) -> None:
        """Count base draws: the places of each, and its p/a."""
        for places, weight in seen:
            for place in places:
                total, count = self.known.get(place, (0.0, 0.0))
                self.known[place] = (total + weight, count + 1)

    def _places(self, draws: Draws) -> list[list[Place]]:
        """Of each draw, for t = 0 to its length − 1: its prompt, t, and the cell of its first t tokens."""
        assert draws.tokens is not None
        found: list[list[Place]] = [[] for _ in range(len(draws))]
        for t in range(draws.tokens.shape[1]):
            rows = np.flatnonzero(draws.length > t)
            begun = replace(
                draws.take(rows),
                tokens=_cut(draws.tokens[rows], t),
                length=np.full(len(rows), t),
                finished=np.zeros(len(rows), bool),
            )
            begun = replace(begun, texts=self.law.texts_of(self.prompts, begun) if t else ("",) * len(rows))
            for row, c, cell in zip(rows, begun.prompt, codes_of(self.target, self.prompts, begun), strict=True):
                found[row].append((int(c), t, cell))
        return found

    def kept(self) -> list[list[Any]]:
        """Plain data to go on with."""
        return [[*place, *sums] for place, sums in self.known.items()]

    def resume(self, kept: Iterable[Sequence[Any]]) -> None:
        """Take it in again."""
        self.known = {(c, t, cell): (total, count) for c, t, cell, total, count in kept}


def _cut(tokens: Array, t: int) -> Array:
    """The first t tokens of each row, -1 after them."""
    return np.where(np.arange(tokens.shape[1]) < t, tokens, -1)
