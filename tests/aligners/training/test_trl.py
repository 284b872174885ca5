"""Trainers of trl on our target: what they are given is right, and where they end is measured by our laws."""

import json
import random
from dataclasses import replace
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from test_convergence import kl_of_network
from training_worlds import BASE, HARD, PROMPTS, REWARD, work_on, world

from alignbench.aligners.training import trl as peers
from alignbench.aligners.training.trl import Peer, Trl, draws_each, pairs
from alignbench.errors import Unsupported, UsageError
from alignbench.generators.exact.world import enumerate_draws
from alignbench.generators.hf.factory import hf
from alignbench.generators.policy import policy_of
from alignbench.generators.window import Window
from alignbench.testing import tiny_network

BRIEF = {"steps": 2, "batch": 8, "lr": 1e-2, "warmup": 0}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_network(tmp_path_factory.mktemp("base"), kind="llama")


def peer(base, target=HARD, **more) -> Peer:
    recipe = Trl(**BRIEF | more)
    return Peer(recipe, work_on(world(target, base), policy_of(base, recipe.adapter)), folder=None)


# --- what they are given


def test_rewards_are_those_of_the_target_whatever_stands_after_the_end(base):
    drawn = enumerate_draws(base, PROMPTS, max_tokens=4)
    drawn = drawn.take(np.arange(0, len(drawn), 7))
    eos = min(base.vocab.eos)
    ids = [[*drawn.tokens[k, : drawn.length[k]], *[eos] * (k % 3)] for k in range(len(drawn))]
    wanted = HARD.log_ratio(HARD.measure(PROMPTS, drawn), drawn.prompt, float(np.log(0.01)))
    one = peer(base)
    assert one.reward([], completion_ids=ids, number=drawn.prompt.tolist()) == pytest.approx(wanted.tolist())
    assert len(set(wanted)) > 1
    assert one.draws(ids, drawn.prompt).texts == drawn.texts
    assert (one.draws(ids, drawn.prompt).finished == drawn.finished).all()
    assert (one.draws(ids, drawn.prompt).length == drawn.length).all()


def test_a_pair_is_of_one_prompt_and_no_draw_is_in_two(base):
    work = peer(base).work
    rows, tokens = pairs(work, Trl(trainer="dpo", **BRIEF), 40)
    found = [work.policy.render(prompt) for prompt in PROMPTS]
    assert [row["prompt"] for row in rows] == [found[k % 2] for k in range(40)]
    numbers = np.stack([np.repeat([0, 1], 40), np.tile(np.arange(40), 2)], 1)
    drawn = work.base_draws(numbers)
    assert tokens == drawn.length.sum()
    good = [sum("sun" in row[side] for row in rows) for side in ("chosen", "rejected")]
    assert good[0] > good[1]
    for c, prompt in enumerate(found):
        said = [row[side] for row in rows if row["prompt"] == prompt for side in ("chosen", "rejected")]
        assert sorted(said) == sorted(text for text, k in zip(drawn.texts, drawn.prompt, strict=True) if k == c)


@pytest.mark.parametrize(
    ("batch", "prompts", "each"), [(32, 4, 8), (32, 3, 8), (32, 6, 4), (32, 140, 2), (9, 2, 3), (5, 2, 5), (2, 7, 2)]
)
def test_a_step_has_as_many_draws_of_each_of_its_prompts(batch, prompts, each):
    assert draws_each(batch, prompts) == each


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_each_step_has_all_prompts_where_it_can(base):
    told = []
    one = peer(base, batch=16, steps=3)
    right = one.reward
    one.reward = lambda prompts, completions, completion_ids, number, **more: (
        told.append(np.bincount(number, minlength=2).tolist()), right(prompts, completion_ids, number))[1]  # fmt: skip
    with TemporaryDirectory() as scratch:
        one.trainer(scratch).train()
    assert told == [[8, 8]] * 3


def test_other_generators_of_random_numbers_are_left_as_they_were(base):
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    world(HARD, base).aligned(Trl(**BRIEF))
    assert before == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())


