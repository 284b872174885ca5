"""Leaderboards in JSON that every parser reads: no NaN and no Infinity; missing is null, infinity is "inf"."""

from __future__ import annotations

import json
from math import isinf, isnan
from typing import Any

import pandas as pd

from alignbench.reports.table.board import Cell, Leaderboard, Row, Table


def to_json(board: Leaderboard) -> str:
    """The tables as they are shown, and all tidy rows."""
    rows = [{str(k): plain_value(v) for k, v in row.items()} for row in board.rows.to_dict("records")]
    page = {"tables": [_table(table) for table in board], "suite": [_table(table) for table in board.suite]}
    return json.dumps(page | {"rows": rows}, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _table(table: Table) -> dict[str, Any]:
    return {
        "title": table.title, "task": table.task, "task_version": table.version, "task_hash": table.task_hash,
        "target_id": table.target_id, "base": table.base, "base_id": table.base_id, "judge": table.judge,
        "columns": [
            {"key": c.key, "label": c.label, "better": c.better, "exact": c.exact, "delta": c.delta, "notes": c.notes}
            for c in table.columns
        ],
        "ranked": table.ranked, "rank_notes": table.rank_notes, "rows": [_row(row) for row in table.rows],
        "footnotes": table.footnotes, "legend": table.legend, "signature": table.signature,
    }  # fmt: skip


def _row(row: Row) -> dict[str, Any]:
    return {
        "rank": _cell(row.rank) if row.rank.point else None, "generator": row.generator, "aligner": row.aligner,
        "label": row.label, "mark": row.mark, "front": row.front, "notes": row.notes,
        "cells": [_cell(cell) | {"best": cell.best} for cell in row.cells],
    }  # fmt: skip


def _cell(cell: Cell) -> dict[str, Any]:
    numbers = {"value": cell.value, "ci_low": cell.low, "ci_high": cell.high}
    return {name: plain_value(value) for name, value in numbers.items()} | {"text": cell.text, "notes": cell.notes}


def plain_value(value: Any) -> Any:
    """A scalar that strict JSON can hold."""
    if value is None or value is pd.NA or (isinstance(value, float) and isnan(value)):
        return None
    if isinstance(value, float) and isinf(value):
        return "inf" if value > 0 else "-inf"
    return value
