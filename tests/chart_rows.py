"""Tidy rows of a small leaderboard written by hand, for tests of charts, plots and the command that draws them."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import pandas as pd

BETTER = {"satisfaction.always": "higher", "satisfaction.reward.length": "higher"}


def row(who: str, key: str, value: float = nan, half: float = nan, **more: Any) -> dict[str, Any]:
    """A row of the aligner `who` ("base", "ceiling", or a generator where it has a slash), value ± half."""
    metric, _, part = key.partition(".")
    generator = {"ceiling": "draws of p"}.get(who, who if "/" in who else "m")
    better = BETTER.get(key, "lower" if metric in ("divergence", "moment_error", "cost") else "")
    return {
        "run_id": "r", "task": "words", "task_version": "1", "task_hash": "cafe", "generator": generator,
        "aligner": "" if generator != "m" or who == "base" else who, "base": "m", "metric": metric, "part": part,
        "value": value, "stderr": half / 1.96, "ci_low": value - half, "ci_high": value + half, "n": 64, "ess": nan,
        "better": better, "note": "", "seed": 0, "signature": "s", "seconds": 1.0, **more,
    }  # fmt: skip


def of(who: str, always: float, kl: float, half: float = 0.1, **more: Any) -> list[dict[str, Any]]:
    """The two rows of a trade-off."""
    return [row(who, "satisfaction.always", always, half, **more), row(who, "divergence.kl_base", kl, half, **more)]


def frame(*rows: dict[str, Any] | list[dict[str, Any]]) -> pd.DataFrame:
    """All rows as one table."""
    return pd.DataFrame([r for part in rows for r in (part if isinstance(part, list) else [part])])


WORDS = frame(
    of("base", 0.3, 0.0, 0.0), of("best_of_n:n=2", 0.5, 0.4), of("best_of_n:n=8", 0.8, 1.5), of("greedy", 0.4, 40.0),
    of("top_k:k=5", 0.5, 2.5), of("ceiling", 1.0, 0.0),
    row("sir:n=4", "satisfaction.always", 0.9, 0.1),
    row("sir:n=4", "divergence.kl_base", note="no density: what each token adds is not known"),
    row("beam:n=2", "satisfaction.always", 0.7, 0.1), row("flat:x=1", "satisfaction.always", 0.6, 0.1),
    row("beam:n=2", "divergence.kl_base", inf, note="off its support"),
    row("flat:x=1", "divergence.kl_base", ci_high=0.6, note="a bound"),
    row("base", "divergence.kl_target", 0.5, 0.1), row("greedy", "divergence.kl_target", inf, note="misses words"),
    row("sir:n=4", "divergence.kl_target", ci_low=0.2, note="a bound"),
    row("best_of_n:n=2", "divergence.kl_target", note="too few draws"),
    row("base", "satisfaction.share.pronoun.she", 0.7, 0.1), row("base", "moment_error.pronoun.she", 0.2, 0.1),
    row("greedy", "satisfaction.share.pronoun.she", 0.1, 0.05), row("base", "moment_error", 0.2, 0.1),
)  # fmt: skip
