"""Rows as records of Every Eval Ever (schema 0.3.0): one JSON file for each generator on a task.

The fields are those of evaleval/every_eval_ever, eval.schema.json 0.3.0. What it has no field for stands under its
`additional_details`. A number needs a direction and a finite value there; the others are named under `not_exported`.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from math import isfinite, isnan
from typing import Any
from uuid import UUID

import pandas as pd

from alignbench.metrics import range_of
from alignbench.reports.folders import UNIT
from alignbench.reports.publish import name_of
from alignbench.reports.rows import parts_of
from alignbench.reports.table.seeds import key_of
from alignbench.run.rows import safe_name
from alignbench.types import CEILING

VERSION = "0.3.0"
Record = Mapping[str, Any]


def records(rows: pd.DataFrame, organization: str, now: float) -> tuple[dict[str, Any], list[str]]:
    """Path (data/<task>/<developer>/<model>/<uuid>.json) → record of each generator on a task, but draws of p.

    And a line for each that has no number. `organization` provides the data; `now` is when the records are made, in
    seconds since 1970.
    """
    found: dict[str, Any] = {}
    absent = []
    models = rows[rows["generator"] != CEILING]
    for who, unit in models.groupby(list(UNIT), sort=False, dropna=False):
        lines = unit.to_dict("records")
        developer, _, model = lines[0]["generator"].rpartition("/")
        uuid = UUID(bytes=sha256("|".join(map(str, who)).encode()).digest()[:16], version=4)
        names = (lines[0]["task"], developer or "unknown", model)
        record = _record(lines, organization, now, uuid)
        if record["evaluation_results"]:
            found[f"data/{'/'.join(map(safe_name, names))}/{uuid}.json"] = record
        else:
            absent.append(f"{names[0]}: {name_of(lines[0])}: has no number with a direction: no record")
    return found, absent


def _record(lines: list[dict[Any, Any]], organization: str, now: float, uuid: UUID) -> dict[str, Any]:
    first, signed = lines[0], parts_of(lines[0]["signature"])
    exported = [line for line in lines if line["better"] and _finite(line["value"]) is not None]
    absent = "; ".join(f"{key_of(line)}: {_why_not(line)}" for line in lines if line not in exported)
    stamp = f"{now:.0f}"
    return {
        "schema_version": VERSION,
        "evaluation_id": f"{first['task']}/{first['generator']}/{stamp}/{uuid}",  # aligners share a model and a time
        "evaluation_timestamp": first["measured"],
        "retrieved_timestamp": stamp,
        "source_metadata": {
            "source_name": "alignbench", "source_type": "evaluation_run", "source_organization_name": organization,
            "evaluator_relationship": "other",
            "additional_details": {"run_id": first["run_id"], **({"not_exported": absent} if absent else {})},
        },
        "eval_library": {"name": "alignbench", "version": signed.get("version", "unknown")},
        "model_info": {
            "name": name_of(first), "id": first["generator"],
            "additional_details": {
                "deployment_type": "unknown", "model_availability": "unknown",
                **_texts(first, "aligner", "generator_id"),
            },
        },
        "evaluation_results": [_result(line, signed) for line in exported],
    }  # fmt: skip


def _result(line: Record, signed: Mapping[str, str]) -> dict[str, Any]:
    name = key_of(line)
    tokens = signed.get("max_tokens", "")
    return {
        "evaluation_result_id": f"{line['task']}/{name}",
        "evaluation_name": line["task"],
        "source_data": {"dataset_name": line["task"], "source_type": "other",
                        "additional_details": _texts(line, "task_version", "task_hash")},
        "evaluation_timestamp": line["measured"],
        "metric_config": {
            "metric_id": f"alignbench.{name}", "metric_name": name, "lower_is_better": line["better"] == "lower",
            "score_type": "continuous", **_span(line),
        },
        "score_details": _score(line),
        "generation_config": {
            "generation_args": {"max_tokens": int(tokens)} if tokens.isdecimal() else {},
            "additional_details": _texts(line, "base", "base_id", "target_id", "judge", "seed", "draws", "signature"),
        },
    }  # fmt: skip


def _score(line: Record) -> dict[str, Any]:
    """The value and its uncertainty; limits that are not two finite numbers are said in the details."""
    low, high, spread, count = (_finite(line[key]) for key in ("ci_low", "ci_high", "stderr", "n"))
    told: dict[str, Any] = {}
    if spread is not None:
        told["standard_error"] = {"value": spread}
    if low is not None and high is not None:
        told["confidence_interval"] = {"lower": low, "upper": high, "confidence_level": 0.95}
    if count is not None and told:
        told["num_samples"] = int(count)
    details = _texts(line, "note", "exact", *([] if "confidence_interval" in told else ["ci_low", "ci_high"]))
    return {"score": float(line["value"]), "details": {**details, "ci_over": line["ci_over"] or "prompts_given"},
            **({"uncertainty": told} if told else {})}  # fmt: skip


def _span(line: Record) -> dict[str, Any]:
    """The least and the greatest possible score; null where the metric declares none."""
    span = range_of(line["metric"], line["part"])
    if span is None:
        return {"min_score": None, "max_score": None}
    low, high = span
    return {"min_score": low if isfinite(low) else "-Infinity", "max_score": high if isfinite(high) else "Infinity"}


def _why_not(line: Record) -> str:
    value = line["value"]
    if _finite(value) is None:
        return " ".join(filter(None, ("—" if _missing(value) else str(value), line["note"])))
    return f"{value!r}, no direction is better"


def _finite(value: Any) -> float | None:
    return None if _missing(value) or not isfinite(value) else float(value)


def _missing(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and isnan(value))


def _texts(line: Record, *names: str) -> dict[str, str]:
    """What a row says under some names, as texts; what is missing is left out."""
    return {name: str(line[name]) for name in names if not _missing(line[name]) and line[name] != ""}
