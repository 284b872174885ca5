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
        self.log_a = torch.as_tensor(base.token_log_prob(PROMPTS, self.draws))
        self.by_token = self.policy.module(PROMPTS, self.draws)
        self.inside = torch.as_tensor(np.arange(LENGTH) < self.draws.length[:, None])
        self.prefixes = [
            [(c, *row[:t]) for t in range(LENGTH)]
            for c, row in zip(self.draws.prompt, self.draws.tokens.tolist(), strict=True)
        ]

    def off(self, values, *, trace=1.0, ratio=True):
        """The largest entry by which the mean gradient is not that of KL(p‖π)."""
        before = torch.cat([torch.zeros(len(self.p), 1), (self.log_a - self.log_q).cumsum(1)[:, :-1]], 1)
        reached = (before + (self.by_token.detach() - self.log_q if ratio else 0)).exp()
        mass = self.log_q.sum(1).exp()
        weight = matching_by_token(self.p / mass, reached, values, self.inside, trace=trace)
        mine = gradient(self.policy, -(mass[:, None] * weight * self.by_token * self.inside).sum())
        wanted = gradient(self.policy, -(self.p * self.by_token.sum(1)).sum())
        return float((mine - wanted).abs().max())

    def values(self):
        """(B, T) E_a[p/a] of each prefix."""
        sums: dict = {}
        for row, one, other in zip(self.prefixes, self.p, self.log_a.sum(1).exp(), strict=True):
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
    prefixes.learn(zip(prefixes.values(draws)[1], weight, strict=True))
    values, _ = prefixes.values(draws)
    known = (draws.tokens[:, 0] == WORDS.index("sun")) & (draws.length > 1)
    assert np.allclose(values[known, 1], 2, atol=0.1)  # nothing is open any more
    open_still = ~known & (draws.length > 1) & (draws.prompt == 0)
    mean = weight[open_still].mean()
    assert np.allclose(values[open_still, 1], mean, atol=0.1)
    again = Prefixes(AIM, base, PROMPTS)
    again.resume(prefixes.kept())
    assert np.allclose(again.values(draws)[0], values)


def test_a_draw_is_not_in_its_own_value(base):
    draws = collect(base.sample(PROMPTS, rows_of(2, 40), max_tokens=LENGTH, seed=Seed(0, "train")))
    weight = 2.0 * said(PROMPTS, draws)
    others = Prefixes(AIM, base, PROMPTS)
    others.learn(zip(others.values(draws)[1][1:], weight[1:], strict=True))
    every = Prefixes(AIM, base, PROMPTS)
    every.learn(zip(every.values(draws)[1], weight, strict=True))
    first = draws.take([0])
    assert np.allclose(every.values(first, weight[:1])[0], others.values(first)[0])
    assert not np.allclose(every.values(first)[0], others.values(first)[0])


def test_only_draws_of_the_base_tell_values_and_each_once(base):
    """The pool's, and those replayed beyond it; a policy that moved changes nothing of them."""
    aim, policy = AIM.fitted({}, np.zeros(0, int), {}, np.zeros(0, int), PROMPTS), policy_of(base)
    policy.parameters[0].data[..., WORDS.index("wind")] += 1.5
    recipe = DPG(batch=64, baseline="prefix", pool=8, replay=0.5, renew=1)
    work = Work(Setting(base, aim, PROMPTS, LENGTH, Seed(0, "train")), policy, Processes())
    method = recipe.method(work)
    known = [sum(count for (c, t, _), (_, count) in method.prefixes.known.items() if t == 0)]
    for step in range(2):
        batch = method.batches(step)["loss"]
        assert np.allclose(batch.base_by_token, base.token_log_prob(PROMPTS, batch.draws))
        method.after(step, {"loss": (batch, policy.log_prob(PROMPTS, batch.draws))})
        known.append(sum(count for (c, t, _), (_, count) in method.prefixes.known.items() if t == 0))
    assert known == [16, 32, 64]  # 16 of the first step's 32 replayed draws are the pool's


def test_dpg_with_it_comes_to_p(base):
    aim = AIM.fitted({}, np.zeros(0, int), {}, np.zeros(0, int), PROMPTS)
    recipe = DPG(steps=100, batch=64, lr=0.05, cooldown=0.5, baseline="prefix", pool=500, renew=2, replay=0.25)
    made = Setting(base, aim, PROMPTS, LENGTH, Seed(0, "train")).aligned(recipe)
    before, after = (exact_values(base, one, aim, PROMPTS, LENGTH)["divergence.kl_target"] for one in (base, made))
    assert after < 0.15 * before
