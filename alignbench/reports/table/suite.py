"""Several tasks as one table: how often each row is better than the base, and on which task by how much."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from statistics import fmean

from alignbench.reports.table.board import Cell, Column, Row, Table
from alignbench.reports.table.cells import Footnotes, common_signature
from alignbench.reports.table.conclusion import CHEAP
from alignbench.reports.table.digits import two_digits
from alignbench.reports.table.labels import digits
from alignbench.reports.table.numbers import MISSING
from alignbench.reports.table.verdict import Verdict, Word

NAME, NO_RESULT = "suite", "no result"
CHEAPEST = "cheapest"
"""Mark of the row that has the best of each task at little cost."""
COUNTED: Mapping[str, Sequence[Word]] = {
    "better": ("better",), "trade": ("trade", "asked only"), "same": ("same",), "unclear": ("unclear",),
    "worse": ("worse",), "—": ("—", ""),
}  # fmt: skip
"""Heading of a column → the verdicts that it counts; a task without a result of the row counts as not known."""
LEGEND = (
    "Tasks on which a row is better than the base, a trade, the same, unclear, worse, or not known; of each task the "
    "verdict and the asked gap in nats. Sorted by better, then trade, then fewest worse."
)


@dataclass(frozen=True)
class Entry:
    """A row's verdict on one task, its asked gap in nats as printed, and its calls as a multiple of the base's."""

    verdict: Verdict
    gap: str = MISSING
    calls: float | None = None


@dataclass(frozen=True)
class Contest:
    """A table, the entries of its rows that are neither the base's nor pinned, by full label, and the best cheap one.

    `cheap`: the full label of the nearest row that is better at up to 1.5 times the base's calls; "" for none.
    """

    table: Table
    rows: Mapping[str, Entry]
    cheap: str = ""


def suites(contests: Sequence[Contest]) -> tuple[Table, ...]:
    """A suite for each base and judge of at least two tables that say something of a row."""
    groups: dict[tuple[str, str, str], list[Contest]] = {}
    for contest in contests:
        table = contest.table
        if any(entry.verdict.word not in ("", "—") for entry in contest.rows.values()):
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
    order = sorted(who, key=lambda name: (
        -counts[name]["better"], -counts[name]["trade"], counts[name]["worse"], _calls(name, contests), name,
    ))  # fmt: skip
    footnotes, names = Footnotes(), _names(tables, who)
    rows = [_cheapest(contests, names)] + [
        _row(name, names[name], [*(_count(counts[name][word]) for word in COUNTED),
                                 *(_of_task(contest.rows.get(name), footnotes) for contest in contests)], footnotes)
        for name in order
    ]  # fmt: skip
    headings = [Column(f"verdict.{i}", _heading(table, tables), words=True) for i, table in enumerate(tables)]
    first = tables[0]
    return Table(
        NAME, (*(Column(f"count.{word}", word) for word in COUNTED), *headings), tuple(rows),
        f"base {first.base}{remark} · {len(tables)} tasks", conclusion=findings(contests, order, names),
        footnotes=tuple(footnotes.notes), legend=(LEGEND,), signature=common_signature([t.signature for t in tables]),
        base=first.base, base_id=first.base_id, judge=first.judge,
    )  # fmt: skip


def _counts(name: str, contests: Sequence[Contest]) -> Counter[str]:
    """How many tasks give a row each word; what is missing is counted too."""
    told = [contest.rows[name].verdict.word if name in contest.rows else "—" for contest in contests]
    return Counter(heading for word in told for heading, words in COUNTED.items() if word in words)


def _calls(name: str, contests: Sequence[Contest]) -> float:
    """The calls of a row as a multiple of the base's, the mean over tasks; ∞ where none is known."""
    known = [entry.calls for contest in contests if (entry := contest.rows.get(name)) and entry.calls is not None]
    return fmean(known) if known else inf


def _count(number: int) -> Cell:
    return Cell(str(number), value=float(number))


