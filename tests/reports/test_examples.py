"""Example draws: the same for all generators, by token, with what features and models say, within a budget."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from math import inf
from os import mkfifo
from pathlib import Path

import numpy as np
import pytest
from tiny_world import BRIGHT, TASK

import alignbench
from alignbench.features import bind
from alignbench.registry import feature as registry
from alignbench.reports.asked import Sought, looked_for
from alignbench.reports.examples import CUT, _feature, by_token, chosen, examples, of_file
from alignbench.reports.gather import gather
from alignbench.run.rows import read_evidence
from alignbench.store.packed import pack, unpack
from alignbench.types import Array, Draws, rows_of


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output folder of a base, an aligner on it, and draws of p."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "tiny.yaml").write_text(TASK + BRIGHT + "metrics: [perplexity]\n")
    alignbench.evaluate("exact:words=sun rain wind,seed=3", [str(folder / "tiny.yaml")], aligners=["temperature:t=0.5"],
                        draws=20, output_path=folder / "out")  # fmt: skip
    return folder / "out"


def test_all_generators_show_the_same_prompts_and_sample_numbers(out: Path) -> None:
    shown, failures = examples([out], most=5)
    assert not failures and {s.key.generator for s in shown} == {"exact", "draws of p"} and len(shown) == 3
    where = {s.key.aligner: [(d.prompt, d.index) for d in s.draws] for s in shown if s.key.generator == "exact"}
    first, second = where.values()
    assert first == second == [(p, i) for i in (0, 1, 2) for p in ("rain", "sun wind")][:5]
    assert examples([out], most=5)[0] == shown


def test_an_example_is_what_the_evidence_says(out: Path) -> None:
    path = next((out / "exact+temperature_t=0.5").glob("evidence_*.npz"))
    evidence, key = read_evidence(path)
    draw = of_file(path).draws[1]
    own = evidence.own
    i = next(k for k in range(len(own.draws)) if (own.draws.prompt[k], own.draws.index[k]) == (1, 0))
    assert of_file(path).key == key and (draw.prompt, draw.index) == ("sun wind", 0)
    assert (draw.text, draw.finished) == (own.draws.texts[i], bool(own.draws.finished[i]))
    assert draw.features == {name: values[i] for name, values in own.features.items()}
    assert own.log_base is not None and own.log_gen is not None and own.log_target is not None
    assert (draw.log_base, draw.log_gen, draw.log_target) == (own.log_base[i], own.log_gen[i], own.log_target[i])


def test_of_two_measurements_of_a_generator_the_newer_is_shown(out: Path, tmp_path: Path) -> None:
    """Whichever is read first, its name being what comes first."""
    path = next((out / "exact").glob("evidence_*.npz"))
    _, key = read_evidence(path)
    for when, order in (("1999", "a"), ("2999", "b")):
        for folder, name in (("first", order), ("last", {"a": "b", "b": "a"}[order])):
            (tmp_path / folder / "exact").mkdir(parents=True, exist_ok=True)
            record = {**unpack(path), "key": asdict(replace(key, measured=when))}
            (tmp_path / folder / "exact" / f"evidence_tiny_{name}.npz").write_bytes(pack(record))
    for folder in ("first", "last"):
        assert [s.key.measured for s in examples([tmp_path / folder / "exact"])[0]] == ["2999"]


@pytest.mark.parametrize(("code", "word"), [(0.0, "she"), (1.0, "he"), (-1.0, "none")])
def test_a_category_is_shown_by_its_own_name(code: float, word: str) -> None:
    assert _feature(code, ("she", "he")) == word


def test_pieces_make_up_the_text_and_the_log_probability(out: Path) -> None:
    for shown in examples([out])[0]:
        for draw in shown.draws:
            assert draw.log_prob is not None and "".join(draw.pieces) == draw.text
            assert sum(draw.nats) == pytest.approx(draw.log_prob) and len(draw.pieces) == len(draw.nats)
            assert not draw.finished or draw.pieces[-1] == ""  # the end of the sequence


def test_without_the_vocabulary_draws_have_no_pieces(out: Path, tmp_path: Path) -> None:
    path = next((out / "exact").glob("evidence_*.npz"))
    (tmp_path / "exact").mkdir()
    (tmp_path / "exact" / path.name).write_bytes(path.read_bytes())
    shown, failures = examples([tmp_path / "exact"])
    assert not failures and {d.pieces for d in shown[0].draws} == {()} and shown[0].draws[0].log_prob is not None


def test_a_damaged_file_is_told(out: Path, tmp_path: Path) -> None:
    (tmp_path / "exact").mkdir()
    (tmp_path / "exact" / "evidence_tiny_x.npz").write_bytes(b"no")
    shown, failures = examples([tmp_path, out, tmp_path])
    assert len(shown) == 3 and len(failures) == 1 and failures[0].startswith(str(tmp_path / "exact"))


def test_examples_keep_to_their_budget(out: Path) -> None:
    def size(budget: int) -> tuple[int, int, bool]:
        shown = examples([out], budget=budget)[0]
        draws = [d for s in shown for d in s.draws]
        return sum(d.size for d in draws), len(draws), any(d.pieces for d in draws)

    whole, many, _ = size(10**9)
    assert many == 18 and size(whole) == (whole, many, True)
    less, fewer, _ = size(whole - 1)
    assert less < whole and fewer == 15
    assert size(1)[1:] == (3, False)


def drawn(tokens: list[list[int]], texts: tuple[str, ...], rows: Array | None = None) -> Draws:
    length = np.array([len(t) for t in tokens])
    ids = np.array([t + [-1] * (max(length) - len(t)) for t in tokens])
    where = rows_of(1, len(texts)) if rows is None else rows
    return Draws(
        prompt=where[:, 0], index=where[:, 1], texts=texts, tokens=ids, length=length, log_prob=None,
        finished=np.ones(len(texts), bool), token_log_prob=-1.0 * np.arange(1, ids.shape[1] + 1) * (ids >= 0),
        model_log_prob=None,
    )  # fmt: skip


BYTES = (b"", " é".encode()[:2], " é".encode()[2:], b"a", b"b", "\N{PILE OF POO}".encode()[:2])


@pytest.mark.parametrize(
    ("ids", "text", "pieces", "nats"),
    [
        ([3, 4, 0], "ab", ("a", "b", ""), (-1, -2, -3)),
        ([3, 1, 2, 4], "a éb", ("a", " é", "b"), (-1, -5, -4)),  # two tokens are one character
        ([1, 2, 3], "éa", ("é", "a"), (-3, -3)),  # a text does not begin with a space
        ([3, 5], "a\ufffd", ("a", "\ufffd"), (-1, -2)),  # cut within a character
        ([3, 4], "A B", ("A B",), (-3,)),  # the tokenizer cleans up what it decodes
    ],
)
def test_tokens_that_are_parts_of_a_character_are_joined(
    ids: list[int], text: str, pieces: tuple[str, ...], nats: tuple[float, ...]
) -> None:
    """Planted bug: each token decoded by itself."""
    assert by_token(drawn([ids], (text,)), 0, BYTES) == (pieces, nats)
    assert by_token(drawn([ids], (text,)), 0, None) == ((), ())
    assert by_token(replace(drawn([ids], (text,)), token_log_prob=None), 0, BYTES) == ((), ())


def test_the_first_draws_that_a_generator_kept_are_shown() -> None:
    rows = np.array([[0, 3], [0, 1], [2, 5], [1, 0], [2, 0]])
    draws = drawn([[3]] * 5, ("a",) * 5, rows)
    assert chosen(draws, 3, 4) == [1, 3, 4, 0]  # prompt 0, 1, 2, then 0 again
    assert chosen(draws, 3, 2) == [1, 4]  # prompts far apart
    assert chosen(draws.take(np.array([], int)), 3, 2) == []


def test_a_long_text_is_cut_where_nothing_else_helps(out: Path) -> None:
    from alignbench.reports.examples import Shown, _within

    shown = examples([out])[0][0]
    long = replace(shown.draws[0], text="é" * 1000, pieces=(), nats=(), log_target=-inf)
    cut = _within([Shown(shown.key, (long,))], 1, 1)[0].draws[0]
    assert cut.cut and cut.text == "é" * CUT


def _marked(folder: Path, **told: object) -> dict[str, list[list[str]]]:
    """Aligner → the marked words of each draw, where task_tiny.json says what is told."""
    path = folder / "task_tiny.json"
    before = path.read_text()
    path.write_text(json.dumps({**json.loads(before), **told}))
    try:
        shown, _ = examples([folder], budget=10**9)
    finally:
        path.write_text(before)
    return {s.key.aligner: [[d.text[b:e] for b, e in d.marks] for d in s.draws] for s in shown}


def test_what_the_target_asks_for_is_marked(out: Path) -> None:
    """Exactly where the stored value of the feature says that it is there. Planted bug: places of another draw."""
    found = 0
    for shown in examples([out], budget=10**9)[0]:
        for draw in shown.draws:
            words = [draw.text[begin:end] for begin, end in draw.marks]
            assert words == [w for w in draw.text.split() if w == "sun"]
            assert bool(words) == (draw.features["bright"] == 1)
            found += len(words)
    assert found > 3


def test_a_run_says_what_its_target_looks_for(out: Path) -> None:
    told = json.loads((out / "task_tiny.json").read_text())
    how = {"ignore_case": False, "whole_words": True, "negate": False}
    assert told["features"] == {"bright": {"feature": "contains_any", "words": ["sun"], **how}}
    assert told["summary"] == "A world of three words."


SPEC = {"feature": "contains_any", "words": ["rain"]}


@pytest.mark.parametrize(
    ("features", "words"),
    [
        ({"x": SPEC}, {"rain"}),
        ({"x": SPEC, "y": {"feature": "matches", "pattern": "w.nd"}}, {"rain", "wind"}),
        ({}, set()), (None, set()), ([SPEC], set()), ("x", set()), ({"x": "contains_any"}, set()),
        ({"x": {"feature": "hf_probability", "pretrained": "evil/model", "label": "x"}}, set()),  # none that loads
        ({"x": {"feature": "length_tokens"}}, set()),
        ({"x": {"feature": "mine"}}, set()),  # a plug-in's
        ({"x": {"feature": ["contains_any"]}}, set()), ({"x": {"feature": "nothing"}}, set()),
        ({"x": {**SPEC, "evil": 1}}, set()), ({"x": {**SPEC, "words": 3}}, set()),
        ({"x": {**SPEC, "words": []}}, set()),
        ({"x": {**SPEC, "words": ["rain"] * 5000}}, set()),  # too many
        ({"x": {"feature": "contains_any", "words": {"another prompt": "rain"}}}, set()),
        ({"x": {"feature": "matches", "pattern": "("}, "y": SPEC}, {"rain"}),
        ({str(i): {**SPEC, "words": [f"w{i}"]} for i in range(16)} | {"x": SPEC}, set()),  # too many features
    ],
)  # fmt: skip
def test_only_features_of_this_package_are_taken_from_a_folder(
    out: Path, features: object, words: set[str], registries: None
) -> None:
    registry("mine", spans=lambda prompt, text: pytest.fail("it ran"))(lambda prompts, draws: np.zeros(len(draws)))
    found = _marked(out, features=features)
    assert {w for some in found.values() for words in some for w in words} == words and len(found) == 2


def test_a_built_in_task_of_that_version_is_asked_where_the_folder_does_not_say(out: Path) -> None:
    assert looked_for(out, "tiny", "1").marks("", "a sun") == ((2, 5),)
    assert looked_for(out, "tiny", "2").features == []  # it says it of another version
    for folder in (out, out / "absent"):
        assert looked_for(folder, "gender_balance", "2").marks("", "then SHE and he") == ((5, 8),)
        assert looked_for(folder, "gender_balance", "1").features == []
        assert len(looked_for(folder, "hybrid", "1").features) == 2
        assert looked_for(folder, "../tasks/hybrid", "1").features == []


def test_an_expression_that_takes_for_ever_is_asked_once(out: Path) -> None:
    sought = looked_for(out, "tiny", "1")
    slow = bind({"feature": "matches", "pattern": "(a|aa)+$"})
    both = Sought([slow, *sought.features])
    assert both.marks("", "sun " + "a" * 60 + "b") == ((0, 3),) and both.features == sought.features


def test_what_is_not_a_file_is_not_waited_for(out: Path, tmp_path: Path) -> None:
    mkfifo(tmp_path / "task_tiny.json")
    assert looked_for(tmp_path, "tiny", "1").features == []
    assert "it is no file" in " ".join(gather([tmp_path]).failures)
