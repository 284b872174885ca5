"""Steered decoders: the laws of every generator, p itself, masks by hand, and a real model's path."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from exact_decoders import Twisted, constrained, twisted
from exact_patterns import contains_any, matches
from exact_worlds import from_table
from models import tiny_gpt2

from alignbench.errors import UsageError
from alignbench.generators.exact.automaton import always, counts
from alignbench.generators.exact.words import vocab_of
from alignbench.generators.exact.world import enumerate_draws, exact
from alignbench.generators.hf.factory import hf
from alignbench.generators.law import Law, compare
from alignbench.generators.masked.steered import Masking
from alignbench.generators.reweighted import Reweighted
from alignbench.seeds import Seed
from alignbench.stats import discrete
from alignbench.testing import LAWS, LawBroken, check
from alignbench.types import collect, rows_of

WORDS = ("sun", "rain", "wind")
PROMPTS = ("rain", "sun wind rain", "wind")
EVERY_LAW = [law.__name__ for laws in LAWS.values() for law in laws]
LENGTH = 4
BASES = {
    "ngram": exact(words=WORDS, order=2, seed=1),
    "hidden": exact(words=WORDS, hidden=3, seed=2),
    "ngram, top-p": exact(words=WORDS, order=3, seed=3).warped(top_p=0.8, temperature=1.3),
}


def says(law):
    return contains_any(law.vocab, ["sun rain", "wind"])


def decoders(base, length=LENGTH):
    r = says(base).log() + counts(base.vocab, "sun", 2) * 0.7
    return {
        "twisted": twisted(base, r, max_tokens=length),
        "constrained": constrained(base, says(base)),
        "looking ahead": constrained(base, says(base), lookahead=length),
    }


def laws_of(base, every_setting=True):
    """Every kind of law over a base, by name."""
    settings = {
        "base": {}, "temperature": {"temperature": 0.6}, "top-k": {"top_k": 2}, "top-p": {"top_p": 0.7},
        "min-p": {"min_p": 0.3}, "all": {"temperature": 1.3, "top_k": 3, "top_p": 0.9, "min_p": 0.05},
    }  # fmt: skip
    found = {name: base.warped(**given) for name, given in settings.items()}
    found["prompted"] = replace(base, template="wind {prompt}")
    found["constrained"] = constrained(base, says(base))
    found["looking ahead"] = constrained(base, says(base), lookahead=LENGTH)
    found["penalty"] = base.warped(repetition_penalty=1.6)
    found["constrained, penalty"] = constrained(base.warped(repetition_penalty=1.6), says(base))
    found["constrained, top-p"] = constrained(base.warped(top_p=0.7), says(base), lookahead=LENGTH)
    if every_setting:
        found["twisted"] = decoders(base)["twisted"]
        found["twisted, hard"] = twisted(base, says(base).log(), max_tokens=LENGTH)
    return found


def off_one(scores, every):
    """How far the probabilities of each prompt's continuations are from 1 in all."""
    sums = np.array([np.exp(scores[every.prompt == c]).sum() for c in range(len(PROMPTS))])
    return np.abs(sums - 1).max()


@pytest.mark.parametrize("base", ["ngram", "hidden"])
def test_probabilities_of_every_law_sum_to_one(base):
    """Over every sequence of words that ends in EOS or is cut, listed from another world that can say all of them."""
    every = enumerate_draws(exact(words=WORDS, seed=9), PROMPTS, max_tokens=LENGTH)
    assert len(every) == 3 * (1 + 3 + 9 + 27 + 81)
    for name, law in laws_of(BASES[base]).items():
        scores = law.log_prob(PROMPTS, every)
        assert off_one(scores, every) < 1e-9, name
        finished = np.where(every.finished, scores, -np.inf)  # planted: cut draws are no draws
        assert off_one(finished, every) > 1e-2, name
        before_eos = law.token_log_prob(PROMPTS, every)
        before_eos[every.finished, every.length[every.finished] - 1] = 0.0  # planted: no EOS step
        assert off_one(before_eos.sum(1), every) > 1e-2, name


def test_planted_truncation_without_renormalising_does_not_sum_to_one():
    base = BASES["ngram"]
    every = enumerate_draws(base, PROMPTS, max_tokens=LENGTH)
    for settings in ({"top_k": 2}, {"top_p": 0.7}, {"min_p": 0.3}, {"typical_p": 0.5}):
        kept = base.warped(**settings).log_prob(PROMPTS, every) > -np.inf
        assert off_one(np.where(kept, every.log_prob, -np.inf), every) > 0.05


