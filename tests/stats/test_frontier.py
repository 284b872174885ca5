"""MAUVE of histograms: closed forms, a brute sum, what must not change it, its slopes, and the interval of draws."""

from math import comb

import numpy as np
import pytest

from alignbench.stats import frontier
from alignbench.stats.frontier import Binned, area_and_slopes, mauve, mauve_from_histograms, of_one_law

PAIRS = [
    ([0.3, 0.7], [0.6, 0.4]),
    ([1, 0], [0.5, 0.5]),
    ([0.99, 0.01, 0], [0.99, 0, 0.01]),
    ([0.9999, 0.0001, 0], [0.5, 0.4999, 0.0001]),
]


def brute(p, q, c=5.0, backwards=False):
    """The frontier's points at λ = 1/(1 + e^−t), t from −40 to 40, its ends (0, 1) and (1, 0), and trapezia."""
    t = np.linspace(-40, 40, 200_001)
    lam, rest = 1 / (1 + np.exp(-t)), 1 / (1 + np.exp(t))
    x, y = np.zeros(t.size), np.zeros(t.size)
    for a, b in zip(p, q, strict=True):
        r = lam * a + rest * b
        for f, total in ((a, y), (b, x)):
            if f > 0:
                total += r * np.log(r / f) if backwards else f * np.log(f / r)
    x, y = (np.concatenate([[end], np.exp(-c * k), [1 - end]]) for k, end in ((x, 1.0), (y, 0.0)))
    return -np.trapezoid(y, x)


@pytest.mark.parametrize("c", [1, 2, 5, 10])
def test_equal_laws_and_disjoint_ones_have_closed_forms(c):
    assert mauve_from_histograms([0.2, 0.5, 0.3, 0.0], [0.2, 0.5, 0.3, 0.0], c) == pytest.approx(1, abs=1e-12)
    # disjoint: x = (1 − λ)^c, y = λ^c, and c·B(c, c + 1) = 1 / (2c over c), 1/252 at c = 5
    assert mauve_from_histograms([0.4, 0.6, 0, 0], [0, 0, 0.1, 0.9], c) == pytest.approx(1 / comb(2 * c, c), rel=1e-9)


@pytest.mark.parametrize(("p", "q"), PAIRS)
@pytest.mark.parametrize("c", [1.0, 5.0])
def test_the_area_is_the_brute_sum(p, q, c):
    found = mauve_from_histograms(p, q, c)
    assert found == pytest.approx(brute(p, q, c), abs=1e-7)
    assert found == pytest.approx(mauve_from_histograms(q, p, c), abs=1e-12)


def test_planted_bugs_are_caught(monkeypatch):
    p, q = np.array(PAIRS[0])
    right = brute(p, q)
    assert abs(brute(p, q, backwards=True) - right) > 1e-3  # KL(r‖p) for KL(p‖r)
    assert abs(mauve_from_histograms(p, q, 1.0) - right) > 0.05  # no scaling
    half = frontier._half
    monkeypatch.setattr(frontier, "_half", lambda a, b, c: (0.0, *half(a, b, c)[1:]))  # no corner
    assert abs(mauve_from_histograms(p, q) - right) > 0.1


def test_buckets_may_be_renamed_split_alike_or_empty_and_merging_them_hides():
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.ones(6), 2)
    value, order = mauve_from_histograms(p, q), rng.permutation(6)
    assert mauve_from_histograms(p[order], q[order]) == pytest.approx(value)
    assert mauve_from_histograms(np.repeat(p, 2) / 2, np.repeat(q, 2) / 2) == pytest.approx(value)
    assert mauve_from_histograms([*p, 0], [*q, 0]) == pytest.approx(value)
    assert mauve_from_histograms(p.reshape(3, 2).sum(axis=1), q.reshape(3, 2).sum(axis=1)) > value


def test_slopes_are_those_of_the_area():
    rng, step = np.random.default_rng(1), 1e-5
    p, q = rng.dirichlet(np.ones(5), 2)
    by_p, by_q = area_and_slopes(p, q)[1]
    for law, slope, area in ((p, by_p, lambda x: mauve_from_histograms(x, q)),
                             (q, by_q, lambda x: mauve_from_histograms(p, x))):  # fmt: skip
        move = law * rng.normal(size=5)
        move -= law * move.sum()
        assert (area(law + step * move) - area(law - step * move)) / 2 / step == pytest.approx(slope @ move, abs=1e-8)
    by_p, by_q = area_and_slopes([0.5, 0.5, 0, 0], [0.5, 0, 0.5, 0])[1]
    assert np.isfinite([*by_p, *by_q]).all()


