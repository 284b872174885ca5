"""Resampling: its law by definition for n = 2 and 3, bounds that hold, and their limits."""

from itertools import product

import numpy as np
import pytest

from alignbench.stats import discrete
from alignbench.stats.resampled import bounds, law, of_weights

Q = np.array([0.4, 0.3, 0.15, 0.1, 0.05])
W = np.array([0.0, 0.5, 1.0, 4.0, 4.0])
P = Q * W / (Q @ W)


def by_definition(n):
    """Over all n-tuples of atoms: chance of the tuple × share of the weights; tuples without weight are left out."""
    found = np.zeros(Q.size)
    for tuple_ in product(range(Q.size), repeat=n):
        atoms = list(tuple_)
        if W[atoms].any():
            np.add.at(found, atoms, np.prod(Q[atoms]) * W[atoms] / W[atoms].sum())
    return found / found.sum()


def log_w(scale=1.0):
    with np.errstate(divide="ignore"):
        return np.log(W * scale)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_the_law_is_its_definition_and_the_bounds_hold(n):
    pi = law(Q, log_w(), n)
    assert pi == pytest.approx(by_definition(n))
    assert pi == pytest.approx(law(Q, log_w(1e200), n))
    kl, tv = of_weights(W, n, Q)
    assert discrete.kl(P, pi) <= kl + 1e-12 and discrete.tv(P, pi) <= tv + 1e-12
    assert discrete.js(P, pi) <= np.log(2) * tv + 1e-12
    assert law(Q, np.zeros(Q.size), n) == pytest.approx(Q)  # planted: no weights
    assert abs(Q - pi).max() > 0.05


def test_what_q_says_and_the_base_does_not_has_no_weight():
    """Atoms that are not listed count among the n: q's mass there is what is missing to 1."""
    whole = law(Q, log_w(), 3)
    assert law(Q[1:], log_w()[1:], 3) == pytest.approx(whole[1:])
    assert law(Q[1:] / Q[1:].sum(), log_w()[1:], 3) != pytest.approx(whole[1:])


def test_the_law_tends_to_p_and_gives_up_where_sums_are_many():
    assert discrete.kl(P, law(Q, log_w(), 40)) < 0.02 < discrete.kl(P, law(Q, log_w(), 3))
    r = np.random.default_rng(0).normal(size=300)
    assert law(np.full(300, 1 / 300), r, 2) is not None and law(np.full(300, 1 / 300), r, 16) is None


def drawn(seed, each=300):
    rng = np.random.default_rng(seed)
    return np.repeat([0, 1], each), log_w()[rng.choice(Q.size, 2 * each, p=Q)]


def test_limits_hold_and_are_near():
    kl, tv = of_weights(W, 4, Q)
    found = [bounds(*drawn(seed), 4) for seed in range(60)]
    assert all(f["kl_target"].value is None and "upper bound" in f["kl_target"].note for f in found)
    assert np.mean([f["kl_target"].ci_high >= kl for f in found]) > 0.9
    assert np.mean([f["tv"].ci_high >= tv for f in found]) > 0.9
    assert np.mean([f["kl_target"].ci_high for f in found]) < 1.2 * kl
    assert found[0]["js"].ci_high == pytest.approx(np.log(2) * found[0]["tv"].ci_high)


def test_few_draws_of_the_target_tell_nothing():
    r = np.where(np.arange(200) < 4, 0.0, -np.inf)
    found = bounds(np.zeros(200, int), r, 16)["kl_target"]
    assert found.ci_high is None and "are needed" in found.note
