"""Plots as files: one specification against its golden file, what the pictures are and say, and words that mean harm.

ALIGNBENCH_REGENERATE=1 pytest tests/reports rewrites the golden file from the output; read the difference.
"""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from alignbench.reports.charts.plots import FORMATS, draw, save
from alignbench.reports.charts.plots.style import short
from chart_rows import WORDS, frame, of, row

from alignbench.errors import StoreError, UsageError
from alignbench.reports.charts.data import charts_of
from alignbench.reports.table.leaderboards import leaderboard

pytest.importorskip("altair")
pytest.importorskip("vl_convert")
GOLDEN = Path(__file__).parents[2] / "golden" / "tradeoff.vl.json"
HOSTILE = (
    "<script>alert(1)</script>", "</text></svg><b>", 'say "x" & \'y\'', "datum['x'] + alert(1)", "{{7*7}} ${1}",
    "\u202eturned", "javascript:alert(1)", "a\nb", "back\\slash", "field.with[brackets]", "]]>", "&lt;",
)  # fmt: skip


def texts(svg: Path) -> list[str]:
    """All that an SVG says; it must be well-formed."""
    root = ElementTree.parse(svg).getroot()
    nodes = [n for tag in ("text", "tspan") for n in root.iter(f"{{http://www.w3.org/2000/svg}}{tag}")]
    return ["".join(node.itertext()) for node in nodes]


def test_the_specification_is_the_golden_one(tmp_path: Path) -> None:
    [charts] = charts_of(leaderboard(WORDS))
    save(draw(charts.tradeoff), tmp_path / "t.json")
    found = (tmp_path / "t.json").read_text(encoding="utf-8")
    if os.environ.get("ALIGNBENCH_REGENERATE"):
        GOLDEN.write_text(found, encoding="utf-8")
    assert found == GOLDEN.read_text(encoding="utf-8")


def test_pictures_are_what_their_names_say(tmp_path: Path) -> None:
    [charts] = charts_of(leaderboard(WORDS))
    picture = draw(charts.tradeoff)
    for extension in FORMATS:
        save(picture, tmp_path / f"t.{extension}")
    png = (tmp_path / "t.png").read_bytes()
    width, height = struct.unpack(">II", png[16:24])
    assert png.startswith(b"\x89PNG")
    assert 3.2 < width / 300 < 3.5 and 3.5 < height / 300 < 5.5  # inches: a column of a paper
    assert (tmp_path / "t.pdf").read_bytes().startswith(b"%PDF")
    said = texts(tmp_path / "t.svg")
    for word in ("best_of_n:n=8", "KL(π||a), nats ↓", "draws of p (ceiling)", "words v1 · base m"):
        assert word in said
    sizes = {node.get("font-size") for node in ElementTree.parse(tmp_path / "t.svg").iter() if node.get("font-size")}
    assert sizes <= {"8px", "9px"}
    with pytest.raises(StoreError):
        save(picture, tmp_path / "t.png" / "no_folder.png")


def test_bars_say_infinity_bounds_and_what_is_wanted(tmp_path: Path) -> None:
    [charts] = charts_of(leaderboard(WORDS))
    save(draw(charts.divergences), tmp_path / "d.svg")
    assert {"∞", "n/a", "KL(p||π), nats ↓"} <= set(texts(tmp_path / "d.svg"))
    save(draw(charts.moments), tmp_path / "m.svg")
    assert {"share.pronoun.she", "dashed: 0.5 wanted"} <= set(texts(tmp_path / "m.svg"))


def test_words_that_mean_harm_are_only_shown(tmp_path: Path) -> None:
    steps = [
        of(f"{word}/run-{s}", 0.1 * s, s, step=s, task=HOSTILE[0], base=HOSTILE[1]) for word in HOSTILE for s in (1, 2)
    ]
    rows = frame(*steps).assign(part=lambda t: t["part"].where(t["metric"] == "divergence", HOSTILE[3]))
    rows = frame(rows.to_dict("records"), row("a", "satisfaction.always", 1.0, 0.1)).assign(
        task=HOSTILE[0], base=HOSTILE[1]
    )
    [charts] = charts_of(leaderboard(rows))
    for name, chart in {"m": charts.moments, "d": charts.divergences, "s": charts.series}.items():
        save(draw(chart), tmp_path / f"{name}.svg")
        raw, said = (tmp_path / f"{name}.svg").read_text(encoding="utf-8"), texts(tmp_path / f"{name}.svg")
        tags = {node.tag.rpartition("}")[2] for node in ElementTree.parse(tmp_path / f"{name}.svg").iter()}
        assert tags <= {"svg", "g", "path", "text", "line", "rect", "defs", "clipPath", "style", "tspan", "title"}
        assert "\u202e" not in raw and "href" not in raw
        assert any("<script>" in line for line in said)  # the title says it, as text
    shown = " ".join(texts(tmp_path / "s.svg"))
    assert "datum['x'] + alert(1)/run-*" in shown and "{{7*7}} ${1}/run-*" in shown


def test_short_keeps_both_ends() -> None:
    assert short("temperature:t=0.7", 20) == "temperature:t=0.7"
    assert short("best_of_n:n=16,rank=likelihood", 16) == "best_of_n:…ihood"
    assert len(short("x" * 99, 16)) == 16


@pytest.mark.parametrize("absent", ["altair", "vl_convert"])
def test_without_the_libraries_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch, absent: str) -> None:
    monkeypatch.setitem(sys.modules, absent, None)
    [charts] = charts_of(leaderboard(WORDS))
    with pytest.raises(UsageError, match=r"pip install 'alignbench\[plots\]'"):
        draw(charts.tradeoff)
