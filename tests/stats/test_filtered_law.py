"""A filter's divergences: log AR from proposals, its error carried, beside the enumeration."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import psi
from scipy.stats import binom, nbinom

from alignbench.stats import discrete
from alignbench.stats.divergences import Sample
from alignbench.stats.filtered import divergences, log_rate
from alignbench.stats.intervals import minus
from alignbench.types import Estimate

RNG = np.random.default_rng(3)
A = RNG.dirichlet(np.full(12, 2.0), 2)
B = np.arange(12) % 3 != 0
Q = A**0.7 * np.exp(0.5 * RNG.standard_normal((2, 12)))
Q /= Q.sum(axis=1, keepdims=True)
AR = (Q * B).sum(axis=1)
EACH = 150


def told():
    p, pi = (x * B / (x * B).sum(axis=1, keepdims=True) for x in (A, Q))
    to_target, to_base = discrete.kl(p, pi), discrete.kl(pi, A)
    found = to_target, discrete.kl(pi, p), to_base, to_target - discrete.kl(p, A)
    parts = ("kl_target", "kl_reverse", "kl_base", "kl_target_vs_base")
    return dict(zip(parts, (float(x.mean()) for x in found), strict=True))


def sample(law, rng, each=EACH):
    """Draws of `law` (2, 12), and which of them keep b."""
    prompt = np.repeat([0, 1], each)
    x = np.concatenate([rng.choice(12, each, p=masses) for masses in law])
    log_base, log_gen = np.log(A[prompt, x]), np.log(Q[prompt, x])
    return Sample(prompt, log_base, np.where(B[x], log_base, -np.inf), log_gen), B[x]


def trials(rng, each=EACH):
    return np.repeat([0, 1], each), rng.geometric(np.repeat(AR, each)), np.ones(2 * each, bool)


@pytest.mark.parametrize(("chance", "hits"), [(0.3, 1), (0.3, 5), (0.05, 12), (0.9, 3)])
def test_the_log_of_a_chance_is_unbiased(chance, hits):
    """Over the law of the trials that so many hits take; log k/N is not."""
    misses = np.arange(4000)
    n, mass = misses + hits, nbinom.pmf(misses, hits, chance)
    values = [log_rate(np.zeros(hits, int), np.array([k] + [1] * (hits - 1)), np.ones(hits, bool)).value
              for k in misses[:3] + 1]  # fmt: skip
    assert values == pytest.approx(psi(hits) - psi(n[:3]))
    assert mass @ (psi(hits) - psi(n)) == pytest.approx(np.log(chance), abs=1e-9)
    assert abs(mass @ np.log(hits / n) - np.log(chance)) > 1e-3


def test_limits_of_the_log_rate():
    rng = np.random.default_rng(0)
    found = [log_rate(*trials(rng, 30)) for _ in range(300)]
    truth = float(np.log(AR).mean())
    assert 0.92 <= np.mean([e.ci_low <= truth <= e.ci_high for e in found]) <= 0.98
    assert np.std([e.value for e in found]) == pytest.approx(np.mean([e.stderr for e in found]), rel=0.15)
    sure = log_rate(np.zeros(20, int), np.ones(20, int), np.ones(20, bool))
    assert sure.value == sure.ci_high == 0 and sure.ci_low < -0.1 and sure.stderr > 0


def test_draws_that_ran_out_are_trials_too():
    """With a cap of 1 the trials are a fixed number, and the value is unbiased but for runs without a hit."""
    prompt, one, hits = np.zeros(30, int), np.ones(30, int), np.arange(1, 30)
    found = [log_rate(prompt, one, np.arange(30) < h) for h in hits]
    assert binom.pmf(hits, 30, 0.4) @ [e.value for e in found] == pytest.approx(np.log(0.4), abs=1e-5)
    assert all(e.ci_low < np.log(h / 30) < e.ci_high for h, e in zip(hits, found, strict=True))
    assert log_rate(prompt, one, np.zeros(30, bool)).note == "no proposal was kept for prompt number 1"


def test_intervals_hold_the_enumerated_values():
    rng, truth, covered = np.random.default_rng(1), told(), dict.fromkeys(told(), 0)
    for _ in range(100):
        (q, kept), (ref, _) = sample(Q, rng), sample(A, rng)
        found = divergences(q, kept, ref, log_rate(*trials(rng)))
        for part, value in truth.items():
            covered[part] += found[part].ci_low <= value <= found[part].ci_high
    assert min(covered.values()) >= 88, covered


def test_planted_ar_left_out_and_its_error_left_out():
    """From many draws and few proposals: then the error is that of log AR."""
    rng, truth = np.random.default_rng(2), told()
    (q, kept), (ref, _) = sample(Q, rng, 4000), sample(A, rng, 4000)
    rate = log_rate(*trials(rng, 40))
    found, sure = divergences(q, kept, ref, rate), divergences(q, kept, ref, replace(rate, stderr=0.0))
    unnormalised = divergences(q, kept, ref, Estimate(0.0, 0.0, 0.0, 0.0))
    for part, value in truth.items():
        e, bare = found[part], unnormalised[part]
        assert e.ci_low <= value <= e.ci_high and e.stderr > rate.stderr > 2 * sure[part].stderr, part
        assert not bare.ci_low <= value <= bare.ci_high, part
    assert found["kl_reverse"].value - unnormalised["kl_reverse"].value == pytest.approx(minus(rate).value)


def test_what_q_lacks_and_what_the_base_cannot_say():
    rng = np.random.default_rng(4)
    (q, kept), (ref, _), rate = sample(Q, rng), sample(A, rng), log_rate(*trials(rng))
    lacking = replace(ref, log_gen=np.where(ref.log_gen < np.median(ref.log_gen), -np.inf, ref.log_gen))
    found = divergences(q, kept, lacking, rate)
    assert found["kl_target"].value == found["kl_target_vs_base"].value == np.inf
    assert "of the target's mass" in found["kl_target"].note and np.isfinite(found["kl_reverse"].value)
    unsaid = np.where(np.arange(kept.size) == np.flatnonzero(kept)[0], -np.inf, q.log_base)
    found = divergences(replace(q, log_base=unsaid), kept, ref, rate)
    assert found["kl_reverse"].value == found["kl_base"].value == np.inf and np.isfinite(found["kl_target"].value)
    assert "of π is what the base cannot say" in found["kl_base"].note


def test_few_kept_draws_are_refused():
    rng = np.random.default_rng(5)
    (q, kept), (ref, _), rate = sample(Q, rng), sample(A, rng), log_rate(*trials(rng))
    few = kept & (np.cumsum(kept) <= 4)
    found = divergences(q, few, ref, rate)
    assert found["kl_base"].value is found["kl_reverse"].value is None and "too few" in found["kl_base"].note
    assert found["kl_target"].value is not None
