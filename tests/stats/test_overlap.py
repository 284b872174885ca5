"""TV and JS where plain limits fail: at π = p, with proposals, and where hardly an own draw keeps a constraint."""

import numpy as np
import pytest
from stats_worlds import World, covered, mixed

from alignbench.stats import discrete
from alignbench.stats import divergences as d
from alignbench.stats import overlap as o
from alignbench.stats.intervals import mean_over_prompts

SEEDS = 200


def held(world, estimate, truth, each=128):
    """The share of SEEDS intervals that hold the truth, among those given."""
    told = []
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        own, ref = world.draw(world.g, each, rng), world.draw(world.a, each, rng)
        found = estimate(own, ref)
        if found.ci_low is not None:
            told.append(covered(found, truth))
    assert len(told) > SEEDS / 2
    return np.mean(told)


@pytest.mark.parametrize("estimate", [o.js, o.tv])
def test_at_p_zero_is_covered(estimate):
    world = World(seed=2, shares=(0.5,), prompts=1)
    world.g = world.p
    assert held(world, estimate, 0.0) >= 0.93


def test_planted_js_without_its_second_order_is_wrong_at_p(monkeypatch):
    world = World(seed=2, shares=(0.5,), prompts=1)
    world.g = world.p
    monkeypatch.setattr(o, "_at_least", lambda estimate, variance: estimate)
    assert held(world, o.js, 0.0) < 0.93


def above_the_truth(off, each=64, seeds=40):
    """How many of `seeds` lower limits of TV lie above the truth, where π is p but for `off` of the base, 8 prompts."""
    world = World(seed=2, shares=(0.3,), prompts=8)
    world.g = (1 - off) * world.p + off * world.a
    truth, count = world.truth()["tv"], 0
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        low = o.tv(world.draw(world.g, each, rng), world.draw(world.a, each, rng)).ci_low
        count += low is not None and low > truth + 1e-9
    return count


@pytest.mark.parametrize("off", [0.0, 0.02])
def test_the_error_of_log_z_is_no_distance_in_tv(off):
    """Eight prompts that each feign some: their sum is well above 0, and the lower limit makes up for it."""
    assert above_the_truth(off) <= 3


def test_planted_a_lower_limit_of_tv_that_takes_the_error_of_log_z_for_distance(monkeypatch):
    monkeypatch.setattr(o, "_feigned", lambda prompt: 0.0)
    assert above_the_truth(0.0) > 30 and above_the_truth(0.02) > 20


@pytest.mark.parametrize("estimate", [o.js, o.tv])
@pytest.mark.parametrize("rate", [0.01, 0.03, 0.15])
def test_few_own_draws_on_the_support_are_covered(estimate, rate):
    world = World(seed=4, shares=(0.5,), prompts=1)
    off = np.where(world.p > 0, 0.0, world.a)
    world.g = rate * world.p + (1 - rate) * off / off.sum()
    truth = world.truth()["js" if estimate is o.js else "tv"]
    assert held(world, estimate, truth) >= 0.92


def test_planted_a_plain_mean_of_few_own_hits_is_not(monkeypatch):
    world = World(seed=4, shares=(0.5,), prompts=1)
    off = np.where(world.p > 0, 0.0, world.a)
    world.g = 0.01 * world.p + 0.99 * off / off.sum()
    monkeypatch.setattr(o, "_of_own", lambda own, values: mean_over_prompts(own.prompt, values, own.group))
    monkeypatch.setattr(o, "_with_few_hits", lambda answer, own, of_share: answer)
    assert held(world, o.js, world.truth()["js"]) < 0.85


@pytest.mark.parametrize("estimate", [o.js, o.tv])
def test_the_error_of_a_mixture_is_the_mixtures(estimate):
    """Half the reference draws are draws of p itself: log Z is known to 1 %, which plain draws would call 6 %."""
    world = World(seed=5, shares=(0.1,), prompts=1)
    world.g, told = world.p, []
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        places = [world.atoms(law, 128, rng) for law in (world.a, world.p)]
        with np.errstate(divide="ignore"):
            logs = [np.log(np.stack([world.a[at], world.p[at]], axis=1)) for at in places]
        ref = mixed([world.sample(*at) for at in places], logs)
        found = estimate(world.draw(world.g, 128, rng), ref)
        if found.ci_low is not None:
            told.append(covered(found, 0.0))
    assert len(told) > SEEDS / 2 and np.mean(told) >= 0.93


def test_kl_of_a_target_that_hardly_forbids_anything():
    """Z = 0.97: where few of 128 draws miss, a delta method says too little of the error of log Z, or nothing."""
    world = World(seed=6, prompts=1, atoms=200)
    world.r[0, np.argsort(world.a[0])[:40]] = -np.inf
    world.P, world.g = world.a * np.exp(world.r), world.a.copy()
    assert 0.96 < world.z[0] < 0.98
    truth, hits, bare = world.truth()["kl_target"], 0, 0
    for seed in range(SEEDS):
        ref = world.draw(world.a, 64, np.random.default_rng(seed))
        hits += covered(d.kl_target(ref), truth)
        bare += covered(d._kl_estimate(ref, ref.excess), truth)
    assert hits >= 0.9 * SEEDS
    assert bare < 0.9 * SEEDS


def test_a_prompt_with_few_draws_of_the_target_sets_the_degrees_of_freedom():
    world = World(seed=7, prompts=2, atoms=200, shares=(0.9, 0.03), tilt=0.3)
    truth, told = world.truth()["kl_target"], []
    for seed in range(SEEDS):
        found = d.kl_target(world.draw(world.a, 160, np.random.default_rng(seed)))
        if found.ci_low is not None:
            told.append(covered(found, truth))
    assert len(told) > SEEDS / 2 and np.mean(told) >= 0.92


@pytest.mark.parametrize("estimate", [o.js, o.tv])
def test_a_prompt_that_never_meets_the_target_leaves_the_others_their_error(estimate):
    """Planted once: draws of the prompt that is wholly off the support thinned out the share's error of the others."""
    world = World(seed=10, shares=(0.5, 0.3), prompts=2)
    off = np.where(world.p > 0, 0.0, world.a)
    world.g = 0.5 * world.p + 0.5 * off / off.sum(axis=1, keepdims=True)
    world.g[1] = off[1] / off[1].sum()
    truth = float((discrete.js if estimate is o.js else discrete.tv)(world.p, world.g).mean())
    assert held(world, estimate, truth, each=160) >= 0.92
