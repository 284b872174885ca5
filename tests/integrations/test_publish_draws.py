"""Draws beside published rows: of those rows, without what is private, and on the page that is made of them."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from published_rows import table, unit
from tiny_world import BRIGHT, TASK

import alignbench
from alignbench.integrations import hub
from alignbench.reports.draws import draws_bytes, read_draws
from alignbench.reports.publish import publish, publish_draws
from alignbench.reports.shown import Example, Shown
from alignbench.run.rows import RowKey

DRAW = Example("The sky", 0, "is blue", True, {"who": "she"}, -1.0, -1.0, -2.0, -1.0)


def shown(aligner: str = "", *draws: Example, **more: object) -> Shown:
    row = {**unit(aligner)[0], **more}
    names = ("run_id", "task", "task_version", "task_hash", "generator", "generator_id", "aligner", "base", "base_id",
             "target_id", "judge", "seed", "draws", "measured", "signature")  # fmt: skip
    return Shown(RowKey(**{name: row[name] for name in names}), draws or (DRAW,))


def there(folder: Path) -> list[tuple[str, str]]:
    found, told = read_draws(folder / "words.draws.jsonl")
    assert told == []
    return [(one.key.aligner, draw.text) for one in found for draw in one.draws]


def put(rows: pd.DataFrame, folder: Path, *some: Shown) -> list[str]:
    publish(rows, folder)
    return publish_draws(some, rows, folder)[1]


def test_draws_are_of_the_rows_that_are_exported(tmp_path: Path) -> None:
    others = [shown("b"), shown(measured="2027"), shown(task_hash="0"), shown(seed=1), shown(task="other")]
    assert put(table(unit(), unit("a")), tmp_path, shown(), shown("a"), *others) == []
    assert there(tmp_path) == [("", "is blue"), ("a", "is blue")]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["words.csv", "words.draws.jsonl"]


def test_draws_of_rows_that_are_there_and_not_exported_stay_as_they_are(tmp_path: Path) -> None:
    """Planted bug: whatever the folder has a row of."""
    put(table(unit("a"), unit("b")), tmp_path)
    put(table(unit("a")), tmp_path, shown("a"), shown("b"))
    assert there(tmp_path) == [("a", "is blue")]


def test_draws_are_merged_as_rows_are(tmp_path: Path) -> None:
    """Planted bug: draws of a measurement that a newer one has replaced stay."""
    late = {"measured": "2027-01-02T03:04:05+00:00"}
    put(table(unit("a"), unit("b"), unit("c")), tmp_path, shown("a"), shown("b"), shown("c"))
    put(table(unit("a", **late), unit("b")), tmp_path, shown("a", replace(DRAW, text="new"), **late))
    assert there(tmp_path) == [("a", "new"), ("b", "is blue"), ("c", "is blue")]
    put(table(unit("a")), tmp_path, shown("a"))  # which is older than what is there
    assert there(tmp_path) == [("a", "new"), ("b", "is blue"), ("c", "is blue")]
    put(table(unit("b")), tmp_path, shown("b", replace(DRAW, text="again")))
    put(table(unit("c", **late)), tmp_path)  # without draws
    assert there(tmp_path) == [("a", "new"), ("b", "again")]
    before = (tmp_path / "words.draws.jsonl").read_bytes()
    put(table(unit("b")), tmp_path, shown("b", replace(DRAW, text="again")))
    assert (tmp_path / "words.draws.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    "draw",
    [replace(DRAW, text="see /home/me/x"), replace(DRAW, prompt="from me@lab.example"),
     replace(DRAW, features={"who": "~me/x"}), replace(DRAW, text="x " * 700 + "/data/models/x")],
)  # fmt: skip
def test_a_draw_that_tells_of_a_machine_or_a_person_stays(draw: Example, tmp_path: Path) -> None:
    told = put(table(unit("a")), tmp_path, shown("a", draw, replace(DRAW, index=1)))
    assert told[0].startswith("words: SmolLM2 + a: draw 0 is not exported: it tells of this machine or a person: '")
    assert there(tmp_path) == [("a", "is blue")] and len(told) == 1


def test_an_edited_line_is_told_and_goes(tmp_path: Path) -> None:
    put(table(unit("a"), unit("b")), tmp_path, shown("a"), shown("b"))
    path = tmp_path / "words.draws.jsonl"
    path.write_text(path.read_text().replace("blue", "red!", 1))
    [told] = put(table(unit("b")), tmp_path, shown("b"))
    assert "words.draws.jsonl: line 1: is not what was written" in told and there(tmp_path) == [("b", "is blue")]


def test_without_draws_there_is_no_file(tmp_path: Path) -> None:
    put(table(unit("a")), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["words.csv"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    (folder / "tiny.yaml").write_text(TASK + BRIGHT + "metrics: [perplexity]\nprimary: perplexity\n")
    alignbench.evaluate("exact:words=sun rain wind,seed=3", [str(folder / "tiny.yaml")], aligners=["temperature:t=0.5"],
                        draws=40, output_path=folder / "out")  # fmt: skip
    return folder / "out"


class _Blocks(HTMLParser):
    """The JSON that a page carries."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.inside, self.found = False, list[str]()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside = ("type", "application/json") in attrs

    def handle_data(self, data: str) -> None:
        self.found += [data] if self.inside and data.strip() else []

    def handle_endtag(self, tag: str) -> None:
        self.inside = False


