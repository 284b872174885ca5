"""Leaderboards in Markdown: GitHub's pipe tables, with everything escaped that could end a cell or start markup."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from tabulate import tabulate

from alignbench.reports.table import Leaderboard, Table

LEGEND = "± and [low, high] are 95 % limits; ↑ higher is better, ↓ lower is better; — not measured; ∞ infinite."
ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def to_markdown(board: Leaderboard) -> str:
    """All tables, one after the other."""
    if not len(board):
        return "No results.\n"
    return "\n".join([*(_table(table) for table in board), f"{LEGEND}\n"])


def _table(table: Table) -> str:
    return "\n".join(f"{block}\n" for block in _blocks(table) if block)


def _blocks(table: Table) -> Iterator[str]:
    yield f"### {escape(table.title)}"
    head = ["", *(escape(column.heading) + _marks(column.notes) for column in table.columns)]
    body = [[escape(row.label), *(cell.text + _marks(cell.notes) for cell in row.cells)] for row in table.rows]
    align = ["left", *["right"] * len(table.columns)]
    yield tabulate(body, head, tablefmt="pipe", disable_numparse=True, colalign=align if body else None)
    yield "\n".join(f"{n}. {escape(note)}" for n, note in enumerate(table.footnotes, 1))
    yield f"Signature: {escape(table.signature)}" if table.signature else ""


def escape(text: str) -> str:
    """`text` so that Markdown shows it as it is; underscores inside a word need nothing."""
    quoted = re.sub(r"[\\|*`\[\]~#$]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", text)
    return re.sub("[&<>]", lambda m: ENTITIES[m[0]], quoted)


def _marks(numbers: Sequence[int]) -> str:
    return f"<sup>{','.join(map(str, numbers))}</sup>" if numbers else ""
