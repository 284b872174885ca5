"""The public law checks: which ones run for whom, and how they say what is broken."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from alignbench.generators.exact.world import exact
from alignbench.seeds import Seed
from alignbench.testing import LawBroken, check, differing, gap, goes_on
from alignbench.types import Draws, rows_of

PROMPTS = ("rain", "sun wind")
SAMPLING = ["delivers_the_rows", "draws_depend_on_their_row_alone", "batch_size_changes_nothing"]


@dataclass
class BlackBox:
    """Texts of an exact world, spoilt by `spoil` on the way out."""

    spoil: Any = None
    batch_size: int = 64

    def sample(self, prompts, rows, *, max_tokens, seed):
        for begin in range(0, len(rows), self.batch_size):
            part = rows[begin : begin + self.batch_size]
            draws = Draws.concat(list(exact().sample(prompts, part, max_tokens=max_tokens, seed=seed))).sorted()
            part = np.stack([draws.prompt, draws.index], 1)
            yield Draws.from_texts(part, self.spoil(draws.texts, part) if self.spoil else draws.texts)


@dataclass
class Scored(BlackBox):
    """The same, with ids and a density."""

    off: float = 0.0

    def sample(self, prompts, rows, *, max_tokens, seed):
        return exact().sample(prompts, rows, max_tokens=max_tokens, seed=seed)

    def log_prob(self, prompts, draws):
        return exact().log_prob(prompts, draws) + self.off


@dataclass
class WithVocab:
    """A sampler that says which ids end a draw."""

    inner: Any
    vocab: Any = exact().vocab

    def sample(self, prompts, rows, **asked):
        return self.inner.sample(prompts, rows, **asked)


def broken(generator, **asked):
    with pytest.raises(LawBroken) as caught:
        check(generator, PROMPTS, **asked)
    return str(caught.value)


def test_each_capability_adds_its_laws():
    assert check(BlackBox(), PROMPTS) == SAMPLING
    assert check(Scored(), PROMPTS) == [*SAMPLING, "rescoring_is_sampling"]
    assert len(check(exact(), PROMPTS, max_tokens=3)) == 7


def test_law_broken_is_an_assertion_so_that_pytest_shows_it_as_a_failure():
    assert issubclass(LawBroken, AssertionError)


def test_planted_rows_forgotten():
    class Forgetful(BlackBox):
        def sample(self, prompts, rows, **asked):
            return BlackBox().sample(prompts, rows[:-1], **asked)

    assert broken(Forgetful()) == "delivers_the_rows: the rows wanted are not the rows delivered"


def test_planted_state_between_calls():
    calls = []

    def count(texts, rows):
        calls.append(1)
        return tuple(f"{t} {len(calls)}" for t in texts)

    assert broken(BlackBox(count)).startswith("draws_depend_on_their_row_alone: other draws asked in another order")


def test_planted_place_in_the_batch():
    numbered = BlackBox(lambda texts, rows: tuple(f"{t} {i % 7 == 0}" for i, t in enumerate(texts)))
    assert broken(numbered).startswith("draws_depend_on_their_row_alone")


def test_planted_batch_size():
    class Sized(BlackBox):
        def sample(self, prompts, rows, **asked):
            for draws in BlackBox(batch_size=10**6).sample(prompts, rows, **asked):
                yield replace(draws, texts=tuple(f"{t} {self.batch_size}" for t in draws.texts))

    assert broken(Sized()).startswith("batch_size_changes_nothing: other draws in another batch size")


def test_planted_density():
    assert check(Scored(off=5e-5), PROMPTS)[-1] == "rescoring_is_sampling"
    said = broken(Scored(off=1e-3))
    assert said.startswith("rescoring_is_sampling: log_prob and the sampling log-probability differ: ")
    assert said.endswith("of 32)")


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_planted_numbers_that_are_none(wrong):
    assert broken(Scored(off=wrong)).startswith("rescoring_is_sampling: log_prob and the sampling log-probability")


def test_planted_numbers_that_are_never_known():
    """NaN beside NaN was taken for agreement."""

    class Unknown(Scored):
        def sample(self, prompts, rows, **asked):
            for draws in exact().sample(prompts, rows, **asked):
                yield replace(draws, log_prob=np.full(len(draws), np.nan))

    assert broken(Unknown()).startswith("draws_depend_on_their_row_alone: log-probabilities of the same draws")


def test_what_is_measured():
    left, right = np.array([1.0, np.inf, -np.inf]), np.array([1.5, np.inf, -np.inf])
    assert gap(left, right) == 0.5 and gap(left[:0], right[:0]) == 0.0
    assert gap(left, -left) == np.inf and np.isnan(gap(left, np.full(3, np.nan)))
    (draws,) = exact().sample(PROMPTS, rows_of(2, 8), max_tokens=5, seed=Seed(0))
    assert not differing(draws, draws.take(np.arange(16))).any() and not goes_on(draws, exact().vocab.eos).any()
    assert differing(draws, replace(draws, tokens=draws.tokens[:, ::-1])).any()
    assert goes_on(draws, set(draws.tokens[:, 0].tolist())).sum() == (draws.length > 1).sum()


def test_planted_length():
    class Long(Scored):
        def sample(self, prompts, rows, **asked):
            for draws in exact().sample(prompts, rows, **asked):
                yield replace(draws, length=draws.length + 1)

    assert broken(Long()) == "delivers_the_rows: length is not the number of tokens"


def test_planted_draw_cut_short():
    class Short(Scored):
        def sample(self, prompts, rows, **asked):
            for draws in exact().sample(prompts, rows, **asked):
                yield replace(draws, finished=np.zeros(len(draws), bool))

    assert broken(Short()) == "delivers_the_rows: a draw without EOS is shorter than max_tokens"


def test_planted_tokens_after_the_end():
    """A sampler that goes on after EOS: the density of what it returns is not that of a draw."""

    class OnAndOn(Scored):
        def sample(self, prompts, rows, **asked):
            for draws in exact().sample(prompts, rows, **asked):
                tokens = np.where(draws.tokens < 0, 0, draws.tokens)
                yield replace(draws, tokens=tokens, length=np.full(len(draws), tokens.shape[1]))

    assert broken(OnAndOn()).startswith("rescoring_is_sampling")
    assert broken(WithVocab(OnAndOn())) == "delivers_the_rows: a draw goes on after an EOS"


def test_planted_finished():
    """Every draw said to have ended, the cut ones too."""

    class Ended(Scored):
        def sample(self, prompts, rows, **asked):
            for draws in exact().sample(prompts, rows, **asked):
                yield replace(draws, finished=np.ones(len(draws), bool))

    assert broken(WithVocab(Ended())) == "delivers_the_rows: finished is not whether a draw ended in an EOS"


def test_a_batch_size_is_put_back_even_after_a_failure():
    law = exact(batch_size=11)
    check(law, PROMPTS, max_tokens=3)
    assert law.model.batch_size == 11
