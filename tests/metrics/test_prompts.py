"""Intervals for prompts like these: the clustered t interval, and what is left as it is."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import t

from alignbench.metrics.prompts import over_prompts
from alignbench.stats.intervals import mean_over_prompts
from alignbench.types import Draws, Estimate, Evidence, Fit, Scored


def evidence(values):
    """One draw array with `values` (C, n) as its feature."""
    prompt = np.repeat(np.arange(len(values)), values.shape[1])
    rows = np.stack([prompt, np.tile(np.arange(values.shape[1]), len(values))], axis=1)
    scored = Scored(Draws.from_texts(rows, ["x"] * prompt.size), {"f": values.ravel()}, None, None, None, None)
    fit = Fit((), np.zeros((1, 0)), np.zeros((1, 0)), log_z=np.zeros(len(values)), log_bound=np.arange(len(values)))
    return Evidence(own=scored, ref=scored, fit=fit, prompts=[str(c) for c in range(len(values))])


def mean(e):
    return {"": mean_over_prompts(e.own.draws.prompt, e.own.features["f"])}


def test_a_mean_has_the_clustered_t_interval():
    values = np.random.default_rng(0).normal(size=(8, 5)) + np.arange(8)[:, None]
    found, means = over_prompts(mean, evidence(values))[""], values.mean(axis=1)
    half = t.ppf(0.975, 7) * means.std(ddof=1) / np.sqrt(8)
    assert found.value == pytest.approx(means.mean())
    assert (found.ci_low, found.ci_high) == pytest.approx((means.mean() - half, means.mean() + half))
    assert found.stderr > 3 * mean(evidence(values))[""].stderr  # planted: stratified, as if there were no others
    assert "prompts like these" in found.note


def test_it_covers_the_mean_of_the_prompts_that_were_not_given():
    held, bare = 0, 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        e = evidence(rng.normal(size=(10, 1)) + 0.3 * rng.normal(size=(10, 6)))
        found, given = over_prompts(mean, e)[""], mean(e)[""]
        held += found.ci_low <= 0 <= found.ci_high
        bare += given.ci_low <= 0 <= given.ci_high
    assert 0.92 * 400 <= held <= 0.98 * 400
    assert bare < 0.5 * 400


def test_what_is_left_out_is_left_out_everywhere():
    values = np.arange(12.0).reshape(4, 3)
    seen = []
    over_prompts(lambda e: seen.append(e) or {}, evidence(values))
    shorter = seen[2]
    assert shorter.prompts == ["0", "2", "3"] and shorter.fit.log_z.size == 3
    assert shorter.fit.log_bound.tolist() == [0, 2, 3]
    assert shorter.own.features["f"].tolist() == [0, 1, 2, 6, 7, 8, 9, 10, 11]
    assert shorter.ref.draws.prompt.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_the_missing_the_infinite_and_the_exact_stay_and_one_prompt_has_no_interval():
    fixed = {"a": Estimate.missing("why"), "b": Estimate(np.inf), "c": Estimate(0.0, 0.0, 0.0, 0.0)}
    assert over_prompts(lambda e: fixed, evidence(np.ones((3, 2)))) == fixed
    alone = over_prompts(mean, evidence(np.array([[1.0, 2.0]])))[""]
    assert (alone.value, alone.ci_low) == (1.5, None) and "one prompt" in alone.note
    gone = over_prompts(lambda e: mean(e) if len(e.prompts) == 3 else {"": Estimate.missing("")}, evidence(np.eye(3)))[
        ""
    ]
    assert gone.ci_low is None and "without some prompt" in gone.note


def test_rejections_are_counted_without_the_prompt():
    e = replace(evidence(np.ones((3, 2))), proposed=np.array([[0, 5, 1], [1, 7, 1], [2, 9, 1]]))
    seen = []
    over_prompts(lambda some: seen.append(some.proposed.tolist()) or {}, e)
    assert seen[2] == [[0, 5, 1], [1, 9, 1]]
