"""Charts as files: SVG, PNG of 300 dots an inch and PDF of one picture, and the chart's data as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from alignbench.errors import UsageError
from alignbench.files import jsonable, write_atomic
from alignbench.reports.charts.drawing import Chart, draw
from alignbench.reports.charts.svg import standalone
from alignbench.reports.table.board import Cell

DOTS = 300
MADE_BY_LIBRARY = ("png", "pdf")


def _svg(chart: Chart) -> bytes:
    return standalone(draw(chart)).encode()


def _png(chart: Chart) -> bytes:
    import vl_convert

    return bytes(vl_convert.svg_to_png(standalone(draw(chart)), ppi=DOTS))


def _pdf(chart: Chart) -> bytes:
    import vl_convert

    return bytes(vl_convert.svg_to_pdf(standalone(draw(chart))))


def _json(chart: Chart) -> bytes:
    data = {"chart": type(chart).__name__} | _plain(chart)
    return (json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8", "backslashreplace")


def _plain(value: Any) -> Any:
    """Chart data as what strict JSON knows; a cell is its value, its limits and its text."""
    if isinstance(value, Cell):
        numbers = {"value": value.value, "low": value.low, "high": value.high}
        return {name: jsonable(number) for name, number in numbers.items()} | {"text": value.text}
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    return [_plain(v) for v in value] if isinstance(value, tuple) else jsonable(value)


FORMATS: Mapping[str, Callable[[Chart], bytes]] = {"png": _png, "svg": _svg, "pdf": _pdf, "json": _json}
"""Extension → chart to bytes."""


def check_formats(formats: Sequence[str]) -> None:
    """Raises UsageError with what to install where one of `formats` needs a library that is absent."""
    if not set(formats) & set(MADE_BY_LIBRARY):
        return
    try:
        import vl_convert  # noqa: F401
    except ImportError:
        raise UsageError("PNG and PDF need vl-convert-python: pip install 'alignbench[plots]' "
                         "(--format svg needs nothing)") from None  # fmt: skip


def save(chart: Chart, path: Path) -> None:
    """Write a chart in the format of the path's extension, in one step; raises StoreError where it cannot."""
    write_atomic(path, FORMATS[path.suffix.removeprefix(".").lower()](chart))