@pytest.mark.parametrize("decoder", ["twisted", "constrained", "looking ahead"])
@pytest.mark.parametrize("base", BASES)
def test_every_law_holds(base, decoder):
    assert check(decoders(BASES[base])[decoder], PROMPTS[:2], max_tokens=LENGTH) == EVERY_LAW


@pytest.mark.parametrize("penalised", [True, False])
def test_masks_of_a_law_that_remembers(penalised):
    """Of the base, and of what it is masked to: both know what was said before."""
    base = BASES["ngram"].warped(repetition_penalty=2.0)
    law = constrained(base, says(base)) if penalised else constrained(BASES["ngram"], says(base))
    assert check(law if penalised else law.warped(repetition_penalty=2.0), PROMPTS[:2], max_tokens=3) == EVERY_LAW
    with pytest.raises(
        UsageError, match="exact: under a repetition penalty a world can be listed, not summed by state"
    ):
        twisted(base, says(base).log(), max_tokens=3)


@pytest.mark.parametrize("base", BASES)
def test_twisted_draws_are_draws_of_p(base):
    """KL(twisted‖p) = 0 by listing; E_p r − log Z is its distance from the base, Rao-Blackwell or not."""
    law = decoders(BASES[base])["twisted"]
    every = enumerate_draws(BASES[base], PROMPTS, max_tokens=LENGTH)
    log_gen, log_base, by_step = compare(law, BASES[base], PROMPTS, every)
    r = law.model.automaton(PROMPTS, every)
    for number in range(3):
        rows = every.prompt == number
        p = discrete.normalised((log_base + r)[rows])
        pi = np.exp(log_gen[rows])
        assert abs(discrete.kl(pi, p)) < 1e-12
        assert abs(discrete.kl(p, pi)) < 1e-12
        said = pi > 0
        assert pi[said] @ by_step[rows][said] == pytest.approx(discrete.kl(p, np.exp(log_base[rows])), abs=1e-11)


@pytest.mark.parametrize("base", ["ngram", "hidden"])
@pytest.mark.parametrize("lookahead", [None, LENGTH])
def test_constrained_decoding_is_not_p(base, lookahead):
    """KL(p‖π) = KL(p‖π_b) − log AR > 0; without look-ahead AR < 1 and KL(π‖p) = ∞, with it AR = 1."""
    law = constrained(BASES[base], says(BASES[base]), lookahead=lookahead)
    every = enumerate_draws(BASES[base], PROMPTS, max_tokens=LENGTH)
    kept = says(law)(PROMPTS, every) == 1
    for number in range(3):
        rows = every.prompt == number
        a, b, pi = np.exp(every.log_prob[rows]), kept[rows], np.exp(law.log_prob(PROMPTS, every)[rows])
        assert pi.sum() == pytest.approx(1, abs=1e-12)
        p, rate = a * b / (a @ b), pi @ b
        within = pi * b / rate
        assert discrete.kl(p, pi) > 1e-4
        assert discrete.kl(p, pi) == pytest.approx(discrete.kl(p, within) - np.log(rate), abs=1e-12)
        if lookahead is None:  # planted: the share of a that is kept, in place of that of π
            assert abs(discrete.kl(p, pi) - (discrete.kl(p, within) - np.log(a @ b))) > 1e-3
        assert (abs(rate - 1) < 1e-12) == (lookahead is not None)
        assert np.isinf(discrete.kl(pi, p)) == (lookahead is None)
        assert np.isfinite(discrete.kl(within, p))


def by_hand(base, keeps, prompt, lookahead, length):
    """{tokens: probability} by a walk that asks, for each next token, whether any way to go on is kept."""

    def kept_from(said, left):
        """Whether some continuation of the words said is kept (`left` more tokens; None: up to 6)."""
        state = 0
        for word in said:
            state = keeps.after[state, word]
        return (keeps.live() if left is None else keeps.within(left)[left])[state], keeps.finished[state] > 0

    found, todo = {}, [((), 1.0, base.start([prompt], max_tokens=length))]
    while todo:
        said, mass, state = todo.pop()
        row, left = state.log_probs[0].exp().numpy(), length - len(said) - 1
        words = [kept_from((*said, w), left if lookahead else None)[0] for w in range(3)]
        allowed = np.array([*words, kept_from(said, 0)[1]])
        kept = row * allowed
        for token in np.flatnonzero(kept):
            share = mass * kept[token] / kept.sum()
            if token == 3 or left == 0:
                found[(*said, token)] = share
            else:
                todo.append(((*said, token), share, state.extend(torch.tensor([token]))))
    return found


