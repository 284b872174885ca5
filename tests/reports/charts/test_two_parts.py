"""The two parts of KL(p‖π): where each row stands to the unit, what the curve is, which rows are on the front."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, pairwise
from math import inf, log10

import pytest
from chart_rows import frame, row
from pytest import approx
from two_parts_rows import BASE, ROWS, many, number, part

from alignbench.reports.charts.drawing import draw
from alignbench.reports.charts.drawing.two_parts import NEARER, Rails
from alignbench.reports.charts.picture import COLUMN, SCREEN, Area, Dot, Path, Text, text_width
from alignbench.reports.charts.two_parts import TwoParts, rows_of, two_parts
from alignbench.reports.table.board import Arrangement
from alignbench.reports.table.leaderboards import arranged
from alignbench.stats.asked import AT_LEAST, AT_MOST

SIZE = replace(SCREEN, legend=False)


@pytest.fixture(scope="module")
def chart() -> TwoParts:
    made = two_parts(ROWS, "words v1")
    assert made is not None
    return made


@pytest.fixture(scope="module")
def rails(chart) -> Rails:
    return Rails.of(chart, SIZE, 2.6 * SIZE.font)


def dots(picture) -> dict[int, Dot]:
    return {mark.row: mark for mark in picture.marks if isinstance(mark, Dot) and mark.row is not None}


def labels(picture) -> dict[int, str]:
    return {mark.row: mark.text for mark in picture.marks if isinstance(mark, Text) and mark.row is not None}


def paths(picture, look: str, of_row: int | None = None) -> list[Path]:
    return [m for m in picture.marks if isinstance(m, Path) and m.look == look and m.row == of_row]


def test_across_is_linear_from_0_to_one_and_a_half_times_the_base(chart, rails) -> None:
    """The base stands at 2/3; what is beyond, at the edge with an arrow to the right."""
    found, wide = dots(draw(chart, SIZE)), rails.right - rails.left
    assert chart.limit == 3.0
    assert (found[1].x - rails.left) / wide == approx(2 / 3)
    assert (found[2].x - rails.left) / wide == approx(1 / 3)
    assert (found[3].x, found[4].x) == (rails.left, rails.right)
    [arrow] = paths(draw(chart, SIZE), "arrow", 4)
    (tail, tip), _ = arrow.parts
    assert tip[0] > tail[0] > rails.right and tip[1] == tail[1] and tip[0] < SIZE.width


def test_upwards_is_logarithmic_between_rails(chart, rails) -> None:
    """A decade is a quarter; 0 and ∞ and nothing have rails; 0.001 stands on the line of 0.01, 500 on that of 100."""
    found = dots(draw(chart, SIZE))
    tall = rails.bottom - rails.top
    assert rails.unknown < rails.infinite < rails.top < rails.bottom < rails.zero
    assert rails.down(0.1) - rails.down(1.0) == approx(tall / 4) == rails.down(10.0) - rails.down(100.0)
    assert found[2].y == approx(rails.bottom - tall * log10(0.5 / 0.01) / 4)
    assert [found[n].y for n in (1, 9, 3, 5, 6, 11)] == [
        rails.zero, rails.zero, rails.bottom, rails.infinite, rails.unknown, rails.top,
    ]  # fmt: skip
    assert rails.down(-0.002) == rails.zero


def test_limits_are_arrows_and_errors_are_whiskers_inside_the_plot(chart, rails) -> None:
    picture = draw(chart, SIZE)
    right, down = paths(picture, "arrow", 7)
    assert right.parts[0][1][0] > right.parts[0][0][0] and down.parts[0][1][1] > down.parts[0][0][1]
    assert (dots(picture)[7].x, dots(picture)[7].y) == (rails.across(1.5), rails.down(1.0))
    assert paths(picture, "whisker", 7) == []
    [up] = paths(picture, "arrow", 11)
    assert up.parts[0][1][1] < up.parts[0][0][1]
    [whisker] = paths(picture, "whisker", 10)
    assert whisker.parts == (
        ((rails.across(0.5), rails.down(3.0)), (rails.right, rails.down(3.0))),
        ((rails.across(1.0), rails.zero), (rails.across(1.0), rails.top)),
    )


@pytest.mark.parametrize(("kl", "asked"), [(2.0, 2.0), (50.0, 2.0), (300.0, 299.0), (0.05, 0.05), (0.004, 0.004)])
def test_the_curve_is_where_both_parts_are_as_far_as_the_base(kl, asked) -> None:
    """Each corner's parts sum to KL(p‖a); it ends at (KL, rail of 0), or at the right edge. The area is below it."""
    chart = two_parts([replace(BASE, kl=number(kl), asked=number(asked)), part(2, 0.001, 0.5)], "t")
    rails = Rails.of(chart, SIZE, 2.6 * SIZE.font)
    picture = draw(chart, SIZE)
    [[curve]] = [path.parts for path in paths(picture, "as far")]
    log_part = [(x, y) for x, y in curve if rails.top < y < rails.bottom]
    for x, y in log_part:
        nats = 0.01 * 1e4 ** ((rails.bottom - y) / (rails.bottom - rails.top))
        assert (x - rails.left) / (rails.right - rails.left) * chart.limit + nats == approx(kl, rel=1e-6)
    assert len(log_part) > 20 or kl < 0.01
    if kl <= chart.limit:
        assert curve[-1] == (rails.across(kl), rails.zero)
    else:
        assert curve[-1][0] == rails.right and curve[-1][1] < rails.bottom
    assert all(a[0] <= b[0] and a[1] <= b[1] for a, b in pairwise(curve))
    [area] = [m for m in picture.marks if isinstance(m, Area)]
    assert area.corners[: len(curve)] == curve and (rails.left, rails.zero) in area.corners
    assert [m for m in picture.marks if isinstance(m, Text) and m.text == NEARER] != [] or kl < 0.1


