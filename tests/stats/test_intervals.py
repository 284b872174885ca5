"""Means over prompts and their intervals: coverage, clusters, edges."""

import math

import numpy as np
import pytest
from scipy.stats import binomtest, nbinom, ttest_1samp

from alignbench.stats.intervals import (
    FLAT,
    Z95,
    folded,
    hull,
    inside,
    mean_over_prompts,
    monotone,
    mover,
    normal,
    of_totals,
    on_angle_scale,
    on_root_scale,
    ratio_over_prompts,
    scaled,
    share,
    spread_or_none,
    total,
    until,
    wilson,
    without_rounding,
)
from alignbench.types import Estimate


@pytest.mark.parametrize(("hits", "n"), [(0, 20), (1, 20), (7, 40), (20, 20)])
def test_wilson_is_scipys(hits, n):
    golden = binomtest(hits, n).proportion_ci(method="wilson")  # an independent implementation
    assert wilson(hits, n) == pytest.approx((golden.low, golden.high), abs=1e-12)


def test_prompts_weigh_equally_and_variances_add_within_them():
    prompt, values = np.array([0, 0, 1, 1, 1, 1]), np.array([0.0, 2.0, 10.0, 10.0, 12.0, 12.0])
    estimate = mean_over_prompts(prompt, values)
    assert estimate.value == 6.0
    assert estimate.stderr == pytest.approx(math.sqrt((2 / 2 + (4 / 3) / 4) / 4))


def test_order_of_draws_does_not_matter():
    rng = np.random.default_rng(0)
    prompt, values, group = rng.integers(0, 3, 60), rng.normal(size=60), rng.integers(0, 5, 60)
    order = rng.permutation(60)
    one, two = (mean_over_prompts(prompt[i], values[i], group[i]) for i in (np.arange(60), order))
    assert (one.value, one.stderr) == pytest.approx((two.value, two.stderr))


def test_copies_of_a_draw_in_one_group_are_worth_one_draw():
    rng = np.random.default_rng(1)
    prompt, values = np.repeat([0, 1], 40), rng.normal(size=80)
    hit, four = values > 0.5, np.repeat(np.arange(80), 4)
    single, copied = mean_over_prompts(prompt, values), mean_over_prompts(prompt[four], values[four], four)
    assert copied.stderr == pytest.approx(single.stderr)
    assert mean_over_prompts(prompt[four], values[four]).stderr < 0.6 * single.stderr  # planted: groups forgotten
    one, many = share(prompt, hit), share(prompt[four], hit[four], four)
    assert (many.ci_low, many.ci_high) == pytest.approx((one.ci_low, one.ci_high), abs=0.01)


def test_one_draw_a_prompt_is_conservative_and_says_so():
    rng = np.random.default_rng(2)
    estimate = mean_over_prompts(np.arange(30), np.arange(30) + rng.normal(size=30))
    assert estimate.stderr > 1.0
    assert "between prompts" in estimate.note
    assert mean_over_prompts(np.zeros(1, int), np.ones(1)).stderr is None
    assert mean_over_prompts(np.zeros(0, int), np.zeros(0)).value is None


def test_a_share_of_nothing_and_of_all_has_an_interval():
    none, everything = share(np.zeros(50, int), np.zeros(50)), share(np.zeros(50, int), np.ones(50))
    assert (none.value, none.ci_low) == (0.0, 0.0)
    assert 0.05 < none.ci_high < 0.08
    assert (everything.value, everything.ci_high) == (1.0, 1.0)
    for estimate in (none, everything):  # planted: the jackknife's 0
        assert estimate.stderr == pytest.approx((estimate.ci_high - estimate.ci_low) / 2 / Z95)
    one = share(np.zeros(1, int), np.ones(1))
    assert (one.value, one.ci_low) == pytest.approx((1.0, 1 / (1 + Z95**2)))


