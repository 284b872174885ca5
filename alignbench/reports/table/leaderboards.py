"""Tidy rows arranged into leaderboards: a table for each task, target, base and judge, and suites over tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from alignbench.errors import UsageError, unknown
from alignbench.reports.formats.markdown import to_markdown
from alignbench.reports.rows import tidy
from alignbench.reports.table.board import Arrangement, Cell, Column, Leaderboard, Row, Table, plain_text
from alignbench.reports.table.brief import VERDICT, brief, title_of, verdict_cell
from alignbench.reports.table.brief_columns import CALLS, KEPT, gap_of
from alignbench.reports.table.cells import Footnotes, cell, common_signature, number, shared_notes
from alignbench.reports.table.columns import COMPACT, COST, check_metrics, chosen_keys, label_of
from alignbench.reports.table.conclusion import cheap
from alignbench.reports.table.deltas import Deltas, deltas_of
from alignbench.reports.table.groups import Setting, grouped, records_of, remarks_of
from alignbench.reports.table.lines import Line, fewer_draws, fits, in_order, lines_of, pinned, renamed
from alignbench.reports.table.seeds import key_of, with_means
from alignbench.reports.table.standing import NOTHING, Standing, goal_of, near_p, standing_of
from alignbench.reports.table.suite import Contest, Entry, suites
from alignbench.reports.table.verdict import NOT_TOLD, Verdict, verdicts
from alignbench.reports.table.verdict import legend as legend_of
from alignbench.types import PRIMARY

Record = Mapping[str, Any]


@dataclass(frozen=True)
class _View:
    """What is asked of a table."""

    metrics: Sequence[str] | None
    primary: str  # the column that sorts and ranks it
    baseline: str  # the row that the others are told their differences to; "" for none
    mixed: int  # versions of the task that share it
    judged: bool  # whether its rows are ranked and compared


class _Printable(Leaderboard):
    """A leaderboard whose `str` is its Markdown: `board` itself knows no format."""

    def __str__(self) -> str:
        return to_markdown(self)


def leaderboard(
    rows: pd.DataFrame,
    *,
    metrics: Sequence[str] | None = None,
    primary: Mapping[str, str | None] | None = None,
    baseline: str = "",
    allow_mixed: bool = False,
    rename: Mapping[str, str] | None = None,
) -> Leaderboard:
    """Leaderboards of tidy `rows`: rows of different task hash, target, base or judge never share a table.

    `metrics` picks columns by metric or `metric.part`; `primary` maps a task to the column that it is sorted and
    ranked by (default: what `rows.attrs` say under "primary", else divergence.kl_target); under "summaries" they may
    say what each task asks. `baseline` names a row:
    each cell then has its paired difference to that row's beside it. With `allow_mixed` the versions of a task share
    a table, in which nothing is ranked. `rename` maps labels (or patterns) of rows to what
    they are called. Raises UnknownName where `metrics` or `baseline` is a name that no row bears, and UsageError where
    `rows` are no table or two rows would have one name.
    """
    if not isinstance(rows, pd.DataFrame):
        raise UsageError(f"leaderboard: takes the rows that `evaluate` gives, not a {type(rows).__name__}")
    first = primary if primary is not None else _told(rows, "primary")
    return arranged(rows, Arrangement(first, baseline, allow_mixed, rename or {}, _told(rows, "summaries")), metrics)


def _told(rows: pd.DataFrame, name: str) -> Mapping[str, str]:
    """What the rows' attributes say of their tasks."""
    told = rows.attrs.get(name)
    return told if isinstance(told, Mapping) else {}


