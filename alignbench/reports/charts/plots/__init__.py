"""Charts drawn for papers with altair, and saved without a browser by vl-convert (the extra `plots`).

`draw` takes what `charts.data` makes and gives an altair chart, which a user may go on with; `save` writes it by
`files`. A kind of chart has a file: `scatter`, `bars`, `curves`; what they share is in `style` and `labels`.
"""

from __future__ import annotations

from typing import Any

from alignbench.reports.charts.data import Bars, Curves, Scatter
from alignbench.reports.charts.plots import bars, curves, scatter, style
from alignbench.reports.charts.plots.files import FORMATS, save

__all__ = ["FORMATS", "draw", "save"]


def draw(chart: Scatter | Bars | Curves) -> Any:
    """The altair chart of some chart data; raises UsageError where altair is not installed."""
    kinds: dict[type, Any] = {Scatter: scatter, Bars: bars, Curves: curves}
    kind = kinds[type(chart)]
    return style.finished(kind.drawn(chart), chart.title, kind.READING)
