"""All formats of a leaderboard, and the files of a results folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from alignbench.reports.html import to_html
from alignbench.reports.latex import to_latex
from alignbench.reports.markdown import to_markdown
from alignbench.reports.rows import write_rows
from alignbench.reports.strict_json import to_json
from alignbench.reports.table import Leaderboard, leaderboard
from alignbench.reports.terminal import to_terminal
from alignbench.store import write_atomic

FORMATS: Mapping[str, Callable[[Leaderboard], str]] = {
    "md": to_markdown,
    "html": to_html,
    "tex": to_latex,
    "json": to_json,
}
"""Extension → renderer; the CSV beside them is the tidy rows themselves."""


def write_leaderboard(
    rows: pd.DataFrame,
    folder: Path,
    *,
    metrics: Sequence[str] | None = None,
    primary: Mapping[str, str | None] | None = None,
) -> list[Path]:
    """Write leaderboard.{csv,md,html,tex,json} into `folder`, each in one step; raises StoreError where it cannot."""
    board = leaderboard(rows, metrics=metrics, primary=primary)
    table = folder / "leaderboard.csv"
    write_rows(table, rows)
    pages = {table.with_suffix(f".{extension}"): render for extension, render in FORMATS.items()}
    for path, render in pages.items():
        write_atomic(path, render(board).encode("utf-8", "backslashreplace"))
    return [table, *pages]


__all__ = ["FORMATS", "to_html", "to_json", "to_latex", "to_markdown", "to_terminal", "write_leaderboard"]
