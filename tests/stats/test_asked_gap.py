"""What was asked and what else moved, on worlds of cells whose truth is a finite sum."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from alignbench.stats import asked, discrete
from alignbench.stats.divergences import Sample, kl_target, kl_target_vs_base
from alignbench.stats.partition import celled

OFF = -np.inf
WORLDS = {  # prompts, base shares of the cells, log P/a of each, draws of base and of π a prompt
    "one of two": (4, (0.6, 0.4), (OFF, 0.0), 256, 256),
    "shares of three": (4, (0.3, 0.3, 0.4), (0.5, -0.3, 0.0), 128, 128),
    "two moments": (4, (0.35, 0.25, 0.25, 0.15), (0.0, 0.6, -0.4, 0.2), 256, 256),
    "five rewards": (4, (0.2,) * 5, (0.0, 0.3, 0.6, 0.9, 1.2), 512, 512),
    "hard, and five": (4, (0.25, 0.15, 0.15, 0.15, 0.15, 0.15), (OFF, 0.0, 0.3, 0.6, 0.9, 1.2), 512, 512),
}
APART = 0.08  # of a prompt's base in the kept cell, where another has 0.8
QUANTITIES = ("asked", "collateral", "asked_vs_base", "kl_vs_base")


@dataclass(frozen=True)
class Cells:
    """Each prompt's base and π over cells × three outcomes each, and the weights of p by cell."""

    a: np.ndarray  # (C, K, J)
    pi: np.ndarray
    tilt: np.ndarray  # (K,)
    sizes: tuple[int, int]

    @property
    def p(self):
        masses = self.a * np.exp(self.tilt)[:, None]
        return masses / masses.sum((1, 2), keepdims=True)

    @property
    def truth(self):
        """Exact `QUANTITIES`, each part summed for itself."""
        over = zip(self.p, self.pi, self.a, strict=True)
        return dict(zip(QUANTITIES, np.mean([_exact(p, pi, a) for p, pi, a in over], axis=0), strict=True))

    def drawn(self, seed):
        """Reference draws, and prompt and atom of own draws."""
        rng, (n, m), count = np.random.default_rng(seed), self.sizes, len(self.a)
        base, gen = self.a.reshape(count, -1), self.pi.reshape(count, -1)
        prompt, own = np.repeat(np.arange(count), n), np.repeat(np.arange(count), m)
        at = np.concatenate([rng.choice(base.shape[1], n, p=row) for row in base])
        mine = np.concatenate([rng.choice(base.shape[1], m, p=row) for row in gen])
        log_a = np.log(base[prompt, at])
        log_pi = np.log(np.maximum(gen[prompt, at], 1e-300))
        bound = np.full(at.size, self.tilt.max())
        sample = Sample(prompt, log_a, log_a + self.tilt[at // self.a.shape[2]], log_pi, bound=bound)
        return sample, at // self.a.shape[2], own, mine // self.a.shape[2]

    def told(self, seed):
        """The estimates of `QUANTITIES`, and of KL(p‖π) as a whole."""
        ref, of_ref, own, of_own = self.drawn(seed)
        whole = kl_target(ref)
        cells = celled(ref, of_ref, own, of_own, None, coarse=False)
        return (
            dict(zip(QUANTITIES, (*asked.parts(cells, whole, ref.excess), kl_target_vs_base(ref)), strict=True)),
            whole,
            cells,
        )


def _exact(p, pi, a):
    of_p, of_pi, of_a = (law.sum(axis=1) for law in (p, pi, a))
    gap = float(discrete.kl(of_p, of_pi))
    inner = sum(of_p[k] * discrete.kl(p[k] / of_p[k], pi[k] / of_pi[k]) for k in np.flatnonzero(of_p))
    nearer = float(discrete.kl(p.ravel(), pi.ravel()) - discrete.kl(p.ravel(), a.ravel()))
    return gap, float(inner), gap - float(discrete.kl(of_p, of_a)), nearer


def world(name, far=0.4):
    prompts, shares, tilt, *sizes = WORLDS[name]
    rng = np.random.default_rng(7)
    a = rng.dirichlet(np.full(3, 3.0), (prompts, len(shares))) * np.array(shares)[:, None]
    a /= a.sum((1, 2), keepdims=True)
    noise = np.exp(rng.normal(0, far, (prompts, len(shares), 1)) + rng.normal(0, far, a.shape))
    pi = a * noise
    return Cells(a, pi / pi.sum((1, 2), keepdims=True), np.array(tilt), tuple(sizes))


@pytest.mark.parametrize("name", WORLDS)
def test_the_parts_add_up_to_the_whole(name):
    here = world(name)
    exact = here.truth
    whole = np.mean([discrete.kl(p.ravel(), pi.ravel()) for p, pi in zip(here.p, here.pi, strict=True)])
    assert exact["asked"] + exact["collateral"] == pytest.approx(whole, abs=1e-9)
    told, printed, _ = here.told(3)
    assert told["asked"].value + told["collateral"].value == pytest.approx(printed.value, abs=1e-9)


@pytest.mark.parametrize("name", WORLDS)
def test_coverage(name):
    """Of 100 seeds each interval holds the truth as often as 95 % would, at 0.1 %, and no estimate is biased."""
    here, seeds = world(name), 100
    found = [here.told(seed)[0] for seed in range(seeds)]
    for quantity, truth in here.truth.items():
        estimates = [told[quantity] for told in found if told[quantity].value is not None]
        assert len(estimates) > 0.9 * seeds, quantity
        held = np.mean([e.ci_low <= truth <= e.ci_high for e in estimates])
        assert held >= 0.87, (quantity, held)
        values = np.array([e.value for e in estimates])
        assert abs(values.mean() - truth) < 3.3 * values.std() / len(values) ** 0.5, quantity
        assert 0.8 < np.mean([e.stderr for e in estimates]) / values.std() < 1.35, quantity


def test_the_error_of_a_collateral_that_is_nothing_is_that_of_log_z():
    """π = a·f(φ): the collateral is 0, and what reference draws add to its error is Ẑ/Z − 1 alone."""
    here = world("shares of three")
    pi = here.a * np.array([0.2, 3.0, 0.9])[:, None]
    here = replace(here, pi=pi / pi.sum((1, 2), keepdims=True), sizes=(256, 20_000))
    told, _, _ = here.told(1)
    weights = np.exp(here.tilt) / (here.a.sum(2) * np.exp(here.tilt)).sum(1, keepdims=True)
    error = np.sqrt(((here.a.sum(2) * (weights - 1) ** 2).sum(1) / 256).sum()) / len(here.a)
    assert here.truth["collateral"] == pytest.approx(0, abs=1e-9)
    assert told["collateral"].stderr == pytest.approx(error, rel=0.3)  # planted: the error of all of KL(p‖π)
    assert told["collateral"].ci_low <= 0 <= told["collateral"].ci_high


def apart():
    """Two prompts whose shares of the kept cell are ten times apart."""
    here = world("one of two")
    a = here.a[:2] / here.a[:2].sum(axis=2, keepdims=True) * np.array([[1 - APART, APART], [0.2, 0.8]])[:, :, None]
    pi = here.pi[:2] / here.pi[:2].sum(axis=2, keepdims=True) * np.array([[0.9, 0.1], [0.1, 0.9]])[:, :, None]
    return replace(here, a=a, pi=pi, sizes=(400, 400))


def off(here, quantity, change, seeds=40):
    """How far the mean over seeds is from the truth in standard errors, with a change of what is estimated."""
    values = []
    for seed in range(seeds):
        ref, of_ref, own, of_own = here.drawn(seed)
        told = change(ref, of_ref, own, of_own)[quantity]
        if told.value is not None:
            values.append(told.value)
    assert len(values) > seeds / 2
    return abs(np.mean(values) - here.truth[quantity]) / (np.std(values) / len(values) ** 0.5)


def plain(ref, of_ref, own, of_own):
    cells = celled(ref, of_ref, own, of_own, None, coarse=False)
    return dict(zip(QUANTITIES, asked.parts(cells, kl_target(ref), ref.excess), strict=False))


def pooled(ref, of_ref, own, of_own):
    """Planted: one law of the cells for all prompts."""
    return plain(replace(ref, prompt=np.zeros_like(ref.prompt)), of_ref, np.zeros_like(own), of_own)


def smoothed(ref, of_ref, own, of_own):
    """Planted: ten own draws more in each cell of each prompt."""
    count = 10 * (int(of_ref.max()) + 1)
    more = np.repeat(np.unique(own), count)
    return plain(
        ref, of_ref, np.append(own, more), np.append(of_own, np.tile(np.arange(count) // 10, np.unique(own).size))
    )


def unconditional(ref, of_ref, own, of_own):
    """Planted: all of KL(p‖π) for what is left of it."""
    return {**plain(ref, of_ref, own, of_own), "collateral": kl_target(ref)}


@pytest.mark.parametrize(
    ("change", "quantity", "here"),
    [(pooled, "asked", apart()), (smoothed, "asked", world("hard, and five")),
     (unconditional, "collateral", world("one of two"))],
)  # fmt: skip
def test_planted_errors_are_seen(change, quantity, here):
    assert off(here, quantity, plain) < 4 < off(here, quantity, change)


def test_few_draws_in_a_cell_join_it_to_a_neighbour():
    """Fewer cells tell less: the asked gap is at least, the rest at most; one cell that holds all tells nothing."""
    here = replace(world("five rewards"), sizes=(512, 30))
    told, whole, cells = here.told(1)
    assert cells.ref_cell.max() < 4 and cells.coarse
    assert asked.AT_LEAST in told["asked"].note and asked.AT_MOST in told["collateral"].note
    assert told["asked"].value + told["collateral"].value == pytest.approx(whole.value, abs=1e-9)
    told, _, cells = replace(here, sizes=(512, 12)).told(1)
    assert cells.refused and told["asked"].value is None and told["collateral"].value is None


def test_a_cell_that_no_own_draw_is_in_is_refused():
    ref, of_ref, own, of_own = world("shares of three").drawn(0)
    cells = celled(ref, of_ref, own, np.where(of_own == 1, 0, of_own), None, coarse=False)
    assert cells.refused or cells.coarse


def test_infinite_wholes():
    """∞ less a finite asked gap is ∞; where the gap is not known, neither is the rest."""
    here = world("one of two")
    ref, of_ref, own, of_own = here.drawn(0)
    lost = np.where((of_ref == 1) & (np.arange(of_ref.size) % 9 == 0), OFF, ref.log_gen)
    ref = replace(ref, log_gen=lost)
    cells = celled(ref, of_ref, own, of_own, None, coarse=False)
    assert asked.parts(cells, kl_target(ref), ref.excess).collateral.value == np.inf
    none = celled(ref, of_ref, own, np.zeros_like(of_own), None, coarse=False)
    rest = asked.parts(none, kl_target(ref), ref.excess)
    assert rest.asked.value is None and rest.asked.ci_low > 1
    assert rest.collateral.value is None


def test_dependent_draws_count_once():
    """Copies of each own draw in a group: the same value, the same error."""
    ref, of_ref, own, of_own = world("shares of three").drawn(2)
    once = celled(ref, of_ref, own, of_own, None, coarse=False)
    number = np.arange(own.size)
    twice = celled(ref, of_ref, np.repeat(own, 2), np.repeat(of_own, 2), np.repeat(number, 2), coarse=False)
    plain_parts, copied = (asked.parts(c, kl_target(ref), ref.excess) for c in (once, twice))
    for mine, other in zip(plain_parts, copied, strict=True):
        assert other.value == pytest.approx(mine.value, abs=1e-9)
        assert other.stderr == pytest.approx(mine.stderr, rel=1e-6)
