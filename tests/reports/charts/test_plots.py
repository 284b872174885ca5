"""Pictures as SVG and as files: colours that are seen, one picture for page and paper, words that mean harm."""

from __future__ import annotations

import json
import re
import struct
import sys
from collections import Counter
from dataclasses import replace
from math import inf, nan
from pathlib import Path
from xml.etree import ElementTree

import pytest
from chart_boards import charts_of
from chart_rows import WORDS, frame, of, row
from two_parts_rows import ROWS, many, part

from alignbench.errors import StoreError, UsageError
from alignbench.reports.charts.data import charted, series, steps_of
from alignbench.reports.charts.drawing import draw
from alignbench.reports.charts.files import FORMATS, check_formats, save
from alignbench.reports.charts.looks import LOOKS, PAPER, VERDICTS
from alignbench.reports.charts.picture import COLUMN, SCREEN, Dot, Picture, Text, short
from alignbench.reports.charts.picture import Path as Line
from alignbench.reports.charts.suite import Suite, suite
from alignbench.reports.charts.svg import css, inline, standalone
from alignbench.reports.charts.two_parts import two_parts
from alignbench.reports.table.board import Arrangement, Cell, Column, Row, Table
from alignbench.reports.table.leaderboards import leaderboard
from alignbench.reports.table.suite import CHEAPEST, NO_RESULT
from alignbench.reports.table.verdict import WORDS as MEANINGS

HOSTILE = (
    "<script>alert(1)</script>", "</text></svg><b>", 'say "x" & \'y\'', "datum['x'] + alert(1)", "{{7*7}} ${1}",
    "\u202eturned", "javascript:alert(1)", "a\nb", "back\\slash", "]]>", "&lt;", "\x00\ud800\uffff",
    "' onload='alert(1)",
)  # fmt: skip
SVG = "{http://www.w3.org/2000/svg}"


def words_of(svg: str) -> list[str]:
    """All that an SVG says; it must be well-formed."""
    root = ElementTree.fromstring(svg.replace("<svg ", f'<svg xmlns="{SVG[1:-1]}" ', 1) if "xmlns" not in svg else svg)
    return ["".join(node.itertext()) for tag in ("text", "title") for node in root.iter(f"{SVG}{tag}")]


def pictures() -> dict[str, Picture]:
    """One picture of each kind."""
    steps = [of(f"m2/step-{s}", s / 100, s / 10, step=s) for s in (2, 3, 20)]
    [charts] = charts_of(leaderboard(frame(WORDS.to_dict("records"), *steps)))
    kinds = {"scatter": charts.tradeoff, "moments": charts.moments, "divergences": charts.divergences,
             "series": charts.series, "parts": two_parts(ROWS, "words v1"), "suite": suite(grid())}  # fmt: skip
    return {name: draw(chart) for name, chart in kinds.items()}


# --- looks ------------------------------------------------------------------------------------------------------------


