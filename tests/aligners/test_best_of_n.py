"""Best-of-n: its law is the enumerated one, and each draw is a function of its own row alone."""

from dataclasses import replace

import numpy as np
import pytest
from aligner_worlds import LENGTH, PROMPTS, best, within

from alignbench.aligners import best_of_n as module
from alignbench.aligners.best_of_n import BestOfN
from alignbench.errors import UsageError
from alignbench.seeds import Seed
from alignbench.types import Selection, collect, rows_of


def draw(world, n=4, rows=None, each=1500):
    sampler = BestOfN(n).align(world.base, world.target, PROMPTS, max_tokens=LENGTH, seed=Seed(0, "train"))
    rows = rows_of(len(PROMPTS), each) if rows is None else np.array(rows)
    return collect(sampler.sample(PROMPTS, rows, max_tokens=LENGTH, seed=Seed(1)))


@pytest.mark.parametrize("n", [1, 2, 5])
def test_the_law_is_the_enumerated_one(hard, soft, n):
    for world in (hard, soft):
        assert within(draw(world, n), best(world, n))


def test_planted_bugs_change_the_law(hard, soft, monkeypatch):
    assert not within(draw(soft, 3), best(soft, 5)) and not within(draw(soft, 5), best(soft, 3))
    monkeypatch.setattr(module.BestOfNSampler, "_best", _first_of_ties)
    assert not within(draw(hard, 4), best(hard, 4))  # ties broken by anything but chance


def _first_of_ties(self, prompts, rows, proposals, seed):
    score = self.target.log_ratio_of(prompts, proposals).reshape(len(rows), -1)
    n = score.shape[1]
    order = proposals.tokens[:, 0].reshape(len(rows), -1)  # a tie goes to the smallest first token
    pick = np.where(score == score.max(1, keepdims=True), -order, -np.inf).argmax(1)
    kept = proposals.take(np.arange(len(rows)) * n + pick)
    return replace(kept, index=rows[:, 1])


def test_a_draw_does_not_depend_on_what_else_is_asked(soft):
    """Nor on the order or the batch size."""
    whole = draw(soft, each=40)
    some = draw(soft, rows=[[1, 31], [0, 7], [0, 39]])
    for k in range(3):
        row = int(np.flatnonzero((whole.prompt == some.prompt[k]) & (whole.index == some.index[k]))[0])
        assert whole.texts[row] == some.texts[k] and np.array_equal(whole.tokens[row], some.tokens[k])
    for size in (1, 7):
        small = replace(soft, base=replace(soft.base, model=replace(soft.base.model, batch_size=size)))
        assert draw(small, each=40).texts == whole.texts


def test_the_bill_is_honest(soft):
    """n proposals a draw, and every token of them paid for."""
    drawn = draw(soft, 4, each=30)
    rows = np.stack([np.repeat([0, 1], 120), np.tile(np.arange(120), 2)], 1)
    proposals = collect(soft.base.sample(PROMPTS, rows, max_tokens=LENGTH, seed=Seed(1)))
    assert (drawn.proposals == 4).all() and drawn.accepted is None
    assert np.array_equal(drawn.spent, proposals.length.reshape(-1, 4).sum(1))
    assert drawn.log_prob is drawn.token_log_prob is None and drawn.model_log_prob is not None
    assert drawn.vocab == soft.base.vocab.fingerprint


def test_one_of_one_is_the_base(hard):
    base = collect(hard.base.sample(PROMPTS, rows_of(2, 25), max_tokens=LENGTH, seed=Seed(1)))
    assert draw(hard, 1, each=25).texts == base.texts


def test_identity_and_selection(hard, soft):
    sampler = BestOfN(4).align(hard.base, hard.target, PROMPTS, max_tokens=LENGTH, seed=Seed())
    other = BestOfN(4).align(soft.base, soft.target, PROMPTS, max_tokens=LENGTH, seed=Seed())
    assert sampler.selection == Selection("best", 4)
    assert (
        sampler.identity() != other.identity() and sampler.identity() != replace(sampler, aligner=BestOfN(5)).identity()
    )
    assert sampler.identity() != replace(sampler, base=hard.base.warped(temperature=2.0)).identity()


@pytest.mark.parametrize("n", [0, -1, 1.5, "4", True, None])
def test_n_is_a_whole_number(n):
    with pytest.raises(UsageError, match=rf"^best_of_n:n={n}: must be a whole number >= 1$"):
        BestOfN(n)


def test_what_rounding_tells_apart_is_a_tie(hard):
    """Ratios within 1e-6 nats are one value to the closed forms, so they must be one to the sampler."""

    class Rounding:
        constraints = ()

        def log_ratio_of(self, prompts, draws):
            return 1e-9 * np.array([" sun" in text for text in draws.texts])

    drawn = replace(
        BestOfN(4).align(hard.base, hard.target, PROMPTS, max_tokens=LENGTH, seed=Seed()), target=Rounding()
    )
    best = collect(drawn.sample(PROMPTS, rows_of(2, 2000), max_tokens=LENGTH, seed=Seed(1)))
    assert within(best, [hard.law(c) for c in range(2)])
