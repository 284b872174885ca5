"""Rows of a plot of the two parts made by hand, for tests of what is drawn of them."""

from __future__ import annotations

from math import inf
from typing import Any

import numpy as np

from alignbench.reports.charts.two_parts import TwoPartsRow
from alignbench.reports.table.board import Cell


def number(value: float | None = None, low: float | None = None, high: float | None = None) -> Cell:
    """A cell that says its number."""
    text = f"{value:g}" if value is not None else f"≥ {low:g}" if low is not None else f"≤ {high:g}" if high else "—"
    return Cell(text, value=value, low=low, high=high)


def part(n: int, asked: Any, collateral: Any, verdict: str = "better", **more: Any) -> TwoPartsRow:
    """A row by its two numbers, or cells."""
    cells = [c if isinstance(c, Cell) else number(c) for c in (asked, collateral)]
    given = {"label": f"row {n}", "is_base": False, "pinned": False, "kl": Cell(), "kept": None, **more}
    return TwoPartsRow(n, verdict=verdict, asked=cells[0], collateral=cells[1], **given)


BASE = part(1, 2.0, 0.0, "", label="m (base)", is_base=True, kl=number(2.0), mark="base")
ROWS = [
    BASE, part(2, 1.0, 0.5), part(3, 0.0, 0.001), part(4, 9.0, 10.0, "worse"), part(5, 0.5, inf, "trade", kept=0.08),
    part(6, 0.7, None, "asked only"), part(7, number(low=1.5), number(high=1.0), "unclear"), part(8, None, 1.0, "—"),
    part(9, 0.0, 0.0, "", label="draws of p (ceiling)", pinned=True, mark="ceiling"),
    part(10, number(1.0, 0.5, 30.0), number(3.0, -1.0, inf), "same"), part(11, 1.9, 500.0, "—"),
]  # fmt: skip


def many(count: int = 25) -> list[TwoPartsRow]:
    """As many random points, beside the base."""
    rng = np.random.default_rng(0)
    words = ("better", "trade", "same", "unclear", "worse", "asked only", "—")
    at = zip(rng.uniform(0, 3, count), 10 ** rng.uniform(-2, 2, count), strict=True)
    return [BASE, *(part(n, float(x), float(y), words[n % 7]) for n, (x, y) in enumerate(at, 2))]
