"""The target against sums by hand."""

import numpy as np
import pytest

from alignbench.errors import InfeasibleTarget, UsageError
from alignbench.target import Constraint, Target
from alignbench.types import Fit, Wanted

GENDER = {"pronoun": ("she", "he", "they")}
RANGES = {"clean": (0.0, 1.0), "hit": (0.0, 1.0), "length": (0.0, np.inf), "score": None}


def target(*constraints, lam=None):
    fit = None if lam is None else Fit((), np.asarray(lam, float), np.asarray(lam, float))
    return Target(constraints, GENDER, RANGES, fit)


CLEAN = Constraint("clean", "always")
HALF = Constraint("hit", "moment", 0.5)
SHARES = Constraint("pronoun", "distribution", {"she": 0.2, "he": 0.5, "they": 0.3})
SCORE = Constraint("score", "reward", beta=0.5)
FEATURES = {
    "clean": np.array([1, 0, 1, 1]), "hit": np.array([1.0, 1, 0, 1]), "pronoun": np.array([0, 1, -1, 2]),
    "length": np.array([3.0, 1, 2, 5]), "score": np.array([0.1, 0.2, -0.3, 0.0]),
}  # fmt: skip
PROMPT = np.array([0, 0, 1, 1])


def test_wanted_lists_what_is_asked():
    assert target(CLEAN, HALF, SHARES, SCORE).wanted() == (
        Wanted("clean", "always", "", 1.0),
        Wanted("hit", "moment", "", 0.5),
        Wanted("pronoun", "distribution", "she", 0.2),
        Wanted("pronoun", "distribution", "he", 0.5),
        Wanted("pronoun", "distribution", "they", 0.3),
        Wanted("score", "reward", "", None),
    )


def test_moments_by_hand():
    both = target(CLEAN, HALF, SHARES)
    assert both.moment_names == ("hit", "pronoun.she", "pronoun.he")
    assert both.moments(FEATURES) == pytest.approx(
        np.array([[0.5, 0.8, -0.5], [0.5, -0.2, 0.5], [-0.5, 0, 0], [0.5, -0.2, -0.5]])
    )
    assert target(CLEAN).moments(FEATURES).shape == (4, 0)


def test_listed_categories_may_be_some_of_the_features_in_another_order():
    """Planted bugs: shares matched to codes by position; unlisted categories counted among the listed."""
    some = target(Constraint("pronoun", "distribution", {"they": 0.75, "she": 0.25}))
    assert some.moments(FEATURES)[:, 0] == pytest.approx([-0.75, 0, 0, 0.25])


def test_log_ratio_by_hand():
    ratio = target(CLEAN, HALF, SHARES, SCORE, lam=[[2.0, 1.0, -1.0]]).log_ratio(FEATURES, PROMPT)
    assert ratio == pytest.approx([1 + 0.8 + 0.5 + 0.2, -np.inf, -1 - 0.6, 1 - 0.2 + 0.5])
    assert target(CLEAN).log_ratio(FEATURES, PROMPT).tolist() == [0, -np.inf, 0, 0]
    assert target().log_ratio(FEATURES, PROMPT).tolist() == [0, 0, 0, 0]


def test_lambda_of_each_prompt():
    per = target(Constraint("hit", "moment", 0.5, per="prompt"), lam=[[2.0], [4.0]])
    assert per.log_ratio(FEATURES, PROMPT) == pytest.approx([1, 1, -2, 2])
    assert per.log_bound(2) == pytest.approx([1, 2])


@pytest.mark.parametrize(
    ("constraints", "lam", "bound"),
    [
        ((CLEAN,), None, 0.0),
        ((), None, 0.0),
        ((HALF,), [[2.0]], 1.0),
        ((HALF,), [[-3.0]], 1.5),
        ((SHARES,), [[1.0, -1.0]], 0.8 + 0.5),
        ((SHARES,), [[-1.0, -2.0]], 0.2 + 1.0),  # "they": −0.2·−1 + −0.5·−2
        ((HALF, SHARES), [[2.0, 0.0, 0.0]], 1.0),
        ((SHARES, HALF), [[0.0, 0.0, 2.0]], 1.0),  # λ belongs to its own feature
        ((Constraint("clean", "reward", beta=0.25),), None, 4.0),
        ((HALF, Constraint("hit", "always")), [[-3.0]], -1.5),  # only hits are possible: −3 · 0.5
        ((HALF, Constraint("hit", "reward", beta=1.0)), [[-3.0]], 1.5),  # the max of the sum
        ((SCORE,), None, None),
        ((Constraint("length", "moment", 9.0),), [[0.1]], None),
        ((Constraint("length", "moment", 9.0),), [[-0.1]], 0.9),
        ((Constraint("length", "moment", 9.0),), [[0.0]], 0.0),
        ((Constraint("length", "moment", 9.0), SCORE), [[-0.1]], None),
    ],
)
def test_log_bound(constraints, lam, bound):
    found = target(*constraints, lam=lam).log_bound(3)
    assert found is None if bound is None else found == pytest.approx(np.full(3, bound))


