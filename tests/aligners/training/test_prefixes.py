"""The baseline by prefix: whatever it foretells the gradient's mean stays; it foretells what it should; and resumes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from alignbench.aligners.base import Setting
from alignbench.aligners.training.dpg import DPG
from alignbench.aligners.training.losses import matching_by_token
from alignbench.aligners.training.prefixes import Prefixes
from alignbench.aligners.training.processes import Processes
from alignbench.aligners.training.work import Work
from alignbench.generators.exact.world import enumerate_draws
from alignbench.generators.policy import policy_of
from alignbench.seeds import Seed
from alignbench.target import Constraint, Target
from alignbench.target.truth import exact_values
from alignbench.testing import table_world
from alignbench.types import collect, rows_of

WORDS, PROMPTS, LENGTH = ("rain", "sun", "wind"), ("sun", "wind"), 3


def said(prompts, draws):
    return np.array([float("sun" in text.split()) for text in draws.texts])


AIM = Target((Constraint("sun", "always"),), {}, {"sun": (0.0, 1.0)}, measures={"sun": said})


@pytest.fixture
def base():
    return table_world(WORDS, PROMPTS, LENGTH)


class Listed:
    """All draws of a stale q and a policy, and the gradient of KL(p‖π) on them."""

    def __init__(self, base):
        self.q, self.policy = policy_of(base), policy_of(base)
        for one, seed in ((self.q, 1), (self.policy, 2)):
            noise = np.random.default_rng(seed).normal(size=tuple(one.parameters[0].shape))
            one.parameters[0].data += torch.as_tensor(0.3 * noise)
        self.draws = enumerate_draws(base, PROMPTS, max_tokens=LENGTH)
        log_p = torch.as_tensor(self.draws.log_prob + AIM.log_ratio_of(PROMPTS, self.draws))
        log_z = torch.stack([log_p[self.draws.prompt == c].logsumexp(0) for c in range(2)])[self.draws.prompt]
        self.p, self.log_q = (log_p - log_z).exp(), self.q.module(PROMPTS, self.draws).detach()
        self.by_token = self.policy.module(PROMPTS, self.draws)
        self.inside = torch.as_tensor(np.arange(LENGTH) < self.draws.length[:, None])
        self.prefixes = [
            [(c, *row[:t]) for t in range(LENGTH)]
            for c, row in zip(self.draws.prompt, self.draws.tokens.tolist(), strict=True)
        ]

    def off(self, values, *, trace=1.0, ratio=True):
        """The largest entry by which the mean gradient is not that of KL(p‖π)."""
        before = self.log_q if ratio else self.by_token.detach()
        reached, mass = (self.by_token.detach() - before).cumsum(1).exp(), self.log_q.sum(1).exp()
        weight = matching_by_token(self.p / mass, reached, values, self.inside, trace=trace)
        mine = gradient(self.policy, -(mass[:, None] * weight * self.by_token * self.inside).sum())
        wanted = gradient(self.policy, -(self.p * self.by_token.sum(1)).sum())
        return float((mine - wanted).abs().max())

    def values(self):
        """(B, T) E_π[p/π] of each prefix."""
        sums: dict = {}
        for row, one, other in zip(self.prefixes, self.p, self.by_token.detach().sum(1).exp(), strict=True):
            for prefix in row:
                old = sums.get(prefix, (0, 0))
                sums[prefix] = old[0] + one, old[1] + other
        found = [[float(sums[prefix][0] / sums[prefix][1]) for prefix in row] for row in self.prefixes]
        return torch.as_tensor(found, dtype=torch.float64)


def gradient(policy, total):
    return torch.autograd.grad(total, policy.parameters, retain_graph=True)[0]


@pytest.mark.parametrize("ratio", [True, False], ids=["with its ratio", "planted: without"])
def test_any_value_of_the_prefix_leaves_the_mean_of_the_gradient(base, ratio):
    """Σ over all draws of a stale q: the gradient of KL(p‖π), whatever V says of prompt and prefix."""
    listed = Listed(base)
    values = torch.as_tensor([[hash(prefix) % 7 / 3 for prefix in row] for row in listed.prefixes])
    assert (listed.off(values, ratio=ratio) < 1e-10) is ratio


@pytest.mark.parametrize("trace", [0.0, 0.5, 1.0])
def test_with_a_trace_the_mean_is_right_where_the_values_are(base, trace):
    """And planted: with one value for all prefixes, or of a draw's own token, it is not, but for trace 1."""
    listed = Listed(base)
    right = listed.values()
    assert listed.off(right, trace=trace) < 1e-10
    assert (listed.off(torch.ones_like(right), trace=trace) < 1e-10) is (trace == 1)
    late = torch.cat([right[:, 1:], right[:, -1:]], 1)
    assert listed.off(late, trace=trace) > 1e-3


