"""Worlds whose numbers are known in closed form, through the sums, the listing and the whole harness."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import expit, logit

from alignbench import metrics
from alignbench.errors import UsageError
from alignbench.evidence import Bench
from alignbench.generators import dynamic, worlds
from alignbench.generators.exact import enumerate_draws
from alignbench.generators.pattern import matches
from alignbench.generators.worlds import from_table, grammar, grammar_truth, hard, two_rates
from alignbench.registry import load_plugins
from alignbench.run import silent
from alignbench.seeds import Seed
from alignbench.stats import discrete
from alignbench.store import DrawStore
from alignbench.target import Constraint, Target
from alignbench.task import Task
from alignbench.truth import exact_values
from alignbench.types import Fit

load_plugins()


def laws_of(world, lookahead=None):
    """(p, π) of the first prompt by kinds of draws, π the locally constrained decoder, and which kinds are kept."""
    rules = [
        dynamic.masking(world.keeps, lookahead),
        dynamic.twisting(world.base, world.keeps.log(), world.max_tokens),
    ]
    found = dynamic.kinds(world.base, world.keeps, rules, world.prompts[0], max_tokens=world.max_tokens)
    return found.masses[2], found.masses[1], found.value == 1


# --- aⁿb


def test_the_unbounded_grammar():
    """Golden values: the sums over n = 0, 1, 2, … of the geometric laws (1 − a) aⁿ and (b/s) (a/s)ⁿ, 400 terms."""
    truth = grammar_truth()
    assert truth["kl_target"] == pytest.approx(0.408960, abs=5e-7)
    assert truth["kl_reverse"] == pytest.approx(1.021651, abs=5e-7)
    assert truth["tv"] == pytest.approx(0.4, abs=1e-12)


@pytest.mark.parametrize(("a", "b", "end"), [(0.1, 0.1, 0.1), (0.4, 0.05, 0.3), (0.05, 0.6, 0.1), (0.6, 0.1, 0.01)])
def test_closed_forms_are_the_sums(a, b, end):
    n = np.arange(400)
    weight, local = a**n * b * end, b / (a + b) * (a / (a + b)) ** n
    p = weight / weight.sum()
    seen = local > 1e-300
    found = {
        "log_z": np.log(weight.sum()), "tv": discrete.tv(p, local),
        "kl_target": p[seen] @ (np.log1p(-a) + n[seen] * np.log(a) - np.log(local[seen])),
        "kl_reverse": local[seen] @ (np.log(local[seen]) - np.log1p(-a) - n[seen] * np.log(a)),
    }  # fmt: skip
    assert found == pytest.approx(dict(grammar_truth(a=a, b=b, end=end)), abs=1e-10)


def test_longer_worlds_converge_to_the_unbounded_one():
    """With look-ahead, max_tokens = 8, 16, 32, 64: KL(p‖π), KL(π‖p), TV approach the limits and reach 1e-9 at 64."""
    truth, last = grammar_truth(), np.inf
    for max_tokens in (8, 16, 32, 64):
        world = grammar(max_tokens=max_tokens)
        p, pi, _ = laws_of(world, max_tokens)
        found = [discrete.kl(p, pi), discrete.kl(pi, p), discrete.tv(p, pi), world.log_z[0]]
        off = np.abs(np.array(found) - [truth[k] for k in ("kl_target", "kl_reverse", "tv", "log_z")]).max()
        assert off < last
        last = off
    assert last < 1e-9


@pytest.mark.parametrize("max_tokens", [3, 6, 30])
def test_without_look_ahead_the_grammar_is_left_at_any_length(max_tokens):
    """2^−(T−1) of the draws are still saying a, or have just said b, at the cut: KL(π‖p) = ∞, given b finite."""
    p, pi, kept = laws_of(grammar(max_tokens=max_tokens))
    rate = pi[kept].sum()
    assert rate == pytest.approx(1 - 0.5 ** (max_tokens - 1), abs=1e-12)
    assert np.isinf(discrete.kl(pi, p))
    within = np.where(kept, pi, 0) / rate
    assert 0 < discrete.kl(within, p) < grammar_truth()["kl_reverse"]
    assert discrete.kl(p, pi) == pytest.approx(discrete.kl(p, within) - np.log(rate), abs=1e-12)


@pytest.mark.parametrize("lookahead", [False, True])
def test_walking_and_listing_the_grammar_agree(lookahead):
    world = grammar(max_tokens=6)
    every = enumerate_draws(world.base, world.prompts, max_tokens=6)
    p = discrete.normalised(every.log_prob + world.keeps.log()(world.prompts, every))
    pi = np.exp(world.constrained(lookahead=lookahead).log_prob(world.prompts, every))
    ideal = np.exp(world.ideal.log_prob(world.prompts, every))
    walk_p, walk_pi, _ = laws_of(world, 6 if lookahead else None)
    for one, other in (((p, pi), (walk_p, walk_pi)), ((pi, p), (walk_pi, walk_p))):
        np.testing.assert_allclose(discrete.kl(*one), discrete.kl(*other), atol=1e-12)
    np.testing.assert_allclose(ideal, p, atol=1e-12)


def test_planted_cut_draws_kept_give_other_numbers():
    """Were a draw cut after aᵐb kept (as a text it matches), Z would be more: nothing said EOS there."""
    world = grammar(max_tokens=4)
    loose = matches(world.base.vocab, "a* b", cut=True)
    assert dynamic.log_z(world.base, loose.log(), [""], max_tokens=4)[0] > world.log_z[0] + 1e-3


def harness(world, generator, draws=400, seed=0):
    """What the harness prints for a generator on a world, and the truth that it puts beside it."""
    task = Task("world", 1, "", world.prompts, world.max_tokens, draws, {"kept": world.keeps}, world.target)
    given = {"store": DrawStore(None), "draws": draws, "seed": Seed(seed), "progress": silent}
    bench = Bench(task=task, base=world.base, base_name="exact", **given)
    evidence = bench.measure("law", generator)
    return metrics.measure("divergence", evidence), evidence.truth


def test_the_harness_prints_infinity_and_the_divergence_given_the_constraint():
    """aⁿb without look-ahead, 5 tokens: 1 in 16 draws of π is not kept."""
    world = grammar(a=0.3, b=0.3, end=0.3, max_tokens=5)
    found, truth = harness(world, world.constrained(lookahead=False), 2000)
    assert found["kl_reverse"].value == np.inf
    assert truth["divergence.kl_reverse"] == np.inf
    assert "violate" in found["kl_reverse"].note or "%" in found["kl_reverse"].note
    for part in ("kl_reverse_within", "kl_target", "kl_target_within", "tv"):
        near = found[part]
        assert abs(near.value - truth[f"divergence.{part}"]) < 4 * near.stderr, part
    _, pi, kept = laws_of(world)
    assert truth["satisfaction.always"] == pytest.approx(pi[kept].sum(), abs=1e-12)


@pytest.mark.parametrize("hidden", [0, 3])
def test_the_harness_finds_the_ideal_sampler_at_p(hidden):
    world = hard(order=2, hidden=hidden, max_tokens=4)
    found, truth = harness(world, world.ideal)
    for part in ("kl_target", "kl_reverse", "tv", "js"):
        assert truth[f"divergence.{part}"] == pytest.approx(0, abs=1e-12)
    for part in ("kl_target", "kl_reverse", "kl_base"):
        near = found[part]
        assert abs(near.value - truth[f"divergence.{part}"]) <= 4 * (near.stderr or 0.0) + 1e-9, part


# --- several prompts


def test_two_rates():
    world = two_rates()
    np.testing.assert_allclose(np.exp(world.log_z), [0.02, 0.2], atol=1e-12)
    np.testing.assert_allclose(np.exp(two_rates(low=0.001, high=0.4).log_z), [0.001, 0.4], atol=1e-12)
    every = enumerate_draws(world.base, world.prompts, max_tokens=world.max_tokens)
    kept = world.keeps(world.prompts, every)
    z = [np.exp(every.log_prob[every.prompt == c]) @ kept[every.prompt == c] for c in (0, 1)]
    np.testing.assert_allclose(z, [0.02, 0.2], atol=1e-12)


def test_one_lambda_for_two_rates():
    """λ = 2.639057 makes storms as frequent as not on average; golden value of the root, checked by tilted means."""
    world, wanted = two_rates(), 2.639057
    root = brentq(lambda x: expit(logit(np.array([0.02, 0.2])) + x).sum() - 1, 0, 10, xtol=1e-12)
    assert root == pytest.approx(wanted, abs=5e-7)
    means = dynamic.mean(world.base, world.keeps * root, world.keeps, world.prompts, max_tokens=world.max_tokens)
    assert means.mean() == pytest.approx(0.5, abs=1e-9)
    assert means[1] / means[0] > 2


def test_truth_of_a_world_averages_its_prompts():
    """Whose Z differ tenfold: mean of the logs, not log of the mean."""
    world = two_rates()
    target = Target(
        (Constraint("kept", "always"),), ranges={"kept": (0, 1)}, measures={"kept": world.keeps},
        fit=Fit(world.target.wanted(), np.zeros((1, 0)), np.zeros((1, 0))),
    )  # fmt: skip
    found = exact_values(world.base, world.constrained(lookahead=True), target, world.prompts, world.max_tokens)
    assert found["divergence.log_z"] == pytest.approx(np.log([0.02, 0.2]).mean(), abs=1e-12)
    assert abs(found["divergence.log_z"] - np.log(np.mean([0.02, 0.2]))) > 0.3


@pytest.mark.parametrize("hidden", [0, 2])
def test_truth_of_hidden_and_ngram_worlds_is_the_sum_by_state(hidden):
    world = hard(hidden=hidden, max_tokens=4)
    ideal = exact_values(world.base, world.ideal, world.target, world.prompts, 4)
    assert ideal["divergence.kl_target"] == pytest.approx(0, abs=1e-12)
    assert ideal["divergence.kl_base"] == pytest.approx(-world.log_z.mean(), abs=1e-12)
    assert ideal["satisfaction.always"] == pytest.approx(1, abs=1e-12)
    base = exact_values(world.base, world.base, world.target, world.prompts, 4)
    assert base["divergence.kl_target"] == pytest.approx(-world.log_z.mean(), abs=1e-12)
    assert base["divergence.tv"] == pytest.approx(1 - np.exp(world.log_z).mean(), abs=1e-12)


def test_refused_worlds():
    with pytest.raises(UsageError, match="must be above 0 and sum to less than 1"):
        grammar(a=0.5, b=0.5)
    with pytest.raises(UsageError, match="the row of 'x' has no probabilities"):
        from_table(("x", "y"), {"x": {"x": 0.7, "y": 0.7}})
    assert worlds.from_table(("x", "y"), {"x": {"y": 1.0}}).model.order == 2