def test_log_bound_holds_over_all_values():
    rng = np.random.default_rng(0)
    features = {"clean": rng.integers(0, 2, 500), "hit": rng.random(500), "pronoun": rng.integers(-1, 3, 500)}
    for _ in range(20):
        asked = target(CLEAN, HALF, SHARES, Constraint("hit", "reward", beta=0.7), lam=rng.normal(size=(1, 3)))
        assert asked.log_ratio(features, np.zeros(500, int)).max() <= asked.log_bound(1)[0] + 1e-12


def test_what_needs_a_fit():
    assert target(CLEAN).is_boolean and not target(CLEAN).needs_fit
    assert not target(SCORE).is_boolean and not target(SCORE).needs_fit
    assert target(CLEAN, SHARES).needs_fit
    for ask in (lambda t: t.log_ratio(FEATURES, PROMPT), lambda t: t.log_bound(2)):
        with pytest.raises(UsageError, match="fit λ on draws of the base first"):
            ask(target(HALF))


def simulated(rng, size=4000):
    prompt = np.repeat([0, 1], size // 2)
    pronoun = np.where(rng.random(size) < 0.5, -1, rng.choice(3, size, p=[0.6, 0.3, 0.1]))
    return {"clean": rng.integers(0, 2, size), "pronoun": pronoun, "hit": rng.random(size).round()}, prompt


def test_fitted_reaches_shares_and_moment_on_fresh_draws():
    rng = np.random.default_rng(1)
    asked = target(CLEAN, SHARES, HALF).fitted(*simulated(rng), *simulated(rng))
    features, prompt = simulated(rng, 400_000)
    weight = np.exp(asked.log_ratio(features, prompt))
    mass = np.array([weight[features["pronoun"] == code].sum() for code in range(3)])
    assert mass / mass.sum() == pytest.approx([0.2, 0.5, 0.3], abs=0.04)  # planted bug: share given to another category
    assert weight[features["clean"] == 0].sum() == 0
    fit = asked.fit
    assert fit.lam.shape == fit.lam_stderr.shape == (1, 3) and set(fit.heldout) == set(asked.moment_names)
    for error in fit.heldout.values():
        assert abs(error.value) < 4 * np.hypot(error.stderr, error.stderr)  # fit and held-out draws both vary
    assert fit.log_bound.shape == (2,) and fit.wanted == asked.wanted()


def test_fitted_by_closed_form_per_prompt():
    """One prompt with 20 % and one with 50 %: λ = −logit of the share."""
    hit, prompt = np.repeat([1.0, 0, 1, 0], [20, 80, 50, 50]), np.repeat([0, 1], 100)
    asked = target(Constraint("hit", "moment", 0.5, per="prompt")).fitted({"hit": hit}, prompt, {"hit": hit}, prompt)
    assert asked.fit.lam == pytest.approx(np.array([[np.log(4)], [0]]), abs=1e-9)


def test_held_out_errors_are_means_over_prompts_however_many_draws_each_has():
    """λ = 0: the error is the mean of 0.3 and 0.8, less what is wanted; planted: all draws in one prompt."""
    hit, prompt = np.repeat([1.0, 0.0] * 2, [50, 50, 50, 50]), np.repeat([0, 1], 100)
    seen, where = np.repeat([1.0, 0, 1, 0], [60, 140, 80, 20]), np.repeat([0, 1], [200, 100])
    fit = target(HALF).fitted({"hit": hit}, prompt, {"hit": seen}, where).fit
    assert fit.lam == pytest.approx(np.zeros((1, 1)), abs=1e-9)
    assert fit.heldout["hit"].value == pytest.approx((0.3 + 0.8) / 2 - 0.5)


def test_without_moments_there_is_nothing_to_fit():
    fit = target(CLEAN).fitted(FEATURES, PROMPT, FEATURES, PROMPT).fit
    assert fit.lam.shape == (1, 0) and fit.heldout == {} and fit.log_bound.tolist() == [0, 0]
    rare = {**FEATURES, "clean": np.zeros(4)}
    assert target(CLEAN).fitted(rare, PROMPT, rare, PROMPT).fit.lam.shape == (1, 0)  # log Z has its one-sided bound


def test_infeasible():
    with pytest.raises(InfeasibleTarget) as error:
        target(SHARES).fitted({"pronoun": np.array([0, 1, -1, 1])}, PROMPT, {}, PROMPT)
    assert str(error.value) == (
        "share 'pronoun.they' = 0.3 cannot be reached: 'they' occurs in none of the base's 4 draws that satisfy the "
        "hard constraints"
    )
    with pytest.raises(InfeasibleTarget) as error:
        target(Constraint("length", "moment", 50.0)).fitted(FEATURES, PROMPT * 0, FEATURES, PROMPT * 0)
    assert str(error.value) == "moment 'length' = 50 cannot be reached: the base's draws span 1 to 5"
    with pytest.raises(InfeasibleTarget, match=r"^prompt 1 \('b'\): none of the base's 2 draws satisfies"):
        features = {"clean": np.array([1, 1, 0, 0]), "hit": np.array([0, 1, 0, 1])}
        target(CLEAN, HALF).fitted(features, PROMPT, features, PROMPT, ["a", "b"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Constraint("pronoun", "distribution", {"she": 0.5, "he": 0.4}),
            "distribution constraint on 'pronoun': the shares must sum to 1, not 0.9",
        ),
        (
            lambda: Constraint("pronoun", "distribution", {"she": 1.0, "he": 0.0}),
            "distribution constraint on 'pronoun': a share of 0 rules 'he' out, which no λ can do; leave it out here "
            "and use an 'always' constraint on a feature that is 0 there",
        ),
        (
            lambda: Constraint("pronoun", "distribution", {"she": 1.5, "he": -0.5}),
            "distribution constraint on 'pronoun': the share of 'he' must be a number above 0, not -0.5",
        ),
        (
            lambda: Constraint("pronoun", "distribution", {"she": 1.0}),
            "distribution constraint on 'pronoun': needs the shares of two categories or more, not {'she': 1.0}",
        ),
        (lambda: Constraint("hit", "moment"), "moment constraint on 'hit': a moment is a finite number, not None"),
        (
            lambda: Constraint("hit", "moment", np.nan),
            "moment constraint on 'hit': a moment is a finite number, not nan",
        ),
        (lambda: Constraint("hit", "reward", beta=0), "reward constraint on 'hit': beta must be above 0, not 0"),
        (
            lambda: target(Constraint("clear", "always")),
            "unknown feature 'clear'. Did you mean 'clean'? Known: clean, hit, length, pronoun, score.",
        ),
        (
            lambda: target(Constraint("pronoun", "distribution", {"she": 0.5, "hee": 0.5})),
            "distribution constraint on 'pronoun': unknown category 'hee'. Did you mean 'he'? Known: he, she, they.",
        ),
        (
            lambda: target(Constraint("pronoun", "moment", 0.5)),
            "moment constraint on 'pronoun': 'pronoun' is categorical: ask for a 'distribution' instead",
        ),
        (
            lambda: target(Constraint("hit", "distribution", {"a": 0.5, "b": 0.5})),
            "distribution constraint on 'hit': 'hit' is a number: ask for a 'moment' instead",
        ),
        (
            lambda: target(HALF, Constraint("length", "moment", 3.0, per="prompt")),
            "all moment and distribution constraints must agree on 'per' (task or prompt)",
        ),
        (lambda: target(HALF, HALF), "two moment constraints on 'hit': keep one"),
        (
            lambda: target(Constraint("hit", "moment", 1.0)),
            "moment 'hit' = 1 cannot be reached: the feature lies between 0 and 1, and its mean must lie strictly "
            "inside; to have it on every draw, use 'always: true'",
        ),
        (
            lambda: target(Constraint("score", "always")).log_ratio({"score": np.array([1, 0.5])}, np.zeros(2, int)),
            "always constraint on 'score': 'always' needs a feature that is 0 or 1, and a draw has 0.5",
        ),
    ],
)
def test_bad_constraints(make, message):
    with pytest.raises(UsageError) as error:
        make()
    assert str(error.value) == message


def test_identity_is_what_p_depends_on():
    assert target(HALF, lam=[[1.0]]).identity == target(HALF).identity
    others = [
        target(CLEAN), target(SHARES), target(HALF), target(Constraint("hit", "moment", 0.4)), target(SCORE),
        target(Constraint("score", "reward", beta=0.4)), target(Constraint("hit", "moment", 0.5, per="prompt")),
        target(Constraint("pronoun", "distribution", {"she": 0.5, "he": 0.2, "they": 0.3})),
        target(HALF, SHARES), target(SHARES, HALF),  # planted bug: a stored λ read with its columns in another order
        target(Constraint("pronoun", "distribution", {"they": 0.3, "he": 0.5, "she": 0.2})),
    ]  # fmt: skip
    assert len({str(other.identity) for other in others}) == len(others)