def luminance(colour: str) -> float:
    parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted(map(luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("name", LOOKS)
def test_every_look_is_seen_on_white_and_on_near_black(name) -> None:
    """3 to 1 for marks, 4.5 for text. Planted: Okabe and Ito's orange without its edge is 2.2 on white."""
    look = LOOKS[name]
    least = 0.0 if look.decor else 4.5 if name in ("axis", "text", "name", "told") else 3.0
    assert (PAPER.light, PAPER.dark) == ("#ffffff", "#14161a")
    assert contrast(look.edge.light, PAPER.light) >= least and contrast(look.edge.dark, PAPER.dark) >= least
    assert contrast("#e69f00", "#ffffff") < 3.0 < contrast("#ffffff", "#14161a") < 21


def test_no_two_verdicts_share_shape_and_colour_and_none_is_red_or_green() -> None:
    assert set(VERDICTS) == {word for word in MEANINGS if word} | {"base"}
    assert len({(look.shape, look.edge, look.fill) for look in VERDICTS.values()}) == len(VERDICTS)
    told = [VERDICTS[word].shape for word in ("better", "trade", "same", "worse", "asked only", "—")]
    assert len(set(told)) == len(told)
    assert {VERDICTS[w].fill.light for w in ("better", "trade", "same", "worse", "asked only")} == {
        "#0072b2", "#e69f00", "#56b4e9", "#d55e00", "#cc79a7",
    }  # fmt: skip
    assert "#009e73" not in css()


def test_the_style_sheet_has_a_rule_for_every_class_of_every_picture() -> None:
    known = set(re.findall(r"\.(l-[\w-]+)", css()))
    used = {name for p in pictures().values() for name in re.findall(r'class="(l-[\w-]+)', str(inline(p, "x")))}
    assert used and used <= known and len(known) == len(LOOKS)
    light, _, dark = css().partition("@media (prefers-color-scheme: dark)")
    assert ".l-trade { stroke: #a87400; }" in light and ".l-trade { stroke: #e69f00; }" in dark


# --- one picture, page and file ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["scatter", "moments", "divergences", "series", "parts", "suite"])
def test_page_and_file_have_the_marks_of_the_picture(name) -> None:
    """As many dots of each look, as many lines and the same words; only ‖ is two bars in files."""
    picture = pictures()[name]
    page, file = str(inline(picture, "x")), standalone(picture)
    in_page = Counter(re.findall(r'class="(l-[\w-]+) dot"', page))
    dots = Counter(mark.look for mark in picture.marks if isinstance(mark, Dot))
    assert sorted(in_page.values()) == sorted(dots.values()) and dots
    for look, count in Counter((LOOKS[m.look].edge, LOOKS[m.look].width) for m in picture.marks
                               if isinstance(m, Dot)).items():  # fmt: skip
        said = f'stroke="{look[0].light}" stroke-width="{look[1]:g}"'
        assert file.count(said) >= count
    for tag in ("<path", "<circle", "<text"):
        assert page.count(tag) == file.count(tag)
    assert [w.replace("‖", "||") for w in words_of(page)] == words_of(file)
    assert "style=" not in page and "<style" not in page


def test_a_page_s_picture_has_a_name_and_groups_of_rows() -> None:
    page = str(inline(draw(two_parts(ROWS, "words v1"), SCREEN), "trade-1-1"))
    assert 'role="img" aria-labelledby="trade-1-1-title trade-1-1-told"' in page
    assert '<title id="trade-1-1-title">' in page and '<desc id="trade-1-1-told">' in page
    [group] = re.findall(r'<g data-n="5">(.*?)</g>', page)
    assert group.startswith("<title>5 row 5: asked gap 0.5") and "keeps 8.0 %</text>" in group


def test_a_picture_that_stands_alone_has_title_legend_and_names() -> None:
    chart = two_parts(many(), "words v1 · base m")
    beside, alone = (words_of(str(inline(draw(chart, size), "x"))) for size in (SCREEN, COLUMN))
    assert "words v1 · base m" in alone and "words v1 · base m" not in beside
    assert "row 9" in alone and "row 9" not in beside and {"better", "asked only", "not known"} <= set(alone)
    assert "better" not in beside  # a page has one legend


def test_a_scatter_stands_the_right_way_up() -> None:
    """base (0, 0.3) is left of and below best_of_n n=8 (1.5, 0.8), by as much as the axes say."""
    [charts] = charts_of(leaderboard(WORDS))
    picture, number = draw(charts.tradeoff), {p.label: p.number for p in charts.tradeoff.points}
    at = {m.row: (m.x, m.y) for m in picture.marks if isinstance(m, Dot) and m.row and m.y < COLUMN.height}
    base, best, half = (at[number[name]] for name in ("m (base)", "best_of_n:n=8", "best_of_n:n=2"))
    assert base[0] < half[0] < best[0]
    assert (base[1] - half[1]) / (half[1] - best[1]) == pytest.approx((0.5 - 0.3) / (0.8 - 0.5))
    assert base[1] > best[1]


def test_bars_say_infinity_bounds_and_what_is_wanted() -> None:
    made = {name: words_of(standalone(picture)) for name, picture in pictures().items()}
    assert {"∞", "n/a"} <= set(made["divergences"]) and any("KL(p||π)" in w for w in made["divergences"])
    assert {"share.pronoun.she", "wanted 0.5"} <= set(made["moments"])


@pytest.mark.parametrize("name", ["scatter", "moments", "divergences", "series", "parts", "suite"])
def test_nothing_sticks_out_of_a_picture_and_text_is_8_points(name) -> None:
    picture = pictures()[name]
    assert picture.width <= 504 and picture.font == 8
    for mark in picture.marks:
        spots = [(mark.x, mark.y)] if hasattr(mark, "x") else [s for p in getattr(mark, "parts", ()) for s in p]
        assert all(0 <= x <= picture.width and 0 <= y <= picture.height for x, y in spots), mark


def test_curves_stand_two_side_by_side_and_what_is_no_number_joins_no_line() -> None:
    """Their names begin where they do. Planted bugs: all names at the left edge; a line through ∞, or to a limit."""
    keys = ("kl_target", "kl_asked", "kl_collateral", "kl_base")
    steps = [row(f"m2/step-{s}", f"divergence.{key}", s / 10, 0.1, step=s) for s in (1, 2, 3, 4, 5) for key in keys]
    rows = frame(*steps)
    at = (rows["part"] == "kl_target") & (rows["step"] == 3)
    rows.loc[at, ["value", "ci_low", "ci_high"]] = inf
    rows.loc[(rows["part"] == "kl_asked") & (rows["step"] == 1), "value"] = nan
    asked = [f"divergence.{key}" for key in keys]
    chart = series(charted(rows, Arrangement())[0], steps_of(rows), asked)
    picture = draw(chart)
    heads = [mark for mark in picture.marks if isinstance(mark, Text) and "nats" in mark.text]
    assert [(h.x > picture.width / 2, h.text.split(",")[0]) for h in heads] == [
        (False, "KL(p‖π)"), (True, "asked gap"), (False, "collateral"), (True, "KL(π‖a)"),
    ]  # fmt: skip
    kl, gap, *_ = (mark for mark in picture.marks if isinstance(mark, Line) and mark.look == "line 1")
    assert [len(part) for part in kl.parts] == [2, 2] and [len(part) for part in gap.parts] == [4]
    assert [mark.text for mark in picture.marks if isinstance(mark, Text) and mark.look == "name"].count("∞") == 1
    small = draw(replace(chart, curves=chart.curves[:3]))
    assert small.width == COLUMN.width < picture.width and small.font == picture.font


# --- the suite --------------------------------------------------------------------------------------------------------


def grid() -> Table:
    """Two rows on three tasks."""
    cells = ((("better", ".05"), ("asked only", "≥ .3"), ()), (("—", ""), ("worse", ""), ("trade", "1.2")))
    rows = [
        Row(f"row {i}", (Cell("1", value=1.0), *(Cell(*cell) if cell else Cell(notes=(1,)) for cell in its)))
        for i, its in enumerate(cells, 1)
    ]
    best = Row("best at little cost", (Cell(""), *(Cell("base") for _ in range(3))), mark=CHEAPEST)
    columns = (Column("count.better", "better"), *(Column(f"verdict.{i}", f"task_{i}") for i in range(3)))
    return Table("suite", columns, (best, *rows), "base m · 3 tasks", footnotes=(NO_RESULT,))


def test_a_suite_is_a_mark_and_a_gap_in_each_cell() -> None:
    """`asked only` is not `asked`; a task without a result has nothing; `—` is not told."""
    chart = suite(grid())
    assert isinstance(chart, Suite) and chart.tasks == ("task_0", "task_1", "task_2")
    assert [[(o.verdict, o.gap) for o in r.outcomes] for r in chart.rows] == [
        [("better", ".05"), ("asked only", "≥ .3"), ("", "")], [("—", ""), ("worse", ""), ("trade", "1.2")],
    ]  # fmt: skip
    assert chart.rows[0].counts == (("better", 1),)
    looks = [m.look for m in draw(chart).marks if isinstance(m, Dot) and m.row]
    assert looks == ["better", "asked only", "—", "worse", "trade"]
    columns = {m.look: m.x for m in draw(chart).marks if isinstance(m, Dot) and m.row}
    assert columns["better"] == columns["—"] < columns["asked only"] == columns["worse"] < columns["trade"]


# --- files ------------------------------------------------------------------------------------------------------------


def test_pictures_are_what_their_names_say(tmp_path: Path) -> None:
    pytest.importorskip("vl_convert")
    chart = two_parts(ROWS, "words v1")
    for extension in FORMATS:
        save(chart, tmp_path / f"t.{extension}")
    png = (tmp_path / "t.png").read_bytes()
    width, height = struct.unpack(">II", png[16:24])
    assert png.startswith(b"\x89PNG") and 3.3 < width / 300 < 3.35  # inches: a column of a paper is 240 points
    assert height / width == pytest.approx(draw(chart).height / 240, rel=0.01)
    pdf = (tmp_path / "t.pdf").read_bytes()
    assert pdf.startswith(b"%PDF") and re.search(rb"MediaBox ?\[0 0 240 ", pdf)
    with pytest.raises(StoreError):
        save(chart, tmp_path / "t.png" / "no_folder.png")


def test_json_is_the_chart_s_data_and_strict(tmp_path: Path) -> None:
    save(two_parts(ROWS, "words v1"), tmp_path / "t.json")
    data = json.loads((tmp_path / "t.json").read_text(encoding="utf-8"), parse_constant=lambda c: pytest.fail(c))
    assert (data["chart"], data["limit"], data["kl"]) == ("TwoParts", 3.0, 2.0)
    five = next(p for p in data["points"] if p["row"]["number"] == 5)
    assert five["row"]["collateral"] == {"value": "inf", "low": None, "high": None, "text": "inf"}
    assert (five["look"], five["front"], five["row"]["kept"]) == ("trade", False, 0.08)
    [charts] = charts_of(leaderboard(WORDS))
    save(charts.tradeoff, tmp_path / "s.json")
    assert json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))["x"]["key"] == "divergence.kl_base"


