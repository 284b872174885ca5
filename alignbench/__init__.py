"""Did aligning a language model reach the distribution it was meant to reach, and what did that cost.

    import alignbench
    rows = alignbench.evaluate("hf:pretrained=gpt2", "lexical_word", aligners=["best_of_n:n=4"])
    print(alignbench.leaderboard(rows))

Importing this package loads neither torch nor transformers nor pandas: names are looked up when they are used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from alignbench.registry import aligner, feature, generator, metric

if TYPE_CHECKING:
    from alignbench.api import evaluate
    from alignbench.files import write_atomic
    from alignbench.reports.table.leaderboards import leaderboard
    from alignbench.seeds import Seed
    from alignbench.types import Draws, Estimate, Evidence, collect, rows_of

_HOMES = {
    "Draws": "alignbench.types",
    "Estimate": "alignbench.types",
    "Evidence": "alignbench.types",
    "Seed": "alignbench.seeds",
    "collect": "alignbench.types",
    "evaluate": "alignbench.api",
    "leaderboard": "alignbench.reports.table.leaderboards",
    "rows_of": "alignbench.types",
    "write_atomic": "alignbench.files",
}

__all__ = [
    "Draws",
    "Estimate",
    "Evidence",
    "Seed",
    "aligner",
    "collect",
    "evaluate",
    "feature",
    "generator",
    "leaderboard",
    "metric",
    "rows_of",
    "write_atomic",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'alignbench' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)
