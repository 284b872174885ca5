"""The fuzz: worlds are functions of their number, a planted bug is found in few worlds, a healthy harness passes."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import replace
from io import StringIO
from math import inf

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import binom, norm

from alignbench.checks import fuzz, worlds
from alignbench.checks.fuzz import Family, Outcome, Report, Tally, Trial
from alignbench.checks.seen import Seen
from alignbench.generators.exact import enumerate_draws
from alignbench.metrics import distance
from alignbench.reports.formats import fuzz as shown
from alignbench.stats import intervals
from alignbench.types import Estimate, silent


def seen(exact, value, low=None, high=None, note="", quantity="divergence.tv"):
    return Seen("world", "law", quantity, 0, exact, Estimate(value, None, low, high, note=note))


# --- what is counted --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("run", "told", "right", "fault"),
    [
        (seen(1.0, 1.1, 0.9, 1.3), "interval", True, ""),
        (seen(1.0, 1.1, 1.05, 1.3), "interval", False, ""),
        (seen(1.0, None, None, 1.2), "bound", True, ""),
        (seen(1.0, None, 1.2, None), "bound", False, ""),
        (seen(1.0, 1.0, 1.0, 1.0), "sure", True, ""),
        (seen(1.0, 1.1, 1.1, 1.1), "sure", False, "said to be exact"),
        (seen(1.0, inf), "sure", False, "∞ where the truth is finite"),
        (seen(inf, inf), "infinite", True, ""),
        (seen(inf, None), "infinite", True, ""),
        (seen(inf, None, 3.0), "infinite", True, ""),  # a lower bound
        (seen(inf, 1.0, 0.9, 1.1), "infinite", False, "finite where the truth is ∞"),
        (seen(inf, None, None, 5.0), "infinite", False, "finite where the truth is ∞"),
        (seen(1.0, None), "nothing", True, ""),
        (seen(1.0, 1.2, note="why"), "nothing", False, ""),
        (seen(1.0, 1.2), "nothing", False, "without a note"),
        (seen(1.0, 1.0), "nothing", True, ""),
    ],
)
def test_one_estimate_beside_the_truth(run, told, right, fault):
    found = fuzz.outcome("law", run)
    assert (found.told, found.right) == (told, right) and fault in found.fault and bool(fault) == bool(found.fault)


def test_features_are_no_part_of_a_quantity():
    names = ("satisfaction.share.first.one", "moment_error.f", "divergence.kl_base_rb", "win_rate")
    found = [fuzz.outcome("law", seen(0, None, quantity=name)).quantity for name in names]
    assert found == ["satisfaction.share", "moment_error", "divergence.kl_base_rb", "win_rate"]


def trials(told, laws=("base",), kind="hard", size="small"):
    """A trial of each row of `told`, (what is told, right) by law."""
    for number, row in enumerate(told):
        outcomes = (Outcome(law, "divergence.tv", what, right) for law, (what, right) in zip(laws, row, strict=True))
        yield Trial(number, kind, size, tuple(outcomes))


def report_of(found):
    tally = Tally()
    for trial in found:
        tally.add(trial)
    return Report(tally)


def rows(good, bad, nothing=0):
    return [[("interval", True)]] * good + [[("interval", False)]] * bad + [[("nothing", True)]] * nothing


@pytest.mark.parametrize(
    ("told", "line"),
    [
        (rows(95, 5), ""),
        (rows(0, 0, 100), ""),
        (rows(85, 15), ""),
        (rows(75, 25), "75 of 100 intervals cover, at least 82 must"),
        (rows(5, 9, 86), ""),  # 36 % of what is printed cover: reported, since little is printed
        (rows(10, 20, 70), "printed and wrong in 20 of 100 worlds, at most 15 may be"),
        ([[("bound", False)]] * 20 + rows(0, 0, 80), "printed and wrong in 20 of 100 worlds"),
    ],
)
def test_the_rule(told, line):
    report = report_of(trials(told))
    assert len(report.tested) == 4  # of the kind (at its size, at all sizes, of the base) and of the law
    assert all(line in fault for fault in report.faults.values()) and len(report.faults) == (4 if line else 0)
    most = int(binom.isf(report.alpha, 100, 0.05))
    assert report.alpha == 0.001 / 8 and binom.sf(most, 100, 0.05) <= report.alpha < binom.sf(most - 1, 100, 0.05)


def test_a_world_counts_once_in_a_family_by_a_law_drawn_at_random():
    laws = ("base", "sir", "model")
    report = report_of(trials([[("interval", False), ("interval", True), ("sure", True)]] * 400, laws))
    whole = Family("divergence.tv", "hard")
    assert report.runs[whole].runs == 800 and report.worlds[whole].runs == 400
    assert 160 < report.worlds[whole].wrong < 240
    assert report.worlds[Family("divergence.tv", law="base")].wrong == 400


def test_dependent_laws_of_a_world_do_not_fail_a_healthy_harness():
    """All laws of a world are wrong together in 5 % of the worlds; counted singly they would fail."""
    rng = np.random.default_rng(0)
    failed = 0
    for _ in range(40):
        told = [[("interval", bool(right))] * 6 for right in rng.random(120) > 0.05]
        failed += bool(report_of(trials(told, [f"law{i}" for i in range(6)])).failures)
    assert failed == 0


def test_a_law_that_could_not_be_had_is_refused_and_not_forgotten():
    outcomes = (Outcome("base", "divergence.tv", "interval", True), Outcome("base", "divergence.log_z", "sure", True))
    trial = Trial(3, "rare", "small", outcomes, left=(("rejection", "used up its proposals"),))
    found = list(fuzz._refused(trial))
    assert {(said.law, said.quantity, said.told) for said in found} == {
        ("rejection", "divergence.tv", "nothing"),
        ("rejection", "acceptance.rate", "nothing"),
    }


# --- worlds -----------------------------------------------------------------------------------------------------------


def test_a_world_is_a_function_of_its_number():
    for number in range(16):
        one, two = worlds.world(number), worlds.world(number)
        assert one.task.hash == two.task.hash and one.base.identity() == two.base.identity() and one.laws == two.laws
        assert one.model.identity() == two.model.identity() != one.base.identity()


def test_kinds_and_sizes_are_equally_frequent_and_worlds_stay_small():
    made = [worlds.world(number) for number in range(96)]
    assert set(Counter((w.kind, w.size) for w in made).values()) == {96 // len(worlds.KINDS) // len(worlds.SIZES)}
    assert {law for w in made for law, _ in w.laws} == set(worlds.LAWS)
    for w in made:
        low, high = worlds.SIZES[w.size]
        assert low <= w.task.draws <= high and 1 <= len(w.task.prompts) <= 8
        assert w.task.draws * len(w.task.prompts) <= worlds.MOST_ROWS
        every = enumerate_draws(w.base, w.task.prompts[:1], max_tokens=w.task.max_tokens)
        assert len(every) < 800 and np.exp(every.log_prob).sum() == pytest.approx(1)


def test_prompts_differ_by_three_orders_of_magnitude_in_some_worlds():
    apart = []
    for number in fuzz.numbers_of(90, 0, ["rare"]):
        w = worlds.world(number)
        every = enumerate_draws(w.base, w.task.prompts, max_tokens=w.task.max_tokens)
        ratio = replace(w.task.target, measures=w.task.features).log_ratio_of(w.task.prompts, every)
        z = np.bincount(every.prompt, np.exp(every.log_prob + ratio))
        apart.append(z.max() / z.min())
    assert max(apart) > 300 and np.median(apart) < 10


def test_numbers_of_some_kinds():
    found = fuzz.numbers_of(5, 100, ["steep", "rare"])
    assert {worlds.kind_of(n) for n in found} == {"steep", "rare"} and found == sorted(found) and found[0] >= 100
    assert fuzz.numbers_of(3, 7) == [7, 8, 9]


# --- the real way -----------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny(monkeypatch):
    """Worlds of 40 to 60 draws, with a tempered base beside the base: 20 a second."""
    monkeypatch.setattr(worlds, "SIZES", {"small": (40, 60)})
    monkeypatch.setattr(worlds, "MOST_ROWS", 120)
    monkeypatch.setattr(worlds, "LAWS", {k: worlds.LAWS[k] for k in ("temperature", "truncation")})

    def check(count, *kinds, first=0):
        return fuzz.check(fuzz.numbers_of(count, first, kinds), progress=silent)

    return check


def planted(monkeypatch, name, wrong):
    """Put `wrong(right)` in the place of an estimator wherever the divergence finds it."""
    for home in (distance.divergences, distance.overlap, distance):
        if hasattr(home, name):
            monkeypatch.setattr(home, name, wrong(getattr(home, name)))


def changed(change):
    """An estimator whose estimates with an interval are changed."""

    def wrong(right):
        def estimator(*args, **more):
            e = right(*args, **more)
            return e if e.value is None or e.ci_low is None or e.ci_high is None else change(e)

        return estimator

    return wrong


def halved(e):
    return replace(e, ci_low=(e.value + e.ci_low) / 2, ci_high=(e.value + e.ci_high) / 2)


def test_a_healthy_harness_passes(tiny):
    report = tiny(24, "hard", "mild")
    assert report.failures == [] and sum(report.tally.trials.values()) == 24
    assert {family.law for family in report.tested} >= {"base", "temperature", "truncation"}
    assert report.runs[Family("divergence.kl_target", "hard")].printed > 4


@pytest.mark.parametrize(
    ("name", "change", "quantity"),
    [
        ("tv", lambda e: intervals.moved(e, e.value + 0.3), "divergence.tv"),
        ("kl_target", lambda e: intervals.moved(e, e.value + 1), "divergence.kl_target"),
        ("log_z_of", lambda e: intervals.moved(e, e.value - 0.5), "divergence.log_z"),
        ("kl_target", lambda e: replace(e, ci_low=e.value, ci_high=e.value), "divergence.kl_target"),
    ],
)
def test_a_bias_is_found(tiny, monkeypatch, name, change, quantity):
    planted(monkeypatch, name, changed(change))
    found = tiny(24, "moment").failures
    assert found and any(line.startswith(quantity) for line in found)
    assert all("see alignbench selfcheck --fuzz 1 --seed " in line for line in found)


def test_an_interval_half_as_wide_is_found(tiny, monkeypatch):
    planted(monkeypatch, "_mean", changed(halved))
    report = tiny(40, "hard", "mild", "steep")
    assert any(line.startswith("divergence.kl_base_") for line in report.failures)


def test_a_finite_number_for_an_infinite_divergence_is_found(tiny, monkeypatch):
    """What importance sampling prints under truncation: the draws of p outside π's support are left out."""

    def blind(right):
        def estimator(ref, truncates=False):  # and of what may be uncovered nothing is said
            return right(ref.take(ref.excess < inf))

        return estimator

    planted(monkeypatch, "kl_target", blind)
    found = tiny(16, "hard").failures
    assert any(line.startswith("divergence.kl_target of truncation: finite where the truth is ∞") for line in found)


