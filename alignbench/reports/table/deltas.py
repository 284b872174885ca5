"""How much more each row of a table has than its baseline, by paired differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from alignbench.reports.table.board import Cell, Column, plain_text
from alignbench.reports.table.cells import Footnotes
from alignbench.reports.table.lines import Line
from alignbench.reports.table.numbers import spell
from alignbench.reports.table.pairs import difference
from alignbench.types import Estimate


@dataclass(frozen=True)
class Deltas:
    """Differences to the baseline; rows are meant by their places in the table."""

    found: Mapping[tuple[int, str], Estimate] = field(default_factory=dict)  # by (row, key of a column)
    shared: Mapping[str, Sequence[str]] = field(default_factory=dict)  # by key, notes that all differences have
    legend: tuple[str, ...] = ()

    def column(self, key: str, footnotes: Footnotes) -> Column:
        """The column of the differences in `key`."""
        return Column(key, "Δ", delta=True, notes=footnotes.number(self.shared[key]))

    def cell(self, row: int, key: str, footnotes: Footnotes) -> Cell:
        """The difference of one row; nothing for the baseline itself."""
        if (row, key) not in self.found:
            return Cell("")
        it = self.found[row, key]
        told = [note for note in _notes(it) if note not in self.shared[key]]
        text = spell(it.value, it.ci_low, it.ci_high)
        return Cell(*text, it.value, it.ci_low, it.ci_high, footnotes.number(told))


def deltas_of(lines: Sequence[Line], keys: Sequence[str], baseline: str) -> Deltas:
    """The differences of all rows to the one that is marked as baseline; a legend alone where there is none."""
    row = next((line for line in lines if line.mark == "baseline"), None)
    if row is None:
        return Deltas(legend=(f"No differences: this table has no row '{plain_text(baseline)}'.",) if baseline else ())
    found = {(i, key): _difference(line, row, key) for i, line in enumerate(lines) if line is not row for key in keys}
    shared = {key: _shared([it for (_, other), it in found.items() if other == key]) for key in keys}
    return Deltas(found, shared, (f"Δ: difference to {row.label}, by paired draws, with 95 % limits.",))


def _difference(line: Line, other: Line, key: str) -> Estimate:
    if key not in line.records or key not in other.records:
        return Estimate.missing("not reported")
    return difference(line.records[key], other.records[key])


def _shared(found: Sequence[Estimate]) -> list[str]:
    """The notes that all differences with a number have."""
    notes = [_notes(it) for it in found if it.value is not None]
    return [n for n in notes[0] if all(n in other for other in notes)] if len(notes) > 1 else []


def _notes(found: Estimate) -> list[str]:
    return [plain_text(note) for note in found.note.split("; ") if note]
