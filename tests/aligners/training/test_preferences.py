"""Preferences: whose optimum is p and whose is not, by all pairs of a world that can be listed, and by draws."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from training_worlds import (
    BASE,
    FREE,
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

from alignbench.aligners.training import preference_losses as losses
from alignbench.aligners.training import preferences
from alignbench.aligners.training.pairs import PairDraws, paired, preference_batch, sigmoid
from alignbench.aligners.training.preferences import DPO, IPO, KTO, ORPO, SimPO, Squared
from alignbench.errors import AlignbenchError, UsageError
from alignbench.generators.hf.factory import hf
from alignbench.generators.policy import policy_of
from alignbench.task.reader import load_task
from alignbench.testing.worlds import save_network

EPSILON = 0.01
FLOOR = float(np.log(EPSILON))


# --- by all pairs


class Pairs:
    """All ordered pairs of draws of a prompt, with the chance that the base draws them and the label."""

    def __init__(self, target, beta: float = 1.0, labels: str = "bradley_terry") -> None:
        self.listed = Listed(target=target, floor=FLOOR)
        first, second = [], []
        for c in range(len(PROMPTS)):
            mine = torch.as_tensor(np.flatnonzero(self.listed.draws.prompt == c))
            grid = torch.cartesian_prod(mine, mine)
            first.append(grid[:, 0])
            second.append(grid[:, 1])
        self.at = torch.stack([torch.cat(first), torch.cat(second)], 1)
        r = self.listed.log_ratio[self.at]
        gap = r[:, 0] - r[:, 1]
        chosen = torch.sigmoid(beta * gap) if labels == "bradley_terry" else (gap > 0).to(gap)
        self.weight = 2 * self.listed.log_a[self.at].sum(1).exp() * chosen  # either may come first
        self.reward, self.length = r, torch.as_tensor(self.listed.draws.length).to(r)[self.at]

    def mean(self, by_pair: torch.Tensor) -> torch.Tensor:
        """Mean over prompts of the expectation of what pairs, the chosen draw first, have."""
        return (self.weight * by_pair).sum() / len(PROMPTS)

    def log_t(self, log_pi: torch.Tensor) -> torch.Tensor:
        return (log_pi - self.listed.log_a)[self.at]

    def part_left(self, loss, steps: int = 400, lr: float = 0.1) -> float:
        """KL(p_ε‖π) after Adam on exact gradients, over KL(p_ε‖a); `loss` is of log π (B,)."""
        logits = BASE.model.network.logits.detach().clone().requires_grad_(True)
        optimiser = torch.optim.Adam([logits], lr=lr)
        for step in range(steps):
            optimiser.param_groups[0]["lr"] = lr * min(1, 2 * (steps - step) / steps)
            optimiser.zero_grad()
            self.mean(loss(log_law(logits, self.listed.draws))).backward()
            optimiser.step()
        log_pi = log_law(logits.detach(), self.listed.draws)
        return self.listed.kl(log_pi) / self.listed.kl(self.listed.log_a)


TARGETS = {"hard": HARD, "reward": REWARD}


@pytest.mark.parametrize("beta", [1.0, 0.3])
@pytest.mark.parametrize("target", TARGETS)
def test_dpo_with_labels_of_its_beta_ends_at_p(target, beta):
    pairs = Pairs(TARGETS[target], beta)
    assert pairs.part_left(lambda log_pi: losses.dpo(pairs.log_t(log_pi), beta=beta)) < 2e-3


@pytest.mark.parametrize("target", TARGETS)
def test_squared_ends_at_p(target):
    pairs = Pairs(TARGETS[target])
    assert pairs.part_left(lambda log_pi: losses.squared(pairs.log_t(log_pi), pairs.reward)) < 2e-3


def test_planted_labels_that_do_not_know_beta():
    """β twice: in the loss, and not in the labels."""
    pairs = Pairs(REWARD, beta=1.0)
    assert pairs.part_left(lambda log_pi: losses.dpo(pairs.log_t(log_pi), beta=0.3)) > 0.5


def test_the_larger_reward_as_the_label_misses_p():
    pairs = Pairs(REWARD, labels="argmax")
    assert pairs.part_left(lambda log_pi: losses.dpo(pairs.log_t(log_pi), beta=1.0)) > 0.5


MISSING = {
    "ipo": lambda pairs, log_pi: losses.ipo(pairs.log_t(log_pi), beta=1.0),
    "ipo by token": lambda pairs, log_pi: losses.ipo(pairs.log_t(log_pi) / pairs.length, beta=1.0),
    "squared by token": lambda pairs, log_pi: losses.squared(
        pairs.log_t(log_pi) / pairs.length, pairs.reward / pairs.length
    ),
    "kto": lambda pairs, log_pi: losses.kto(pairs.log_t(log_pi), torch.zeros(()), beta=1.0),
    "simpo": lambda pairs, log_pi: losses.simpo(log_pi[pairs.at], pairs.length, beta=2.0, gamma=1.0),
    "orpo": lambda pairs, log_pi: losses.orpo(log_pi[pairs.at], pairs.length, weight=0.1),
}


@pytest.mark.parametrize("name", MISSING)
def test_what_the_field_has_besides_misses_p(name):
    """True labels, all pairs, and no draw but those that the base can make: it is the objective that misses."""
    pairs = Pairs(REWARD)
    assert pairs.part_left(lambda log_pi: MISSING[name](pairs, log_pi)) > 0.02


def test_planted_pairs_of_one_prompt_the_wrong_way_round():
    pairs = Pairs(REWARD)
    other = torch.as_tensor(pairs.listed.draws.prompt)[pairs.at[:, 0]] == 1

    def loss(log_pi):
        log_t = pairs.log_t(log_pi)
        return losses.dpo(torch.where(other[:, None], log_t.flip(1), log_t), beta=1.0)

    assert pairs.part_left(loss) > 0.5


def test_planted_a_base_of_another_prompt():
    pairs = Pairs(REWARD)
    log_a = pairs.listed.log_a.clone()
    half = len(log_a) // 2
    swapped = torch.cat([log_a[half:], log_a[:half]])  # the same continuations behind the other prompt
    assert pairs.part_left(lambda log_pi: losses.dpo((log_pi - swapped)[pairs.at], beta=1.0)) > 0.05


def test_losses_by_hand():
    log_t, length = torch.tensor([[0.5, -0.3]]), torch.tensor([[2.0, 4.0]])
    log_pi = torch.tensor([[-1.0, -4.0]])
    assert float(losses.dpo(log_t, beta=0.5)) == pytest.approx(-np.log(1 / (1 + np.exp(-0.5 * 0.8))))
    assert float(losses.squared(log_t, torch.tensor([[1.0, 0.5]]))) == pytest.approx(0.5 * 0.3**2)
    assert float(losses.ipo(log_t, beta=0.25)) == pytest.approx((0.8 - 2) ** 2)
    assert float(losses.kto(log_t, torch.tensor(0.1), beta=2.0)) == pytest.approx(
        2 - sigmoid(2.0 * 0.4) - sigmoid(2.0 * 0.4)
    )
    assert float(losses.kto(log_t, torch.tensor(-5.0), beta=1.0)) == pytest.approx(2 - sigmoid(0.5) - sigmoid(0.3))
    assert float(losses.simpo(log_pi, length, beta=2.0, gamma=0.5)) == pytest.approx(
        -np.log(sigmoid(2.0 * (-0.5 + 1.0) - 0.5))
    )
    odds = [np.exp(-0.5) / (1 - np.exp(-0.5)), np.exp(-1.0) / (1 - np.exp(-1.0))]
    wanted = 0.5 - 0.1 * np.log(sigmoid(np.log(odds[0]) - np.log(odds[1])))
    assert float(losses.orpo(log_pi, length, weight=0.1)) == pytest.approx(wanted)


# --- by draws


def drawn(labels="bradley_terry", beta=1.0, count=2048, target=REWARD):
    work = work_on(world(target), policy_of(BASE))
    return PairDraws(work, floor=FLOOR, labels=labels, beta=beta).batch(work.rows(0, count, 2))


@pytest.mark.parametrize("beta", [1.0, 0.3])
def test_labels_are_those_of_bradley_and_terry(beta):
    """The better one is chosen as often as they say, whichever was drawn first, within four standard errors."""
    batch = drawn(beta=beta)
    order = np.lexsort((batch.draws.index, batch.group)).reshape(-1, 2)
    assert (batch.draws.prompt[order[:, 0]] == batch.draws.prompt[order[:, 1]]).all()
    assert (batch.draws.index[order] // 2 == batch.draws.index[order[:, :1]] // 2).all()
    assert (batch.weight[order].sum(1) == 0).all() and (np.abs(batch.weight) == 1).all()
    gap = np.diff(batch.log_ratio[order], axis=1)[:, 0]
    for value in np.unique(gap):
        mine = gap == value
        chance, share = sigmoid(beta * value), (batch.weight[order][mine, 1] > 0).mean()
        assert abs(share - chance) <= 4 * np.sqrt(chance * (1 - chance) / mine.sum()) + 1e-9


def test_ties_are_no_preference_where_the_larger_reward_is_chosen():
    batch = drawn(labels="argmax")
    order = np.lexsort((batch.draws.index, batch.group)).reshape(-1, 2)
    gap = np.diff(batch.log_ratio[order], axis=1)[:, 0]
    assert (batch.weight[order][:, 1] == np.sign(gap)).all() and (gap == 0).any()


def test_the_same_pairs_whatever_the_step_asks_for():
    work = work_on(world(REWARD), policy_of(BASE))
    whole = PairDraws(work, floor=FLOOR).batch(work.rows(0, 64, 2))
    parts = [PairDraws(work, floor=FLOOR).batch(work.rows(step, 16, 2)) for step in range(4)]
    told = {(c, i): w for c, i, w in zip(whole.draws.prompt, whole.draws.index, whole.weight, strict=True)}
    for part in parts:
        for c, i, w in zip(part.draws.prompt, part.draws.index, part.weight, strict=True):
            assert told[c, i] == w


def exact_gradient_of(recipe, target):
    pairs, policy = Pairs(target, recipe.beta), moved()
    logits = policy.parameters[0].detach().clone().requires_grad_(True)
    log_t = pairs.log_t(log_law(logits, pairs.listed.draws))
    if isinstance(recipe, Squared):
        pairs.weight = pairs.listed.log_a[pairs.at].sum(1).exp()
        loss = losses.squared(log_t, pairs.reward)
    else:
        loss = losses.dpo(log_t, beta=recipe.beta)
    return torch.autograd.grad(pairs.mean(loss), logits)[0]


STEPS = {"batch": 64, "steps": 200}


def estimates(recipe, target, count=200):
    """The largest |t| of the mean of as many steps' gradients against the exact one, over 16 directions."""
    work, exact = work_on(world(target), moved()), exact_gradient_of(recipe, target)
    method = recipe.method(work)
    gaps = torch.stack([gradient_of(work, method, recipe, step) - exact for step in range(count)])
    directions = torch.randn((*exact.shape, 16), generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    found = torch.einsum("nrv,rvk->nk", gaps, directions)
    return float((found.mean(0) / (found.std(0) / np.sqrt(count))).abs().max())


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("recipe", [DPO(beta=0.5, **STEPS), Squared(**STEPS)], ids=["dpo", "squared"])
def test_the_mean_of_estimates_is_the_exact_gradient(recipe, target):
    assert estimates(recipe, TARGETS[target]) < 4


def test_planted_chosen_and_rejected_swapped_for_one_prompt(monkeypatch):
    right = PairDraws.block

    def swapped(self, number):
        found = right(self, number)
        return replace(found, weight=np.where(found.draws.prompt == 1, -found.weight, found.weight))

    monkeypatch.setattr(PairDraws, "block", swapped)
    assert estimates(DPO(beta=2.0, **STEPS), REWARD) > 5


def test_planted_beta_applied_twice(monkeypatch):
    right = DPO.log_t
    monkeypatch.setattr(preferences.Prefers, "log_t", lambda self, *given: self.beta * right(self, *given))
    assert estimates(DPO(beta=2.0, **STEPS), REWARD) > 5


def test_planted_a_reference_of_the_other_draw(monkeypatch):
    def crossed(self, log_pi, known):
        return paired(log_pi, known) - paired(known.log_base, known).flip(1)

    monkeypatch.setattr(preferences.Prefers, "log_t", crossed)
    assert estimates(DPO(beta=2.0, **STEPS), REWARD) > 5


@pytest.mark.slow
@pytest.mark.parametrize(("name", "target"), [("dpo", "hard"), ("squared", "reward")])
def test_a_thousand_steps_by_draws(name, target):
    recipe = {"dpo": DPO, "squared": Squared}[name](steps=1000, batch=128, lr=0.05, cooldown=0.5)
    listed = Listed(target=TARGETS[target], floor=FLOOR)
    left = listed.kl_of(world(TARGETS[target]).aligned(recipe)) / listed.kl(listed.log_a)
    assert left < {"dpo": 0.15, "squared": 0.02}[name]


def test_rows_say_what_they_aim_at():
    for recipe in (IPO(steps=2), KTO(steps=2), SimPO(steps=2), ORPO(steps=2), DPO(steps=2, labels="argmax")):
        assert "its optimum is not p" in recipe.remark(REWARD), recipe.name
    for recipe in (DPO(steps=2), Squared(steps=2)):
        assert recipe.remark(REWARD) == "" and "p_ε" in recipe.remark(HARD)


# --- preferences of a task


TOLD = [("sun", "rain rain", "wind"), ("wind", "wind sun", "rain"), ("sun", "sun", "rain rain rain rain rain rain")]


def test_a_task_s_own_preferences_are_learned(tmp_path):
    """On a table that is told twenty times that "rain rain" is better than "wind", it is likelier."""
    setting = world(FREE, preferences=tuple(TOLD))
    work = work_on(setting, policy_of(BASE))
    batch = preference_batch(work, 0, 6)
    assert [batch.prompts[c] for c in batch.draws.prompt] == ["sun", "sun", "wind", "wind", "sun", "sun"]
    assert batch.weight.tolist() == [1, -1] * 3 and batch.group.tolist() == [0, 0, 1, 1, 2, 2]
    assert batch.draws.finished.tolist() == [True] * 5 + [False], "what is longer than max_tokens is cut"
    assert batch.draws.length.max() == LENGTH
    again = preference_batch(work, 1, 6)
    assert (again.draws.tokens == batch.draws.tokens).all()


def test_dpo_by_a_file_of_a_user(tmp_path, command):
    """As docs/training.md has it: a jsonl file, a task that names it, one command."""
    (tmp_path / "mine.jsonl").write_text(
        "".join(json.dumps(dict(zip(FIELDS, one, strict=True))) + "\n" for one in TOLD)
    )
    (tmp_path / "mine.yaml").write_text(MINE)
    network = save_network(tmp_path / "net", ("rain", "sun", "wind"), kind="llama")
    told = command("align", "--model", f"hf:pretrained={network}", "--aligner", "dpo:data=preferences,steps=30,lr=0.01",
                   "--tasks", "mine.yaml", "--out", "ckpt")  # fmt: skip
    assert told.code == 0, told.err
    base, policy = hf(pretrained=str(network)), hf(pretrained=str(network), peft=str(tmp_path / "ckpt"))
    work = work_on(world(FREE, base, preferences=tuple(TOLD)), policy_of(base))
    draws = preference_batch(work, 0, 6)
    gain = (policy.log_prob(draws.prompts, draws.draws) - base.log_prob(draws.prompts, draws.draws)).reshape(3, 2)
    assert (gain[:, 0] > gain[:, 1]).all()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"prompt": "a", "chosen": "b"}, "record 0 has no field 'rejected'"),
        ({"prompt": "a", "chosen": "b", "rejected": 3}, "rejected of record 0 is 3, not a text"),
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "record 0: chosen and rejected are the same text"),
        ({"prompt": "rain", "chosen": "b", "rejected": "c"}, "preferences has the task's own prompt"),
    ],
)
def test_files_that_hold_no_preferences(tmp_path, line, said):
    (tmp_path / "mine.jsonl").write_text(json.dumps(line) + "\n")
    (tmp_path / "mine.yaml").write_text(MINE)
    with pytest.raises(AlignbenchError) as told:
        load_task(tmp_path / "mine.yaml")
    assert said in str(told.value)


def test_preferences_that_are_not_there():
    with pytest.raises(UsageError, match="the task has none: give its YAML 'preferences'"):
        world(REWARD).aligned(DPO(steps=2, data="preferences"))
    with pytest.raises(UsageError, match="it reads rewards, which preferences do not tell"):
        Squared(data="preferences")


FIELDS = ("prompt", "chosen", "rejected")
MINE = """
name: mine
version: 1
summary: Ours.
prompts: [rain]
max_tokens: 4
features: {sunny: {feature: contains_any, words: [sun]}}
target: [{feature: sunny, always: true}]
preferences: {source: mine.jsonl}
"""
