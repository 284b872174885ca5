"""The filter: its draws are of q·b/AR, whatever the target's soft parts; nothing is scored to keep them."""

from dataclasses import replace

import numpy as np
import pytest
from aligner_worlds import LENGTH, PROMPTS, keys, make_world, within
from scipy.special import rel_entr

from alignbench.aligners.base import Setting
from alignbench.aligners.selection import filtered as filtered_module
from alignbench.aligners.selection.filtered import SOFT, Filtered
from alignbench.errors import Unsupported, UsageError
from alignbench.generators.exact.world import exact
from alignbench.generators.law import Law
from alignbench.seeds import ATTEMPT, Seed
from alignbench.target import Constraint
from alignbench.target import truth as truth_module
from alignbench.target.truth import exact_values
from alignbench.testing import check
from alignbench.types import Fit, Selection, collect, rows_of

COLD = "temperature:t=0.4"
PROPOSALS = {
    "cold": COLD, "nucleus": "top_p:p=0.8", "prompted": {"name": "prompt", "text": "wind"},
    "policy": {"name": "exact", "words": "sun rain wind", "seed": 3}, "base": None,
}  # fmt: skip


@pytest.fixture(scope="module")
def steep():
    """The text says sun, and each wind in it counts two nats."""
    return make_world(Constraint("sun", "always"), Constraint("winds", "reward", beta=0.5))


def align(world, proposal=COLD, cap=256):
    return Filtered(cap, proposal).align(Setting(world.base, world.target, PROMPTS, LENGTH, Seed(0, "train")))


def draw(sampler, each=500):
    return collect(sampler.sample(PROMPTS, rows_of(len(PROMPTS), each), max_tokens=LENGTH, seed=Seed(1)))


def parts(world, q):
    """(p, q·b, a) of each prompt's continuations, the second not normalised, and their keys."""
    log_q = q.log_prob(PROMPTS, world.all)
    for c in range(len(PROMPTS)):
        rows = world.all.prompt == c
        a, r = np.exp(world.all.log_prob[rows]), world.ratio[rows]
        p = a * np.exp(r)
        yield p / p.sum(), np.exp(log_q[rows]) * (r > -np.inf), a, keys(world.all.take(rows))


def law(world, q):
    """The kept share of q, divided by AR."""
    return [dict(zip(names, qb / qb.sum(), strict=True)) for _, qb, _, names in parts(world, q)]


def enumerated(world, q):
    """Divergences of q·b/AR from p and a, nats (TV: 0 to 1), mean over prompts."""
    found = []
    for p, qb, a, _ in parts(world, q):
        pi = qb / qb.sum()
        reverse, base = rel_entr(pi, p).sum(), rel_entr(pi, a).sum()
        found.append([rel_entr(p, pi).sum(), reverse, base, np.abs(p - pi).sum() / 2])
    return dict(zip(("kl_target", "kl_reverse", "kl_base", "tv"), np.mean(found, axis=0), strict=True))


def told(world, sampler):
    return exact_values(world.base, sampler, world.target, PROMPTS, LENGTH)


@pytest.mark.parametrize("name", PROPOSALS)
def test_its_exact_values_are_the_enumerated_ones(hard, steep, name):
    for world in (hard, steep):
        sampler = align(world, PROPOSALS[name])
        expected, found = enumerated(world, sampler.proposal), told(world, sampler)
        for part, value in expected.items():
            assert found[f"divergence.{part}"] == pytest.approx(value, abs=1e-12), part
        assert found["satisfaction.always"] == 1 and (expected["kl_target"] == np.inf) == (name == "nucleus")


def test_kl_of_the_proposal_is_that_of_the_filter_less_the_log_of_ar(steep):
    sampler = align(steep)
    log_ar = np.mean([np.log(qb.sum()) for _, qb, _, _ in parts(steep, sampler.proposal)])
    raw, kept = (told(steep, law)["divergence.kl_target"] for law in (sampler.proposal, sampler))
    assert raw == pytest.approx(kept - log_ar) and log_ar < -0.1


def test_planted_a_density_without_ar(steep, monkeypatch):
    monkeypatch.setattr(truth_module.discrete, "normalised", np.exp)
    sampler = align(steep)
    assert told(steep, sampler)["divergence.kl_base"] != pytest.approx(enumerated(steep, sampler.proposal)["kl_base"])


@pytest.mark.parametrize("name", ["cold", "policy"])
def test_what_is_kept_follows_it(steep, name):
    """Also where some draws run out of proposals, which are marked."""
    sampler = align(steep, PROPOSALS[name])
    assert within(draw(sampler), law(steep, sampler.proposal))
    capped = draw(align(steep, PROPOSALS[name], cap=2))
    assert 0 < capped.accepted.mean() < 1 and (capped.proposals[~capped.accepted] == 2).all()
    assert within(capped.take(capped.accepted), law(steep, sampler.proposal))
    assert not within(capped, law(steep, sampler.proposal))  # planted: those that ran out are counted