def test_shares_over_prompts_are_covered():
    z, each, held = np.array([0.02, 0.2, 0.6, 0.95]), 64, 0
    prompt = np.repeat(np.arange(4), each)
    for seed in range(300):
        hit = np.random.default_rng(seed).random(4 * each) < z[prompt]
        estimate = share(prompt, hit)
        held += estimate.ci_low <= z.mean() <= estimate.ci_high
    assert held >= 0.92 * 300


def test_rare_shares_over_prompts_are_covered():
    prompt, held, planted = np.repeat(np.arange(8), 32), 0, 0
    for seed in range(300):
        hit = np.random.default_rng(seed).random(256) < 0.02
        estimate, by_mover = share(prompt, hit), monotone(prompt, hit, lambda z: z)
        held += estimate.ci_low <= 0.02 <= estimate.ci_high
        planted += by_mover.ci_low <= 0.02 <= by_mover.ci_high
    assert held >= 0.92 * 300 > planted


def test_no_hits_leave_a_one_sided_bound_of_the_log():
    prompt, hit = np.repeat([0, 1], 64), np.arange(128) < 30
    with np.errstate(divide="ignore"):
        estimate = monotone(prompt, hit, np.log)
    assert estimate.value is None
    assert estimate.ci_low is None
    assert estimate.ci_high < math.log(0.6) / 2
    assert "0 of 64 base draws" in estimate.note
    assert "1 of 2 prompts" in estimate.note


def test_mover_of_symmetric_intervals_is_the_delta_interval():
    values, half = np.array([1.0, 2.0, 6.0]), np.array([0.3, 0.4, 1.2])
    assert mover(values, values - half, values + half) == pytest.approx((3 - 1.3 / 3, 3 + 1.3 / 3))


def test_sums_of_independent_estimates():
    one, two = Estimate(1.0, 0.3, 0.4, 1.6, n=10), Estimate(-2.0, 0.4, -2.8, -1.2, n=20)
    both = total([one, two])
    assert (both.value, both.stderr, both.ci_low, both.ci_high) == pytest.approx((-1.0, 0.5, -2.0, 0.0))
    assert total([one, Estimate.missing("why")]).note == "why"
    assert total([Estimate(math.inf), one]).value == math.inf
    assert total([one, Estimate(1.0, n=5, note="why")]) == Estimate(2.0, n=10, note="why")


def test_a_ratio_is_that_of_the_means_over_prompts():
    prompt = np.array([0, 0, 1, 1])
    estimate = ratio_over_prompts(prompt, np.array([1, 3, 0, 4.0]), np.array([1, 1, 3, 3.0]))
    assert estimate.value == 1.0
    assert ratio_over_prompts(prompt, np.ones(4), np.zeros(4)).value is None
    level = ratio_over_prompts(prompt, np.full(4, 3.0), np.full(4, 2.0), note="judge: a")
    assert level == Estimate(1.5, n=4, note=f"{FLAT}; judge: a")


def test_the_error_of_a_ratio_is_that_of_both_its_parts():
    """By the delta method over one prompt: the standard deviation of (x − r·y)/ȳ over √n; planted: y without error."""
    rng = np.random.default_rng(0)
    y = rng.uniform(1, 9, 40)
    x = 3 * y + rng.normal(size=40)
    ratio, prompt = x.mean() / y.mean(), np.zeros(40, int)
    found = ratio_over_prompts(prompt, x, y)
    assert found.stderr == pytest.approx(np.std(x - ratio * y, ddof=1) / y.mean() / 40**0.5)
    assert found.stderr < 0.3 * np.std(x, ddof=1) / y.mean() / 40**0.5


def test_no_spread_is_no_interval_unless_infinite_or_missing():
    rounding = np.full(30, 0.1) + 1e-16 * np.arange(30)
    flat = spread_or_none(mean_over_prompts(np.zeros(30, int), rounding))
    assert (flat.value, flat.stderr, flat.ci_low, flat.note) == (pytest.approx(0.1), None, None, FLAT)
    for kept in (Estimate.missing("why"), Estimate(math.inf, 0.0), Estimate(1.0, 0.1, 0.8, 1.2)):
        assert spread_or_none(kept) == kept


