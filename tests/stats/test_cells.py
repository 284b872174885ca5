"""Lower limits for black boxes: validity, the plug-in shown wrong, and the least divergence found."""

import numpy as np
import pytest
from scipy.optimize import minimize

from alignbench.errors import UsageError
from alignbench.stats import discrete
from alignbench.stats.cells import PARTS, _scaled_into, lower_limits, nearest_kl, nearest_tv, shares_box

P, G = np.array([[0.5, 0.3, 0.1, 0.1]]), np.array([[0.1, 0.2, 0.3, 0.4]])


def draw(law, each, rng):
    return np.repeat(np.arange(len(law)), each), np.concatenate([rng.choice(q.size, each, p=q) for q in law])


def truth(p, g):
    p, g = p.mean(axis=0), g.mean(axis=0)
    exact = {"kl_target": discrete.kl(p, g), "kl_reverse": discrete.kl(g, p), "tv": discrete.tv(p, g)}
    return {part: float(value) for part, value in exact.items()}


@pytest.mark.parametrize("same", [False, True])
def test_limits_hold_where_the_plug_in_does_not(same):
    rng, seeds = np.random.default_rng(0), 60
    g = P if same else 0.8 * P + 0.2 * G
    exact, held, plugged = truth(P, g), dict.fromkeys(PARTS, 0), 0
    for _ in range(seeds):
        own, wanted = draw(g, 60, rng), draw(P, 60, rng)
        found = lower_limits(own, wanted, 4)
        shares = [np.bincount(x[1], minlength=4) / 60 for x in (wanted, own)]
        plugged += float(discrete.tv(*shares)) <= exact["tv"]
        for part in PARTS:
            held[part] += found[part].ci_low <= exact[part] + 1e-12
            assert found[part].value is None
    assert min(held.values()) >= 0.95 * seeds
    assert plugged < 0.5 * seeds  # planted: the plug-in point as a bound


def test_limits_grow_towards_the_truth():
    rng, exact = np.random.default_rng(0), truth(P, G)
    few, many = (lower_limits(draw(G, n, rng), draw(P, n, rng), 4) for n in (250, 4000))
    for part in PARTS:
        assert 0 < few[part].ci_low < many[part].ci_low <= exact[part]
        assert many[part].ci_low > 0.7 * exact[part]


def test_several_prompts_give_the_divergence_of_the_averages():
    rng = np.random.default_rng(0)
    p, g = np.concatenate([P, G]), np.concatenate([G, P])  # far apart on each prompt, alike on average
    own, wanted = draw(g, 500, rng), draw(p, 500, rng)
    assert lower_limits(own, wanted, 4)["tv"].ci_low == 0.0
    lopsided = (wanted[0][:700], wanted[1][:700])  # 500 of the first prompt, 200 of the second: equal draws are used
    assert lower_limits(own, lopsided, 4)["tv"].ci_low == 0.0


def test_known_shares_need_no_draws_of_p():
    rng = np.random.default_rng(0)
    own = draw(G, 400, rng)
    known, drawn = lower_limits(own, P[0], 4), lower_limits(own, draw(P, 400, rng), 4)
    for part in PARTS:
        assert drawn[part].ci_low < known[part].ci_low <= truth(P, G)[part]


def test_the_level_is_shared_by_all_limits_of_all_laws():
    """Bonferroni: 5 % over two sides of three cells of one law, or of two."""
    rng = np.random.default_rng(3)
    p, g = np.array([[0.9, 0.05, 0.05]]), np.array([[0.4, 0.3, 0.3]])
    own, wanted = draw(g, 300, rng), draw(p, 300, rng)
    mine, theirs = (np.bincount(x[1], minlength=3) for x in (own, wanted))
    one, two = shares_box(mine, 0.05 / 6), [shares_box(counts, 0.05 / 12) for counts in (theirs, mine)]
    given = lower_limits(own, p[0], 3)
    assert given["kl_target"].ci_low == pytest.approx(nearest_kl((p[0], p[0]), one), abs=1e-12)
    assert given["kl_reverse"].ci_low == pytest.approx(nearest_kl(one, (p[0], p[0])), abs=1e-12)
    drawn = lower_limits(own, wanted, 3)
    assert drawn["kl_target"].ci_low == pytest.approx(nearest_kl(*two), abs=1e-12)
    assert drawn["kl_reverse"].ci_low == pytest.approx(nearest_kl(*two[::-1]), abs=1e-12)


