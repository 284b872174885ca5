"""Win rates on laws whose probabilities are known, and the planted mistake of counting ties as wins."""

import numpy as np
import pytest
from stats_worlds import close, covered

from alignbench.stats.selection import selected
from alignbench.stats.wins import of_best, win_rate
from alignbench.types import Selection


@pytest.mark.parametrize("n", [2, 4])
def test_win_rate_counts_ties_half(n):
    rng, masses = np.random.default_rng(0), np.array([0.5, 0.3, 0.2])
    law = selected(masses, np.arange(3.0), Selection("best", n))
    exact = float(law @ (np.cumsum(masses) - masses / 2))
    estimate = of_best(np.zeros(4000, int), rng.choice(3, 4000, p=masses).astype(float), n)
    assert close(estimate, exact)
    assert exact < n / (n + 1)
    assert abs(float(law @ np.cumsum(masses)) - exact) > 4 * estimate.stderr  # planted: ties counted as wins
    untied = of_best(np.zeros(400, int), rng.normal(size=400), n)
    assert untied.value == n / (n + 1) and "upper bound" in untied.note
    pool = rng.normal(size=(20_000, n + 1))
    assert (pool[:, :n].max(axis=1) > pool[:, n]).mean() == pytest.approx(n / (n + 1), abs=0.015)


def scores(rng, laws, each):
    prompt = np.repeat(np.arange(len(laws)), each)
    return prompt, np.concatenate([rng.choice(3, each, p=law).astype(float) for law in laws])


def test_win_rate_of_two_laws_is_the_sum_over_their_atoms():
    own, ref = np.array([[0.2, 0.3, 0.5], [0.1, 0.1, 0.8]]), np.array([[0.5, 0.3, 0.2], [0.4, 0.4, 0.2]])
    beaten = np.cumsum(ref, axis=1) - ref / 2
    exact = float((own * beaten).sum(axis=1).mean())
    held = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        found = win_rate(scores(rng, own, 100), scores(rng, ref, 100))
        held += covered(found, exact)
    assert 0.92 * 300 <= held <= 0.98 * 300
    planted = float((own * np.cumsum(ref, axis=1)).sum(axis=1).mean())  # ties counted as wins
    assert close(found, exact) and not close(found, planted)


def test_a_law_against_itself_wins_half_and_always_winning_has_an_interval():
    rng = np.random.default_rng(0)
    law = np.array([[0.2, 0.3, 0.5]])
    assert covered(win_rate(scores(rng, law, 400), scores(rng, law, 400)), 0.5)
    sure = win_rate((np.zeros(50, int), np.ones(50)), (np.zeros(50, int), np.zeros(50)))
    assert sure.value == 1.0 and sure.ci_low < 0.95 and sure.ci_high == 1.0


def test_other_prompts_are_refused():
    rng = np.random.default_rng(0)
    law = np.full((2, 3), 1 / 3)
    assert "different prompts" in win_rate(scores(rng, law, 9), scores(rng, law[:1], 9)).note


def test_best_of_many_has_limits_below_its_bound():
    """n = 16 and hits in a tenth of the base: the win rate is near 16/17, where a delta interval goes beyond it."""
    truth = float(selected(np.array([0.9, 0.1]), np.arange(2.0), Selection("best", 16)) @ np.array([0.45, 0.95]))
    held = 0
    for seed in range(200):
        r = (np.random.default_rng(seed).random(64) < 0.1).astype(float)
        found = of_best(np.zeros(64, int), r, 16)
        assert found.ci_high is None or found.ci_high <= 16 / 17 + 1e-9
        held += found.ci_high is None or covered(found, truth)
    assert held >= 0.93 * 200
