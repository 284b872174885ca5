"""Values of next tokens: whose are right, where each kind ends, and what a head over hidden states learns of them."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from reward_worlds import EPSILON, by_token_law
from training_worlds import BASE, HARD, LENGTH, PROMPTS, REWARD, ROWS, STRONG, WORDS, Listed, work_on, world

from alignbench.aligners.training import soft_q
from alignbench.aligners.training.backups import backed_up, expectile, inconsistent, squared
from alignbench.aligners.training.passes import Passes
from alignbench.aligners.training.q_learning import QLearning
from alignbench.aligners.training.soft_q import SoftQ
from alignbench.generators.exact.world import enumerate_draws
from alignbench.generators.head import HeadedLaw, Valued, Values
from alignbench.generators.policy import policy_of

TARGETS = {"hard": HARD, "reward": REWARD, "strong": STRONG}
LOG_A = torch.log_softmax(BASE.model.network.logits, -1)


def listed_of(target):
    return Listed(target=target, floor=float(np.log(EPSILON)))


def soft(log_a, q):
    return torch.logsumexp(log_a + q, -1)


def largest(log_a, q):
    return q.max()


def linear(log_a, q):
    return (log_a.exp() * q).sum()


def expectile_of(tau):
    def found(log_a, q):
        low, high = float(q.min()), float(q.max())
        for _ in range(100):
            middle = (low + high) / 2
            gap = q - middle
            slope = (log_a.exp() * torch.where(gap < 0, 1 - tau, tau) * gap).sum()
            low, high = (middle, high) if slope > 0 else (low, middle)
        return torch.tensor(low, dtype=q.dtype)

    return found


def q_table(target, backup) -> torch.Tensor:
    """(rows, V) Q by dynamic programming: r at a draw's end, `backup` of what follows before it."""
    listed, size = listed_of(target), len(WORDS) + 1
    reward = {(int(c), *row[row >= 0].tolist()): float(r) for c, row, r in
              zip(listed.draws.prompt, listed.draws.tokens, listed.log_ratio, strict=True)}  # fmt: skip
    q = torch.zeros(len(PROMPTS) * ROWS, size, dtype=torch.float64)

    def fill(c, number, said):
        row = c * ROWS + number
        for v in range(size):
            draw = (c, *said, v)
            q[row, v] = reward[draw] if draw in reward else fill(c, len(WORDS) * number + 1 + v, (*said, v))
        return backup(LOG_A[row], q[row])

    for c in range(len(PROMPTS)):
        fill(c, 0, ())
    return q


def part_of(target, q):
    """KL(p‖π) of π ∝ a·e^Q as a part of KL(p‖a)."""
    listed = Listed(target=target)
    return listed.kl(by_token_law(LOG_A + q, listed.draws).sum(1)) / listed.kl(listed.log_a)


# --- whose values are right

ENDS = {
    "soft": (soft, {"hard": (0.0, 0.0135), "reward": (0.0, 1e-9), "strong": (0.0, 1e-9)}),
    "hard": (largest, {"hard": (0.05, 0.6), "reward": (0.05, 0.6), "strong": (0.02, 0.6)}),
    "expectile": (expectile_of(0.7), {"hard": (0.03, 0.5), "reward": (0.001, 0.1), "strong": (0.005, 0.3)}),
    "linear": (linear, {"hard": (0.3, 1.0), "reward": (0.002, 0.1), "strong": (0.02, 0.5)}),
}
"""Where π ∝ a·e^Q ends, as a part of KL(p‖a), from and to; of a hard target p_ε itself is at 0.0115."""


@pytest.mark.parametrize("name", ENDS)
@pytest.mark.parametrize("target", TARGETS)
def test_soft_values_alone_reach_p(name, target):
    backup, bounds = ENDS[name]
    low, high = bounds[target]
    assert low - 1e-9 <= part_of(TARGETS[target], q_table(TARGETS[target], backup)) <= high


# --- losses are least there


def columns(target, q, backup):
    """What a head with Q says of all listed draws: log(π/a), V, and the values before each token by `backup`."""
    listed = listed_of(target)
    draws = listed.draws
    base, own = by_token_law(LOG_A, draws), by_token_law(LOG_A + q, draws)
    v, other = torch.zeros_like(base), torch.zeros_like(base)
    for i, (c, row) in enumerate(zip(draws.prompt.tolist(), draws.tokens.tolist(), strict=True)):
        number = 0
        for t in range(draws.length[i]):
            at = c * ROWS + number
            v[i, t], other[i, t] = soft(LOG_A[at], q[at]), backup(LOG_A[at], q[at])
            number = len(WORDS) * number + 1 + row[t]
    inside = torch.as_tensor(np.arange(LENGTH) < draws.length[:, None])
    return own - base, v, other, listed.log_ratio, inside


