"""Worlds whose numbers are known in closed form, through the sums, the listing and the whole harness."""

from __future__ import annotations

import exact_worlds
import numpy as np
import pytest
from exact_decoders import masking, twisting
from exact_patterns import contains_any, matches
from exact_worlds import from_table, grammar, grammar_truth, hard, two_rates
from scipy.optimize import brentq
from scipy.special import expit, logit
from task_on_base import TaskOnBase

from alignbench import metrics
from alignbench.errors import UsageError
from alignbench.generators.exact import dynamic
from alignbench.generators.exact.automaton import always
from alignbench.generators.exact.world import enumerate_draws
from alignbench.registry import load_plugins
from alignbench.seeds import Seed
from alignbench.stats import discrete, divergences
from alignbench.stats.intervals import mean_over_prompts
from alignbench.stats.weights import p_draws
from alignbench.store.draws import DrawStore
from alignbench.target import Constraint, Target
from alignbench.target.truth import exact_values
from alignbench.task import Task
from alignbench.types import Fit, silent

load_plugins()


def laws_of(world, lookahead=None):
    """(p, π) of the first prompt by kinds of draws, π the locally constrained decoder, and which kinds are kept."""
    rules = [
        masking(world.keeps, lookahead),
        twisting(world.base, world.keeps.log(), world.max_tokens),
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


def evidence_of(world, generator, draws=400, seed=0):
    """What the harness measures about a generator on a world."""
    task = Task("world", 1, "", world.prompts, world.max_tokens, draws, {"kept": world.keeps}, world.target)
    given = {"store": DrawStore(None), "draws": draws, "seed": Seed(seed), "progress": silent}
    return TaskOnBase(task=task, base=world.base, base_name="exact", **given).measure("law", generator)


def harness(world, generator, draws=400, seed=0):
    """What the harness prints for a generator on a world, and the truth that it puts beside it."""
    evidence = evidence_of(world, generator, draws, seed)
    return metrics.measure("divergence", evidence), evidence.truth


def test_the_harness_prints_infinity_and_the_divergence_given_the_constraint():
    """aⁿb without look-ahead, 5 tokens: 1 in 16 draws of π is not kept."""
    world = grammar(a=0.3, b=0.3, end=0.3, max_tokens=5)
    found, truth = harness(world, world.constrained(lookahead=False), 2000)
    assert found["kl_reverse"].value == np.inf
    assert truth["divergence.kl_reverse"] == np.inf
    assert "of π breaks a hard constraint (95 %:" in found["kl_reverse"].note
    for part in ("kl_reverse_within", "kl_target", "kl_target_within", "tv"):
        near = found[part]
        assert abs(near.value - truth[f"divergence.{part}"]) < 4 * near.stderr, part
    _, pi, kept = laws_of(world)
    assert truth["satisfaction.always"] == pytest.approx(pi[kept].sum(), abs=1e-12)


@pytest.mark.parametrize("max_tokens", [2, 4, 6])
def test_the_harness_prints_infinity_for_the_grammar_at_a_tenth(max_tokens):
    """P(a) = P(b) = 0.1, Z = 0.01: ∞ with the share that is not kept, beside the true KL(π_b‖p)."""
    world = grammar(max_tokens=max_tokens)
    found, truth = harness(world, world.constrained(lookahead=False), 4000)
    reverse, within = found["kl_reverse"], found["kl_reverse_within"]
    assert reverse.value == truth["divergence.kl_reverse"] == np.inf
    rate = 0.5 ** (max_tokens - 1)
    error = np.sqrt(rate * (1 - rate) / 4000)
    assert float(reverse.note.split()[0]) == pytest.approx(rate, abs=4 * error)
    assert "breaks a hard constraint" in reverse.note
    p, pi, kept = laws_of(world)
    exact = discrete.kl(np.where(kept, pi, 0) / pi[kept].sum(), p)
    assert truth["divergence.kl_reverse_within"] == pytest.approx(exact, abs=1e-9)
    assert abs(within.value - exact) <= 4 * within.stderr
    assert abs(within.value + np.log(1 - rate) - exact) > 4 * within.stderr or max_tokens > 2  # planted: π for π_b
    ahead, _ = harness(world, world.constrained(lookahead=True), 4000)
    assert (
        abs(ahead["kl_reverse"].value - discrete.kl(*laws_of(world, max_tokens)[1::-1]))
        <= 4 * ahead["kl_reverse"].stderr
    )


def test_a_violation_too_rare_to_be_drawn_is_bounded_in_words():
    """2^−11 of π at 12 tokens, 200 draws, none of them cut: the truth is ∞, and the number says what it did not see."""
    world = grammar(a=0.3, b=0.3, end=0.3, max_tokens=12)
    found, _ = harness(world, world.constrained(lookahead=False), 200)
    assert found["kl_reverse"].value < np.inf
    assert "no own draw breaks a hard constraint (share ≤ 0.015)" in found["kl_reverse"].note


def top_p_parts(world, law):
    """By listing: (p, π, covered share of p) of each prompt."""
    every = enumerate_draws(world.base, world.prompts, max_tokens=world.max_tokens)
    log_p, log_gen = every.log_prob + world.keeps.log()(world.prompts, every), law.log_prob(world.prompts, every)
    rows = [every.prompt == c for c in range(len(world.prompts))]
    found = [(discrete.normalised(log_p[r]), np.exp(log_gen[r])) for r in rows]
    return [(p, pi, p[pi > 0].sum()) for p, pi in found]


def test_a_top_p_law_that_loses_part_of_p_is_infinitely_far_and_says_how_much_it_covers():
    world = hard(order=2, max_tokens=4)
    law, draws = world.base.warped(top_p=0.8), 3000
    listed = top_p_parts(world, law)
    for p, pi, covered in listed:
        assert 0.2 < covered < 0.98
        ratio = np.divide(p, pi, out=np.zeros(p.shape), where=pi > 0)
        assert 1 - pi @ np.minimum(1, ratio) == pytest.approx(float(discrete.tv(p, pi)), abs=1e-12)
        half = pi @ np.abs(ratio - 1) / 2  # planted: ½ E_π|w − 1| misses half of what π cannot say
        assert half == pytest.approx(float(discrete.tv(p, pi)) - (1 - covered) / 2, abs=1e-12)
        assert discrete.kl(p, pi) == np.inf
    found, truth = harness(world, law, draws)
    assert found["kl_target"].value == truth["divergence.kl_target"] == np.inf
    told = float(found["kl_target"].note.split()[2].rstrip("%")) / 100
    covered = np.array([c for _, _, c in listed])
    error = np.sqrt((covered * (1 - covered) / (draws * np.exp(world.log_z))).sum()) / covered.size
    assert told == pytest.approx(covered.mean(), abs=4 * error + 5e-4)
    tv, wrong = found["tv"], np.mean([float(discrete.tv(p, pi)) - (1 - c) / 2 for p, pi, c in listed])
    assert abs(tv.value - truth["divergence.tv"]) <= 4 * tv.stderr
    assert abs(tv.value - wrong) > 4 * tv.stderr


def test_a_top_p_law_that_loses_nothing_of_p_is_finite():
    """Top-p drops only "fog", which p rules out; planted: the same law where p may say it."""
    words = ("sun", "rain", "fog")
    row = {"sun": 0.45, "rain": 0.3, "fog": 0.05}
    base = from_table(words, dict.fromkeys(words, row))
    clear = exact_worlds.World(base, ~contains_any(base.vocab, ["fog"]), ("sun",), 4)
    law = base.warped(top_p=0.9)
    ((p, pi, covered),) = top_p_parts(clear, law)
    assert covered == pytest.approx(1, abs=1e-12)
    assert law.truncates
    found, truth = harness(clear, law, 2000)
    assert truth["divergence.kl_target"] == pytest.approx(float(discrete.kl(p, pi)), abs=1e-12)
    for part in ("kl_target", "kl_reverse", "tv"):
        near = found[part]
        assert abs(near.value - truth[f"divergence.{part}"]) <= 4 * (near.stderr or 0.0) + 1e-9, part
    assert "uncovered ≤" in found["kl_target"].note
    free = exact_worlds.World(base, always(base.vocab), ("sun",), 4)
    assert harness(free, law, 2000)[0]["kl_target"].value == np.inf


def test_the_harness_keeps_prompts_whose_z_differ_tenfold_apart():
    """Z = 0.02 and 0.2: every part against the mean of the prompts' own; planted: one Z for both."""
    world = two_rates()
    found, truth = harness(world, world.base.warped(temperature=1.5), 4000)
    assert found["kl_reverse"].value == truth["divergence.kl_reverse"] == np.inf
    for part in ("kl_target", "kl_target_within", "kl_reverse_within", "kl_base", "tv", "js", "log_z"):
        near = found[part]
        assert abs(near.value - truth[f"divergence.{part}"]) <= 4 * (near.stderr or 0.0) + 1e-9, part
    assert abs(np.log(0.11) - found["log_z"].value) > 4 * found["log_z"].stderr


@pytest.mark.parametrize("hidden", [0, 3])
def test_draws_of_the_ideal_sampler_weigh_the_same_and_rao_blackwell_alone_is_noisier(hidden):
    """log P − log π = log Z on each (ESS/N = 1); KL(π‖a) by regression is −log Z itself, RB alone has an error."""
    world = hard(order=2, hidden=hidden, max_tokens=4)
    own = evidence_of(world, world.ideal, 300).own
    prompt, excess = own.draws.prompt, own.log_target - own.log_gen
    np.testing.assert_allclose(excess, world.log_z[prompt], atol=1e-9)
    np.testing.assert_allclose(p_draws(prompt, excess), 300, rtol=1e-9)
    both = divergences.kl_base(prompt, own.log_gen - own.log_base, own.kl_base)
    alone = mean_over_prompts(prompt, own.kl_base)
    assert both.value == pytest.approx(-world.log_z.mean(), abs=1e-9)
    assert both.stderr is None and alone.stderr > 0.01
    assert abs(alone.value - both.value) <= 4 * alone.stderr
    last = np.where(own.draws.finished, own.draws.length - 1, 0)
    eos = np.where(own.draws.finished, own.draws.token_log_prob[np.arange(len(last)), last], 0.0)
    assert (p_draws(prompt, excess + eos) < 0.9 * 300).all()  # planted: the EOS step dropped from log π


@pytest.mark.parametrize("hidden", [0, 3])
def test_the_harness_finds_the_ideal_sampler_at_p(hidden):
    world = hard(order=2, hidden=hidden, max_tokens=4)
    found, truth = harness(world, world.ideal)
    for part in ("kl_target", "kl_reverse", "tv", "js"):
        assert truth[f"divergence.{part}"] == pytest.approx(0, abs=1e-12)
    for part in ("kl_target", "kl_reverse", "kl_base", "kl_target_within", "kl_reverse_within", "tv", "js"):
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
    assert exact_worlds.from_table(("x", "y"), {"x": {"y": 1.0}}).model.order == 2
