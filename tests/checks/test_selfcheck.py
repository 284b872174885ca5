"""The selfcheck: what it counts, by hand; a healthy harness passes; a planted bug in an estimator fails it."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
from math import inf

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import binom

from alignbench.checks import seen as seen_module
from alignbench.checks import selfcheck
from alignbench.checks.selfcheck import Cell, Report, Seen
from alignbench.reports.formats import checks
from alignbench.stats import divergences, intervals, normaliser, overlap
from alignbench.types import Estimate, silent

SEEDS = 5


def seen(exact, value, low=None, high=None, stderr=None, seed=0, quantity="divergence.tv"):
    return Seen("world", "law", quantity, seed, exact, Estimate(value, stderr, low, high))


def cell(covered, told, refused=0):
    """A cell with that many runs that cover, that do not, and that say nothing."""
    runs = [seen(1.0, 1.0, 0.9, 1.1), seen(1.11, 1.0, 0.9, 1.1), seen(1.0, None)]
    counts = (covered, told - covered, refused)
    return Cell(tuple(run for run, count in zip(runs, counts, strict=True) for _ in range(count)))


# --- what is counted --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("run", "covered", "distance"),
    [
        (seen(1.0, 1.1, 0.9, 1.3), True, 0.98),  # half the half-width: 1.96 / 2
        (seen(1.0, 1.1, 1.05, 1.3), False, 3.92),
        (seen(1.0, 0.9, 0.8, 1.3), True, 0.49),  # the side towards the truth counts
        (seen(1.0, 1.1, 1.05, 1.3, stderr=0.05), False, 2.0),  # a short side, as a percentile interval may have
        (seen(1.0, 1.0, 1.0, 1.0), True, 0.0),  # exact by construction
        (seen(1.0, 1.1, 1.1, 1.1), False, inf),
        (seen(inf, inf), True, None),
        (seen(1.0, inf), False, inf),
        (seen(inf, 1.0, 0.9, 1.1), False, None),
        (seen(1.0, None), None, None),  # refused
        (seen(1.0, 1.2), None, None),  # a number without an interval
        (seen(1.0, None, None, 1.2), True, None),  # a bound
        (seen(1.0, None, 1.1, None), False, None),
        (seen(0.0, 0.0, -1e-12, -1e-12), True, 0.0),  # rounding
    ],
)
def test_one_estimate_beside_the_truth(run, covered, distance):
    assert run.covered is covered
    assert run.distance == (None if distance is None else pytest.approx(distance, abs=1e-3))


def test_the_limits_are_exact_binomial_ones():
    report = Report(tuple(cell(95, 100) for _ in range(10)), 100)
    assert report.alpha == pytest.approx(0.001 / (3 * 10 + 2 * 2))
    low, high = report.limits(100)
    assert binom.cdf(low - 1, 100, 0.93) <= report.alpha < binom.cdf(low, 100, 0.93)
    assert binom.sf(high, 100, 0.97) <= report.alpha
    assert report.limits(40)[1] == 40
    many = report.limits(10_000)
    assert 9_130 < many[0] < 9_300 and 9_700 < many[1] < 9_800


@pytest.mark.parametrize(("covered", "fails"), [(100, False), (95, False), (85, False), (78, True), (50, True)])
def test_a_coverage_outside_its_limits_fails(covered, fails):
    report = Report((cell(covered, 100), cell(95, 100)), 100)
    assert bool(report.faults(report.cells[0])) is fails and not report.faults(report.cells[1])
    assert len(report.failures) == fails


def test_refusals_are_not_misses():
    report = Report((cell(9, 10, refused=90), cell(0, 0, refused=100)), 100)
    assert report.failures == [] and len(report.tested) == 1


def test_intervals_that_are_far_too_wide_fail():
    report = Report((cell(2000, 2000),), 2000)
    assert "2000 of 2000 intervals cover, between" in report.failures[0]


def test_one_estimate_far_away_fails():
    wild = Cell((*cell(99, 99).runs, seen(2.0, 1.0, 0.9, 1.1)))
    (failure,) = Report((wild,), 100).failures
    assert failure.startswith("world: law: divergence.tv: an estimate is 19.6 standard errors away, at most ")


def test_what_is_said_to_be_exact_must_be():
    wrong = Cell(tuple(seen(0.1, 0.0, 0.0, 0.0) for _ in range(3)))
    assert "said to be exact, and wrong in 3 of 3 runs" in Report((wrong,), 3).failures[0]
    impossible = Cell(tuple(seen(0.1, inf) for _ in range(3)))
    assert "wrong in 3 of 3 runs" in Report((impossible,), 3).failures[0]


# --- the real way -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def worlds():
    return selfcheck.find_worlds()


@pytest.fixture(scope="module", autouse=True)
def _drawn_once():
    """The references and evidence of a world, law and seed are made once: what is planted here comes after them."""
    references, evidence, known = selfcheck.References, seen_module.evidence_of, {}

    def once(key, make):
        if key not in known:
            known[key] = make()
        return known[key]

    def of_bench(bench):
        return once((bench.task.name, bench.draws, bench.seed), lambda: references(bench))

    def of_law(made, label, law):
        return once((id(made), label), lambda: evidence(made, label, law))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selfcheck, "References", of_bench)
        patch.setattr(seen_module, "evidence_of", of_law)
        yield


@pytest.fixture(scope="module")
def report(worlds):
    return selfcheck.check(worlds, SEEDS, progress=silent)


def test_a_healthy_harness_passes(report):
    assert report.failures == []
    assert {c.first.world for c in report.cells} == set(selfcheck.WORLDS)
    assert {c.first.law for c in report.cells} == {"base", *selfcheck.LAWS}
    assert all([s.seed for s in c.runs] == list(range(SEEDS)) for c in report.cells)
    told = {c.first.quantity.partition(".")[2] for c in report.tested}
    assert {"kl_target", "kl_target_within", "kl_reverse", "kl_reverse_within", "tv", "js", "kl_base", "kl_base_rb",
            "kl_base_k1", "log_z", "always"} <= told  # fmt: skip
    for law, part in (("temperature:t=0.7", "kl_reverse"), ("top_p:p=0.8", "kl_target")):
        infinite = [c for c in report.cells if c.first.law == law and c.first.quantity.endswith(part)]
        assert any(c.first.estimate.value == inf == c.first.exact for c in infinite)


def test_every_run_of_a_cell_is_another_draw(report):
    for c in report.tested:
        told = {(s.estimate.value, *s.limits) for s in c.runs}
        sure = (0.0, 1.0) if c.first.quantity == "satisfaction.always" else (1.0, inf)
        assert len(told) > 1 or c.first.exact in sure


def test_the_tables_fit_80_columns_and_no_number_is_cut(report):
    console = Console(width=80, record=True, file=StringIO())
    console.print(checks.of_worlds(report))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80 and "…" not in text
    assert all(name in text for name in (*selfcheck.WORLDS, *selfcheck.LAWS, "Coverage of the 95 % intervals"))
    for c in report.tested:
        line = next(
            x for x in text.splitlines() if f"{c.covered}/{c.told}" in x and checks.short(c.first.quantity) in x
        )
        assert line


def planted(monkeypatch, name, wrong):
    """Put `wrong(right)` in the place of an estimator wherever a metric finds it."""
    from alignbench.metrics import distance

    home = overlap if name in ("tv", "js") else divergences
    monkeypatch.setattr(home, name, wrong(getattr(home, name)))
    assert (distance.divergences, distance.overlap) == (divergences, overlap)


def narrowed(by):
    def wrong(right):
        def estimator(*args, **more):
            e = right(*args, **more)
            if e.ci_low is None or e.ci_high is None or e.value is None:
                return e
            return replace(e, ci_low=e.value + by * (e.ci_low - e.value), ci_high=e.value + by * (e.ci_high - e.value))

        return estimator

    return wrong


def moved(by):
    def wrong(right):
        def estimator(*args, **more):
            e = right(*args, **more)
            return e if e.value is None else intervals.moved(e, e.value + by)

        return estimator

    return wrong


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("kl_base", narrowed(0.03)), ("tv", moved(0.2)), ("js", narrowed(0.03)), ("kl_target", moved(0.5))],
)
def test_a_planted_bug_fails(monkeypatch, worlds, name, wrong):
    planted(monkeypatch, name, wrong)
    found = selfcheck.check(worlds[-1:], SEEDS, progress=silent).failures
    moved_too = {"kl_target": "kl_collateral"}.get(name, name)  # the rest of KL(p‖π)
    assert found and all(name in line or moved_too in line for line in found)


def test_a_finite_number_for_an_infinite_divergence_fails(monkeypatch, worlds):
    """What importance sampling prints under truncation: the draws of p outside π's support are left out."""

    def blind(right):
        def estimator(ref, truncates=False):
            inside = ref.excess < inf
            parts = {n: getattr(ref, n)[inside] for n in ("prompt", "log_base", "log_target", "log_gen")}
            return right(replace(ref, **parts), truncates)

        return estimator

    planted(monkeypatch, "kl_target", blind)
    found = selfcheck.check(worlds[-1:], SEEDS, progress=silent).failures
    assert any("top_p:p=0.8: divergence.kl_target" in line for line in found)


