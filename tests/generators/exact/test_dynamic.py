"""Sums by dynamic programming against sums over every listed draw: equal to 1e-12, quantity by quantity."""

from __future__ import annotations

from functools import cache
from itertools import combinations, product

import numpy as np
import pytest
from exact_decoders import constrained, masking, quasi_rejected, twisted, twisting, warping
from exact_patterns import contains_any, matches

from alignbench.errors import UsageError
from alignbench.generators.exact import dynamic
from alignbench.generators.exact.automaton import always, counts
from alignbench.generators.exact.world import enumerate_draws, exact
from alignbench.generators.law import Warp
from alignbench.stats import discrete
from alignbench.stats.selection import selected
from alignbench.types import Selection

WORDS = ("sun", "rain", "wind")
PROMPTS = ("sun", "rain wind")
LENGTH = 5
WORLDS = {
    "order 1": {"order": 1, "seed": 1}, "order 2": {"order": 2, "seed": 2}, "order 3": {"order": 3, "seed": 3},
    "with zeros": {"order": 2, "seed": 4, "concentration": 0.2}, "two hidden": {"hidden": 2, "seed": 5},
    "three hidden": {"hidden": 3, "seed": 6, "concentration": 0.5},
}  # fmt: skip
RATIOS = ("says it", "grammar", "moment", "hard and reward")
near = {"rtol": 1e-12, "atol": 1e-12}


@cache
def base_of(world):
    return exact(words=WORDS, **WORLDS[world])


@cache
def listed(world):
    return enumerate_draws(base_of(world), PROMPTS, max_tokens=LENGTH)


def ratio_of(world, name):
    """log P − log a as an automaton."""
    vocab = base_of(world).vocab
    says = contains_any(vocab, ["sun rain", "wind wind"])
    return {
        "says it": says.log(),
        "grammar": matches(vocab, "( sun | wind )* rain .").log(),
        "moment": says * 1.3,
        "hard and reward": (~contains_any(vocab, ["rain rain"])).log() + counts(vocab, "sun", 3) * 0.4,
    }[name]


def masses(world, number):
    every = listed(world)
    return np.exp(every.log_prob[every.prompt == number])


def values(world, automaton, number):
    every = listed(world)
    return automaton(PROMPTS, every)[every.prompt == number]


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("world", WORLDS)
def test_log_z_and_moments(world, ratio):
    base, r = base_of(world), ratio_of(world, ratio)
    log_z = dynamic.log_z(base, r, PROMPTS, max_tokens=LENGTH)
    feature = counts(base.vocab, "rain wind", LENGTH)
    under_p = dynamic.mean(base, r, feature, PROMPTS, max_tokens=LENGTH)
    under_a = dynamic.mean(base, None, feature, PROMPTS, max_tokens=LENGTH)
    for number in (0, 1):
        a, weight, f = masses(world, number), np.exp(values(world, r, number)), values(world, feature, number)
        np.testing.assert_allclose(log_z[number], np.log(a @ weight), **near)
        np.testing.assert_allclose(under_p[number], (a * weight) @ f / (a @ weight), **near)
        np.testing.assert_allclose(under_a[number], a @ f, **near)


@pytest.mark.parametrize("world", WORLDS)
def test_final_masses_sum_to_one_and_are_the_draws(world):
    automaton = counts(base_of(world).vocab, "sun", 2)
    found = dynamic.final_masses(base_of(world), automaton, PROMPTS, max_tokens=LENGTH)
    np.testing.assert_allclose(found.sum(1), 1, **near)
    every = listed(world)
    for number in (0, 1):
        rows, count = every.prompt == number, values(world, automaton, number)
        cells = [(count == k) & (every.finished[rows] == done) for done in (True, False) for k in range(3)]
        np.testing.assert_allclose(found[number], [masses(world, number)[cell].sum() for cell in cells], **near)


LAWS = ("base", "cold", "top-p", "masked", "masked, looking ahead", "twisted")


def steered(world, ratio):
    """The laws as the package samples them, and as rules of the walk; a hidden Markov model's too."""
    base, r = base_of(world), ratio_of(world, ratio)
    keeps = r.mapped(lambda v: (v > -np.inf) * 1.0)
    laws = [
        base, base.warped(temperature=0.6), base.warped(top_p=0.8), constrained(base, keeps),
        constrained(base, keeps, lookahead=LENGTH), twisted(base, r, max_tokens=LENGTH),
    ]  # fmt: skip
    rules = [
        warping(Warp(temperature=0.6)), warping(Warp(top_p=0.8)), masking(keeps),
        masking(keeps, LENGTH), twisting(base, r, LENGTH),
    ]  # fmt: skip
    return r, laws, rules


