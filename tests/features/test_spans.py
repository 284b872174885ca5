"""Where features find what they look for: exactly where their values say that there is something."""

import re
import time
from math import inf

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from one_text import value

from alignbench.errors import AlignbenchError, RunError
from alignbench.features import bind, words
from alignbench.features.spans import joined
from alignbench.registry import feature
from alignbench.types import Array, Draws

NFD = "e\u0301"  # é as two characters


def marked(name: str, text: str, *, prompt: str = "p", **params: object) -> list[str]:
    """The marked parts of a text."""
    return [text[begin:end] for begin, end in bind({"feature": name, **params}).spans(prompt, text)]


@pytest.mark.parametrize(
    ("name", "params", "text", "found"),
    [
        ("contains_any", {"words": ["cat", "dog"]}, "a cat, concatenated, a dog", ["cat", "dog"]),
        ("contains_any", {"words": ["cat"], "negate": True}, "a cat", ["cat"]),
        ("contains_any", {"words": {"p": ["cat"], "q": ["dog"]}}, "a cat and a dog", ["cat"]),
        ("contains_any", {"words": ["cat"], "whole_words": False}, "concat", ["cat"]),
        ("contains_any", {"words": ["New York"]}, "in New\n York", ["New\n York"]),
        ("contains_any", {"words": ["caf\u00e9"]}, f"un caf{NFD}, deux", [f"caf{NFD}"]),
        ("contains_any", {"words": ["strasse"], "ignore_case": True}, "Die Straße hier", ["Straße"]),
        ("contains_any", {"words": ["s"], "ignore_case": True, "whole_words": False}, "aßb", ["ß"]),
        ("contains_any", {"words": ["мир"]}, f"{NFD} Это мир", ["мир"]),  # planted bug: places in the folded text
        ("contains_any", {"words": ["각"], "whole_words": False}, "\u1100\u1161\u11a8x", ["\u1100\u1161\u11a8"]),
        ("count", {"words": ["ab"], "whole_words": False}, "ababab", ["ab", "ab", "ab"]),
        ("contains_all", {"words": ["a b", "b c"]}, "a b c", ["a b c"]),
        ("contains_at_least", {"words": ["sun", "rain"], "count": 2}, "Sun, rain and rain", ["rain", "rain"]),
        ("word_share", {"words": ["cat"]}, "The Cat sat on cat's", ["Cat"]),
        ("first_of", {"groups": {"a": ["sun"], "b": ["rain"]}}, "Rain, then sun", ["Rain"]),
        ("pronoun_gender", {}, "They said HE's late, she knew", ["HE"]),  # the one that decides
        ("matches", {"pattern": r"\d+"}, "  1 and 22", ["1", "22"]),  # planted bug: places in the stripped text
        ("matches", {"pattern": r"\d+", "full": True}, " 22\n", ["22"]),
        ("matches", {"pattern": r"\d+", "full": True}, "22 a", []),
        ("matches", {"pattern": "ABC", "ignore_case": True}, "xabc", ["abc"]),
        ("matches", {"pattern": r"a \d", "include_prompt": True, "prompt": " a "}, "1 a 2", ["1", "a 2"]),
        ("count_matches", {"pattern": r"\b"}, "a b", []),  # a match of no characters
        ("matches", {"pattern": "(a){e}"}, "a{e}", []),  # another expression to `regex`
        ("length_words", {}, "a b", []),
    ],
)
def test_what_is_marked(name: str, params: dict[str, object], text: str, found: list[str]) -> None:
    assert marked(name, text, **params) == found


LETTERS = "aAbß éÉ\u0301ıİKk'-_.ſ\u0345\u1100\u1161\u11a8ά爱\n"
TEXTS = st.text(LETTERS, max_size=24)
WORDS = st.lists(st.text(LETTERS, min_size=1, max_size=3).filter(str.strip), min_size=1, max_size=3)


