"""Policy gradients: whose gradient each loss has, where each ends, and what does not reach p."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from reward_worlds import EPSILON, Rewarded, by_token_law, ended, mean_of, mean_of_grpo
from training_worlds import (
    BASE,
    HARD,
    LENGTH,
    PROMPTS,
    REWARD,
    STRONG,
    TILT,
    Listed,
    backward,
    gradient_of,
    moved,
    set_to,
    work_on,
    world,
)

from alignbench.aligners.training import ppo, rewards
from alignbench.aligners.training.grpo import GRPO
from alignbench.aligners.training.ppo import PPO
from alignbench.aligners.training.reinforce import KL, REACHES, Reinforce
from alignbench.aligners.training.rewards import (
    Rollout,
    advantages,
    by_token_reward,
    clipped,
    grouped,
    reinforced,
    standardised,
    ungrouped,
)
from alignbench.generators.hidden import read
from alignbench.generators.policy import policy_of

TARGETS = {"hard": HARD, "reward": REWARD, "strong": STRONG}


@pytest.fixture
def constant_baseline(monkeypatch):
    """Where draws are listed there are no other draws: any constant is a baseline."""
    monkeypatch.setattr(rewards, "others", lambda value, prompt: torch.full_like(value, 0.7))


# --- whose gradient


@pytest.mark.parametrize("stale", [False, True], ids=["own", "stale"])
@pytest.mark.parametrize("target", TARGETS)
def test_with_the_kl_in_the_reward_the_gradient_is_that_of_reverse_kl(target, stale, constant_baseline):
    given = Rewarded(TARGETS[target], stale)
    assert given.off(lambda by_token: reinforced(by_token, given.rollout, kl="reward")) < 1e-8


@pytest.mark.parametrize("kl", KL)
def test_on_own_draws_two_of_them_have_it(kl, constant_baseline):
    given = Rewarded()
    assert (given.off(lambda by_token: reinforced(by_token, given.rollout, kl=kl)) < 1e-8) is (kl in REACHES)


def test_k2_by_token_is_k3_times_the_ratio(constant_baseline):
    """E_π[ρ·k3] with ρ differentiated, as some trainers have it, has the gradient of k2 by token."""
    given = Rewarded()

    def with_ratio(by_token):
        k3 = rewards.by_token_k3(by_token - given.base)
        rho = (by_token - by_token.detach()).exp()
        return (rho * k3).sum(1) - (given.rollout.reward - 0.7) * by_token.sum(1)

    gap = given.gradient(with_ratio) - given.gradient(lambda x: reinforced(x, given.rollout, kl="loss_k2_by_token"))
    assert float(gap.abs().max()) < 1e-8


def test_unbiased_grpo_has_it_on_own_draws(constant_baseline):
    given, stale = Rewarded(), Rewarded(stale=True)
    assert given.off(lambda by_token: ungrouped(by_token, given.rollout, epsilon=0.2)) < 1e-8
    assert stale.off(lambda by_token: ungrouped(by_token, stale.rollout, epsilon=0.2)) > 1e-3


def proximal(given, values, trace=1.0, beta=1.0):
    """The loss of PPO with values (B, T) of prefixes."""
    rollout, draws = given.rollout, given.listed.draws
    reward = by_token_reward(rollout.old.numpy(), rollout.base.numpy(), rollout.reward.numpy(), draws.length, beta)
    gained = torch.as_tensor(advantages(reward, values, draws.length, trace)[0])
    return lambda by_token: clipped(by_token, rollout, gained, epsilon=0.2).sum(1)


def of_prefix(draws, value):
    """(B, T) a value of each prefix; rows of the same prefix have the same."""
    return np.array([[value((c, *row[:t])) for t in range(len(row))] for c, row in
                     zip(draws.prompt.tolist(), draws.tokens.tolist(), strict=True)])  # fmt: skip


def right_values(given):
    """(B, T) E_π[what is still to be rewarded | prefix]."""
    rollout, draws = given.rollout, given.listed.draws
    reward = by_token_reward(rollout.old.numpy(), rollout.base.numpy(), rollout.reward.numpy(), draws.length)
    later, mass = reward[:, ::-1].cumsum(1)[:, ::-1], rollout.old.sum(1).exp().numpy()
    sums: dict = {}
    for i, row in enumerate(draws.tokens.tolist()):
        for t in range(draws.length[i]):
            found = sums.setdefault((draws.prompt[i], *row[:t]), [0.0, 0.0])
            found[0] += mass[i] * later[i, t]
            found[1] += mass[i]
    return of_prefix(draws, lambda prefix: np.divide(*sums[prefix]) if prefix in sums else 0.0)


@pytest.mark.parametrize("target", TARGETS)
def test_ppo_has_it_for_any_values_with_trace_1_and_for_right_ones_with_any(target):
    given = Rewarded(TARGETS[target])
    arbitrary = of_prefix(given.listed.draws, lambda prefix: hash(prefix) % 7 / 3)
    assert given.off(proximal(given, arbitrary)) < 1e-8
    assert given.off(proximal(given, right_values(given), trace=0.5)) < 1e-8
    assert given.off(proximal(given, arbitrary, trace=0.5)) > 1e-3


@pytest.mark.parametrize("trace", [0.0, 0.5, 1.0])
def test_right_values_take_the_noise_away_at_p(trace):
    """There every advantage is 0; without values it is not."""
    given = Rewarded(REWARD)
    law = set_to(moved(), given.listed.log_p.exp(), given.listed.draws)
    given.__dict__["old"] = by_token_law(law.parameters[0].detach(), given.listed.draws)
    rollout, length = given.rollout, given.listed.draws.length
    reward = by_token_reward(rollout.old.numpy(), rollout.base.numpy(), rollout.reward.numpy(), length)
    assert np.abs(advantages(reward, right_values(given), length, trace)[0]).max() < 1e-9
    assert np.abs(advantages(reward, np.zeros(reward.shape), length, trace)[0]).max() > 0.1


def test_returns_are_what_values_are_to_foretell():
    reward, length = np.array([[0.5, 1.0, 2.0], [3.0, 9.0, 9.0]]), np.array([3, 1])
    reward[1, 1:] = 0
    found, returns = advantages(reward, np.zeros((2, 3)), length, 1.0)
    assert returns.tolist() == [[3.5, 3.0, 2.0], [3.0, 0.0, 0.0]]
    values = np.array([[1.0, 1.0, 1.0], [2.0, 7.0, 7.0]])
    found, returns = advantages(reward, values, length, 1.0)
    assert returns.tolist() == [[3.5, 3.0, 2.0], [3.0, 0.0, 0.0]]  # with trace 1 they do not depend on the values
    assert found.tolist() == [[2.5, 2.0, 1.0], [1.0, 0.0, 0.0]]
    found, returns = advantages(reward, values, length, 0.0)
    assert returns.tolist() == [[1.5, 2.0, 2.0], [3.0, 0.0, 0.0]]  # reward and the next value


# --- where exact gradients end

ENDS = {
    ("reward", "hard"): (0.0, 0.0135), ("reward", "reward"): (0.0, 1e-4), ("reward", "strong"): (0.0, 1e-4),
    ("loss_k2", "hard"): (0.0, 0.0135), ("loss_k2", "reward"): (0.0, 1e-4), ("loss_k2", "strong"): (0.0, 1e-4),
    ("loss_k1", "hard"): (5, 50), ("loss_k1", "reward"): (10, 100), ("loss_k1", "strong"): (3, 20),
    ("none", "hard"): (5, 50), ("none", "reward"): (10, 100), ("none", "strong"): (3, 20),
    ("loss_k3", "hard"): (0.05, 0.5), ("loss_k3", "reward"): (0.03, 0.5), ("loss_k3", "strong"): (0.1, 1),
    ("loss_k2_by_token", "hard"): (0.05, 0.5), ("loss_k2_by_token", "reward"): (0.005, 0.05),
    ("loss_k2_by_token", "strong"): (0.02, 0.1),
    ("reward_k3", "hard"): (50, 2000), ("reward_k3", "reward"): (50, 2000), ("reward_k3", "strong"): (20, 500),
}  # fmt: skip
"""Where KL(p‖π) ends, from and to, as a part of KL(p‖a); of a hard target p_ε itself is at 0.0115."""


@pytest.mark.parametrize(("kl", "target"), ENDS)
def test_where_the_kl_is_decides_where_it_ends(kl, target, constant_baseline):
    listed, real = Listed(target=TARGETS[target], floor=float(np.log(EPSILON))), Listed(target=TARGETS[target])
    base = by_token_law(BASE.model.network.logits, listed.draws)
    part = real.kl(ended(mean_of(kl, listed, base))) / real.kl(real.log_a)
    low, high = ENDS[kl, target]
    assert low - 1e-9 <= part <= high


@pytest.mark.parametrize(("target", "low", "high"), [("hard", 0.05, 0.5), ("reward", 0.01, 0.3), ("strong", 0.02, 0.5)])
def test_grpo_as_configured_ends_elsewhere(target, low, high):
    listed, real = Listed(target=TARGETS[target], floor=float(np.log(EPSILON))), Listed(target=TARGETS[target])
    base = by_token_law(BASE.model.network.logits, listed.draws)
    part = real.kl(ended(mean_of_grpo(listed, base))) / real.kl(real.log_a)
    assert low <= part <= high


def test_every_way_to_have_the_kl_is_shown():
    assert {kl for kl, _ in ENDS} == set(KL)


# --- by draws


def part_left(recipe, target):
    listed = Listed(target=target)
    return listed.kl_of(world(target).aligned(recipe)) / listed.kl(listed.log_a)


SAMPLED = {"batch": 128, "lr": 0.05, "cooldown": 0.5}
STEPS = 1000
LEFT = {
    "reinforce hard": (Reinforce(steps=STEPS, renew=1, **SAMPLED), HARD, 0.0, 0.035),
    "reinforce reward": (Reinforce(steps=STEPS, **SAMPLED), REWARD, 0.0, 0.001),
    "ppo hard": (PPO(steps=STEPS, trace=1.0, batch=128, lr=0.05), HARD, 0.0, 0.2),
    "ppo reward": (PPO(steps=STEPS, trace=1.0, batch=128, lr=0.05), REWARD, 0.0, 0.2),
    "grpo hard": (GRPO(steps=STEPS, **SAMPLED), HARD, 0.1, 1.0),
    "grpo reward": (GRPO(steps=STEPS, **SAMPLED), REWARD, 0.1, 1.0),
    "grpo unbiased hard": (GRPO(steps=STEPS, unbiased=True, **SAMPLED), HARD, 0.0, 0.035),
    "grpo unbiased reward": (GRPO(steps=STEPS, unbiased=True, **SAMPLED), REWARD, 0.0, 0.001),
    "ppo with an adaptive β": (PPO(steps=STEPS, target_kl=0.1, batch=128, lr=0.05), HARD, 0.1, 1.0),
}
"""What is left of KL(p‖a), from and to; the lower bounds are of what does not reach p."""


@pytest.mark.slow
@pytest.mark.parametrize("name", LEFT)
def test_a_thousand_steps_by_draws(name):
    recipe, target, low, high = LEFT[name]
    assert low <= part_left(recipe, target) <= high


def test_few_steps_by_draws():
    assert part_left(Reinforce(steps=120, **{**SAMPLED, "lr": 0.1}), TILT) < 0.1, "a moment is a reward at its λ"
    assert part_left(Reinforce(steps=120, **{**SAMPLED, "lr": 0.1}), REWARD) < 0.1
    assert part_left(PPO(steps=120, batch=128, lr=0.1), REWARD) < 0.3


def test_an_adaptive_beta_ends_at_its_own_divergence():
    """KL(π‖a) is what was asked for, whatever p is."""
    policy = world(REWARD).aligned(PPO(steps=240, target_kl=0.1, batch=128, lr=0.05))
    listed = Listed(target=REWARD)
    log_pi = torch.as_tensor(policy.log_prob(PROMPTS, listed.draws))
    assert float(listed.mean(log_pi.exp() * (log_pi - listed.log_a))) == pytest.approx(0.1, abs=0.04)
    assert "not p" in policy.remark


# --- the mean of 200 estimates

ESTIMATES = 200
AHEAD = {"batch": 16, "renew": ESTIMATES, "steps": ESTIMATES}
ESTIMATED = {
    "reinforce": Reinforce(**AHEAD), "reinforce, drawn each step": Reinforce(**{**AHEAD, "renew": 1}),
    "grpo unbiased": GRPO(unbiased=True, **AHEAD), "ppo": PPO(trace=1.0, epochs=1, **AHEAD),
}  # fmt: skip
BESIDE = {kl: Reinforce(kl=kl, **AHEAD) for kl in KL if kl not in REACHES}
"""Whose gradient is of another objective."""


def estimates(name, target=REWARD, count=ESTIMATES):
    """The largest |t| of the mean of `count` estimates, over 16 directions."""
    given, recipe = Rewarded(target), (ESTIMATED | BESIDE)[name]
    exact = given.exact if name in ESTIMATED else gradient_without_baseline(given, name)
    work = work_on(world(target), moved())
    method = recipe.method(work)
    directions = torch.randn((*exact.shape, 16), generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    gaps = [gradient_of(work, method, recipe, step) - exact for step in range(count)]
    found = torch.einsum("nrv,rvk->nk", torch.stack(gaps), directions)
    return float((found.mean(0) / (found.std(0) / np.sqrt(count))).abs().max())


def gradient_without_baseline(given, kl):
    """That of E_π of the loss, all draws listed: a baseline changes nothing of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rewards, "others", lambda value, prompt: torch.zeros_like(value))
        return given.gradient(lambda by_token: reinforced(by_token, given.rollout, kl=kl))


