"""matches and count_matches."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from one_text import draws_of, value

from alignbench.errors import UsageError
from alignbench.features import bind

DATE = r"\d{4}-\d{2}-\d{2}"


@pytest.mark.parametrize(
    ("text", "params", "hit"),
    [
        ("on 2024-01-31.", {}, 1),
        ("on 2024-01-31.", {"full": True}, 0),
        (" 2024-01-31\n", {"full": True}, 1),
        ("2024-01-31\n2024-01-31", {"full": True}, 0),  # planted bug: `match` with $
        ("", {}, 0),
        ("٢٠٢٤-٠١-٣١", {"full": True}, 1),  # Python's \d is a digit of any script
        ("  ABC", {"pattern": "^abc"}, 0),
        ("  ABC", {"pattern": "^abc", "ignore_case": True}, 1),
        ("", {"pattern": "", "full": True}, 1),
        (": 1}", {"pattern": r'\{"a": \d\}', "full": True, "include_prompt": True}, 1),
        (": 1}", {"pattern": r'\{"a": \d\}', "full": True}, 0),
        ("x" * 1_000_000 + "7", {"pattern": "7$"}, 1),
    ],
)
def test_matches(text, params, hit):
    assert value("matches", text, prompt='{"a"', **{"pattern": DATE, **params}) == hit


@pytest.mark.parametrize(
    ("text", "params", "n"),
    [
        ("2024-01-31, 2025-01-31", {}, 2),
        ("", {}, 0),
        ("aaaa", {"pattern": "aa"}, 2),
        ("aAaa", {"pattern": "a", "ignore_case": True}, 4),
        ("aAaa", {"pattern": "a"}, 3),
        (" a", {"pattern": "a", "include_prompt": True}, 2),
        ("a b", {"pattern": r"\b"}, 4),
    ],
)
def test_count_matches(text, params, n):
    assert value("count_matches", text, prompt='{"a"', **{"pattern": DATE, **params}) == n


def test_each_draw_has_its_own_prompt():
    bound = bind({"feature": "matches", "pattern": "ab", "full": True, "include_prompt": True})
    assert bound(["a", "x"], draws_of("b", "b", prompt=[1, 0])).tolist() == [0, 1]


@given(st.text(alphabet="ab \n", max_size=20))
def test_found_means_counted_and_all_means_found(text):
    found = value("matches", text, pattern="a+")
    assert found == (value("count_matches", text, pattern="a+") > 0)
    assert value("matches", text, pattern="a+", full=True) <= found


@pytest.mark.parametrize("name", ["matches", "count_matches"])
@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("a(b", "missing ), unterminated subpattern at position 1"),
        ("[z-a]", "bad character range z-a at position 1"),
        ("a{99999999999999999999}", "the repetition number is too large"),
    ],
)
def test_a_broken_pattern_is_told_with_its_position(name, pattern, why):
    with pytest.raises(UsageError) as error:
        bind({"feature": name, "pattern": pattern}, "t.yaml:3")
    assert str(error.value) == f"t.yaml:3: '{name}' has the pattern {pattern!r}, which is no regular expression: {why}"
