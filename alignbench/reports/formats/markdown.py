"""Leaderboards in Markdown: GitHub's pipe tables, with everything escaped that could end a cell or start markup."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from tabulate import tabulate

from alignbench.reports.table.board import Cell, Leaderboard, Row, Table

LEGEND = "± and [low, high] are 95 % limits; ↑ higher is better, ↓ lower is better; — not measured; ∞ infinite."
ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
APART = "<!-- -->"
"""Parts a word that hosts would link, notify or draw after Markdown is read, where a backslash no longer counts."""
_LINKED = re.compile(r"(?<=:)(?=//)|(?<=www)(?=\.)|(?<=@)(?=\w)|(?<=:)(?=[\w+-]+:)", re.IGNORECASE)


def to_markdown(board: Leaderboard) -> str:
    """All tables, one after the other."""
    return markdown_of(board.shown, LEGEND) if board.shown else "No results.\n"


def markdown_of(tables: Sequence[Table], *closing: str) -> str:
    """Tables, each below its title, then the closing lines."""
    return "\n".join([*map(_table, tables), *(f"{_first(escape(line))}\n" for line in closing)])


def _table(table: Table) -> str:
    return "\n".join(f"{block}\n" for block in _blocks(table) if block)


def _blocks(table: Table) -> Iterator[str]:
    yield f"### {escape(table.title)}"
    yield "\n".join(f"- {_first(escape(sentence))}" for sentence in table.findings)
    head = [escape(table.named), *(escape(column.heading) + _marks(column.notes) for column in table.columns)]
    body = [[_label(row), *map(_cell, row.cells)] for row in table.rows]
    align = ["left", *("left" if column.words else "right" for column in table.columns)]
    if table.ranked:
        head = ["rank" + _marks(table.rank_notes), *head]
        body = [[_cell(row.rank), *cells] for row, cells in zip(table.rows, body, strict=True)]
        align = ["left", *align]
    yield tabulate(body, head, tablefmt="pipe", disable_numparse=True, colalign=align if body else None)
    yield "\n".join(f"{n}. {_first(escape(note))}" for n, note in enumerate(table.footnotes, 1))
    yield from (_first(escape(line)) for line in table.legend)
    yield f"Signature: {escape(table.signature)}" if table.signature else ""


def _label(row: Row) -> str:
    """The name of a row; in italics where it is pinned."""
    name = f"*{escape(row.label)}*" if row.mark and row.label.strip() else escape(row.label)
    return name + " ◆" * row.front + _marks(row.notes)


def _cell(cell: Cell) -> str:
    point = f"**{cell.point}**" if cell.best else cell.point
    return f"{point} {cell.spread}".rstrip() + _marks(cell.notes)


def escape(text: str) -> str:
    """`text` so that Markdown shows it as it is; underscores inside a word need nothing."""
    parts = [re.sub(r"[\\|*`\[\]~#$]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", part) for part in _LINKED.split(text)]
    return APART.join(re.sub("[&<>]", lambda m: ENTITIES[m[0]], part) for part in parts)


def _first(text: str) -> str:
    """Escaped `text` at the beginning of a block, where a dash or a number could begin a list."""
    return re.sub(r"^(\d*)([-+=.)])", r"\1\\\2", text)


def _marks(numbers: Sequence[int]) -> str:
    return f"<sup>{','.join(map(str, numbers))}</sup>" if numbers else ""
