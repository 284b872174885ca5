"""Where the rows of a table stand: ranks, what is bold, and the Pareto front. Pinned rows take no part."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isnan

import numpy as np

from alignbench.metrics.replicates import replicates_of
from alignbench.reports.table.board import ARROWS, NO_RANK, PINNED, Cell
from alignbench.reports.table.cells import Footnotes
from alignbench.reports.table.columns import label_of
from alignbench.reports.table.lines import Line
from alignbench.reports.table.numbers import MISSING
from alignbench.reports.table.pairs import numbers
from alignbench.stats.ranks import Numbers, Ranks, pareto, ranks, tied
from alignbench.types import PRIMARY

RANKS = (
    "Rank: 1 + the rows with a better {}, with limits that hold for all {} rows at once with 95 %, from paired "
    "differences."
)
BOLD = "Bold: the best of a column and all that is tied with it at 95 % (paired differences, adjusted for the rows)."
APART = "Rows below the others are there to compare with: neither ranked nor bold."
UNPAIRED = "{} no replicates: told apart by the sum of standard errors, which holds whatever they share."
NO_NUMBER = "no number to rank by"
UNRANKED = "Nothing is ranked: no row has a finite {}."
COSTS = ("cost.calls_per_draw", "cost.tokens_per_draw")
"""What a generator is weighed by beside its divergence: the first that the table has numbers of."""
NEAR_P = ("perplexity", "distinct", "self_bleu", "vendi", "length", "entropy", "satisfaction.reward", "features")
"""Metrics, or beginnings of columns, of which p's own number is the goal, not the most nor the least: a law of
perplexity 5.5 where p has 18.7 is sharpened, not fluent."""


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


def standing_of(
    lines: Sequence[Line], primary: str, better: Mapping[str, str], worse: Collection[int] = ()
) -> Standing:
    """Ranks by `primary`, bold numbers in each column of `better` (key → direction) that has one, and the front.

    What is infinitely far from p has no rank. The rows `worse` than the base are neither bold nor on the front.
    """
    places = [i for i, line in enumerate(lines) if line.mark not in PINNED]
    some, lost = [lines[i] for i in places], {k for k, i in enumerate(places) if i in worse}
    if len(some) < 2:
        return NOTHING
    reached = _finite(numbers_of(some, primary, better[primary]))
    infinite = bool(better[primary]) and not np.isfinite(reached.values).any()
    found = rank_cells(ranks(reached)) if better[primary] and not infinite else []
    best = {key: _best(_towards(some, lines, key, way)) for key, way in better.items() if way}
    costs = _costs(some, primary)
    front = [k for k in _front(some, costs) if k not in lost]
    legend = [
        *([RANKS.format(_arrow(primary, better[primary]), sum(c.value is not None for c in found))] if found else []),
        *([UNRANKED.format(_arrow(primary, better[primary]))] if infinite else []),
        BOLD, *_not_compared(best), *_unpaired(some, [*better]),
        *([_front_legend(costs, some)] if costs else []),
        *([APART] if len(some) < len(lines) else []),
    ]  # fmt: skip
    return Standing(
        {places[i]: cell for i, cell in enumerate(found)},
        frozenset((places[i], key) for key, rows in best.items() for i in rows or () if i not in lost),
        frozenset(places[i] for i in front), tuple(legend),
    )  # fmt: skip


def near_p(key: str) -> bool:
    """Whether p's own number is the goal of a column."""
    return any(key == name or key.startswith(f"{name}.") for name in NEAR_P)


def goal_of(lines: Sequence[Line], key: str) -> float | None:
    """The number that draws of p have in a column."""
    return next((line.value(key) for line in lines if line.mark == "ceiling"), None)


def _finite(reached: Numbers) -> Numbers:
    """The same without what is infinite: it has no rank."""
    return replace(reached, values=np.where(np.isinf(reached.values), np.nan, reached.values))


def _towards(some: Sequence[Line], lines: Sequence[Line], key: str, way: str) -> Numbers:
    """What the rows reached, or where p's own number is the goal how far from it they are."""
    if way != "near":
        return numbers_of(some, key, way)
    reached, goal = numbers_of(some, key, "lower"), goal_of(lines, key)
    assert goal is not None
    return replace(reached, values=np.abs(reached.values - goal), replicates=np.abs(reached.replicates - goal))


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


def _costs(lines: Sequence[Line], primary: str) -> tuple[str, str] | None:
    """The two columns that the front is over: the divergence, and what a draw costs; None where one has no numbers."""
    divergence = primary if primary.startswith("divergence.") else PRIMARY
    known = [key for key in (divergence, *COSTS) if any(line.value(key) is not None for line in lines)]
    return (divergence, known[1]) if known[:1] == [divergence] and len(known) > 1 else None


def _front(lines: Sequence[Line], costs: tuple[str, str] | None) -> list[int]:
    """The rows that no other beats in both columns; none that is infinitely far."""
    if costs is None:
        return []
    judged = np.array([[line.value(key) for key in costs] for line in lines], float)
    judged[np.isinf(judged[:, 0])] = np.nan
    return [int(i) for i in np.flatnonzero(pareto(judged, ["lower", "lower"]))]


def _front_legend(costs: tuple[str, str], lines: Sequence[Line]) -> str:
    lacking = sum(any(line.value(key) is None for key in costs) for line in lines)
    more = f"; {lacking} of {len(lines)} rows lack one of these and are not judged" if lacking else ""
    return f"◆: on the Pareto front of {' and '.join(_arrow(key, 'lower') for key in costs)}, by the values{more}."


def _arrow(key: str, better: str) -> str:
    return " ".join(filter(None, (label_of(key), ARROWS.get(better, ""))))
