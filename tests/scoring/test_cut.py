"""Evidence cut to n draws a prompt is the evidence that n draws would have given: every array, count and estimate."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from task_on_base import TaskOnBase
from tiny_world import BASE, BRIGHT, TASK

from alignbench import metrics
from alignbench.aligners.base import Setting
from alignbench.registry import aligner, load_plugins
from alignbench.reports.compare.common_draws import shared
from alignbench.reports.compare.contenders import Measured, Pair
from alignbench.run.rows import RowKey
from alignbench.scoring import cut
from alignbench.scoring.cut import first_draws
from alignbench.seeds import Seed
from alignbench.store.draws import DrawStore
from alignbench.task import load_task
from alignbench.types import Draws, silent

load_plugins()

FEW, MANY = 60, 130
REWARD = "  - {feature: windy, reward: true, beta: 1.0}\n"
PROPOSALS = "proposals: ['temperature:t=3', 'top_p:p=0.9']\n"
HOT = {"proposal": {"name": "temperature", "t": 2.0}}


class Texts:
    """A black box that returns text alone."""

    def sample(self, prompts, rows, *, max_tokens, seed):
        for draws in BASE.sample(prompts, rows, max_tokens=max_tokens, seed=seed):
            yield Draws.from_texts(np.stack([draws.prompt, draws.index], axis=1), draws.texts)


def aligned(name, **settings):
    """The generator that an aligner makes of a base, on its task."""
    recipe = aligner[name].thing(**settings)
    return lambda made: recipe.align(Setting(made.base, made.target, made.prompts, 3, made.seed.on("train")))


GENERATORS = {
    "the base": lambda b: b.base,
    "a law": lambda b: BASE.warped(temperature=0.5),
    "text alone": lambda b: Texts(),
    "one text": aligned("constant", text="sun wind"),
    "best-of-n": aligned("best_of_n", n=3),
    "best-of-n by a rank": aligned("best_of_n", n=3, rank="likelihood"),
    "rejection that gives up": aligned("rejection", cap=2),
    "rejection of a proposal": aligned("rejection", cap=3, proposal={"name": "constrained", "any_of": ["sun"]}),
    "quasi-rejection": aligned("quasi_rejection", beta=0.7, cap=3),
    "quasi-rejection of a proposal": aligned("quasi_rejection", acceptance=0.3, cap=3, **HOT),
    "a filter of a proposal": aligned("filtered", cap=3, **HOT),
    "SIR": aligned("sir", n=3),
    "SIR of a proposal": aligned("sir", n=3, **HOT),
}


@pytest.fixture
def task(tmp_path):
    def make(draws, lines=PROPOSALS, target=BRIGHT + REWARD):
        path = tmp_path / "tiny.yaml"
        path.write_text(TASK.replace("target:\n", lines + "target:\n") + target)
        return TaskOnBase(load_task(path), BASE, "exact", DrawStore(None), draws, Seed(7), silent)

    return make


def measured(made, name):
    return made.ceiling() if name == "draws of p" else made.measure(name, GENERATORS[name](made))


NOT_COUNTED = ("seconds", "peak_bytes")  # of a clock and a process


def without_tokens_of_the_lost(e):
    """Evidence whose cost does not count tokens and calls, where some draws ran out of proposals."""
    return replace(e, cost=replace(e.cost, tokens=0, calls=0)) if e.cost.exhausted else e


def same(a, b, path="evidence"):
    """Assert that two records agree in every field: numbers to rounding, groups up to their names."""
    if is_dataclass(a):
        assert type(a) is type(b), path
        for name in (f.name for f in fields(a) if f.name not in NOT_COUNTED):
            same(getattr(a, name), getattr(b, name), f"{path}.{name}")
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key, value in a.items():
            same(value, b[key], f"{path}.{key}")
    elif isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        np.testing.assert_allclose(*map(plain, (a, b), [path] * 2), atol=1e-9, err_msg=path)
    elif isinstance(a, float) and isinstance(b, float):
        assert a == pytest.approx(b, abs=1e-9), path
    else:
        assert a == b, path


def plain(values, path):
    """An array without names of groups and without padding."""
    if path.endswith(".group"):
        return np.unique(values, return_inverse=True)[1]
    if values.ndim == 2 and ".draws." in path:
        return np.pad(values, ((0, 0), (0, 9)), constant_values=-1 if path.endswith("tokens") else 0)[:, :9]
    return values


@pytest.mark.parametrize(
    ("name", "lines"), [*((name, PROPOSALS) for name in [*GENERATORS, "draws of p"]), ("a law", "")]
)
def test_evidence_cut_to_n_is_what_n_draws_give(task, name, lines):
    few, many = (measured(task(draws, lines), name) for draws in (FEW, MANY))
    got = first_draws(many, FEW)
    same(got, without_tokens_of_the_lost(few))
    assert got.cost.seconds is None and len(got.own.draws) < len(many.own.draws)


def pair_of(few, many):
    """The same generator with few and with many draws, as `compare` finds them."""
    key = RowKey("r", "t", 1, "hash", "g", "id", "", "g", "b", "target", "", 7, MANY, "2026-01-01", "")
    return Pair(*(Measured(Path("x.npz"), e, replace(key, draws=n)) for e, n in ((few, FEW), (many, MANY))))


@pytest.mark.parametrize("name", ["a law", "rejection that gives up", "quasi-rejection of a proposal"])
def test_a_generator_beside_more_draws_of_itself_does_not_differ(task, name):
    """Planted bugs of old: proposals' draws were dropped, of a mixture and of a selection; acceptance was of all."""
    few, many = (measured(task(draws), name) for draws in (FEW, MANY))
    a, b, notes = shared(pair_of(few, many))
    assert notes == ["the first 60 draws of each prompt: one has 60, the other 130"]
    assert a is few
    printed = 0
    for metric in ("divergence", "acceptance", "satisfaction"):
        mine, theirs = (metrics.measure(metric, e) for e in (a, b))
        printed += sum(e.value is not None for e in mine.values())
        same(theirs, mine, metric)
    assert printed >= 6


def test_planted_cuts_that_forget_an_array_are_seen(task, monkeypatch):
    few, many = (measured(task(draws), "quasi-rejection of a proposal") for draws in (FEW, MANY))
    few = without_tokens_of_the_lost(few)
    same(first_draws(many, FEW), few)
    for forgotten in ("own", "ref", "proposal", "proposed", "cost", "fit"):
        with pytest.raises(AssertionError, match=rf"evidence\.{forgotten}"):
            same(replace(first_draws(many, FEW), **{forgotten: getattr(many, forgotten)}), few)
    monkeypatch.setattr(cut, "APART", 10**12)
    with pytest.raises(AssertionError, match=r"evidence\.ref"):
        same(first_draws(many, FEW), few)
