"""Gates: when base draws are no draws of the target."""

import numpy as np
import pytest

from alignbench.stats.normaliser import log_z
from alignbench.stats.weights import LOGS, SHARES, cells, is_boolean, is_tied, p_draws, pareto_k, refusal

ONE = np.zeros(400, int)


def test_cells_join_what_only_rounding_separates():
    values, code = cells(np.array([0.3, -np.inf, 0.1 + 0.2, 1.0, -np.inf]))
    assert values.tolist() == [-np.inf, pytest.approx(0.3), 1.0]
    assert code.tolist() == [1, 0, 1, 2, 0]
    assert cells(np.zeros(0))[0].size == 0


def test_boolean_targets_are_gated_by_hits():
    r = np.where(np.arange(400) < 9, 0.0, -np.inf)
    assert is_boolean(ONE, r)
    assert p_draws(ONE, r).tolist() == [9.0]
    assert "9 draws of the target among 400" in refusal(ONE, r, LOGS)
    assert refusal(ONE, np.where(np.arange(400) < 12, 2.5, -np.inf), LOGS) == ""


def test_every_prompt_needs_its_draws():
    prompt = np.repeat([0, 1], 200)
    r = np.where((prompt == 0) | (np.arange(400) < 200), 0.0, -np.inf)
    assert "for prompt number 2" in refusal(prompt, r, LOGS)


@pytest.mark.parametrize("prompts", [1, 2, 40])
@pytest.mark.parametrize("expected", [2, 3, 5, 8, 20, 100])
def test_no_luck_is_needed_to_pass(prompts, expected):
    """Hits a prompt from 2 to 100: intervals of log Z cover whether or not a value is printed beside them, and what
    is printed is no luckier than what is not."""
    n, runs, rng = 256, 150, np.random.default_rng(0)
    prompt, truth = np.repeat(np.arange(prompts), n), np.log(expected / n)
    found = [log_z(prompt, np.where(rng.random(prompt.size) < expected / n, 0.0, -np.inf)) for _ in range(runs)]
    held = [covered(e, truth) for e in found]
    assert sum(held) >= (0.95 - 4 * 0.018) * runs
    printed = [h for e, h in zip(found, held, strict=True) if e.value is not None]
    assert len(printed) - sum(printed) <= (0.05 + 4 * 0.018) * runs
    if len(printed) > runs / 2:
        assert sum(printed) >= (0.95 - 4 * 0.018 * 1.4) * len(printed)


def covered(estimate, truth):
    low, high = (end if x is None else x for x, end in ((estimate.ci_low, -np.inf), (estimate.ci_high, np.inf)))
    return low <= truth <= high


def test_a_gate_on_each_prompts_own_hits_lets_the_lucky_pass():
    """Planted: at least 5 hits for each of 40 prompts that expect 8. What passes reads log Z too high."""
    rng, n = np.random.default_rng(0), 256
    hits = rng.binomial(n, 8 / n, (20_000, 40))
    value = np.log((hits + 0.5) / (n + 0.5)).mean(axis=1) - np.log(8 / n)
    lucky = hits.min(axis=1) >= 5
    assert value[lucky].mean() > 0.05 > 8 * abs(value.mean())
    passed = (hits.min(axis=1) >= 1) & (hits.mean(axis=1) >= 5)
    assert passed.mean() > 0.97
    assert abs(value[passed].mean()) < 0.005


def test_a_heavy_rare_class_is_counted_by_its_draws_and_not_by_kish():
    r = np.where(np.arange(400) < 8, np.log(50.0), 0.0)  # half of the target's mass on 8 draws
    w = np.exp(r)
    assert w.sum() ** 2 / (w**2).sum() > 3 * p_draws(ONE, r)[0]
    assert p_draws(ONE, r)[0] == pytest.approx(8, rel=0.05)
    assert refusal(ONE, r, SHARES)


def test_heavy_continuous_tails_trip_k_hat():
    rng = np.random.default_rng(0)
    heavy = np.log(rng.pareto(0.8, 400) + 1)
    assert pareto_k(ONE, heavy) > 0.7
    assert "Pareto" in refusal(ONE, heavy, 1.0, 1.0)
    light = rng.normal(size=400) * 0.3
    assert not is_tied(ONE, light)
    assert refusal(ONE, light, SHARES) == ""


def test_minus_log_weights_is_what_arviz_takes():
    light = -np.log(np.random.default_rng(0).pareto(0.8, 400) + 1)  # bounded weights: their negatives are heavy
    assert pareto_k(ONE, light) < 0.5 < pareto_k(ONE, -light)


def test_one_weight_that_is_all_there_is_is_as_heavy_as_can_be():
    assert pareto_k(ONE, np.random.default_rng(0).pareto(0.8, 400) * 100) > 0.7


@pytest.mark.parametrize("size", [100, 400, 5000])
def test_an_atom_at_the_threshold_leaves_the_tail_above_it(size):
    """A quarter of the tail and more ties with its threshold: arviz alone divides by 0 there."""
    rng = np.random.default_rng(0)
    where = np.zeros(size, int)
    tail = min(size // 5, int(3 * size**0.5))
    heavy, light = (np.zeros(size) - rng.random(size) for _ in range(2))
    for r, shape in ((heavy, 1.5), (light, 0.2)):
        r[: tail + 2] = 0.0
        r[: tail // 2] = np.log1p(((1 - (np.arange(tail // 2) + 0.5) / (tail // 2)) ** -shape - 1) / shape)
    assert pareto_k(where, heavy) > 0.7 > pareto_k(where, light)
    few = np.where(np.arange(size) < 3, 2.0, np.where(np.arange(size) < tail + 2, 0.0, -rng.random(size)))
    assert pareto_k(where, few) == -np.inf


def test_every_size_and_every_tie_has_an_answer():
    """arviz raises on tails of fewer than 5, and divides by 0 where they tie: warnings are errors here."""
    rng = np.random.default_rng(0)
    for size in (*range(1, 60), 224, 225, 226, 300):
        where = np.zeros(size, int)
        for r in (
            rng.normal(size=size),
            np.round(rng.normal(size=size), 1),
            rng.normal(size=size) * (rng.random(size) < 0.6),
        ):
            assert np.isnan(pareto_k(where, r)) == (size < 25)
    assert refusal(where[:24], rng.normal(size=24), 1.0, 1.0).startswith("24 weights are too few to tell")


def test_a_flat_tail_does_not_raise():
    r = np.minimum(np.random.default_rng(0).normal(size=400), 0.2)
    assert pareto_k(ONE, r) == -np.inf
    assert p_draws(ONE, np.full(400, -np.inf)).tolist() == [0.0]
    assert refusal(ONE, np.full(400, -np.inf), LOGS)


def test_a_tail_of_one_value_is_bounded():
    """Weights cut at a bound, 64 of them: the largest 12 are one value, which lies above the tail's threshold."""
    r = np.concatenate([np.linspace(-3, 0, 52), np.full(12, 0.1)])
    assert pareto_k(np.zeros(64, int), r) == -np.inf
