"""All charts of a leaderboard, for tests: of each table the same rows, labels and verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from alignbench.reports.charts.data import (
    Bars,
    Curves,
    Scatter,
    charted,
    divergences,
    moments,
    series,
    steps_of,
    sweeps,
    tradeoff,
)
from alignbench.reports.charts.two_parts import TwoParts, rows_of, two_parts
from alignbench.reports.table.board import Leaderboard, Table
from alignbench.reports.table.lines import HASH

COSTS = ("cost.calls_per_draw", "cost.tokens_per_draw", "cost.proposals_per_draw")
"""What the task asks is shown against the first of these that some row has."""


@dataclass(frozen=True)
class Charts:
    """All charts of one table, None or empty where its rows have nothing to show."""

    table: Table
    two_parts: TwoParts | None
    tradeoff: Scatter | None
    by_cost: Scatter | None
    moments: Bars | None
    divergences: Bars | None
    series: Curves | None
    sweeps: tuple[Curves, ...]


def charts_of(board: Leaderboard) -> tuple[Charts | None, ...]:
    """The charts of each table of a leaderboard, whichever columns it shows.

    None where versions of a task share a table, since their numbers are not comparable.
    """
    steps = steps_of(board.rows)
    tables = charted(board.rows, board.asked, judged=True) if board.tables else ()
    return tuple(None if is_mixed(table) else _charts(table, steps) for table in tables)


def is_mixed(table: Table) -> bool:
    """Whether rows of several versions of the task share it."""
    return len({row.who[HASH] for row in table.rows if row.who}) > 1


def _charts(table: Table, steps: Mapping[tuple[str, str], int]) -> Charts:
    costs = (chart for key in COSTS if (chart := tradeoff(table, key)) is not None)
    parts = None if table.brief is None else two_parts(rows_of(table.brief), table.title)
    return Charts(
        table, parts, tradeoff(table), next(costs, None), moments(table), divergences(table), series(table, steps),
        sweeps(table),
    )  # fmt: skip
