"""Exact worlds against a slow n-gram model kept in a dictionary."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from alignbench.errors import UsageError
from alignbench.generators.exact import world as exact_module
from alignbench.generators.exact.world import EOS, WORDS, NGram, enumerate_draws, exact
from alignbench.generators.law import Law
from alignbench.seeds import Seed
from alignbench.types import collect, rows_of

NAMES = ("rain", "sun", "wind")
BEFORE = "<before>"


def slow(order, seed=0):
    """{context words: {next word: probability}}, contexts of order − 1 words, from draws of its own."""
    rng = np.random.default_rng(seed)
    contexts = product((*NAMES, EOS, BEFORE), repeat=order - 1)
    return {c: dict(zip((*NAMES, EOS), rng.dirichlet(np.ones(4)), strict=True)) for c in contexts}


def table_of(model, order):
    """The dictionary as `NGram` wants it: a context's row is its ids read as a number in base V + 1."""
    ids = {word: i for i, word in enumerate((*NAMES, EOS, BEFORE))}
    table = np.zeros((5 ** (order - 1), 4))
    for context, row in model.items():
        number = 0
        for word in context:
            number = 5 * number + ids[word]
        table[number] = np.log([row[w] for w in (*NAMES, EOS)])
    return table


def law_of(model, order):
    return Law(NGram(NAMES, table_of(model, order), order))


def continuations(model, order, prompt, length):
    """{words said (EOS last, unless cut): probability}, by recursion over the dictionary."""
    found = {}

    def go(said, mass):
        history = [BEFORE] * (order - 1) + prompt.split() + list(said)
        context = tuple(history[len(history) - (order - 1) :]) if order > 1 else ()
        for word, p in model[context].items():
            if word == EOS or len(said) + 1 == length:
                found[(*said, word)] = mass * p
            else:
                go((*said, word), mass * p)

    go((), 1.0)
    return found


def listed(law, prompt, length):
    every = enumerate_draws(law, [prompt], max_tokens=length)
    names = (*NAMES, EOS)
    said = [tuple(names[i] for i in row[:n]) for row, n in zip(every.tokens, every.length, strict=True)]
    assert len(set(said)) == len(said)
    return dict(zip(said, np.exp(every.log_prob), strict=True))


@pytest.mark.parametrize("prompt", ["", "sun", "rain wind", "sun sun rain wind"])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_contexts_are_the_last_words(order, prompt):
    model = slow(order)
    expected = continuations(model, order, prompt, 4)
    found = listed(law_of(model, order), prompt, 4)
    assert found.keys() == expected.keys()
    for said, mass in expected.items():
        assert found[said] == pytest.approx(mass, rel=1e-12)


@pytest.mark.parametrize("order", [2, 3])
def test_planted_context_read_backwards_or_one_too_short_is_seen(order):
    model = slow(order)
    wrong = law_of({tuple(reversed(c)): row for c, row in model.items()} if order > 2 else slow(order, 1), order)
    assert listed(wrong, "rain wind", 3) != pytest.approx(continuations(model, order, "rain wind", 3))
    shorter = continuations(slow(order - 1), order - 1, "rain wind", 3)
    assert shorter != pytest.approx(continuations(model, order, "rain wind", 3))


@pytest.mark.parametrize("order", [1, 2, 3])
def test_walking_forcing_and_sampling_agree(order):
    law, prompts = law_of(slow(order), order), ["rain", "sun wind rain", ""]
    draws = collect(law.sample(prompts, rows_of(3, 50), max_tokens=5, seed=Seed(1)))
    for row in range(0, len(draws), 7):
        masses = continuations(slow(order), order, prompts[draws.prompt[row]], 5)
        said = tuple((*NAMES, EOS)[i] for i in draws.tokens[row, : draws.length[row]])
        assert draws.log_prob[row] == pytest.approx(np.log(masses[said]))
    np.testing.assert_allclose(law.log_prob(prompts, draws), draws.log_prob, atol=1e-12)


@pytest.mark.parametrize("settings", [{}, {"top_k": 2}, {"temperature": 0.5}])
def test_enumeration_is_complete(settings):
    law = law_of(slow(2), 2).warped(**settings)
    every = enumerate_draws(law, ["rain", "sun"], max_tokens=4)
    for prompt in (0, 1):
        assert np.exp(every.log_prob[every.prompt == prompt]).sum() == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(every.token_log_prob.sum(1), every.log_prob)
    assert (every.length[~every.finished] == 4).all()
    assert (every.tokens[~every.finished] != 3).all()
    ends = every.tokens[np.arange(len(every)), every.length - 1]
    assert (ends[every.finished] == 3).all()
    assert not np.isinf(every.log_prob).any()


def test_how_many_continuations_there_are():
    """3 words and EOS, at most 3 tokens: 1 + 3 + 9 that end, 27 that are cut."""
    every = enumerate_draws(law_of(slow(2), 2), ["rain"], max_tokens=3)
    assert len(every) == 1 + 3 + 9 + 27
    assert every.finished.sum() == 13
    assert every.index.tolist() == list(range(40))


