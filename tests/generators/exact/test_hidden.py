"""Hidden Markov models against sums over every hidden path."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from alignbench.errors import UsageError
from alignbench.generators.exact.hidden import HiddenMarkov, HiddenState
from alignbench.generators.exact.world import enumerate_draws, exact
from alignbench.generators.law import Law, Warp
from alignbench.seeds import Seed
from alignbench.testing import check
from alignbench.types import collect, rows_of

WORDS = ("rain", "sun", "wind")


def world(seed=0, hidden=3):
    return exact(words=WORDS, hidden=hidden, seed=seed)


def by_paths(model, ids):
    """P(first words are ids) = Σ over hidden paths, term by term."""
    total = 0.0
    for path in product(range(len(model.first)), repeat=len(ids)):
        mass = model.first[path[0]] if ids else 1.0
        for step, (state, word) in enumerate(zip(path, ids, strict=True)):
            mass *= (model.moves[path[step - 1], state] if step else 1.0) * model.says[state, word]
        total += mass
    return total


def truth(model, prompt, every):
    before = model.encode(prompt, 1)
    said = [before + row[:n].tolist() for row, n in zip(every.tokens, every.length, strict=True)]
    return np.array([by_paths(model, ids) for ids in said]) / by_paths(model, before)


@pytest.mark.parametrize("prompt", ["", "sun", "wind rain"])
@pytest.mark.parametrize("hidden", [1, 2, 4])
def test_masses_are_sums_over_hidden_paths(hidden, prompt):
    law = world(hidden, hidden)
    every = enumerate_draws(law, [prompt], max_tokens=3)
    expected = truth(law.model, prompt, every)
    np.testing.assert_allclose(np.exp(every.log_prob), expected, rtol=1e-12)
    assert expected.sum() == pytest.approx(1, abs=1e-12)


def test_planted_move_before_the_first_word_and_forgotten_prompt_are_seen(monkeypatch):
    law = world()
    every = enumerate_draws(law, ["sun"], max_tokens=3)
    expected = truth(law.model, "sun", every)
    assert np.abs(np.exp(every.log_prob) - truth(law.model, "", every)).max() > 1e-3
    monkeypatch.setattr(HiddenState, "log_probs", property(lambda s: (s.belief @ s.moves @ s.says).log()))
    assert np.abs(np.exp(enumerate_draws(law, ["sun"], max_tokens=3).log_prob) - expected).max() > 1e-3


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.5}, {"top_k": 2}, {"top_p": 0.7}])
def test_every_law_holds(settings):
    assert len(check(world().warped(**settings), ["sun wind rain", ""], max_tokens=4)) == 7


def test_its_memory_is_longer_than_the_last_word():
    law = world(2)
    one, two = (law.start([p], max_tokens=2).log_probs for p in ("sun sun", "rain rain sun"))
    assert (one - two).abs().max() > 1e-3


def test_walking_forcing_and_sampling_agree():
    law, prompts = world(1), ["rain", "sun wind", ""]
    draws = collect(law.sample(prompts, rows_of(3, 40), max_tokens=5, seed=Seed(1)))
    np.testing.assert_allclose(law.log_prob(prompts, draws), draws.log_prob, atol=1e-12)
    before = law.model.encode(prompts[draws.prompt[50]], 1)
    said = before + draws.tokens[50, : draws.length[50]].tolist()
    expected = np.log(by_paths(law.model, said) / by_paths(law.model, before))
    assert draws.log_prob[50] == pytest.approx(expected, abs=1e-12)


def test_zeros_stay_zeros_and_never_become_nan():
    says = np.array([[1.0, 0, 0, 0], [0, 0.5, 0, 0.5]])
    law = Law(HiddenMarkov(WORDS, np.array([1.0, 0]), np.array([[0, 1.0], [0, 1.0]]), says))
    every = enumerate_draws(law, [""], max_tokens=3)
    assert set(every.texts) == {" rain", " rain sun", " rain sun sun"}
    loose = enumerate_draws(world(), [""], max_tokens=3)
    scores = law.log_prob([""], loose)
    assert not np.isnan(scores).any()
    assert np.exp(scores).sum() == pytest.approx(1, abs=1e-12)
    with pytest.raises(UsageError, match="prompt 'sun': this world never says it"):
        law.check(["sun"], 3)


def test_a_world_is_its_arguments_and_the_ngram_worlds_are_as_they_were():
    """Digest of a table: what it was before hidden Markov models came."""
    assert exact().model.identity()["table"] == "9ee6e0fbf9da5910"
    assert exact(order=3, seed=4, concentration=0.3).model.identity()["table"] == "b11e550643d94ce1"
    assert exact(hidden=0).identity() == exact().identity()
    identities = [exact(**a).model.identity() for a in ({"hidden": 2}, {"hidden": 3}, {"hidden": 2, "seed": 1})]
    assert len({i["tables"] for i in identities}) == 3
    assert identities[0] == exact(hidden=2, batch_size=3).model.identity()


@pytest.mark.parametrize("value", [-1, 1.5, True, "two"])
def test_refused_numbers_of_hidden_states(value):
    with pytest.raises(UsageError, match=f"exact: hidden={value}: must be a whole number >= 0"):
        exact(hidden=value)


def test_refused_tables():
    first, moves, says = np.ones(1), np.ones((1, 1)), np.full((1, 4), 0.25)
    with pytest.raises(UsageError, match=r"`says` has shape \(1, 3\), not \(1, 4\)"):
        HiddenMarkov(WORDS, first, moves, np.full((1, 3), 1 / 3))
    with pytest.raises(UsageError, match="each row of `moves` must be probabilities"):
        HiddenMarkov(WORDS, first, moves * 0.5, says)
    with pytest.raises(UsageError, match="can be listed, not summed by state"):
        HiddenMarkov(WORDS, first, moves, says).steps(Warp(top_k=2))


def test_states_are_gathered_and_grown_without_being_changed():
    state = world().model.start(["rain", "sun wind"], max_tokens=3)
    before = state.belief.clone()
    picked = state.select(torch.tensor([1, 1, 0])).extend(torch.tensor([0, 1, 2]))
    assert torch.equal(state.belief, before)
    assert picked.log_probs.shape == (3, 4)
    assert picked.log_probs.dtype == torch.float64


@pytest.mark.parametrize("table", ["first", "moves", "says"])
def test_every_table_is_part_of_the_identity(table):
    model = world().model
    turned = np.roll(getattr(model, table), 1, axis=-1)
    assert replace(model, **{table: turned}).identity() != model.identity()
