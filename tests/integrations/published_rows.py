"""Rows as a run leaves them, signature and all, for the tests of what is published."""

from __future__ import annotations

from math import inf
from typing import Any

import pandas as pd

from alignbench.reports.rows import tidy

HASH = "1b729cc5595e5791" * 4


def unit(aligner: str = "", generator: str = "SmolLM2", **more: Any) -> list[dict[str, Any]]:
    """The rows of one generator on a task: 4 prompts × 16 draws unless told otherwise."""
    first = {
        "run_id": "r1", "task": "words", "task_version": 1, "task_hash": HASH, "generator": generator,
        "aligner": aligner, "generator_id": f"{sum(aligner.encode()):08x}", "base": "SmolLM2", "base_id": "d4357567",
        "target_id": "7a49e700", "judge": "", "seed": 0, "draws": 16, "measured": "2026-01-02T03:04:05+00:00",
        "seconds": 0.1 + 0.2, "ci_over": "prompts_given", "n": 64, "ess": None, "note": "", "exact": None,
        "replicates": "", **more,
    }  # fmt: skip
    first.setdefault("signature", signature(first))
    numbers = [
        {"metric": "divergence", "part": "kl_target", "better": "lower", "value": 1 / 3, "stderr": 0.1, "ci_low": 0.1,
         "ci_high": 0.7, "replicates": "0.3 0.35", "n": 30},
        {"metric": "divergence", "part": "kl_reverse", "better": "lower", "value": inf, "note": "leaves p's support"},
        {"metric": "divergence", "part": "tv", "better": "lower", "value": None, "ci_low": 0.2, "note": "too few"},
        {"metric": "perplexity", "part": "", "better": "lower", "value": 12.5, "stderr": 1.0, "ci_low": 10.0,
         "ci_high": 15.0},
        {"metric": "distinct", "part": "distinct_2", "better": "", "value": 0.9, "n": 8},
    ]  # fmt: skip
    return [{**dict.fromkeys(("stderr", "ci_low", "ci_high")), **first, **number} | _given(more) for number in numbers]


def _given(more: dict[str, Any]) -> dict[str, Any]:
    return {name: more[name] for name in ("note", "n") if name in more}


def signature(row: dict[str, Any], prompts: int = 4) -> str:
    """What a run signs such a row with."""
    return (
        f"alignbench|task:{row['task']}.v{row['task_version']}#{row['task_hash'][:8]}|base:{row['base']}"
        f"#{row['base_id']}|dtype:float32|prompts:{prompts}|draws:{row['draws']}"
        f"|proposals:{{name: prompt, text: 'a|task:b'}}|max_tokens:40|seed:{row['seed']}|version:0.1.0"
    )


def table(*units: list[dict[str, Any]]) -> pd.DataFrame:
    """The tidy table of some units."""
    return tidy(pd.DataFrame([row for rows in units for row in rows]))
