"""Rejection: what is kept is exactly p, the cap is told, and each draw is a function of its own row alone."""

from dataclasses import replace

import numpy as np
import pytest
from aligner_worlds import LENGTH, PROMPTS, within

from alignbench.aligners.base import Setting
from alignbench.aligners.selection.rejection import Rejection
from alignbench.aligners.selection.rounds import Rounds
from alignbench.errors import Unsupported, UsageError
from alignbench.seeds import ACCEPT, ATTEMPT, Seed
from alignbench.target import Constraint, Target
from alignbench.types import Fit, Selection, collect, rows_of


def align(world, cap=256):
    return Rejection(cap).align(Setting(world.base, world.target, PROMPTS, LENGTH, Seed(0, "train")))


def draw(sampler, rows=None, each=1500):
    rows = rows_of(len(PROMPTS), each) if rows is None else np.array(rows)
    return collect(sampler.sample(PROMPTS, rows, max_tokens=LENGTH, seed=Seed(1)))


def test_what_is_kept_is_p(hard, soft):
    for world in (hard, soft):
        drawn = draw(align(world))
        assert drawn.accepted.all() and within(drawn, world.p)


def test_what_is_kept_is_p_whatever_the_cap(soft):
    """Draws that used up their proposals are marked; the rest are still draws of p."""
    drawn = draw(align(soft, cap=3))
    assert 0 < drawn.accepted.mean() < 1 and (drawn.proposals[~drawn.accepted] == 3).all()
    assert within(drawn.take(drawn.accepted), soft.p)


def test_planted_bugs_change_the_law(soft, monkeypatch):
    capped = draw(align(soft, cap=3))
    assert not within(capped, soft.p)  # the exhausted ones taken for draws of p
    low = replace(align(soft), bound=tuple(b - 1.5 for b in align(soft).bound))
    assert not within(draw(low), soft.p)  # a bound that is none
    monkeypatch.setattr(Rounds, "_accept", lambda self, prompts, proposed, seed: np.isfinite(proposed.log_weight))
    assert not within(draw(align(soft)), soft.p)  # the reward forgotten


def first_accepted(world, sampler, prompt, index):
    """The number of the first attempt whose coin is below exp(log P − log a − log β of its prompt), by hand."""
    for attempt in range(256):
        row = np.array([[prompt, index + attempt * ATTEMPT]])
        [ratio] = world.target.log_ratio_of(
            PROMPTS, collect(world.base.sample(PROMPTS, row, max_tokens=LENGTH, seed=Seed(1)))
        )
        coin = Seed(1).salted(ACCEPT).rng(PROMPTS[prompt], row[0, 1]).random()
        if coin < np.exp(ratio - sampler.bound[prompt]):
            return attempt + 1
    raise AssertionError("none of 256")


def test_each_prompt_accepts_by_its_own_beta(soft):
    """Planted: all by that of prompt 0; coins that are the tokens' own uniforms."""
    sampler = align(soft)
    sampler = replace(sampler, bound=tuple(b + extra for b, extra in zip(sampler.bound, (0.0, 1.0), strict=True)))
    drawn = draw(sampler, each=20)
    by_hand = [first_accepted(soft, sampler, *row) for row in zip(drawn.prompt, drawn.index, strict=True)]
    assert drawn.proposals.tolist() == by_hand


def test_the_number_of_proposals_is_geometric(hard):
    """P(accept) = Z exactly, here where the target is boolean."""
    drawn = draw(align(hard))
    for prompt in range(2):
        rows = (hard.all.prompt == prompt) & np.isfinite(hard.ratio)
        z = np.exp(hard.all.log_prob[rows]).sum()
        mine = drawn.proposals[drawn.prompt == prompt]
        assert abs(mine.mean() - 1 / z) < 4 * np.sqrt((1 - z) / z**2 / len(mine))


def test_a_draw_does_not_depend_on_what_else_is_asked(soft):
    """Nor on order and batch size; only the tokens decoded in vain may differ."""
    whole = draw(align(soft), each=40)
    some = draw(align(soft), rows=[[1, 31], [0, 7], [0, 39]])
    for k in range(3):
        row = int(np.flatnonzero((whole.prompt == some.prompt[k]) & (whole.index == some.index[k]))[0])
        assert whole.texts[row] == some.texts[k] and whole.proposals[row] == some.proposals[k]
    for size in (1, 7):
        small = replace(soft, base=replace(soft.base, model=replace(soft.base.model, batch_size=size)))
        again = draw(align(small), each=40)
        assert again.texts == whole.texts and np.array_equal(again.proposals, whole.proposals)


def test_every_row_is_there_once(soft):
    drawn = draw(align(soft, cap=2), each=70)
    assert list(zip(drawn.prompt, drawn.index, strict=True)) == [tuple(r) for r in rows_of(2, 70)]


def test_the_bill_is_honest(soft):
    """One at a time, every token of every proposal is paid for and none more."""
    one = replace(soft, base=replace(soft.base, model=replace(soft.base.model, batch_size=1)))
    drawn = draw(align(one, cap=9), each=5)
    for k in range(len(drawn)):
        tries = [[drawn.prompt[k], drawn.index[k] + a * ATTEMPT] for a in range(drawn.proposals[k])]
        proposals = collect(soft.base.sample(PROMPTS, np.array(tries), max_tokens=LENGTH, seed=Seed(1)))
        assert drawn.spent[k] == proposals.length.sum() and drawn.texts[k] == proposals.texts[-1]
    assert draw(align(soft, cap=9), each=5).spent.sum() >= drawn.spent.sum()


def test_nothing_asked_accepts_everything(hard):
    from aligner_worlds import make_world

    world = make_world()
    base = collect(world.base.sample(PROMPTS, rows_of(2, 25), max_tokens=LENGTH, seed=Seed(1)))
    drawn = draw(align(world, cap=1), each=25)
    assert drawn.accepted.all() and drawn.texts == base.texts


def test_without_a_bound_it_is_refused():
    from aligner_worlds import make_world

    from alignbench.target import Constraint

    world = make_world(Constraint("winds", "reward", beta=1.0), winds=None)
    with pytest.raises(
        Unsupported, match="needs a bound on log P − log a, and a feature of this target declares no range"
    ):
        align(world)


def test_identity_and_selection(soft):
    assert align(soft, 9).selection == Selection("first", 9)
    assert align(soft, 9).identity() != align(soft, 8).identity()


@pytest.mark.parametrize("cap", [0, 1.5, "4", True])
def test_the_cap_is_a_whole_number(cap):
    with pytest.raises(UsageError, match=rf"^rejection:cap={cap}: must be a whole number >= 1$"):
        Rejection(cap)


def test_every_prompt_has_a_bound_of_its_own(soft):
    """Of a λ for each prompt the largest log P − log a differs from prompt to prompt."""
    each = Target(
        (Constraint("winds", "moment", 1.0, per="prompt"),), {}, {"winds": (0.0, 3.0)},
        Fit((), np.array([[0.5], [1.5]]), np.zeros((2, 1))), soft.target.measures,
    )  # fmt: skip
    bound = Rejection().align(Setting(soft.base, each, PROMPTS, LENGTH, Seed(0, "train"))).bound
    assert bound == pytest.approx([0.5 * 2, 1.5 * 2])
