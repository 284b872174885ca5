"""Paired differences of whole generators: covered, uniform under no difference, ∞ and missing numbers said."""

from dataclasses import replace
from io import StringIO
from math import inf
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import t

from alignbench.generators.hf.series import step_of
from alignbench.metrics.prompts import picked
from alignbench.reports.compare import compared as module
from alignbench.reports.compare import contenders, regression, shifts
from alignbench.reports.compare.checkpoints import sparkline
from alignbench.reports.compare.common_draws import of_each_draw
from alignbench.reports.compare.compared import Compared, Comparison, Difference, compare, differences
from alignbench.reports.compare.contenders import Contender, Measured
from alignbench.reports.compare.text import all_tables, to_html, to_json, to_markdown
from alignbench.reports.formats.terminal import tables_to_terminal
from alignbench.run.rescore import Remembered
from alignbench.run.rows import Row, RowKey, measure
from alignbench.stats.compare import holm
from alignbench.types import Draws, Estimate, Evidence, Fit, Scored, Wanted

KEY = RowKey("r", "t", 1, "hash", "g", "id", "", "g", "b", "target", "", 0, 12, "2026-01-01", "alignbench|seed:0")
DRAWS = 12


@pytest.fixture(autouse=True)
def _plugins(registries):
    """Metrics are there."""


def evidence(values, prompts=1, texts=None, **features):
    """One generator whose draws say `values` (B,), prompt by prompt, and which asks nothing."""
    values = np.asarray(values, float)
    per = values.size // prompts
    rows = np.stack([np.repeat(np.arange(prompts), per), np.tile(np.arange(per), prompts)], axis=1)
    draws = Draws.from_texts(rows, texts or [f"text {i}" for i in range(values.size)])
    own = Scored(draws, {"x": values, **features}, *[None] * 4)
    names = [f"prompt {c}" for c in range(prompts)]
    return Evidence(own=own, ref=own, fit=Fit((), np.zeros((1, 0)), np.zeros((1, 0))), prompts=names)


def rows(e, key=KEY, names=("features",)):
    return {row.name: row for row in measure([(name, {}) for name in names], key, e)}


def between(a, b):
    """The difference of the mean of x."""
    return next(d for d in differences((a, rows(a)), (b, rows(b)), "prompts_given") if d.key == "features.x")


def worlds(seed, shift=0.0):
    """Two generators that share what makes a draw easy; the second is `shift` higher."""
    rng = np.random.default_rng(seed)
    common = rng.normal(0, 9, DRAWS)
    return tuple(evidence(common + rng.normal(s, 1, DRAWS)) for s in (0.0, shift))


@pytest.mark.usefixtures("as_shipped")
@pytest.mark.parametrize("by", ["draws", "blocks"])
def test_a_known_difference_is_covered_and_p_values_are_uniform_where_there_is_none(by, monkeypatch):
    if by == "draws":
        monkeypatch.setattr("alignbench.run.rows.replicates", lambda told, e, over: [{} for _ in told])
    else:
        monkeypatch.setattr(module, "aligned", lambda a, b: False)
    runs = 100
    found = [between(*worlds(seed)) for seed in range(runs)]
    p = np.sort([d.p_value for d in found])
    assert np.abs(p - np.arange(1, runs + 1) / runs).max() < 1.63 / runs**0.5  # Kolmogorov, 1 %
    assert np.mean([d.difference.ci_low <= 0 <= d.difference.ci_high for d in found]) >= 0.88
    shifted = between(*worlds(0, 5.0))
    assert shifted.difference.ci_low < 5.0 < shifted.difference.ci_high and shifted.p_value == 2 / 2**DRAWS


def test_pairs_that_are_shuffled_would_be_caught():
    """Planted bug: the draws of one generator in another order lose what both share; its limits are 3 times wider."""
    a, b = worlds(1, 1.0)
    right = between(a, b).difference
    wrong = between(a, evidence(np.random.default_rng(0).permutation(b.own.features["x"]))).difference
    assert wrong.value == pytest.approx(right.value)
    assert wrong.ci_high - wrong.ci_low > 2 * (right.ci_high - right.ci_low)


@pytest.mark.usefixtures("as_shipped")
def test_draws_and_blocks_agree_where_each_block_is_one_draw(monkeypatch):
    a, b = worlds(3, 0.7)
    by_draw = between(a, b)
    monkeypatch.setattr(module, "aligned", lambda a, b: False)
    by_block = between(a, b)
    for x, y in ((by_draw.difference, by_block.difference), (by_draw, by_block)):
        for name in ("value", "stderr", "ci_low", "ci_high", "p_value", "effect"):
            if hasattr(x, name):
                assert getattr(x, name) == pytest.approx(getattr(y, name), rel=1e-5), name


