"""Leaderboards as one self-contained web page: no network, no script, light and dark, readable on a phone."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from alignbench.reports.markdown import LEGEND
from alignbench.reports.table import Leaderboard

TEMPLATE = Path(__file__).with_name("page.html.jinja")


def to_html(board: Leaderboard) -> str:
    """The page; every string in it is escaped by the template engine."""
    loader = FileSystemLoader(TEMPLATE.parent)
    engine = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True,
    )  # fmt: skip
    return engine.get_template(TEMPLATE.name).render(tables=board.tables, legend=LEGEND)
