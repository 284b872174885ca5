"""Best-of-n: its law is the enumerated one, and each draw is a function of its own row alone."""

from dataclasses import replace

import numpy as np
import pytest
from aligner_worlds import LENGTH, PROMPTS, best, make_world, within

from alignbench.aligners.base import Setting
from alignbench.aligners.selection import best_of_n as module
from alignbench.aligners.selection.best_of_n import BestOfN
from alignbench.errors import Unsupported, UsageError
from alignbench.features import bind
from alignbench.registry import load_plugins
from alignbench.seeds import ATTEMPT, Seed, attempts
from alignbench.stats.selection import selected
from alignbench.target import Constraint
from alignbench.target.truth import exact_values
from alignbench.types import Draws, Selection, collect, rows_of

load_plugins()


def draw(world, n=4, rows=None, each=1500, **more):
    sampler = BestOfN(n, **more).align(Setting(world.base, world.target, PROMPTS, LENGTH, Seed(0, "train")))
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
    proposals = collect(soft.base.sample(PROMPTS, tries_of(30, 4), max_tokens=LENGTH, seed=Seed(1)))
    assert (drawn.proposals == 4).all() and drawn.accepted is None
    assert np.array_equal(drawn.spent, proposals.length.reshape(2, 4, 30).sum(1).ravel())
    assert drawn.log_prob is drawn.token_log_prob is None and drawn.model_log_prob is not None
    assert drawn.vocab == soft.base.vocab.fingerprint


def tries_of(each, n):
    """Prompt and sample number of the attempts 0 … n − 1 at `each` draws of a prompt, in order of sample numbers."""
    tries = attempts(np.arange(each), n).T.ravel()
    return np.stack([np.repeat([0, 1], tries.size), np.tile(tries, 2)], 1)


def test_one_of_one_is_the_base(hard):
    base = collect(hard.base.sample(PROMPTS, rows_of(2, 25), max_tokens=LENGTH, seed=Seed(1)))
    assert draw(hard, 1, each=25).texts == base.texts


def test_identity_and_selection(hard, soft):
    sampler = BestOfN(4).align(Setting(hard.base, hard.target, PROMPTS, LENGTH, Seed()))
    other = BestOfN(4).align(Setting(soft.base, soft.target, PROMPTS, LENGTH, Seed()))
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

    drawn = replace(BestOfN(4).align(Setting(hard.base, hard.target, PROMPTS, LENGTH, Seed())), target=Rounding())
    best = collect(drawn.sample(PROMPTS, rows_of(2, 2000), max_tokens=LENGTH, seed=Seed(1)))
    assert within(best, [hard.law(c) for c in range(2)])


def aligned(world, n=4, **more):
    return BestOfN(n, **more).align(Setting(world.base, world.target, PROMPTS, LENGTH, Seed(0, "train")))


def ranked(world, rank, n):
    """The law of best-of-n by `rank`, from the order statistics, as `best` has it for the ratio."""
    values = world.all.log_prob if rank == "likelihood" else world.target.measures[rank](PROMPTS, world.all)
    return best(replace(world, ratio=values), n)


@pytest.mark.parametrize("rank", ["likelihood", "winds"])
def test_the_law_by_another_rank_is_the_enumerated_one(soft, rank):
    drawn = draw(soft, 3, rank=rank)
    assert within(drawn, ranked(soft, rank, 3)) and not within(drawn, best(soft, 3))


def test_a_shorter_draw_is_not_likelier_by_token(hard):
    """Planted: log a over the length, which is not a(x)."""
    mean = replace(hard, ratio=hard.all.log_prob / hard.all.length)
    assert not within(draw(hard, 3, rank="likelihood"), best(mean, 3))


def kl_target(world, n, **more):
    return exact_values(world.base, aligned(world, n, **more), world.target, PROMPTS, LENGTH)["divergence.kl_target"]