def test_the_effect_is_the_mean_difference_over_its_standard_deviation():
    a, b = worlds(4, 1.0)
    off = b.own.features["x"] - a.own.features["x"]
    assert between(a, b).effect == pytest.approx(off.mean() / off.std(ddof=1))


def test_draws_that_were_left_out_are_compared_by_blocks():
    a, b = worlds(5, 1.0)
    part = replace(b, own=picked(b.own, np.arange(2, DRAWS)))
    found = between(a, part)
    assert found.difference.stderr is not None and found.p_value is not None


def test_as_many_draws_of_other_numbers_are_no_pairs():
    """Planted bug: pairs by place alone, of two generators that each lost another draw."""
    common = np.arange(DRAWS) ** 2.0
    a, b = evidence(common), evidence(common + 1 + np.arange(DRAWS) % 2 / 100)
    a, b = (replace(e, own=picked(e.own, np.delete(np.arange(DRAWS), gone))) for e, gone in ((a, 0), (b, DRAWS - 1)))
    assert not module.aligned(a, b) and module.aligned(a, a)
    value = between(a, b).difference.value
    assert value == pytest.approx(b.own.features["x"].mean() - a.own.features["x"].mean())
    told = shifts.shifts(a, b)[0].difference
    assert told.ci_low is None and "cannot be paired" in told.note
    assert {e.index for e in shifts._examples(a, b)} == set(range(1, DRAWS - 1))


# --- what is not tested -----------------------------------------------------------------------------------------------


def of(first, other, better="lower", replicates=("", "")):
    """The difference of two rows of one made-up metric."""
    made = [{"m": Row(KEY, "m", "", e, better, None, None, r)} for e, r in zip((first, other), replicates, strict=True)]
    e = evidence(np.arange(DRAWS))
    return differences((e, made[0]), (e, made[1]), "prompts_given")[0]


@pytest.mark.parametrize(("first", "other", "value", "verdict", "note"), [
    (Estimate(inf), Estimate(1.0), -inf, "better", "∞"),
    (Estimate(1.0), Estimate(inf), inf, "worse", "∞"),
    (Estimate(inf), Estimate(inf), None, "", "infinite in both"),
    (Estimate.missing("no judge"), Estimate(1.0), None, "", "not measured of the baseline: no judge"),
    (Estimate(1.0), Estimate.missing("no judge"), None, "", "not measured of the candidate: no judge"),
    (Estimate.missing("no judge"), Estimate.missing("no judge"), None, "", "not measured of both: no judge"),
    (Estimate(1.0), Estimate(2.0), 1.0, "", "not paired"),
    (Estimate(1.0, 0.0, 1.0, 1.0), Estimate(3.0, 0.0, 3.0, 3.0), 2.0, "worse", ""),
])  # fmt: skip
def test_no_number_is_invented(first, other, value, verdict, note):
    same = " ".join(["1"] * 10), " ".join(["3"] * 10)
    found = of(first, other, replicates=same if first.stderr == other.stderr == 0.0 else ("", ""))
    assert found.difference.value == value and found.verdict == verdict and found.p_value is None
    assert note in found.difference.note


def test_a_number_that_only_one_reports_is_said():
    e = evidence(np.arange(DRAWS))
    found = differences((e, {}), (e, rows(e)), "prompts_given")
    assert {d.difference.note for d in found} == {"not reported of the baseline"}


# --- many numbers -----------------------------------------------------------------------------------------------------


def contender(name, e, **key):
    measured = Measured(Path(f"out/{name}/evidence_t_0.npz"), e, replace(KEY, aligner=name, generator_id=name, **key))
    return Contender(name, (measured,))


@pytest.fixture
def cheap(monkeypatch):
    """Only the means of features are measured."""
    asked = Remembered([("features", {})], "features.x")
    monkeypatch.setattr(module, "remembered", lambda folder, task, trusted=False: asked)


def many(seed, shift=0.0):
    rng = np.random.default_rng(seed)
    noise = {f"n{k:02}": rng.normal(size=DRAWS) for k in range(12)}
    return evidence(rng.normal(shift, 1, DRAWS), **noise)