@pytest.mark.parametrize("name", ESTIMATED)
def test_the_mean_of_estimates_is_the_gradient_of_reverse_kl(name):
    assert estimates(name) < 4


@pytest.mark.parametrize("name", BESIDE)
def test_the_mean_of_estimates_is_the_gradient_of_another_objective(name):
    assert estimates(name) < 4
    given = Rewarded()
    assert (gradient_without_baseline(given, name) - given.exact).abs().max() > 1e-3


def test_the_mean_of_estimates_with_a_fitted_moment():
    assert estimates("reinforce", TILT) < 4


def test_where_prompts_are_many_a_draw_is_compared_all_the_same():
    """Two draws a step, of two prompts: one after the other, so that neither goes without a baseline."""
    recipe = Reinforce(steps=8, batch=2, renew=8)
    work = work_on(world(REWARD), moved())
    method = recipe.method(work)
    prompts = [method.batches(step)["loss"].draws.prompt.tolist() for step in range(4)]
    assert prompts == [[0, 0], [1, 1], [0, 0], [1, 1]]
    drawn = [tuple(row) for step in range(8) for row in work.rows(step, 2, 2).tolist()]
    assert len(set(drawn)) == 16 and max(i for _, i in drawn) == 7


@pytest.mark.slow
@pytest.mark.parametrize("name", ESTIMATED)
def test_the_mean_of_estimates_of_a_hard_target(name):
    assert estimates(name, HARD) < 4