def test_without_a_base_the_largest_gap_says_how_far_it_goes_and_there_is_no_curve() -> None:
    made = two_parts(ROWS[1:], "t")
    assert (made.limit, made.kl) == (13.5, None) and paths(draw(made, SIZE), "as far") == []
    assert two_parts([part(1, 0.0, 0.0)], "t").limit == 0.1
    assert (
        two_parts([replace(BASE, asked=number(0.0), kl=number(0.0)), part(2, 0.4, 1.0)], "t").limit
        == 0.6000000000000001
    )
    assert two_parts([part(1, None, 1.0)], "t") is None


def test_the_front_is_what_none_beats_in_both_of_rows_that_may_be_on_it(chart) -> None:
    """Planted: the ceiling (0, 0) would beat all; so would row 4, which is worse. Limits and ∞ prove nothing."""
    assert [p.row.number for p in chart.front] == [3, 1]  # (0, 0.001), (2, 0); 2 is beaten by 3
    beaten = [replace(r, asked=number(0.0), collateral=number(0.0)) if r.number == 4 else r for r in ROWS]
    assert [p.row.number for p in two_parts(beaten, "t").front] == [3, 1]
    better = [replace(r, verdict="better") if r.number == 4 else r for r in beaten]
    assert [p.row.number for p in two_parts(better, "t").front] == [4]
    unpinned = [replace(r, pinned=False) for r in ROWS]
    assert [p.row.number for p in two_parts(unpinned, "t").front] == [9]


def test_who_has_a_name_and_who_a_number(chart) -> None:
    made = two_parts(ROWS, "t", focus=[2])
    assert labels(draw(chart, SIZE))[2] == "2" and labels(draw(made, SIZE))[2] == "row 2"
    found = labels(draw(made, SIZE))
    assert (found[1], found[3], found[5], found[4]) == ("base", "row 3", "5 keeps 8.0 %", "4")
    long = two_parts([BASE, part(2, 0.1, 0.1, label="quasi_rejection:acceptance=0.2 over prompt")], "t")
    assert len(labels(draw(long, SIZE))[2]) <= 22
    titles = {mark.row: mark.title for mark in draw(chart, SIZE).marks if isinstance(mark, Dot)}
    assert titles[5] == "5 row 5: asked gap 0.5, collateral inf, keeps 8.0 %, vs base: trade"
    assert "≥ 1.5" in titles[7] and "≤ 1" in titles[7] and "not measured" in titles[6]


def test_what_has_no_asked_gap_is_left_out_with_the_reason(chart) -> None:
    assert [(r.number, r.reason) for r in chart.left_out] == [(8, "divergence.kl_asked: —")]
    assert {p.row.number for p in chart.points} == set(range(1, 12)) - {8}


def test_verdicts_are_looks(chart) -> None:
    looks = {number: dot.look for number, dot in dots(draw(chart, SIZE)).items()}
    assert looks == {1: "base", 2: "better", 3: "better", 4: "worse", 5: "trade", 6: "asked only", 7: "unclear",
                     9: "ceiling", 10: "same", 11: "—"}  # fmt: skip


