"""The file of draws beside published rows: what it keeps, what it refuses, and that it stays small."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from math import inf
from os import mkfifo
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignbench.errors import StoreError
from alignbench.reports import draws
from alignbench.reports.draws import LARGEST_FILE, LINE, MOST, SUFFIX, draws_bytes, read_draws
from alignbench.reports.examples import examples
from alignbench.reports.rows import EDITED
from alignbench.reports.shown import CUT, Example, Shown
from alignbench.run.rows import RowKey

KEY = RowKey(
    "", "words", 2, "h" * 64, "SmolLM2", "01234567", "greedy", "SmolLM2", "d4357567", "7a49e700", "", 0, 16,
    "2026-01-02T03:04:05+00:00", "",
)  # fmt: skip
DRAW = Example(
    "A prompt", 1, "a sun\u2028 é", True, {"word": 1.0, "who": "she", "none": None}, -1.25, None, -inf, 0.0,
    ("a", " sun", "\u2028 é", ""), (-0.01, -inf, -3.5, -12.25), marks=((2, 5),),
)  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / f"words{SUFFIX}"


def line(draw: Example = DRAW, key: RowKey = KEY) -> dict[str, Any]:
    return json.loads(draws_bytes([Shown(key, (draw,))]))


def spelled(content: Any) -> bytes:
    """A line with the digest that belongs to it."""
    if isinstance(content, dict):
        rest = {k: v for k, v in content.items() if k != "digest"}
        content = {**rest, "digest": draws._digest(rest)}
    return json.dumps(content).encode() + b"\n"


def test_what_was_written_comes_back(path: Path) -> None:
    other = replace(DRAW, index=0, pieces=(), nats=(), marks=(), finished=False, cut=True, log_gen=None)
    path.write_bytes(draws_bytes([Shown(KEY, (DRAW, other))]))
    assert read_draws(path) == ([Shown(KEY, (other, DRAW))], [])
    assert path.read_bytes().isascii() and path.read_bytes().count(b"\n") == 2
    assert draws_bytes(read_draws(path)[0]) == path.read_bytes()


def test_a_line(path: Path) -> None:
    assert line() == {
        "task": "words", "task_hash": "h" * 64, "target_id": "7a49e700", "base": "SmolLM2", "base_id": "d4357567",
        "judge": "", "generator": "SmolLM2", "generator_id": "01234567", "aligner": "greedy", "seed": 0, "draws": 16,
        "task_version": 2, "measured": "2026-01-02T03:04:05+00:00", "prompt": "A prompt", "index": 1,
        "text": "a sun\u2028 é", "finished": True, "features": {"word": 1.0, "who": "she", "none": None},
        "logs": [0.0, -1.25, None, "-inf"], "lengths": [1, 4, 3, 0], "nats": [-1, "-inf", -350, -1225],
        "marks": [[2, 5]], "digest": line()["digest"],
    }  # fmt: skip
    assert len(line()["digest"]) == 11 and line()["digest"] != line(replace(DRAW, text="a sum\u2028 é"))["digest"]


def test_the_order_of_lines_is_fixed() -> None:
    """Planted bug: they stand as they were found."""
    three = tuple(replace(DRAW, index=i, prompt=p) for i, p in ((1, "p"), (0, "q"), (0, "p")))
    some = [Shown(replace(KEY, aligner=a), three) for a in "ba"]
    content = draws_bytes(some)
    assert content == draws_bytes(reversed(some))
    told = [(x["aligner"], x["index"], x["prompt"]) for x in map(json.loads, content.splitlines())]
    assert told == [(a, i, p) for a in "ab" for i, p in ((0, "p"), (0, "q"), (1, "p"))]


def test_at_most_three_draws_of_a_row(path: Path) -> None:
    many = tuple(replace(DRAW, index=i) for i in range(9))
    assert draws_bytes([Shown(KEY, many)]).count(b"\n") == MOST == 3
    path.write_bytes(b"".join(spelled(line(draw)) for draw in many))
    assert [d.index for d in read_draws(path)[0][0].draws] == [0, 1, 2]


@pytest.mark.parametrize(
    ("draw", "pieces", "cut"),
    [
        (replace(DRAW, text="ab " * 40, pieces=("ab ",) * 40, nats=(-1.0,) * 40, marks=()), 40, False),
        (replace(DRAW, text="ab " * 300, pieces=("ab ",) * 300, nats=(-1.0,) * 300, marks=()), 0, False),
        (replace(DRAW, text="ab " * 9000, pieces=("ab ",) * 9000, nats=(-1.0,) * 9000, marks=((399, 9000),)), 0, True),
    ],
)
def test_long_draws_lose_their_tokens_and_then_their_end(draw: Example, pieces: int, cut: bool, path: Path) -> None:
    draw = replace(draw, prompt="x" * 5000)
    path.write_bytes(draws_bytes([Shown(KEY, (draw,))]))
    [found] = read_draws(path)[0][0].draws
    assert len(path.read_bytes()) <= LINE + 40 and (len(found.pieces), found.cut) == (pieces, cut)
    assert found.text == draw.text[: CUT if cut else None] and found.prompt == "x" * 599 + "…"
    assert found.marks == (((399, 400),) if cut else ())


def test_ten_tasks_of_25_rows_stay_below_a_megabyte_and_a_half() -> None:
    """Texts of 40 tokens, as a run draws them; planted bug: floats to the last bit, tokens' texts again."""
    words = [f" word{i}"[: 4 + i % 4] for i in range(40)]
    draw = replace(DRAW, text="".join(words), pieces=tuple(words), nats=(-1.23456789,) * 40, log_prob=-49.3827156,
                   features={"topic": 1.0, "share": 0.123456789}, prompt="In the middle of winter")  # fmt: skip
    key = replace(KEY, aligner="quasi_rejection:beta=0.5,cap=4096", judge="Qwen2.5-0.5B")
    size = len(draws_bytes([Shown(key, (draw,) * 3)]))
    assert 25 * 10 * size < 1_500_000 and json.loads(draws_bytes([Shown(key, (draw,))]))["lengths"]


