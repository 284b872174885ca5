"""Every format against its golden file; strings that mean harm are in `test_hostile`.

ALIGNBENCH_REGENERATE=1 pytest tests/reports rewrites the golden files from the output; read the difference.
"""

from __future__ import annotations

import io
import json
import os
import re
from html.parser import HTMLParser
from math import inf, nan
from pathlib import Path

import pandas as pd
import pytest
from rich.cells import cell_len
from rich.console import Console

from alignbench.errors import StoreError
from alignbench.reports.formats.render import FORMATS, to_html, to_json, to_markdown, to_terminal, write_leaderboard
from alignbench.reports.formats.strict_json import plain_value
from alignbench.reports.rows import COLUMNS, csv_bytes, read_rows, tidy
from alignbench.reports.table.leaderboards import Leaderboard, leaderboard

GOLDEN = Path(__file__).parents[2] / "golden"


@pytest.fixture
def board(rows: pd.DataFrame) -> Leaderboard:
    """All tables of the sample rows."""
    return leaderboard(rows)


def printed(board: Leaderboard, width: int) -> str:
    """What a terminal of `width` columns shows."""
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=False, legacy_windows=False).print(to_terminal(board))
    return out.getvalue()


@pytest.mark.parametrize("extension", ["csv", *sorted(FORMATS)])
def test_golden(board: Leaderboard, extension: str) -> None:
    path = GOLDEN / f"leaderboard.{extension}"
    text = csv_bytes(board.rows).decode() if extension == "csv" else FORMATS[extension](board)
    if os.environ.get("ALIGNBENCH_REGENERATE"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


def test_writing_makes_all_files_and_the_table_is_the_rows(rows: pd.DataFrame, tmp_path: Path) -> None:
    paths = write_leaderboard(leaderboard(rows, primary={"gender_balance": "perplexity"}), tmp_path / "out")
    assert sorted(p.name for p in paths) == sorted(p.name for p in (tmp_path / "out").iterdir())
    assert {p.suffix for p in paths} == {".csv", ".md", ".html", ".tex", ".json"}
    pd.testing.assert_frame_equal(read_rows(paths[0]), tidy(rows))
    assert "perplexity" in (tmp_path / "out" / "leaderboard.md").read_text(encoding="utf-8").split("|")[4]


def test_writing_where_it_cannot(rows: pd.DataFrame, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError):
        write_leaderboard(leaderboard(rows), tmp_path / "file")


@pytest.mark.parametrize("extension", sorted(FORMATS))
def test_no_rows_are_still_a_page(rows: pd.DataFrame, extension: str) -> None:
    assert FORMATS[extension](leaderboard(rows.head(0)))
    assert "No results" in printed(leaderboard(rows.head(0)), 80)


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_a_terminal_of_any_width_shows_every_number_whole(board: Leaderboard, width: int) -> None:
    shown = printed(board, width)
    assert max(cell_len(line) for line in shown.splitlines()) <= width
    assert "…" not in shown
    for table in board:
        for cell in (c for row in table.rows for c in row.cells):
            assert cell.text in shown
        for column in table.columns:
            assert column.heading in shown


def test_a_wide_terminal_needs_no_folding(board: Leaderboard) -> None:
    assert printed(board, 200).count("SmolLM2 (base)") == len(board)


class Page(HTMLParser):
    """Collects the tags of a page and the text that it shows."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag."""
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        """Note text."""
        self.text += data


def test_html_asks_for_nothing_from_outside(board: Leaderboard) -> None:
    page = Page(to_html(board))
    urls = [value or "" for name, value in page.attributes if name in ("src", "href", "action", "srcset")]
    assert all(url.startswith(("#", "data:")) for url in urls)
    assert "url(" not in to_html(board) and "@import" not in to_html(board)


def test_html_tells_a_screen_reader_what_is_what(board: Leaderboard) -> None:
    page = Page(to_html(board))
    assert page.tags.count("caption") == page.tags.count("table") >= len(board)
    assert page.attributes.count(("class", "board")) == len(board)
    assert page.tags.count("th") == page.attributes.count(("scope", "row")) + page.attributes.count(("scope", "col"))
    ids = [value for name, value in page.attributes if name == "id"]
    links = [str(value)[1:] for name, value in page.attributes if name == "href" and str(value).startswith("#")]
    assert len(ids) == len(set(ids))
    assert set(links) <= set(ids)


def refuse(literal: str) -> None:
    """NaN and Infinity are not JSON."""
    raise AssertionError(literal)


def test_json_is_strict_and_complete(board: Leaderboard, rows: pd.DataFrame) -> None:
    page = json.loads(to_json(board), parse_constant=refuse)
    assert len(page["rows"]) == len(rows)
    assert set(page["rows"][0]) == set(COLUMNS)
    first = page["tables"][0]
    assert [row["cells"][1]["value"] for row in first["rows"]][2] == "inf"
    best = next(row for row in first["rows"] if row["aligner"] == "best_of_n:n=4")
    assert best["cells"][1] == {
        "value": None, "ci_low": 0.1234567, "ci_high": None, "text": "≥ 0.123",
        "notes": best["cells"][1]["notes"], "best": False,
    }  # fmt: skip


@pytest.mark.parametrize(("value", "told"), [(inf, "inf"), (-inf, "-inf"), (nan, None), (0.5, 0.5), (pd.NA, None)])
def test_json_has_no_number_that_is_none(value: object, told: object) -> None:
    assert plain_value(value) == told


def test_a_terminal_shows_the_best_in_bold(rows: pd.DataFrame) -> None:
    """7.1 ± 0.4 is the lowest perplexity beyond doubt."""
    out = io.StringIO()
    board = leaderboard(rows[rows["metric"] == "perplexity"], primary={"gender_balance": "perplexity"})
    Console(file=out, width=120, force_terminal=True, color_system="standard").print(to_terminal(board))
    numbers = [text for text in re.findall(r"\x1b\[1m([^\x1b]*)", out.getvalue()) if text[:1].isdigit()]
    assert numbers == ["7.10"]


def test_a_board_prints_itself(board: Leaderboard) -> None:
    assert str(board) == to_markdown(board)
