"""Leaving out one at a time: by totals and by rows, the same numbers."""

import numpy as np
import pytest

from alignbench.stats.jackknife import jackknife, jackknife_path, leave_out, spread_of_sum, strata, tilts


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.8, 0.2)])  # where the form is flat, and where it is not
def test_by_rows_and_by_totals(shares):
    """A form with a maximum at ½: there its slope tells of no error, its curve does."""
    codes = np.repeat([0, 1], (np.array(shares) * 100).astype(int))
    columns = np.eye(2)[codes]
    totals = jackknife(columns, lambda s: s[..., 0] * s[..., 1] / s.sum(axis=-1) ** 2)
    rows = leave_out(lambda kept: np.array([np.prod(columns[kept].mean(axis=0))]), np.arange(100))
    assert (rows[0][0], rows[1][0]) == pytest.approx(totals, rel=1e-9)
    assert np.sqrt(totals[1]) > 0.003  # of a spread of 0.0035 by the curve alone


def test_what_no_unit_moves_has_no_bias_of_rounding():
    """Planted: (units − 1) times the rounding of a sum is 1e-13."""
    columns = np.full((400, 1), 0.1)
    by_rows = leave_out(lambda kept: np.array([columns[kept].mean() * 3]), np.arange(400))
    for value, variance in (jackknife(columns, lambda s: s[..., 0] / s[..., 0] * 0.3), (by_rows[0][0], by_rows[1][0])):
        assert abs(value - 0.3) < 1e-15 and variance == 0


def test_the_path_goes_where_the_slope_points_and_sees_a_turn():
    """x (1 − x), largest at ½: the path of shares from 0.4 goes over the top, its slope would go on beyond it."""
    columns = np.eye(2)[np.repeat([0, 1], [60, 40])]
    value, variance, low, high = jackknife_path(columns, lambda s: s[..., 0] * s[..., 1] / s.sum(axis=-1) ** 2)
    error = np.sqrt(variance)
    assert high == pytest.approx(0.25, abs=1e-3) and value + 1.96 * error > 0.255
    shares = (tilts(columns[:, 1]) @ columns)[:, 1] / 100
    assert (shares[0], shares[-1]) == pytest.approx((0.497, 0.307), abs=0.003)  # 1.96 errors of a share of 0.4
    assert low == pytest.approx(min(shares * (1 - shares)))
    assert np.isnan(jackknife_path(columns[:1], lambda s: s[..., 0])[2])


def test_units_are_draws_or_the_groups_of_a_prompt():
    prompt, group = np.array([5, 2, 5, 5, 2]), np.array([1, 1, 9, 1, 1])
    assert [(rows.tolist(), unit.tolist()) for rows, unit in strata(prompt)] == [
        ([1, 4], [0, 1]),
        ([0, 2, 3], [0, 1, 2]),
    ]
    of_groups = [(rows.tolist(), unit.tolist()) for rows, unit in strata(prompt, group)]
    assert of_groups == [([1, 4], [0, 0]), ([0, 2, 3], [0, 1, 0])]


def test_the_variance_of_a_sum_is_that_of_its_units_within_each_law():
    """n times the sample variance: of all, of the sums of groups, and of each of two laws apart."""
    values = np.array([1.0, 2.0, 4.0, 8.0, 16.0])
    each, pairs = np.arange(5), np.array([0, 0, 1, 1, 2])
    assert spread_of_sum(values, each) == pytest.approx(5 * values.var(ddof=1))
    assert spread_of_sum(values, pairs) == pytest.approx(3 * np.var([3.0, 12.0, 16.0], ddof=1))
    parts = 2 * values[:2].var(ddof=1) + 3 * values[2:].var(ddof=1)
    assert spread_of_sum(values, each, np.array([0, 0, 1, 1, 1])) == pytest.approx(parts)
    assert spread_of_sum(values, each, np.array([0, 1, 1, 1, 1])) == np.inf


def test_the_bias_of_a_squared_mean_is_taken_off_exactly():
    """E[mean²] = μ² + σ²/n: what is left out one at a time takes off s²/n, neither half of it nor twice."""
    x = np.random.default_rng(5).normal(1, 2, 9)
    sums = np.stack([np.ones(9), x], axis=1)
    expected = x.mean() ** 2 - x.var(ddof=1) / 9
    assert jackknife(sums, lambda s: (s[..., 1] / s[..., 0]) ** 2)[0] == pytest.approx(expected)
    assert leave_out(lambda rows: np.array([x[rows].mean() ** 2]), np.arange(9))[0] == pytest.approx(expected)