def test_by_the_target_it_tends_to_p_and_by_likelihood_it_does_not(hard):
    """KL(p‖π_n) = −log(1 − (1 − Z)^n) falls to 0 for a boolean target; by likelihood it grows."""
    z = [np.exp(hard.all.log_prob[(hard.all.prompt == c) & (hard.ratio == 0)]).sum() for c in range(2)]
    by_target = [kl_target(hard, n) for n in (1, 2, 4, 8, 16)]
    assert by_target == pytest.approx([np.mean([-np.log(1 - (1 - x) ** n) for x in z]) for n in (1, 2, 4, 8, 16)])
    by_likelihood = [kl_target(hard, n, rank="likelihood") for n in (1, 2, 4, 8, 16)]
    assert by_likelihood[0] == pytest.approx(by_target[0])
    assert (np.diff(by_target) < 0).all() and (np.diff(by_likelihood) > 0).all()
    assert by_target[-1] < 0.01 and by_likelihood[-1] > 10


def test_without_constraints_only_the_target_s_rank_gives_the_base_back():
    free = make_world()
    assert kl_target(free, 8) == pytest.approx(0, abs=1e-12)
    assert kl_target(free, 8, rank="likelihood") > 1
    assert kl_target(free, 1, rank="likelihood") == pytest.approx(0, abs=1e-12)


def test_no_truth_is_given_where_a_share_is_too_small_for_a_float(hard):
    assert exact_values(hard.base, aligned(hard, 10**6, rank="likelihood"), hard.target, PROMPTS, LENGTH) is None


def test_a_rank_that_orders_as_the_target_does_is_the_target_s():
    world = make_world(Constraint("winds", "reward", beta=2.0))
    assert aligned(world, rank="winds").rank is None and aligned(world).rank is None
    assert aligned(world, rank="sun").rank is not None
    assert draw(world, 3, each=20, rank="winds").texts == draw(world, 3, each=20).texts


@pytest.mark.parametrize(
    ("rank", "told"),
    [
        ("wind", r"^best_of_n:rank=wind: is no feature of the task\. Did you mean 'winds'\? Known: likelihood, sun, "),
        (3, "^best_of_n:rank=3: must be target, likelihood or the name of a feature$"),
    ],
)
def test_a_rank_is_a_number_of_the_task(hard, rank, told):
    with pytest.raises(UsageError, match=told):
        aligned(hard, rank=rank)
    codes = replace(
        hard.target, categories={"first": ("sun", "rain")}, measures={"first": lambda p, d: np.zeros(len(d))}
    )
    with pytest.raises(UsageError, match=r"^best_of_n:rank=first: is categorical, and its codes have no order"):
        aligned(replace(hard, target=codes), rank="first")


def test_equal_draws_have_one_likelihood(hard):
    """Batches part the log-probabilities of equal draws, which would be two ranks."""

    class Shaky:
        def log_prob(self, prompts, draws):
            return hard.base.log_prob(prompts, draws) + 1e-4 * np.arange(len(draws))

    rank = replace(aligned(hard, rank="likelihood"), base=Shaky()).rank
    twice = hard.all.take([0, 1, 0, 1])
    assert rank(PROMPTS, twice)[:2] == pytest.approx(rank(PROMPTS, twice)[2:], abs=0)


WARM = {"name": "temperature", "t": 3.0}


@pytest.mark.parametrize("rank", ["target", "likelihood", "winds"])
def test_any_proposal_is_ranked_in_the_same_way(soft, rank):
    """The law, from the proposal's masses; planted: those of the base."""
    sampler = aligned(soft, 3, rank=rank, proposal=WARM)
    warm = np.exp(soft.base.warped(temperature=3.0).log_prob(PROMPTS, soft.all))
    values = {"target": soft.ratio, "likelihood": soft.all.log_prob}.get(
        rank, soft.target.measures["winds"](PROMPTS, soft.all)
    )
    laws = [[], []]
    for c, mass in ((c, m) for c in range(2) for m in (warm, np.exp(soft.all.log_prob))):
        rows = soft.all.prompt == c
        law = selected(mass[rows], values[rows], Selection("best", 3))
        laws[int(mass is not warm)].append(dict(zip(module_keys(soft.all.take(rows)), law, strict=True)))
    drawn = collect(sampler.sample(PROMPTS, rows_of(2, 1500), max_tokens=LENGTH, seed=Seed(1)))
    assert within(drawn, laws[0]) and not within(drawn, laws[1])
    assert sampler.selection is sampler.rank is None  # no closed form relative to the base
    assert exact_values(soft.base, sampler, soft.target, PROMPTS, LENGTH) is None


def module_keys(draws):
    return [tuple(row[row >= 0]) for row in draws.tokens]


