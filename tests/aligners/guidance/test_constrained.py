"""Constrained decoding: the numbers of a grammar in closed form, the feature's own words, laws on real models."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from aligner_worlds import PROMPTS as WORLD_PROMPTS
from aligner_worlds import keys
from exact_decoders import constrained
from exact_worlds import grammar, grammar_truth
from models import tiny_gpt2, tiny_llama, tiny_t5

from alignbench.aligners.base import Setting
from alignbench.aligners.guidance.constrained import Constrained
from alignbench.aligners.selection.rejection import Rejection
from alignbench.errors import UsageError
from alignbench.features.words import contains_all, contains_any
from alignbench.generators.exact.world import enumerate_draws, exact
from alignbench.generators.hf import slots
from alignbench.generators.hf.factory import hf
from alignbench.generators.law import Law
from alignbench.generators.masked.lexical import Lexical
from alignbench.generators.masked.steered import Where
from alignbench.generators.reweighted import Reweighted, ReweightedDecoder, Weighed
from alignbench.registry import aligner
from alignbench.seeds import Seed
from alignbench.stats import discrete
from alignbench.target import Target
from alignbench.testing import LAWS, LawBroken, check
from alignbench.types import collect, rows_of

WORDS = ("sun", "rain", "wind")
PROMPTS = ("rain", "sun wind rain", "wind")
EVERY_LAW = [law.__name__ for laws in LAWS.values() for law in laws]
LENGTH = 4


def align(base, prompts=PROMPTS, max_tokens=LENGTH, **recipe):
    return Constrained(**recipe).align(Setting(base, Target(()), prompts, max_tokens, Seed(0, "train")))


# --- exact truth


def test_the_numbers_of_the_grammar_of_issue_b():
    """Draws of independent a, b, c and EOS, of which aⁿb EOS are kept.

    KL(p‖π) = 0.408960 nats and so on, by a regex over the tokens' texts.
    """
    pytest.importorskip("outlines_core", reason="needs the extra constrained")
    world, truth, length = grammar(), grammar_truth(), 40
    law = align(world.base, [""], length, regex="( a)* b")
    every = enumerate_draws(law, [""], max_tokens=length)  # aⁿb, n < 39: all but 2⁻³⁹ of π
    kept = every.finished & (world.keeps([""], every) == 1)
    assert kept.sum() == length - 1
    p, pi = np.exp(world.base.log_prob([""], every))[kept], np.exp(every.log_prob)[kept]
    assert np.log(p.sum()) == pytest.approx(truth["log_z"], abs=1e-9)
    assert discrete.kl(p / p.sum(), pi) == pytest.approx(truth["kl_target"], abs=1e-9)
    assert discrete.kl(pi, p / p.sum()) == pytest.approx(truth["kl_reverse"], abs=1e-8)
    assert discrete.tv(pi, p / p.sum()) == pytest.approx(truth["tv"], abs=1e-9)


@pytest.mark.parametrize("lookahead", [True, False])
def test_words_are_kept_as_the_automaton_over_words_keeps_them(lookahead):
    """In an exact world a word is a token: the same law, draw by draw, as that of the automaton of words."""
    from exact_patterns import contains_any as says

    base = exact(words=WORDS, order=2, seed=1)
    law = align(base, any_of=["sun rain", "wind"], lookahead=lookahead)
    known = constrained(base, says(base.vocab, ["sun rain", "wind"]), lookahead=LENGTH if lookahead else None)
    every = enumerate_draws(base, PROMPTS, max_tokens=LENGTH)
    np.testing.assert_allclose(np.exp(law.log_prob(PROMPTS, every)), np.exp(known.log_prob(PROMPTS, every)), atol=1e-12)
    kept = contains_any(PROMPTS, every, words=["sun rain", "wind"]) == 1
    share = np.exp(law.log_prob(PROMPTS, every)) @ kept / len(PROMPTS)
    assert (abs(share - 1) < 1e-12) == lookahead


def test_planted_look_ahead_off_by_one(monkeypatch):
    """With one token more than is left, the word no longer fits; with one less, draws of p are masked."""
    base = exact(words=WORDS, order=2, seed=1)
    every = enumerate_draws(base, PROMPTS, max_tokens=LENGTH)
    kept = contains_any(PROMPTS, every, words=["wind"]) == 1
    right = Lexical.allowed

    def mass():
        pi = np.exp(align(base, any_of=["wind"], lookahead=True).log_prob(PROMPTS, every))
        return pi @ kept / len(PROMPTS), (pi[kept] > 0).all()

    assert mass() == (pytest.approx(1, abs=1e-12), True)
    monkeypatch.setattr(Lexical, "allowed", lambda self, s, left: right(self, s, min(left + 1, LENGTH)))
    assert mass()[0] < 0.99
    monkeypatch.setattr(Lexical, "allowed", lambda self, s, left: right(self, s, max(left - 1, 1)))
    assert not mass()[1]


def test_planted_eos_too_early(monkeypatch):
    base = exact(words=WORDS, order=2, seed=1)
    right = Lexical.allowed

    def with_eos(self, states, left):
        allowed = right(self, states, left)
        allowed[:, sorted(self.vocab.eos)] = True
        return allowed

    law = align(base, must=["wind", "sun"], lookahead=True)
    every = enumerate_draws(law, PROMPTS, max_tokens=LENGTH)
    assert contains_all(PROMPTS, every, words=["wind", "sun"]).all()
    monkeypatch.setattr(Lexical, "allowed", with_eos)
    every = enumerate_draws(law, PROMPTS, max_tokens=LENGTH)
    assert not contains_all(PROMPTS, every, words=["wind", "sun"]).all()


def test_the_masked_law_bounds_its_base():
    """log a − log π <= 0 wherever π > 0, which makes it a proposal of rejection; here with dead ends."""
    base = exact(words=WORDS, order=2, seed=3, concentration=0.2)
    law = align(base, never=["sun wind"], must=["rain"], lookahead=True)
    assert law.model.base is base
    every = enumerate_draws(law, PROMPTS, max_tokens=LENGTH)
    assert (base.log_prob(PROMPTS, every) <= every.log_prob + 1e-12).all()
    assert law.truncates


# --- real models, by slots and by states


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("constrained")
    paths = {"gpt2": tiny_gpt2(folder / "gpt2", WORDS), "llama": tiny_llama(folder / "llama", WORDS)}
    found = {name: hf(pretrained=str(path)) for name, path in paths.items()}
    found |= {
        "t5": hf(pretrained=str(tiny_t5(folder / "t5", WORDS))),
        "llama plain": hf(pretrained=str(paths["llama"])),
    }
    found["llama plain"].model.trial = slots.Trial(False)
    return found


@pytest.mark.parametrize("model", ["gpt2", "llama", "llama plain", "t5"])
def test_every_law_holds_on_real_models(models, model):
    law = align(models[model], any_of=["sun rain"], never=["wind"], lookahead=True)
    assert check(law, PROMPTS[:2], max_tokens=LENGTH) == EVERY_LAW
    draws = collect(law.sample(PROMPTS, rows_of(3, 50), max_tokens=LENGTH, seed=Seed(0, "own")))
    assert contains_any(PROMPTS, draws, words=["sun rain"]).all()
    assert not contains_any(PROMPTS, draws, words=["wind"]).any()


def test_every_law_holds_on_a_prompted_base_with_settings(models):
    settings = {"top_k": 3, "temperature": 1.3, "repetition_penalty": 1.5}
    base = replace(models["gpt2"].warped(**settings), template="wind {prompt}")
    assert check(align(base, must=["rain"]), PROMPTS[:2], max_tokens=LENGTH) == EVERY_LAW


def test_constraints_add_up(models):
    inner = align(models["gpt2"], must=["rain"], lookahead=True)
    law = align(inner, never=["wind"])
    assert check(law, PROMPTS[:2], max_tokens=LENGTH) == EVERY_LAW
    assert law.identity() != inner.identity()


def broken(law):
    with pytest.raises(LawBroken) as caught:
        check(law, PROMPTS[:2], max_tokens=LENGTH)
    return str(caught.value)


def test_planted_mask_forgotten_when_scoring(models, monkeypatch):
    law = align(models["gpt2"], any_of=["sun rain"], lookahead=True)
    monkeypatch.setattr(Reweighted, "forced", lambda self, said, draws: self.base.model.forced(said, draws))
    assert broken(law).startswith("rescoring_is_sampling")


def test_planted_states_that_stay_when_slots_move(models, monkeypatch):
    law = align(models["llama"], never=["sun sun", "rain rain", "wind wind", "sun wind"])
    right = ReweightedDecoder.keep

    def stay(self, rows):
        memory = self.memory
        right(self, rows)
        self.memory = Where(memory.states[: len(rows)], self.memory.said, memory.most)

    monkeypatch.setattr(ReweightedDecoder, "keep", stay)
    assert broken(law).split(":")[0] in EVERY_LAW


def test_planted_states_of_the_draw_before(models, monkeypatch):
    """A slot filled anew begins in the state that its last draw ended in."""
    law = align(models["llama"], never=["sun sun", "rain rain", "wind wind", "sun wind"])
    monkeypatch.setattr(ReweightedDecoder, "fill", lambda self, slots, which: self.inner.fill(slots, which))
    assert broken(law).split(":")[0] in EVERY_LAW


def test_scoring_holds_no_copy_of_all_logits(models):
    """What `forced` gives is masked as it is cut."""
    law = align(models["gpt2"], must=["rain"])
    draws = collect(law.sample(PROMPTS, rows_of(3, 4), max_tokens=LENGTH, seed=Seed(0, "own")))
    found = law.model.forced([law.render(PROMPTS[c]) for c in draws.prompt], draws)
    assert isinstance(found, Weighed)
    assert not hasattr(found.places, "shape")


# --- bad input


def test_it_is_declared():
    declared = aligner["constrained"].meta
    assert declared["density"] == "exact" and declared["target_driven"] is False


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({}, r"constrained: needs words \(must, any_of, never\) or one of regex, json_schema, lark; has none"),
        ({"must": ["a"], "regex": "a"}, "has must and regex"), ({"regex": "a", "lark": "b"}, "has regex and lark"),
        ({"must": ["a"], "first": True}, "constrained: first is not for must"),
        ({"regex": "a", "ignore_case": True}, "constrained: ignore_case is not for regex"),
        ({"never": [" "]}, "constrained: has an empty word"),
        ({"must": "sun"}, r"constrained: must is the text 'sun': give a list of words, \[sun\]"),
        ({"regex": "(?=a)b"}, r"constrained: regex '\(\?=a\)b' looks ahead or behind"),
        ({"json_schema": {"type": "text"}}, "constrained: json_schema is no JSON Schema: type: "),
        ({"json_schema": "nowhere.json"}, "json_schema: cannot read the file nowhere.json: No such file or directory"),
        ({"lark": "start: x", "lookahead": True}, "constrained: lookahead: how many tokens lark still needs"),
    ],
)  # fmt: skip
def test_refused_recipes(recipe, message):
    """Before there is a model, so that a dry run refuses them too."""
    with pytest.raises(UsageError, match=message):
        Constrained(**recipe)


def test_a_proposal_is_refused_before_there_is_a_model():
    with pytest.raises(UsageError, match="constrained: needs words"):
        Rejection(proposal={"name": "constrained"})
    with pytest.raises(UsageError, match="'any_of': input should be a valid list, not 'rain'"):
        Rejection(proposal="constrained:any_of=rain")


def test_refused_worlds():
    base = exact(words=WORDS, seed=1)
    with pytest.raises(UsageError, match="constrained: the tokenizer cannot spell the word 'ocean'"):
        align(base, any_of=["sun", "ocean"])
    with pytest.raises(UsageError, match="constrained: no draw of 2 tokens keeps these words"):
        align(base, max_tokens=2, must=["sun", "wind", "rain"], lookahead=True)
    with pytest.raises(UsageError, match="constrained: no draw keeps these words"):
        align(base, must=["sun"], never=["sun"])


def test_refused_schema_files(tmp_path):
    (tmp_path / "list.json").write_text(json.dumps([1]))
    with pytest.raises(UsageError, match=r"list\.json holds no JSON Schema"):
        Constrained(json_schema=str(tmp_path / "list.json"))
    (tmp_path / "half.json").write_text("{")
    with pytest.raises(UsageError, match=r"half\.json is no JSON: Expecting property name"):
        Constrained(json_schema=str(tmp_path / "half.json"))


def test_a_text_that_loses_the_space_of_its_first_token_is_not_followed(models):
    """The answer of an encoder-decoder is decoded by itself: " sun" is the text "sun"."""
    for recipe in ({"regex": " sun( rain)*"}, {"lark": 'start: " sun"'}):
        with pytest.raises(UsageError, match=r"after the prompt 'rain' the texts of .* lose the space of their first"):
            align(models["t5"], **recipe)


def test_a_law_says_what_it_is(hard):
    law = align(hard.base, WORLD_PROMPTS, 3, must=["sun"])
    assert isinstance(law, Law)
    assert law.identity()["model"]["masks"]["must"] == ("sun",)
    assert set(keys(enumerate_draws(law, WORLD_PROMPTS, max_tokens=3))) <= set(keys(hard.all))


def test_a_regex_that_needs_more_tokens_than_a_draw_has_is_refused():
    """It was drawn from the base, unmasked, under the name of the regex."""
    pytest.importorskip("outlines_core", reason="needs the extra constrained")
    base = exact(words=WORDS, order=2, seed=0)
    align(base, regex=" sun( sun){3}", lookahead=True)
    with pytest.raises(UsageError, match=r"no draw of 4 tokens after the prompt 'rain' keeps what is asked"):
        align(base, regex=" sun( sun){4}", lookahead=True)


def test_a_path_is_no_lark_grammar():
    with pytest.raises(UsageError, match=r"lark='my\.lark': is to be a grammar"):
        Constrained(lark="my.lark")
