"""Several tasks as one table: the mean of each generator's ranks (Borda), and a column of ranks for each task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256

from alignbench.reports.board import Cell, Column, Row, Table
from alignbench.reports.cells import Footnotes, common_signature
from alignbench.reports.numbers import spell

NAME = "suite"
LEGEND = (
    "Mean rank over the tasks (Borda), with the means of the ranks' own 95 % limits; a generator that is not ranked on"
    " every task has none."
)
HOW = "rank by the task's primary metric, among the rows that are ranked there"


def suites(tables: Sequence[Table]) -> tuple[Table, ...]:
    """A suite for each base and judge of at least two tables in which rows are ranked."""
    groups: dict[tuple[str, str, str], list[Table]] = {}
    for table in tables:
        if table.ranked:
            groups.setdefault((table.base_id or table.base, table.base, table.judge), []).append(table)
    several = {key: group for key, group in groups.items() if len(group) > 1}
    return tuple(_suite(group, _remark(key, list(several))) for key, group in several.items())


def _remark(key: tuple[str, str, str], keys: Sequence[tuple[str, str, str]]) -> str:
    """What tells a suite from others: the base's digits, the judge."""
    digits, base, judge = key
    namesakes = {other[0] for other in keys if other[1] == base}
    judges = {other[2] for other in keys}
    return (f" #{digits}" if len(namesakes) > 1 else "") + (
        f" · judge {judge or 'the base'}" if len(judges) > 1 else ""
    )


def _suite(tables: Sequence[Table], remark: str) -> Table:
    ranks = {who: [_rank(table, who) for table in tables] for who in _generators(tables)}
    names = _names(tables, list(ranks))
    order = sorted(ranks, key=lambda who: _mean(ranks[who]) or (float("inf"),))
    footnotes = Footnotes()
    columns = (
        Column("mean_rank", "mean rank", "lower"), Column("tasks", "tasks"),
        *(Column(f"rank.{i}", _heading(t, tables), notes=footnotes.number([HOW])) for i, t in enumerate(tables)),
    )  # fmt: skip
    rows = [_row(who, names[who], ranks[who], [c.label for c in columns[2:]], footnotes) for who in order]
    first = tables[0]
    return Table(
        NAME, "", "", "", first.base, first.base_id, first.judge, f"{remark} · {len(tables)} tasks", columns,
        tuple(rows), tuple(footnotes.notes), common_signature([t.signature for t in tables]), (LEGEND,),
    )  # fmt: skip


def _generators(tables: Sequence[Table]) -> list[str]:
    """The rows that are ranked somewhere, by their names in full: what names a generator across tasks."""
    return list(dict.fromkeys(row.full for table in tables for row in table.rows if row.rank.point))


def _rank(table: Table, who: str) -> Cell | None:
    return next((row.rank for row in table.rows if row.full == who), None)


def _mean(ranks: Sequence[Cell | None]) -> tuple[float, float, float] | None:
    """Mean rank and the means of the lower and of the upper limits; None where a task is missing."""
    known = [(r.value, r.low, r.high) for r in ranks if r is not None and r.value is not None]
    whole = [(v, low or v, high or v) for v, low, high in known if v is not None]
    if len(whole) < len(ranks):
        return None
    value, low, high = (sum(column) / len(ranks) for column in zip(*whole, strict=True))
    return value, low, high


def _heading(table: Table, tables: Sequence[Table]) -> str:
    """The task's name, with what tells it from another table of that task."""
    alone = sum(other.task == table.task for other in tables) == 1
    return table.task if alone else f"{table.heading}{table.remark}"


def _names(tables: Sequence[Table], full: Sequence[str]) -> Mapping[str, str]:
    """Short labels, with digits where one stands for several generators of different tasks."""
    short = {row.full: row.label for table in tables for row in table.rows}
    labels = [short[who] for who in full]
    return {
        who: short[who] if labels.count(short[who]) == 1 else
        f"{short[who]} #{sha256(who.encode('utf-8', 'backslashreplace')).hexdigest()[:8]}"
        for who in full
    }  # fmt: skip


def _row(who: str, label: str, ranks: Sequence[Cell | None], tasks: Sequence[str], footnotes: Footnotes) -> Row:
    notes = footnotes.number([who] if who != label else [])
    missing = [task for task, rank in zip(tasks, ranks, strict=True) if rank is None or rank.value is None]
    mean = _mean(ranks)
    first = Cell(notes=footnotes.number([f"not ranked on {', '.join(missing)}"]))
    if mean is not None:
        first = Cell(*spell(*mean), *mean)
    cells = (first, Cell(str(len(ranks) - len(missing)), value=float(len(ranks) - len(missing))))
    return Row("", "", label, "", (*cells, *(_copied(rank, footnotes) for rank in ranks)), notes=notes, full=who)


def _copied(rank: Cell | None, footnotes: Footnotes) -> Cell:
    """A rank without the footnotes of its own table."""
    if rank is None or rank.value is None:
        return Cell(notes=footnotes.number(["no result" if rank is None else "no number to rank by"]))
    return replace(rank, notes=())
