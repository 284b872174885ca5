"""Paired comparisons: hand-made numbers and scipy first, then error rates by simulation, with a planted bug."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy.stats import norm, ttest_1samp

from alignbench.stats import compare
from alignbench.stats.compare import Pairing, holm, p_value, paired, permuted, pseudo_values
from alignbench.stats.jackknife import jackknife

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
    assert compare.degrees(where) == 6


def test_over_prompts_like_these_it_is_the_t_test_of_the_prompts_means():
    where = pairing(6, 5, over=LIKE)
    first, second = noise(2, 30) + np.repeat(noise(3, 6), 5), noise(4, 30)
    got = paired(first, second, where)
    truth = ttest_1samp((first - second).reshape(6, 5).mean(axis=1), 0)
    assert p_value(got, compare.degrees(where)) == pytest.approx(truth.pvalue, abs=1e-9)
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
    assert compare.degrees(whole) == 28


def test_one_prompt_says_nothing_of_others():
    got = paired(noise(7, 9), noise(8, 9), pairing(1, 9, over=LIKE))
    assert got.stderr is None and got.ci_low is None and "no interval" in got.note
    assert p_value(got, 1.0) == 1.0


@pytest.mark.parametrize("alternative", ["two-sided", "less", "greater"])
def test_the_permutation_test_tries_all_swaps_of_few_units(alternative):
    d = noise(9, 8) + 0.5
    where = pairing(2, 4)
    signed = np.array([(np.array(s) * d).mean() for s in product((1, -1), repeat=8)])
    low, high = (signed <= d.mean() + 1e-12).mean(), (signed >= d.mean() - 1e-12).mean()
    truth = {"less": low, "greater": high, "two-sided": min(1.0, 2 * min(low, high))}[alternative]
    assert permuted(d, np.zeros(8), where, np.random.default_rng(0), alternative) == pytest.approx(truth, abs=1e-12)


def test_permutation_agrees_with_the_t_test_where_it_is_right():
    where = pairing(4, 100)
    first, second = noise(10, 400) + 0.1, noise(11, 400)
    delta, df = paired(first, second, where), compare.degrees(where)
    assert permuted(first, second, where, np.random.default_rng(2)) == pytest.approx(p_value(delta, df), abs=0.02)


def test_holm():
    """Worked by hand: .005·4, .01·3, .03·2, then .04·1, which may not fall below the one before."""
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.6, 0.7]), [1.0, 1.0])
    assert holm([]).size == 0


def test_a_difference_that_does_not_vary_has_no_known_error_and_is_not_told():
    same = paired(np.full(60, 0.5), np.zeros(60), pairing())
    assert same.stderr is None and "do not differ" in same.note
    assert [p_value(same, 57, a) for a in ("less", "greater", "two-sided")] == [1.0, 1.0, 1.0]


def test_pseudo_values_are_what_the_jackknife_averages():
    sums = np.stack([np.ones(40), np.exp(noise(17, 40))], axis=1)

    def log_mean(s):
        return np.log(s[..., 1] / s[..., 0])

    value, variance = jackknife(sums, log_mean)
    pseudo = pseudo_values(sums, log_mean)
    assert pseudo.mean() == pytest.approx(value, abs=1e-12)
    bias = float(log_mean(sums.sum(axis=0))) - value  # jackknife() adds the second-order term
    assert pseudo.var(ddof=1) / 40 + 2 * bias**2 == pytest.approx(variance, abs=1e-12)
    np.testing.assert_allclose(pseudo_values(sums, lambda s: s[..., 1] / s[..., 0]), sums[:, 1])


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
    """How often a 5 % test of `shift` (0: no difference) rejects; noise shared by both with `sign`."""
    where = pairing(4, 25, over=over)
    df = compare.degrees(where)
    count = 0
    for seed in range(runs):
        shared, own = noise((seed, 1), 100), noise((seed, 2), 2, 100)
        between = np.repeat(noise((seed, 3), 4), 25) if over == LIKE else 0.0
        first, second = shared + own[0] / 3 + shift + between, sign * shared + own[1] / 3
        count += p_value(test(first, second, where), df) <= 0.05
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


def kl_pseudo_values(w, excess):
    """What each reference draw adds to KL(p‖π): jackknife pseudo-values of E_p[log P − log π] − log Z."""
    sums = np.stack([np.ones(w.size), w, w * excess], axis=1)
    return pseudo_values(sums, lambda s: s[..., 2] / s[..., 1] - np.log(s[..., 1] / s[..., 0]))


def test_the_difference_of_two_divergences_on_shared_draws_is_covered_and_narrow():
    """KL(p‖π₁) − KL(p‖π₂) of laws on 12 atoms, from 200 shared draws of the base: exact value by summation."""
    rng = np.random.default_rng(21)
    base, first, second = rng.dirichlet(np.full(12, 5.0), 3)
    tilt = np.exp(1.5 * rng.normal(size=12)) * (np.arange(12) > 2)
    p = base * tilt / (base @ tilt)
    exact = float(np.sum(p * np.log(second / first)))
    where, covered, width = pairing(1, 200), 0, []
    for seed in range(RUNS):
        x = np.random.default_rng((seed, 6)).choice(12, 200, p=base)
        w = tilt[x]
        excess = [np.where(w > 0, np.log(np.maximum(base * tilt, 1e-300) / pi)[x], 0.0) for pi in (first, second)]
        values = [kl_pseudo_values(w, e) for e in excess]
        told, apart = paired(*values, where), unpaired(*values, where)
        covered += told.ci_low <= exact <= told.ci_high
        width.append(told.stderr / apart.stderr)
    assert 0.925 < covered / RUNS < 0.975
    assert np.mean(width) < 0.8


def test_holm_keeps_the_family_wise_error():
    p = np.random.default_rng(20).uniform(size=(RUNS, 10))
    assert np.mean([holm(row).min() <= 0.05 for row in p]) <= most(0.05)
    assert np.mean(p.min(axis=1) <= 0.05) > 0.3
