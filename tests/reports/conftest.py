"""A small results table with one of everything: intervals, a bound, infinity, missing values, exact values."""

from __future__ import annotations

from math import inf
from typing import Any

import pandas as pd
import pytest

SIGNATURE = "alignbench:0.1.0|task:gender_balance|draws:128|seed:{seed}|judge:base"

Spec = tuple[str, str, dict[str, Any]]


def row(generator: str, aligner: str, metric: str, part: str = "", **numbers: Any) -> dict[str, Any]:
    """One tidy row of the task `gender_balance`."""
    seed = numbers.pop("seed", 0)
    return {
        "run_id": "r1", "task": "gender_balance", "task_version": 1, "task_hash": "0123456789abcdef",
        "generator": generator, "aligner": aligner, "base": "SmolLM2", "metric": metric, "part": part,
        "value": None, "stderr": None, "ci_low": None, "ci_high": None, "n": 128, "ess": None, "better": "lower",
        "note": "", "seed": seed, "signature": SIGNATURE.format(seed=seed), "seconds": 1.5, "exact": None,
        "base_id": "ba5eba5e", "target_id": "7a49e700", "draws": 128, "judge": "",
        "generator_id": "ba5eba5e" if (generator, aligner) == BASE else f"{sum(f'{generator}{aligner}'.encode()):08x}",
        "measured": "2026-01-02T03:04:05+00:00", "ci_over": "prompts_given", **numbers,
    }  # fmt: skip


def around(value: float, half: float, **more: Any) -> dict[str, Any]:
    """A value with a symmetric interval."""
    return {"value": value, "stderr": half / 1.96, "ci_low": value - half, "ci_high": value + half, **more}


BASE, BEST, COLD, EXACT, CEILING = (
    ("SmolLM2", ""), ("SmolLM2", "best_of_n:n=4"), ("SmolLM2", "temperature:t=0.7"), ("SmolLM2", "rejection"),
    ("draws of p", ""),
)  # fmt: skip
SKEWED = "the interval is a percentile bootstrap"
JUDGE = "judge: the base model itself"


@pytest.fixture
def rows() -> pd.DataFrame:
    """Five generators on one task, and one row of another task."""
    share = {"better": ""}
    table = [
        row(*BASE, "divergence", "kl_target", **around(0.412, 0.0534), exact=0.4017),
        row(*BASE, "divergence", "tv", value=0.21, ci_low=0.12, ci_high=0.41, note=SKEWED),
        row(*BASE, "divergence", "kl_base", value=0.0, note="the generator is the base"),
        row(*BASE, "satisfaction", "share.she", **around(0.31, 0.08), **share),
        row(*BASE, "perplexity", **around(12.34, 1.2, note=JUDGE)),
        row(*COLD, "divergence", "kl_target", value=inf, note="draws of p that it cannot say: 12 % of the mass"),
        row(*COLD, "divergence", "tv", value=0.3, ci_low=0.12, ci_high=0.41, note=SKEWED),
        row(*COLD, "divergence", "kl_base", **around(-0.0012, 0.034)),
        row(*COLD, "satisfaction", "share.she", **around(0.28, 0.07), **share),
        row(*COLD, "perplexity", **around(7.1, 0.4, note=JUDGE)),
        row(*EXACT, "divergence", "kl_target", **around(0.003, 0.011), exact=0.0),
        row(*EXACT, "divergence", "tv", note="fewer than 50 draws of p; 31 are too few"),
        row(*EXACT, "satisfaction", "share.she", **around(0.5, 0.09), **share),
        row(*EXACT, "perplexity", **around(13.5, 1.4, note=JUDGE)),
        row(*BEST, "divergence", "kl_target", ci_low=0.1234567, note="no density: a lower bound by data processing"),
        row(*BEST, "perplexity", **around(11.0, 1.0, note=f"{JUDGE}; 3 draws were cut")),
        row(*CEILING, "satisfaction", "share.she", **around(0.5, 0.06), **share),
        row(*CEILING, "perplexity", **around(13.1, 0.9, note=JUDGE)),
        row(*BASE, "divergence", "kl_target", **around(0.1, 0.02)) | {"task": "lexical_word", "task_hash": "fedcba"},
        row(*BASE, "acceptance", "rate", better="higher", value=0.25, ci_low=0.2, ci_high=0.31)
        | {"task": "lexical_word", "task_hash": "fedcba"},
    ]  # fmt: skip
    return pd.DataFrame(table)
