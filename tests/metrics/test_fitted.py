"""The target as a row: λ and what it reaches on fresh draws are the fit's own numbers."""

from dataclasses import replace

import numpy as np
import pytest
from evidences import of_texts

import alignbench
from alignbench import metrics
from alignbench.types import Estimate, Fit


def test_lambda_and_its_heldout_error_are_rows():
    rows = alignbench.evaluate("exact:seed=1", "exact_ngram", aligners=["rejection"], draws=256)
    target = rows[(rows.metric == "target") & (rows.generator == "exact")].set_index(["aligner", "part"])
    lam, heldout = target.loc[("", "lam.windy")], target.loc[("", "heldout.windy")]
    assert lam.value == target.loc[("rejection:cap=256", "lam.windy")].value
    assert lam.ci_low < -0.753594 < lam.ci_high  # λ of infinitely many draws, by listing the world
    assert abs(heldout.value) < 4 * heldout.stderr
    told = rows[(rows.metric == "divergence") & rows.value.notna()]
    of_p = ~told.part.str.startswith("kl_base") | (told.aligner != "") | (told.generator == "draws of p")
    assert told[of_p].note.str.contains("p is taken at the fitted λ = -0.").all()
    assert not told[~of_p].note.str.contains("fitted λ").any()  # KL(a‖a) knows nothing of p


def test_the_interval_of_lambda_is_the_fit_s_own():
    """λ = 2 ± 1.96 · 0.5; planted: its error for the error's square."""
    heldout = {"x": Estimate(0.0, 0.1, -0.2, 0.2, n=40)}
    fit = Fit((), np.array([[2.0]]), np.array([[0.5]]), heldout=heldout)
    found = metrics.measure("target", replace(of_texts(["a"]), fit=fit))
    assert (found["lam.x"].value, found["lam.x"].stderr) == (2.0, pytest.approx(0.5))
    assert found["lam.x"].ci_high == pytest.approx(2 + 1.96 * 0.5, abs=1e-3) and found["heldout.x"] == heldout["x"]


def test_a_target_without_moments_says_so(tmp_path):
    (tmp_path / "sunny.yaml").write_text(
        "name: sunny\nversion: 1\nsummary: Sun.\nprompts: [rain]\nmax_tokens: 3\ndraws: 20\n"
        "features: {sunny: {feature: contains_any, words: [sun]}}\ntarget: [{feature: sunny, always: true}]\n"
    )
    rows = alignbench.evaluate("exact", str(tmp_path / "sunny.yaml"))
    only = rows[rows.metric == "target"].iloc[0]
    assert np.isnan(only.value) and only.note == "the target asks for no moment"
    assert not rows.note.str.contains("fitted λ").any()


@pytest.mark.parametrize("per", ["task", "prompt"])
def test_each_prompt_may_have_its_own(per, tmp_path):
    (tmp_path / "windy.yaml").write_text(
        "name: windy\nversion: 1\nsummary: Wind.\nprompts: [rain, sun]\nmax_tokens: 4\ndraws: 200\n"
        "features: {windy: {feature: contains_any, words: [wind]}}\n"
        f"target: [{{feature: windy, moment: 0.5, per: {per}}}]\n"
    )
    rows = alignbench.evaluate("exact", str(tmp_path / "windy.yaml"))
    parts = [p for p in rows[rows.metric == "target"].part.unique() if p.startswith("lam.")]
    assert parts == (["lam.windy"] if per == "task" else ["lam.windy.0", "lam.windy.1"])