@pytest.mark.parametrize("turned", [False, True])
def test_total_variation_takes_the_side_that_tells_more(turned):
    """One cell may fall far while three others rise a little: what falls for sure is 0.3, what rises 0.1."""
    p_box = np.array([0.6, 0.0, 0.1]), np.array([0.7, 0.2, 0.3])
    q_box = np.array([0.1, 0.3, 0.0]), np.array([0.3, 0.6, 0.6])
    boxes = (q_box, p_box) if turned else (p_box, q_box)
    assert nearest_tv(*boxes) == pytest.approx(0.3)


def test_the_least_divergence_is_the_least():
    p_box = np.array([0.5, 0.1, 0.05]), np.array([0.7, 0.4, 0.3])
    q_box = np.array([0.1, 0.2, 0.3]), np.array([0.3, 0.5, 0.7])
    rng, best, least_tv = np.random.default_rng(0), np.inf, np.inf
    grid = rng.dirichlet(np.ones(3), 40_000)
    inside = [grid[((box[0] <= grid) & (grid <= box[1])).all(axis=1)][:400] for box in (p_box, q_box)]
    best = min(float(discrete.kl(p, inside[1]).min()) for p in inside[0])
    least_tv = min(float(discrete.tv(p, inside[1]).min()) for p in inside[0])
    assert nearest_kl(p_box, q_box) == pytest.approx(0.0871767, abs=1e-6)  # by a grid of step 1/200
    assert nearest_kl(p_box, q_box) <= best <= nearest_kl(p_box, q_box) + 0.02
    assert nearest_tv(p_box, q_box) <= least_tv <= nearest_tv(p_box, q_box) + 0.02
    assert nearest_kl(p_box, p_box) == pytest.approx(0.0, abs=1e-9)


def test_boxes_are_exact():
    low, high = shares_box(np.array([0, 3, 7]), 0.025)
    assert low[0] == 0.0
    assert high[0] == pytest.approx(1 - 0.025 ** (1 / 10))
    # scipy.stats.binomtest(3, 10).proportion_ci(method="exact")
    assert (low[1], high[1]) == (pytest.approx(0.0667, abs=1e-4), pytest.approx(0.6525, abs=1e-4))


def test_wrong_words_are_refused():
    cells = (np.zeros(4, int), np.array([0, 1, 2, 3]))
    with pytest.raises(UsageError, match="2 to 10 cells"):
        lower_limits(cells, cells, 11)
    with pytest.raises(UsageError, match="cells must be"):
        lower_limits(cells, cells, 3)
    with pytest.raises(UsageError, match="sum to 1"):
        lower_limits(cells, np.ones(4), 4)
    assert "groups" in lower_limits(cells, cells, 4, np.zeros(4))["tv"].note


@pytest.mark.parametrize("seed", range(12))
def test_the_least_divergence_is_the_least_with_cells_that_nobody_saw(seed):
    """Counts with zeros: the boxes begin at 0 there. SLSQP from many places finds nothing below what is returned."""
    rng = np.random.default_rng(seed)
    laws = (0.05, 0.001, 0.15, 0.799), (0.1, 0.001, 0.02, 0.879)
    boxes = [shares_box(rng.multinomial(150, law), 0.05 / 16) for law in laws]
    least, best = nearest_kl(*boxes), np.inf
    low, high = (np.concatenate([box[k] for box in boxes]) for k in (0, 1))
    sums = [{"type": "eq", "fun": lambda x: x[:4].sum() - 1}, {"type": "eq", "fun": lambda x: x[4:].sum() - 1}]
    kl = lambda x: float(np.sum(x[:4] * (np.log(np.maximum(x[:4], 1e-12)) - np.log(np.maximum(x[4:], 1e-12)))))
    for _ in range(4):
        start = np.clip(rng.dirichlet(np.ones(4), 2).ravel(), low, high)
        found = minimize(kl, start, bounds=list(zip(low, high, strict=True)), constraints=sums, method="SLSQP")
        if abs(found.x[:4].sum() - 1) < 1e-6 and abs(found.x[4:].sum() - 1) < 1e-6:
            best = min(best, kl(found.x))
    assert least <= best + 1e-5


def test_a_law_is_scaled_to_sum_to_one_whatever_is_0_in_it():
    law = _scaled_into(np.array([0.0, 0.3, 0.4]), (np.zeros(3), np.array([0.9, 0.8, 0.9])))
    assert law.sum() == pytest.approx(1.0, abs=1e-9)
