"""Words, groups of words and pronouns against sentences that were read by a person."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from one_text import draws_of, value

from alignbench.errors import UsageError
from alignbench.features import bind
from alignbench.features.words import contains_any, words_of
from alignbench.registry import LISTED


@pytest.mark.parametrize(
    ("text", "params", "hit"),
    [
        ("a cat sat", {"words": ["cat"]}, 1),
        ("concatenate", {"words": ["cat"]}, 0),  # planted bug: plain `in`
        ("concatenate", {"words": ["cat"], "whole_words": False}, 1),
        ("cat_food, cat9", {"words": ["cat"]}, 0),
        ("(cat)", {"words": ["cat"]}, 1),
        ("cat's", {"words": ["cat"]}, 1),
        ("A Cat", {"words": ["cat"]}, 0),
        ("A Cat", {"words": ["cat"], "ignore_case": True}, 1),
        ("a dog", {"words": ["cat", "dog"]}, 1),
        ("a dog", {"words": ["cat", "dog"], "negate": True}, 0),
        ("", {"words": ["cat"]}, 0),
        ("", {"words": ["cat"], "negate": True}, 1),
        # punctuation inside and at the ends: \b would fail after "+" and "."
        ("I like C++ a lot", {"words": ["C++"]}, 1),
        ("I like C a lot", {"words": ["C++"]}, 0),
        ("C++11", {"words": ["C++"]}, 0),
        ("in the U.S. today", {"words": ["U.S."]}, 1),
        ("UXSX", {"words": ["U.S."]}, 0),  # planted bug: the dot as a pattern
        ("don't", {"words": ["don't"]}, 1),
        # longer phrases, any white space
        ("in New\n York", {"words": ["New York"]}, 1),
        ("in NewYork", {"words": ["New York"]}, 0),
        ("abc", {"words": ["ab", "abc"]}, 1),
        # other scripts: planted bug: ASCII word boundaries
        ("le café noir", {"words": ["caf"]}, 0),
        ("naïveté", {"words": ["na"]}, 0),
        ("LE CAFÉ", {"words": ["café"], "ignore_case": True}, 1),
        ("le cafe\u0301", {"words": ["caf\u00e9"]}, 1),
        ("le cafe\u0301", {"words": ["cafe"]}, 0),
        ("STRASSE", {"words": ["straße"], "ignore_case": True}, 1),
        ("Это мир", {"words": ["мир"]}, 1),
        ("мировой", {"words": ["мир"]}, 0),
        ("我爱你", {"words": ["爱"]}, 0),
        ("我爱你", {"words": ["爱"], "whole_words": False}, 1),
    ],
)
def test_contains_any(text, params, hit):
    assert value("contains_any", text, **params) == hit


def test_the_prompt_is_not_searched():
    assert bind({"feature": "contains_any", "words": ["cat"]})(["a cat"], draws_of("a dog"))[0] == 0


@given(st.text(), st.text(min_size=1).filter(lambda w: w.strip()), st.booleans())
def test_negation_is_the_other_truth_and_a_word_is_found_in_itself(text, word, ignore_case):
    draws = draws_of(text, f" {word} ", word.strip())
    for whole in (True, False):
        plain = contains_any(["p"], draws, words=[word], ignore_case=ignore_case, whole_words=whole)
        other = contains_any(["p"], draws, words=[word], ignore_case=ignore_case, whole_words=whole, negate=True)
        assert (plain + other == 1).all()
        if unicodedata.combining(unicodedata.normalize("NFC", word.strip())[0]) == 0:
            assert plain[2] == 1


@pytest.mark.parametrize(
    ("text", "category"),
    [
        (" she went to him", 0),
        (" he gave her a book", 1),
        (" it was late", -1),
        ("", -1),
        (" the theme of others", -1),  # he, hers inside other words
        (" HERSELF and he", 0),
        (" He's tired, she said", 1),
        (" “his” or hers", 1),
        (" they saw us", -1),
        (" Sheila and Heather", -1),
        (" her", 0), (" hers", 0), (" herself", 0), (" him", 1), (" his", 1), (" himself", 1),
    ],
)  # fmt: skip
def test_pronoun_gender(text, category):
    assert value("pronoun_gender", text) == category


def test_pronoun_groups_are_the_users():
    groups = {"they": ["they", "them", "the  others"], "she": ["she"]}
    bound = bind({"feature": "pronoun_gender", "groups": groups})
    assert bound.categories == ("they", "she")
    assert bound(["p"], draws_of("he saw them", "she", "he", "The\nothers")).tolist() == [0, 1, -1, 0]
    assert bind({"feature": "pronoun_gender"}).categories == ("she", "he")
    turned = bind({"feature": "pronoun_gender", "groups": dict(reversed(groups.items()))})
    assert json.dumps(turned.identity, sort_keys=True) != json.dumps(bound.identity, sort_keys=True)  # other codes


def test_first_of_is_the_law_behind_pronoun_gender_with_any_groups():
    groups = {"Polish": ["Polish"], "polish": ["polish", "polished"]}
    bound = bind({"feature": "first_of", "groups": groups, "ignore_case": False})
    assert bound.categories == ("Polish", "polish")
    texts = ("a polished Polish table", "Polish it", "POLISH", "unpolished", "")
    assert bound(["polish"], draws_of(*texts)).tolist() == [1, 0, -1, -1, -1]
    assert value("first_of", " ÜBER alles", groups={"a": ["unter"], "b": ["über"]}) == 1
    assert value("first_of", "in New\nYork", groups={"a": ["new"], "b": ["new  york"]}) == 1  # the longer one


@given(st.text(alphabet="aAbB ,.'é", max_size=30))
def test_pronoun_gender_is_first_of_its_groups(text):
    groups = {"a": ["a", "ab"], "b": ["b", "é"]}
    assert value("pronoun_gender", text, groups=groups) == value("first_of", text, groups=groups)


@pytest.mark.parametrize(
    ("text", "params", "n"),
    [
        ("", {"words": ["cat"]}, 0),
        ("cat Cat concat cat", {"words": ["cat"]}, 2),
        ("cat Cat concat cat", {"words": ["cat"], "ignore_case": True}, 3),
        ("cat Cat concat cat", {"words": ["cat"], "whole_words": False}, 3),
        ("cat cat, dog.", {"words": ["cat", "dog"]}, 3),
        ("aaaa", {"words": ["aa"], "whole_words": False}, 2),  # planted bug: overlapping ones
        ("New York, new york", {"words": ["york", "new york"], "ignore_case": True}, 2),  # planted bug: 4
        ("cafe\u0301 caf\u00e9", {"words": ["caf\u00e9"]}, 2),
        ("cat " * 100_000, {"words": ["cat"]}, 100_000),
    ],
)
def test_count(text, params, n):
    assert value("count", text, **params) == n


@pytest.mark.parametrize(
    ("text", "words", "params", "hit"),
    [
        ("red green", ["red", "green"], {}, 1),
        ("red", ["red", "green"], {}, 0),
        ("red Green", ["red", "green"], {}, 0),
        ("red Green", ["red", "green"], {"ignore_case": True}, 1),
        ("redgreen", ["red", "green"], {}, 0),
        ("redgreen", ["red", "green"], {"whole_words": False}, 1),
        ("New York", ["New York", "York"], {}, 1),  # planted bug: one pattern takes the longer word only
        ("", ["red"], {}, 0),
    ],
)
def test_contains_all(text, words, params, hit):
    assert value("contains_all", text, words=words, **params) == hit


@pytest.mark.parametrize(
    ("text", "params", "hit"),
    [
        ("red red", {"count": 2}, 0),  # planted bug: occurrences for words
        ("red red", {"count": 2, "distinct": False}, 1),
        ("red blue", {"count": 2}, 1),
        ("red blue", {"count": 2, "distinct": False}, 1),
        ("red Blue", {"count": 2}, 0),
        ("red Blue", {"count": 2, "ignore_case": True}, 1),
        ("red", {"count": 3, "distinct": False}, 0),
        ("", {"count": 1}, 0),
    ],
)
def test_contains_at_least(text, params, hit):
    assert value("contains_at_least", text, words=["red", "green", "blue"], **params) == hit


@given(st.text(alphabet="abAB ,", max_size=40), st.sampled_from([["a"], ["a", "b"], ["ab", "b", "a"]]))
def test_any_all_count_and_at_least_agree(text, words):
    asked = {name: value(name, text, words=words) for name in ("contains_any", "contains_all", "count")}
    assert asked["contains_any"] == (asked["count"] > 0)
    assert asked["contains_any"] == value("contains_at_least", text, words=words, count=1)
    assert asked["contains_all"] == value("contains_at_least", text, words=words, count=len(words))
    assert asked["contains_all"] <= asked["contains_any"]


@pytest.mark.parametrize(
    ("text", "params", "share"),
    [
        ("The cat sat.", {"words": ["cat"]}, 1 / 3),
        ("the CAT, the cat", {"words": ["cat"]}, 2 / 4),
        ("the CAT, the cat", {"words": ["cat"], "ignore_case": False}, 1 / 4),
        ("cat's well-known don't", {"words": ["cat", "known", "don't"]}, 1 / 3),
        ("", {"words": ["cat"]}, 0),
        (" ... !", {"words": ["cat"]}, 0),
        ("STRASSE groß", {"words": ["straße"]}, 1 / 2),
        ("हिन्दी भाषा", {"words": ["हिन्दी"]}, 1 / 2),  # planted bug: vowel signs split words
        ("cafe\u0301", {"words": ["caf\u00e9"]}, 1),
    ],
)
def test_word_share(text, params, share):
    assert value("word_share", text, **params) == share


def test_words_of():
    assert words_of("Don't—she'd ’tis 3.5 re-do -x- a_b ‘q’ C++") == [
        "Don't", "she'd", "tis", "3", "5", "re-do", "x", "a_b", "q", "C",
    ]  # fmt: skip
    assert words_of("हिन्दी में\nתּוֹרָה") == ["हिन्दी", "में", "תּוֹרָה"] and words_of(" 😀\x00!") == []


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"feature": "contains_any", "words": []}, "t.yaml:3: 'contains_any' needs at least one word"),
        (
            {"feature": "contains_any", "words": ["a", " "]},
            "t.yaml:3: 'contains_any' has an empty word, which every text contains",
        ),
        ({"feature": "contains_any"}, "t.yaml:3: 'contains_any' needs the argument 'words'"),
        (
            {"feature": "contains_any", "words": "cat"},
            "t.yaml:3: 'contains_any' argument 'words': input should be a valid list or an object, not 'cat'" + LISTED,
        ),
        (
            {"feature": "contains_any", "words": ["a", False]},
            "t.yaml:3: 'contains_any' argument 'words' item 1: input should be a valid string, not False"
            " (YAML reads yes, no, on and off as true and false: put quotes around words)",
        ),
        (
            {"feature": "contains_any", "words": ["a"], "ignorecase": True},
            "t.yaml:3: unknown argument 'ignorecase'. Did you mean 'ignore_case'?"
            " Known: ignore_case, negate, whole_words, words.",
        ),
        (
            {"feature": "pronoun_gender", "groups": {"a": ["x"], "b": ["X"]}},
            "t.yaml:3: 'pronoun_gender' has the word 'X' in two groups, one of them 'b'",
        ),
        ({"feature": "pronoun_gender", "groups": {"a": []}}, "t.yaml:3: 'pronoun_gender' needs at least one word"),
        ({"feature": "first_of", "groups": {}}, "t.yaml:3: 'first_of' needs at least one group of words"),
        ({"feature": "count", "words": [""]}, "t.yaml:3: 'count' has an empty word, which every text contains"),
        (
            {"feature": "contains_at_least", "words": ["a", "A"], "count": 2, "ignore_case": True},
            "t.yaml:3: 'contains_at_least' argument 'count' is 2, but there are 1 different words: no text has so many",
        ),
        (
            {"feature": "contains_at_least", "words": ["a"], "count": 0},
            "t.yaml:3: 'contains_at_least' argument 'count' is 0, which every text has; it must be 1 or more",
        ),
        (
            {"feature": "word_share", "words": ["New York"]},
            "t.yaml:3: 'word_share' has 'New York' among the words, which is not one word"
            " (letters, digits, ' and - inside)",
        ),
    ],
)
def test_bad_parameters(spec, message):
    with pytest.raises(UsageError) as error:
        bind(spec, "t.yaml:3")
    assert str(error.value) == message


def test_unknown_feature_and_no_feature():
    with pytest.raises(UsageError, match=r"^unknown feature 'contains_an'\. Did you mean 'contains_any'\? Known: "):
        bind({"feature": "contains_an"})
    with pytest.raises(
        UsageError, match=r"^t:1: needs the key 'feature', the name of a feature \(one of contains_all, contains_any"
    ):
        bind({"words": ["a"]}, "t:1")
