"""Brief tables as text lines for a terminal: columns that do not fit are left out, and no number is cut."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from textwrap import wrap

from rich.cells import cell_len

from alignbench.reports.table.board import Brief, BriefRow
from alignbench.reports.table.labels import digits
from alignbench.reports.table.verdict import ORDER

GAP = 2  # between columns
ROWS = 12  # of a table, the base's among them
LABEL = 24  # characters of a row's name at most
LEAST = 5  # columns that always stand: verdict, asked gap, collateral, KL, and the first thing asked
RULE = "── {} ──"


def brief_lines(brief: Brief, width: int, most: int = ROWS) -> Iterator[str]:
    """The lines of a table of `most` rows, the base's always; none wider than `width` unless a number is."""
    rows = _kept(brief.rows, most)
    yield from wrap(brief.title, width)
    yield from wrap(brief.conclusion, width) if brief.conclusion else ()
    if rows:
        yield from _grid(brief, rows, width)
    if lost := Counter(row.verdict for row in brief.rows) - Counter(row.verdict for row in rows):
        yield f"{lost.total()} more: {', '.join(f'{lost[word]} {word}' for word in ORDER if lost[word])}"
    for note in brief.notes:
        yield from wrap(note, width)


def one_line(brief: Brief) -> str:
    """A world whose truth is known, in one line."""
    return f"{brief.title}: {brief.truth}"


def _kept(rows: Sequence[BriefRow], most: int) -> list[BriefRow]:
    """The base's row, those that are nearer in some way, then the first of the others."""
    room = max(most - sum(row.is_base for row in rows), 1)
    ranked = sorted((row for row in rows if not row.is_base), key=lambda row: row.verdict not in ("better", "trade"))
    kept = {id(row) for row in ranked[:room]}  # rows of two runs may be equal
    return [row for row in rows if row.is_base or id(row) in kept]


def _grid(brief: Brief, rows: Sequence[BriefRow], width: int) -> Iterator[str]:
    """The table, in as many columns as fit."""
    names = _names(rows)
    columns = [("vs base", "", [row.verdict for row in rows])]
    columns += [(h.name, h.below, [row.cells[i] for row in rows]) for i, h in enumerate(brief.headings)]
    label = max(map(cell_len, names), default=0)
    widths = [max(map(cell_len, (name, _alone(below), *cells))) for name, below, cells in columns]
    while len(columns) > LEAST and label + sum(w + GAP for w in widths) > width:
        columns.pop(len(columns) - 2 if len(columns) > LEAST + 1 else -1)
        widths = [max(map(cell_len, (name, _alone(below), *cells))) for name, below, cells in columns]
    yield _line(" " * label, [name for name, _, _ in columns], widths)
    yield _line(" " * label, [below for _, below, _ in columns], widths)
    for i, name in enumerate(names):
        yield _line(_padded(name, label), [cells[i] for _, _, cells in columns], widths)


def _alone(below: str) -> str:
    """A unit that reaches over the columns beside it takes no room of its own."""
    return "" if len(below) > 2 * LEAST else below


def _names(rows: Sequence[BriefRow]) -> list[str]:
    """The rows' names, cut where they are long; of those that would look alike the digits tell which is which."""
    short = [RULE.format(_cut(row.label, LABEL)) if row.is_base else _cut(row.label, LABEL) for row in rows]
    return [
        f"{_cut(row.label, LABEL - 5)}#{digits(row.label)[:4]}" if short.count(name) > 1 else name
        for row, name in zip(rows, short, strict=True)
    ]


def _cut(label: str, most: int) -> str:
    return label if len(label) <= most else f"{label[: most - 1].rstrip()}…"


def _line(label: str, cells: Sequence[str], widths: Sequence[int]) -> str:
    """Cells side by side; one that is wider than its column takes room from those after it."""
    text, end = label, cell_len(label)
    for cell, width in zip(cells, widths, strict=True):
        begin = end + GAP
        text += " " * max(begin - cell_len(text), 1 if cell and cell_len(text) > begin - GAP else 0) + cell
        end = begin + width
    return text.rstrip()


def _padded(text: str, width: int) -> str:
    return text + " " * (width - cell_len(text))
