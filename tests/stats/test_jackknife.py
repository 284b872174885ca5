"""Leaving out one at a time: by totals and by rows, the same numbers."""

import numpy as np
import pytest

from alignbench.stats.jackknife import jackknife, leave_out, spread_of_sum, strata


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.8, 0.2)])  # where the form is flat, and where it is not
def test_by_rows_and_by_totals(shares):
    """A form with a maximum at ½: there its slope tells of no error, its curve does."""
    codes = np.repeat([0, 1], (np.array(shares) * 100).astype(int))
    columns = np.eye(2)[codes]
    totals = jackknife(columns, lambda s: s[..., 0] * s[..., 1] / s.sum(axis=-1) ** 2)
    rows = leave_out(lambda kept: np.array([np.prod(columns[kept].mean(axis=0))]), np.arange(100))
    assert (rows[0][0], rows[1][0]) == pytest.approx(totals, rel=1e-9)
    assert np.sqrt(totals[1]) > 0.003  # of a spread of 0.0035 by the curve alone


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