@cache
def both(world, ratio, number):
    """(masses by law of each listed draw, its r), the same of each kind of draw of the walk."""
    r, laws, rules = steered(world, ratio)
    every = listed(world)
    rows = every.prompt == number
    draws = np.exp([law.log_prob(PROMPTS, every)[rows] for law in laws])
    walk = dynamic.kinds(base_of(world), r, rules, PROMPTS[number], max_tokens=LENGTH)
    return (draws, r(PROMPTS, every)[rows]), (walk.masses, walk.value)


CASES = list(product(WORLDS, RATIOS, (0, 1)))


@pytest.mark.parametrize(("world", "ratio", "number"), CASES)
def test_every_law_sums_to_one_and_every_divergence_agrees(world, ratio, number):
    """Six laws and p: KL both ways, TV, JS of each pair, infinities included."""
    found = []
    for laws, r in both(world, ratio, number):
        np.testing.assert_allclose(laws.sum(1), 1, **near)
        p = laws[0] * np.exp(r) / (laws[0] @ np.exp(r))
        every = [*laws, p]
        parts = [f(x, y) for x, y in combinations(every, 2) for f in (discrete.kl, discrete.tv, discrete.js)]
        found.append(parts + [discrete.kl(y, x) for x, y in combinations(every, 2)])
    listing, walking = (np.array(parts, float) for parts in found)
    np.testing.assert_allclose(walking, listing, **near)
    assert np.isinf(listing).any()


@pytest.mark.parametrize(("world", "ratio", "number"), CASES)
def test_p_is_what_the_twisted_law_samples(world, ratio, number):
    (laws, r), _ = both(world, ratio, number)
    p = laws[0] * np.exp(r) / (laws[0] @ np.exp(r))
    np.testing.assert_allclose(laws[LAWS.index("twisted")], p, **near)
    assert abs(discrete.kl(laws[-1], p)) < 1e-12


@pytest.mark.parametrize(("world", "ratio", "number"), CASES)
def test_pointwise_identities(world, ratio, number):
    """KL(p‖a) = −log Z and TV = 1 − Z for a boolean b; E_p r − log Z for any r, by final masses alone."""
    (laws, r), _ = both(world, ratio, number)
    a, z = laws[0], laws[0] @ np.exp(r)
    p = a * np.exp(r) / z
    inside = p > 0
    np.testing.assert_allclose(discrete.kl(p, a), p[inside] @ r[inside] - np.log(z), **near)
    if ratio in ("says it", "grammar"):
        np.testing.assert_allclose(discrete.kl(p, a), -np.log(z), **near)
        np.testing.assert_allclose(discrete.tv(p, a), 1 - z, **near)
    cells = dynamic.final_masses(base_of(world), ratio_of(world, ratio), PROMPTS, max_tokens=LENGTH)[number]
    weighted = cells * np.exp(ratio_of(world, ratio).values)
    np.testing.assert_allclose(discrete.kl(weighted / weighted.sum(), cells), discrete.kl(p, a), **near)
    np.testing.assert_allclose(discrete.tv(weighted / weighted.sum(), cells), discrete.tv(p, a), **near)


@pytest.mark.parametrize("world", ["order 2", "order 3", "three hidden"])
def test_planted_bugs_break_the_pointwise_identities(world):
    """Z of the other prompt, Z of finished draws, a without its EOS steps, TV without its half."""
    (laws, r), _ = both(world, "says it", 0)
    every, a, z = listed(world), laws[0], laws[0] @ np.exp(r)
    rows, p = every.prompt == 0, a * np.exp(r) / z
    finished, last = every.finished[rows], every.length[rows] - 1
    eos = np.where(finished, every.token_log_prob[rows][np.arange(rows.sum()), last], 0)
    other = np.exp(dynamic.log_z(base_of(world), ratio_of(world, "says it"), PROMPTS, max_tokens=LENGTH)[1])
    for wrong in (other, a[finished] @ np.exp(r[finished])):
        assert abs(discrete.kl(p, a) + np.log(wrong)) > 1e-3
        assert abs(discrete.tv(p, a) - (1 - wrong)) > 1e-3
    assert abs(discrete.kl(p, a * np.exp(-eos)) + np.log(z)) > 1e-3
    assert abs(np.abs(p - a).sum() - (1 - z)) > 1e-3


