"""How a record becomes a cell, and its notes become footnotes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isinf, isnan
from typing import Any

from alignbench.reports.table.board import Cell, Column, plain_text
from alignbench.reports.table.numbers import plain, spell
from alignbench.stats.intervals import Z95

RESIDUE = 1e-12  # what summing in float64 leaves of an exact 0

Record = Mapping[str, Any]


@dataclass
class Footnotes:
    """Notes in order of appearance, each once."""

    notes: list[str] = field(default_factory=list)

    def number(self, parts: Sequence[str]) -> tuple[int, ...]:
        """The number of the note that `parts` make up, given out where it is new; none where nothing is said."""
        note = "; ".join(parts)
        if note and note not in self.notes:
            self.notes.append(note)
        return (self.notes.index(note) + 1,) if note else ()


def notes_of(record: Record) -> list[str]:
    """The parts of a note, which `Estimate.noted` joins by semicolons."""
    return list(filter(None, (plain_text(note) for note in str(record["note"]).split("; "))))


def cell(
    record: Record | None, column: Column, shared: Sequence[str], footnotes: Footnotes, *, best: bool = False
) -> Cell:
    """A record's number with its limits, or its exact value; `shared` notes stand at the column's head."""
    if column.exact:
        exact = None if record is None else number(record["exact"])
        return Cell("") if exact is None else Cell(plain(exact if abs(exact) > RESIDUE else 0.0), value=exact)
    if record is None:
        return Cell(notes=footnotes.number(["not reported"]))
    value, low, high = (number(record[name]) for name in ("value", "ci_low", "ci_high"))
    if low is None and high is None:
        low, high = _from_stderr(value, number(record["stderr"]))
    notes = [note for note in notes_of(record) if note not in shared]
    if not notes and not shared and (reason := _unexplained(value, low, high)):
        notes = [reason]
    return Cell(*spell(value, low, high), value, low, high, footnotes.number(notes), best)


def shared_notes(measured: Sequence[Record]) -> tuple[str, ...]:
    """The parts of notes that all measured cells of a column have: they belong to its head."""
    notes = [notes_of(r) for r in measured if number(r["value"]) is not None]
    return tuple(n for n in notes[0] if all(n in other for other in notes)) if len(notes) > 1 else ()


def _from_stderr(value: float | None, stderr: float | None) -> tuple[float | None, float | None]:
    if value is None or stderr is None or isinf(value):
        return None, None
    return value - Z95 * stderr, value + Z95 * stderr


def _unexplained(value: float | None, low: float | None, high: float | None) -> str:
    """What to say of a cell that has no error bar and no note of its own."""
    if value is None:
        return "not measured; no reason was given" if low is None and high is None else "a bound at 95 %"
    return "no interval was given" if low is None and high is None else ""


def number(value: Any) -> float | None:
    """A number of a record; None where it is missing."""
    return None if value is None or isnan(value) else float(value)


def common_signature(signatures: Sequence[str]) -> str:
    """The parts `key:value` that all of the pipe-separated `signatures` have, in the order of the first."""
    parts = [dict.fromkeys(s.split("|")) for s in dict.fromkeys(signatures)]
    return "|".join(part for part in parts[0] if part and all(part in other for other in parts)) if parts else ""
