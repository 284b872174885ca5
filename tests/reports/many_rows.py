"""Tidy rows of as many tasks and generators as wanted, and example draws of them; nothing is measured."""

from __future__ import annotations

from dataclasses import fields
from math import inf
from typing import Any

import numpy as np
import pandas as pd

from alignbench.reports.examples import Example, Shown
from alignbench.run.rows import RowKey

PARTS = (
    ("satisfaction", "always", "higher"),
    ("satisfaction", "share.pronoun.she", ""),
    ("satisfaction", "share.pronoun.he", ""),
    ("moment_error", "", "lower"), ("moment_error", "pronoun.she", ""), ("divergence", "kl_target", "lower"),
    ("divergence", "kl_asked", "lower"), ("divergence", "kl_collateral", "lower"),
    ("divergence", "kl_target_vs_base", "lower"), ("divergence", "kl_asked_vs_base", "lower"), ("length", "tokens", ""),
    ("divergence", "kl_reverse", "lower"), ("divergence", "kl_base", "lower"), ("divergence", "tv", "lower"),
    ("divergence", "js", "lower"), ("perplexity", "", "lower"), ("distinct", "distinct_2", "higher"),
    ("self_bleu", "", "lower"), ("features", "clean", ""), ("acceptance", "rate", "higher"),
    ("cost", "calls_per_draw", "lower"), ("cost", "tokens_per_second", "higher"),
)  # fmt: skip


def generators(number: int) -> list[tuple[str, str, int | None]]:
    """(generator, aligner, step): the base, draws of p, a sweep of temperatures, checkpoints, and long names."""
    sweep = [("SmolLM2", f"temperature:t={0.5 + i / 20:g}", None) for i in range(number // 5)]
    steps = [(f"out/step-{100 * i}", "", 100 * i) for i in range(1, number // 5)]
    rest = [("SmolLM2", f"best_of_n:n={2 + i},rank=likelihood,reading={'long ' * 6}", None) for i in range(number)]
    return [("SmolLM2", "", None), ("draws of p", "", None), *sweep, *steps, *rest][:number]


def many_rows(tasks: int, number: int, seed: int = 0) -> pd.DataFrame:
    """Rows of `tasks` tasks, each with the same `number` generators; some cells infinite, some not measured."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame([
        _row(rng, t, who, metric, part, better)
        for t in range(tasks) for who in generators(number) for metric, part, better in PARTS
    ])  # fmt: skip


def _row(rng: Any, t: int, who: tuple[str, str, int | None], metric: str, part: str, better: str) -> dict[str, Any]:
    generator, aligner, step = who
    value = float(rng.uniform(0, 1) if better != "lower" else rng.gamma(1.0, 3.0))
    value -= 3.0 if part.endswith("_vs_base") else 0.0
    half = 0.1 * abs(value)
    cell: dict[str, Any] = {"value": value, "stderr": half / 1.96, "ci_low": value - half, "ci_high": value + half}
    kind = rng.uniform()
    note = ""
    if metric == "divergence" and kind < 0.1:
        cell, note = {"value": inf}, f"draws of p that it cannot say: {100 * kind:.0f} % of the mass"
    elif kind > 0.95:
        cell, note = {}, "fewer than 50 draws of p; 31 are too few"
    return {
        "run_id": "r1", "task": f"task_{t}", "task_version": 1, "task_hash": f"{t:064x}", "generator": generator,
        "aligner": aligner, "base": "SmolLM2", "metric": metric, "part": part, "value": None, "stderr": None,
        "ci_low": None, "ci_high": None, "n": 128, "ess": None, "better": better, "note": note, "seed": 0,
        "signature": f"alignbench|task:task_{t}.v1#{t:08x}|base:SmolLM2#ba5eba5e|draws:64|seed:0|version:0.1.0",
        "seconds": 1.5, "exact": None, "base_id": "ba5eba5e", "target_id": "7a49e700", "draws": 64, "judge": "",
        "generator_id": "ba5eba5e" if who == ("SmolLM2", "", None) else f"{sum(f'{who}'.encode()):08x}",
        "measured": "2026-01-02T03:04:05+00:00", "ci_over": "prompts_given", "step": step, **cell,
    }  # fmt: skip


def many_draws(rows: pd.DataFrame, most: int = 2, texts: Any = None) -> list[Shown]:
    """Example draws of every generator of `rows` on every task: `most` each, of 40 tokens or with the given pieces."""
    units = rows.drop_duplicates(["task", "generator", "aligner"]).to_dict("records")
    return [_draws(unit, most, texts) for unit in units if unit["generator"] != "draws of p"]


def _draws(unit: Any, most: int, texts: Any) -> Shown:
    pieces = tuple(texts or [f" word{i}" for i in range(40)])
    nats = (*(-0.5 * (i % 16) for i in range(len(pieces) - 1)), -inf)
    own = {f.name: unit[f.name] for f in fields(RowKey) if f.name in unit}
    draws = [
        Example(f"The opening of story {i}", 0, "".join(pieces), bool(i % 2), {"pronoun": "she", "clean": 1.0},
                -97.5, -103.25, -inf, -97.5, pieces, nats)
        for i in range(most)
    ]  # fmt: skip
    return Shown(RowKey(**own), tuple(draws))