def best_by_definition(a, r, n):
    """Mean over all n-tuples of draws of an even choice among the best."""
    found = np.zeros(len(a))
    for picked in product(range(len(a)), repeat=n):
        top = max(r[i] for i in picked)
        best = [i for i in picked if r[i] == top]
        for i in best:
            found[i] += np.prod(a[list(picked)]) / len(best)
    return found


@pytest.mark.parametrize("n", [1, 2, 3])
def test_best_of_n_by_definition(n):
    """All tuples of the 20 draws of a two-word world."""
    base = exact(words="sun rain", seed=7)
    every = enumerate_draws(base, ["sun"], max_tokens=3)
    r = counts(base.vocab, "sun", 3)(["sun"], every)
    found = selected(np.exp(every.log_prob), r, Selection("best", n))
    np.testing.assert_allclose(found, best_by_definition(np.exp(every.log_prob), r, n), **near)


@pytest.mark.parametrize(("world", "ratio", "number"), CASES)
def test_best_of_n_of_draws_and_of_cells(world, ratio, number):
    (laws, r), (kinds, r_kinds) = both(world, ratio, number)
    automaton = ratio_of(world, ratio)
    cells = dynamic.final_masses(base_of(world), automaton, PROMPTS, max_tokens=LENGTH)[number]
    for n in (1, 4):
        found = []
        for a, value in ((laws[0], r), (kinds[0], r_kinds), (cells, automaton.values)):
            p, pi = a * np.exp(value) / (a @ np.exp(value)), selected(a, value, Selection("best", n))
            assert pi.sum() == pytest.approx(1, abs=1e-12)
            found.append([discrete.kl(p, pi), discrete.kl(pi, p), discrete.kl(pi, a), discrete.tv(p, pi)])
        np.testing.assert_allclose(found[1:], [found[0]] * 2, **near)
        if ratio in ("says it", "grammar"):
            s = 1 - (1 - laws[0] @ np.exp(r)) ** n
            np.testing.assert_allclose([found[0][0], found[0][3]], [-np.log(s), 1 - s], **near)


