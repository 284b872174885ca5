"""Chart data against tables made by hand: what is drawn, what is left out and why, and where it stands on an axis."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from math import inf

import pytest
from chart_boards import Charts, charts_of
from chart_rows import WORDS, frame, of, row

from alignbench.reports.charts.axes import axis_over
from alignbench.reports.charts.data import charted, goal, series, steps_of, tradeoff
from alignbench.reports.table.board import Arrangement
from alignbench.reports.table.leaderboards import Table, leaderboard
from alignbench.stats.asked import AT_LEAST, AT_MOST


@pytest.fixture(scope="module")
def charts() -> Charts:
    [charts] = charts_of(leaderboard(WORDS))
    return charts


def of_rows(*rows) -> Table:
    [table] = charted(frame(*rows), Arrangement())
    return table


# --- trade-off --------------------------------------------------------------------------------------------------------


def test_the_front_is_what_no_other_generator_beats_in_both(charts):
    """base (0, 0.3), best_of_n n=2 (0.4, 0.5) and n=8 (1.5, 0.8); the ceiling (0, 1) would beat them all."""
    chart = charts.tradeoff
    assert [p.label for p in chart.front] == ["m (base)", "best_of_n:n=2", "best_of_n:n=8"]
    assert {p.label for p in chart.points if not p.front} == {"greedy", "top_k:k=5", "draws of p (ceiling)"}
    assert (chart.x.key, chart.y.key, chart.y.better) == ("divergence.kl_base", "satisfaction.always", "higher")
    at = {p.label: (p.x.value, p.x.low, p.y.high) for p in chart.points}
    assert at["top_k:k=5"] == pytest.approx((2.5, 2.4, 0.6))


def test_the_front_turns_with_the_direction_of_an_axis():
    """Planted bug: were satisfaction to be low, only the base would be left, and greedy is no longer beaten."""
    worse = WORDS.assign(better=WORDS["better"].replace("higher", "lower"))
    [chart] = charts_of(leaderboard(worse))
    assert [p.label for p in chart.tradeoff.front] == ["m (base)"]
    [chart] = charts_of(leaderboard(WORDS.assign(better="")))
    assert chart.tradeoff.front == ()


def test_what_is_no_point_is_left_out_with_the_reason(charts):
    reasons = {row.label: row.reason for row in charts.tradeoff.left_out}
    assert reasons == {
        "sir:n=4": "divergence.kl_base: — (no density: what each token adds is not known)",
        "beam:n=2": "divergence.kl_base: ∞ (off its support)",
        "flat:x=1": "divergence.kl_base: ≤ 0.6 (a bound)",
    }
    shown = {p.number for p in charts.tradeoff.points} | {r.number for r in charts.tradeoff.left_out}
    assert shown == set(range(1, len(charts.table.rows) + 1))


def test_satisfaction_is_what_the_task_asks():
    error, reward = row("base", "moment_error", 0.1, 0.1), row("base", "satisfaction.reward.length", 3.0, 0.1)
    assert goal(of_rows(of("base", 0.3, 0), error, reward)) == "satisfaction.always"
    assert goal(of_rows(error, reward)) == "moment_error"
    assert goal(of_rows(row("base", "moment_error", note="asks for no moment"), reward)) == "satisfaction.reward.length"
    assert goal(of_rows(row("base", "divergence.kl_base", 0.0, 0.0))) is None
    assert tradeoff(of_rows(error)) is None  # nothing across
    chart = tradeoff(of_rows(error, row("base", "cost.calls_per_draw", 20.0, 1.0)), "cost.calls_per_draw")
    assert [(p.x.value, p.y.value) for p in chart.points] == [(20.0, 0.1)]


# --- bars -------------------------------------------------------------------------------------------------------------


def test_what_is_wanted_is_what_was_reached_less_the_error(charts):
    """0.7 reached with an error of 0.2: 0.5 was wanted; greedy, which has no error, is measured against it too."""
    wanted = {panel.name: panel.wanted for panel in charts.moments.panels}
    assert wanted == {"always": 1.0, "share.pronoun.she": 0.5}
    she = charts.moments.panels[1]
    assert [(b.label, b.cell.value) for b in she.bars] == [("m (base)", 0.7), ("greedy", 0.1)]
    [alone] = charts_of(leaderboard(frame(row("greedy", "satisfaction.moment.length", 12.0, 1.0))))
    assert alone.moments.panels[0].wanted is None


def test_infinity_and_bounds_are_bars_and_a_dash_is_left_out(charts):
    [panel] = [p for p in charts.divergences.panels if p.name == "kl_target"]
    cells = {bar.label: (bar.cell.value, bar.cell.low) for bar in panel.bars}
    assert cells == {"m (base)": (0.5, 0.4), "greedy": (inf, None), "sir:n=4": (None, 0.2)}
    assert ("best_of_n:n=2", "— (too few draws)") in [(r.label, r.reason) for r in panel.left_out]
    assert panel.axis.high == pytest.approx(0.6)  # infinity does not stretch it
    assert list(charts.divergences.labels) == list(range(1, len(charts.table.rows) + 1))


# --- curves -----------------------------------------------------------------------------------------------------------


def test_a_series_is_a_line_for_each_family_in_the_order_of_steps():
    """Planted bug: were each 2 of `m2/step-2` replaced, m2 would fall apart into families of one."""
    made = [of(f"m2/step-{s}", s / 100, s / 10, step=s) for s in (20, 3, 2, 30)]
    other = [of(f"m3/step-{s}", s / 100, s / 10, step=s) for s in (2, 30)]
    [charts] = charts_of(leaderboard(frame(of("base", 0.3, 0.0), *made, *other)))
    [always] = charts.series.curves
    assert {line.name: [stop.x for stop in line.stops] for line in always.lines} == {
        "m2/step-*": [2, 3, 20, 30], "m3/step-*": [2, 30],
    }  # fmt: skip
    assert [bar.mark for bar in always.beside] == ["base"] and charts.series.x.title == "training step"
    assert [stop.cell.value for stop in always.lines[0].stops] == pytest.approx([0.02, 0.03, 0.2, 0.3])
    assert steps_of(WORDS) == {} and charts_of(leaderboard(WORDS))[0].series is None


PARTS = ("divergence.kl_target", "divergence.kl_asked", "divergence.kl_collateral")
ASKED = ("satisfaction.always", "satisfaction.share.pronoun.she", "satisfaction.share.pronoun.he")


def trained(who: str, step: int | None, **values: float) -> list[dict[str, object]]:
    """A checkpoint with all that curves over training show, and more."""
    keys = (*PARTS, *ASKED, "divergence.kl_base", "moment_error.pronoun.she")
    return [row(who, key, values.get(key.rpartition(".")[2], 0.5), 0.1, step=step) for key in keys]


def test_training_shows_kl_its_parts_and_all_that_is_asked():
    """Of two shares the first, whose complement is the other; what is wanted is a level, and draws of p none beside."""
    made = [trained(who, step, she=0.7) for who, step in (("base", None), ("lm/step-2", 2), ("lm/step-4", 4))]
    rows = frame(*made, of("ceiling", 1.0, 0.0))
    rows.loc[rows["metric"] == "moment_error", "value"] = 0.2
    curves = charts_of(leaderboard(rows))[0].series.curves
    assert [curve.axis.key for curve in curves] == [*PARTS, *ASKED[:2]]
    she = curves[-1]
    assert (she.wanted, she.axis.title, [bar.mark for bar in she.beside]) == (0.5, "share.pronoun.she", ["base"])
    assert curves[0].wanted is None
    [chosen] = series(charted(rows, Arrangement())[0], steps_of(rows), ["divergence.kl_base"]).curves
    assert chosen.axis.key == "divergence.kl_base" and {bar.mark for bar in chosen.beside} == {"base", "ceiling"}


def test_checkpoints_of_an_aligner_are_a_line_from_the_base_to_its_last():
    """Planted bugs: each 20 of `dpg:steps=20 @ step-20` replaced; the base as step 0 of checkpoints of models too."""
    aligned = [trained(f"dpg:steps=20{f' @ step-{s}' if s < 20 else ''}", s, kl_target=1 / s) for s in (20, 5, 10)]
    rows = frame(trained("base", None, kl_target=2.0), *aligned, *(trained(f"lm/step-{s}", s) for s in (2, 4)))
    [charts] = charts_of(leaderboard(rows))
    kl = charts.series.curves[0]
    assert {line.name: [(stop.x, stop.cell.value) for stop in line.stops] for line in kl.lines} == {
        "dpg:steps=20 @ step-*": [(0, 2.0), (5, 0.2), (10, 0.1), (20, 0.05)], "lm/step-*": [(2, 0.5), (4, 0.5)],
    }  # fmt: skip
    assert [bar.mark for bar in kl.beside] == ["base"]


def test_checkpoints_are_no_sweep():
    rows = [trained(f"dpg:lr={lr},steps=20 @ step-5", 5) for lr in (0.1, 0.2)]
    assert charts_of(leaderboard(frame(trained("base", None), *rows)))[0].sweeps == ()
    last = [trained(f"dpg:lr={lr},steps=20", 20) for lr in (0.1, 0.2)]
    [found] = charts_of(leaderboard(frame(trained("base", None), *rows, *last)))[0].sweeps
    assert [line.name for line in found.curves[0].lines] == ["dpg:lr=*,steps=20"]


def test_a_number_that_is_a_limit_is_drawn_as_one():
    """As the brief table prints it. Planted bug: 0.5 ± 0.1 of an asked gap that may be anything from 0.4 on."""
    rows = frame(trained("base", None), *(trained(f"lm/step-{s}", s) for s in (2, 4, 6)))
    asked = (rows["part"] == "kl_asked") & (rows["generator"] != "m")
    rows.loc[asked, "note"] = AT_LEAST
    rows.loc[(rows["part"] == "kl_collateral") & (rows["step"] == 4), "note"] = AT_MOST
    rows.loc[(rows["part"] == "kl_target") & (rows["step"] == 6), ["value", "ci_low", "ci_high"]] = inf
    kl, gap, collateral, *_ = charts_of(leaderboard(rows))[0].series.curves
    cells = [[(stop.cell.value, stop.cell.low, stop.cell.high) for stop in c.lines[0].stops] for c in (gap, collateral)]
    assert cells[0] == [(None, pytest.approx(0.4), None)] * 3
    assert [value for value, *_ in cells[1]] == [0.5, None, 0.5] and cells[1][1] == (None, None, pytest.approx(0.6))
    assert kl.lines[0].stops[-1].cell.value == inf and gap.left_out == kl.left_out == ()


def test_a_sweep_is_rows_that_differ_in_one_number(charts):
    assert [s.x.title for s in charts.sweeps] == ["best_of_n: n"]
    rows = [
        of("{name: sir, n: 4, proposal: {name: top_k, k: 2}}", 0.1, 1.0),
        of("{name: sir, n: 4, proposal: {name: top_k, k: 8}}", 0.2, 2.0),
        of("{name: sir, n: 9, proposal: {name: top_k, k: 8}}", 0.3, 3.0),
        of("temperature:t=0.5", 0.1, 1.0), of("temperature:t=hot", 0.1, 1.0), of("{unclosed", 0.1, 1.0),
        of("[" * 3000, 0.1, 1.0), of("{a: " * 3000, 0.1, 1.0), of(f"top_k:k={'9' * 5000}", 0.1, 1.0),
        of("top_k:k=true", 0.1, 1.0), of("top_k:k=2", 0.1, 1.0),
    ]  # fmt: skip
    [charts] = charts_of(leaderboard(frame(*rows)))
    stops = {s.x.title: [[p.x for p in line.stops] for line in s.curves[0].lines] for s in charts.sweeps}
    assert stops == {"sir: n": [[4.0, 9.0]], "sir: proposal.k": [[2.0, 8.0]]}
    [line] = charts.sweeps[1].curves[0].lines
    assert line.name == "{name: sir, n: 4, proposal: {name: top_k, k: '*'}}"


def test_what_a_curve_cannot_show_is_left_out():
    silent = row("best_of_n:n=4", "divergence.kl_base", note="too few draws")
    [charts] = charts_of(
        leaderboard(frame(WORDS.to_dict("records"), row("best_of_n:n=4", "satisfaction.always", 0.6, 0.1), silent))
    )
    told = [(r.label, r.reason) for curve in charts.sweeps[0].curves for r in curve.left_out]
    assert ("best_of_n:n=4", "divergence.kl_base: — (too few draws)") in told


# --- axes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "linear_below", "ticks"),
    [
        ([0.0, 1.0, 4.2], None, (0, 1, 2, 3, 4)),
        ([0.0, 0.05, 0.06, 5.0, 138.0], 0.01, (0, 0.01, 0.1, 1, 10, 100)),
        ([0.0, 2.0, 3.0, 5.0, 138.0], 1.0, (0, 1, 3, 10, 30, 100)),
        ([0.0], None, (0, 0.2, 0.4, 0.6, 0.8, 1)),
        ([], None, (0, 0.2, 0.4, 0.6, 0.8, 1)),
        ([-3.0, 2.0], None, (-3, -2, -1, 0, 1, 2)),
        ([inf, 3.0], None, (0, 1, 2, 3)),
    ],
)
def test_axes_bend_where_values_span_decades(values, linear_below, ticks):
    axis = axis_over("mine", values, [], "")
    assert axis.linear_below == linear_below and axis.ticks == ticks
    assert (axis.low, axis.high) == (min([0.0, *values]), max([v for v in values if v < inf and v] or [1.0]))


def test_a_share_goes_from_0_to_1_and_one_out_of_range_is_still_on_its_axis():
    assert axis_over("satisfaction.always", [0.4, 0.5], [0.3], "higher").high == 1
    assert axis_over("satisfaction.always", [0.4, 1.5], [], "higher").high == 1.5
    beyond = axis_over("divergence.kl_base", [0.0, 0.2], [-0.01, 0.3], "lower")
    assert (beyond.low, beyond.high) == (-0.01, 0.3)


@pytest.mark.parametrize("values", [[0.0, 5.0], [-2.0, 0.0, 1.0, 500.0], [3.0, 4.0]])
def test_places_and_values_are_inverse_and_in_order(values):
    axis = axis_over("mine", values, [], "", zero=False).padded(0.03)
    places = [axis.place(v) for v in sorted(values)]
    assert all(a < b for a, b in pairwise(places)) and places[0] > 0 and places[-1] < 1
    assert [axis.value(p) for p in places] == pytest.approx(sorted(values))
    assert replace(axis, linear_below=None).place((axis.low + axis.high) / 2) == pytest.approx(0.5)
