"""Which columns a table has, and in which order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from glob import escape
from typing import Any

import pandas as pd

from alignbench.errors import unknown
from alignbench.registry import metric
from alignbench.reports.table.board import plain_text
from alignbench.reports.table.cells import number
from alignbench.reports.table.groups import records_of
from alignbench.reports.table.seeds import key_of

Record = Mapping[str, Any]
COMPACT = (
    "satisfaction.always", "satisfaction.share.*", "satisfaction.moment.*", "satisfaction.reward.*", "moment_error",
    "divergence.kl_target", "divergence.kl_reverse", "divergence.kl_base", "divergence.tv",
    "perplexity", "distinct.distinct_2", "self_bleu", "features.*",
)  # fmt: skip
"""What a leaderboard shows unless asked, after the primary metric."""
COST = ("acceptance.rate", "cost.tokens_per_second", "cost.proposals_per_draw", "cost.calls_per_draw")
"""What it shows last."""
SHORT = ("divergence", "satisfaction", "features", "cost")
"""Metrics whose parts are known by their own names."""


def check_metrics(metrics: Sequence[str], rows: pd.DataFrame) -> None:
    """Raises UnknownName where a name of `metrics` is on no row."""
    records = records_of(rows[["metric", "part"]].drop_duplicates())
    keys = {key_of(r) for r in records}
    known = keys | {r["metric"] for r in records} | {label_of(key) for key in keys}
    for name in metrics:
        if not keys_named(sorted(keys), name):
            raise unknown("metric", name, known)


def key_named(name: str, rows: pd.DataFrame) -> str:
    """The column that a user calls `name`, by its key or by its heading alone; raises UnknownName."""
    known = {key_of(r) for r in records_of(rows[["metric", "part"]].drop_duplicates())}
    found = [name] if name in known else [key for key in known if label_of(key) == name]
    if len(found) != 1:
        raise unknown("metric", name, {label_of(key) for key in known}, "--sort")
    return found[0]


def chosen_keys(group: Sequence[Record], metrics: Sequence[str] | None, primary: str) -> list[str]:
    """The keys of a table's columns: those that `metrics` name, else the primary one and what there is of the rest."""
    keys = list(dict.fromkeys(key_of(r) for r in group))
    if metrics is not None:
        return list(dict.fromkeys(key for name in metrics for key in keys_named(keys, name)))
    asked = [name for name in dict.fromkeys(r["metric"] for r in group) if _is_shown_whole(name)]
    said = {primary, *(key_of(r) for r in group if _says_something(r) or r["metric"] in asked)}
    return [key for key in _chosen(keys, (primary, *COMPACT, *_patterns(asked), *COST)) if key in said]


def keys_named(keys: Sequence[str], name: str) -> list[str]:
    """The columns that a user calls `name`: by metric, key or pattern, else by the heading alone."""
    return _chosen(keys, _patterns([name])) or [key for key in keys if label_of(key) == name]


def _patterns(metrics: Sequence[str]) -> list[str]:
    """A name stands for its own column and for those of its parts."""
    return [f"{literal}{rest}" for name in metrics for literal in (name, escape(name)) for rest in ("", ".*")]


def _is_shown_whole(name: str) -> bool:
    """Whether a leaderboard shows a metric of which `COMPACT` and `COST` pick no parts, between the two."""
    picked = {pattern.partition(".")[0] for pattern in (*COMPACT, *COST)}
    return name not in picked and not (name in metric and metric[name].meta.get("detail", False))


def _chosen(keys: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """The keys that fit `patterns`, in the order of the patterns."""
    return list(dict.fromkeys(key for pattern in patterns for key in keys if fnmatchcase(key, pattern)))


def _says_something(record: Record) -> bool:
    """Whether a cell has a number or a bound; a column without any is left out unless it is asked for."""
    return any(number(record[name]) is not None for name in ("value", "ci_low", "ci_high", "exact"))


def label_of(key: str) -> str:
    """What heads the column: the part alone where it says enough."""
    metric, _, part = key.partition(".")
    return plain_text(part if part and (metric in SHORT or part.startswith(metric)) else key)
