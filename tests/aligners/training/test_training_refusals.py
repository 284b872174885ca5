"""What cannot be trained, or is asked wrongly, is one line; nothing is lost."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from training_worlds import BASE, HARD, PROMPTS, REWARD, Listed, has, work_on, world

from alignbench.aligners.training import loop, losses, passes
from alignbench.aligners.training.cdpg import CDPG
from alignbench.aligners.training.control_code import ControlCode
from alignbench.aligners.training.dpg import DPG
from alignbench.aligners.training.f_dpg import FDPG
from alignbench.aligners.training.folder import WEIGHTS
from alignbench.aligners.training.gdc import GDC
from alignbench.aligners.training.grpo import GRPO
from alignbench.aligners.training.ppo import PPO
from alignbench.aligners.training.prompt_tuning import PromptTuning
from alignbench.aligners.training.q_learning import QLearning
from alignbench.aligners.training.reinforce import Reinforce
from alignbench.aligners.training.sft import SFT
from alignbench.aligners.training.sft_control import SFTControl
from alignbench.aligners.training.soft_q import SoftQ
from alignbench.errors import AlignbenchError, RunError, StoreError, Unsupported, UsageError
from alignbench.generators.checkpoint import set_weights
from alignbench.generators.exact.world import exact
from alignbench.generators.hf.factory import hf
from alignbench.generators.policy import policy_of
from alignbench.seeds import Seed
from alignbench.target import Constraint, Target
from alignbench.testing.worlds import save_network

BRIEF = {"steps": 4, "batch": 8, "lr": 0.05}


def refused(kind, do, *says):
    """One line of this kind of error that says so."""
    with pytest.raises(kind) as found:
        do()
    text = str(found.value)
    assert "\n" not in text and text, text
    for part in says:
        assert part in text, text
    return text


class BlackBox:
    """Text comes out, and nothing else is known."""

    name = "box"

    def sample(self, prompts, rows, *, max_tokens, seed):
        yield from BASE.sample(prompts, rows, max_tokens=max_tokens, seed=seed)


@pytest.mark.parametrize("base", [BlackBox(), exact(words="rain sun wind")], ids=["black box", "exact"])
@pytest.mark.parametrize("recipe", [DPG(**BRIEF), SFT(**BRIEF), SFTControl(**BRIEF)], ids=lambda recipe: recipe.name)
def test_a_base_without_weights(base, recipe):
    refused(Unsupported, lambda: world(HARD, base).aligned(recipe), "no weights that can be trained")


def test_a_quantised_base(tmp_path):
    folder = save_network(tmp_path, ("rain", "sun", "wind"), kind="llama")
    base = hf(pretrained=str(folder), quantize="int8", device="cpu")
    refused(
        Unsupported, lambda: world(HARD, base).aligned(DPG(**BRIEF)), "its weights are quantised, and are not trained"
    )


def never():
    """A target that the world cannot keep."""
    target = Target((Constraint("snow", "always"),), {}, {"snow": (0.0, 1.0)}, measures={"snow": has("snow")})
    return target.fitted({}, np.zeros(0, int), {}, np.zeros(0, int), PROMPTS)


@pytest.mark.parametrize("recipe", [DPG(pool=64, **BRIEF), GDC(pool=64, **BRIEF), FDPG(pool=64, **BRIEF)],
                         ids=lambda recipe: recipe.name)  # fmt: skip
def test_no_draw_of_p_to_learn_from(recipe):
    refused(Unsupported, lambda: world(never()).aligned(recipe), "no draw of p to learn from", "pool=", "'sun'")


@pytest.mark.parametrize("recipe", [Reinforce, GRPO, PPO])
def test_a_base_that_cuts_tokens_is_infinitely_far(recipe):
    refused(Unsupported, lambda: world(HARD, BASE.warped(top_k=2)).aligned(recipe(**BRIEF)), "soon infinite", "top_k")


@pytest.mark.parametrize("recipe", [Reinforce, GRPO, PPO])
def test_one_draw_a_step_is_compared_with_none(recipe):
    refused(UsageError, lambda: recipe(**BRIEF | {"batch": 1}), ":batch=1", "2 at least")


def test_a_head_on_an_encoder_decoder(tmp_path):
    base = hf(pretrained=str(save_network(tmp_path, ("rain", "sun", "wind"), kind="t5")), device="cpu")
    refused(Unsupported, lambda: world(HARD, base).aligned(SoftQ(**BRIEF)), "no hidden states for a head")


def test_what_cannot_be_trained_leaves_no_training_behind(tmp_path):
    (tmp_path / "draws").mkdir()
    refused(Unsupported, lambda: world(never()).aligned(DPG(pool=64, **BRIEF), out=tmp_path), "no draw of p")
    assert [path.name for path in tmp_path.iterdir()] == ["draws"]
    refused(Unsupported, lambda: world(never(), work=tmp_path).aligned(DPG(pool=64, **BRIEF)), "no draw of p")
    refused(Unsupported, lambda: world(base=BlackBox(), work=tmp_path).aligned(DPG(**BRIEF)), "no weights")
    assert [path.name for path in tmp_path.iterdir()] == ["draws"]


def test_no_draw_of_p_for_sft(monkeypatch):
    from alignbench.aligners.training import sft

    right = sft.TargetDraws
    monkeypatch.setattr(sft, "TargetDraws", lambda work, **more: right(work, cap=256, **more))
    refused(Unsupported, lambda: world(never()).aligned(SFT(**BRIEF)), "no draw of p to learn from", "cdpg")


def test_cdpg_waits_for_draws_of_p():
    """It learns nothing while it has no Z_c; no number is invented."""
    policy = world(never()).aligned(CDPG(**BRIEF))
    assert torch.equal(policy.parameters[0].detach(), BASE.model.network.logits)


def test_a_lambda_for_each_prompt_and_other_prompts_to_train_on(tmp_path):
    asked = Constraint("sun", "moment", wanted=0.9, per="prompt")
    target = Target((asked,), {}, {"sun": (0.0, 1.0)}, measures={"sun": has("sun")})
    values, prompt = np.array([0.0, 1.0] * 20), np.repeat([0, 1], 20)
    target = target.fitted({"sun": values}, prompt, {"sun": values}, prompt, PROMPTS)
    setting = replace(world(target), train=("wind",))
    refused(UsageError, lambda: setting.aligned(SFT(**BRIEF)), "λ for each of the task's prompts", "'train'")
    setting = replace(setting, work=tmp_path / "aligned")
    refused(UsageError, lambda: setting.aligned(SFT(**BRIEF)), "λ for each of the task's prompts")
    assert not list(tmp_path.rglob("*"))


# --- a loss that is no number


def keep_every_step(monkeypatch):
    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)


def spoilt(at, monkeypatch):
    """log π·weight is NaN from the call `at` on."""
    calls, right = [], losses.likelihood

    def likelihood(log_pi, weight):
        calls.append(1)
        return right(log_pi, weight) * (math.nan if len(calls) >= at else 1)

    for name in ("dpg", "sft"):
        monkeypatch.setattr(f"alignbench.aligners.training.{name}.likelihood", likelihood)


def test_a_loss_that_is_no_number_names_the_step_and_keeps_the_state_before(tmp_path, monkeypatch):
    recipe = SFT(**BRIEF | {"steps": 9})
    whole = world(HARD, work=tmp_path / "whole").aligned(recipe)
    keep_every_step(monkeypatch)
    with monkeypatch.context() as patch:
        spoilt(5, patch)
        text = refused(
            RunError, lambda: world(HARD, work=tmp_path / "kept").aligned(recipe), "NaN", "step 5", "lr=0.05"
        )
    (folder,) = (path.parent for path in (tmp_path / "kept").rglob("recipe.json"))
    assert str(folder) in text
    assert json.loads((folder / "state.json").read_text())["step"] == 4
    resumed = world(HARD, work=tmp_path / "kept").aligned(recipe)
    assert torch.equal(whole.parameters[0], resumed.parameters[0])


def test_the_weights_before_a_loss_that_is_no_number_are_kept_though_no_state_was_saved_yet(tmp_path, monkeypatch):
    recipe = DPG(**BRIEF | {"steps": 9}, pool=64)
    three = world(HARD).aligned(replace(recipe, steps=3, cooldown=0.0))
    with monkeypatch.context() as patch:
        spoilt(4, patch)
        text = refused(RunError, lambda: world(HARD, work=tmp_path).aligned(replace(recipe, cooldown=0.0)), "step 4")
    (place,) = tmp_path.rglob("checkpoint-3")
    assert text.endswith(f"the weights after step 3 are kept in {place}")
    kept = policy_of(BASE)
    set_weights(place / WEIGHTS, kept.module)
    assert torch.equal(kept.parameters[0], three.parameters[0])


def test_a_rate_that_breaks_everything():
    refused(
        RunError, lambda: world().aligned(SFT(steps=9, batch=8, lr=1e308, warmup=0)), "no number", "lower lr=1e+308"
    )


def test_rewards_beyond_what_a_float_holds():
    """e^{r/β} overflows, log Z does not: planted as a mean of P/a it was ∞, and nothing was learnt without a word."""
    steep = Constraint("winds", "reward", beta=0.002)
    target = replace(REWARD, constraints=(steep,)).fitted({}, np.zeros(0, int), {}, np.zeros(0, int), PROMPTS)
    policy = world(target).aligned(CDPG(steps=1, batch=8))
    method = DPG(pool=2000).method(work_on(world(target), policy))
    listed = Listed(target=target)
    assert method.log_z == pytest.approx(listed.log_z.numpy(), abs=1) and listed.log_z.min() > 710
    own = CDPG(batch=4000, renew=1).method(work_on(world(target), policy))
    own.batches(0)
    assert np.isfinite(own.log_z).all() and own.log_z.min() > 710


def test_memory_that_runs_out_with_one_draw(monkeypatch):
    def full(self, batch):
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(passes.Passes, "forward", full)
    refused(RunError, lambda: world().aligned(SFT(**BRIEF)), "memory ran out", "lora:r=4")


# --- folders


def test_another_training_s_folder(tmp_path):
    world().aligned(SFT(**BRIEF), out=tmp_path)
    before = (tmp_path / "recipe.json").read_text()
    refused(UsageError, lambda: world().aligned(SFT(**BRIEF | {"steps": 5}), out=tmp_path), "another training", "sft")
    refused(UsageError, lambda: replace(world(), seed=Seed(1, "train")).aligned(SFT(**BRIEF), out=tmp_path), "another")
    assert (tmp_path / "recipe.json").read_text() == before


def test_what_differs_is_named(tmp_path):
    world().aligned(SFT(**BRIEF), out=tmp_path)

    def says(recipe, *parts, **more):
        return refused(UsageError, lambda: world(**more).aligned(recipe, out=tmp_path), *parts)

    says(SFT(**BRIEF | {"lr": 0.1, "batch": 4}), "(sft: batch 8, not 4; lr 0.05, not 0.1): give another folder")
    says(SFT(**BRIEF), "(sft: seed 0, not 1)", seed=1)
    says(SFT(minutes=1.0, batch=4), "(sft: steps 4, not none; minutes none, not 1.0; batch 8, not 4; 1 more)")
    says(CDPG(**BRIEF), "(sft: aligner 'sft', not 'cdpg'; ")
    says(SFT(**BRIEF), "feature 'sun', not 'winds'; kind 'always', not 'reward'", target=REWARD)


@pytest.mark.parametrize("file", ["recipe.json", "state.json", "state-4.safetensors"])
def test_a_folder_that_is_damaged(file, tmp_path):
    world().aligned(SFT(**BRIEF), out=tmp_path)
    (tmp_path / file).write_bytes(b"{")
    refused(AlignbenchError, lambda: world().aligned(SFT(**BRIEF), out=tmp_path), str(tmp_path))


def test_weights_that_are_not_those_of_the_recipe(tmp_path):
    world().aligned(SFT(**BRIEF), out=tmp_path)
    world().aligned(SFT(**BRIEF | {"steps": 5}), out=tmp_path / "other")
    (tmp_path / "state-4.safetensors").write_bytes((tmp_path / "other" / "state-5.safetensors").read_bytes())
    refused(StoreError, lambda: world().aligned(SFT(**BRIEF), out=tmp_path), "not those")


# --- hyper-parameters

WRONG = [
    (DPG, {"steps": 3, "minutes": 1.0}, "steps and minutes are all budgets"),
    (DPG, {"steps": 0}, "dpg:steps=0"), (DPG, {"tokens": 0}, "dpg:tokens=0"), (DPG, {"minutes": 0}, "minutes=0"),
    (DPG, {"batch": 0}, "dpg:batch=0"), (DPG, {"batch": 2.5}, "dpg:batch=2.5"), (DPG, {"batch": True}, "batch=True"),
    (DPG, {"lr": 0}, "dpg:lr=0"), (DPG, {"lr": float("inf")}, "dpg:lr=inf"), (DPG, {"lr": float("nan")}, "lr=nan"),
    (DPG, {"lr": "fast"}, "lr=fast"), (DPG, {"clip": -1}, "clip=-1"), (DPG, {"warmup": -1}, "warmup=-1"),
    (DPG, {"cooldown": 1.5}, "cooldown=1.5"), (DPG, {"accumulate": 0}, "accumulate=0"), (DPG, {"every": 0}, "every=0"),
    (DPG, {"precision": "bfloat"}, "Did you mean 'bfloat16'"), (DPG, {"adapter": "lroa:r=4"}, "dpg:adapter=lroa:r=4: "),
    (DPG, {"replay": 2}, "dpg:replay=2"), (DPG, {"renew": 0}, "dpg:renew=0"), (DPG, {"pool": 0}, "dpg:pool=0"),
    (GDC, {"adapt": 0}, "gdc:adapt=0"), (CDPG, {"hits": 0}, "cdpg:hits=0"),
    (FDPG, {"f": "reverse_lk"}, "Did you mean 'reverse_kl'"), (FDPG, {"f": "xyz"}, "f_dpg:f=xyz: unknown"),
    (FDPG, {"floor": 0}, "f_dpg:floor=0"), (SFT, {"data": "fixd"}, "Did you mean 'fixed'"),
    (SFT, {"draws": 0}, "sft:draws=0"), (SFT, {"patience": -1}, "sft:patience=-1"),
    (SFT, {"held_out": 0}, "held_out=0"),
    (SFTControl, {"weight": 0}, "sft_control:weight=0"), (SFTControl, {"renew": 0}, "sft_control:renew=0"),
    (PromptTuning, {"objective": "spf"}, "prompt_tuning:objective=spf"),
    (PromptTuning, {"adapter": "lora"}, "soft prompt"),
    (PromptTuning, {"objective": "sft", "replay": 0.5}, "prompt_tuning:replay=0.5: objective=sft has no such thing"),
    (ControlCode, {"form": "[code] "}, "control_code:form=[code] : must hold {code}"),
    (Reinforce, {"kl": "los_k3"}, "Did you mean 'loss_k3'"), (Reinforce, {"floor": 1}, "reinforce:floor=1: must be"),
    (SoftQ, {"backup": "sofft"}, "Did you mean 'soft'"), (SoftQ, {"adapter": "lora:r=4"}, "must be a head"),
    (SoftQ, {"adapter": "head:rank=0"}, "head: rank=0"), (SoftQ, {"sync": 0}, "soft_q:sync=0"),
    (QLearning, {"tau": 1}, "q_learning:tau=1"), (QLearning, {"floor": 2}, "q_learning:floor=2"),
    (GRPO, {"unbiased": "yes"}, "grpo:unbiased=yes"), (GRPO, {"beta": 0}, "grpo:beta=0"),
    (GRPO, {"unbiased": True, "beta": 0.5}, "the KL in the reward"), (GRPO, {"epsilon": -1}, "grpo:epsilon=-1"),
    (PPO, {"epochs": 0}, "ppo:epochs=0"), (PPO, {"trace": 2}, "ppo:trace=2"), (PPO, {"target_kl": 0}, "target_kl=0"),
    (DPG, {"adapter": "lora:rank=4"}, "dpg:adapter=lora:rank=4: adapter 'lora': unknown argument 'rank'"),
]  # fmt: skip


@pytest.mark.parametrize(("recipe", "given", "says"), WRONG, ids=lambda value: str(value)[-40:])
def test_a_hyper_parameter_that_is_wrong(recipe, given, says):
    refused(UsageError, lambda: recipe(**given), says)
