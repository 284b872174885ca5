"""Where trainings end: at p by exact gradients, near it by draws; what does not reach p is shown not to."""

import math

import numpy as np
import pytest
import torch
from training_worlds import (
    BASE,
    HARD,
    PROMPTS,
    REWARD,
    Listed,
    exact_gradient,
    log_law,
    moved,
    set_to,
    work_on,
    world,
)

from alignbench.aligners.training import losses
from alignbench.aligners.training.dpg import DPG
from alignbench.aligners.training.passes import Passes
from alignbench.aligners.training.sft import SFT
from alignbench.aligners.training.sft_control import SFTControl, cost
from alignbench.generators.exact.world import enumerate_draws
from alignbench.seeds import Seed
from alignbench.testing import tiny_network

EPSILON = 0.01
SAMPLED = {"batch": 128, "lr": 0.05, "cooldown": 0.5}
PART = {"hard": 0.005, "reward": 0.0001}
"""The part of KL(p‖a) below which exact gradients end."""


def weights(name, listed, log_pi):
    """(B,) of draws of π, all listed; a constant baseline is left out: there are no other draws."""
    now = log_pi.detach()
    if name == "sft":
        return (listed.log_p - now).exp()
    if name == "dpg":
        return losses.matching(log_pi, listed.log_p, now, baseline=True)
    return losses.f_matching(log_pi, listed.log_p, now, f=name, prompt=listed.prompt)


def ended(name, listed, steps=400, lr=0.1):
    """log π of all draws after as many steps of Adam on exact gradients."""
    logits = BASE.model.network.logits.detach().clone().requires_grad_(True)
    optimiser = torch.optim.Adam([logits], lr=lr)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = lr * min(1, 2 * (steps - step) / steps)
        log_pi = log_law(logits, listed.draws)
        optimiser.zero_grad()
        listed.mean(-log_pi.detach().exp() * weights(name, listed, log_pi) * log_pi).backward()
        optimiser.step()
    return log_law(logits.detach(), listed.draws)


@pytest.fixture
def no_other_draws(monkeypatch):
    monkeypatch.setattr(losses, "others", lambda value, prompt: torch.zeros_like(value))


@pytest.mark.parametrize("name", ["sft", "dpg", "kl", "tv", "js", "chi2"])
@pytest.mark.parametrize("target", [HARD, REWARD], ids=PART)
def test_exact_gradients_end_at_p(name, target, no_other_draws):
    listed = Listed(target=target)
    part = listed.kl(ended(name, listed)) / listed.kl(listed.log_a)
    assert part < PART["hard" if target is HARD else "reward"]


def test_reverse_kl_ends_at_its_own_optimum(no_other_draws):
    """p_ε, whose KL(p‖p_ε) = log(1 + ε(1 − Z)/Z); nearer than that it must not come."""
    listed, hard = Listed(floor=math.log(EPSILON)), Listed()
    z = hard.log_z.exp()
    optimum = float((1 + EPSILON * (1 - z) / z).log().mean())
    assert hard.kl(listed.log_p) == pytest.approx(optimum, rel=1e-9)
    log_pi = ended("reverse_kl", listed, steps=600, lr=0.2)
    assert hard.kl(log_pi) == pytest.approx(optimum, rel=0.02)
    assert listed.kl(log_pi) < 1e-4


# --- by draws


def part_left(recipe, target):
    """KL(p‖π) of what a training gives, as a part of KL(p‖a)."""
    listed = Listed(target=target)
    return listed.kl_of(world(target).aligned(recipe)) / listed.kl(listed.log_a)


def test_dpg_in_few_steps():
    assert part_left(DPG(steps=120, pool=2000, **{**SAMPLED, "lr": 0.1}), HARD) < 0.3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "target", "most"),
    [
        (DPG(steps=1000, renew=1, pool=20000, **SAMPLED), HARD, 0.02),
        (DPG(steps=1000, renew=4, pool=20000, **SAMPLED), REWARD, 0.001),
        (DPG(steps=1000, renew=4, pool=20000, baseline=False, **SAMPLED), HARD, 0.07),
        (SFT(steps=1000, **SAMPLED), HARD, 0.03),
    ],
    ids=["dpg hard", "dpg reward", "dpg without baseline", "sft"],
)  # fmt: skip
def test_a_thousand_steps_of_64_draws_a_prompt(recipe, target, most):
    assert part_left(recipe, target) <= most


# --- what does not reach p

FIXED = {"data": "fixed", "steps": 1000, **SAMPLED}


@pytest.mark.slow
def test_fixed_draws_are_learnt_by_heart():
    """Worse than the base after 1,000 steps; the early stop on other draws of p catches it."""
    assert part_left(SFT(**FIXED), HARD) > 1


def test_the_early_stop_catches_it():
    """It ends long before the 1,000 steps, nearer to p than the base."""
    steps = []
    setting = world(HARD, report=lambda step, numbers: steps.append(step))
    policy = setting.aligned(SFT(patience=3, held_out=100, **FIXED))
    assert len(steps) < 150
    assert Listed().kl_of(policy) < 0.7 * Listed().kl(Listed().log_a)


def test_the_early_stop_keeps_the_base_where_every_step_made_it_worse():
    """A rate that ruins the policy before the first look."""
    recipe = SFT(data="fixed", draws=5, steps=40, batch=64, lr=2.0, warmup=0, patience=1, held_out=50)
    policy = world(HARD).aligned(recipe)
    assert Listed().kl_of(policy) == pytest.approx(Listed().kl(Listed().log_a))