def arranged(
    rows: pd.DataFrame,
    asked: Arrangement,
    metrics: Sequence[str] | None = None,
    *,
    judged: bool = True,
    partly: bool = False,
) -> Leaderboard:
    """The same; where rows are not to be `judged` there are no ranks, no differences and no suites, which take long.

    Of rows that are `partly` there, names in `asked` may be those of others.
    """
    rows, baseline = with_means(tidy(rows)), asked.baseline
    check_metrics(metrics or (), rows)
    groups = grouped(rows, mixed=asked.allow_mixed)
    remarks = remarks_of([(setting, group["base"].iloc[0]) for setting, group in groups.items()])
    tables, contests, known, met = list[Table](), list[Contest](), set[str](), set[str]()
    for (setting, group), remark in zip(groups.items(), remarks, strict=True):
        records = records_of(group)
        primary = asked.primary.get(setting.task) or PRIMARY
        view = _View(metrics, primary, baseline, group["task_hash"].nunique(), judged)
        lines = lines_of(records)
        met |= {old for old in asked.rename if any(fits(line, old) for line in lines)}
        lines = renamed(lines, asked.rename)
        known |= {line.label for line in lines}
        lines = pinned(lines, baseline) if baseline else lines
        tables.append(_table(records, lines, view, setting, remark))
        contests.append(_contest(tables[-1], lines, view))
    if tables and not partly and (lost := [old for old in asked.rename if old not in met]):
        raise unknown("row", lost[0], known, "--rename")
    if baseline and tables and not any(row.mark == "baseline" for table in tables for row in table.rows):
        raise unknown("row", baseline, known, "--baseline")
    return _Printable(tuple(tables), rows, suites(contests) if judged else (), asked)


def _table(group: Sequence[Record], lines: Sequence[Line], view: _View, setting: Setting, remark: str) -> Table:
    keys = chosen_keys(group, view.metrics, view.primary)
    better = {key: _better(group, key) for key in (*keys, view.primary)}
    better |= {key: _towards(lines, key) for key in better if near_p(key) and key != view.primary}
    lines = in_order(lines, view.primary, better[view.primary] or "lower")
    found = verdicts(lines) if view.judged and view.mixed < 2 else []
    footnotes = Footnotes()
    shared = {key: shared_notes([line.records[key] for line in lines if key in line.records]) for key in keys}
    columns = [Column(key, label_of(key), better[key], notes=footnotes.number(shared[key])) for key in keys]
    deltas = deltas_of(lines, keys, view.baseline) if view.judged else Deltas()
    columns = [part for column in columns for part in _with_asides(column, lines, deltas, footnotes)]
    worse = {i for i, verdict in enumerate(found) if verdict.word == "worse"}
    judged = view.judged and view.mixed < 2
    standing = standing_of(lines, view.primary, better, worse) if judged else NOTHING
    columns = [*([VERDICT] if _says_something(found) else []), *columns]
    context = _Context(shared, standing, deltas, footnotes, found)
    rows = [_row(i, line, columns, context) for i, line in enumerate(lines)]
    task, base, base_id, judge = (plain_text(group[0][name]) for name in ("task", "base", "base_id", "judge"))
    shown = found and any(line.mark != "ceiling" for line in lines)
    version = plain_text(", ".join(dict.fromkeys(r["task_version"] for r in group)))
    legend = (*_mixed(view.mixed), *_fewer(group), *legend_of(found), *standing.legend, *deltas.legend)
    return Table(
        f"{task} v{version}" if version else task, tuple(columns), tuple(rows), f"base {base}{remark}",
        footnotes=tuple(footnotes.notes), legend=legend, signature=_signature(lines, keys),
        task=task, version=version, task_hash=plain_text(setting.task_hash), target_id=plain_text(setting.target_id),
        base=base, base_id=base_id, judge=judge,
        brief=brief(lines, found, title_of(lines, task, f"{base}{remark}")) if shown else None,
    )  # fmt: skip


@dataclass(frozen=True)
class _Context:
    """What a row needs to know of its table."""

    shared: Mapping[str, Sequence[str]]  # notes at the heads of columns
    standing: Standing
    deltas: Deltas
    footnotes: Footnotes
    verdicts: Sequence[Verdict]


