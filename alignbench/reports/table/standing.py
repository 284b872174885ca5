"""Where the rows of a table stand: ranks, what is bold, and the Pareto front. Pinned rows take no part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isnan

import numpy as np

from alignbench.metrics.replicates import replicates_of
from alignbench.reports.table.board import ARROWS, NO_RANK, Cell
from alignbench.reports.table.cells import Footnotes
from alignbench.reports.table.columns import label_of
from alignbench.reports.table.lines import Line
from alignbench.reports.table.numbers import MISSING
from alignbench.reports.table.pairs import numbers
from alignbench.stats.ranks import Numbers, Ranks, pareto, ranks, tied
from alignbench.types import PRIMARY, Array

RANKS = (
    "Rank: 1 + the rows with a better {}, with limits that hold for all {} rows at once with 95 %, from paired "
    "differences."
)
BOLD = "Bold: the best of a column and all that is tied with it at 95 % (paired differences, adjusted for the rows)."
APART = "Rows below the others are there to compare with: neither ranked nor bold."
UNPAIRED = "{} no replicates: told apart by the sum of standard errors, which holds whatever they share."
NO_NUMBER = "no number to rank by"
UNRANKED = "Nothing is ranked: no row has a finite {}."
DIVERSITY = "distinct.distinct_2"
OBJECTIVES = (
    ("satisfaction.always", "moment_error"), ("perplexity",), (DIVERSITY,),
    ("cost.calls_per_draw", "cost.tokens_per_draw"),
)  # fmt: skip
"""What a generator is weighed by beside its divergence: of each, the first that the table has numbers of."""


@dataclass(frozen=True)
class Standing:
    """What comparisons of the rows of a table say; rows are meant by their places in it."""

    ranks: Mapping[int, Cell] = field(default_factory=dict)
    best: frozenset[tuple[int, str]] = frozenset()  # (row, key of a column): bold
    front: frozenset[int] = frozenset()
    legend: tuple[str, ...] = ()

    def rank(self, row: int, footnotes: Footnotes) -> Cell:
        """The rank of a row; `—` with a footnote where it has no number, nothing where it is pinned."""
        cell = self.ranks.get(row, NO_RANK)
        return replace(cell, notes=footnotes.number([NO_NUMBER])) if cell.point == MISSING else cell


NOTHING = Standing()


def standing_of(lines: Sequence[Line], primary: str, better: Mapping[str, str]) -> Standing:
    """Ranks by `primary`, bold numbers in each column of `better` (key → direction) that has one, and the front."""
    places = [i for i, line in enumerate(lines) if not line.mark]
    some = [lines[i] for i in places]
    if len(some) < 2:
        return NOTHING
    reached = numbers_of(some, primary, better[primary])
    infinite = bool(better[primary]) and not np.isfinite(reached.values).any()
    found = rank_cells(ranks(reached)) if better[primary] and not infinite else []
    best = {key: _best(numbers_of(some, key, way)) for key, way in better.items() if way}
    objectives = _objectives(some, lines, primary)
    judged = np.array([[_objective(line, key, lines) for key in objectives] for line in some], float)
    front: Array = pareto(judged, [_way(key, some) for key in objectives]) if len(objectives) > 1 else np.zeros(0)
    legend = [
        *([RANKS.format(_arrow(primary, better[primary]), sum(c.value is not None for c in found))] if found else []),
        *([UNRANKED.format(_arrow(primary, better[primary]))] if infinite else []),
        BOLD, *_not_compared(best), *_unpaired(some, [*better]),
        *([_front_legend(objectives, some, judged)] if len(objectives) > 1 else []),
        *([APART] if len(some) < len(lines) else []),
    ]  # fmt: skip
    return Standing(
        {places[i]: cell for i, cell in enumerate(found)},
        frozenset((places[i], key) for key, rows in best.items() for i in rows or ()),
        frozenset(places[i] for i in np.flatnonzero(front)), tuple(legend),
    )  # fmt: skip


def numbers_of(lines: Sequence[Line], key: str, better: str) -> Numbers:
    """What the lines reached in one column, to be compared."""
    return numbers([line.records.get(key) for line in lines], better)


def rank_cells(found: Ranks) -> list[Cell]:
    """Ranks as `1 [1, 3]`; `—` where there is no number."""
    triples = zip(found.rank, found.low, found.high, strict=True)
    return [
        Cell() if isnan(r) else Cell(f"{r:.4g}", f"[{a:.4g}, {b:.4g}]", float(r), float(a), float(b))
        for r, a, b in triples
    ]


def _best(found: Numbers) -> list[int] | None:
    """The rows that are bold; None where the best cannot be compared, having neither replicates nor an error.

    ∞ is never bold, and neither is a number that stands alone.
    """
    finite = np.isfinite(found.values)
    paired = np.isfinite(found.replicates).all(axis=1) & (found.replicates.shape[1] > 0)
    comparable = finite & (paired | np.isfinite(found.error))
    sign = 1.0 if found.better == "lower" else -1.0
    if finite.sum() == 0 or (~np.isnan(found.values)).sum() < 2:
        return []
    if not comparable[np.nanargmin(np.where(finite, sign * found.values, np.inf))]:
        return None
    rows = np.flatnonzero(comparable | np.isinf(found.values))
    return [int(i) for i in rows[tied(found.take(rows))] if finite[i]]


def _not_compared(best: Mapping[str, list[int] | None]) -> list[str]:
    columns = [label_of(key) for key, rows in best.items() if rows is None]
    return [f"Nothing is bold in {', '.join(columns)}: the best has no interval to compare with."] if columns else []


def _unpaired(lines: Sequence[Line], keys: Sequence[str]) -> list[str]:
    """What is said of rows that were measured before replicates were kept."""
    old = [x for x in lines if all(replicates_of(x.records[k]) is None for k in keys if k in x.records)]
    count = "All rows have" if len(old) == len(lines) else f"{len(old)} rows have" if len(old) > 1 else "One row has"
    return [UNPAIRED.format(count)] if old else []


def _objectives(lines: Sequence[Line], everyone: Sequence[Line], primary: str) -> list[str]:
    """The columns that the front is over: the divergence, and of each of `OBJECTIVES` the first with numbers."""
    divergence = primary if primary.startswith("divergence.") else PRIMARY
    kinds = ((divergence,), *OBJECTIVES)
    found = (
        next((k for k in kind if any(_objective(x, k, everyone) is not None for x in lines)), None) for kind in kinds
    )
    return list(dict.fromkeys(key for key in found if key))


def _objective(line: Line, key: str, everyone: Sequence[Line]) -> float | None:
    """A line's number, or for diversity how far it is from that of draws of p: p's is the goal, not the most."""
    value = line.value(key)
    if key != DIVERSITY or value is None:
        return value
    goal = next((x.value(key) for x in everyone if x.mark == "ceiling"), None)
    return None if goal is None else abs(value - goal)


def _way(key: str, lines: Sequence[Line]) -> str:
    return next((x.records[key]["better"] for x in lines if key in x.records), "") or "lower"


def _front_legend(objectives: Sequence[str], lines: Sequence[Line], judged: Array) -> str:
    named = [
        f"{label_of(key)} (near that of draws of p)" if key == DIVERSITY else _arrow(key, _way(key, lines))
        for key in objectives
    ]
    lacking = int(np.isnan(judged).any(axis=1).sum())
    more = f"; {lacking} of {len(lines)} rows lack one of these and are not judged" if lacking else ""
    return f"◆: on the Pareto front of {', '.join(named)}, by the values alone{more}."


def _arrow(key: str, better: str) -> str:
    return " ".join(filter(None, (label_of(key), ARROWS.get(better, ""))))