def test_p_values_are_adjusted_for_all_numbers_of_all_candidates(cheap):
    """Planted bug: without Holm's method some of 26 numbers without any difference are told from 0."""
    found = compare([contender("a", many(0)), contender("b", many(1)), contender("c", many(2))])
    told = [d for t in found.tables for d in t.table]
    assert len(told) == 26 and min(d.p_value for d in told) < 0.05
    assert [d.adjusted for d in told] == pytest.approx(holm(np.array([d.p_value for d in told])).tolist())
    assert {d.verdict for d in told} == {""}


def test_a_large_difference_is_told_and_so_is_what_has_no_better_side(cheap):
    found = compare([contender("a", many(0)), contender("b", many(1, 9.0))])
    assert {d.key: d.verdict for d in found.tables[0].table if d.verdict} == {"features.x": "differs"}


# --- who may be compared ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("changed", "line"), [
    ({"task_hash": "other", "task_version": 2}, "the task's hash differs (version 1 and 2, 1 and 1 prompts)"),
    ({"base_id": "c"}, "the base differs"),
    ({"target_id": "other"}, "the fitted target (λ) differs"),
    ({"judge": "j"}, "the judge differs"),
])  # fmt: skip
def test_what_differs_is_told(cheap, changed, line):
    found = compare([contender("a", many(0)), contender("b", many(1), **changed)])
    assert found.tables == () and found.failures == (f"t: skipped, a and b cannot be compared: {line}",)


def test_a_task_of_one_alone_is_skipped(cheap):
    found = compare([contender("a", many(0)), contender("b", many(1), task="u", task_hash="u")])
    assert found.failures == ("t: skipped, b was not measured on it", "u: skipped, a was not measured on it")


def test_no_common_prompts_is_a_line(cheap):
    """Draws of the first prompt alone beside draws of the second."""
    a, b = (evidence(np.arange(32.0), prompts=2) for _ in range(2))
    a, b = (replace(e, own=picked(e.own, e.own.draws.prompt == c)) for c, e in enumerate((a, b)))
    found = compare([contender("a", a), contender("b", b)])
    assert found.tables == () and "no common prompts to pair" in found.failures[0]
    other = replace(b, prompts=["elsewhere", "far"])
    found = compare([contender("a", a), contender("b", other, task_hash="h")])
    assert "no common prompts to pair" in found.failures[0]


def test_prompts_that_one_lacks_are_left_out_and_told(cheap):
    a, b = (evidence(np.arange(48.0) + s, prompts=3) for s in (0, 1))
    b = replace(b, own=picked(b.own, b.own.draws.prompt != 1))
    found = compare([contender("a", a), contender("b", b)]).tables[0]
    assert found.prompts == 2 and "'prompt 1'" in found.notes[0]
    assert found.differences[0].difference.value == pytest.approx(1.0)


def test_the_longer_of_two_runs_is_cut_to_the_draws_of_the_shorter(cheap):
    a, b = evidence(np.arange(12.0)), evidence(np.arange(32.0))
    found = compare([contender("a", a), contender("b", b, draws=32)]).tables[0]
    assert found.draws == 12 and found.differences[0].difference.value == 0.0
    assert found.notes == ("the first 12 draws of each prompt: one has 12, the other 32",)


def test_of_several_measurements_the_same_seed_and_the_newest_are_taken(cheap):
    old, new = many(0), many(5, 9.0)
    pool = (*contender("a", old, seed=1).found, *contender("a", many(3), seed=2).found)
    again = contender("b", new, seed=2, measured="2027-01-01").found
    pair = contenders.pairs(Contender("a", pool), Contender("b", again))[0][0]
    assert (pair.first.key.seed, pair.other.key.seed) == (2, 2)


def test_the_same_seed_comes_before_the_same_number_of_draws_and_then_the_newest(cheap):
    told = {"other": {"seed": 2, "draws": 12}, "same": {"seed": 1, "draws": 6, "measured": "2026-02-02"},
            "older": {"seed": 1, "draws": 6, "measured": "2026-01-02"}}  # fmt: skip
    pool = tuple(contender(name, many(k), **key).found[0] for k, (name, key) in enumerate(told.items()))
    for order in (pool, pool[::-1]):
        [pair], _ = contenders.pairs(Contender("a", order), contender("b", many(5), seed=1))
        assert pair.first.key.aligner == "same"


