"""Where a number is parted: between its values, or at quantiles of p."""

from __future__ import annotations

import numpy as np
import pytest

from alignbench.stats.bins import edges, p_shares


def test_few_values_are_parted_between_them():
    values = np.array([0.0, 1.0, 1.0, 3.0, 0.0])
    assert edges(values, np.ones(5), 10).tolist() == [0.5, 2.0]
    assert edges(values, np.array([1.0, 1, 1, 0, 1]), 10).tolist() == [0.5], "p has nothing at 3"


def test_many_values_are_parted_where_p_has_a_tenth_each():
    """Weights that grow with the value: the tenths of p are not those of the base, of which the first has 100 draws."""
    values = np.arange(1000.0)
    weight = np.exp(values / 200)
    found = edges(values, weight / weight.sum(), 10)
    share = np.bincount(np.searchsorted(found, values, side="right"), weight / weight.sum())
    assert share.size == 10 and share == pytest.approx(0.1, abs=2 * weight.max() / weight.sum())
    assert found[0] > 400 and all(edge % 1 == 0.5 for edge in found), "edges lie between values"


def test_every_prompt_has_an_equal_part_of_p():
    """Whatever its weights sum to; one without a draw of p has none."""
    prompt, r = np.repeat([0, 1, 2], 4), np.log([1, 1, 1, 1, 50, 50, 100, 200, 1e-300, 1e-300, 1e-300, 1e-300])
    r[8:] = -np.inf
    shares = p_shares(prompt, r)
    assert np.bincount(prompt, shares).tolist() == pytest.approx([1 / 3, 1 / 3, 0])
    assert shares[4:8] == pytest.approx(np.array([0.125, 0.125, 0.25, 0.5]) / 3)
