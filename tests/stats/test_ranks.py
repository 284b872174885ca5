"""Ranks, ties, mean ranks and fronts: worked by hand first, then error rates by simulation with planted bugs."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtr

from alignbench.stats.ranks import (
    Numbers,
    ahead,
    competition_ranks,
    jackknife_error,
    pareto,
    ranks,
    tied,
)

INF, NAN = np.inf, np.nan


def noise(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def of_draws(draws, better="lower"):
    """Means of the rows of `draws` (m, G), and their delete-one replicates."""
    total, count = draws.sum(axis=1, keepdims=True), draws.shape[1]
    error = draws.std(axis=1, ddof=1) / np.sqrt(count)
    return Numbers(draws.mean(axis=1), (total - draws) / (count - 1), error, better)


def known(values, better="lower"):
    """Exact numbers: the replicates are all the number itself."""
    values = np.array(values, float)
    told = np.where(np.isfinite(values), values, NAN)
    return Numbers(values, np.repeat(told[:, None], 8, axis=1), np.zeros(values.size), better)


# --- exact ------------------------------------------------------------------------------------------------------------


def test_the_jackknifes_error_of_a_mean_is_the_usual_one():
    draws = noise(0, 12)
    left = (draws.sum() - draws) / 11
    assert jackknife_error(left) == pytest.approx(draws.std(ddof=1) / np.sqrt(12), abs=1e-12)


@pytest.mark.parametrize(
    ("better", "rank", "last"),
    [("lower", [1, 3, 1, 4, 5, 5], [2, 3, 2, 4, 6, 6]), ("higher", [5, 4, 5, 3, 1, 1], [6, 4, 6, 3, 2, 2])],
)
def test_exact_numbers_have_exact_ranks_and_equal_ones_share_the_best_of_theirs(better, rank, last):
    """Planted bug: mid-ranks, by which three rows that share the first place were 2."""
    got = ranks(known([0, 1, 0, 2, INF, INF], better))
    np.testing.assert_array_equal(got.rank, rank)
    np.testing.assert_array_equal(got.low, rank)
    np.testing.assert_array_equal(got.high, last)


def test_infinity_is_worse_than_any_number_and_tied_with_itself():
    numbers = Numbers(np.array([INF, 1.0, INF]), np.full((3, 0), NAN), np.array([NAN, NAN, NAN]))
    assert ranks(numbers).low.tolist() == [2, 1, 2] and ranks(numbers).high.tolist() == [3, 1, 3]
    assert tied(numbers).tolist() == [False, True, False]
    assert tied(known([INF, INF])).tolist() == [True, True]


def test_a_row_that_was_not_measured_is_not_ranked():
    got = ranks(known([3, NAN, 1]))
    np.testing.assert_array_equal(got.rank, [2, NAN, 1])
    np.testing.assert_array_equal(got.high, [2, NAN, 1])
    assert tied(known([3, NAN, 1])).tolist() == [False, False, True]
    assert np.isnan(ranks(known([NAN])).rank).all() and not tied(known([NAN])).any()


def test_rows_that_cannot_be_paired_are_told_apart_by_the_sum_of_their_errors():
    numbers = Numbers(np.array([0.0, 3.0, 10.0]), np.full((3, 0), NAN), np.array([1.0, 1.0, NAN]))
    p = ahead(numbers)
    assert p[0, 1] == pytest.approx(0.0668072, abs=1e-6)  # 3 / (1 + 1) = 1.5 standard errors; pairing would say 2.1
    assert p[0, 2] == p[1, 2] == 1.0  # an error that is not known tells nothing
    assert ranks(numbers).high.tolist() == [3, 3, 3]


def test_a_difference_that_no_block_moves_is_not_exact_unless_both_numbers_are():
    """Planted bug: 0 and 0.25 of five draws each, told apart without a doubt since all blocks agree."""
    values = np.array([0.0, 0.25])
    noisy = Numbers(values, np.repeat(values[:, None], 8, axis=1), np.array([0.4, 0.2]))
    assert ahead(noisy)[0, 1] == pytest.approx(ndtr(-0.25 / 0.6)) and tied(noisy).all()
    assert ranks(noisy).high.tolist() == [2, 2]
    assert ahead(known(values))[0, 1] == 0 and ranks(known(values)).high.tolist() == [1, 2]


def test_rounding_is_a_tie():
    numbers = Numbers(np.array([0.3, 0.1 + 0.2]), np.array([[0.3] * 8, [0.1 + 0.2] * 8]), np.zeros(2))
    assert (ahead(numbers) == 1).all() and tied(numbers).all()


def test_what_rows_share_cancels():
    shared = 100 * noise(1, 20)
    rows = of_draws(np.stack([shared, shared + 1 + noise(2, 20) / 100]))
    assert tied(rows).tolist() == [True, False]
    apart = Numbers(rows.values, np.full((2, 0), NAN), rows.error)  # planted: unpaired
    assert tied(apart).tolist() == [True, True]


def test_competition_ranks():
    np.testing.assert_array_equal(competition_ranks([5, 1, 5, 0]), [3, 2, 3, 1])
    np.testing.assert_array_equal(competition_ranks([5, 1, 5, 0], "higher"), [1, 3, 1, 4])


def test_the_front_is_what_nothing_dominates():
    values = np.array([[0, 5], [1, 4], [1, 5], [2, 4], [0, NAN], [0, 5]])
    assert pareto(values, ("lower", "lower")).tolist() == [True, True, False, False, False, True]
    assert pareto(values, ("lower", "higher")).tolist() == [True, False, False, False, False, True]
    assert pareto(values[:, :1], ("higher",)).tolist() == [False, False, False, True, False, False]


# --- error rates ------------------------------------------------------------------------------------------------------

RUNS = 200


def most(rate, runs=RUNS):
    """Four Monte Carlo standard errors above a rate."""
    return rate + 4 * np.sqrt(rate * (1 - rate) / runs)


def lost(means, said, seeds=RUNS):
    """How often `said` (numbers) does not hold of rows with these means, whose noise is shared."""
    rows = (noise((seed, 1), 20) + noise((seed, 2), len(means), 20) + np.array(means)[:, None] for seed in range(seeds))
    return np.mean([not said(of_draws(draws)) for draws in rows])


@pytest.mark.parametrize("means", [np.zeros(8), np.array([0.0, 0, 1, 1, 1, 1, 1, 1]), np.arange(8) / 8])
def test_the_truly_best_row_is_among_the_tied_and_every_rank_is_covered(means):
    order = np.array([(means < x).sum() + 1 for x in means]), np.array([(means <= x).sum() for x in means])

    def covered(numbers):
        got = ranks(numbers)
        return bool(((got.low <= order[0]) & (got.high >= order[1])).all())

    assert lost(means, lambda numbers: tied(numbers)[0]) <= most(0.05)
    assert lost(means, covered) <= most(0.05)


def test_without_an_adjustment_the_best_row_and_the_ranks_would_be_lost():
    """Planted: each pair at 5 %."""
    assert lost(np.zeros(8), lambda n: not (ahead(n) <= 0.05).any(axis=0)[0]) > most(0.05)
    assert lost(np.zeros(8), lambda n: not (ahead(n) <= 0.05).any()) > 0.4


def test_clearly_worse_rows_are_ranked_apart():
    means = np.array([0.0, 0.0, 4.0, 4.0, 8.0])
    assert lost(means, lambda n: tied(n).tolist() == [True, True, False, False, False], 50) <= 0.3
    assert lost(means, lambda n: ranks(n).low[4] == 5 and ranks(n).high[0] == 2, 50) <= 0.05
