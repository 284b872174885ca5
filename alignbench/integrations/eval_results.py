"""Rows as the hub's evaluation results: `.eval_results/*.yaml` of a model's repository.

The fields are those of huggingface/hub-docs, eval_results.yaml; it has none for an error, which goes into `notes`.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

import pandas as pd
import yaml

from alignbench.reports.publish import name_of
from alignbench.reports.table.numbers import spell
from alignbench.reports.table.seeds import key_of, with_means
from alignbench.run.rows import safe_name
from alignbench.types import CEILING

Record = Mapping[str, Any]


def pages(rows: pd.DataFrame, dataset: str, primary: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Path (<generator>/.eval_results/<dataset>.yaml) → YAML, and a line for each value that such a file cannot hold.

    A generator has one entry a task: its `primary` number, the mean over seeds where there are several. `dataset` is
    the hub's benchmark, ORG/NAME, whose tasks have these names.
    """
    entries: dict[str, list[dict[str, Any]]] = {}
    absent = []
    table = with_means(rows[rows["generator"] != CEILING])
    for _, unit in table.groupby(["generator", "aligner", "task"], sort=False):
        records = unit.to_dict("records")
        task, name = records[0]["task"], name_of(records[0])
        found = _chosen(records, primary[task])
        if found is None or not isfinite(found["value"]):
            absent.append(f"{task}: {name}: {primary[task]} has no finite value: no entry")
            continue
        place = f"{safe_name(name)}/.eval_results/{safe_name(dataset)}.yaml"
        entries.setdefault(place, []).append(_entry(found, dataset))
    return {place: yaml.safe_dump(e, sort_keys=False, allow_unicode=True) for place, e in entries.items()}, absent


def _chosen(records: list[dict[Any, Any]], primary: str) -> Record | None:
    """The number that stands for a generator on a task: the mean over seeds, else the newest; None without a value."""
    found = [r for r in records if key_of(r) == primary]
    means = [r for r in found if pd.notna(r.get("seeds"))]
    last = max(means or found, key=lambda r: r["measured"], default=None)
    return None if last is None or pd.isna(last["value"]) else last


def _entry(record: Record, dataset: str) -> dict[str, Any]:
    limits = (None if pd.isna(record[side]) else record[side] for side in ("ci_low", "ci_high"))
    spread = spell(record["value"], *limits)[1]
    error = f"{spread} (95 %)" if spread else "no interval"
    direction = f", {record['better']} is better" if record["better"] else ""
    who = [f"aligner {record['aligner']}"] if record["aligner"] else []
    told = [f"{key_of(record)} {error}{direction}", *who, record["note"], record["signature"]]
    return {
        "dataset": {"id": dataset, "task_id": record["task"]}, "value": float(record["value"]),
        "date": record["measured"], "notes": "; ".join(filter(None, told)),
    }  # fmt: skip