def test_draws_of_a_run_are_paired_with_those_of_a_run_alike_alone():
    """Where both generators draw in groups, and not in the same ones, their draws are no pairs."""
    a, b = worlds(6, 1.0)
    groups = [np.repeat(np.arange(6), 2), np.tile(np.arange(6), 2)]
    a, b, c = (
        replace(e, own=replace(e.own, draws=replace(e.own.draws, group=g)))
        for e, g in ((a, groups[0]), (b, groups[0]), (b, groups[1]))
    )
    assert "features.x" in module._by_draw(a, b, "prompts_given")
    assert module._by_draw(a, c, "prompts_given") == {}


def test_a_draw_satisfies_the_task_where_it_keeps_every_constraint():
    e = evidence(np.zeros(4), one=np.array([1.0, 1.0, 0.0, 0.0]), two=np.array([1.0, 0.0, 1.0, 0.0]))
    e = replace(e, fit=replace(e.fit, wanted=(Wanted("one", "always"), Wanted("two", "always"))))
    assert of_each_draw(e)["satisfaction.always"].tolist() == [1.0, 0.0, 0.0, 0.0]


# --- prompts and draws ------------------------------------------------------------------------------------------------


def asked(values, ok, texts):
    e = evidence(values, prompts=3, texts=texts, ok=np.asarray(ok))
    return replace(e, fit=replace(e.fit, wanted=(Wanted("ok", "always"),)))


def test_the_prompt_that_moved_most_comes_first_and_draws_that_differ_are_shown(cheap):
    rng = np.random.default_rng(0)
    noise, ok = rng.normal(size=48), np.ones(48, bool)
    moved = noise + np.repeat([0.1, 5.0, 1.0], 16) + rng.normal(0, 0.1, 48)
    texts = [f"old {i}" for i in range(48)]
    worse = ok.copy()
    worse[20] = False
    found = compare([
        contender("a", asked(noise, ok, texts)),
        contender("b", asked(moved, worse, [f"new {i}" for i in range(48)])),
    ]).tables[0]  # fmt: skip
    assert [s.prompt for s in found.shifts][:2] == ["prompt 1", "prompt 2"]
    first = found.shifts[0]
    assert first.quantity == "x" and first.difference.ci_low < 5.0 < first.difference.ci_high
    example = next(e for e in found.examples if e.prompt == "prompt 1")
    assert (example.index, example.first, example.other) == (4, "old 20", "new 20")
    assert example.changed["ok"] == (True, False)


def test_limits_of_a_shift_hold_for_all_that_was_looked_at(cheap):
    """Bonferroni: of 3 prompts and 2 features (x and n) six intervals, each at 1 − 0.05/6."""
    rng = np.random.default_rng(1)
    a, b = (evidence(rng.normal(s, 1, 24), prompts=3, n=rng.normal(s, 1, 24)) for s in (0, 1))
    for shift in shifts.shifts(a, b):
        here = a.own.draws.prompt == a.prompts.index(shift.prompt)
        off = (b.own.features[shift.quantity] - a.own.features[shift.quantity])[here]
        half = t.ppf(1 - 0.025 / 6, 7) * off.std(ddof=1) / 8**0.5
        assert shift.looked_at == 6 and shift.difference.ci_high == pytest.approx(off.mean() + half)


# --- gates ------------------------------------------------------------------------------------------------------------


def outcome(first, other, interval=None, p=None, better="lower"):
    off = Estimate(other.value - first.value, interval and 1.0, *(interval or (None, None)))
    one = Difference("m", better, first, other, off, p, p)
    return Comparison("a", (Compared("t", 1, "h", "g", "a", "b", 1, 16, (), (one,), {"m": "m"}),), ())


@pytest.mark.parametrize(("words", "interval", "better", "regressed"), [
    ("m", (0.1, 0.9), "lower", True),
    ("m", (-0.1, 0.9), "lower", False),
    ("m:0.2", (0.1, 0.9), "lower", False),  # planted: the margin ignored
    ("m:0.05", (0.1, 0.9), "lower", True),
    ("m", (0.1, 0.9), "higher", False),  # planted: the direction ignored
    ("m", (-0.9, -0.1), "higher", True),
    ("m", (-0.9, 0.1), "higher", False),  # planted: its other limit
    ("m:0.2", (-0.9, -0.1), "higher", False),
    ("m:0.05", (-0.9, -0.1), "higher", True),
    ("m", None, "lower", None),
])  # fmt: skip
def test_a_regression_is_an_interval_wholly_beyond_the_margin(words, interval, better, regressed):
    value = 0.5 if interval is None else sum(interval) / 2
    comparison = outcome(Estimate(1.0), Estimate(1.0 + value), interval, better=better)
    assert [j.regressed for j in regression.judged([regression.gate_of(words)], comparison)] == [regressed]


