"""Where the rows of a table stand: ranks, what is bold, and the Pareto front; pinned rows take no part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from alignbench.reports.board import NO_RANK, Cell
from alignbench.reports.cells import Footnotes
from alignbench.reports.lines import Line


@dataclass(frozen=True)
class Standing:
    """What comparisons of the rows of a table say; rows are meant by their places in it."""

    ranks: Mapping[int, Cell] = field(default_factory=dict)
    best: frozenset[tuple[int, str]] = frozenset()  # (row, key of a column): bold
    front: frozenset[int] = frozenset()
    legend: tuple[str, ...] = ()

    def rank(self, row: int, footnotes: Footnotes) -> Cell:
        """The rank of a row; `—` with its reason where it has no number."""
        return self.ranks.get(row, NO_RANK)


NOTHING = Standing()


def standing_of(lines: Sequence[Line], primary: str, better: Mapping[str, str]) -> Standing:
    return NOTHING
