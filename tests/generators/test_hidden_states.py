"""Hidden states of given draws: those from which the next token is drawn, whatever stands beside them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from policy_world import LENGTH, PROMPTS, WORDS, drawn

from alignbench.errors import Unsupported
from alignbench.generators import hidden as module
from alignbench.generators.exact.world import exact
from alignbench.generators.hf import slots
from alignbench.generators.hidden import read
from alignbench.generators.policy import policy_of
from alignbench.testing import table_world, tiny_network


@pytest.mark.parametrize("kind", ["gpt2", "llama", "t5"])
def test_the_output_layer_makes_the_law_of_them(kind, tmp_path):
    law = tiny_network(tmp_path, WORDS, kind=kind)
    draws = drawn(law, 12)
    nats, states = read(law, PROMPTS, draws)
    np.testing.assert_allclose(nats, law.token_log_prob(PROMPTS, draws), atol=1e-6)
    inside = np.arange(nats.shape[1]) < draws.length[:, None]
    assert states.shape == (*inside.shape, 16) and (states[~inside] == 0).all()
    layer = law.model.network.get_output_embeddings()
    with torch.no_grad():
        scale = 16**-0.5 if kind == "t5" and law.model.network.config.tie_word_embeddings else 1.0
        said = torch.log_softmax(layer(scale * torch.as_tensor(states[inside])), -1)
    found = said.gather(1, torch.as_tensor(draws.tokens[inside])[:, None])[:, 0].numpy()
    np.testing.assert_allclose(found, nats[inside], atol=1e-4)


def test_in_parts_it_is_the_same(tmp_path, monkeypatch):
    law = tiny_network(tmp_path, WORDS, kind="llama")
    draws = drawn(law, 12)
    whole = read(law, PROMPTS, draws)
    right = module.scored
    monkeypatch.setattr(module, "scored", lambda draws, room, work: right(draws, lambda width: 3, work))
    for one, other in zip(whole, read(law, PROMPTS, draws), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_a_table_s_are_the_unit_vectors_of_its_rows():
    law = table_world(WORDS, PROMPTS, LENGTH)
    draws = drawn(law, 12)
    nats, states = read(law, PROMPTS, draws)
    np.testing.assert_allclose(nats, law.token_log_prob(PROMPTS, draws))
    inside = np.arange(nats.shape[1]) < draws.length[:, None]
    assert (states[inside].sum(1) == 1).all() and (states[inside].max(1) == 1).all()
    table = torch.log_softmax(law.model.network.logits, -1)
    found = table[torch.as_tensor(states[inside].argmax(1)), torch.as_tensor(draws.tokens[inside])]
    np.testing.assert_allclose(found.numpy(), nats[inside])


class Uncaptured:
    """In place of CUDA graphs: the step itself, its answer overwritten by the next as theirs is."""

    made = 0

    def __init__(self, forward):
        self.forward, self.kept = forward, None
        Uncaptured.made += 1

    def __call__(self, ids, at, width):
        found = self.forward(ids, at, width)
        if self.kept is None or self.kept.shape != found.shape:
            self.kept = found.clone()
        return self.kept.copy_(found)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_slots_with_graphs_give_them_too(kind, tmp_path, monkeypatch):
    """Graphs give one tensor: logits and hidden states side by side, once a head reads these."""
    policy = policy_of(tiny_network(tmp_path, WORDS, kind=kind), "head:rank=2")
    policy.head.up.data += torch.randn(policy.head.up.shape, generator=torch.Generator().manual_seed(1))
    wanted = drawn(policy, 12)
    monkeypatch.setattr(slots, "CAPTURED", ("cpu",))
    monkeypatch.setattr(slots, "Graphs", Uncaptured)
    again = policy_of(tiny_network(tmp_path / "again", WORDS, kind=kind), "head:rank=2")
    again.head.load_state_dict(policy.head.state_dict())
    found = drawn(again, 12)
    assert Uncaptured.made > 1 and (found.tokens == wanted.tokens).all()
    np.testing.assert_allclose(found.log_prob, wanted.log_prob, atol=1e-5)


def test_a_world_without_a_network_has_none():
    law = exact(words="rain sun wind")
    with pytest.raises(Unsupported, match="has no hidden states"):
        read(law, ("sun",), drawn_of(law))


def drawn_of(law):
    from alignbench.seeds import Seed
    from alignbench.types import collect, rows_of

    return collect(law.sample(("sun",), rows_of(1, 4), max_tokens=LENGTH, seed=Seed(0)))
