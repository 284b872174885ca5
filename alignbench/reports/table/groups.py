"""Which rows share a table, and what tells the tables of one task apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from alignbench.reports.table.board import plain_text
from alignbench.reports.table.seeds import joined_targets

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Setting:
    """What all rows of a table have in common."""

    task: str
    task_hash: str
    target_id: str
    base: str  # its digits, or its name where older rows have none
    judge: str
    known: bool  # whether `base` is digits

    @classmethod
    def of(cls, record: Record) -> Setting:
        """The setting of a row."""
        base = record["base_id"] or record["base"]
        return cls(record["task"], record["task_hash"], record["target_id"], base, record["judge"],
                   bool(record["base_id"]))  # fmt: skip


def grouped(rows: pd.DataFrame, *, mixed: bool = False) -> dict[Setting, pd.DataFrame]:
    """The rows of each table, in order of appearance; dicts, which take much more memory, are made of one at a time.

    `mixed`: all versions of a task share a table; its setting names all of their hashes and targets. Two λ of one
    version never do.
    """
    named = rows["base_id"] != ""
    targets = rows["target_id"].map(joined_targets(list(rows["target_id"].unique())))
    bases = rows["base_id"].where(named, rows["base"])
    same = [rows["task"], bases, rows["judge"], named]
    joined = mixed & (rows["task_hash"].groupby(same).transform("nunique") > 1)
    keys = [*same, rows["task_hash"].mask(joined, ""), targets.mask(joined, "")]
    found = rows.assign(target_id=targets).groupby(keys, sort=False)
    return {_setting(group): group for _, group in found}


def _setting(group: pd.DataFrame) -> Setting:
    whole = {name: "+".join(group[name].unique()) for name in ("task_hash", "target_id")}
    return Setting.of(records_of(group.head(1))[0] | whole)


def records_of(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as dicts: column → value."""
    return [{str(k): v for k, v in r.items()} for r in rows.to_dict("records")]


def remarks_of(tables: Sequence[tuple[Setting, str]]) -> list[str]:
    """For each table, given as (setting, name of the base), what tells it from the others of its task."""
    return [_remark(s, name, [t for t in tables if t[0].task == s.task]) for s, name in tables]


def _remark(setting: Setting, name: str, all_of_task: Sequence[tuple[Setting, str]]) -> str:
    namesakes = {s.base for s, n in all_of_task if n == name}
    alike = {s.target_id for s, _ in all_of_task if (s.task_hash, s.base) == (setting.task_hash, setting.base)}
    differs = {
        f"#{setting.base if setting.known else 'unknown'}": len(namesakes) > 1,
        f"· task #{_digits(setting, all_of_task)}": len({s.task_hash for s, _ in all_of_task}) > 1,
        f"· judge {setting.judge or 'the base'}": len({s.judge for s, _ in all_of_task}) > 1,
        f"· λ differs: target #{setting.target_id or 'unknown'}": len(alike) > 1,
    }
    return "".join(f" {plain_text(text)}" for text, said in differs.items() if said)


def _digits(setting: Setting, all_of_task: Sequence[tuple[Setting, str]]) -> str:
    """The first 8 digits of the task's hash, or all where these do not tell it from another."""
    short = setting.task_hash[:8]
    return setting.task_hash if len({s.task_hash for s, _ in all_of_task if s.task_hash[:8] == short}) > 1 else short
