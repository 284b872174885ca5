"""Quasi-rejection: a table of Poisson laws to four digits, units of β, the bound, refusals."""

import numpy as np
import pytest
from scipy.stats import poisson
from stats_worlds import close

from alignbench.errors import UsageError
from alignbench.stats import discrete
from alignbench.stats.quasi import PARTS, exact, log_beta_for_acceptance, log_beta_for_tv, quasi_rejection

X = np.arange(200)
Q, P = poisson.pmf(X, 10), poisson.pmf(X, 11)
W = np.exp(poisson.logpmf(X, 11) - poisson.logpmf(X, 10))


@pytest.mark.parametrize(
    ("beta", "acceptance", "tv"), [(0.5, 0.9995, 0.1229), (1, 0.8768, 0.0749), (2, 0.4982, 0.0035)]
)
def test_poisson_table(beta, acceptance, tv):
    found = dict(zip(PARTS, exact(W, beta, Q), strict=True))
    law = np.minimum(P, beta * Q)
    law /= law.sum()
    assert found["acceptance"] == pytest.approx(acceptance, abs=5e-5)
    assert found["tv"] == pytest.approx(tv, abs=5e-5)
    assert found["tv"] == pytest.approx(float(discrete.tv(P, law)), abs=1e-9)
    assert found["tv"] <= found["tv_bound"]
    planted = {"tv": np.abs(P - np.minimum(P, beta * Q)).sum() / 2, "tv_bound": found["tv_bound"]}  # not normalised
    assert min(abs(wrong - tv) for wrong in planted.values()) > 5e-5
    assert abs(found["acceptance"] * beta - acceptance) > 5e-5 or beta == 1  # planted: Z_β for Z_β/β
    assert found["kl_target"] == pytest.approx(float(discrete.kl(P, law)), abs=1e-9)
    assert found["kl_reverse"] == pytest.approx(float(discrete.kl(law, P)), abs=1e-9)
    assert found["js"] == pytest.approx(float(discrete.js(law, P)), abs=1e-9)
    assert found["kl_base"] == pytest.approx(float(discrete.kl(law, Q)), abs=1e-9)
    a = poisson.pmf(X, 9)
    other = exact(W, beta, Q, poisson.logpmf(X, 9) - poisson.logpmf(X, 10))
    assert other[PARTS.index("kl_base")] == pytest.approx(float(discrete.kl(law, a)), abs=1e-9)
    nearer = float(discrete.kl(P, law) - discrete.kl(P, a))
    assert other[PARTS.index("kl_target_vs_base")] == pytest.approx(nearer, abs=1e-9)
    assert other[:-2] == pytest.approx(exact(W, beta, Q)[:-2])


def sample(n=2000, seed=0, scale=3.0):
    x = np.random.default_rng(seed).choice(200, n, p=Q / Q.sum())
    return np.zeros(n, int), np.log(scale * W[x])


def test_estimates_find_the_table_and_beta_has_units():
    truth = dict(zip(PARTS, exact(W, 1.0, Q), strict=True))
    prompt, r = sample()
    found = quasi_rejection(prompt, r, 3.0)  # P is 3 p here
    for part in PARTS:
        assert close(found[part], truth[part]), part
    same = quasi_rejection(prompt, r - np.log(3.0), 1.0)
    assert same["tv"].value == pytest.approx(found["tv"].value, abs=1e-12)
    planted = quasi_rejection(prompt, r, 1.0)  # planted: β = 1 in units of P/q
    assert abs(planted["acceptance"].value - truth["acceptance"]) > 0.1


def test_few_values_drawn_often_need_fewer_draws():
    r = np.repeat([0.0, 2.0, 2.2], [300, 80, 6])
    assert quasi_rejection(np.zeros(386, int), r, 1.0)["tv"].stderr > 0
    r[-2:] = 0.0  # the largest weight four times: a larger one may be unseen
    assert "draws of q above β carry the distance, 150" in quasi_rejection(np.zeros(386, int), r, 1.0)["tv"].note


def test_a_hard_target_and_refusals():
    r = np.where(np.arange(400) < 100, 0.0, -np.inf)
    found = quasi_rejection(np.zeros(400, int), r, 1.0)
    assert found["acceptance"].value == pytest.approx(0.25)
    assert found["tv"].value is None and "0 draws of q above β" in found["tv"].note  # more may be above, unseen
    near = quasi_rejection(*sample(250), 3.0)
    assert near["kl_target"].value is near["tv"].value is None and "above β carry" in near["tv"].note
    assert near["acceptance"].value is not None
    few = quasi_rejection(np.zeros(400, int), np.where(np.arange(400) < 20, 0.0, -np.inf), 1.0)
    assert few["tv"].value is None and "are needed" in few["tv"].note
    with pytest.raises(UsageError, match="beta"):
        quasi_rejection(np.zeros(2, int), np.zeros(2), 0.0)


def test_a_beta_for_each_prompt_is_a_shift_of_r():
    (_, one), (_, two) = sample(1500, 1), sample(1500, 2)
    prompt, r = np.repeat([0, 1], 1500), np.append(one, two)
    log_beta = np.log([3.0, 6.0])
    found = quasi_rejection(prompt, r - log_beta[prompt], 1.0)
    truth = np.mean([exact(W, beta, Q) for beta in (1.0, 2.0)], axis=0)
    for part, value in zip(PARTS, truth, strict=True):
        assert found[part].value is None or close(found[part], value), part
    assert found["kl_base"].value is not None and found["kl_target"].value is not None


@pytest.mark.parametrize("shift", [0.0, 800.0, -800.0])
def test_beta_from_a_wish(shift):
    r = sample(500, scale=1.0)[1]
    r[:100] = -np.inf
    w = np.exp(r)
    for wanted in (0.05, 0.3, 0.7, 0.8):
        beta = np.exp(log_beta_for_acceptance(r + shift, wanted) - shift)
        assert np.minimum(w / beta, 1).mean() == pytest.approx(wanted)
    for wanted in (0.0, 0.01, 0.3, 0.9):
        beta = np.exp(log_beta_for_tv(r + shift, wanted) - shift)
        assert 1 - np.minimum(w, beta).mean() / w.mean() == pytest.approx(wanted, abs=1e-9)
    assert log_beta_for_tv(r, 0.0) == pytest.approx(r.max())


def test_equal_weights_are_exactly_0_apart():
    """Planted: leaving out one of 128 multiplied the rounding of a sum to 1e-14."""
    for seed in range(20):
        level = np.random.default_rng(seed).normal()
        found = quasi_rejection(np.repeat([0, 1], 64), np.full(128, level), np.exp(level - 0.5))
        assert all(abs(found[part].value or 0.0) < 2e-15 for part in PARTS if part not in ("acceptance", "tv_bound"))


@pytest.mark.slow
def test_three_weights_are_covered_where_a_divergence_is_largest():
    """KL(π‖p) turns in the share of the largest weight: intervals by its slope alone hold it in 133 of these 150."""
    w, q, beta = np.array([1.0, 1.19, 3.34]), np.array([0.108, 0.415, 0.477]), 1.28
    truth, held = dict(zip(PARTS, exact(w, beta, q), strict=True)), dict.fromkeys(("tv", "kl_target", "kl_reverse"), 0)
    for seed in range(150):
        r = np.log(w[np.random.default_rng(seed).choice(3, 300, p=q)])
        found = quasi_rejection(np.zeros(300, int), r, beta)
        for part in held:
            held[part] += found[part].ci_low <= truth[part] <= found[part].ci_high
    assert all(count >= 0.92 * 150 for count in held.values()), held