def drawn(rng, laws, each, weight=None):
    """`each` draws of every prompt's law, one draw a unit."""
    prompt = np.repeat(np.arange(len(laws)), each)
    bucket = np.concatenate([rng.choice(len(law), each, p=law) for law in laws])
    w = np.ones(prompt.size) if weight is None else weight[bucket]
    w = w / (np.bincount(prompt, w) / each)[prompt]
    worth = np.bincount(prompt, w) ** 2 / np.bincount(prompt, w**2)
    return Binned(prompt, bucket[:, None], w, worth)


LAWS = np.array([[0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1]])
OTHERS = np.array([[0.3, 0.3, 0.2, 0.2], [0.4, 0.1, 0.1, 0.4]])
TILT = np.array([1.0, 2.0, 0.0, 1.5])


@pytest.mark.parametrize("weight", [None, TILT])
def test_the_interval_covers_the_mean_score_of_as_many_draws(weight):
    found = []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        found.append(mauve(drawn(rng, LAWS, 80, weight), drawn(rng, OTHERS, 60)))
    mean = np.mean([e.value for e in found])
    assert 0.92 <= np.mean([e.ci_low <= mean <= e.ci_high for e in found]) <= 0.98
    assert np.mean([e.stderr for e in found]) == pytest.approx(np.std([e.value for e in found]), rel=0.1)
    if weight is not None:  # many draws: the score of the weighted law, and not of the law that drew
        rng = np.random.default_rng(0)
        law = LAWS * TILT / (LAWS * TILT).sum(axis=1, keepdims=True)
        many = mauve(drawn(rng, LAWS, 20_000, weight), drawn(rng, OTHERS, 20_000))
        truth = mauve_from_histograms(law.mean(axis=0), OTHERS.mean(axis=0))
        assert many.ci_low < truth < many.ci_high
        assert abs(mauve_from_histograms(LAWS.mean(axis=0), OTHERS.mean(axis=0)) - truth) > 10 * many.stderr


def test_draws_of_one_run_are_one_draw():
    rng = np.random.default_rng(0)
    p, q = drawn(rng, LAWS, 80), drawn(rng, OTHERS, 60)
    twice = {"prompt": np.repeat(q.prompt, 2), "bucket": np.repeat(q.bucket, 2, axis=0), "weight": np.ones(240)}
    grouped = mauve(p, Binned(**twice, worth=q.worth, group=np.repeat(np.arange(120), 2)))
    assert grouped.value == pytest.approx(mauve(p, q).value)
    assert grouped.stderr == pytest.approx(mauve(p, q).stderr)
    assert mauve(p, Binned(**twice, worth=2 * q.worth)).stderr < 0.9 * grouped.stderr  # planted: as if independent


def test_several_ways_to_make_buckets_are_averaged_with_the_errors_of_the_same_draws():
    rng = np.random.default_rng(0)
    p, q = drawn(rng, LAWS, 80), drawn(rng, OTHERS, 60)
    both = [Binned(s.prompt, np.repeat(s.bucket, 3, axis=1), s.weight, s.worth) for s in (p, q)]
    assert mauve(*both).value == pytest.approx(mauve(p, q).value)
    assert mauve(*both).stderr == pytest.approx(mauve(p, q).stderr)  # planted: a third of the variance


def test_samples_of_one_law_score_what_is_told():
    inside = 0
    for seed in range(50):
        rng = np.random.default_rng(seed)
        laws = rng.dirichlet(np.ones(12), 1)
        p, q = drawn(rng, laws, 150), drawn(rng, laws, 120)
        low, high = of_one_law(p, q)
        inside += low <= mauve(p, q).value <= high
        assert high < 1
    assert inside >= 42
    assert of_one_law(p, q) == of_one_law(p, q)


def test_one_law_is_the_mean_of_both():
    """Apart as they are, sets of their mean hold both buckets; sets of either alone would all score 1."""
    rows, ones = np.arange(40), np.ones(40)
    apart = [Binned(0 * rows, np.full((40, 1), k), ones, np.array([40.0])) for k in (0, 1)]
    for pair in (apart, apart[::-1]):
        assert of_one_law(*pair)[0] < 0.99


def test_prompts_share_alike_whatever_their_number_of_draws():
    bucket = np.array([[0], [0], [0], [1]])
    some = Binned(np.array([0, 0, 0, 7]), bucket, np.ones(4), np.array([3.0, 1.0]))
    assert some.histogram(0, 2).tolist() == pytest.approx([0.5, 0.5])


def test_one_draw_has_no_interval_and_no_spread_none():
    q = Binned(np.array([0, 1, 1]), np.zeros((3, 1), int), np.ones(3), np.array([1.0, 2.0]))
    assert mauve(q, q).stderr is None and "one independent draw" in mauve(q, q).note
    q = Binned(np.zeros(3, int), np.zeros((3, 1), int), np.ones(3), np.array([3.0]))
    assert mauve(q, q).value == pytest.approx(1) and "no interval" in mauve(q, q).note
