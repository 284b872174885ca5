"""p on rare heavy classes that a sample lacks: what is printed allows for them, or nothing is printed."""

from dataclasses import replace

import numpy as np
import pytest
from stats_worlds import MILD, STEEP, Counts, covered

from alignbench.stats import discrete, unseen
from alignbench.stats.divergences import kl_target, log_z_of
from alignbench.stats.normaliser import log_z
from alignbench.stats.selection import divergences
from alignbench.types import Estimate, Selection

SEEDS = 100


ASKED = {
    "log_z": log_z_of,
    "kl_target": kl_target,
    "base": lambda ref: divergences(ref.prompt, ref.ratio, Selection("best", 1))["kl_target"],
}


def told(world, each, prompts=1, seeds=SEEDS, names=tuple(ASKED)):
    """{number: (printed, printed and wrong)} in shares of the runs."""
    truth = {
        "log_z": world.log_z,
        "kl_target": discrete.kl(world.p, world.gen),
        "base": discrete.kl(world.p, world.base),
    }
    found = dict.fromkeys(names, (0.0, 0.0))
    for seed in range(seeds):
        ref = world.sample(seed, each, prompts)
        for name, e in ((name, ASKED[name](ref)) for name in names):
            printed = e.value is not None
            wrong = printed and not covered(e, truth[name])
            found[name] = found[name][0] + printed / seeds, found[name][1] + wrong / seeds
    return found


def test_steep_rewards_on_unbounded_counts_are_not_printed_wrong(monkeypatch):
    """Printed in nearly all runs and wrong in nearly all of these, before limits allowed for what is not seen."""
    for name, (_, wrong) in told(STEEP, 300).items():
        assert wrong <= 0.05, name
    monkeypatch.setattr(unseen, "widened", lambda estimate, *_: estimate)
    for name, (printed, wrong) in told(STEEP, 300, seeds=30).items():
        assert printed > 0.7 and wrong > 0.9 * printed, name


def test_mild_rewards_are_printed_and_covered():
    for name, (printed, wrong) in told(MILD, 300, prompts=2).items():
        assert printed > 0.7 and wrong <= 0.05, name


def test_many_prompts_lack_a_class_each(monkeypatch):
    """24 prompts of 60 draws: allowing for one prompt's class alone leaves what all of them lack."""
    world = Counts(0.2 ** np.arange(9) / np.cumprod([1.0, *range(1, 9)]), 1.1)
    printed, wrong = told(world, 60, prompts=24, names=["log_z"])["log_z"]
    assert printed > 0.5 and wrong <= 0.05
    monkeypatch.setattr(unseen, "EACH", 0.0)
    monkeypatch.setattr(unseen, "WELL", 0)
    assert told(world, 60, prompts=24, names=["log_z"])["log_z"][1] > wrong


def test_classes_by_hand():
    """Draws of log-weight 0 (12), 1 (4) and 1.5 (1): the last two are one class of 5, that above it is at 2.5."""
    r = np.repeat([0.0, 1.0, 1.5], [12, 4, 1])
    w = np.exp(r) / np.exp(r).sum()
    found = unseen.moves(np.zeros(17, int), r, None, unseen.of_log_z)
    high, low = (np.log1p((limit / 5 - 1) * w[12:].sum()) for limit in (11.668, 1.6235))  # limits of a count of 5
    assert found.few == pytest.approx((low, high), abs=1e-3)
    above = 3.6889 * (2 * w[-1] - w.mean())  # the median is 1.5 below: a factor of 2 up
    assert found.none == pytest.approx((0.0, np.log1p(above)), abs=1e-4)
    assert found.share == pytest.approx(above / (1 + above), abs=1e-4)