# --- what they are refused


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"trainer": "rlo"}, "trl:trainer=rlo: unknown. Did you mean 'rloo'?"),
        ({"floor": 0.0}, "trl:floor=0.0: must be between 0 and 1"),
        ({"beta": 0.0}, "trl:beta=0.0: must be a number above 0"),
        ({"every": 5}, "trl:every=5: trl has no such option: leave it out"),
        ({"tokens": 500, "steps": None}, "trl:tokens=500: trl has no such option: leave it out"),
        ({"adapter": "full"}, "trl:adapter=full: must be lora"),
        ({"batch": 1}, "trl:batch=1: it compares draws: give 2 at least"),
        ({"trainer": "dpo", "minutes": 1.0, "steps": None}, "trl:trainer=dpo: its pairs are drawn before it begins"),
    ],
)
def test_options_that_it_cannot_heed(given, said):
    with pytest.raises(UsageError, match=f"^{said.replace('?', '[?]')}"):
        Trl(**BRIEF | given)


def test_what_it_cannot_train(base, monkeypatch, tmp_path):
    def refused(kind, on, recipe=None):
        with pytest.raises(kind) as told:
            world(HARD, on).aligned(recipe or Trl(**BRIEF))
        return str(told.value)

    assert "trains decoders of transformers, and table is none" in refused(Unsupported, BASE)
    assert "leave out its decoding settings" in refused(Unsupported, base.warped(temperature=0.5))
    narrow = replace(base, model=base.model.windowed(Window(2)))
    assert "leave out its decoding settings" in refused(Unsupported, narrow)
    pair = tiny_network(tmp_path / "t5", kind="t5")
    assert "trains decoders of transformers" in refused(Unsupported, pair)
    other = tiny_network(tmp_path / "bos", kind="llama")
    read = type(other.model)._ids
    monkeypatch.setattr(type(other.model), "_ids", lambda self, text: [*read(self, text), 1])
    assert "as other tokens than" in refused(Unsupported, other)
    monkeypatch.setattr(type(other.model), "_ids", read)
    with monkeypatch.context() as patch:
        patch.setattr(peers, "launched", lambda: 2)
        assert "trains in one process" in refused(UsageError, base)

    def missing(name):
        raise peers.PackageNotFoundError(name)

    monkeypatch.setattr(peers, "version", missing)
    assert refused(UsageError, base) == "trl: needs the package trl: pip install 'alignbench[trl]'"


# --- what they leave


@pytest.mark.parametrize("trainer", ["rloo", "grpo", "dpo"])
def test_what_it_trained_is_had_again(base, tmp_path, trainer, monkeypatch):
    recipe, before = Trl(trainer=trainer, **BRIEF), base.identity()
    setting = replace(world(HARD, base), work=tmp_path)
    policy = setting.aligned(recipe)
    [folder] = tmp_path.glob("trl-*")
    draws = enumerate_draws(base, PROMPTS, max_tokens=2)
    assert base.identity() == before
    assert not np.allclose(policy.log_prob(PROMPTS, draws), draws.log_prob, atol=1e-4)
    told = json.loads((folder / "recipe.json").read_text())
    assert told["finished"] and told["steps"] == 2 and '"trl": "1.' in (folder / "recipe.json").read_text()
    assert len((folder / "curve.csv").read_text().splitlines()) == 3
    assert json.loads((folder / "cost.json").read_text())["trained"] > 0
    source = str(base.model.source)
    loaded = hf(pretrained=source, peft=str(folder), dtype="float32", device="cpu")
    assert loaded.log_prob(PROMPTS, draws) == pytest.approx(policy.log_prob(PROMPTS, draws), abs=1e-4)
    monkeypatch.setattr(Peer, "run", None)  # would fail: nothing is trained again
    again = setting.aligned(recipe)
    assert (again.log_prob(PROMPTS, draws) == policy.log_prob(PROMPTS, draws)).all()


@pytest.mark.slow
def test_rloo_comes_near_p_and_grpo_as_configured_does_not(base):
    far = kl_of_network(base, base, REWARD, PROMPTS, 4)
    ends = {
        trainer: kl_of_network(world(REWARD, base).aligned(Trl(trainer=trainer, steps=150, batch=64, lr=1e-2)), base,
                               REWARD, PROMPTS, 4)
        for trainer in ("rloo", "grpo")
    }  # fmt: skip
    assert ends["rloo"] < 0.03 * far < 0.05 * far < ends["grpo"]
