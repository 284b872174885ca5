"""Short names of aligners: readable, and different where the specs are."""

from __future__ import annotations

import pytest

from alignbench.reports.table.labels import SHORT, aligner_name, meant, short_labels

QUASI = "{{name: quasi_rejection, acceptance: 0.2, cap: 32, proposal: {{name: prompt, text: {}}}}}"


def short(*labels: str) -> list[str]:
    """The short names, in order."""
    return list(short_labels(labels).values())


def test_a_nested_spec_is_named_by_what_it_stands_over() -> None:
    chain = "{name: chain, steps: ['{name: prompt, text: ''Tell a story, a long one''}', 'top_p:p=0.9']}"
    words = "{name: constrained, any_of: [world, life, people, there], ignore_case: true}"
    assert short(QUASI.format("Tell a story"), chain, words, "top_p:p=0.9") == [
        "quasi_rejection over prompt", "chain", "constrained", "top_p:p=0.9",
    ]  # fmt: skip


def test_checkpoints_of_one_training_share_its_short_name() -> None:
    """Planted bug: read as an argument, the step was cut off, and digits had to tell which is which."""
    one, two = (f"{{name: dpg, steps: 200, adapter: 'lora:r={r}', optimiser: adam}}" for r in (8, 16))
    assert short(one, f"{one} @ step-50", f"{one} @ step-100") == ["dpg", "dpg @ step-50", "dpg @ step-100"]
    told = "dpg:steps=200,adapter=lora:r={},optimiser=adam"
    assert short(f"{one} @ step-50", f"{two} @ step-50") == [f"{told.format(r)} @ step-50" for r in (8, 16)]


def test_arguments_are_said_where_a_name_alone_would_be_two_rows() -> None:
    two = [QUASI.format("Tell a story").replace("0.2", share) for share in ("0.2", "0.5")]
    chains = [f"{{name: chain, steps: ['{{name: prompt, text: ''{text}''}}', 'top_p:p=0.9']}}" for text in ("a", "b")]
    words = [f"{{name: constrained, any_of: [world, life, people, {word}], ignore_case: true}}" for word in "xy"]
    assert short(*two, *chains[:1], *words[:1]) == [
        "quasi_rejection:acceptance=0.2,cap=32 over prompt", "quasi_rejection:acceptance=0.5,cap=32 over prompt",
        "chain", "constrained",
    ]  # fmt: skip
    assert all(name.startswith("constrained:any_of=[world, life, p…") for name in short(*words))


def test_a_text_alone_stands_in_quotes() -> None:
    long = "prompt:text=Write about a walk in the woods on a summer day"
    assert short(long, "prompt:text=Say it") == ['prompt "Write about a w…"', "prompt:text=Say it"]
    assert short(long, "top_p:p=0.9") == ["prompt", "top_p:p=0.9"]


@pytest.mark.parametrize("word", ["words/checkpoint-10", "checkpoint-10", "checkpoint-10/"])
def test_a_row_is_meant_by_the_end_of_its_path(word: str) -> None:
    labels = ["words/checkpoint-10", "words/checkpoint-100", "checkpoint-1"]
    assert meant(word, labels) == labels[:1]
    assert meant("words", labels) == meant("0", labels) == meant("eckpoint-1", labels) == []
    assert meant("rhymes/checkpoint-10", labels) == [], "another folder's, whose row has the shorter name"
    assert meant("best_of_n", ["best_of_n:n=4", "best_of_n_2:n=4"]) == ["best_of_n:n=4"]
    assert meant("checkpoint-10", [*labels, "checkpoint-10"]) == ["checkpoint-10"]


def test_names_that_differ_stay_different() -> None:
    """Planted bug: the two texts were cut to the same beginning."""
    told = short(QUASI.format("Tell me"), QUASI.format("Say it"))
    assert told == [f'quasi_rejection:acceptance=0.2,cap=32 over prompt "{text}"' for text in ("Tell me", "Say it")]
    same = [QUASI.format(f"Tell a story of a {end}") for end in ("man", "woman")]
    assert len(set(short(*same))) == 2 and all("over prompt #" in name for name in short(*same))
    clash = "quasi_rejection:acceptance=0.2,cap=32 over prompt"
    assert len(set(short(clash, QUASI.format("Tell me")))) == 2


@pytest.mark.parametrize("label", ["", "x" * 100, "{not yaml" + "x" * SHORT, "{a: 2001-99-99, name: x" + "y" * SHORT])
def test_what_is_no_spec_stays_as_it_is(label: str) -> None:
    assert short(label) == [label]


@pytest.mark.parametrize(
    ("label", "name"),
    [("", ""), ("copy", "copy"), ("constant:text=a", "constant"), ("{name: constant, text: 'a, b'}", "constant")],
)
def test_the_name_of_an_aligner(label: str, name: str) -> None:
    assert aligner_name(label) == name
