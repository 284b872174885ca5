"""Brief tables in LaTeX: one booktabs `table*` for several tasks, on less than a page."""

from __future__ import annotations

from collections.abc import Sequence

from alignbench.reports.table.board import Table


def compact(tables: Sequence[Table]) -> str:
    """The brief tables as one float."""
    return "\n".join(table.title for table in tables)