# --- planted


@pytest.mark.parametrize("name", ["reinforce", "grpo unbiased"])
def test_planted_baseline_with_the_draw_itself(name, monkeypatch):
    """Of two draws each is then weighed by half of their difference: half the gradient."""
    monkeypatch.setitem(ESTIMATED, name, replace(ESTIMATED[name], batch=4))
    assert estimates(name) < 4
    right = rewards.others

    def with_itself(value, prompt):
        count = torch.bincount(prompt)[prompt]
        return (right(value, prompt) * (count - 1) + value) / count

    monkeypatch.setattr(rewards, "others", with_itself)
    assert estimates(name) > 4


def test_planted_kl_summed_over_padding(monkeypatch):
    right = Rollout.of

    def padded(known, by_token):
        rollout = right(known, by_token)
        return replace(rollout, base=torch.where(rollout.inside, rollout.base, -1.0))

    monkeypatch.setattr(Rollout, "of", padded)
    assert estimates("reinforce") > 5


def test_planted_rewards_standardised_over_all_prompts(monkeypatch):
    """Of prompts whose rewards lie apart, nearly all of one would be good."""
    right, work = rewards.standardised, work_on(world(REWARD), moved())
    recipe = GRPO(**AHEAD)
    method, reward = recipe.method(work), torch.tensor([0.0, 2.0, 10.0, 12.0])
    assert right(reward, torch.tensor([0, 0, 1, 1])).tolist() == pytest.approx([-(0.5**0.5), 0.5**0.5] * 2, abs=1e-3)
    batch = method.batches(0)["loss"]
    shifted = replace(batch, log_ratio=batch.log_ratio + 10.0 * batch.draws.prompt)
    wanted = backward(work, recipe, batch, lambda *a: method.loss("loss", *a))
    assert (backward(work, recipe, shifted, lambda *a: method.loss("loss", *a)) - wanted).abs().max() < 1e-9
    monkeypatch.setattr(rewards, "standardised", lambda value, prompt: right(value, torch.zeros_like(prompt)))
    assert (backward(work, recipe, shifted, lambda *a: method.loss("loss", *a)) - wanted).abs().max() > 1e-3


