"""Several tasks as one table: how often each row is better than the base, and on which task by how much."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from alignbench.reports.table.board import Cell, Column, Row, Table
from alignbench.reports.table.cells import Footnotes, common_signature
from alignbench.reports.table.labels import digits
from alignbench.reports.table.verdict import Verdict, Word

NAME = "suite"
COUNTED: Mapping[str, Sequence[Word]] = {
    "better": ("better",), "trade": ("trade", "asked only"), "same": ("same",), "unclear": ("unclear",),
    "worse": ("worse",), "—": ("—", ""),
}  # fmt: skip
"""Heading of a column → the verdicts that it counts; a task without a result of the row counts as not told."""
LEGEND = (
    "Tasks on which a row is better than the base, a trade, the same, unclear, worse, or not told; of each task the "
    "verdict and the asked gap in nats. Sorted by better, then trade, then fewest worse."
)


@dataclass(frozen=True)
class Contest:
    """A table, and of its rows that are neither the base's nor pinned the verdict and the asked gap, by full label."""

    table: Table
    rows: Mapping[str, tuple[Verdict, str]]


def suites(contests: Sequence[Contest]) -> tuple[Table, ...]:
    """A suite for each base and judge of at least two tables that say something of a row."""
    groups: dict[tuple[str, str, str], list[Contest]] = {}
    for contest in contests:
        table = contest.table
        if any(verdict.word not in ("", "—") for verdict, _ in contest.rows.values()):
            groups.setdefault((table.base_id or table.base, table.base, table.judge), []).append(contest)
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


def _suite(contests: Sequence[Contest], remark: str) -> Table:
    tables = [contest.table for contest in contests]
    who = list(dict.fromkeys(name for contest in contests for name in contest.rows))
    counts = {name: _counts(name, contests) for name in who}
    order = sorted(who, key=lambda name: (-counts[name]["better"], -counts[name]["trade"], counts[name]["worse"]))
    footnotes, names = Footnotes(), _names(tables, who)
    rows = [
        _row(name, names[name], [*(_count(counts[name][word]) for word in COUNTED),
                                 *(_of_task(contest.rows.get(name), footnotes) for contest in contests)], footnotes)
        for name in order
    ]  # fmt: skip
    headings = [Column(f"verdict.{i}", _heading(table, tables)) for i, table in enumerate(tables)]
    first = tables[0]
    return Table(
        NAME, "", "", "", first.base, first.base_id, first.judge, f"{remark} · {len(tables)} tasks",
        (*(Column(f"count.{word}", word) for word in COUNTED), *headings), tuple(rows),
        tuple(footnotes.notes), common_signature([t.signature for t in tables]), (LEGEND,),
    )  # fmt: skip


def _counts(name: str, contests: Sequence[Contest]) -> Counter[str]:
    """How many tasks give a row each word; what is missing is counted too."""
    told = [contest.rows[name][0].word if name in contest.rows else "—" for contest in contests]
    return Counter(heading for word in told for heading, words in COUNTED.items() if word in words)


def _count(number: int) -> Cell:
    return Cell(str(number), value=float(number))


def _of_task(found: tuple[Verdict, str] | None, footnotes: Footnotes) -> Cell:
    """The verdict of one task, and the asked gap in nats."""
    if found is None:
        return Cell(notes=footnotes.number(["no result"]))
    verdict, gap = found
    return Cell(f"{verdict.word or '—'} {gap}".removesuffix(" —"))


def _row(who: str, label: str, cells: Sequence[Cell], footnotes: Footnotes) -> Row:
    notes = footnotes.number([who] if who != label else [])
    return Row("", "", label, "", tuple(cells), notes=notes, full=who)


def _heading(table: Table, tables: Sequence[Table]) -> str:
    """The task's name, with what tells it from another table of that task."""
    alone = sum(other.task == table.task for other in tables) == 1
    return table.task if alone else f"{table.heading}{table.remark}"


def _names(tables: Sequence[Table], full: Sequence[str]) -> dict[str, str]:
    """Full label → a short one, with digits where one stands for several generators of different tasks."""
    short = {row.full: row.label for table in tables for row in table.rows}
    count = Counter(short[who] for who in full)
    return {who: short[who] if count[short[who]] == 1 else f"{short[who]} #{digits(who)}" for who in full}
