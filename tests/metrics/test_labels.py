"""Accuracy and F1 of a categorical feature: scikit-learn's values, what counts as wrong, intervals, wrong words."""

import numpy as np
import pytest
from evidences import of_texts
from sklearn.metrics import accuracy_score, f1_score

from alignbench import metrics
from alignbench.errors import UsageError
from alignbench.registry import metric
from alignbench.stats.intervals import share

NAMES = ("she", "he", "they")
LABELS = {"prompt 0": "she", "prompt 1": "he", "prompt 2": "she", "prompt 3": "he"}
TRUE = np.array([0, 1, 0, 1])


def world(codes, prompt, labels=4, **more):
    return of_texts(
        ["x"] * len(codes), prompt, features={"pronoun": np.asarray(codes), "size": np.ones(len(codes))},
        categories={"pronoun": NAMES}, **more,
    )  # fmt: skip


def drawn(seed, each=30):
    """Draws that have their label in 6 cases of 10; −1 is no category."""
    rng, prompt = np.random.default_rng(seed), np.repeat(np.arange(4), each)
    return world(np.where(rng.random(prompt.size) < 0.6, TRUE[prompt], rng.integers(-1, 3, prompt.size)), prompt)


def measured(name, e, labels=LABELS, **more):
    return metrics.measure(name, e, feature="pronoun", labels=labels, **more)


def test_they_are_scikit_learns():
    e = drawn(1)  # where the two averages differ
    code, truth = e.own.features["pronoun"], TRUE[e.own.draws.prompt]
    accuracy = measured("accuracy", e)[""]
    assert accuracy.value == pytest.approx(accuracy_score(truth, code))
    assert accuracy == share(e.own.draws.prompt, code == truth)
    for average in ("macro", "micro"):
        exact = f1_score(truth, code, labels=[0, 1], average=average)
        value = measured("f1", e, average=average)[""].value
        assert value == pytest.approx(exact)
    answer = measured("f1", e)
    each = f1_score(truth, code, labels=[0, 1], average=None)
    assert [answer["she"].value, answer["he"].value] == pytest.approx(each)
    assert set(answer) == {"", "she", "he"}  # no label says they
    assert answer[""].ci_low < answer[""].value < answer[""].ci_high
    left_out = code >= 0
    assert accuracy_score(truth[left_out], code[left_out]) > accuracy.value  # planted: no category is left out


def test_f1_covers():
    """Each draw is right with chance 0.6, else of one of 4 codes alike: the pooled F1 of all draws there could be."""
    right, other = 0.6 + 0.1, 0.1
    exact = 2 * right / (2 * right + other + (1 - right))
    held, each = 0, 0
    for seed in range(250):
        answer = measured("f1", drawn(seed))
        held += answer[""].ci_low <= exact <= answer[""].ci_high
        each += answer["she"].ci_low <= exact <= answer["she"].ci_high
    assert min(held, each) >= 0.91 * 250 and max(held, each) < 250


def test_f1_where_a_label_has_one_draw():
    answer = measured("f1", world([0, 1, 1, 1], np.arange(4)))
    assert answer[""].value == pytest.approx(f1_score(TRUE, [0, 1, 1, 1], average="macro"))
    sole = measured("f1", world([0, 1], np.arange(2)))
    assert sole["she"].value == 1 and "no interval" in sole["she"].note
    assert sole[""].ci_low is None and "no interval" in sole[""].note


@pytest.mark.parametrize("name", ["accuracy", "f1"])
def test_wrong_words(name):
    e = drawn(0)
    for params, told in (
        ({"feature": "pronun", "labels": LABELS}, "unknown feature 'pronun'. Did you mean 'pronoun'"),
        ({"feature": "size", "labels": LABELS}, "'size' is a number"),
        ({"feature": "pronoun", "labels": LABELS | {"prompt 1": "hee"}}, "unknown label 'hee'. Did you mean 'he'"),
        ({"feature": "pronoun", "labels": {"prompt 0": "he"}}, "no label for the prompt 'prompt 1'"),
        ({"feature": "pronoun"}, "needs the argument 'labels'"),
    ):
        with pytest.raises(UsageError) as error:
            metrics.measure(name, e, **params)
        assert told in str(error.value) and f"metric '{name}'" in str(error.value)
    with pytest.raises(UsageError, match=r"unknown average 'macros'\. Did you mean 'macro'"):
        metric.find("f1").check({"feature": "x", "labels": {}, "average": "macros"})