def learned_off(count=40):
    """How far PPO's learned values are from E_π[what is still to be rewarded], of prefixes that are drawn often."""
    given, work = Rewarded(REWARD), work_on(world(REWARD), moved())
    method = PPO(steps=ESTIMATES, batch=256, renew=1, epochs=1).method(work)
    for step in range(count):
        method.batches(step)
    _, hidden = read(work.setting.base, PROMPTS, given.listed.draws)
    off = np.abs(method.head(hidden) - right_values(given))
    inside, mass = given.rollout.inside.numpy(), given.rollout.old.sum(1).exp().numpy()[:, None]
    return float((off * inside * mass).sum() / (inside * mass).sum())


def test_planted_value_targets_one_step_late(monkeypatch):
    right = ppo.advantages
    assert learned_off() < 0.09

    def late(reward, values, length, trace):
        found, returns = right(reward, values, length, trace)
        return found, np.roll(returns, -1, 1)

    monkeypatch.setattr(ppo, "advantages", late)
    assert learned_off() > 0.1


def test_planted_beta_twice(monkeypatch):
    """r/β² in place of r/β."""
    beta, right = STRONG.constraints[0].beta, Rollout.of

    def twice(known, by_token):
        return right(replace(known, log_ratio=known.log_ratio / beta), by_token)

    monkeypatch.setattr(Rollout, "of", twice)
    assert estimates("reinforce", STRONG) > 5 and estimates("grpo unbiased", STRONG) > 5