def _contest(table: Table, lines: Sequence[Line], view: _View) -> Contest:
    """What the suite needs to know of a table; rows of several versions take no part."""
    if view.mixed > 1 or not view.judged:
        return Contest(table, {})
    found = verdicts(lines)
    told = zip(lines, found, strict=True)
    judged = [(line, verdict) for line, verdict in told if line.mark in ("", "baseline") and not line.is_base]
    calls = next((line.value(CALLS) for line in lines if line.is_base), None)
    entries = {line.full: Entry(verdict, gap_of(line), _ratio(line.value(CALLS), calls)) for line, verdict in judged}
    return Contest(table, entries, next((line.full for line in cheap(lines, found)), ""))


def _ratio(calls: float | None, of_base: float | None) -> float | None:
    return calls / of_base if calls and of_base else None


def _row(i: int, line: Line, columns: Sequence[Column], context: _Context) -> Row:
    footnotes, standing = context.footnotes, context.standing
    notes = footnotes.number([line.full] if line.full != line.label else [])
    rank = standing.rank(i, footnotes)
    return Row(
        line.label, tuple(_cell(i, line, column, context) for column in columns),
        plain_text(line.generator), plain_text(line.aligner), line.mark, line.is_base,
        rank, i in standing.front, notes, line.value(KEPT), line.full, line.who,
    )  # fmt: skip


def _cell(i: int, line: Line, column: Column, context: _Context) -> Cell:
    if column is VERDICT:
        return verdict_cell(context.verdicts[i], context.footnotes)
    record = line.records.get(column.key)
    if column.delta:
        return context.deltas.cell(i, column.key, context.footnotes)
    best = not column.exact and (i, column.key) in context.standing.best
    return cell(record, column, context.shared[column.key], context.footnotes, best=best)


def _says_something(found: Sequence[Verdict]) -> bool:
    """Whether some row has a verdict."""
    return any(verdict.word not in ("", "—") for verdict in found) or any(v.more == NOT_TOLD for v in found)


def _towards(lines: Sequence[Line], key: str) -> str:
    """Nearer to p is better where draws of p have a number; else nothing is."""
    return "" if goal_of(lines, key) is None else "near"


def _better(group: Sequence[Record], key: str) -> str:
    """Which way is better, as the last row that says so has it."""
    return next((r["better"] for r in reversed(group) if r["better"] and key_of(r) == key), "")


def _with_asides(column: Column, lines: Sequence[Line], deltas: Deltas, footnotes: Footnotes) -> list[Column]:
    """The column, what is known exactly of it, and its differences to the baseline."""
    records = [line.records[column.key] for line in lines if column.key in line.records]
    exact = [Column(column.key, "exact", column.better, exact=True)]
    return [
        column, *(exact if any(number(r["exact"]) is not None for r in records) else ()),
        *([deltas.column(column.key, footnotes)] if deltas.found else ()),
    ]  # fmt: skip


def _signature(lines: Sequence[Line], keys: Sequence[str]) -> str:
    """What the signatures of all rows share, how many generators they are of, and from how many runs."""
    shown = [r for line in lines for key, r in line.records.items() if key in keys]
    runs = {r["run_id"] for r in shown} - {""}
    common = plain_text(common_signature([r["signature"] for r in shown]))
    return f"{common}|rows:{len(lines)}|runs:{len(runs)}" if common else ""


def _fewer(group: Sequence[Record]) -> list[str]:
    left = fewer_draws(group)
    said = "one row is" if left == 1 else f"{left} rows are"
    return [f"{said.capitalize()} left out: their generators have rows of more draws."] if left else []


def _mixed(versions: int) -> list[str]:
    if versions < 2:
        return []
    said = "said in brackets: they are not comparable, so none is ranked or bold."
    return [f"Rows of {versions} versions of the task, {said}"]


__all__ = [
    "COMPACT", "COST", "Cell", "Column", "Leaderboard", "Row", "Table", "common_signature", "leaderboard", "plain_text",
]  # fmt: skip
