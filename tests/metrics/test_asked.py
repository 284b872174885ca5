"""The asked gap and the collateral as runs measure them, on worlds whose every continuation is listed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from task_on_base import TaskOnBase

from alignbench import metrics
from alignbench.generators.exact.world import exact
from alignbench.metrics.asked import _codes, settled
from alignbench.metrics.replicates import Measured, replicates
from alignbench.registry import load_plugins
from alignbench.seeds import Seed
from alignbench.spec import parse_spec
from alignbench.stats.asked import AT_LEAST, AT_MOST
from alignbench.stats.partition import OUTSIDE
from alignbench.store.draws import DrawStore
from alignbench.task import find_tasks, load_task
from alignbench.types import silent

LONG = """
name: share
version: 1
summary: A reward of what share of the words is sun.
prompts: [rain, sun wind]
max_tokens: 7
draws: 400
features:
  share: {feature: word_share, words: [sun]}
target:
  - {feature: share, reward: true, beta: 0.4}
"""


def on(task, base, draws=None, seed=0):
    load_plugins()
    return TaskOnBase(
        task, base, base.name, DrawStore(None), draws=draws or task.draws, seed=Seed(seed), progress=silent
    )


def long_task(tmp_path):
    path = tmp_path / "share.yaml"
    path.write_text(LONG)
    load_plugins()
    return load_task(path)


def told(here, spec):
    law = here.setting.built(parse_spec(spec, ""), "") if spec else here.base
    return here.measure(spec or "base", law)


def parts_of(evidence):
    return metrics.measure("divergence", evidence)


@pytest.fixture(scope="module")
def shares():
    load_plugins()
    return on(find_tasks("exact_shares")[0], exact(words="she he sun rain", order=2, seed=1), draws=600)


@pytest.mark.parametrize("spec", ["", "best_of_n:n=4", "rejection", "quasi_rejection:beta=1.1", "sir:n=4"])
def test_what_picks_base_draws_by_what_is_asked_changes_nothing_else(shares, spec):
    evidence = told(shares, spec)
    found = parts_of(evidence)
    assert (found["kl_collateral"].value, found["kl_collateral"].stderr) == (0.0, 0.0)
    assert evidence.truth["divergence.kl_collateral"] == pytest.approx(0, abs=1e-9)
    if found["kl_target"].value is not None:
        assert found["kl_asked"] == found["kl_target"]
    truth = evidence.truth["divergence.kl_asked"]
    assert found["kl_asked"].ci_low - 1e-9 <= truth <= found["kl_asked"].ci_high + 1e-9


@pytest.mark.parametrize("spec", ["best_of_n:n=4,rank=likelihood", "{name: sir, n: 4, proposal: 'temperature:t=0.7'}"])
def test_what_picks_by_something_else_or_among_others_changes_more(shares, spec):
    evidence = told(shares, spec)
    found = parts_of(evidence)
    assert found["kl_collateral"].value is None
    assert evidence.truth is None or evidence.truth.get("divergence.kl_collateral") != pytest.approx(0, abs=1e-9)


def test_categories_that_are_not_asked_for_are_one(shares):
    """The chain rule is over what is asked: who is neither she nor he is all the same to it."""
    evidence = told(shares, "temperature:t=0.7")
    three = {"pronoun": (*evidence.categories["pronoun"], "they")}
    theirs = np.where(np.arange(len(evidence.ref.draws)) % 7 == 0, 2, evidence.ref.features["pronoun"])
    others = np.where(theirs == 2, -1, theirs)
    codes = [
        _codes(replace(evidence, categories=three, ref=replace(evidence.ref, features={"pronoun": x})))[0]
        for x in (theirs, others)
    ]
    np.testing.assert_array_equal(*codes)


def test_settled_cells_stay_though_too_few_draws_are_left(shares):
    evidence = settled(told(shares, "temperature:t=0.7"))
    place = evidence.own.draws.prompt * 10 + evidence.own.cell
    few = np.concatenate([np.flatnonzero(place == one)[:4] for one in np.unique(place)])
    rest = replace(evidence, own=metrics.replicates.picked(evidence.own, np.unique(few)))
    fresh = replace(rest, own=replace(rest.own, cell=None), ref=replace(rest.ref, cell=None))
    kept, anew = (parts_of(one)["kl_asked"] for one in (rest, fresh))
    assert (kept.value is not None or kept.ci_low is not None) and kept != anew


def test_parts_of_a_law_with_a_density_add_up(shares):
    evidence = told(shares, "temperature:t=0.7")
    found, truth = parts_of(evidence), evidence.truth
    assert found["kl_asked"].value + found["kl_collateral"].value == pytest.approx(found["kl_target"].value, abs=1e-9)
    assert truth["divergence.kl_asked"] + truth["divergence.kl_collateral"] == pytest.approx(
        truth["divergence.kl_target"], abs=1e-9
    )
    for part in ("kl_asked", "kl_collateral", "kl_target_vs_base", "kl_asked_vs_base"):
        assert abs(found[part].value - truth[f"divergence.{part}"]) < 4 * found[part].stderr, part


def test_no_density_is_needed_for_the_asked_gap(shares):
    evidence = told(shares, "temperature:t=0.7")
    blind = replace(
        evidence, own=replace(evidence.own, log_gen=None), ref=replace(evidence.ref, log_gen=None),
        reasons={"log_gen": "a remote black box"},
    )  # fmt: skip
    found = parts_of(blind)
    assert found["kl_asked"] == parts_of(evidence)["kl_asked"]
    assert found["kl_collateral"].value is None and "black box" in found["kl_collateral"].note
    assert found["kl_target_vs_base"].value is None
    assert found["kl_asked_vs_base"] == parts_of(evidence)["kl_asked_vs_base"]


def test_a_law_that_loses_a_cell_has_a_lower_limit(shares):
    """No own draw says he: what is missing may be rare, so the limit is finite; the rest cannot be told apart."""
    evidence = told(shares, "temperature:t=0.7")
    without = np.flatnonzero(evidence.own.features["pronoun"] != 1)
    kept = metrics.replicates.picked(evidence.own, without)
    found = parts_of(replace(evidence, own=kept))["kl_asked"]
    assert found.value is None and found.ci_high is None
    assert 0.1 < found.ci_low < 5


def test_a_point_mass_lacks_what_it_never_says(shares):
    evidence = told(shares, "temperature:t=0.7")
    constant = replace(evidence.own, log_gen=np.zeros(len(evidence.own.draws)))
    of_one = {name: np.zeros_like(values) for name, values in evidence.own.features.items()}
    found = parts_of(replace(evidence, own=replace(constant, features=of_one)))
    assert found["kl_asked"].value == np.inf
    assert found["kl_collateral"].value is None and "∞ − ∞" in found["kl_collateral"].note


def test_a_number_is_told_by_bins_of_p(tmp_path):
    """The asked gap of bins is at least, the collateral at most, and the limits hold."""
    task = long_task(tmp_path)
    here = on(task, exact(words="sun rain wind", order=2, seed=2))
    bins = here.target.fit.bins["share"]
    assert 3 <= len(bins) < 10
    evidence = here.measure("hot", here.base.warped(temperature=1.6))
    found = parts_of(evidence)
    assert AT_LEAST in found["kl_asked"].note and AT_MOST in found["kl_collateral"].note
    assert found["kl_asked"].value + found["kl_collateral"].value == pytest.approx(found["kl_target"].value, abs=1e-9)
    exact_parts = _listed(here, evidence)
    assert found["kl_asked"].ci_low <= exact_parts[0] + 1e-9
    assert found["kl_collateral"].ci_high >= exact_parts[1] - 1e-9


def _listed(here, evidence):
    """(asked gap, collateral) of exact values, by listing; the world is small enough."""
    assert evidence.truth is not None
    return evidence.truth["divergence.kl_asked"], evidence.truth["divergence.kl_collateral"]


def test_two_laws_are_told_by_the_same_cells(tmp_path):
    """Cells are p's and of the base's draws, whatever π says: what fills them alone differs."""
    here = on(long_task(tmp_path), exact(words="sun rain wind", order=2, seed=2), draws=800)
    some = [settled(here.measure(str(t), here.base.warped(temperature=t))) for t in (0.9, 1.1)]
    assert all(e.ref.cell is not None for e in some)
    np.testing.assert_array_equal(some[0].ref.cell, some[1].ref.cell)
    assert not np.array_equal(some[0].own.cell, some[1].own.cell)


def test_replicates_keep_the_cells_of_all_draws(shares):
    evidence = told(shares, "temperature:t=0.7")
    (left,) = replicates([Measured("divergence", {}, parts_of(evidence))], evidence, "prompts_given")
    assert {"kl_asked", "kl_collateral", "kl_target_vs_base", "kl_asked_vs_base"} <= left.keys()
    few = np.bincount(evidence.ref.draws.prompt)
    assert np.ptp(left["kl_asked"]) < 0.1, few


def test_what_p_never_says_is_in_no_cell(shares):
    """Of a hard constraint the own draws that break it are outside, and count in what the others are shares of."""
    load_plugins()
    here = on(find_tasks("exact_ngram")[0], exact(order=2, seed=1), draws=512)
    evidence = settled(told(here, "temperature:t=0.7"))
    broken = evidence.own.features["bright"] == 0
    assert (evidence.own.cell[broken] == OUTSIDE).all() and (evidence.own.cell[~broken] > OUTSIDE).all()


def test_target_not_asked_for_says_so(shares):
    evidence = told(shares, "temperature:t=0.7")
    nothing = replace(evidence, fit=replace(evidence.fit, wanted=()))
    assert parts_of(nothing)["kl_asked"].note.startswith("the target asks nothing")