def test_planted_beta_of_the_kl_twice(monkeypatch):
    right = ppo.by_token_reward
    monkeypatch.setattr(ppo, "by_token_reward", lambda old, base, reward, length, beta: right(
        old, base, reward, length, 2.0 * beta))  # fmt: skip
    assert estimates("ppo") > 5


def test_planted_eos_without_its_reward(monkeypatch):
    """Only draws that were cut would be rewarded."""
    right = ppo.by_token_reward

    def cut_alone(old, base, reward, length, beta):
        return right(old, base, np.where(length < LENGTH, 0.0, reward), length, beta)

    monkeypatch.setattr(ppo, "by_token_reward", cut_alone)
    assert estimates("ppo") > 5


# --- clipping, and what rows say


def test_a_ratio_beyond_the_clip_has_no_gradient():
    by_token = torch.tensor([[0.5, -0.5]], requires_grad=True)
    rollout = Rollout(*torch.zeros(2, 1, 2), torch.zeros(1), torch.zeros(1, dtype=torch.long), torch.ones(1, 2) > 0)
    for advantage, wanted in ((1.0, [False, True]), (-1.0, [True, False])):
        loss = clipped(by_token, rollout, torch.full((1, 2), advantage), epsilon=0.2).sum()
        (slope,) = torch.autograd.grad(loss, by_token)
        assert (slope[0] != 0).tolist() == wanted


def test_grpo_is_a_mean_over_tokens():
    given = Rewarded()
    by_token = given.old.clone()
    one = grouped(by_token, given.rollout, epsilon=0.2, beta=1.0)
    advantage = standardised(given.rollout.reward, given.rollout.prompt)[:, None]
    wanted = (-advantage + rewards.by_token_k3(by_token - given.base)) * given.rollout.inside
    assert float(one) == pytest.approx(float(wanted.sum() / given.rollout.inside.sum()))


@pytest.mark.parametrize(
    ("recipe", "target", "said"),
    [
        (Reinforce(), HARD, "ε = 0.01"), (Reinforce(), REWARD, ""), (Reinforce(kl="loss_k2"), REWARD, ""),
        (Reinforce(kl="loss_k3"), REWARD, "not p"), (GRPO(), REWARD, "not p"), (GRPO(unbiased=True), REWARD, ""),
        (PPO(), HARD, "ε = 0.01"), (PPO(), REWARD, "trace < 1"), (PPO(trace=1.0), REWARD, ""),
        (PPO(target_kl=0.1), HARD, "not p"), (PPO(target_kl=0.1), HARD, "ε = 0.01"), (GRPO(), HARD, "ε = 0.01"),
    ],
)  # fmt: skip
def test_what_rows_say_of_what_is_aimed_at(recipe, target, said):
    found = recipe.remark(target)
    assert said in found and (bool(said) or not found)


def test_in_half_precision_the_density_is_what_a_pass_says_of_the_draws(monkeypatch):
    """What sampling said may be off there: ratios of tokens would be those of another law."""
    policy = policy_of(BASE, "full")
    work = work_on(world(HARD), policy)
    draws = work.own_draws(policy, work.rows(0, 8))
    off = replace(draws, token_log_prob=draws.token_log_prob + 0.1, log_prob=draws.log_prob + 0.3)
    assert work.rescored(policy, off) is off
    monkeypatch.setattr("alignbench.aligners.training.work.described", lambda law: SimpleNamespace(half=True))
    found = work.rescored(policy, off)
    np.testing.assert_allclose(found.token_log_prob, policy.token_log_prob(PROMPTS, draws))
    np.testing.assert_allclose(found.log_prob, draws.log_prob)
    np.testing.assert_allclose(work.log_q(policy, off), draws.log_prob)
