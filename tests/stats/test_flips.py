"""Sign flips: every flip by hand, uniform where nothing differs, and the wrong sides caught."""

from itertools import product

import numpy as np
import pytest

from alignbench.stats import flips
from alignbench.stats.flips import sign_flips


def rng(seed=0):
    return np.random.default_rng(seed)


def all_sums(units):
    return np.array([float(np.dot(signs, units)) for signs in product((1, -1), repeat=units.size)])


def test_few_units_are_flipped_in_all_ways():
    for seed in range(5):
        units = rng(seed).normal(0.3, 1, 9).round(1)  # ties among the sums
        expected = np.mean(np.abs(all_sums(units)) >= abs(units.sum()) - 1e-9)
        assert sign_flips(units, rng()) == pytest.approx(expected, abs=1e-12)


def test_many_units_are_flipped_at_random_and_agree_with_all_flips(monkeypatch):
    units = rng(1).normal(0.5, 1, 16)
    exact = sign_flips(units, rng())
    monkeypatch.setattr(flips, "MOST", 4)
    found = sign_flips(units, rng())
    assert found == pytest.approx(exact, abs=4 * (exact / 9999) ** 0.5)
    assert sign_flips(units, rng(7)) == sign_flips(units, rng(7))


def test_flips_drawn_at_random_have_both_signs(monkeypatch):
    """Planted: signs of 0 and 1, of which no sum is as far below 0 as the sample's is above."""
    units = rng(3).normal(0, 1, 12)
    exact = sign_flips(units, rng())
    assert 0.2 < exact < 0.9
    monkeypatch.setattr(flips, "MOST", 4)
    assert sign_flips(units, rng()) == pytest.approx(exact, abs=4 * (exact / 9999) ** 0.5)


def test_no_p_value_is_0_and_no_difference_has_p_1():
    assert sign_flips(np.ones(60), rng()) == 1 / 10_000
    assert sign_flips(np.ones(10), rng()) == 2 / 2**10
    assert sign_flips(np.zeros(10), rng()) == sign_flips(np.zeros(60), rng()) == 1.0


@pytest.mark.parametrize("law", ["normal", "standard_cauchy"])
def test_under_no_difference_p_values_are_uniform_whatever_the_shape(law):
    p = np.sort([sign_flips(getattr(rng(seed), law)(size=10), rng()) for seed in range(400)])
    assert np.abs(p - np.arange(1, 401) / 400).max() < 0.085  # Kolmogorov: 1 in 100 seeds' sets is farther


def test_a_one_sided_p_in_its_place_would_be_caught():
    """Planted bug: the side above alone has no power against a fall, and its p is not the same for a mirror image."""
    units = rng(2).normal(1, 1, 12)
    assert sign_flips(units, rng()) == sign_flips(-units, rng()) < 0.01
    assert np.mean(all_sums(units) >= -units.sum() - 1e-9) > 0.99
