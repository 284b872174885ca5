"""Several tasks as one table: the mean of each generator's ranks (Borda), and a column of ranks for each task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from alignbench.reports.table.board import Cell, Column, Row, Table
from alignbench.reports.table.cells import Footnotes, common_signature
from alignbench.reports.table.labels import digits
from alignbench.reports.table.pairs import numbers
from alignbench.reports.table.standing import NO_NUMBER, rank_cells
from alignbench.stats.ranks import Numbers, borda
from alignbench.types import Array

Record = Mapping[str, Any]

NAME = "suite"
LEGEND = (
    "Of each task: the rank in its own table. Mean rank (Borda): among the {} rows that no task misses, equal numbers "
    "sharing the mean of their ranks, with 95 % limits."
)
ALONE = "Not shown: rows of one task alone ({})."
MISSES = "a task is missing"
ALIKE = "the rows that no task misses are equal on every task: their mean rank would say nothing"


@dataclass(frozen=True)
class Contest:
    """A table whose rows may be ranked, and what each reached by the primary metric."""

    table: Table
    records: Mapping[str, Record]  # of the rows that are not pinned, by their labels in full
    better: str


def suites(contests: Sequence[Contest]) -> tuple[Table, ...]:
    """A suite for each base and judge of at least two tables with rows to rank."""
    groups: dict[tuple[str, str, str], list[Contest]] = {}
    for contest in contests:
        table = contest.table
        if contest.better and len(contest.records) > 1 and _ranks(contest):
            groups.setdefault((table.base_id or table.base, table.base, table.judge), []).append(contest)
    several = {key: group for key, group in groups.items() if len(group) > 1}
    return tuple(_suite(group, _remark(key, list(several))) for key, group in several.items())


def _ranks(contest: Contest) -> bool:
    """Whether some row has a finite number: else its table ranks none."""
    values = numbers(list(contest.records.values()), contest.better).values
    return bool(np.isfinite(values).any())


def _remark(key: tuple[str, str, str], keys: Sequence[tuple[str, str, str]]) -> str:
    """What tells a suite from others: the base's digits, the judge."""
    digits, base, judge = key
    namesakes = {other[0] for other in keys if other[1] == base}
    judges = {other[2] for other in keys}
    return (f" #{digits}" if len(namesakes) > 1 else "") + (
        f" · judge {judge or 'the base'}" if len(judges) > 1 else ""
    )


def _suite(contests: Sequence[Contest], remark: str) -> Table:
    tables = [contest.table for contest in contests]
    everyone = list(dict.fromkeys(name for contest in contests for name in contest.records))
    who = [name for name in everyone if sum(name in contest.records for contest in contests) > 1]
    tasks = [numbers([contest.records.get(name) for name in who], contest.better) for contest in contests]
    known = ~np.isnan([task.values for task in tasks])  # (tasks, rows)
    told = _tells_apart(tasks, np.asarray(known.all(axis=0)))
    mean = rank_cells(borda(tasks)) if told and who else [Cell() for _ in who]
    order = sorted(range(len(who)), key=lambda i: (-known[:, i].sum(), mean[i].value or 0))
    footnotes, names = Footnotes(), _names(tables, who)
    own = [{row.full: row.rank for row in table.rows} for table in tables]
    why = [ALIKE if known[:, i].all() else MISSES for i in range(len(who))]
    rows = [
        _row(who[i], names[i], [_missing(mean[i], [why[i]], footnotes), _count(known[:, i]),
                                *(_copied(ranks.get(who[i]), footnotes) for ranks in own)], footnotes)
        for i in order
    ]  # fmt: skip
    headings = [Column(f"rank.{i}", _heading(table, tables)) for i, table in enumerate(tables)]
    alone, first = len(everyone) - len(who), tables[0]
    return Table(
        NAME, "", "", "", first.base, first.base_id, first.judge, f"{remark} · {len(tables)} tasks",
        (Column("mean_rank", "mean rank", "lower"), Column("tasks", "tasks"), *headings), tuple(rows),
        tuple(footnotes.notes), common_signature([t.signature for t in tables]),
        (LEGEND.format(int(known.all(axis=0).sum())), *([ALONE.format(alone)] if alone else [])),
    )  # fmt: skip


def _tells_apart(tasks: Sequence[Numbers], complete: Array) -> bool:
    """Whether some task tells the rows that no task misses apart; such as are ∞ everywhere it does not."""
    return any(len(np.unique(task.values[complete])) > 1 for task in tasks)


def _row(who: str, label: str, cells: Sequence[Cell], footnotes: Footnotes) -> Row:
    notes = footnotes.number([who] if who != label else [])
    return Row("", "", label, "", tuple(cells), notes=notes, full=who)


def _count(known: Array) -> Cell:
    """The number of tasks that a row is ranked on."""
    return Cell(str(known.sum()), value=float(known.sum()))


def _copied(rank: Cell | None, footnotes: Footnotes) -> Cell:
    """A rank without the footnotes of its own table, which are others here."""
    return _missing(rank or Cell(), ["no result" if rank is None else NO_NUMBER], footnotes)


def _missing(cell: Cell, why: Sequence[str], footnotes: Footnotes) -> Cell:
    return replace(cell, notes=footnotes.number(why) if cell.value is None else ())


def _heading(table: Table, tables: Sequence[Table]) -> str:
    """The task's name, with what tells it from another table of that task."""
    alone = sum(other.task == table.task for other in tables) == 1
    return table.task if alone else f"{table.heading}{table.remark}"


def _names(tables: Sequence[Table], full: Sequence[str]) -> list[str]:
    """Short labels, with digits where one stands for several generators of different tasks."""
    short = {row.full: row.label for table in tables for row in table.rows}
    count = Counter(short[who] for who in full)
    return [short[who] if count[short[who]] == 1 else f"{short[who]} #{digits(who)}" for who in full]