def optimum(listed, strength):
    """a/(μ + λc) of each prompt, μ such that it sums to 1, by bisection."""
    law = torch.zeros_like(listed.log_a)
    for c in range(len(PROMPTS)):
        here = listed.prompt == c
        a, price = listed.log_a[here].exp(), strength * cost(listed.log_ratio[here])
        low, high = float(-price.min()) + 1e-12, float(-price.min()) + 100
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if (a / (middle + price)).sum() > 1 else (low, middle)
        law[here] = a / (low + price)
    return law


@pytest.mark.parametrize("target", [HARD, REWARD], ids=["hard", "reward"])
def test_the_optimum_of_sft_control_is_not_p(target):
    """There its exact gradient is 0, its loss is least, and p is elsewhere."""
    listed, strength = Listed(target=target), 0.6
    law = optimum(listed, strength)
    policy = set_to(moved(), law, listed.draws)
    slope = exact_gradient(lambda log_pi: objective(listed, log_pi, strength), policy, listed)
    assert float(slope.abs().max()) < 1e-9
    least = objective(listed, law.log(), strength)
    for other in (listed.log_a, log_law(moved(by=0.1).parameters[0].detach(), listed.draws)):
        assert objective(listed, other, strength) > least
    assert listed.kl(law.log()) > 0.1 * listed.kl(listed.log_a)


def objective(listed, log_pi, strength):
    return listed.mean(-listed.log_a.exp() * log_pi + strength * log_pi.exp() * cost(listed.log_ratio))


@pytest.mark.slow
def test_sft_control_ends_at_its_optimum_and_says_so():
    listed, recipe = Listed(), SFTControl(steps=400, renew=8, weight=0.6, **{**SAMPLED, "batch": 256})
    policy = world(HARD).aligned(recipe)
    found = torch.as_tensor(policy.log_prob(PROMPTS, listed.draws))
    law = optimum(listed, 0.6)
    assert listed.kl(found, law.log()) < 0.02
    assert listed.kl(found) == pytest.approx(listed.kl(law.log()), rel=0.1)
    assert "not p" in policy.remark


# --- draws that measure are never seen


def optimism(stream, seed):
    """(KL(p‖π) by the reference draws) − (KL(p‖π) as it is), π trained on 150 draws of p of a stream, by heart."""
    listed, here = Listed(), world(HARD, seed=seed)
    policy = SFT(steps=40, data="fixed", draws=150, batch=120, lr=0.05).align(
        here if stream == "train" else world_on(stream, seed)
    )
    ref = here.pool.draws(BASE, PROMPTS, rows(200), max_tokens=4, seed=Seed(seed, "ref"))
    ratio = HARD.log_ratio_of(PROMPTS, ref)
    ref = ref.take(np.flatnonzero(ratio > -np.inf))
    log_p = log_law(BASE.model.network.logits, ref) - listed.log_z[torch.as_tensor(ref.prompt)]
    gap = log_p.numpy() - policy.log_prob(PROMPTS, ref)
    return np.mean([gap[ref.prompt == c].mean() for c in range(2)]) - listed.kl_of(policy)


def rows(each):
    return np.stack([np.repeat([0, 1], each), np.tile(np.arange(each), 2)], axis=1)


def world_on(stream, seed):
    from dataclasses import replace

    return replace(world(HARD, seed=seed), seed=Seed(seed, stream))


def test_training_on_the_references_looks_better_than_it_is():
    """Planted: by 0.1 nats and more; ours sees the stream `train` alone, and is off by its error."""
    ours, planted = ([optimism(stream, seed) for seed in range(2)] for stream in ("train", "ref"))
    assert -0.5 < np.mean(planted) < -0.1
    assert abs(np.mean(ours)) < 0.1


# --- a network through the whole path


def kl_of_network(law, base, target, prompts, length):
    draws = enumerate_draws(base, prompts, max_tokens=length)
    ratio = target.log_ratio(target.measure(prompts, draws), draws.prompt)
    log_pi, found = law.log_prob(prompts, draws), []
    for c in range(len(prompts)):
        here = draws.prompt == c
        log_p = draws.log_prob[here] + ratio[here]
        log_p = log_p - np.logaddexp.reduce(log_p)
        kept = log_p > -np.inf
        found.append(np.sum(np.exp(log_p[kept]) * (log_p[kept] - log_pi[here][kept])))
    return float(np.mean(found))


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ["full", "lora:r=8"])
def test_dpg_trains_a_network(adapter, tmp_path):
    base = tiny_network(tmp_path, kind="llama")
    far = kl_of_network(base, base, REWARD, PROMPTS, 4)
    recipe = DPG(steps=150, batch=128, lr=0.01 if adapter == "full" else 0.02, adapter=adapter, pool=2000, cooldown=0.5)
    policy = world(REWARD, base).aligned(recipe)
    assert kl_of_network(policy, base, REWARD, PROMPTS, 4) < 0.01 < far / 30


def test_dropout_never_acts(tmp_path, monkeypatch):
    """Before its first step a policy is its base, to the last digit; dropout would make it another."""
    from alignbench.generators.hf.factory import hf
    from alignbench.generators.policy import Scorer, policy_of
    from alignbench.testing.worlds import save_network

    folder = save_network(tmp_path, ("rain", "sun", "wind"), kind="gpt2", attn_pdrop=0.5, resid_pdrop=0.5)
    base = hf(pretrained=str(folder), dtype="float32", device="cpu")
    draws = enumerate_draws(base, PROMPTS, max_tokens=2)

    def off():
        policy = policy_of(base, "full")
        policy.module.train()
        work = work_on(world(HARD, base), policy)
        work_batch = work.of_base(draws)
        found = Passes(work, SFT(steps=1)).values(work_batch).sum(1).numpy()
        return float(np.abs(found - draws.log_prob).max())

    assert off() < 1e-5
    monkeypatch.setattr(Scorer, "train", torch.nn.Module.train)
    assert off() > 1e-2
