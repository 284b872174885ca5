"""What a proposal that does not reach all of p leaves of it: coins of p-mass c."""

import numpy as np
import pytest
from stats_worlds import World, close, covered

from alignbench.stats import discrete, unseen
from alignbench.stats.reach import FORMS, _of_counts, within_reach


def test_distances_of_p_from_p_within_reach():
    world = World(seed=3, tilt=2.0)
    reach = np.random.default_rng(0).random(world.a.shape) < 0.7
    inside = np.where(reach, world.p, 0.0)
    inside /= inside.sum(axis=1, keepdims=True)
    truth = {
        "kl_reverse": discrete.kl(inside, world.p).mean(), "tv": discrete.tv(world.p, inside).mean(),
        "js": discrete.js(world.p, inside).mean(),
    }  # fmt: skip
    held = dict.fromkeys(truth, 0)
    for seed in range(60):
        prompt, atom = world.atoms(world.a, 200, np.random.default_rng(seed))
        found = within_reach(prompt, world.r[prompt, atom], reach[prompt, atom], bound=np.full(prompt.size, 2.0))
        for part, exact in truth.items():
            assert close(found[part], exact, 5)
            held[part] += covered(found[part], exact)
    assert min(held.values()) >= 0.85 * 60
    planted = within_reach(prompt, np.zeros(prompt.size), reach[prompt, atom])  # a's share and not p's
    assert abs(planted["tv"].value - truth["tv"]) > 3 * planted["tv"].stderr


def test_a_class_never_drawn_may_be_all_that_is_within_reach():
    """q reaches 2 % of p as drawn; planted: what a class never drawn does to log Z."""
    r, reached = np.repeat([0.0, 0.5], [250, 250]), np.arange(500) % 50 == 0
    prompt = np.zeros(500, int)
    added = unseen.moves(prompt, r, None, unseen.of_log_z).none[1]
    moved = unseen.moves(prompt, r, None, _of_counts(FORMS["kl_reverse"], r, reached)).none
    share = 0.02
    assert moved[0] == pytest.approx(-np.log((share + np.expm1(added)) / share / np.exp(added)))
    assert -moved[0] > 10 * added
    assert within_reach(prompt, r, reached)["kl_reverse"].ci_low <= 3.9 + moved[0]


def test_few_draws_are_refused():
    r = np.where(np.arange(100) < 5, 0.0, -np.inf)
    found = within_reach(np.zeros(100, int), r, np.arange(100) > 2)
    assert all(e.value is None and "are needed" in e.note for e in found.values())
    assert found["tv"].n == pytest.approx(100)