@given(TEXTS, WORDS, st.booleans(), st.booleans())
@example("a\u0301", ["a"], False, False)
@settings(max_examples=300, derandomize=True, deadline=None)
def test_words_are_marked_where_the_value_says_that_there_are_some(
    text: str, some: list[str], ignore_case: bool, whole_words: bool
) -> None:
    how = {"words": some, "ignore_case": ignore_case, "whole_words": whole_words}
    spans = bind({"feature": "contains_any", **how}).spans("p", text)
    for name in ("contains_any", "count"):
        assert (value(name, text, **how) != 0) == bool(spans), name
    assert spans == joined(spans, len(text))
    for begin, end in spans:  # each holds one of the words by itself, wherever in it
        assert value("contains_any", text[begin:end], **{**how, "whole_words": False}) == 1
    if value("contains_all", text, **how):
        assert bind({"feature": "contains_all", **how}).spans("p", text)
    one = {"words": some, "ignore_case": ignore_case, "count": 1}
    assert bool(value("contains_at_least", text, **one)) == bool(marked("contains_at_least", text, **one))


@given(st.lists(st.sampled_from(["she", "HER", "he", "His", "the", "sheep", "’", " ", "é", "e\u0301"]), max_size=8))
@settings(max_examples=200, derandomize=True, deadline=None)
def test_the_pronoun_marked_is_the_one_that_decides(parts: list[str]) -> None:
    """Planted bug: the last one, or all of them."""
    text = " ".join(parts)
    code, found = value("pronoun_gender", text), marked("pronoun_gender", text)
    assert len(found) == (code >= 0)
    assert not found or value("pronoun_gender", found[0]) == code


@pytest.mark.parametrize("pattern", [r"\d+", r"a.?b|b", r"(?i)\bab*\b", r"^[^\n]{2,5}[.!?]?(\n|$)", "é", r"\w\s\w"])
@given(text=st.text("ab 1é.\n٢", max_size=20))
@settings(max_examples=60, derandomize=True, deadline=None)
def test_an_expression_is_marked_where_its_value_says_that_it_is(pattern: str, text: str) -> None:
    spans = bind({"feature": "matches", "pattern": pattern}).spans("p", text)
    assert bool(spans) == bool(value("matches", text, pattern=pattern))
    assert len(spans) == value("count_matches", text, pattern=pattern)
    before = len(text) - len(text.lstrip())
    assert list(spans) == [(m.start() + before, m.end() + before) for m in re.finditer(pattern, text.strip())]


def test_the_law_fails_where_words_are_marked_in_another_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted bug: marks that do not fold."""
    monkeypatch.setattr(words, "folded", lambda text, ignore_case: text)
    with pytest.raises(AssertionError):
        test_what_is_marked("contains_any", {"words": ["strasse"], "ignore_case": True}, "Straße", ["Straße"])


def test_spans_that_overlap_are_one() -> None:
    assert joined([(4, 6), (0, 2), (1, 3), (3, 4), (5, 5), (-3, 1), (8, 99)], 9) == ((0, 3), (3, 4), (4, 6), (8, 9))
    assert joined([(3, 2), (-5, -1), (12, 13)], 9) == ()


def test_an_expression_that_would_take_for_ever_is_given_up() -> None:
    began = time.monotonic()
    with pytest.raises(RunError, match="matches"):
        bind({"feature": "matches", "pattern": "(a|aa)+$"}).spans("p", "a" * 60 + "b")
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("name", ["contains_any", "pronoun_gender", "word_share"])
def test_long_texts_take_linear_time(name: str) -> None:
    """Planted bug: each hit looked for from the beginning."""
    given = {} if name == "pronoun_gender" else {"words": ["he"]}
    assert len(marked(name, "É he " * 200_000, **given)) == (1 if name == "pronoun_gender" else 200_000)


def test_a_feature_of_ones_own_can_say_where(monkeypatch: pytest.MonkeyPatch) -> None:
    def shouts(prompts: list[str], draws: Draws, *, sign: str = "!") -> Array:
        raise NotImplementedError

    def where(prompt: str, text: str, sign: str) -> list[tuple[int, int]]:
        return [(i, i + 1) for i, c in enumerate(text) if c == sign] or [(0, int(inf))]

    monkeypatch.setattr(feature, "entries", {**feature.entries})
    feature("shouts", spans=where)(shouts)
    assert marked("shouts", "a! b!") == ["!", "!"] and bind({"feature": "shouts"}).marks
    with pytest.raises(AlignbenchError, match="feature 'shouts'"):
        marked("shouts", "a")
    assert not bind({"feature": "length_tokens"}).marks
