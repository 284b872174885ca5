"""Training that stops and goes on: the same weights to the bit, whatever moment it was killed at."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest
import torch

from alignbench.errors import RunError, StoreError, UsageError
from alignbench.generators import checkpoint
from alignbench.generators.checkpoint import load_training, save_training
from alignbench.generators.policy import policy_of
from alignbench.seeds import Seed
from alignbench.testing import table_world, tiny_network
from alignbench.types import collect, rows_of

PROMPTS = ("sun", "wind")
OPTIMISERS = {
    "adamw": partial(torch.optim.AdamW, lr=0.02, betas=(0.8, 0.9)),
    "momentum": partial(torch.optim.SGD, lr=0.1, momentum=0.9),
    "plain": partial(torch.optim.SGD, lr=0.1),
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    return {"table": table_world(), "network": tiny_network(tmp_path_factory.mktemp("base"))}


class Training:
    """A policy that is pushed towards short draws, and its optimiser."""

    def __init__(self, base, optimiser="adamw"):
        self.policy, self.done = policy_of(base), 0
        self.optimiser = OPTIMISERS[optimiser](self.policy.parameters)

    def steps(self, count):
        for _ in range(count):
            rows = rows_of(2, 8) + np.array([0, 8 * self.done])
            draws = collect(self.policy.sample(PROMPTS, rows, max_tokens=4, seed=Seed(3)))
            nats = self.policy.module(PROMPTS, draws).sum(1)
            self.optimiser.zero_grad()
            (nats * torch.as_tensor(draws.length).to(nats.dtype)).mean().backward()
            self.optimiser.step()
            self.done += 1
        return self

    def save(self, folder):
        save_training(folder, self.policy.module, self.optimiser, step=self.done, extra={"lr": 0.02, "seen": [1, 2]})
        return self

    def load(self, folder):
        found = load_training(folder, self.policy.module, self.optimiser)
        self.done = 0 if found is None else found[0]
        return self, found

    @property
    def weights(self):
        return torch.cat([p.detach().flatten() for p in self.policy.parameters])


@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("base", ["table", "network"])
def test_what_goes_on_ends_where_the_whole_ends(bases, base, optimiser, tmp_path):
    whole = Training(bases[base], optimiser).steps(6)
    Training(bases[base], optimiser).steps(3).save(tmp_path)
    later, found = Training(bases[base], optimiser).load(tmp_path)
    assert found == (3, {"lr": 0.02, "seen": [1, 2]})
    assert not torch.equal(later.weights, whole.weights)
    assert torch.equal(later.steps(3).weights, whole.weights)
    assert later.policy.identity() == whole.policy.identity() != Training(bases[base]).policy.identity()


def test_planted_optimiser_forgotten(bases, tmp_path):
    """With fresh moments it ends elsewhere: the test above would see it."""
    whole = Training(bases["table"]).steps(6)
    Training(bases["table"]).steps(3).save(tmp_path)
    later = Training(bases["table"])
    load_training(tmp_path, later.policy.module, torch.optim.AdamW(later.policy.parameters))
    later.done = 3
    assert not torch.equal(later.steps(3).weights, whole.weights)


def test_only_json_and_safetensors_of_the_last_state(bases, tmp_path):
    training = Training(bases["network"])
    for _ in range(3):
        training.steps(1).save(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["state-3.safetensors", "state.json"]
    told = json.loads((tmp_path / "state.json").read_text())
    assert told["step"] == 3 and told["groups"][0]["lr"] == 0.02
    header = (tmp_path / "state-3.safetensors").read_bytes()
    length = int.from_bytes(header[:8], "little")
    names = json.loads(header[8 : 8 + length])
    assert sum(name.startswith("weights.") for name in names) == len(training.policy.parameters)
    assert any(name.endswith(".exp_avg") for name in names)


def test_an_empty_folder_is_a_beginning(bases, tmp_path):
    assert Training(bases["table"]).load(tmp_path / "none")[1] is None


@pytest.mark.parametrize("writes", [0, 1])
def test_killed_while_it_saves(bases, tmp_path, monkeypatch, writes):
    """The state before is found, whole."""
    training = Training(bases["table"]).steps(2).save(tmp_path)
    before, right, done = training.weights.clone(), checkpoint.write_atomic, []

    def killed(path, content):
        if len(done) == writes:
            raise KeyboardInterrupt
        done.append(path)
        right(path, content)

    monkeypatch.setattr(checkpoint, "write_atomic", killed)
    with pytest.raises(KeyboardInterrupt):
        training.steps(1).save(tmp_path)
    later, found = Training(bases["table"]).load(tmp_path)
    assert found[0] == 2 and torch.equal(later.weights, before)


@pytest.mark.parametrize("damage", ["json", "tensors", "gone"])
def test_a_damaged_state_is_one_line_and_changes_nothing(bases, tmp_path, damage):
    Training(bases["table"]).steps(2).save(tmp_path)
    if damage == "gone":
        (tmp_path / "state-2.safetensors").unlink()
    else:
        file = tmp_path / ("state.json" if damage == "json" else "state-2.safetensors")
        file.write_bytes(file.read_bytes()[:-40])
    later = Training(bases["table"])
    before = later.weights.clone()
    with pytest.raises(StoreError, match=r"training state cannot be read .*delete it to begin anew"):
        later.load(tmp_path)
    assert torch.equal(later.weights, before)


def test_a_state_of_something_else_is_one_line_and_changes_nothing(bases, tmp_path):
    Training(bases["table"]).steps(2).save(tmp_path)
    for later in (Training(bases["network"]), Training(table_world(max_tokens=3))):
        before = later.weights.clone()
        with pytest.raises(StoreError, match="of other weights or another optimiser"):
            later.load(tmp_path)
        assert torch.equal(later.weights, before)
    table = Training(bases["table"])
    halves = [{"params": [p]} for p in (*table.policy.parameters, torch.nn.Parameter(torch.zeros(1)))]
    for optimiser in (torch.optim.AdamW(halves), torch.optim.RMSprop(table.policy.parameters)):
        with pytest.raises(StoreError, match="of other weights or another optimiser"):
            load_training(tmp_path, table.policy.module, optimiser)


def test_parameters_in_another_order_are_another_optimiser(bases, tmp_path):
    """Its moments are kept by number."""
    Training(bases["network"]).steps(1).save(tmp_path)
    policy = policy_of(bases["network"])
    with pytest.raises(StoreError, match="of other weights or another optimiser"):
        load_training(tmp_path, policy.module, torch.optim.AdamW(policy.parameters[::-1]))


def test_what_a_trainer_adds_must_be_plain(bases, tmp_path):
    training = Training(bases["table"])
    with pytest.raises(UsageError, match=r"extra=.*: must be plain data"):
        save_training(tmp_path, training.policy.module, training.optimiser, step=0, extra={"a": np.float32(1)})
    assert not list(tmp_path.iterdir())


def test_an_optimiser_that_keeps_other_things_is_refused(bases, tmp_path):
    training = Training(bases["table"]).steps(1)
    next(iter(training.optimiser.state.values()))["history"] = [torch.zeros(1)]
    with pytest.raises(RunError, match="AdamW: keeps what is neither"):
        training.save(tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_loaded_law_is_the_saved_one(bases, tmp_path):
    training = Training(bases["network"]).steps(4).save(tmp_path)
    later, _ = Training(bases["network"]).load(tmp_path)
    one, other = (
        collect(t.policy.sample(PROMPTS, rows_of(2, 20), max_tokens=4, seed=Seed(9))) for t in (training, later)
    )
    np.testing.assert_array_equal(one.tokens, other.tokens)
    np.testing.assert_array_equal(one.log_prob, other.log_prob)
