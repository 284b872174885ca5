"""Plots as files: PNG of 300 dots an inch, SVG, PDF, and the Vega-Lite specification as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from alignbench.files import write_atomic

DOTS = 300
NOWHERE: list[str] = []  # the addresses that a plot may load anything from


def _png(spec: dict[str, Any]) -> bytes:
    import vl_convert

    return bytes(vl_convert.vegalite_to_png(spec, ppi=DOTS, allowed_base_urls=NOWHERE))


def _svg(spec: dict[str, Any]) -> bytes:
    import vl_convert

    return str(vl_convert.vegalite_to_svg(spec, allowed_base_urls=NOWHERE)).encode()


def _pdf(spec: dict[str, Any]) -> bytes:
    import vl_convert

    return bytes(vl_convert.vegalite_to_pdf(spec, allowed_base_urls=NOWHERE))


def _json(spec: dict[str, Any]) -> bytes:
    return (json.dumps(spec, indent=1, ensure_ascii=False, allow_nan=False, sort_keys=True) + "\n").encode()


FORMATS: Mapping[str, Callable[[dict[str, Any]], bytes]] = {"png": _png, "svg": _svg, "pdf": _pdf, "json": _json}
"""Extension → Vega-Lite specification to bytes."""


def save(chart: Any, path: Path) -> None:
    """Write an altair chart in the format of the path's extension, in one step; raises StoreError where it cannot."""
    write_atomic(path, FORMATS[path.suffix.removeprefix(".").lower()](chart.to_dict()))
