"""A row as a card, for narrow screens: what was asked, the two parts of its KL as bars on fixed scales, its calls."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite, isinf, log10

from markupsafe import Markup

from alignbench.reports.formats.page.sections import Line, Section
from alignbench.reports.table.board import Cell, Column
from alignbench.reports.table.brief_columns import CALLS, COLLATERAL
from alignbench.reports.table.numbers import MISSING
from alignbench.reports.table.verdict import ASKED

BEYOND = 1.5
"""Times the base's asked gap at which the scale of the bars ends, as that of the plot."""
LEAST, MOST = 0.01, 100.0
"""Nats at which the logarithmic scale of the collateral begins and ends."""
BAR = Markup('<svg class="bar" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">{}</svg>')

NO_BAR = Markup("")


@dataclass(frozen=True)
class Item:
    """One number of a card: its bar, where it has one."""

    label: str
    text: str
    bar: Markup = NO_BAR


def card(line: Line, section: Section) -> list[Item]:
    """What a card shows of a row."""
    return list(_items(line, section))


def _items(line: Line, section: Section) -> Iterator[Item]:
    shown = [(head.column, cell) for head, cell in zip(section.heads, line.cells, strict=True) if not head.group]
    for column, cell in shown:
        if column.key.startswith("satisfaction."):
            yield Item(f"{column.label}{f' ({column.below})' if column.below else ''}", cell.text)
        elif column.key in (ASKED, COLLATERAL):
            yield Item(column.label, cell.text, _bar(_share(column, cell, section), column.key == COLLATERAL))
        elif column.key == CALLS and cell.point != MISSING:
            yield Item(f"{column.label} {column.below}", cell.text)


def _share(column: Column, cell: Cell, section: Section) -> float | None:
    """Which share of its scale a number takes: linear up to 1.5 times the base's, or logarithmic; None of none."""
    known = next((x for x in (cell.value, cell.low, cell.high) if x is not None), None)
    if known is None or isinf(known) or known <= 0:
        return None if known is None else float(known > 0)
    if column.key == COLLATERAL:
        return log10(known / LEAST) / log10(MOST / LEAST)
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
