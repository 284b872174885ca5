"""Automata and patterns against Python's own words, counts and regular expressions."""

from __future__ import annotations

import re
from itertools import product

import numpy as np
import pytest
from exact_patterns import contains_any, matches

from alignbench.errors import UsageError
from alignbench.features.words import contains_any as contains_any_text
from alignbench.generators.base import Vocab
from alignbench.generators.exact.automaton import Automaton, always, counts
from alignbench.generators.exact.words import vocab_of
from alignbench.generators.exact.world import enumerate_draws, exact

WORDS = ("a", "b", "c")
VOCAB = vocab_of(WORDS)
EVERY = enumerate_draws(exact(words=WORDS, seed=1), ["a"], max_tokens=5)
SAID = [text.split() for text in EVERY.texts]
ENDED = EVERY.finished

PATTERNS = {
    "": "",
    "a* b": "a*b",
    "( a | c )* b": "(a|c)*b",
    ". b ?": ".b?",
    "( a b )+ c?": "(ab)+c?",
    "(a+|b c)* .": "(a+|bc)*.",
    "a | ( b | ) c": "a|(b|)c",
    "( a* )* | b": "(a*)*|b",
    ". . .": "...",
    "( a ( b | c )+ )* a?": "(a(b|c)+)*a?",
    "a a | a b | b": "aa|ab|b",
}


def values(automaton):
    return automaton(["a"], EVERY)


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_matches_what_re_matches(pattern, cut):
    expected = [bool(re.fullmatch(PATTERNS[pattern], "".join(words))) for words in SAID]
    found = values(matches(VOCAB, pattern, cut=cut))
    np.testing.assert_array_equal(found, np.where(ENDED | cut, expected, 0))


def test_planted_cut_draw_that_matches_is_seen():
    assert (values(matches(VOCAB, "a* b")) != values(matches(VOCAB, "a* b", cut=True))).any()


@pytest.mark.parametrize("phrases", [["a"], ["b", "c"], ["a b"], ["a a b", "b b"], ["a b a c", "c"]])
def test_contains_any_is_what_the_texts_contain(phrases):
    expected = [any(f" {p} " in f" {' '.join(words)} " for p in phrases) for words in SAID]
    np.testing.assert_array_equal(values(contains_any(VOCAB, phrases)), expected)


def test_contains_any_is_the_registered_feature_of_the_texts():
    np.testing.assert_array_equal(
        values(contains_any(VOCAB, ["a", "b"])), contains_any_text(["a"], EVERY, words=["a", "b"])
    )


def test_counts_are_counted_up_to_the_most():
    expected = np.array([sum(word in "ab" for word in words) for words in SAID])
    np.testing.assert_array_equal(values(counts(VOCAB, "a b", 9)), expected)
    np.testing.assert_array_equal(values(counts(VOCAB, "a b", 2)), np.minimum(expected, 2))


def test_algebra_acts_on_values():
    one, two = contains_any(VOCAB, ["a b"]), matches(VOCAB, ". . .*")
    np.testing.assert_array_equal(values(one & two), values(one) * values(two))
    np.testing.assert_array_equal(values(one | two), np.maximum(values(one), values(two)))
    np.testing.assert_array_equal(values(~one), 1 - values(one))
    np.testing.assert_array_equal(
        values(one * 0.5 + counts(VOCAB, "c", 5)), values(one) / 2 + values(counts(VOCAB, "c", 5))
    )
    np.testing.assert_array_equal(np.exp(values(one.log())), values(one))
    np.testing.assert_array_equal(values(always(VOCAB, 0.25)), np.full(len(EVERY), 0.25))
    assert one.is_boolean
    assert not (one * 2).is_boolean


def random_automaton(seed, states=4):
    rng = np.random.default_rng(seed)
    keep = rng.random((2, states)) < 0.3
    return Automaton(VOCAB, rng.integers(states, size=(states, len(VOCAB))), keep[0] * 1.0, keep[1] * 1.0)


@pytest.mark.parametrize("seed", range(6))
def test_what_can_still_be_kept_is_what_some_continuation_keeps(seed):
    """Every state × every sequence of words, by recursion."""
    automaton = random_automaton(seed)

    def fits(state, left):
        if left == 0:
            return automaton.cut[state] > 0
        return automaton.finished[state] > 0 or any(fits(automaton.after[state, w], left - 1) for w in range(3))

    expected = np.array([[fits(s, left) for s in range(4)] for left in range(7)])
    np.testing.assert_array_equal(automaton.within(6), expected)
    np.testing.assert_array_equal(automaton.live(), expected.any(0))


def test_planted_eos_taken_for_a_word_is_seen():
    """Reading the EOS column as a word's finds continuations that are none."""
    wrong = [random_automaton(seed) for seed in range(40)]
    mixed = [Automaton(Vocab(VOCAB.tokens, frozenset()), a.after, a.finished, a.cut) for a in wrong]
    assert any((a.within(2) != b.within(2)).any() for a, b in zip(wrong, mixed, strict=True))


def test_identity_is_states_and_values():
    one = contains_any(VOCAB, ["a"])
    assert one.identity == contains_any(VOCAB, ["a"]).identity
    others = {contains_any(VOCAB, ["b"]).identity, (~one).identity, one.log().identity,
              contains_any(vocab_of("abd"), ["a"]).identity}  # fmt: skip
    assert len(others | {one.identity}) == 5


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("( a", "pattern '( a': a '(' is not closed"),
        ("a )", "pattern 'a )': ')' closes nothing"),
        ("* a", "pattern '* a': nothing to repeat before '*'"),
        ("a d", "pattern 'd': the world has no word 'd'."),
    ],
)
def test_patterns_that_are_none(pattern, message):
    with pytest.raises(UsageError) as caught:
        matches(VOCAB, pattern)
    assert str(caught.value).startswith(message)


def test_refused_automata():
    after = np.zeros((2, 4), dtype=int)
    with pytest.raises(UsageError, match=r"after \(2, 4\), finished \(1,\) and cut \(2,\) are not"):
        Automaton(VOCAB, after, np.zeros(1), np.zeros(2))
    with pytest.raises(UsageError, match="outside 0 … 1"):
        Automaton(VOCAB, after + 2, np.zeros(2), np.zeros(2))
    with pytest.raises(UsageError, match="another tokenizer"):
        always(vocab_of("xy"))(["a"], EVERY)
    with pytest.raises(UsageError, match="two tokenizers"):
        always(VOCAB) & always(vocab_of("xy"))


def test_every_word_sequence_has_one_path():
    """An automaton's value does not depend on how draws are padded or cut into batches."""
    automaton = contains_any(VOCAB, ["b c"])
    picked = EVERY.take(np.arange(0, len(EVERY), 7))
    np.testing.assert_array_equal(automaton(["a"], picked), values(automaton)[::7])
    assert {tuple(s) for s in SAID} == {w for n in range(6) for w in product(WORDS, repeat=n)}