def test_svg_and_json_need_no_library_and_the_others_say_what_to_install(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    check_formats(["svg", "json"])
    save(two_parts(ROWS, "t"), tmp_path / "t.svg")
    with pytest.raises(UsageError, match=r"pip install 'alignbench\[plots\]'"):
        check_formats(["svg", "png"])


# --- words that mean harm ---------------------------------------------------------------------------------------------


def test_words_that_mean_harm_are_only_shown() -> None:
    """Planted: unescaped, the first of them would be an element."""
    steps = [of(f"{w}/run-{s}", 0.1 * s, s, step=s, base=HOSTILE[1]) for w in HOSTILE[:-2] for s in (1, 2)]
    rows = frame(*steps).assign(part=lambda t: t["part"].where(t["metric"] == "divergence", HOSTILE[3]))
    rows = frame(rows.to_dict("records"), row("a", "satisfaction.always", 1.0, 0.1)).assign(
        task=HOSTILE[0], base=HOSTILE[1]
    )
    [charts] = charts_of(leaderboard(rows))
    named = [part(n, 0.1 * n, 2.0 - 0.05 * n, label=word) for n, word in enumerate(HOSTILE, 1)]
    parts = two_parts(named, HOSTILE[0], focus=range(99))
    hostile = Suite(HOSTILE[0], HOSTILE[:3], suite(grid()).rows)
    for chart in (charts.moments, charts.divergences, charts.series, parts, hostile):
        for text in (str(inline(draw(chart), "x")), standalone(draw(chart))):
            said = words_of(text)
            tags = set(re.findall(r"<(\w+)", text))
            assert tags <= {"svg", "g", "path", "text", "rect", "circle", "title", "desc"}
            assert not re.search(r"<[^>]*\son\w+=|href|[\u202e\x00\ud800\uffff]", text)
            assert any("<script>" in line for line in said)  # the title says it, as text
    assert "<script>alert(1)</script>: asked" in " ".join(words_of(standalone(draw(parts))))


def test_short_keeps_both_ends() -> None:
    assert short("temperature:t=0.7", 20) == "temperature:t=0.7"
    assert short("best_of_n:n=16,rank=likelihood", 16) == "best_of_n:…ihood"
    assert len(short("x" * 99, 16)) == 16