def test_an_exception_is_a_failure_and_ends_no_other_world(tiny, monkeypatch):
    def broken(*args):
        raise IndexError("planted")

    monkeypatch.setattr(distance.overlap, "tv", broken)
    report = tiny(4, "mild")
    assert any("raised IndexError: planted, in " in line for line in report.failures)
    assert sum(report.tally.trials.values()) == 4


# --- many worlds that cost nothing ------------------------------------------------------------------------------------


def simulated(monkeypatch, change=lambda e: e, gate=1.0):
    """Worlds in which each law's estimate is normal about 1, with its interval, where a coin of `gate` prints it."""

    def observe(number, alone=False):
        rng = np.random.default_rng(number)
        outcomes = []
        for law in ("base", *rng.choice(list(worlds.LAWS), 2, replace=False)):
            value, half = 1 + 0.1 * rng.standard_normal(), 0.1 * norm.isf(0.025)
            e = change(Estimate(value, 0.1, value - half, value + half))
            told = e if rng.random() < gate else Estimate.missing("gated")
            outcomes.append(fuzz.outcome(str(law), Seen("w", str(law), "divergence.tv", number, 1.0, told)))
        size = list(worlds.SIZES)[number // len(worlds.KINDS) % 3]
        return Trial(number, worlds.kind_of(number), size, tuple(outcomes))

    monkeypatch.setattr(fuzz, "observe", observe)


@pytest.mark.parametrize("gate", [1.0, 0.6, 0.2])
def test_right_intervals_pass(monkeypatch, gate):
    simulated(monkeypatch, gate=gate)
    assert fuzz.check(range(3000), progress=silent).failures == []


@pytest.mark.parametrize(
    ("change", "gate", "count"),
    [
        (halved, 1.0, 400),
        (halved, 0.6, 800),
        (lambda e: intervals.moved(e, e.value + 0.15), 1.0, 400),
        (lambda e: intervals.moved(e, e.value + 0.3), 0.3, 400),
    ],
)
def test_wrong_intervals_fail(monkeypatch, change, gate, count):
    simulated(monkeypatch, change, gate)
    assert fuzz.check(range(count), progress=silent).failures


# --- what is shown ----------------------------------------------------------------------------------------------------


def test_the_tables_fit_80_columns_and_the_csv_has_every_family(tiny):
    report = tiny(16)
    console = Console(width=80, record=True, file=StringIO())
    console.print(shown.of_fuzz(report))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80 and "…" not in text
    assert all(kind in text for kind in worlds.KINDS) and "16 random worlds" in text and "kl_reverse_within " in text
    lines = list(csv.DictReader(StringIO(shown.as_csv(report))))
    assert [tuple(line[k] for k in ("quantity", "kind", "law", "size")) for line in lines] == sorted(report.runs)
    for line in lines:
        parts = [int(line[name]) for name in ("printed", "bounds", "refused")]
        assert sum(parts) == int(line["runs"]) and int(line["covered"]) <= parts[0]


def test_the_command(command, tmp_path, monkeypatch, tiny):
    said = command("selfcheck", "--fuzz", 4, "--jobs", 1, "--kinds", "mild,hard", "--output_path", tmp_path / "out")
    assert said.code == 0 and said.err == "" and "4 random worlds" in said.out and "ok: " in said.out
    assert (tmp_path / "out" / "fuzz.csv").read_text().startswith("quantity,kind,law,size,runs,")
    planted(monkeypatch, "tv", changed(lambda e: replace(e, ci_low=0.0, ci_high=0.0)))
    said = command("selfcheck", "--fuzz", 4, "--jobs", 1, "--kinds", "moment")
    assert said.code == 1 and "FAIL divergence.tv" in said.out and "Traceback" not in said.err


def test_one_world_alone_shows_every_number(command):
    said = command("selfcheck", "--fuzz", 1, "--seed", 4)
    assert said.code == 0 and "world 4, mild, small: " in said.out and "log_z" in said.out and "exact" in said.out


@pytest.mark.slow
def test_two_processes_count_what_one_counts():
    one, two = (fuzz.check(fuzz.numbers_of(2, 3), progress=silent, jobs=jobs).runs for jobs in (1, 2))
    assert one == two


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--fuzz", 0), "--fuzz 0: must be 1 or more worlds"),
        (("--fuzz", 2, "--model", "hf"), "--fuzz and --model: two checks; ask for one at a time"),
        (("--fuzz", 2, "--seeds", 3), "--seeds with --fuzz: it is for the worlds"),
        (("--fuzz", 2, "--prompts", "x"), "--prompts with --fuzz: it is for --model"),
        (("--seed", 2), "--seed without --fuzz"),
        (("--kinds", "rare"), "--kinds without --fuzz"),
        (("--fuzz", 2, "--kinds", ","), "--kinds names no kind of target"),
        (("--fuzz", 2, "--kinds", "rae"), "Did you mean 'rare'"),
    ],
)
def test_what_does_not_go_together_is_one_line(command, words, line):
    said = command("selfcheck", *words)
    assert said.code == 2 and line in said.err and len(said.err.splitlines()) == 1


def test_the_help_has_an_example(command):
    assert "alignbench selfcheck --fuzz 500" in command("selfcheck", "--help").out


@pytest.mark.slow
def test_200_random_worlds():
    """The rule of every gate and cell, over all kinds of target and law, at all sizes; 10,000 are for by hand."""
    assert fuzz.check(range(200), progress=silent, jobs=2).failures == []