@pytest.mark.parametrize("target", TARGETS)
def test_losses_are_0_at_their_own_values(target):
    target = TARGETS[target]
    log_t, v, _, reward, inside = columns(target, q_table(target, soft), soft)
    assert float(inconsistent(log_t, v, reward, inside)) < 1e-18
    assert float(squared(log_t + v, backed_up(v, reward, inside), inside)) < 1e-18
    for backup in (largest, linear, expectile_of(0.7)):
        log_t, v, other, reward, inside = columns(target, q_table(target, backup), backup)
        assert float(squared(log_t + v, backed_up(other, reward, inside), inside)) < 1e-18
        assert float(inconsistent(log_t, v, reward, inside)) > 1e-4


def test_the_expectile_is_where_its_loss_is_least():
    q, log_a = torch.tensor([0.0, 1.0, 5.0], dtype=torch.float64), torch.tensor([0.5, 0.3, 0.2]).double().log()
    draws = torch.repeat_interleave(q, torch.tensor([5, 3, 2]))[:, None]
    inside = torch.ones_like(draws, dtype=torch.bool)
    best = expectile_of(0.7)(log_a, q)
    losses = [float(expectile(draws * 0 + best + off, draws, inside, tau=0.7)) for off in (-0.1, 0.0, 0.1)]
    assert losses[1] < min(losses[0], losses[2])
    half = expectile_of(0.5)(log_a, q)
    assert float(half) == pytest.approx(float(linear(log_a, q)), abs=1e-6)


def test_planted_value_target_one_step_late():
    log_t, v, _, reward, inside = columns(HARD, q_table(HARD, soft), soft)
    late = torch.where(inside, torch.cat([v[:, 1:], v[:, -1:] * 0], 1), 0)
    assert float(squared(log_t + v, backed_up(late, reward, inside), inside)) > 1e-3


def test_planted_eos_without_its_reward():
    log_t, v, _, reward, inside = columns(HARD, q_table(HARD, soft), soft)
    is_last = inside & ~torch.cat([inside[:, 1:], torch.zeros_like(inside[:, :1])], 1)
    wanted = torch.where(is_last & (inside.sum(1) < LENGTH)[:, None], 0.0, backed_up(v, reward, inside))
    assert float(squared(log_t + v, wanted, inside)) > 1e-3


# --- what a head says