@pytest.mark.parametrize("beta", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("proposal", LAWS)
@pytest.mark.parametrize(
    ("world", "ratio"), [("order 2", "moment"), ("order 3", "hard and reward"), ("three hidden", "says it")]
)
def test_quasi_rejection(world, ratio, proposal, beta):
    """Kept with min(1, P/(βq)): mass by mass; kinds of draws agree; β large enough gives p where q covers it."""
    found = []
    for laws, r in both(world, ratio, 0):
        q, target = laws[LAWS.index(proposal)], laws[0] * np.exp(r)
        pi, rate = quasi_rejected(q, target, beta)
        accept = np.array([min(1.0, t / (beta * m)) if m > 0 else 0.0 for t, m in zip(target, q, strict=True)])
        np.testing.assert_allclose(pi, q * accept / (q @ accept), **near)
        np.testing.assert_allclose(rate, q @ accept, **near)
        p = target / target.sum()
        found.append([rate, discrete.kl(p, pi), discrete.kl(pi, p), discrete.tv(p, pi)])
        assert discrete.tv(p, pi) <= 1 - rate * beta / target.sum() + 1e-12
        if proposal == "base":
            exactly, _ = quasi_rejected(q, target, np.exp(r.max()))
            np.testing.assert_allclose(exactly, p, **near)
    np.testing.assert_allclose(*found, **near)


@pytest.mark.parametrize("world", ["order 2", "three hidden"])
def test_scaling_b_and_shifting_r_change_nothing(world):
    base, r = base_of(world), ratio_of(world, "hard and reward")
    shifted = r.mapped(lambda v: v + 2.5)
    one, other = (twisted(base, x, max_tokens=LENGTH).log_prob(PROMPTS, listed(world)) for x in (r, shifted))
    np.testing.assert_allclose(other, one, atol=1e-12)
    log_z = [dynamic.log_z(base, x, PROMPTS, max_tokens=LENGTH) for x in (r, shifted)]
    np.testing.assert_allclose(log_z[1] - log_z[0], 2.5, atol=1e-12)
    slanted = r + counts(base.vocab, "sun", 3) * 0.1  # planted: a shift that is none
    assert (
        np.nanmax(
            np.abs(np.exp(twisted(base, slanted, max_tokens=LENGTH).log_prob(PROMPTS, listed(world))) - np.exp(one))
        )
        > 1e-4
    )


@pytest.mark.parametrize("beta", [0.5, 2.0])
@pytest.mark.parametrize(("world", "law"), list(product(["order 2", "order 3", "two hidden"], LAWS)))
def test_the_objective_of_rlhf_is_a_divergence_from_p(world, law, beta):
    """E_π r − β KL(π‖a) = β log Z − β KL(π‖p), p ∝ a exp(r/β), for any π."""
    reward = counts(base_of(world).vocab, "sun", LENGTH)
    (laws, _), _ = both(world, "hard and reward", 1)
    r, a, pi = values(world, reward, 1), laws[0], laws[LAWS.index(law)]
    log_z = dynamic.log_z(base_of(world), reward * (1 / beta), PROMPTS, max_tokens=LENGTH)[1]
    p = a * np.exp(r / beta - log_z)
    left = pi @ r - beta * discrete.kl(pi, a)
    np.testing.assert_allclose(left, beta * log_z - beta * discrete.kl(pi, p), rtol=1e-11, atol=1e-11)
    wrong = beta * log_z - beta * discrete.kl(pi, a * np.exp(r) / (a @ np.exp(r)))  # planted: β forgotten in p
    assert abs(left - wrong) > 1e-3


# --- planted bugs: sums that are nearly right must differ


def test_planted_bugs_are_seen():
    base, r = base_of("order 2"), ratio_of("order 2", "moment")
    a, weight = masses("order 2", 0), np.exp(values("order 2", r, 0))
    right = np.log(a @ weight)
    every = listed("order 2")
    finished = every.finished[every.prompt == 0]
    wrong = {
        "cut draws dropped": np.log(a[finished] @ weight[finished]),
        "one token too many": dynamic.log_z(base, r, PROMPTS, max_tokens=LENGTH + 1)[0],
        "the other prompt": dynamic.log_z(base, r, PROMPTS, max_tokens=LENGTH)[1],
        "states in another order": dynamic.log_z(base, r.mapped(np.flip), PROMPTS, max_tokens=LENGTH)[0],
    }
    assert all(abs(value - right) > 1e-4 for value in wrong.values()), wrong


def test_planted_merge_of_unlike_prefixes_is_seen(monkeypatch):
    """Prefixes summed although their ratios differ from the third decimal on."""
    monkeypatch.setattr(dynamic, "SAME", 0)
    (laws, _), _ = both("order 2", "says it", 0)
    r, _, rules = steered("order 2", "says it")
    walk = dynamic.kinds(base_of("order 2"), r, rules, PROMPTS[0], max_tokens=LENGTH)
    assert abs(discrete.kl(walk.masses[1], walk.masses[0]) - discrete.kl(laws[1], laws[0])) > 1e-6


def test_prefixes_are_summed_not_listed():
    """Kinds of draws at 40 tokens of a world that has 10^24 of them."""
    base = exact(words=WORDS, order=1, seed=1)
    keeps = contains_any(base.vocab, ["sun"])
    found = dynamic.kinds(base, keeps, [masking(keeps)], "sun", max_tokens=40)
    assert found.masses.shape[1] < 5000
    np.testing.assert_allclose(found.masses.sum(1), 1, atol=1e-11)


def test_what_cannot_be_summed_is_refused():
    cold = base_of("two hidden").warped(temperature=0.5)
    with pytest.raises(UsageError, match=r"a hidden Markov model under .* can be listed, not summed by state"):
        dynamic.log_z(cold, always(cold.vocab), PROMPTS, max_tokens=2)
    law = constrained(base_of("order 2"), always(cold.vocab))
    with pytest.raises(UsageError, match="only n-gram and hidden Markov models can be summed"):
        dynamic.log_z(law, always(cold.vocab), PROMPTS, max_tokens=2)
    with pytest.raises(UsageError, match="sums over 4096 contexts take more than 10,000,000 cells"):
        dynamic.log_z(exact(order=5), always(exact().vocab), PROMPTS, max_tokens=2)