@pytest.mark.parametrize(("hits", "n"), [(0, 20), (7, 40), (20, 20)])
def test_other_levels(hits, n):
    golden = binomtest(hits, n).proportion_ci(0.99, method="wilson")
    assert wilson(hits, n, 0.99) == pytest.approx((golden.low, golden.high), abs=1e-12)
    values = np.random.default_rng(0).normal(size=30)
    golden = ttest_1samp(values, 0.0).confidence_interval(0.99)
    estimate = mean_over_prompts(np.zeros(30, int), values, level=0.99)
    assert (estimate.ci_low, estimate.ci_high) == pytest.approx((golden.low, golden.high))


def test_trials_until_hits_have_exact_limits():
    """By scipy's negative binomial: so many trials, or more (fewer), have probability 0.025 at the limits."""
    value, low, high = until(8, 30)
    assert nbinom.cdf(30 - 8, 8, low) == pytest.approx(0.025)
    assert nbinom.sf(30 - 8 - 1, 8, high) == pytest.approx(0.025)
    assert value == pytest.approx(7 / 29)
    golden = binomtest(8, 30).proportion_ci(method="exact")
    assert until(8, 30, all_hit=False) == pytest.approx((8 / 30, golden.low, golden.high))
    assert until(24, 24) == (1.0, pytest.approx(0.025 ** (1 / 24)), 1.0)
    assert until(0, 24, all_hit=False) == (0.0, 0.0, pytest.approx(1 - 0.025 ** (1 / 24)))


def test_a_chance_from_trials_until_hits_is_unbiased_and_covered():
    rng = np.random.default_rng(0)
    trials = rng.geometric(0.6, (2000, 5)).sum(axis=1)
    values, lows, highs = np.array([until(5, n) for n in trials]).T
    assert values.mean() == pytest.approx(0.6, abs=4 * values.std() / math.sqrt(2000))
    assert (5 / trials).mean() > 0.63  # planted: the plug-in
    assert ((lows <= 0.6) & (highs >= 0.6)).mean() >= 0.945


def mean_of(totals):
    return totals[:, 1] / totals[:, 0]


def test_totals_of_a_mean_are_the_stratified_mean():
    rng = np.random.default_rng(0)
    prompt, group = np.repeat([0, 1, 2], 20), np.repeat(np.arange(30), 2)
    values = rng.normal(size=60) + 5 * prompt
    columns = np.stack([np.ones(60), values], axis=1)
    for clusters in (None, group):
        found, exact = of_totals(prompt, columns, mean_of, clusters), mean_over_prompts(prompt, values, clusters)
        assert (found.value, found.stderr) == pytest.approx((exact.value, exact.stderr))
        assert (found.ci_low, found.ci_high) == pytest.approx((exact.ci_low, exact.ci_high))
    unstratified = of_totals(np.zeros(60, int), columns, mean_of)
    assert unstratified.stderr > 3 * found.stderr  # planted: prompts not kept apart


