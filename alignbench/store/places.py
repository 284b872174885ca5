"""Where draws are kept: which part, and where in it, by prompt and sample number, in 24 bytes a draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from alignbench.types import Array

Row = tuple[str, int]
"""A prompt's text and a sample number."""
RECENT = 10_000
"""Rows that are looked up in a dictionary, in some 200 bytes each, before they go into arrays."""


@dataclass
class Places:
    """The part and the position of each row; of a row that was added twice, those of the last time."""

    recent: dict[Row, tuple[int, int]] = field(default_factory=dict)
    settled: dict[str, Array] = field(default_factory=dict)  # prompt → (n, 3) index, part, position, by index

    def add(self, rows: Sequence[Row], part: int) -> None:
        """The rows of a part, in their order."""
        self.recent.update((row, (part, position)) for position, row in enumerate(rows))
        if len(self.recent) > RECENT:
            self._settle()

    def find(self, prompt: str, index: Array) -> Array:
        """(n, 2) part and position of these draws of a prompt, −1 where there is none."""
        found = np.full((len(index), 2), -1, dtype=np.int64)
        table = self.settled.get(prompt)
        if table is not None and len(table):
            at = np.searchsorted(table[:, 0], index).clip(max=len(table) - 1)
            there = table[at, 0] == index
            found[there] = table[at[there], 1:]
        for k, i in enumerate(index.tolist()):
            if place := self.recent.get((prompt, i)):
                found[k] = place
        return found

    def forget(self, part: int) -> None:
        """Leave out all rows of a part."""
        self.recent = {row: place for row, place in self.recent.items() if place[0] != part}
        self.settled = {prompt: table[table[:, 1] != part] for prompt, table in self.settled.items()}

    def _settle(self) -> None:
        by_prompt: dict[str, list[tuple[int, int, int]]] = {}
        for (prompt, index), place in self.recent.items():
            by_prompt.setdefault(prompt, []).append((index, *place))
        for prompt, rows in by_prompt.items():
            old = self.settled.get(prompt, np.zeros((0, 3), dtype=np.int64))
            both = np.concatenate([old, np.array(rows, dtype=np.int64)])
            both = both[np.argsort(both[:, 0], kind="stable")]
            self.settled[prompt] = both[np.append(both[1:, 0] != both[:-1, 0], True)]
        self.recent = {}