def test_planted_acceptance_by_the_soft_part(steep, monkeypatch):
    """A moment whose λ is below 0, so that its weights are no sure acceptance; the filter reads no λ."""
    asked = (Constraint("sun", "always"), Constraint("winds", "moment", 0.1))
    fit = Fit((), np.array([[-1.5]]), np.zeros((1, 1)))
    world = replace(steep, target=replace(steep.target, constraints=asked, fit=fit))
    sampler = align(world)
    assert within(draw(sampler), law(steep, sampler.proposal))
    monkeypatch.setattr(filtered_module, "_hard", lambda target: target)
    assert not within(draw(sampler), law(steep, sampler.proposal))


def test_tokens_decoded_are_all_that_it_costs(steep, monkeypatch):
    """No model scores a proposal, and no soft feature is measured."""
    one = replace(steep, base=replace(steep.base, model=replace(steep.base.model, batch_size=1)))
    cold = one.base.warped(temperature=0.4)

    def never(*given, **more):
        raise AssertionError("scored")

    with monkeypatch.context() as patch:
        patch.setattr(Law, "log_prob", never)
        target = replace(one.target, measures={**one.target.measures, "winds": never})
        drawn = draw(align(replace(one, target=target), cap=6), each=6)
    assert np.array_equal(drawn.calls, drawn.spent)
    for k in range(len(drawn)):
        rows = [[drawn.prompt[k], drawn.index[k] + a * ATTEMPT] for a in range(drawn.proposals[k])]
        proposals = collect(cold.sample(PROMPTS, np.array(rows), max_tokens=LENGTH, seed=Seed(1)))
        assert drawn.spent[k] == proposals.length.sum() and drawn.texts[k] == proposals.texts[-1]
        says = ["sun" in text.split() for text in proposals.texts]
        assert not any(says[:-1]) and says[-1] == drawn.accepted[k]


def test_over_the_base_it_is_rejection_by_b(hard, steep):
    assert within(draw(align(hard, None)), hard.p)
    assert align(hard, None, 9).selection == Selection("first", 9)
    assert align(steep, None, 9).selection == align(steep, COLD, 9).selection == Selection("filtered", 9)
    assert align(hard).selection.kind == "filtered"
    assert align(steep, "top_p:p=0.8").truncates and not align(steep).truncates


def test_what_it_ignores_is_said(hard, steep):
    assert (align(hard).remark, align(steep).remark) == ("", SOFT)


def test_without_hard_constraints_there_is_nothing_to_filter():
    with pytest.raises(Unsupported, match=r"hard constraints \('always: true'\), and this target has none; use quasi"):
        align(make_world(Constraint("winds", "reward", beta=0.5)))
    asks_nothing = make_world()
    assert draw(align(asks_nothing, None, 1), 40).accepted.all()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"cap": 0}, "filtered:cap=0: must be a whole number >= 1"),
        ({"proposal": "temprature:t=2"}, "filtered: proposal: unknown aligner 'temprature'"),
        ({"proposal": 7}, "must name an aligner or a generator, not 7"),
    ],
)
def test_a_users_mistake_is_one_line(arguments, said):
    with pytest.raises(UsageError, match=said):
        Filtered(**arguments)


def test_proposals_that_will_not_do(steep):
    with pytest.raises(Unsupported, match="filtered: proposal 'best_of_n' has no log_prob"):
        align(steep, "best_of_n")
    with pytest.raises(UsageError, match="other tokens than the base"):
        align(steep, {"name": "exact", "words": "sun rain hail"})


def test_a_draw_depends_on_its_row_alone(steep):
    assert "draws_depend_on_their_row_alone" in check(align(steep, cap=5), PROMPTS, max_tokens=LENGTH)


def test_identity(steep):
    samplers = [align(steep), align(steep, cap=9), align(steep, None), align(steep, "top_p:p=0.8")]
    assert len({str(s.identity()) for s in samplers}) == len(samplers)
    assert align(steep).identity()["proposal"] == steep.base.warped(temperature=0.4).identity()


def test_what_the_base_cannot_say_is_not_listed(hard):
    """q may keep it, so that AR is not known from the base's continuations."""
    narrow = replace(hard, base=hard.base.warped(top_k=3))
    assert told(narrow, align(narrow, {"name": "exact", "words": "sun rain wind", "seed": 3})) is None
    assert told(narrow, align(narrow, None)) is not None
    assert exact(words="sun rain wind", seed=3).vocab.fingerprint == hard.base.vocab.fingerprint