def test_the_bill_of_a_proposal_is_all_that_it_spent(soft):
    """Nested: each of 2 proposals is the best of 3; to rank by likelihood the base reads what another law drew."""
    inner = {"name": "best_of_n", "n": 3}
    by_target, read = (draw(soft, 2, each=20, proposal=inner, rank=rank) for rank in ("target", "likelihood"))
    assert (by_target.proposals == 6).all() and np.array_equal(by_target.calls, by_target.spent)
    kept = draw(soft, 3, rows=tries_of(20, 2)).sorted().length.reshape(2, 2, 20).sum(1).ravel()
    assert np.array_equal(by_target.sorted().spent, draw(soft, 6, each=20).sorted().spent)
    assert np.array_equal(read.sorted().calls, read.sorted().spent + kept)


def test_a_proposal_that_gave_up_is_no_draw(soft):
    drawn = draw(soft, 2, each=200, proposal={"name": "rejection", "cap": 2})
    inner = draw(soft, 1, rows=tries_of(200, 2), proposal={"name": "rejection", "cap": 2}).sorted()
    assert np.array_equal(drawn.sorted().accepted, inner.accepted.reshape(2, 2, 200).all(1).ravel())
    assert 0 < drawn.accepted.mean() < inner.accepted.mean() < 1


def test_the_base_cannot_read_another_s_tokens(hard):
    sampler = replace(aligned(hard, 2, rank="likelihood"), proposal=Texts())
    with pytest.raises(Unsupported, match=r"^best_of_n:rank=likelihood: the base cannot read what is proposed"):
        collect(sampler.sample(PROMPTS, rows_of(2, 3), max_tokens=LENGTH, seed=Seed(1)))
    by_feature = replace(aligned(hard, 2, rank="winds"), proposal=Texts())
    drawn = collect(by_feature.sample(PROMPTS, rows_of(2, 3), max_tokens=LENGTH, seed=Seed(1)))
    assert set(drawn.texts) == {"wind wind"}


class Texts:
    """A black box: wind, and twice where the attempt is odd."""

    def sample(self, prompts, rows, *, max_tokens, seed):
        yield Draws.from_texts(rows, [" ".join(["wind"] * (1 + i // ATTEMPT % 2)) for _, i in rows])


def test_a_proposal_s_name_is_checked_at_once():
    with pytest.raises(UsageError, match=r"^best_of_n:proposal: unknown aligner 'tempersture'. Did you mean 'temper"):
        BestOfN(4, proposal="tempersture:t=2")


def test_identities_tell_ranks_and_proposals_apart(hard):
    made = [aligned(hard, **more) for more in ({}, {"rank": "winds"}, {"rank": "likelihood"}, {"proposal": WARM})]
    told = [str(sampler.identity()) for sampler in made]
    assert len(set(told)) == 4
    other = replace(made[3], proposal=hard.base.warped(temperature=2.0))
    assert other.identity() != made[3].identity()


def test_a_feature_of_the_same_name_that_counts_other_words_is_another_target(hard):
    """Planted: names alone, by which an edited task found the draws of the earlier one."""
    made = [bind({"feature": "contains_any", "words": [word]}, "sun") for word in ("sun", "rain")]
    told = [
        aligned(replace(hard, target=replace(hard.target, measures={"sun": f, "winds": f})), **more).identity()
        for more in ({}, {"rank": "winds"})
        for f in made
    ]
    assert len({str(identity) for identity in told}) == 4
    assert told[0]["target"] == told[1]["target"]


def test_more_proposals_than_a_batch_holds(soft):
    small = replace(soft, base=replace(soft.base, model=replace(soft.base.model, batch_size=3)))
    assert draw(small, 10, each=5, rank="likelihood").texts == draw(soft, 10, each=5, rank="likelihood").texts


def test_the_feature_that_ranks_is_part_of_the_identity(soft):
    """A feature that is measured and not asked for is no part of the target's identity."""

    def identity(word):
        measures = {**soft.target.measures, "f": bind({"feature": "contains_any", "words": [word]})}
        target = replace(soft.target, measures=measures, ranges={**soft.target.ranges, "f": (0.0, 1.0)})
        return BestOfN(3, rank="f").align(Setting(soft.base, target, PROMPTS, LENGTH, Seed(0, "train"))).identity()

    assert identity("sun") == identity("sun") != identity("rain")