def test_totals_without_spread_or_with_too_few_draws():
    columns = np.ones((8, 2))
    assert of_totals(np.arange(8) // 4, columns, mean_of).note == FLAT
    alone = of_totals(np.zeros(1, int), columns[:1], mean_of)
    assert alone.value == 1 and alone.note == "one independent draw: no interval"
    between = of_totals(np.arange(8), np.stack([np.ones(8), np.arange(8.0)], axis=1), mean_of)
    assert (
        between.stderr == pytest.approx(np.arange(8).std(ddof=1) / math.sqrt(8)) and "between prompts" in between.note
    )
    rare = of_totals(np.arange(3), np.array([[1.0, 1], [0, 0], [0, 0]]), mean_of)
    assert rare.value == 1 and rare.ci_low is None and "without some draw" in rare.note


def test_a_larger_estimate():
    half = Estimate(1.0, 0.1, 0.8, 1.2, n=3, note="x")
    assert scaled(half, 3.0) == Estimate(3.0, 0.1 * 3, 0.8 * 3, 1.2 * 3, n=3, note="x")
    assert scaled(Estimate.missing("x"), 2.0) == Estimate.missing("x")


@pytest.mark.parametrize(
    ("value", "half", "limits"),
    [
        (0.3, 0.1, (0.3, 0.2, 0.4)),
        (0.05, 0.1, (0.05, 0.0, 0.15)),
        (-0.05, 0.1, (0.05, 0.0, 0.15)),
        (0.95, 0.1, (0.95, 0.85, 1.0)),
        (1.05, 0.1, (0.95, 0.85, 1.0)),
        (-0.3, 0.1, (0.3, 0.0, 0.4)),
    ],
)
def test_a_size_is_reflected_and_its_limits_stop_at_the_ends(value, half, limits):
    found = folded(normal(value, (half / Z95) ** 2, n=1), 1.0)
    assert (found.value, found.ci_low, found.ci_high) == pytest.approx(limits)


def test_folding_covers_what_the_plain_limits_cover():
    rng = np.random.default_rng(0)
    for _ in range(300):
        plain, truth = normal(rng.normal(0.5, 0.6), rng.exponential(0.1), n=1), rng.random()
        found = folded(plain, 1.0)
        assert 0 <= found.ci_low <= found.value <= found.ci_high <= 1
        assert found.ci_low <= truth <= found.ci_high or not plain.ci_low <= truth <= plain.ci_high


@pytest.mark.parametrize("scale", [on_root_scale, on_angle_scale])
@pytest.mark.parametrize("value", [1e-300, 1e-9, 1e-4])
def test_a_value_that_happens_to_be_almost_0_has_no_endless_limits(scale, value):
    """Planted on the old root scale: the upper limit was half²/(4·value)."""
    found = scale(normal(value, 0.01**2, n=1))
    assert found.ci_low == 0 and 2 * 0.01 < found.ci_high < 4 * 0.01


def test_scales_agree_with_the_plain_limits_where_these_are_narrow():
    plain = normal(0.4, 1e-6, n=1)
    for scale in (on_root_scale, on_angle_scale):
        found = scale(plain)
        assert (found.ci_low, found.ci_high) == pytest.approx((plain.ci_low, plain.ci_high), abs=1e-5)
    assert on_angle_scale(normal(1.1, 0.04, n=1)).ci_high == 1  # above the top: folded


def test_limits_that_lie_inside_stay_and_others_come_inside():
    narrow, wide = normal(0.3, 1e-4, n=1), normal(0.3, 1.0, n=1)
    assert inside(narrow, (0, 1)) == narrow and inside(wide, (-math.inf, 1)) == wide
    for top in (1.0, 0.4, math.inf):
        found = inside(wide, (0, top))
        assert 0 <= found.ci_low < found.value == 0.3 < found.ci_high <= top
    assert inside(normal(1.7, 1.0, n=1), (0, 1)).ci_low < 0  # a value outside is the metric's own mistake: it is seen


def test_a_hull_holds_both_and_needs_all_limits():
    plain = normal(0.5, 0.01, n=1)
    found = hull(plain, np.array([0.4, 0.6]), np.array([0.0, 0.1]), np.array([0.41, 0.61]))
    assert found.ci_low == pytest.approx(0.5 - np.hypot(0.4, 0.5) / 2) and found.ci_high == plain.ci_high
    assert hull(plain, np.array([0.5]), np.array([np.nan]), np.array([0.9])) == plain


def test_nats_that_are_rounding_are_0():
    found = without_rounding(Estimate(-1.6e-14, 0.01, -1e-13, 0.02))
    assert (found.value, found.ci_low, found.ci_high) == (0, 0, 0.02)
    assert without_rounding(Estimate(1e-9, ci_low=None)).value == 1e-9
