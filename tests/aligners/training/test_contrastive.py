"""Contrast and distillation: where they end, by all draws of a world, and by draws; what misses p."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from training_worlds import (
    BASE,
    HARD,
    LENGTH,
    PROMPTS,
    REWARD,
    Listed,
    gradient_of,
    log_law,
    moved,
    work_on,
    world,
)

from alignbench.aligners.selection.best_of_n import BestOfN
from alignbench.aligners.training.contrastive import Contrastive, info_nce
from alignbench.aligners.training.distil import Distil
from alignbench.errors import UsageError
from alignbench.generators.policy import policy_of
from alignbench.seeds import APART, Seed
from alignbench.types import collect, rows_of

AHEAD = {"batch": 32, "steps": 200}


# --- sets


def test_each_draw_of_p_stands_among_others_of_its_prompt_alone():
    work = work_on(world(HARD), policy_of(BASE))
    method, seen = Contrastive(**AHEAD).method(work), set()
    for step in range(5):
        batch = method.batches(step)["loss"]
        good, bad = batch.weight > 0, batch.weight < 0
        assert np.bincount(batch.group).tolist() == [8] * 4 and np.bincount(batch.group[good]).tolist() == [1] * 4
        assert (batch.log_ratio[good] > -np.inf).all() and (batch.draws.index[bad] >= 2 * APART).all()
        for number in range(4):
            assert len(set(batch.draws.prompt[batch.group == number])) == 1
        drawn = set(zip(batch.draws.prompt.tolist(), batch.draws.index.tolist(), strict=True))
        assert len(drawn) == 32 and not drawn & seen
        seen |= drawn


def test_the_loss_by_hand():
    f = torch.tensor([0.0, 1.0, -1.0, 2.0, 0.5, 0.0])
    known = type("Known", (), {"weight": torch.tensor([-1.0, 0.5, -1.0, -1.0, 2.0, -1.0]),
                               "group": torch.tensor([0, 0, 0, 1, 1, 1])})  # fmt: skip
    one = np.log(np.exp([0.0, 1.0, -1.0]).sum()) - 1.0
    two = np.log(np.exp([2.0, 0.5, 0.0]).sum()) - 0.5
    assert float(info_nce(f, known)) == pytest.approx((0.5 * one + 2.0 * two) / 2, rel=1e-5)


# --- where it ends: a draw of p and one of the base, all such pairs listed


class Listing:
    """All pairs of a draw of p and one of the base of its prompt, with their mass."""

    def __init__(self, target, base=None) -> None:
        self.listed = Listed(target=target)
        grids = [torch.cartesian_prod(mine, mine) for c in range(len(PROMPTS))
                 if len(mine := torch.as_tensor(np.flatnonzero(self.listed.draws.prompt == c)))]  # fmt: skip
        self.at = torch.cat(grids)
        p = torch.where(self.listed.log_p > -np.inf, self.listed.log_p.exp(), 0.0)
        self.mass = p[self.at[:, 0]] * self.listed.log_a.exp()[self.at[:, 1]]

    def loss(self, log_pi, temperature=1.0, score="ratio", mass=None):
        f = (log_pi if score == "likelihood" else log_pi - self.listed.log_a) / temperature
        mass = self.mass if mass is None else mass
        return (mass * (f[self.at].logsumexp(1) - f[self.at[:, 0]])).sum() / len(PROMPTS)

    def ended(self, steps=400, lr=0.1, **more) -> torch.Tensor:
        """(B,) log π after Adam on exact gradients."""
        logits = BASE.model.network.logits.detach().clone().requires_grad_(True)
        optimiser = torch.optim.Adam([logits], lr=lr)
        for step in range(steps):
            optimiser.param_groups[0]["lr"] = lr * min(1, 2 * (steps - step) / steps)
            optimiser.zero_grad()
            self.loss(log_law(logits, self.listed.draws), **more).backward()
            optimiser.step()
        return log_law(logits.detach(), self.listed.draws)

    def part(self, log_pi, log_p=None) -> float:
        """KL(p‖π) as a part of KL(p‖a)."""
        return self.listed.kl(log_pi, log_p) / self.listed.kl(self.listed.log_a)


TARGETS = {"hard": HARD, "reward": REWARD}


@pytest.mark.parametrize("target", TARGETS)
def test_it_ends_at_p(target):
    listing = Listing(TARGETS[target])
    assert listing.part(listing.ended()) < 0.01


@pytest.mark.parametrize("target", TARGETS)
def test_by_likelihood_it_misses_p(target):
    listing = Listing(TARGETS[target])
    assert listing.part(listing.ended(score="likelihood")) > 0.3
    assert "not p" in Contrastive(score="likelihood", steps=2).remark(HARD)
    assert Contrastive(steps=2).remark(HARD) == ""


def test_a_temperature_has_its_own_optimum():
    """a·(p/a)^τ: that of a reward τ times as large."""
    listing = Listing(REWARD)
    log_pi, listed = listing.ended(temperature=2.0), listing.listed
    other = listed.log_a + 2 * listed.log_ratio
    for c in range(len(PROMPTS)):
        other[listed.prompt == c] -= other[listed.prompt == c].logsumexp(0)
    assert listing.part(log_pi) > 0.2 and listing.part(log_pi, other) < 0.01
    assert "a·(p/a)^2, not p" in Contrastive(temperature=2.0, steps=2).remark(REWARD)


def test_planted_negatives_of_the_policy():
    """log π/a is then no longer what tells them apart: it ends elsewhere, from p itself."""
    listing = Listing(REWARD)
    listed = listing.listed
    logits = moved().parameters[0].detach().clone().requires_grad_(True)
    optimiser = torch.optim.Adam([logits], lr=0.05)
    for _ in range(400):
        log_pi = log_law(logits, listed.draws)
        mass = listed.log_p.exp()[listing.at[:, 0]] * log_pi.detach().exp()[listing.at[:, 1]]
        optimiser.zero_grad()
        listing.loss(log_pi, mass=mass).backward()
        optimiser.step()
    assert listing.part(log_law(logits.detach(), listed.draws)) > 0.05


@pytest.mark.parametrize("target", TARGETS)
def test_the_mean_of_estimates_is_the_exact_gradient(target):
    recipe, listing = Contrastive(negatives=1, **AHEAD), Listing(TARGETS[target])
    work, policy = work_on(world(TARGETS[target]), moved()), moved()
    logits = policy.parameters[0].detach().clone().requires_grad_(True)
    (exact,) = torch.autograd.grad(listing.loss(log_law(logits, listing.listed.draws)), logits)
    assert far(work, recipe, exact, 60) < 4


def far(work, recipe, exact, count):
    """The largest |t| of the mean of as many steps' gradients against the exact one, over 16 directions."""
    method = recipe.method(work)
    gaps = torch.stack([gradient_of(work, method, recipe, step) - exact for step in range(count)])
    directions = torch.randn((*exact.shape, 16), generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    found = torch.einsum("nrv,rvk->nk", gaps, directions)
    return float((found.mean(0) / (found.std(0) / np.sqrt(count))).abs().max())


@pytest.mark.slow
def test_by_draws_it_comes_near():
    recipe, listed = Contrastive(steps=300, batch=128, lr=0.05, cooldown=0.5), Listed(target=HARD)
    assert listed.kl_of(world(HARD).aligned(recipe)) / listed.kl(listed.log_a) < 0.2


# --- distillation


def test_distilled_it_is_its_teacher():
    """Best-of-2 of a reward, whose law is not p: π comes near the one, and not the other."""
    setting, listed = world(REWARD), Listed(target=REWARD)
    policy = setting.aligned(Distil(teacher="best_of_n:n=2", steps=300, batch=128, lr=0.1, cooldown=0.5))
    teacher = setting.aligned(BestOfN(2))
    drawn = collect(teacher.sample(PROMPTS, rows_of(2, 5000), max_tokens=LENGTH, seed=Seed(3)))
    keys = {(int(c), *row[row >= 0]): k for k, (c, row) in enumerate(
        zip(listed.draws.prompt, listed.draws.tokens, strict=True))}  # fmt: skip
    law = np.bincount([keys[int(c), *row[row >= 0]] for c, row in zip(drawn.prompt, drawn.tokens, strict=True)],
                      minlength=len(keys)) / 5000  # fmt: skip

    def kl(log_pi):
        kept = law > 0
        return float((law[kept] * (np.log(law[kept]) - log_pi[kept])).sum() / 2)

    log_pi = policy.log_prob(PROMPTS, listed.draws)
    assert kl(log_pi) < 0.2 * kl(listed.draws.log_prob)
    assert kl(log_pi) < 0.5 * kl(listed.log_p.numpy())
    assert policy.remark.startswith("its optimum is the law of its teacher")


def test_the_mean_of_estimates_is_the_gradient_of_the_teacher_s_likelihood():
    """Of rejection, whose law is p."""
    listed, recipe = Listed(target=HARD), Distil(teacher="rejection", **AHEAD)
    work, policy = work_on(world(HARD), moved()), moved()
    logits = policy.parameters[0].detach().clone().requires_grad_(True)
    p = torch.where(listed.log_p > -np.inf, listed.log_p.exp(), 0.0)
    (exact,) = torch.autograd.grad(-listed.mean(p * log_law(logits, listed.draws)), logits)
    assert far(work, recipe, exact, 60) < 4


@pytest.mark.parametrize(
    ("recipe", "given", "said"),
    [
        (Contrastive, {"negatives": 0}, "contrastive:negatives"),
        (Contrastive, {"temperature": 0.0}, "contrastive:temperature=0.0: must be a number above 0"),
        (Contrastive, {"score": "ratios"}, "Did you mean 'ratio'"),
        (Contrastive, {"batch": 12}, "contrastive:batch=12: must be a multiple of 8"),
        (Distil, {"teacher": "best_of"}, "distil: teacher"),
    ],
)
def test_options_that_are_none(recipe, given, said):
    with pytest.raises(UsageError) as told:
        recipe(**{"steps": 2, **given})
    assert said in str(told.value)
