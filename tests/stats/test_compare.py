"""Paired comparisons: hand-made numbers and scipy first, then error rates by simulation, with a planted bug."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy.stats import norm, t, ttest_1samp

from alignbench.stats.compare import Pairing, holm, paired, permuted

LIKE = "prompts_like_these"


def pairing(prompts=3, draws=20, **more):
    return Pairing(np.repeat(np.arange(prompts), draws), **more)


def noise(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


# --- exact ------------------------------------------------------------------------------------------------------------


def test_over_the_prompts_given_the_interval_is_stratified():
    where = pairing(2, 4)
    first, second = noise(0, 8), noise(1, 8)
    d = (first - second).reshape(2, 4)
    got = paired(first, second, where)
    assert got.value == pytest.approx(d.mean(), abs=1e-12)
    assert got.stderr == pytest.approx(np.sqrt((d.var(axis=1, ddof=1) / 4).sum()) / 2, abs=1e-12)


def test_over_prompts_like_these_it_is_the_t_test_of_the_prompts_means():
    where = pairing(6, 5, over=LIKE)
    first, second = noise(2, 30) + np.repeat(noise(3, 6), 5), noise(4, 30)
    got = paired(first, second, where)
    truth = ttest_1samp((first - second).reshape(6, 5).mean(axis=1), 0)
    limits = truth.confidence_interval(0.95)
    assert (got.ci_low, got.ci_high) == pytest.approx((limits.low, limits.high), abs=1e-9)


def test_what_both_share_cancels():
    shared = 1e6 * noise(5, 60)
    got = paired(shared + 1.0 + 1e-3 * noise(6, 60), shared, pairing())
    assert got.value == pytest.approx(1.0, abs=1e-3) and got.stderr < 1e-3


def test_draws_of_one_run_count_once():
    twice = np.repeat(np.arange(30), 2)
    whole = pairing(2, 30, group=twice)
    d = np.repeat(noise(6, 30), 2)
    once = paired(d[::2], np.zeros(30), pairing(2, 15))
    got = paired(d, np.zeros(60), whole)
    assert (got.value, got.stderr) == pytest.approx((once.value, once.stderr), abs=1e-12)


def test_one_prompt_says_nothing_of_others():
    got = paired(noise(7, 9), noise(8, 9), pairing(1, 9, over=LIKE))
    assert got.stderr is None and got.ci_low is None and "no interval" in got.note


def test_the_permutation_test_tries_all_swaps_of_few_units():
    d = noise(9, 8) + 0.5
    where = pairing(2, 4)
    signed = np.array([(np.array(s) * d).mean() for s in product((1, -1), repeat=8)])
    low, high = (signed <= d.mean() + 1e-12).mean(), (signed >= d.mean() - 1e-12).mean()
    truth = min(1.0, 2 * min(low, high))
    assert permuted(d, np.zeros(8), where, np.random.default_rng(0)) == pytest.approx(truth, abs=1e-12)


def test_prompts_count_alike_when_signs_are_flipped_however_many_draws_they_have():
    """One prompt of 6 draws and one of 2, by all 256 flips of the mean over prompts."""
    d, prompt = noise(12, 8) + 0.7, np.array([0] * 6 + [1] * 2)
    weight = np.where(prompt == 0, 1 / 12, 1 / 4)
    every = np.array([np.sum(np.array(s) * weight * d) for s in product((1, -1), repeat=8)])
    truth = np.mean(np.abs(every) >= abs(np.sum(weight * d)) - 1e-12)
    plain = np.mean(
        [abs(np.sum(np.array(s) * d)) >= abs(d.sum()) - 1e-12 for s in product((1, -1), repeat=8)]
    )  # planted: draws count alike
    assert permuted(d, np.zeros(8), Pairing(prompt), np.random.default_rng(0)) == pytest.approx(truth, abs=1e-12)
    assert plain != pytest.approx(truth, abs=0.01)


def test_permutation_agrees_with_the_t_test_where_it_is_right():
    where = pairing(4, 100)
    first, second = noise(10, 400) + 0.1, noise(11, 400)
    delta = paired(first, second, where)
    two_sided = 2 * t.sf(abs(delta.value / delta.stderr), 400 - 4)
    assert permuted(first, second, where, np.random.default_rng(2)) == pytest.approx(two_sided, abs=0.02)


def test_holm():
    """Worked by hand: .005·4, .01·3, .03·2, then .04·1, which may not fall below the one before."""
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.6, 0.7]), [1.0, 1.0])
    assert holm([]).size == 0


def test_a_difference_that_does_not_vary_has_no_known_error_and_is_not_told():
    same = paired(np.full(60, 0.5), np.zeros(60), pairing())
    assert same.stderr is None and "do not differ" in same.note
    assert same.ci_low is None and same.ci_high is None


# --- error rates ------------------------------------------------------------------------------------------------------

RUNS = 1000


def most(rate, runs=RUNS):
    """Four Monte Carlo standard errors above a rate."""
    return rate + 4 * np.sqrt(rate * (1 - rate) / runs)


def unpaired(first, second, where):
    """The planted bug: two intervals' variances added, as if the draws were not shared."""
    d = paired(first, second, where)
    error = np.hypot(paired(first, 0 * first, where).stderr, paired(second, 0 * second, where).stderr)
    return type(d)(d.value, error, d.value - norm.isf(0.025) * error, d.value + norm.isf(0.025) * error, d.n)


def rejections(test, shift=0.0, sign=1.0, over="prompts_given", runs=RUNS):
    """How often a 95 % interval of `shift` (0: no difference) leaves 0 out; noise shared by both with `sign`."""
    where = pairing(4, 25, over=over)
    count = 0
    for seed in range(runs):
        shared, own = noise((seed, 1), 100), noise((seed, 2), 2, 100)
        between = np.repeat(noise((seed, 3), 4), 25) if over == LIKE else 0.0
        first, second = shared + own[0] / 3 + shift + between, sign * shared + own[1] / 3
        told = test(first, second, where)
        count += not told.ci_low <= 0 <= told.ci_high
    return count / runs


@pytest.mark.parametrize("over", ["prompts_given", LIKE])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_type_1_error_is_5_percent(over, sign):
    low = 0.05 - (most(0.05) - 0.05)
    assert low <= rejections(paired, sign=sign, over=over) <= most(0.05)


def test_pairing_has_power_where_noise_is_shared():
    """Shift .15 at standard error √(2/9/100) = .047: power 0.89."""
    assert 0.85 < rejections(paired, shift=0.15) < 0.93


def test_the_planted_bug_of_unpaired_variances_is_caught():
    assert rejections(unpaired) == 0 and rejections(unpaired, shift=0.15) < 0.3  # too wide where noise is shared
    assert rejections(unpaired, sign=-1.0) > most(0.05) > rejections(paired, sign=-1.0)  # too narrow where it opposes


def test_stratifying_where_prompts_stand_for_others_would_be_caught():
    def stratified(first, second, where):
        return paired(first, second, Pairing(where.prompt))

    assert rejections(stratified, over=LIKE, runs=200) > 0.5


def test_holm_keeps_the_family_wise_error():
    p = np.random.default_rng(20).uniform(size=(RUNS, 10))
    assert np.mean([holm(row).min() <= 0.05 for row in p]) <= most(0.05)
    assert np.mean(p.min(axis=1) <= 0.05) > 0.3