@pytest.mark.parametrize(("first", "other", "regressed"), [(1.0, inf, True), (inf, 1.0, False)])
def test_infinity_is_worse_by_any_margin(first, other, regressed):
    comparison = outcome(Estimate(first), Estimate(other))
    assert [j.regressed for j in regression.judged([regression.Gate("m", 1e9)], comparison)] == [regressed]


def test_where_all_pairs_differ_alike_the_p_value_decides():
    for p, regressed in ((0.002, True), (0.5, False)):
        comparison = outcome(Estimate(0.0), Estimate(1.0), None, p)
        assert [j.regressed for j in regression.judged([regression.Gate("m")], comparison)] == [regressed]


@pytest.mark.parametrize(("fell", "regressed"), [(4, False), (6, True)])
def test_few_pairs_that_differ_need_a_small_p_value_too(fell, regressed):
    """Planted bug: 4 of 192 draws that broke what all had kept, p = 0.125, were a regression by their interval."""
    broken = np.arange(192) % (192 // fell) > 0
    a, b = (evidence(kept, 3) for kept in (np.ones(192), broken))
    d = replace(between(a, b), better="higher")
    assert d.difference.ci_high < 0 and d.p_value == pytest.approx(2 / 2**fell, abs=0.02)
    comparison = Comparison("a", (Compared("t", 1, "h", "g", "a", "b", 3, 64, (), (d,), {d.key: "x"}),), ())
    assert [j.regressed for j in regression.judged([regression.Gate(d.key)], comparison)] == [regressed]


@pytest.mark.parametrize(("names", "family"), [
    (("lm2-135M/step-2", "lm2-135M/step-4"), "lm2-135M/step-*"),  # planted: lm*-135M/step-*
    (("step-0002-int8", "step-0008-int8"), "step-*-int8"),
    (("ft_2", "ft_4"), "ft_*"),
])  # fmt: skip
def test_digits_of_a_name_that_are_no_step_leave_a_series_whole(names, family):
    keys = [replace(KEY, generator=n, step=step_of(n.removesuffix("-int8"))) for n in names]
    found = [Measured(Path("x.npz"), evidence([1.0, 2.0]), key) for key in keys]
    assert [(name, len(series)) for name, series in contenders.steps(found)] == [(family, 2)]


def test_the_base_is_step_0_of_an_aligner_s_checkpoints():
    """And of no model's; planted bug: the base of another seed."""
    plain = evidence([1.0, 2.0])
    base = replace(plain, is_base=True)
    dpg, last = replace(KEY, generator="b", aligner="dpg:n=9 @ step-5", step=5), "dpg:n=9"
    keys = [replace(KEY, generator="b"), replace(KEY, generator="b", seed=1), dpg, replace(dpg, aligner=last, step=9),
            *(replace(KEY, generator=f"lm/step-{s}", step=s) for s in (2, 4))]  # fmt: skip
    found = [Measured(Path("x.npz"), base if not (k.step or k.aligner) else plain, replace(k, base="b")) for k in keys]
    told = {name: [(m.key.aligner, m.key.step, m.key.seed) for m in some] for name, some in contenders.steps(found)}
    assert told == {"dpg:n=9 @ step-*": [("", None, 0), (dpg.aligner, 5, 0), (last, 9, 0)],
                    "lm/step-*": [("", 2, 0), ("", 4, 0)]}  # fmt: skip


def test_a_hostile_generator_does_no_harm():
    bad = "<script>alert(1)</script>|\x1b[31m\u202e=cmd()`"
    one = Difference("m", "lower", Estimate(1.0), Estimate(2.0), Estimate(1.0, note=bad))
    found = Comparison(bad, (Compared("t", 1, "h", "g", bad, bad, 1, 16, (bad,), (one,), {"m": bad}),), (bad,))
    console = Console(width=100, record=True, file=StringIO())
    console.print(tables_to_terminal(all_tables(found)))
    for text in (to_markdown(found), console.export_text(), to_json(found), to_html(found)):
        assert "\x1b" not in text
    assert "alert(1)</script>" not in to_markdown(found) + to_html(found) and "\u202e" not in to_html(found)
    assert "\u202e" not in to_markdown(found) + console.export_text()


def test_a_sparkline_says_what_is_infinite_or_missing():
    assert sparkline([0.0, None, inf, 0.7, 0.3]) == "▁·∞█▄"
    assert sparkline([2.0, 2.0]) == "▁▁"