def test_what_a_head_says_is_what_its_law_does():
    policy = policy_of(BASE, "head:rank=500")
    assert isinstance(policy, HeadedLaw)
    q = torch.randn(policy.head.up.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        policy.head.up += q
    listed = listed_of(REWARD)
    said = Valued.of(Values(policy, policy.head)(PROMPTS, listed.draws))
    log_t, v, most, _, inside = columns(REWARD, q, largest)
    assert torch.allclose(said.log_pi - by_token_law(LOG_A, listed.draws), log_t, atol=1e-10)
    assert torch.allclose(said.log_t, log_t, atol=1e-10)
    assert torch.allclose(said.v, v, atol=1e-10) and torch.allclose(said.soft, v, atol=1e-10)
    assert torch.allclose(said.q_max, most, atol=1e-10) and torch.allclose(said.q, (log_t + v) * inside, atol=1e-10)
    assert torch.allclose(policy.module(PROMPTS, listed.draws), said.log_pi)
    assert np.allclose(policy.token_log_prob(PROMPTS, listed.draws), said.log_pi.detach().numpy())


def test_the_largest_q_is_of_what_the_base_can_say():
    """Of a base that cuts tokens, none of those that it cuts."""
    base = BASE.warped(top_k=2)
    policy = policy_of(base, "head:rank=500")
    with torch.no_grad():
        policy.head.up += torch.randn(policy.head.up.shape, generator=torch.Generator().manual_seed(0)).double()
    draws = enumerate_draws(base, PROMPTS, max_tokens=1)
    said = Valued.of(Values(policy, policy.head)(PROMPTS, draws))
    for c in range(len(PROMPTS)):
        here = draws.prompt == c
        assert here.sum() == 2
        assert torch.allclose(said.q_max[here, 0], said.q[here, 0].max(), atol=1e-12)


# --- the mean of estimates


def moved_head(target):
    """A method's work with a head that is neither 0 nor right."""
    policy = policy_of(BASE, "head:rank=500")
    source = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in policy.parameters:
            p += 0.5 * torch.randn(p.shape, generator=source, dtype=p.dtype)
    return work_on(world(target), policy)


AT_WORK = {
    "path": SoftQ(steps=2, batch=64), "soft": SoftQ(steps=2, batch=64, backup="soft"),
    "hard": QLearning(steps=2, batch=64), "expectile": QLearning(steps=2, batch=64, tau=0.7),
}  # fmt: skip


def exact_loss(name, work, target_head):
    """The loss of all base draws, by their mass, over the mean of their tokens, as equations have it."""
    listed = listed_of(REWARD)
    draws, said = listed.draws, Valued.of(Values(work.policy, target_head)(PROMPTS, listed.draws))
    inside = torch.as_tensor(np.arange(draws.tokens.shape[1]) < draws.length[:, None])
    mass, r = listed.log_a.exp()[:, None], listed.log_ratio[:, None]
    q, last = said.log_t + said.v, inside & (inside.long().cumsum(1) == torch.as_tensor(draws.length)[:, None])

    def after(values):
        return torch.where(last, r, torch.cat([values[:, 1:], torch.zeros_like(r)], 1)).detach()

    if name == "path":
        later = torch.stack([(said.log_t * inside)[:, t:].sum(1) for t in range(inside.shape[1])], 1)
        loss = (said.v + later - r).square() / 2
    elif name == "expectile":
        gap = q.detach() - said.state_value
        loss = (q - after(said.state_value)).square() / 2 + torch.where(gap < 0, 0.3, 0.7) * gap.square()
    else:
        loss = (q - after(said.soft if name == "soft" else said.q_max)).square() / 2
    return (mass * loss * inside).sum() / (mass * inside).sum()


@pytest.mark.parametrize("name", AT_WORK)
def test_the_mean_of_estimates_is_the_exact_gradient(name, count=60):
    """Of sums over tokens: a step's mean is a quotient, of which only the parts have the right means."""
    work, recipe = moved_head(REWARD), AT_WORK[name]
    method = recipe.method(work)
    parameters = work.policy.parameters
    method.batches(0)  # the target head is a copy of the head as it is

    def flat():
        return torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in parameters])

    exact_loss(name, work, method.target).backward()
    exact, gaps = flat(), []
    for step in range(count):
        batch = method.batches(step)["loss"]
        for p in parameters:
            p.grad = None
        Passes(work, recipe, method.module).back(batch, partial(method.loss, "loss"))
        gaps.append((flat() - exact) * float(batch.draws.length.sum()))
    directions = torch.randn((len(exact), 16), generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    found = torch.stack(gaps) @ directions
    assert float((found.mean(0) / (found.std(0) / np.sqrt(count))).abs().max()) < 4


# --- by draws


def left(recipe, target):
    listed = Listed(target=target)
    return listed.kl_of(world(target).aligned(recipe)) / listed.kl(listed.log_a)


SHORT = {"steps": 150, "batch": 128, "lr": 0.1, "adapter": "head:rank=500"}


@pytest.mark.parametrize("backup", soft_q.BACKUPS)
def test_in_few_steps_it_comes_near(backup):
    assert left(SoftQ(backup=backup, **SHORT), HARD) < 0.1


LONG = {"steps": 1000, "batch": 128, "lr": 0.1, "cooldown": 0.5, "adapter": "head:rank=500"}
LEFT = {
    "path, hard": (SoftQ(**LONG), HARD, 0.0, 0.03), "path, reward": (SoftQ(**LONG), REWARD, 0.0, 0.01),
    "soft, hard": (SoftQ(backup="soft", **LONG), HARD, 0.0, 0.03),
    "soft, reward": (SoftQ(backup="soft", **LONG), REWARD, 0.0, 0.01),
    "hard": (QLearning(**LONG), REWARD, 0.03, 0.6), "ilql": (QLearning(tau=0.7, **LONG), HARD, 0.03, 0.5),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", LEFT)
def test_a_thousand_steps_of_64_draws_a_prompt(name):
    recipe, target, low, high = LEFT[name]
    assert low <= left(recipe, target) <= high


def test_planted_target_head_that_is_never_renewed(monkeypatch):
    """Then Q of every token but the last is what it was at first."""
    recipe = SoftQ(backup="soft", **SHORT)
    right = left(recipe, HARD)
    monkeypatch.setattr(soft_q.ValueSteps, "_renew", lambda self: None)
    assert left(recipe, HARD) > right + 0.2


@pytest.mark.parametrize(("recipe", "said"), [(SoftQ(), ""), (QLearning(), "largest"), (QLearning(tau=0.8), "0.8-")])
def test_what_rows_say(recipe, said):
    found = recipe.remark(REWARD)
    assert said in found and ("not p" in found) is bool(said)
    assert "ε = 0.01" in recipe.remark(HARD)
