"""Names in a continuation, and whether its prompt has them."""

import numpy as np
import pytest

from alignbench.errors import UsageError
from alignbench.features import bind
from alignbench.features.names import names_of
from alignbench.types import Draws

PROMPT = "summarize: Mr Sodje, 37, of Kent, is charged with Efe's brothers. Reading's defender denied it."


def values(texts, spec, prompts=(PROMPT,), prompt=None):
    which = np.zeros(len(texts), int) if prompt is None else np.array(prompt)
    rows = np.stack([which, np.arange(len(texts))], axis=1)
    return bind(spec)(prompts, Draws.from_texts(rows, texts)).tolist()


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", []),
        ("The man said that Anna saw him.", ["anna"]),
        (" It rained. London was wet.", []),  # a name that begins a sentence is missed
        ("He met Anna’s sister and I'm told O'Neill.", ["anna", "o'neill"]),
        ('He said: "Paris is far." Then I left (Bob too).', ["bob"]),
        ("In Kent in Kent", ["kent", "kent"]),
        ("old\nNew York", ["york"]),
        ("He met         Anna and ((((((((  Bob.", ["anna", "bob"]),
    ],
)
def test_names_are_capitalised_words_inside_a_sentence(text, names):
    assert names_of(text) == names


def test_a_name_that_the_prompt_has_not_is_invented():
    texts = ["", "The brothers Sodje and Efe deny it.", "He met Sodje in Paris.", "A man of KENT", "Reading denied it"]
    assert values(texts, {"feature": "names_from_prompt"}) == [1, 1, 0, 1, 1]


def test_each_prompt_has_its_own_words():
    spec = {"feature": "contains_any", "words": {"a": ["sun"], "b": ["rain", "wind"]}}
    assert values(["sun", "sun", "wind"], spec, ("a", "b"), [0, 1, 1]) == [1, 0, 1]
    assert values(["the sea", "a sea wave"], {**spec, "words": {"a": "sea wave"}}, ("a",)) == [0, 1]  # of a CSV's cell
    with pytest.raises(UsageError, match="'contains_any' has no words for the prompt 'c'"):
        values(["sun"], spec, ("c",))
    with pytest.raises(UsageError, match="'contains_any' needs at least one word"):
        bind({"feature": "contains_any", "words": {"a": []}})
