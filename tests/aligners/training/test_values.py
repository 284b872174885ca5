"""The value head: it comes to foretell what follows a prefix, keeps what it knew, and adds over processes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from reward_worlds import Rewarded
from training_worlds import BASE, HARD, LENGTH, PROMPTS, REWARD, work_on, world

from alignbench.aligners.training.ppo import PPO
from alignbench.aligners.training.rewards import by_token_reward
from alignbench.aligners.training.values import ValueHead
from alignbench.generators.hidden import read
from alignbench.generators.policy import policy_of
from alignbench.seeds import Seed
from alignbench.types import collect, rows_of


def learned(head, hidden, wanted):
    head.learn(*head.sums(hidden, wanted))
    return head


def test_of_unit_vectors_it_is_the_mean_of_what_came_after_each():
    rng = np.random.default_rng(0)
    place = rng.integers(4, size=4000)
    hidden, wanted = np.eye(4)[place], np.array([1.0, -2.0, 0.5, 7.0])[place] + rng.normal(size=4000)
    head = ValueHead(size=0.5)
    for part in np.array_split(np.arange(4000), 10):
        learned(head, hidden[part], wanted[part])
    assert head(np.eye(4)) == pytest.approx([1.0, -2.0, 0.5, 7.0], abs=0.15)


def test_before_it_has_learned_it_says_nothing():
    assert (ValueHead()(np.ones((2, 3, 5))) == 0).all() and ValueHead()(np.ones((2, 3, 5))).shape == (2, 3)


def test_what_is_not_seen_again_stays():
    head = learned(ValueHead(size=1e-9), np.eye(3)[[0] * 50 + [1] * 50], np.repeat([2.0, 5.0], 50))
    before = head(np.eye(3)).copy()
    for _ in range(5):
        learned(head, np.eye(3)[[2] * 100], np.full(100, 3.0))
    assert head(np.eye(3))[:2] == pytest.approx(before[:2])
    assert head(np.eye(3))[2] == pytest.approx(3, abs=0.1)


def test_sums_of_two_halves_are_those_of_all():
    rng = np.random.default_rng(1)
    hidden, wanted, head = rng.normal(size=(20, 4)), rng.normal(size=20), ValueHead(size=1.0)
    parts = [head.sums(hidden[rows], wanted[rows]) for rows in (slice(7), slice(7, 20))]
    whole = head.sums(hidden, wanted)
    for one, other, together in zip(*parts, whole, strict=True):
        assert one + other == pytest.approx(together)


def test_it_foretells_the_reward_of_our_world():
    """E_a[r | prefix] of draws of the base, against all draws listed."""
    draws = collect(BASE.sample(PROMPTS, rows_of(2, 3000), max_tokens=LENGTH, seed=Seed(0, "train")))
    nats, hidden = read(BASE, PROMPTS, draws)
    reward = by_token_reward(nats, nats, REWARD.log_ratio_of(PROMPTS, draws), draws.length)
    later, inside = reward[:, ::-1].cumsum(1)[:, ::-1], np.arange(nats.shape[1]) < draws.length[:, None]
    head = ValueHead(size=1e-9)
    for part in np.array_split(np.arange(len(draws)), 6):
        learned(head, hidden[part][inside[part]], later[part][inside[part]])
    listed = Rewarded(REWARD).listed
    mass = listed.log_a.exp().numpy()
    for c in range(2):
        exact = float((mass * listed.log_ratio.numpy())[listed.draws.prompt == c].sum())
        assert head(hidden[np.flatnonzero(draws.prompt == c)[0], 0]) == pytest.approx(exact, abs=0.1)


def test_a_second_epoch_knows_the_law_that_drew():
    """Also where draws are made for each step alone, and none of them is old when it is drawn."""
    work = work_on(world(HARD), policy_of(BASE, "full"))
    method = PPO(steps=4, batch=8, renew=1, epochs=2).method(work)
    first = method.batches(0)["loss"]
    assert first.log_proposal == pytest.approx(work.policy.log_prob(PROMPTS, first.draws))
    with torch.no_grad():
        work.policy.parameters[0].add_(0.1)
    assert method.batches(1)["loss"].log_proposal is first.log_proposal