@pytest.mark.parametrize("pattern", ["sun* rain", "( sun | wind wind )* rain?", ". . wind .*"])
@pytest.mark.parametrize("lookahead", [None, LENGTH])
@pytest.mark.parametrize("base", ["ngram", "hidden"])
def test_masks_are_those_of_a_walk_by_hand(base, lookahead, pattern):
    keeps = matches(BASES[base].vocab, pattern)
    every = enumerate_draws(constrained(BASES[base], keeps, lookahead=lookahead), ["rain"], max_tokens=LENGTH)
    expected = by_hand(BASES[base], keeps, "rain", lookahead, LENGTH)
    found = {tuple(t[:n]): np.exp(m) for t, n, m in zip(every.tokens, every.length, every.log_prob, strict=True)}
    assert found.keys() == expected.keys()
    assert found == pytest.approx(expected, abs=1e-12)


def test_where_the_model_cannot_go_on_it_goes_on_unmasked():
    """The automaton knows no zeros of the model's: after "sun" only "sun" is possible, and only "rain" is kept."""
    base = from_table(WORDS, {"wind": {"sun": 0.5, "rain": 0.5}, "sun": {"sun": 1.0}})
    law = constrained(base, matches(base.vocab, "sun rain"), lookahead=3)
    every = enumerate_draws(law, ["wind"], max_tokens=3)
    assert every.texts == (" sun sun sun",)
    assert np.exp(every.log_prob).tolist() == [1.0]
    assert (law.model.rule.masks.automaton(["wind"], every) == 0).all()
    assert check(law, ["wind"], max_tokens=3) == EVERY_LAW


def test_planted_bugs_break_the_laws(monkeypatch):
    """A mask in the walk that scoring forgets; a twist that reads the wrong number of tokens left."""
    law = decoders(BASES["ngram"])["constrained"]
    right = Reweighted.nats
    with monkeypatch.context() as patch:
        patch.setattr(Reweighted, "forced", lambda self, said, draws: self.base.model.forced(said, draws))
        with pytest.raises(LawBroken, match="rescoring_is_sampling"):
            check(law, PROMPTS[:2], max_tokens=LENGTH)
    with monkeypatch.context() as patch:
        patch.setattr(Reweighted, "nats", lambda *given: (right(*given)[0].mul(0.9), None))
        with pytest.raises(LawBroken):
            check(law, PROMPTS[:2], max_tokens=LENGTH)
    base = BASES["ngram"]
    late = twisted(base, says(base).log(), max_tokens=LENGTH)
    every = enumerate_draws(base, PROMPTS[:1], max_tokens=LENGTH)
    p = discrete.normalised(every.log_prob + says(base).log()(PROMPTS, every))
    late.model.__dict__["_tables"] = late.model._tables[:1] + late.model._tables[:-1]
    pi = np.exp(late.log_prob(PROMPTS, every))
    assert np.abs(pi - p).max() > 1e-3


def test_a_steered_law_says_what_it_is():
    base = BASES["ngram"]
    found = decoders(base)
    assert [law.name for law in found.values()] == ["exact twisted", "exact constrained", "exact constrained"]
    assert len({str(law.identity()) for law in found.values()}) == 3
    assert found["twisted"].truncates
    assert found["constrained"].truncates
    assert not base.truncates
    assert not twisted(base, counts(base.vocab, "sun", 2), max_tokens=2).truncates


def test_steered_laws_are_asked_for_the_length_they_were_made_for():
    law = decoders(BASES["ngram"])["twisted"]
    with pytest.raises(UsageError, match="exact twisted: made for max_tokens=4, asked for 5"):
        law.check(PROMPTS, 5)
    with pytest.raises(UsageError, match="made for max_tokens=4"):
        list(decoders(BASES["ngram"])["looking ahead"].sample(PROMPTS, rows_of(1, 1), max_tokens=3, seed=Seed()))
    assert check(constrained(BASES["ngram"], says(BASES["ngram"])), PROMPTS[:2], max_tokens=3) == EVERY_LAW


