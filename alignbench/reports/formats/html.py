"""Leaderboards as one self-contained web page: no network, light and dark, readable on a phone and without a script."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from alignbench.reports.charts import svg
from alignbench.reports.charts.looks import VERDICTS
from alignbench.reports.examples import Shown
from alignbench.reports.formats.page.cards import card
from alignbench.reports.formats.page.sections import Section, grids, sections
from alignbench.reports.table.board import ARROWS, Leaderboard, Table, plain_text
from alignbench.reports.table.definitions import COLUMNS
from alignbench.reports.table.definitions import VERDICTS as MEANINGS
from alignbench.reports.table.verdict import ORDER

FOLDER = Path(__file__).with_name("page")
ROOM = 750_000
"""Bytes of example draws with which a page of 50 generators on 20 tasks stays below 5 MB."""
EARLY = Markup("document.documentElement.className='js'")
"""The script that stands before the rest: what needs a script is hidden without one, and the other way round."""


@dataclass(frozen=True)
class Entry:
    """One definition of the page's legend."""

    id: str
    term: str
    text: str
    verdict: str = ""


def to_html(board: Leaderboard, examples: Sequence[Shown] = ()) -> str:
    """The page, with `examples` of the generators' draws; every string in it is escaped by the template engine."""
    shown = sections(board, examples)
    return _page(_title(board), shown, grids=grids(board), interactive=True, legend=_legend(shown))


def page_of(title: str, tables: Sequence[Table], closing: Sequence[str]) -> str:
    """A page of tables as they are, then the closing lines."""
    shown = tuple(Section(number, table) for number, table in enumerate(tables, 1))
    return _page(title, shown, closing=closing)


def _page(title: str, shown: Sequence[Section], **more: Any) -> str:
    css, js = (Markup((FOLDER / name).read_text(encoding="utf-8")) for name in ("page.css", "page.js"))
    settings = {"grids": (), "interactive": False, "legend": (), "closing": (), **more}
    return (
        _engine()
        .get_template("page.html.jinja")
        .render(title=title, sections=shown, css=css + svg.css(), js=js, early=EARLY, **settings)
    )


def _title(board: Leaderboard) -> str:
    """How many tasks on which base; of one table its own title."""
    bases = list(dict.fromkeys(table.base for table in board.tables))
    tasks = {table.task for table in board.tables}
    if len(board.tables) == 1:
        table = board.tables[0]
        return table.brief.heading if table.brief is not None else table.title
    if not bases:
        return "alignbench leaderboard"
    on = bases[0] if len(bases) == 1 else f"{len(bases)} bases"
    return f"{len(tasks)} task{'s' * (len(tasks) > 1)} on {on}"


def _legend(shown: Sequence[Section]) -> list[Entry]:
    """What the headings and verdicts of the page mean."""
    used: dict[str, str] = {}
    for head in (head for section in shown for head in section.heads if head.definition):
        used.setdefault(head.definition, head.column.label.strip("+= "))
    terms = [Entry(slug(key), used[key], text) for key, text in COLUMNS.items() if key in used]
    words = {line.verdict for section in shown if section.table.brief is not None for line in section.lines}
    return [*terms, *(Entry(f"v-{slug(w)}", w, text, w) for w, text in MEANINGS.items() if w in words)]


def slug(text: str) -> str:
    """A word for ids and classes: `asked-only` of "asked only", `none` of a dash."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "none"


def icon(verdict: str) -> Markup:
    """The mark of a verdict; the word beside it says what it is."""
    word = verdict or "—"
    return Markup('<svg class="v dot {}" aria-hidden="true"><use href="#v-{}"/></svg>').format(
        svg.class_of(word), slug(word)
    )


def shape(look: str) -> Markup:
    """The mark of a family of rows in curves, which stands before its name."""
    return Markup('<svg class="v dot {}" viewBox="-6 -6 12 12" aria-hidden="true">{}</svg>').format(
        svg.class_of(look), svg.symbol(look)
    )


@lru_cache  # it keeps the compiled template
def _engine() -> Environment:
    engine = Environment(
        loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    engine.globals |= {
        "arrows": ARROWS,
        "order": ORDER,
        "icon": icon,
        "shape": shape,
        "shapes": {slug(word): svg.symbol(word) for word in VERDICTS},
    }
    engine.filters |= {"digest": _digest, "plain": plain_text, "slug": slug, "card": card}
    return engine


def _digest(text: str) -> str:
    """What a Content-Security-Policy calls an inline script or style of exactly this text."""
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"