def test_lone_surrogates_do_not_become_one_character(path: Path) -> None:
    draw = replace(DRAW, text="\ud83c\udf1e", pieces=("\ud83c", "\udf1e"), nats=(-1.0, -2.0), marks=((1, 2),))
    path.write_bytes(draws_bytes([Shown(KEY, (draw,))]))
    [found] = read_draws(path)[0][0].draws
    assert found == replace(draw, text="\ufffd\ufffd", pieces=("\ufffd", "\ufffd"))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda x: {**x, "text": "a sum\u2028 é"}, EDITED),
        (lambda x: {k: v for k, v in x.items() if k != "digest"}, EDITED),
        (lambda x: {**x, "digest": ["x"]}, EDITED),
    ],
)
def test_an_edited_line_is_told_and_left_out(path: Path, change: Callable[[Any], Any], why: str) -> None:
    path.write_bytes(spelled(line(replace(DRAW, index=0))) + json.dumps(change(line())).encode())
    [shown], [told] = read_draws(path)
    assert [d.index for d in shown.draws] == [0]
    assert told == f"{path}: line 2: {why}; the draw is left out"


WRONG: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (lambda x: [x], "'it': input should"),
    (lambda x: 5, "'it': input should"),
    (lambda x: {**x, "more\x1b[31m": 1}, "'more\ufffd[31m': extra inputs are not permitted"),
    (lambda x: {k: v for k, v in x.items() if k != "prompt"}, "'prompt': field required"),
    (lambda x: {**x, "prompt": None}, "'prompt': input should be a valid string"),
    (lambda x: {**x, "index": True}, "'index': input should be a valid integer"),
    (lambda x: {**x, "index": -1}, "'index': input should be greater"),
    (lambda x: {**x, "seed": 10**400}, "'seed': input should be less"),
    (lambda x: {**x, "draws": "16"}, "'draws': input should be a valid integer"),
    (lambda x: {**x, "logs": [0, 1, 2]}, "'logs' are not four numbers"),
    (lambda x: {**x, "logs": [0, 1, 2, "nan"]}, "'logs': input should"),
    (lambda x: {**x, "logs": [0, 1, 2, 10**400]}, "'logs': input should"),
    (lambda x: {**x, "lengths": [8]}, "'lengths' and 'nats' are not of the same tokens"),
    (lambda x: {**x, "lengths": [1, 4, 4, 0]}, "'lengths' do not add up to the text"),
    (lambda x: {**x, "lengths": [-1, 4, 5, 0]}, "'lengths': input should be greater"),
    (lambda x: {**x, "nats": [-1, 0.5, 1, 1]}, "'nats': input should"),
    (lambda x: {**x, "nats": [-1, 10**400, 1, 1]}, "'nats': input should"),
    (lambda x: {**x, "marks": [[2, 9]]}, "'marks' are no places of the text in order"),
    (lambda x: {**x, "marks": [[4, 6], [2, 5]]}, "'marks' are no places of the text in order"),
    (lambda x: {**x, "marks": [[2, 5, 6]]}, "'marks' are no places of the text in order"),
    (lambda x: {**x, "marks": [[-1, 5]]}, "'marks': input should be greater"),
    (lambda x: {**x, "features": {"a": [1]}}, "'features': input should"),
    (lambda x: {**x, "features": {"a": {}}}, "'features': input should"),
    (lambda x: {**x, "finished": "yes"}, "'finished': input should be a valid boolean"),
]