def altered(report, change):
    """The report with every estimate changed."""
    return Report(
        tuple(Cell(tuple(replace(s, estimate=change(s.estimate)) for s in c.runs)) for c in report.cells), report.seeds
    )


def measured(width):
    """24 seeds of 4 worlds, 8 quantities of each, with errors of 1 and intervals of `width` times their size."""
    rng, half = np.random.default_rng(0), 1.96 * width
    off = rng.normal(size=(4, 8, 24))
    runs = [
        Cell(
            tuple(
                Seen(f"w{w}", "law", f"divergence.q{q}", n, 0.0, Estimate(x, width, x - half, x + half))
                for n, x in enumerate(off[w, q].tolist())
            )
        )
        for w in range(4)
        for q in range(8)
    ]
    return Report(tuple(runs), 24)


@pytest.mark.parametrize(
    ("width", "line"),
    [(1.0, ""), (0.7, "of the intervals cover"), (1.6, "times as wide as their errors"), (10.0, "as wide as")],
)
def test_what_no_cell_shows_alone_the_pool_does(width, line):
    told = measured(width)
    assert (line in " ".join(told.failures)) if line else told.failures == []
    assert width < 1 or not any(told.faults(c) for c in told.cells)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda e: Estimate.missing("planted"), "refused in every run"),
        (lambda e: Estimate(None if e.value is None else e.value + 100), "a value without an interval is wrong"),
    ],
)
def test_a_harness_that_tells_nothing_fails(report, change, line):
    assert any(line in failure for failure in altered(report, change).failures)