def test_texts_are_the_words_without_eos():
    law = law_of(slow(2), 2)
    every = enumerate_draws(law, ["rain"], max_tokens=2)
    texts = {tuple(row[:n]): text for row, n, text in zip(every.tokens, every.length, every.texts, strict=True)}
    assert texts[(3,)] == ""
    assert texts[(0, 3)] == " rain"
    assert texts[(1, 2)] == " sun wind"


def test_too_many_continuations_are_refused(monkeypatch):
    with pytest.raises(UsageError, match="prompt 'rain': more than 500000 continuations of 40 tokens to enumerate"):
        enumerate_draws(exact(), ["rain"], max_tokens=40)
    monkeypatch.setattr(exact_module, "MOST", 52)  # 4 + 12 + 36 leaves and inner nodes on the way to 3 tokens
    law = law_of(slow(2), 2)
    assert len(enumerate_draws(law, ["rain"], max_tokens=3)) == 40
    monkeypatch.setattr(exact_module, "MOST", 51)
    with pytest.raises(UsageError, match="more than 51"):
        enumerate_draws(law, ["rain"], max_tokens=3)
    with pytest.raises(UsageError, match="max_tokens=0"):
        enumerate_draws(law, ["rain"], max_tokens=0)


def test_an_unknown_word_names_the_closest():
    with pytest.raises(UsageError) as caught:
        exact().start(["sun rian"], max_tokens=2)
    assert str(caught.value).startswith("prompt 'sun rian': the world has no word 'rian'. Did you mean 'rain'? Known: ")


def test_a_world_is_its_arguments():
    one = exact(seed=3)
    assert one.identity() == exact(seed=3).identity() == exact(seed=3, batch_size=7, device="cuda").identity()
    for other in (exact(seed=4), exact(seed=3, order=1), exact(seed=3, concentration=2), exact(seed=3, words="a b")):
        assert other.identity() != one.identity()
    assert one.vocab.tokens == (*WORDS, EOS)
    assert one.vocab.eos == {len(WORDS)}
    assert exact(words="a b c").vocab.tokens == exact(words=["a", "b", "c"]).vocab.tokens
    assert exact(batch_size="auto").model.batch_size == 4096
    assert exact(batch_size="17").model.batch_size == 17


def test_rows_sum_to_one_even_where_the_prior_makes_zeros():
    law = exact(words="a b", order=3, concentration=1e-3, seed=2)
    table = np.exp(law.model.table)
    np.testing.assert_allclose(table.sum(1), 1, atol=1e-12)
    assert (table == 0).any()
    every = enumerate_draws(law, ["a"], max_tokens=3)
    assert np.exp(every.log_prob).sum() == pytest.approx(1)
    assert len(every) < 15, "what cannot be said is not listed"
    draws = collect(law.sample(["a"], rows_of(1, 20), max_tokens=3, seed=Seed()))
    assert np.isfinite(draws.log_prob).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"words": ""}, "exact: words='': must be one or more distinct words"),
        ({"words": "rain sun rain"}, "exact: words='rain sun rain': must be one or more distinct words"),
        ({"words": ["heavy rain", "sun"]}, "distinct words without spaces"),
        ({"words": ["rain", 3]}, "distinct words"),
        ({"words": f"rain {EOS}"}, "none of them </s>"),
        ({"order": 0}, "exact: order=0: must be a whole number >= 1"),
        ({"order": 1.5}, "exact: order=1.5: must be a whole number >= 1"),
        ({"order": True}, "exact: order=True"),
        ({"order": 9}, "exact: a table of order 9 over 7 tokens has more than 10,000,000 cells"),
        ({"order": 10**6}, "has more than 10,000,000 cells"),
        ({"seed": -1}, "exact: seed=-1: must be a whole number >= 0"),
        ({"seed": "one"}, "exact: seed=one: must be a whole number >= 0"),
        ({"concentration": 0}, "exact: concentration=0: must be a number above 0"),
        ({"concentration": float("nan")}, "exact: concentration=nan"),
        ({"concentration": "much"}, "exact: concentration=much"),
        ({"batch_size": "ten"}, "batch_size=ten: must be 'auto' or a whole number >= 1"),
        ({"batch_size": 0}, "batch_size=0: must be 'auto' or a whole number >= 1"),
    ],
)
def test_refused_arguments(arguments, message):
    with pytest.raises(UsageError) as caught:
        exact(**arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_table_must_fit_and_sum_to_one():
    with pytest.raises(UsageError, match=r"order 2 over 4 tokens has shape \(3, 4\), not \(5, 4\)"):
        NGram(NAMES, np.log(np.full((3, 4), 0.25)), 2)
    with pytest.raises(UsageError, match="each row of the table must sum to 1"):
        NGram(NAMES, np.log(np.full((5, 4), 0.2)), 2)


def test_states_are_gathered_and_grown_without_being_changed():
    state = exact(order=3).model.start(["rain", "sun wind"], max_tokens=3)
    before = state.contexts.clone()
    picked = state.select(torch.tensor([1, 1, 0])).extend(torch.tensor([0, 1, 2]))
    assert torch.equal(state.contexts, before)
    assert picked.log_probs.shape == (3, 7)
    assert picked.log_probs.dtype == torch.float64