def _of_task(found: Entry | None, footnotes: Footnotes) -> Cell:
    """The verdict of one task, and the asked gap in nats."""
    if found is None:
        return Cell(notes=footnotes.number([NO_RESULT]))
    why = [found.verdict.more] if found.verdict.word == MISSING and found.verdict.more else []
    return Cell(found.verdict.word or MISSING, "" if found.gap == MISSING else found.gap, notes=footnotes.number(why))


def findings(contests: Sequence[Contest], order: Sequence[str], names: Mapping[str, str]) -> str:
    """At most three sentences, a line each: the best row, the best ones at little cost, those that do harm."""
    return "\n".join([*_best(contests, order, names), *_cheap(contests, names), *_harm(contests, order, names)])


def _best(contests: Sequence[Contest], order: Sequence[str], names: Mapping[str, str]) -> list[str]:
    """The row that is better on most tasks, and what it costs; the first of the order."""
    entries = [contest.rows[order[0]] for contest in contests if order and order[0] in contest.rows]
    better = [entry for entry in entries if entry.verdict.word == "better"]
    if not better:
        return ["No row is shown nearer p than the base on any task."]
    calls = sorted(entry.calls for entry in better if entry.calls is not None)
    cost = f", at {_times(calls[0], calls[-1])}× its calls" if calls else ""
    return [f"{names[order[0]]} is better than the base on {len(better)} of {len(contests)} tasks{cost}."]


def _times(low: float, high: float) -> str:
    return "–".join(dict.fromkeys((two_digits(low), two_digits(high))))


def _cheap(contests: Sequence[Contest], names: Mapping[str, str]) -> list[str]:
    """What to take on which tasks at up to 1.5 times the base's calls."""
    count = Counter(contest.cheap for contest in contests)
    none = count.pop("", 0)
    if not count:
        return [f"At up to {CHEAP:g}× its calls no row is better on any task."]
    found = ", ".join(f"{names[who]} on {number}" for who, number in count.most_common(3))
    found += f" and {len(count) - 3} others" if len(count) > 3 else ""
    return [f"At up to {CHEAP:g}× its calls the best is {found}" + (f"; on {none} no row is better." if none else ".")]


def _harm(contests: Sequence[Contest], order: Sequence[str], names: Mapping[str, str]) -> list[str]:
    """The rows that are worse than the base on the most tasks."""
    count = Counter({who: _counts(who, contests)["worse"] for who in order})
    worst = [f"{names[who]} on {number}" for who, number in count.most_common(4) if number]
    return [f"Worse than doing nothing: {', '.join(worst)} of {len(contests)} tasks."] if worst else []


def _row(who: str, label: str, cells: Sequence[Cell], footnotes: Footnotes) -> Row:
    notes = footnotes.number([who] if who != label else [])
    return Row(label, tuple(cells), notes=notes, full=who)


def _cheapest(contests: Sequence[Contest], names: Mapping[str, str]) -> Row:
    """The first row: of each task the best row at up to 1.5 times the base's calls, which may be the base."""
    cells = [Cell(names.get(contest.cheap, "base")) for contest in contests]
    return Row(f"best at up to {CHEAP:g}× the calls", (*(Cell("") for _ in COUNTED), *cells), mark=CHEAPEST)


def long_name(table: Table) -> str:
    """Task and version of a table, with what tells it from others of that task."""
    return f"{table.heading}{table.subtitle.removeprefix(f'base {table.base}')}"


def _heading(table: Table, tables: Sequence[Table]) -> str:
    """The task's name, with what tells it from another table of that task."""
    alone = sum(other.task == table.task for other in tables) == 1
    return table.task if alone else long_name(table)


def _names(tables: Sequence[Table], full: Sequence[str]) -> dict[str, str]:
    """Full label → a short one, with digits where one stands for several generators of different tasks."""
    short = {row.full: row.label for table in tables for row in table.rows}
    count = Counter(short[who] for who in full)
    return {who: short[who] if count[short[who]] == 1 else f"{short[who]} #{digits(who)}" for who in full}