def test_it_foretells_the_mean_weight_of_its_cell(base):
    draws = collect(base.sample(PROMPTS, rows_of(2, 400), max_tokens=LENGTH, seed=Seed(0, "train")))
    weight = 2.0 * said(PROMPTS, draws)
    prefixes = Prefixes(AIM, base, PROMPTS)
    assert (prefixes.values(draws)[0] == 1).all()
    prefixes.learn(zip(prefixes.values(draws)[1], weight, np.ones(len(draws)), strict=True))
    values, _ = prefixes.values(draws)
    known = (draws.tokens[:, 0] == WORDS.index("sun")) & (draws.length > 1)
    assert np.allclose(values[known, 1], 2, atol=0.1)  # nothing is open any more
    open_still = ~known & (draws.length > 1) & (draws.prompt == 0)
    mean = weight[open_still].mean()
    assert np.allclose(values[open_still, 1], mean, atol=0.1)
    again = Prefixes(AIM, base, PROMPTS)
    again.resume(prefixes.kept())
    assert np.allclose(again.values(draws)[0], values)


@pytest.mark.parametrize("planted", [False, True], ids=["by p/q and π/q", "planted: by p/π of the base's draws"])
def test_draws_of_the_base_foretell_what_the_policy_s_weigh(base, planted):
    """V of prompt 0 before the second token, nothing of what is asked said yet: Σ p over Σ π of the draws there."""
    aim, policy = AIM.fitted({}, np.zeros(0, int), {}, np.zeros(0, int), PROMPTS), policy_of(base)
    policy.parameters[0].data[..., WORDS.index("wind")] += 1.5
    recipe = DPG(batch=20000, baseline="prefix", pool=10, replay=1.0)
    work = Work(Setting(base, aim, PROMPTS, LENGTH, Seed(0, "train")), policy, Processes())
    method = recipe.method(work)
    every = enumerate_draws(base, PROMPTS, max_tokens=LENGTH)
    log_p, log_pi = every.log_prob + aim.log_ratio_of(PROMPTS, every), policy.log_prob(PROMPTS, every)
    log_z = np.array([np.logaddexp.reduce(log_p[every.prompt == c]) for c in range(2)])
    method.log_z = log_z
    batch = method.batches(0)["loss"]
    now = policy.log_prob(PROMPTS, batch.draws)
    if planted:
        weight = np.exp(batch.log_p(log_z) - now)
        method.prefixes.learn(zip(method.places, weight, np.ones(len(batch)), strict=True))
    else:
        method.after(0, {"loss": (batch, now)})
    there = (every.prompt == 0) & (every.length > 1) & (every.tokens[:, 0] != WORDS.index("sun"))
    exact = np.exp(log_p[there] - log_z[0]).sum() / np.exp(log_pi[there]).sum()
    first = np.flatnonzero(there)[:1]
    off = abs(method.prefixes.values(every.take(first))[0][0, 1] / exact - 1)
    assert off > 0.3 if planted else off < 0.05


def test_dpg_with_it_comes_to_p(base):
    aim = AIM.fitted({}, np.zeros(0, int), {}, np.zeros(0, int), PROMPTS)
    recipe = DPG(steps=100, batch=64, lr=0.05, cooldown=0.5, baseline="prefix", pool=500, renew=2, replay=0.25)
    made = Setting(base, aim, PROMPTS, LENGTH, Seed(0, "train")).aligned(recipe)
    before, after = (exact_values(base, one, aim, PROMPTS, LENGTH)["divergence.kl_target"] for one in (base, made))
    assert after < 0.15 * before
