"""What a bound feature guarantees, whoever wrote the function."""

from typing import Literal

import numpy as np
import pytest

from alignbench.errors import RunError, UsageError
from alignbench.features import bind
from alignbench.registry import feature
from alignbench.types import Draws

DRAWS = Draws(
    prompt=np.array([0, 1]), index=np.array([4, 7]), texts=("one", "two"), tokens=None, length=np.array([2, 3]),
    finished=np.ones(2, bool), log_prob=None, token_log_prob=None, model_log_prob=None,
)  # fmt: skip


@pytest.fixture
def returns(monkeypatch):
    """A feature that returns what it is told, registered for one test only."""
    monkeypatch.setattr(feature, "entries", dict(feature.entries))

    def make(values, **meta):
        def told(prompts, draws, *, level: float = 1.0, mode: Literal["a", "b"] = "a"):
            return np.asarray(values)

        feature("told", **meta)(told)
        return lambda **params: bind({"feature": "told", **params})

    return make


def test_values_pass_as_floats_and_codes_as_integers(returns):
    assert returns([True, False])()(["p"], DRAWS).tolist() == [1.0, 0.0]
    codes = returns([1.0, -1.0], categories=("x", "y"))()(["p"], DRAWS)
    assert codes.tolist() == [1, -1] and codes.dtype == np.int64


@pytest.mark.parametrize(
    ("values", "meta", "message"),
    [
        ([[1, 2]], {}, "feature 'told' returned an array of shape (1, 2) for 2 draws, not one value each"),
        (1.0, {}, "feature 'told' returned an array of shape () for 2 draws, not one value each"),
        (
            [1.0], {},
            "feature 'told' returned 1 value for 2 draws; the first without a value is draw 7 of prompt 1: 'two'",
        ),
        (
            [], {},
            "feature 'told' returned 0 values for 2 draws; the first without a value is draw 4 of prompt 0: 'one'",
        ),
        ([1, 2, 3], {}, "feature 'told' returned 3 values for 2 draws"),
        (["a", "b"], {}, "feature 'told' returned <U1 values, not numbers"),
        (
            [0, np.nan], {},
            "feature 'told' returned nan, outside the finite numbers, for draw 7 of prompt 1: 'two'",
        ),
        ([-np.inf, 0], {}, "feature 'told' returned -inf, outside the finite numbers, for draw 4 of prompt 0: 'one'"),
        ([0, 1.5], {"range": (0, 1)}, "feature 'told' returned 1.5, outside 0 to 1, for draw 7 of prompt 1: 'two'"),
        (
            [0, 2], {"categories": ("x", "y")},
            "feature 'told' returned 2, outside -1 to 1, for draw 7 of prompt 1: 'two'",
        ),
        (
            [0.5, 0], {"categories": ("x", "y")},
            "feature 'told' returned 0.5, outside -1 to 1, for draw 4 of prompt 0: 'one'",
        ),
    ],
)  # fmt: skip
def test_impossible_values_are_refused(returns, values, meta, message):
    with pytest.raises(UsageError) as error:
        returns(values, **meta)()(["p"], DRAWS)
    assert str(error.value) == message


def test_declarations_may_depend_on_the_parameters(returns):
    make = returns([0, 1], range=lambda level, mode: (0, level), version=3)
    assert make(level=2.0).range == (0.0, 2.0) and make().version == 3
    assert returns([0, 1], categories=lambda level, mode: (mode,))(mode="b").categories == ("b",)


def test_identity_names_defaults_so_that_spelling_them_out_changes_nothing(returns):
    make = returns([0, 1])
    assert make().identity == make(level=1.0).identity
    assert make().identity == {
        "feature": "told", "version": 1, "params": {"level": 1.0, "mode": "a"}, "categories": [],
    }  # fmt: skip
    assert make(level=2.0).identity != make().identity


def test_type_hints_are_checked(returns):
    with pytest.raises(UsageError) as error:
        returns([0, 1])(mode="c")
    assert str(error.value) == "feature: 'told' argument 'mode': input should be 'a' or 'b', not 'c'"


def test_a_feature_that_raises_is_one_line_that_says_where(monkeypatch):
    monkeypatch.setattr(feature, "entries", dict(feature.entries))

    def broken(prompts, draws):
        raise KeyError("two\nlines")

    feature(broken)
    with pytest.raises(RunError) as error:
        bind({"feature": "broken"})(["p"], DRAWS)
    text = str(error.value)
    assert text.startswith("feature 'broken' failed: KeyError: ") and "(test_binding.py:" in text and "\n" not in text


def test_a_declaration_that_raises_names_the_feature(returns):
    with pytest.raises(UsageError, match=r"^feature: 'told' its declaration of a range or categories failed: ZeroDiv"):
        returns([0, 1], range=lambda level, mode: (0, level / 0))()
