"""Lengths, repetition and readability against texts that were counted by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from one_text import draws_of, value

from alignbench.errors import UsageError
from alignbench.features import bind
from alignbench.features.shape import sentences_of


def test_length_tokens():
    assert bind({"feature": "length_tokens"})(["p"], draws_of("a", "b", length=[4, 1])).tolist() == [4, 1]


@pytest.mark.parametrize(
    ("text", "characters", "words", "sentences"),
    [
        ("", 0, 0, 0),
        (" \n", 2, 0, 0),
        ("...", 3, 0, 0),
        ("Go", 2, 1, 1),
        ("Go. Stop!", 9, 2, 2),
        ("Go.Stop at 3.14", 15, 5, 1),  # a dot inside is no end
        ("He left... Why?! “Well.” She (too.) wept", 40, 7, 5),
        ("One\n\nTwo\nthree", 14, 3, 2),  # an empty line ends a heading
        ("我爱你。你呢？", 7, 2, 2),
        ("naïve café 😀", 12, 2, 1),
        ("Mr. Smith", 9, 2, 2),  # as documented
        ("! ? .", 5, 0, 0),
    ],
)
def test_lengths(text, characters, words, sentences):
    assert value("length_characters", text) == characters
    assert value("length_words", text) == words
    assert value("length_sentences", text) == sentences
    assert value("words_per_sentence", text) == (words / sentences if sentences else 0)


@given(st.text(alphabet="ab.!?…\"' )\n。"))
def test_words_and_sentences_go_together(text):
    assert (value("length_words", text) == 0) == (value("length_sentences", text) == 0)
    assert sum(len(s) for s in sentences_of(text)) <= len(text)


@pytest.mark.parametrize(
    "text", ["." * 100_000 + "a", "." * 50_000 + '"' * 50_000 + "a", "\n" * 100_000, "a-" * 100_000]
)
def test_a_huge_text_of_marks_takes_no_square_of_its_length(text):
    assert value("length_sentences", text) <= 1


@pytest.mark.parametrize(
    ("text", "n", "rate"),
    [
        ("", 4, 0),
        ("a b c", 4, 0),
        ("a b c d", 4, 0),
        ("a a a a a", 4, 1 / 2),
        ("a b a b a b", 2, 3 / 5),
        ("a b, a b!", 2, 1 / 3),
        ("A a", 1, 0),
        ("a a a", 1, 2 / 3),  # planted bug: share of n-grams that occur more than once, 1
        ("a " * 20_000, 4, 1 - 1 / 19_997),
    ],
)
def test_repetition_rate(text, n, rate):
    assert value("repetition_rate", text, n=n) == pytest.approx(rate, abs=1e-12)


@given(st.lists(st.sampled_from("abc"), max_size=30), st.integers(1, 4))
def test_repetition_rate_counts_what_came_before(words, n):
    grams = [words[i : i + n] for i in range(len(words) - n + 1)]
    before = [gram in grams[:i] for i, gram in enumerate(grams)]
    assert value("repetition_rate", " ".join(words), n=n) == pytest.approx(np.mean(before) if before else 0)


def test_repetition_rate_needs_a_word():
    with pytest.raises(UsageError, match=r"^t:1: 'repetition_rate' argument 'n' is 0: an n-gram has at least 1 word$"):
        bind({"feature": "repetition_rate", "n": 0}, "t:1")


TEXT = "The cat sat. It isn't 1 m-m"


def test_readability_is_the_formula():
    letters = "ThecatsatItisntmm"
    assert value("readability", TEXT) == pytest.approx(4.71 * (len(letters) + 1) / 7 + 0.5 * 7 / 2 - 21.43)
    assert value("readability", TEXT, index="coleman_liau") == pytest.approx(
        0.0588 * (100 * len(letters) / 7) - 0.296 * (100 * 2 / 7) - 15.8  # as printed, for 100 words
    )


@pytest.mark.parametrize("index", ["ari", "coleman_liau"])
def test_readability_is_finite_and_longer_words_are_harder(index):
    assert [value("readability", text, index=index) for text in ("", " ", "...", "😀")] == [0, 0, 0, 0]
    assert value("readability", "a" * 1_000_000, index=index) > 4e6
    assert value("readability", "incomprehensible tergiversation", index=index) > value(
        "readability", "a cat", index=index
    )


def test_an_unknown_index_is_told():
    with pytest.raises(UsageError, match=r"argument 'index': input should be 'ari' or 'coleman_liau', not 'fog'$"):
        bind({"feature": "readability", "index": "fog"})
