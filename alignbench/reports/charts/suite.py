"""Several tasks as one picture: of each row on each task the verdict and the asked gap; no drawing."""

from __future__ import annotations

from dataclasses import dataclass

from alignbench.reports.table.board import Cell, Table
from alignbench.reports.table.suite import CHEAPEST, NO_RESULT

COUNT, VERDICT = "count.", "verdict."


@dataclass(frozen=True)
class Outcome:
    """A row on one task: the verdict, "" without a result, and the asked gap as printed."""

    verdict: str
    gap: str = ""


@dataclass(frozen=True)
class SuiteRow:
    """A row of the suite: on how many tasks it has each verdict, and its outcome on each."""

    number: int
    label: str
    counts: tuple[tuple[str, int], ...]
    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True)
class Suite:
    """Rows × tasks."""

    title: str
    tasks: tuple[str, ...]
    rows: tuple[SuiteRow, ...]


def suite(table: Table) -> Suite:
    """The grid of a suite's table."""
    keys = [column.key for column in table.columns]
    tasks = [i for i, key in enumerate(keys) if key.startswith(VERDICT)]
    counted = [i for i, key in enumerate(keys) if key.startswith(COUNT)]
    rows = tuple(
        SuiteRow(
            number, row.label, tuple((table.columns[i].label, int(row.cells[i].value or 0)) for i in counted),
            tuple(_outcome(row.cells[i], table) for i in tasks),
        )
        for number, row in enumerate((row for row in table.rows if row.mark != CHEAPEST), 1)
    )  # fmt: skip
    return Suite(table.title, tuple(table.columns[i].label for i in tasks), rows)


def _outcome(cell: Cell, table: Table) -> Outcome:
    """Verdict and gap of a cell."""
    if any(table.footnotes[n - 1] == NO_RESULT for n in cell.notes):
        return Outcome("")
    return Outcome(cell.point, cell.spread)
