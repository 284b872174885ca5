"""Charts drawn, once for pages and papers: a file for each kind of chart data, which makes a `Picture` of it.

What kinds share is in `frame`; `places` finds room for labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from alignbench.reports.charts.data import Bars, Curves, Scatter
from alignbench.reports.charts.drawing import bars, curves, scatter, suite, two_parts
from alignbench.reports.charts.picture import COLUMN, PAGE, Picture, Size
from alignbench.reports.charts.suite import Suite
from alignbench.reports.charts.two_parts import TwoParts

Chart = Scatter | TwoParts | Bars | Curves | Suite
_KINDS: Mapping[type, tuple[Callable[[Any, Size], Picture], Size]] = {
    Scatter: (scatter.drawn, COLUMN), TwoParts: (two_parts.drawn, COLUMN), Curves: (curves.drawn, COLUMN),
    Bars: (bars.drawn, PAGE), Suite: (suite.drawn, PAGE),
}  # fmt: skip
"""Kind of chart → what draws it, and how large it is in a paper."""
MOST = 3
"""Curves one below the other; more go on two columns."""


def draw(chart: Chart, size: Size | None = None) -> Picture:
    """The picture of some chart data, by default as large as a paper wants it: a column or two."""
    drawn, usual = _KINDS[type(chart)]
    wide = isinstance(chart, Curves) and len(chart.curves) > MOST
    return drawn(chart, size or (PAGE if wide else usual))