def test_refused_steering():
    base = BASES["ngram"]
    with pytest.raises(UsageError, match="reads other tokens than exact says"):
        constrained(base, always(vocab_of("xy")))
    with pytest.raises(UsageError, match="has other values than 0 and 1"):
        constrained(base, counts(base.vocab, "sun", 2))
    with pytest.raises(UsageError, match="no draw can be kept in 2 tokens"):
        constrained(base, matches(base.vocab, "sun sun"), lookahead=2)
    with pytest.raises(UsageError, match=r"no draw can be kept$"):
        constrained(base, always(base.vocab, 0))
    with pytest.raises(UsageError, match="prompt 'rain': nothing that the base says in 2 tokens has P > 0"):
        twisted(base, matches(base.vocab, "sun sun").log(), max_tokens=2).check(["rain"], 2)
    with pytest.raises(UsageError, match="max_tokens=0: must be at least 1"):
        twisted(base, always(base.vocab), max_tokens=0)
    with pytest.raises(UsageError, match="can be listed, not summed"):
        twisted(BASES["hidden"].warped(top_k=2), always(base.vocab), max_tokens=2)


# --- a tiny real model, listed through the path that real models take


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    """A random GPT-2 over 3 words and EOS."""
    return hf(pretrained=str(tiny_gpt2(tmp_path_factory.mktemp("steered") / "gpt2", WORDS)))


def test_a_real_model_under_a_constraint_is_listed_and_summed(gpt2):
    """64-bit sums over all 364 draws of two prompts, fp32 model: masses 1, Z, p, and both splits of KL."""
    keeps = contains_any(gpt2.vocab, ["sun rain", "wind"])
    every = enumerate_draws(gpt2, PROMPTS[:2], max_tokens=5)
    assert len(every) == 2 * (1 + 3 + 9 + 27 + 81 + 243)
    for lookahead in (None, 5):
        law = constrained(gpt2, keeps, lookahead=lookahead)
        log_gen, log_base, by_step = compare(law, gpt2, PROMPTS[:2], every)
        np.testing.assert_allclose(log_base, every.log_prob, atol=1e-4)
        for number in (0, 1):
            rows = every.prompt == number
            a, pi, b = np.exp(every.log_prob[rows]), np.exp(log_gen[rows]), keeps(PROMPTS, every)[rows]
            assert a.sum() == pytest.approx(1, abs=1e-6)
            assert pi.sum() == pytest.approx(1, abs=1e-6)
            p, z = a * b / (a @ b), a @ b
            assert 0.01 < z < 0.99
            assert discrete.kl(p, a) == pytest.approx(-np.log(z), abs=1e-9)
            assert discrete.tv(p, a) == pytest.approx(1 - z, abs=1e-6)
            split = discrete.kl(p, pi * b / (pi @ b)) - np.log(pi @ b)
            assert discrete.kl(p, pi) == pytest.approx(split, abs=1e-9)
            assert np.isinf(discrete.kl(pi, p)) == (lookahead is None)
            said = pi > 0
            assert pi[said] @ by_step[rows][said] == pytest.approx(discrete.kl(pi, a), abs=1e-5)


def test_probabilities_of_every_law_of_a_real_model_sum_to_one(gpt2):
    """fp32: to 2e-6 over 121 sequences of each of 3 prompts."""
    every = enumerate_draws(gpt2, PROMPTS, max_tokens=LENGTH)
    assert len(every) == 3 * (1 + 3 + 9 + 27 + 81)
    for name, law in laws_of(gpt2, every_setting=False).items():
        scores = law.log_prob(PROMPTS, every)
        assert off_one(scores, every) < 2e-6, name
        assert off_one(np.where(every.finished, scores, -np.inf), every) > 1e-2, name


def test_every_law_holds_on_a_constrained_real_model(gpt2):
    keeps = contains_any(gpt2.vocab, ["sun rain", "wind"])
    for law in (constrained(gpt2, keeps), constrained(gpt2.warped(top_k=3), keeps, lookahead=4)):
        assert check(law, PROMPTS[:2], max_tokens=4) == EVERY_LAW


def test_a_real_model_cannot_be_twisted(gpt2):
    with pytest.raises(UsageError, match="only n-gram and hidden Markov models can be summed"):
        twisted(gpt2, always(gpt2.vocab), max_tokens=3)


def test_draws_of_the_twisted_law_are_all_kept():
    law = decoders(BASES["hidden"])["twisted"]
    assert isinstance(law, Law)
    assert isinstance(law.model, Twisted)
    draws = collect(law.sample(PROMPTS, rows_of(3, 300), max_tokens=LENGTH, seed=Seed(1)))
    assert (says(law)(PROMPTS, draws) == 1).all()


def test_each_draw_begins_in_the_state_of_its_own_prompt():
    class ByLength:
        def start(self, prompt):
            return len(prompt)

    where = Masking(ByLength()).start(["wind", "he", "wind"], 5)
    np.testing.assert_array_equal(where.states, [4, 2, 4])
    np.testing.assert_array_equal(where.left, [5, 5, 5])
