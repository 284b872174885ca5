"""A row as a card, for narrow screens: what was asked, the two parts of its KL on the scales of the plot, its calls."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite, isinf, log10

from markupsafe import Markup

from alignbench.reports.charts.two_parts import BEYOND, HIGH, LOW
from alignbench.reports.formats.page.sections import Line, Section
from alignbench.reports.table.board import Cell, Column
from alignbench.reports.table.brief_columns import CALLS, COLLATERAL
from alignbench.reports.table.numbers import MISSING
from alignbench.reports.table.verdict import ASKED

BAR = Markup('<svg class="bar" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">{}</svg>')

NO_BAR = Markup("")


@dataclass(frozen=True)
class Item:
    """One number of a card: its bar, where it has one."""

    label: str
    text: str
    notes: tuple[int, ...] = ()
    definition: str = ""
    bar: Markup = NO_BAR


def card(line: Line, section: Section) -> list[Item]:
    """What a card shows of a row."""
    return list(_items(line, section))


def _items(line: Line, section: Section) -> Iterator[Item]:
    for head, cell in zip(section.heads, line.cells, strict=True):
        column = head.column
        if head.group or column.aside:
            continue
        if column.key.startswith("satisfaction."):
            label = f"{column.label}{f' ({column.below})' if column.below else ''}"
            yield Item(label, cell.text, cell.notes, head.definition)
        elif column.key in (ASKED, COLLATERAL):
            bar = _bar(_share(column, cell, section), column.key == COLLATERAL)
            yield Item(column.label.strip("+ "), cell.text, cell.notes, head.definition, bar)
        elif column.key == CALLS and cell.point != MISSING:
            yield Item(f"{column.label} {column.below}", cell.text, cell.notes, head.definition)


def _share(column: Column, cell: Cell, section: Section) -> float | None:
    """Which share of its scale a number takes: linear up to 1.5 times the base's, or logarithmic; None of none."""
    known = next((x for x in (cell.value, cell.low, cell.high) if x is not None), None)
    if known is None or isinf(known) or known <= 0:
        return None if known is None else float(known > 0)
    if column.key == COLLATERAL:
        return log10(known / LOW) / log10(HIGH / LOW)
    base = _of_base(section, column)
    return known / (BEYOND * base) if base and isfinite(base) else None


def _of_base(section: Section, column: Column) -> float | None:
    for line in section.lines:
        if line.row.is_base:
            return next((c.value for h, c in zip(section.heads, line.cells, strict=True) if h.column is column), None)
    return None


def _bar(share: float | None, collateral: bool) -> Markup:
    if share is None:
        return NO_BAR
    width = round(100 * min(max(share, 0.0), 1.0))
    return BAR.format(
        Markup('<rect class="track" width="100" height="6"/><rect class="{}" width="{}" height="6"/>').format(
            "besides" if collateral else "asked", width
        )
    )
