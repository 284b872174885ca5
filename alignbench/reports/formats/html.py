"""Leaderboards as one self-contained web page: no network, light and dark, readable on a phone and without a script."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from alignbench.reports.charts import svg
from alignbench.reports.examples import Shown
from alignbench.reports.formats.markdown import LEGEND
from alignbench.reports.formats.page.sections import sections
from alignbench.reports.formats.page.strips import scale, strip
from alignbench.reports.table.board import ARROWS, Leaderboard

FOLDER = Path(__file__).with_name("page")
ROOM = 1_000_000
"""Bytes of example draws with which a page of 50 generators on 20 tasks stays below 5 MB."""
FEW = 6
"""With more tables than that, charts are closed until they are asked for."""


def to_html(board: Leaderboard, examples: Sequence[Shown] = ()) -> str:
    """The page, with `examples` of the generators' draws; every string in it is escaped by the template engine."""
    css, js = (Markup((FOLDER / name).read_text(encoding="utf-8")) for name in ("page.css", "page.js"))
    css += Markup(svg.css())
    page = _engine().get_template("page.html.jinja")
    return page.render(sections=sections(board, examples), few=len(board.shown) <= FEW, legend=LEGEND, css=css, js=js)


@lru_cache  # it keeps the compiled template
def _engine() -> Environment:
    engine = Environment(
        loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    engine.globals |= {"arrows": ARROWS, "scale": scale, "strip": strip}
    engine.filters |= {"digest": _digest}
    return engine


def _digest(text: str) -> str:
    """What a Content-Security-Policy calls an inline script or style of exactly this text."""
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"