def test_a_lattice_goes_on_by_its_own_step_and_a_bound_ends_it():
    r, prompt = np.repeat([0.0, 3.0], [80, 20]), np.zeros(100, int)
    weight = np.exp(r).sum()
    free = unseen.moves(prompt, r, None, unseen.of_log_z)
    assert free.none[1] == pytest.approx(np.log1p(3.6889 * (np.exp(6) - weight / 100) / weight), abs=1e-4)
    near = unseen.moves(prompt, r, np.full(100, 3.5), unseen.of_log_z)
    assert near.none[1] == pytest.approx(np.log1p(3.6889 * (np.exp(3.5) - weight / 100) / weight), abs=1e-4)
    assert unseen.moves(prompt, r, np.full(100, 3.0), unseen.of_log_z) == unseen.Moves((0.0, 0.0), (0.0, 0.0), 0.0)


def test_of_kl_is_the_kl_where_a_class_is_drawn_otherwise():
    """Against counts that are changed themselves; planted: Z as it was."""
    gap, r = np.repeat([0.5, -0.2, 1.1], [12, 4, 1]), np.repeat([0.0, 1.0, 2.0], [12, 4, 1])
    change = unseen.of_kl(gap)(np.arange(17), at := unseen._classes(r, 2.0, 1))
    for times, got in zip(at.times, change, strict=True):
        kl = [p @ gap / p.sum() - np.log(p.sum()) for p in (np.exp(r), times * np.exp(r))]
        assert got == pytest.approx(kl[1] - kl[0], abs=1e-12)
    assert np.abs(change + np.log1p(at.added)).max() > 0.1
    at = unseen._classes(r, np.inf, 1)  # a class at log-weight 3, with the gap of that at 2 and 1 more
    total, more = np.exp(r).sum(), 3.6889 * (np.exp(3) - np.exp(r).mean())
    kl = [(np.exp(r) @ gap + x * 2.1) / (total + x) - np.log(total + x) for x in (0.0, more)]
    assert unseen.of_kl(gap)(np.arange(17), at)[-2] == pytest.approx(kl[1] - kl[0], abs=1e-4)


def test_closed_forms_count_otherwise_too():
    """KL(p‖a) from cells moves as by the formula of the weights."""
    ref = MILD.sample(1, 200)
    by_weights = unseen.moves(ref.prompt, ref.ratio, None, unseen.of_kl(ref.ratio))
    from alignbench.stats.selection import FORMS, _of_counts

    by_cells = unseen.moves(
        ref.prompt, ref.ratio, None, _of_counts(FORMS["kl_target"], ref.ratio, ref.ratio, Selection("best", 1))
    )
    assert by_cells.few == pytest.approx(by_weights.few, abs=1e-9)
    assert by_cells.share == pytest.approx(by_weights.share)


def test_limits_are_widened_or_the_number_is_refused():
    plain = Estimate(1.0, 0.1, 0.9, 1.1, n=9)
    narrow = unseen.Moves((-0.15, 0.05), (-0.02, 0.1), 0.1)
    wider = unseen.widened(plain, narrow)
    assert (wider.value, wider.ci_low, wider.ci_high) == pytest.approx((1.0, 0.83, 1.2))
    assert unseen.widened(plain, narrow._replace(none=(0.0, 0.9))).note.startswith("weights hardly or never drawn")
    assert "55%" in unseen.widened(plain, narrow._replace(share=0.55)).note
    assert unseen.widened(plain, unseen.Moves((0.0, 0.0), (0.0, 0.0), 0.0)) == plain
    infinite = replace(plain, value=np.inf)
    assert unseen.widened(infinite, narrow) == infinite


def test_where_a_bound_is_known_log_z_keeps_its_limits():
    """Weights of e^5 in 12 of 300 draws, and e^8 may be: at most 3.7 draws of these are missing."""
    r, prompt = np.where(np.arange(300) < 12, 5.0, 0.0), np.zeros(300, int)
    bare, bounded = log_z(prompt, r), log_z(prompt, r, bound=np.full(300, 8.0))
    assert bare.value is bare.ci_low is bare.ci_high is bounded.value is None
    mean, most = np.exp(r).mean(), 3.6889 * np.exp(8) / 300
    assert bounded.ci_high > np.log(mean + most) and bounded.ci_low < np.log(mean)
    assert bounded.ci_high - bounded.ci_low < 3.5 + np.log1p(most / mean)
    assert all(type(end) is float for end in (bounded.ci_low, bounded.ci_high))  # tables round what they print