@pytest.mark.parametrize("names", ["", ","])
def test_no_world_is_refused(command, names):
    said = command("selfcheck", "--worlds", names)
    assert said.code == 2 and "names no world" in said.err


def test_a_world_named_twice_is_one():
    assert len(selfcheck.find_worlds(("exact_rare", "exact_rare"))) == 1


def test_the_command_passes_and_fails(command, monkeypatch):
    line = ("selfcheck", "--seeds", 4, "--jobs", 1, "--worlds", "exact_reward")
    monkeypatch.setenv("COLUMNS", "80")
    said = command(*line)
    assert said.code == 0 and said.err == "" and "exact_reward" in said.out and "ok: " in said.out
    planted(monkeypatch, "tv", moved(5.0))
    said = command(*line)
    assert said.code == 1 and "FAIL exact_reward: " in said.out and "Traceback" not in said.err


def test_two_processes_see_what_one_sees(worlds):
    one, two = (selfcheck.check(worlds[-1:], 2, progress=silent, jobs=jobs) for jobs in (1, 2))
    assert [[s.estimate.value for s in c.runs] for c in one.cells] == [
        [s.estimate.value for s in c.runs] for c in two.cells
    ]


@pytest.mark.parametrize(
    ("world", "line"),
    [("lexical_word", "brings an exact 'base' of its own"), ("exact_rar", "Did you mean 'exact_rare'")],
)
def test_what_is_no_world_is_refused(command, world, line):
    said = command("selfcheck", "--worlds", world)
    assert said.code == 2 and line in said.err and len(said.err.splitlines()) == 1


def test_the_worlds_are_what_they_say(worlds):
    from alignbench.generators.exact.world import enumerate_draws
    from alignbench.registry import generator
    from alignbench.spec import parse_spec

    rare = worlds[0]
    base = parse_spec(rare.base, "base").build(generator, "base")
    every = enumerate_draws(base, rare.prompts, max_tokens=rare.max_tokens)
    ratio = replace(rare.target, measures=rare.features).log_ratio_of(rare.prompts, every)
    z = [np.exp((every.log_prob + ratio)[every.prompt == c]).sum() for c in range(3)]
    assert np.round(z, 2).tolist() == [0.44, 0.04, 0.32] and max(z) > 10 * min(z)
    assert normaliser.log_z(every.prompt, ratio).value is not None
