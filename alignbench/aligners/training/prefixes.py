"""A baseline by prefix: what a draw will weigh, as far as the asked features of its first tokens tell."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from alignbench.aligners.training.cells import codes_of
from alignbench.target import Target
from alignbench.types import Array, Draws, Speaking

KEPT = 0.9
"""What earlier steps still count after one more: the policy changes, and with it what its draws weigh."""
PRIOR = 2.0
"""Draws' worth of the value 1, which is the mean weight, that a cell begins with."""
Place = tuple[int, int, str]


@dataclass
class Prefixes:
    """V(prompt, t, cell): E_π[p/π], from earlier draws whose first t tokens were in the same cell.

    Cells are those of `codes_of`, of the text of the prefix. The draws of a step are not in the values that they are
    given: any function of prompt and prefix is a baseline that leaves the gradient's mean as it is.
    """

    target: Target
    law: Speaking
    prompts: Sequence[str]
    known: dict[Place, tuple[float, float]] = field(default_factory=dict)  # Σ p/q, Σ π/q

    def values(self, draws: Draws) -> tuple[Array, list[list[Place]]]:
        """(B, T) V before each token, 1 after the end; and where each stands."""
        places = self._places(draws)
        assert draws.tokens is not None
        found = np.ones(draws.tokens.shape)
        for row, mine in zip(found, places, strict=True):
            row[: len(mine)] = [self._value(place) for place in mine]
        return found, places

    def _value(self, place: Place) -> float:
        total, count = self.known.get(place, (0.0, 0.0))
        return (total + PRIOR) / (count + PRIOR)

    def learn(self, seen: Iterable[tuple[Sequence[Place], float, float]]) -> None:
        """Count one more step: the places of each of its draws, its p/q, and its π/q for the law q that drew it."""
        known = {place: (KEPT * total, KEPT * count) for place, (total, count) in self.known.items()}
        for places, wanted, here in seen:
            for place in places:
                total, count = known.get(place, (0.0, 0.0))
                known[place] = (total + wanted, count + here)
        self.known = known

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
