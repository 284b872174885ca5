"""A table that is read in ten seconds: verdicts, the two parts of KL(p‖π), what was asked, what it cost, a conclusion.

Two digits a number; the whole `board.Table` has everything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from alignbench.metrics.cost import ONCE
from alignbench.reports.rows import parts_of
from alignbench.reports.table.board import Cell, Column, Row, Table
from alignbench.reports.table.brief_columns import KEPT, Shown, shown_columns
from alignbench.reports.table.brief_notes import draws_of, notes_on, truth_of
from alignbench.reports.table.cells import Footnotes, notes_of, shared_notes
from alignbench.reports.table.conclusion import conclusion
from alignbench.reports.table.lines import Line
from alignbench.reports.table.pairs import number
from alignbench.reports.table.verdict import Verdict

VERDICT = Column("verdict", "vs base", words=True)
THIN = 64
"""Draws of a row up to which its table is called thin."""
NOTES = 3
"""Notes of a table."""


def brief(lines: Sequence[Line], found: Sequence[Verdict], title: str) -> Table:
    """The brief table of lines, row by row; p's own numbers are in the headings too."""
    columns, footnotes = shown_columns(lines), Footnotes()
    shared = {shown.key: shared_notes(records_of(lines, shown.key)) for shown in columns}
    heads = [replace(shown.column, notes=footnotes.number(notes_in(shared[shown.key]))) for shown in columns]
    rows = tuple(
        Row(
            "base" if line.is_base and "base" in line.remarks else line.label,  # else the user has a name for it
            (
                verdict_cell(verdict, footnotes),
                *(_cell(line, shown, shared[shown.key], footnotes) for shown in columns),
            ),
            mark=line.mark, is_base=line.is_base, kept=line.value(KEPT), full=line.full, who=line.who,
        )
        for line, verdict in zip(lines, found, strict=True)
    )  # fmt: skip
    return Table(
        title, (VERDICT, *heads), rows, conclusion=conclusion(lines, found), footnotes=tuple(footnotes.notes),
        legend=tuple(notes_on(lines, found)[:NOTES]), truth=truth_of(lines),
    )  # fmt: skip


def verdict_cell(verdict: Verdict, footnotes: Footnotes) -> Cell:
    """A word; the reason for a `—`, and what a trade hangs on, is a footnote."""
    why = [verdict.more] if verdict.more and verdict.word in ("—", "trade") else []
    return Cell(verdict.word, "" if why else verdict.more, notes=footnotes.number(why))


def _cell(line: Line, shown: Shown, shared: Sequence[str], footnotes: Footnotes) -> Cell:
    """A cell with the notes of its record that are not at the head of its column."""
    record, cell = line.records.get(shown.key), shown.cell(line)
    if record is None:
        return cell
    return replace(cell, notes=footnotes.number(notes_in(note for note in notes_of(record) if note not in shared)))


def notes_in(notes: Iterable[str]) -> list[str]:
    """Notes without what a brief table says anyway: the number that is wanted, that costs have no limits."""
    return [note for note in notes if not note.startswith("wanted ") and note != ONCE]


def records_of(lines: Sequence[Line], key: str) -> list[Mapping[str, Any]]:
    """The records of a column."""
    return [line.records[key] for line in lines if key in line.records]


def kept(rows: Sequence[Row], most: int) -> list[Row]:
    """The base's row, those that are nearer in some way, then the first of the others; not draws of p."""
    rows = [row for row in rows if row.mark != "ceiling"]
    room = max(most - sum(row.is_base for row in rows), 1)
    nearer = ("better", "trade")
    ranked = sorted((row for row in rows if not row.is_base), key=lambda row: row.cells[0].point not in nearer)
    first = {id(row) for row in ranked[:room]}  # rows of two runs may be equal
    return [row for row in rows if row.is_base or id(row) in first]


def title_of(lines: Sequence[Line], heading: str, base: str) -> str:
    """Task, base, and how much was drawn."""
    signatures = [parts_of(str(r["signature"])) for line in lines for r in line.records.values()]
    prompts = next((s["prompts"] for s in signatures if "prompts" in s), "")
    draws = draws_of(lines)
    size = f"{prompts} prompt{'s' * (prompts != '1')} × {draws} draws" if prompts and draws else ""
    size += " (thin)" if prompts and draws.isdigit() and int(prompts) * int(draws) <= THIN else ""
    every = (number(r.get("seeds")) for line in lines for r in line.records.values())
    seeds = next((count for count in every if count is not None), None)
    return " · ".join(filter(None, (heading, base, size, "" if seeds is None else f"mean of {seeds:.0f} seeds")))
