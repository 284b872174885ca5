"""Calibration of a `distribution` target: exact errors of shares, total variation, parts, coverage."""

import numpy as np
import pytest
from evidences import of_texts

from alignbench import metrics
from alignbench.errors import UsageError
from alignbench.types import Wanted

NAMES = ("she", "he", "they")
WANTED = tuple(Wanted("pronoun", "distribution", n, v) for n, v in zip(NAMES, (0.5, 0.3, 0.2), strict=True))
TONE = tuple(Wanted("tone", "distribution", n, 0.5) for n in ("kind", "rude"))


def world(codes, tones=None, wanted=WANTED, prompt=None):
    features = {"pronoun": np.asarray(codes), **({} if tones is None else {"tone": np.asarray(tones)})}
    return of_texts(["x"] * len(codes), prompt, features=features, wanted=wanted,
                    categories={"pronoun": NAMES, "tone": ("kind", "rude")})  # fmt: skip


def test_errors_are_of_shares_among_the_listed():
    e = world([0] * 40 + [1] * 40 + [2] * 20 + [-1] * 100)
    answer = metrics.measure("calibration", e)
    assert set(answer) == {"mae.pronoun", "tv.pronoun"}
    mae, tv = answer["mae.pronoun"], answer["tv.pronoun"]
    assert mae.value == pytest.approx((0.1 + 0.1 + 0.0) / 3)  # planted: shares among all draws are off by 0.3, 0.1, 0.1
    assert tv.value == pytest.approx(0.1)
    assert 0 <= mae.ci_low < mae.value < mae.ci_high
    assert (tv.ci_low, tv.ci_high, tv.stderr) == pytest.approx(
        tuple(1.5 * x for x in (mae.ci_low, mae.ci_high, mae.stderr))
    )
    assert "folded at 0" in mae.note and "half the sum" in tv.note
    moment_error = metrics.measure("moment_error", e)[""]
    assert (mae.value, mae.ci_low, mae.ci_high) == (moment_error.value, moment_error.ci_low, moment_error.ci_high)


def test_several_features_have_a_mean_and_one_can_be_named():
    e = world([0] * 50 + [1] * 30 + [2] * 20, [0] * 60 + [1] * 40, (*WANTED, *TONE))
    answer = metrics.measure("calibration", e)
    assert answer["mae.tone"].value == pytest.approx(0.1) and answer["mae.pronoun"].value == pytest.approx(0)
    assert answer["mae"].value == pytest.approx(0.2 / 5)
    assert set(metrics.measure("calibration", e, feature="tone")) == {"mae.tone", "tv.tone"}
    with pytest.raises(UsageError, match=r"'ton'\. Did you mean 'tone'"):
        metrics.measure("calibration", e, feature="ton")


def test_what_is_missing_says_so():
    answer = metrics.measure("calibration", world([-1] * 20))
    assert {a.note for a in answer.values()} == {"no own draw falls in a listed category"}
    assert metrics.measure("calibration", world([0] * 4, wanted=()))[""].note == "the target asks for no distribution"
    assert metrics.better("calibration", "mae.pronoun") == "lower"


@pytest.mark.parametrize("law", [(0.5, 0.3, 0.2), (0.7, 0.2, 0.1)])
def test_it_covers_near_and_far_from_what_is_wanted(law):
    exact = np.mean(np.abs(np.subtract(law, (0.5, 0.3, 0.2))))
    held = 0
    for seed in range(150):
        codes = np.random.default_rng(seed).choice(3, 200, p=law)
        mae = metrics.measure("calibration", world(codes, prompt=np.arange(200) // 100))["mae.pronoun"]
        held += mae.ci_low <= exact <= mae.ci_high
    assert held >= 0.93 * 150
