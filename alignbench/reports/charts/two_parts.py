"""The two parts of KL(p‖π) against each other: what of the asked is missing, and what was changed besides; no drawing.

KL(p‖π) = asked gap + collateral, so that the rows as far from p as the base lie on one line, and below it is nearer.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import inf, isfinite, nan

import numpy as np

from alignbench.reports.charts.data import LeftOut
from alignbench.reports.charts.looks import look_of
from alignbench.reports.table.board import PINNED, Cell, Row, Table
from alignbench.reports.table.brief_columns import COLLATERAL
from alignbench.reports.table.digits import two_digits
from alignbench.reports.table.verdict import ASKED, KL
from alignbench.stats.ranks import pareto

BEYOND = 1.5
"""Times the base's asked gap, where the plot ends."""
LEAST = 0.1
"""Nats that the plot reaches at least where the base has no asked gap."""
LOW, HIGH = 0.01, 100.0
"""Nats of collateral between which it is logarithmic."""


@dataclass(frozen=True)
class TwoPartsRow:
    """What is drawn of one row; a cell without a value is a limit: at least `low`, at most `high`, or not measured."""

    number: int  # in its table, from 1
    label: str
    verdict: str
    is_base: bool
    pinned: bool
    asked: Cell
    collateral: Cell
    kl: Cell
    kept: float | None  # share of p's mass that the law keeps
    mark: str = ""  # of the table


@dataclass(frozen=True)
class TwoPartsPoint:
    """A row in the plot; `named` has its name beside it, others their number."""

    row: TwoPartsRow
    look: str
    front: bool
    named: bool

    @property
    def asked(self) -> float:
        """The asked gap, or the limit that is known of it, nats."""
        return _known(self.row.asked)

    @property
    def collateral(self) -> float | None:
        """The collateral, or the limit that is known of it, nats; None where it is not measured."""
        cell = self.row.collateral
        return None if _is_silent(cell) else _known(cell)

    @property
    def keeps(self) -> str:
        """How much of p's mass the law keeps where it is ∞ away, "" elsewhere."""
        kept = self.row.kept
        if kept is None or self.collateral != inf:
            return ""
        return f"keeps {two_digits(100 * kept)} %"

    @property
    def told(self) -> str:
        """The point in words: its numbers, the mass that is kept where it is ∞ away, and the verdict."""
        row = self.row
        other = "collateral not measured" if self.collateral is None else f"collateral {row.collateral.text}"
        verdict = "" if row.is_base or row.verdict in ("", "—") else f"vs base: {row.verdict}"
        return f"{row.label}: " + ", ".join(filter(None, (f"asked gap {row.asked.text}", other, self.keeps, verdict)))


@dataclass(frozen=True)
class TwoParts:
    """Asked gap against collateral, from 0 to `limit` nats across; `kl` is KL(p‖a) of the base a, None if not known."""

    title: str
    limit: float
    kl: float | None
    points: tuple[TwoPartsPoint, ...]
    left_out: tuple[LeftOut, ...]

    @property
    def front(self) -> tuple[TwoPartsPoint, ...]:
        """The points on the front from left to right."""
        return tuple(sorted((p for p in self.points if p.front), key=lambda p: p.asked))


def two_parts(rows: Sequence[TwoPartsRow], title: str, focus: Collection[int] = ()) -> TwoParts | None:
    """The plot of these rows; front, base, and those whose number is in `focus` are named. None where none is known."""
    known = [row for row in rows if not _is_silent(row.asked)]
    left_out = [LeftOut(row.number, row.label, f"{ASKED}: {row.asked.text}") for row in rows if row not in known]
    if not known:
        return None
    base = next((row for row in known if row.is_base), None)
    found = [
        TwoPartsPoint(row, look_of("base" if row.is_base else row.mark, row.verdict), best,
                      best or row.is_base or row.number in focus)
        for row, best in zip(known, _front(known), strict=True)
    ]  # fmt: skip
    return TwoParts(title, _limit(base, known), _kl(base), tuple(found), tuple(left_out))


def _limit(base: TwoPartsRow | None, rows: Sequence[TwoPartsRow]) -> float:
    """1.5 times the base's asked gap; where there is none or it is 0, of the largest known."""
    own = base.asked.value if base is not None else None
    if own is not None and isfinite(own) and own > 0:
        return BEYOND * own
    values = (_known(row.asked) for row in rows)
    return max(BEYOND * max((v for v in values if isfinite(v)), default=0.0), LEAST)


def _kl(base: TwoPartsRow | None) -> float | None:
    """KL(p‖a) of the base: as measured, else the sum of its parts."""
    if base is None:
        return None
    parts = (base.asked.value, base.collateral.value)
    total = base.kl.value if base.kl.value is not None else None if None in parts else sum(v or 0.0 for v in parts)
    return total if total is not None and isfinite(total) and total > 0 else None


def _front(rows: Sequence[TwoPartsRow]) -> list[bool]:
    """Which rows no other beats in both parts, by finite values; neither pinned ones nor those worse than the base."""
    values = [
        (nan, nan) if row.pinned or row.verdict == "worse" else (_finite(row.asked), _finite(row.collateral))
        for row in rows
    ]
    return [bool(best) for best in pareto(np.array(values, dtype=float), ("lower", "lower"))]


def _finite(cell: Cell) -> float:
    return nan if cell.value is None or not isfinite(cell.value) else cell.value


def _is_silent(cell: Cell) -> bool:
    """Whether neither a value nor a finite limit is known."""
    return cell.value is None and not any(limit is not None and isfinite(limit) for limit in (cell.low, cell.high))


def _known(cell: Cell) -> float:
    """The value, or the limit that is known."""
    if cell.value is not None:
        return cell.value
    ends = [limit for limit in (cell.low, cell.high) if limit is not None and isfinite(limit)]
    return ends[0] if ends else nan


def rows_of(brief: Table) -> list[TwoPartsRow]:
    """The rows of a brief table, whose cells have a limit alone where that is all that is known."""
    places = {column.key: i for i, column in enumerate(brief.columns)}

    def row_of(number: int, row: Row) -> TwoPartsRow:
        asked, collateral, kl = (
            Cell() if (place := places.get(key)) is None else row.cells[place] for key in (ASKED, COLLATERAL, KL)
        )
        pinned = row.mark in PINNED and row.mark != "baseline"
        return TwoPartsRow(
            number, row.label, row.cells[0].point, row.is_base, pinned, asked, collateral, kl, row.kept, row.mark
        )

    return [row_of(number, row) for number, row in enumerate(brief.rows, 1)]