@pytest.mark.parametrize(("change", "why"), WRONG)
def test_a_line_that_cannot_be_true_is_left_out_though_its_digest_is_right(
    path: Path, change: Callable[[dict[str, Any]], Any], why: str
) -> None:
    path.write_bytes(spelled(change(line())) + spelled(line()))
    [shown], [told] = read_draws(path)
    assert shown.draws == (DRAW,)
    assert told.startswith(f"{path}: line 1: {why}") and told.endswith("; the draw is left out") and "\x1b" not in told


@pytest.mark.parametrize(
    "text",
    [b"{", b"\xff\xfe", b"[" * 60_000, b'{"a":' * 9_000, b"9" * 9_000, b'{"seed": NaN}', b"x" * 70_000, b"null", b"\0",
     b'{"task": 1e999, "digest": "x"}'],
    ids=range(10),
)  # fmt: skip
def test_what_is_no_line_is_left_out(path: Path, text: bytes) -> None:
    path.write_bytes(text + b"\n\n" + spelled(line()))
    [shown], [told] = read_draws(path)
    assert shown.draws == (DRAW,) and told.startswith(f"{path}: line 1: ") and len(told) < 300 + len(str(path))


def test_many_faults_are_counted(path: Path) -> None:
    path.write_bytes(b"x\n" * 50)
    told = read_draws(path)[1]
    assert len(told) == 4 and told[-1] == f"{path}: 47 more draws are left out"


def _pipe(path: Path) -> None:
    mkfifo(path)


def _large(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(LARGEST_FILE + 1)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (_pipe, "it is no file"),
        (lambda p: p.mkdir(), "it is no file"),
        (lambda p: p.symlink_to("/dev/zero"), "it is no file"),
        (lambda p: p.symlink_to("absent"), "it is no file"),
        (_large, "it has 16,000,001 bytes, more than 16,000,000"),
        (lambda p: p.write_bytes(b"\n" * 30_000), "it has more than 20,000 lines"),
    ],
    ids=range(6),
)
def test_what_is_no_such_file_is_told_at_once(path: Path, make: Callable[[Path], object], why: str) -> None:
    make(path)
    began = time.monotonic()
    with pytest.raises(StoreError, match=why):
        read_draws(path)
    assert examples([path.parent]) == ([], [f"{path}: cannot be read as draws: {why}"])
    assert time.monotonic() - began < 10


def test_published_draws_are_examples(path: Path) -> None:
    newer = replace(KEY, measured="2027")
    path.write_bytes(draws_bytes([Shown(KEY, (DRAW,))]))
    (path.parent / f"more{SUFFIX}").write_bytes(draws_bytes([Shown(newer, (replace(DRAW, index=7),))]))
    (path.parent / "words.csv").touch()
    assert examples([path.parent]) == ([Shown(newer, (replace(DRAW, index=7),))], [])
    assert examples([path.parent / "words.csv"]) == ([Shown(KEY, (DRAW,))], [])
    assert examples([path.parent / "other.csv"]) == ([], [])


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@given(name=st.sampled_from(sorted(line())), value=JSON)
@settings(max_examples=400, derandomize=True, deadline=None)
def test_whatever_a_field_is_there_is_a_draw_or_a_line(tmp_path_factory: Any, name: str, value: Any) -> None:
    path = tmp_path_factory.getbasetemp() / f"any{SUFFIX}"
    path.write_bytes(spelled({**line(), name: value}) if abs_finite(value) else b"1e999")
    shown, told = read_draws(path)
    assert len(shown) + len(told) == 1
    if shown:
        assert draws_bytes(shown)


def abs_finite(value: Any) -> bool:
    """Whether it is JSON."""
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return True