def on_page(path: Path) -> list[dict[str, object]]:
    [block] = map(json.loads, _Blocks(path.read_text()).found)
    return [draw for some in block["draws"].values() for draw in some]


def test_from_a_run_to_a_published_page(command, made: Path, tmp_path: Path) -> None:
    done = command("export", made, "--out", "reference")
    assert (done.code, done.out) == (0, "wrote reference/tiny.csv\nwrote reference/tiny.draws.jsonl\n")
    lines = [json.loads(x) for x in (tmp_path / "reference" / "tiny.draws.jsonl").read_text().splitlines()]
    assert len(lines) == 9 and {x["aligner"] for x in lines if x["generator"] == "exact"} == {"", "temperature:t=0.5"}
    assert any(x.get("marks") for x in lines) and all(sum(x["lengths"]) == len(x["text"]) for x in lines)
    page = ("leaderboard", "reference", "--format", "html", "--out", "reference")
    assert command(*page).code == 0 and command(*page, "--check").code == 0
    drawn = on_page(tmp_path / "reference" / "leaderboard.html")
    assert sorted("".join(d["tokens"]) for d in drawn) == sorted(x["text"] for x in lines)
    for draw in drawn:
        text = "".join(draw["tokens"])
        assert [text[begin:end] for begin, end in draw.get("marks", [])] == [w for w in text.split() if w == "sun"]
    again = command("export", "reference", "--out", "reference")
    assert [json.loads(x) for x in (tmp_path / "reference" / "tiny.draws.jsonl").read_text().splitlines()] == lines
    assert (again.code, again.err) == (0, "")


def test_the_draws_of_a_run_count_before_those_published_of_it(command, made: Path, tmp_path: Path) -> None:
    assert command("export", made, "--out", "reference").code == 0
    for order in ((made, "reference"), ("reference", made)):
        assert command("leaderboard", *order, "--format", "html", "--out", "both").code == 0
        assert len(on_page(tmp_path / "both" / "leaderboard.html")) == 18


def test_damaged_draws_are_told_and_tables_are_made(command, made: Path, tmp_path: Path) -> None:
    assert command("export", made, "--out", "reference").code == 0
    path = tmp_path / "reference" / "tiny.draws.jsonl"
    path.write_bytes(b"[" * 50_000 + b"\n" + path.read_bytes())
    done = command("leaderboard", "reference", "--format", "html", "--out", "reference")
    assert done.code == 0 and "tiny.draws.jsonl: line 1: is no JSON" in done.err and "Traceback" not in done.err
    assert len(on_page(tmp_path / "reference" / "leaderboard.html")) == 9


def test_no_draws(command, made: Path, tmp_path: Path) -> None:
    done = command("export", made, "--out", "reference", "--no_draws")
    assert (done.code, done.out) == (0, "wrote reference/tiny.csv\n")
    assert [p.name for p in (tmp_path / "reference").iterdir()] == ["tiny.csv"]
    wrong = command("export", made, "--out", "x", "--no_draws", "--format", "eee", "--organization", "Lab")
    assert wrong.code == 2 and "--no_draws goes with --format csv" in wrong.err


def test_draws_are_uploaded_only_where_samples_are_asked_for(command, made: Path, monkeypatch) -> None:
    sent = []
    monkeypatch.setattr(hub, "check_token", lambda: None)
    monkeypatch.setattr(hub, "upload", lambda *given: sent.append([p.name for p in given[2]]) or "https://hub/commit")
    asked = ("export", made, "--out", "out", "--push_to_hub", "me/results")
    assert command(*asked).code == 0
    command(*asked, "--with_samples")
    assert sent == [["tiny.csv"], ["tiny.csv", "tiny.draws.jsonl"]]


def test_rows_that_are_refused_have_no_draws(command, tmp_path: Path) -> None:
    folder = tmp_path / "reference"
    publish(table(unit(), unit("hf:/home/me/x")), folder)
    both = [shown(), shown("hf:/home/me/x")]
    (folder / "words.draws.jsonl").write_bytes(draws_bytes(both))
    assert command("export", folder, "--out", "clean").code == 1
    assert there(tmp_path / "clean") == [("", "is blue")]
