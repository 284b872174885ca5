"""Leaderboards as one self-contained web page: no network, light and dark, readable on a phone and without a script."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from hashlib import sha256
from math import inf
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from alignbench.reports.board import ARROWS, Leaderboard, Row, Table
from alignbench.reports.markdown import LEGEND

FOLDER = Path(__file__).with_name("page")


def to_html(board: Leaderboard) -> str:
    """The page; every string in it is escaped by the template engine."""
    css, js = (Markup((FOLDER / name).read_text(encoding="utf-8")) for name in ("page.css", "page.js"))
    sections = [Section(number, table) for number, table in enumerate(board.shown, 1)]
    page = _engine().get_template("page.html.jinja")
    return page.render(sections=sections, legend=LEGEND, css=css, js=js, arrows=ARROWS)


def _engine() -> Environment:
    engine = Environment(
        loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    engine.filters |= {"digest": _digest, "js_number": _js_number}
    return engine


@dataclass(frozen=True)
class Body:
    """Rows of a table that are sorted among themselves, each with its number in the table."""

    pinned: bool
    rows: tuple[tuple[int, Row], ...]


@dataclass(frozen=True)
class Section:
    """What the page shows of one table; `number` counts from 1 and is part of ids."""

    number: int
    table: Table

    @property
    def bodies(self) -> tuple[Body, ...]:
        """The rows that compete, then those that are pinned below them."""
        rows = list(enumerate(self.table.rows, 1))
        parts = [Body(pinned, tuple(r for r in rows if bool(r[1].mark) == pinned)) for pinned in (False, True)]
        return tuple(part for part in parts if part.rows)

    def linked(self, row: int) -> bool:
        """Whether a row has example draws."""
        return False


def _digest(text: str) -> str:
    """What a Content-Security-Policy calls an inline script or style of exactly this text."""
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"


def _js_number(value: float) -> str:
    """A number as JavaScript's `Number` reads it, to the digits that a sort needs."""
    return f"{'-' if value < 0 else ''}Infinity" if abs(value) == inf else f"{value:.9g}"
