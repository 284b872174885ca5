"""A training that is killed goes on to the same weights, curve and bill; it leaves all that it promises."""

import csv
import json
from contextlib import suppress
from dataclasses import replace

import pytest
import torch
from training_worlds import HARD, world

from alignbench.aligners.training import loop
from alignbench.aligners.training.cdpg import CDPG
from alignbench.aligners.training.dpg import DPG
from alignbench.aligners.training.f_dpg import FDPG
from alignbench.aligners.training.gdc import GDC
from alignbench.aligners.training.grpo import GRPO
from alignbench.aligners.training.ppo import PPO
from alignbench.aligners.training.q_learning import QLearning
from alignbench.aligners.training.reinforce import Reinforce
from alignbench.aligners.training.sft import SFT
from alignbench.aligners.training.sft_control import SFTControl
from alignbench.aligners.training.soft_q import SoftQ

PLAIN = {"batch": 16, "lr": 0.05}
RECIPES = {
    "dpg": DPG(steps=14, pool=64, **PLAIN), "dpg replayed": DPG(steps=14, pool=64, replay=0.5, **PLAIN),
    "dpg by prefix": DPG(steps=14, pool=64, baseline="prefix", **PLAIN), "sft": SFT(steps=14, **PLAIN),
    "sft with an early stop": SFT(steps=70, data="fixed", draws=20, patience=2, held_out=8, batch=16, lr=0.3),
    "gdc": GDC(steps=24, adapt=6, pool=64, **PLAIN), "cdpg": CDPG(steps=14, **PLAIN),
    "f_dpg": FDPG(steps=14, f="js", pool=64, **PLAIN), "sft_control": SFTControl(steps=14, **PLAIN),
    "reinforce": Reinforce(steps=14, **PLAIN), "grpo": GRPO(steps=14, **PLAIN),
    "soft_q": SoftQ(steps=14, **PLAIN), "soft_q, soft": SoftQ(steps=24, backup="soft", sync=4, **PLAIN),
    "q_learning": QLearning(steps=24, tau=0.7, sync=4, **PLAIN),
    "ppo": PPO(steps=26, renew=2, target_kl=0.1, **PLAIN),
}  # fmt: skip
KILLED_AT = (3, 10, 21)


class Killed(Exception):
    """The process ends here."""


@pytest.fixture(autouse=True)
def every_step_is_saved(monkeypatch):
    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)


def killed(setting, recipe, at):
    """Train until step `at`, which is told but not saved."""

    def report(step, numbers):
        if step == at:
            raise Killed

    with suppress(Killed):
        replace(setting, report=report).aligned(recipe)


def curve(folder):
    """The lines of curve.csv without their seconds."""
    with next(folder.rglob("curve.csv")).open() as lines:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(lines)]


def bill(folder):
    """Tokens and steps that are booked; seconds and memory are the machine's."""
    found = json.loads(next(folder.rglob("cost.json")).read_text())
    return {k: v for k, v in found.items() if k not in ("seconds", "peak_bytes")}


def logits(policy):
    return policy.parameters[0].detach()


@pytest.mark.parametrize("name", RECIPES)
def test_a_killed_training_ends_with_the_same_weights_curve_and_bill(name, tmp_path):
    recipe, at_once, parts = RECIPES[name], tmp_path / "whole", tmp_path / "parts"
    whole = world(HARD, work=at_once).aligned(recipe)
    for at in KILLED_AT:
        killed(world(HARD, work=parts), recipe, at)
    resumed = world(HARD, work=parts).aligned(recipe)
    assert torch.equal(logits(whole), logits(resumed)) and whole.digest == resumed.digest
    assert curve(at_once) == curve(parts)
    assert bill(at_once) == bill(parts)
    asked_again(name, world(HARD, work=parts), recipe, resumed)


def asked_again(name, setting, recipe, had):
    """A second run trains nothing, and draws nothing."""
    steps = []
    before = bill(setting.work)
    again = replace(setting, report=lambda *a: steps.append(a)).aligned(recipe)
    assert not steps and again.digest == had.digest and bill(setting.work) == before


def test_planted_a_state_without_its_optimiser(tmp_path, monkeypatch):
    """Adam begins anew: other weights."""
    recipe = RECIPES["sft"]
    whole = world(HARD, work=tmp_path / "whole").aligned(recipe)
    killed(world(HARD, work=tmp_path / "parts"), recipe, 10)
    right = loop.Folder.resume

    def forgetful(self, policy, optimiser):
        found = right(self, policy, optimiser)
        optimiser.state.clear()
        return found

    monkeypatch.setattr(loop.Folder, "resume", forgetful)
    assert not torch.equal(logits(whole), logits(world(HARD, work=tmp_path / "parts").aligned(recipe)))


def test_planted_a_proposal_that_is_forgotten(tmp_path, monkeypatch):
    from alignbench.aligners.training.gdc import Adaptive

    recipe = RECIPES["gdc"]
    whole = world(HARD, work=tmp_path / "whole").aligned(recipe)
    assert any(float(row["proposal_step"]) for row in curve(tmp_path / "whole"))
    killed(world(HARD, work=tmp_path / "parts"), recipe, 21)
    monkeypatch.setattr(Adaptive, "resume", lambda self, step, state: None)
    assert not torch.equal(logits(whole), logits(world(HARD, work=tmp_path / "parts").aligned(recipe)))


def test_what_a_training_leaves(tmp_path):
    world(HARD, work=tmp_path).aligned(DPG(steps=4, pool=64, every=2, **PLAIN))
    (folder,) = (path.parent for path in tmp_path.rglob("recipe.json"))
    told = json.loads((folder / "recipe.json").read_text())
    assert told["finished"] and told["aligner"] == "dpg" and told["steps"] == 4 and told["seed"] == 0
    assert {"torch", "alignbench"} <= set(told["versions"])
    assert {"checkpoint-2", "checkpoint-4"} <= {path.name for path in folder.iterdir()}
    rows = curve(tmp_path)
    assert [float(row["step"]) for row in rows] == [1, 2, 3, 4]
    assert {"objective", "kl_base", "always", "drawn", "scored", "trained", "lr", "grad_norm"} <= set(rows[0])


def test_the_bill_counts_every_token(tmp_path):
    """Own draws and the pool are drawn, half of the rest is scored by the base, and trained on."""
    recipe = CDPG(steps=3, renew=1, **PLAIN)
    world(HARD, work=tmp_path).aligned(recipe)
    found = bill(tmp_path)
    assert found["steps"] == 3
    assert found["drawn"] == found["trained"] and 3 * 16 <= found["drawn"] <= 3 * 16 * 4
    assert 0 < found["scored"] <= found["drawn"]
