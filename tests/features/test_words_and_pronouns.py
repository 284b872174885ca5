"""contains_any, pronoun_gender and length_tokens against sentences that were read by a person."""

import json
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignbench.errors import UsageError
from alignbench.features import bind
from alignbench.features.words import contains_any
from alignbench.types import Draws


def draws_of(*texts, length=None):
    n = len(texts)
    return Draws(
        prompt=np.zeros(n, int), index=np.arange(n), texts=texts, tokens=None,
        length=np.full(n, 3) if length is None else np.asarray(length), finished=np.ones(n, bool), log_prob=None,
        token_log_prob=None, model_log_prob=None,
    )  # fmt: skip


def value(name, text, **params):
    return bind({"feature": name, **params})(["p"], draws_of(text))[0]


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


def test_length_tokens():
    assert bind({"feature": "length_tokens"})(["p"], draws_of("a", "b", length=[4, 1])).tolist() == [4, 1]


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
            "t.yaml:3: 'contains_any' argument 'words': input should be a valid list, not 'cat'",
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
            "t.yaml:3: 'pronoun_gender' has the pronoun 'X' in two categories, one of them 'b'",
        ),
        ({"feature": "pronoun_gender", "groups": {"a": []}}, "t.yaml:3: 'pronoun_gender' needs at least one word"),
    ],
)
def test_bad_parameters(spec, message):
    with pytest.raises(UsageError) as error:
        bind(spec, "t.yaml:3")
    assert str(error.value) == message


def test_unknown_feature_and_no_feature():
    with pytest.raises(UsageError, match=r"^unknown feature 'contains_all'\. Did you mean 'contains_any'\? Known: "):
        bind({"feature": "contains_all"})
    with pytest.raises(UsageError, match=r"^t:1: needs the key 'feature', the name of a feature \(one of contains_any"):
        bind({"words": ["a"]}, "t:1")