@pytest.mark.parametrize("size", [COLUMN, SCREEN])
def test_labels_of_25_random_points_cover_neither_each_other_nor_points(size) -> None:
    """Planted: with labels all right of their points, some of these would."""
    picture = draw(two_parts(many(), "t"), replace(size, alone=False, legend=False))
    texts = [m for m in picture.marks if isinstance(m, Text) and m.row is not None]
    wide = [(m.x, m.y - 0.75 * size.font, m.x + text_width(m.text, size.font), m.y + 0.1 * size.font) for m in texts]
    r = 0.9 * size.radius
    spots = [(d.x - r, d.y - r, d.x + r, d.y + r) for d in dots(picture).values()]
    assert len(texts) == len(spots) == 26
    assert [(a, b) for a, b in combinations(wide, 2) if covers(a, b)] == []
    assert [(a, b) for a in wide for b in spots if covers(a, b)] == []
    assert all(a[0] >= 0 and a[2] <= picture.width for a in wide)
    right = [(d.x + r, d.y - 4, d.x + r + text_width(str(n), size.font), d.y + 4) for n, d in dots(picture).items()]
    assert any(covers(a, b) for a, b in combinations(right, 2)) or any(covers(a, b) for a in right for b in spots)


def covers(a, b) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def test_rows_of_a_table_know_what_is_a_limit_alone() -> None:
    """By the notes of their records; of an infinite value such a note says nothing."""

    def both(who: str, asked: float, collateral: float):
        note = AT_MOST if collateral < inf else ""
        return [
            row(who, "divergence.kl_asked", asked, 0.1, note=AT_LEAST),
            row(who, "divergence.kl_collateral", collateral, 0.2, note=note),
        ]

    more = [row("top_k:k=5", "divergence.mass_kept", 0.25, 0.1), row("base", "divergence.kl_target", 0.5, 0.1)]
    rows = [*both("base", 0.5, 0.0), *both("best_of_n:n=2", 0.3, 1.0), *both("top_k:k=5", 0.05, inf), *more]
    [table] = arranged(frame(rows), Arrangement()).tables
    assert table.brief is not None
    found = {r.label: r for r in rows_of(table.brief)}
    best = found["best_of_n:n=2"]
    assert (best.asked.value, best.asked.low, best.asked.high) == (None, approx(0.2), None)
    assert (best.collateral.value, best.collateral.low, best.collateral.high) == (None, None, approx(1.2))
    assert (best.asked.text, best.collateral.text, best.verdict) == ("≥ .20", "≤ 1.2", "—")
    assert found["top_k:k=5"].asked.low == 0.0 and found["top_k:k=5"].collateral.value == inf
    assert found["top_k:k=5"].kept == 0.25 and found["base"].kl.value == 0.5 and found["base"].is_base


def test_a_baseline_is_on_the_front_where_it_belongs_and_may_be_the_base() -> None:
    """Of the marks of a table, `baseline` alone says nothing of what a row is."""
    both = ("divergence.kl_asked", "divergence.kl_collateral")
    rows = frame(
        [row(who, key, 0.3 * (who != "base"), 0.1) for who in ("base", "top_k:k=5", "ceiling") for key in both]
    )
    for baseline, on_front in (("m", ["base"]), ("top_k:k=5", ["base"])):
        [table] = arranged(rows, Arrangement(baseline=baseline)).tables
        assert table.brief is not None
        made = rows_of(table.brief)
        assert [r.label for r in made if r.is_base] == on_front
        assert [r.label for r in made if r.pinned] == ["draws of p (ceiling)"]
        assert [p.row.label for p in two_parts(made, "t").front] == on_front


def test_points_that_cover_each_other_have_one_label() -> None:
    """Planted bug: three names at one point, of which one seemed to be that of a point elsewhere."""
    same = [part(n, 0.0, 0.0) for n in (2, 3, 4)]
    rows = [BASE, *same, part(9, 0.0, 0.0, "", label="draws of p (ceiling)", pinned=True, mark="ceiling")]
    texts = [(mark.row, mark.text) for mark in draw(two_parts(rows, "t"), SCREEN).marks if isinstance(mark, Text)]
    assert [text for number, text in texts if number is not None] == ["row 2, 3, 4, 9", "base"]
