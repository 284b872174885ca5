"""Ranks, what is bold, and the front: on rows whose differences are known."""

from __future__ import annotations

from math import inf
from typing import Any

import numpy as np
import pandas as pd
import pytest

from alignbench.errors import UnknownName, UsageError
from alignbench.reports.table.board import PINNED
from alignbench.reports.table.leaderboards import Row, Table, leaderboard

SHARED = np.random.default_rng(0).normal(size=20)
OWN = np.random.default_rng(1).normal(size=(9, 20))


def replicates(value: float, own: int, noise: float = 0.001) -> str:
    """Replicates that mostly move with what all rows share."""
    return " ".join(f"{x:.8g}" for x in value + 0.1 * SHARED + noise * OWN[own])


def cell(aligner: str, value: float | None, own: int = 0, **more: Any) -> dict[str, Any]:
    """A row of kl_target of one aligner on one task."""
    return {
        "run_id": "r1", "task": "a", "task_version": 1, "task_hash": "a" * 16, "generator": "m", "aligner": aligner,
        "base": "m", "metric": "divergence", "part": "kl_target", "value": value, "stderr": 0.4, "n": 64, "seed": 0,
        "ci_low": None if value is None else value - 0.8, "ci_high": None if value is None else value + 0.8,
        "ess": None, "better": "lower", "note": "" if value is not None else "too few", "seconds": 1.0, "draws": 16,
        "signature": "alignbench|seed:0",
        "replicates": "" if value is None or value == inf else replicates(value, own), **more,
    }  # fmt: skip


def table_of(*cells: dict[str, Any], **more: Any) -> Table:
    """The one table of some rows."""
    [table] = leaderboard(pd.DataFrame(list(cells)), **more)
    return table


def rows_of(table: Table) -> dict[str, Row]:
    """The rows by their labels."""
    return {row.label: row for row in table.rows}


FIVE = (cell("good", 1.0, 0), cell("alike", 1.0001, 1), cell("worse", 1.1, 2), cell("never", inf), cell("none", None))


def test_the_best_and_what_is_tied_with_it_is_bold() -> None:
    """Planted bug: the rows' own intervals, ± 0.8, tell none of the three apart."""
    rows = rows_of(table_of(*FIVE))
    assert [label for label, row in rows.items() if row.cells[0].best] == ["good", "alike"]
    unpaired = [cell("good", 1.0, 0), cell("worse", 1.1, 2, replicates="")]
    assert all(row.cells[0].best for row in rows_of(table_of(*unpaired)).values())


@pytest.mark.parametrize("better", ["lower", "higher"])
@pytest.mark.parametrize("bare", ["best", "worst"])
def test_nothing_is_bold_where_the_best_has_no_interval(better: str, bare: str) -> None:
    """Of the worst none is needed."""
    good, bad = (1.0, 2.0) if better == "lower" else (2.0, 1.0)
    without = {"stderr": None, "ci_low": None, "ci_high": None, "replicates": ""}
    cells = [cell("best", good, 0, better=better), cell("worst", bad, 1, better=better)]
    table = table_of(*({**c, **without} if c["aligner"] == bare else c for c in cells))
    assert [label for label, row in rows_of(table).items() if row.cells[0].best] == ["best"] * (bare == "worst")
    assert any(line.startswith("Nothing is bold in kl_target") for line in table.legend) == (bare == "best")


def test_ranks_have_limits_and_what_was_not_measured_has_none() -> None:
    table = table_of(*FIVE)
    rows = rows_of(table)
    assert [rows[name].rank.text for name in ("good", "alike", "worse", "never", "none")] == [
        "1 [1, 2]", "2 [1, 2]", "3 [3, 3]", "—", "—",
    ]  # fmt: skip
    assert [table.footnotes[n - 1] for n in rows["none"].rank.notes] == ["no number to rank by"]
    assert table.ranked and "kl_target ↓" in table.legend[0] and "3 rows" in table.legend[0]


def test_infinity_is_never_bold_nor_is_a_number_alone() -> None:
    assert not any(r.cells[0].best for r in table_of(cell("a", inf), cell("b", inf)).rows)
    assert not any(r.cells[0].best for r in table_of(cell("a", 1.0), cell("b", None)).rows)
    assert rows_of(table_of(cell("a", 1.0), cell("b", inf)))["a"].cells[0].best


def test_pinned_rows_are_neither_ranked_nor_bold() -> None:
    """Planted bug: draws of p, with 0, were ranked first. The base stands and is ranked among the others."""
    rows = rows_of(table_of(*FIVE, cell("", 1.5, 3), cell("copy", 0.2), cell("", 0.0, generator="draws of p")))
    assert [label for label, row in rows.items() if row.mark] == ["m (base)", "copy", "draws of p (ceiling)"]
    pinned = [row for row in rows.values() if row.mark in PINNED]
    assert not any(row.rank.point or row.front or any(c.best for c in row.cells) for row in pinned)
    assert rows["good"].rank.text == "1 [1, 2]" and rows["m (base)"].rank.text == "4 [4, 4]"
    assert list(rows)[:4] == ["good", "alike", "worse", "m (base)"]


def test_where_the_best_has_no_error_nothing_is_bold_and_the_legend_says_so() -> None:
    bare = {"stderr": None, "ci_low": None, "ci_high": None, "replicates": ""}
    table = table_of(cell("a", 1.0, **bare), cell("b", 2.0, **bare))
    assert not any(row.cells[0].best for row in table.rows)
    assert any("Nothing is bold in kl_target" in line for line in table.legend)
    assert [row.rank.text for row in table.rows] == ["1 [1, 2]", "2 [1, 2]"]


def front(*points: tuple[str, float, float | None]) -> Table:
    """A table of KL and model calls a draw."""
    kls = [cell(name, kl) for name, kl, _ in points]
    return table_of(*kls, *(cell(name, x, metric="cost", part="calls_per_draw") for name, _, x in points))


def test_the_front_is_of_nearness_and_calls() -> None:
    """What is infinitely far is not on it, however cheap."""
    table = front(("a", 1.0, 9.0), ("b", 2.0, 3.0), ("dominated", 2.5, 4.0), ("never", inf, 1.0), ("c", 0.1, None))
    assert {row.label for row in table.rows if row.front} == {"a", "b"}
    [line] = [line for line in table.legend if line.startswith("◆")]
    assert "kl_target ↓ and calls_per_draw ↓" in line and "1 of 5 rows" in line


@pytest.mark.parametrize("far", [0.99, 0.1])
def test_diversity_is_nearness_to_draws_of_p(far: float) -> None:
    """Planted bugs: the most diverse row, far above p's own 0.5, was best; the least diverse, far below it."""
    kinds = {"metric": "distinct", "part": "distinct_2", "better": "", "stderr": 0.01, "replicates": ""}
    points = {"near": 0.55, "wild": far, "draws of p": 0.5}
    who = {name: {"generator": name} if name == "draws of p" else {} for name in points}
    own = {name: "" if name == "draws of p" else name for name in points}
    table = table_of(
        *(cell(own[n], 1.0 if n != "wild" else 1.1, **who[n]) for n in points),
        *(cell(own[n], x, **kinds, **who[n]) for n, x in points.items()),
    )
    [column] = [i for i, c in enumerate(table.columns) if c.key == "distinct.distinct_2"]
    assert {row.label for row in table.rows if row.cells[column].best} == {"near"}


def test_a_baseline_is_pinned_and_each_cell_says_how_it_differs() -> None:
    """Planted bug: an unpaired difference of ± 1.1 instead of the paired one."""
    table = table_of(*FIVE, baseline="good")
    rows = rows_of(table)
    assert rows["good (baseline)"].mark == "baseline" and not rows["good (baseline)"].rank.point
    assert [c.heading for c in table.columns] == ["kl_target ↓", "Δ"] and table.columns[1].aside
    delta = rows["worse"].cells[1]
    assert delta.value == pytest.approx(0.1) and delta.high is not None and delta.high - 0.1 < 0.02
    assert rows["good (baseline)"].cells[1].point == "" and rows["none"].cells[1].text == "—"
    assert rows["none"].cells[1].notes and rows["never"].cells[1].text == "∞"
    assert any(line.startswith("Δ: difference to good") for line in table.legend)
    base = table_of(*FIVE, cell("", 2.0), baseline="base")
    assert "m (base, baseline)" in rows_of(base)


def test_a_baseline_that_no_row_or_two_rows_bear() -> None:
    with pytest.raises(UnknownName, match=r"--baseline: unknown row 'goood'. Did you mean 'good'"):
        table_of(*FIVE, baseline="goood")
    same = (cell("good", 1.0, generator_id=name) for name in ("0ne", "0ther"))
    twice = [*same, *(row for row in FIVE if row["aligner"] != "good")]
    with pytest.raises(UsageError, match=r"stands for several rows; give one of: good \(#"):
        table_of(*twice, baseline="good")
    other = [cell("x", 1.0, task="b", task_hash="b" * 16), cell("y", 1.0, task="b", task_hash="b" * 16)]
    board = leaderboard(pd.DataFrame([*FIVE, *other]), baseline="good")
    assert any("no row 'good'" in line for line in board.tables[1].legend)


def test_versions_share_a_table_only_where_that_is_allowed() -> None:
    new = [{**row, "task_hash": "b" * 16, "task_version": 2} for row in FIVE]
    rows = pd.DataFrame([*FIVE, *new])
    assert len(leaderboard(rows)) == 2
    [table] = leaderboard(rows, allow_mixed=True)
    assert table.version == "1, 2" and "good (task #aaaaaaaa)" in rows_of(table)
    assert not table.ranked and not any(row.front or row.cells[0].best for row in table.rows)
    assert "not comparable" in table.legend[0]
    assert (
        leaderboard(pd.DataFrame(list(FIVE)), allow_mixed=True).tables == leaderboard(pd.DataFrame(list(FIVE))).tables
    )


def test_a_signature_counts_rows_and_runs() -> None:
    assert table_of(*FIVE).signature == "alignbench|seed:0|rows:5|runs:1"
    assert table_of(*FIVE, cell("far", 2.0, run_id="r2")).signature.endswith("rows:6|runs:2")


def test_two_fitted_targets_of_one_version_are_never_mixed() -> None:
    """Planted bug: with versions allowed in one table, rows of two λ were ranked together as if p were the same."""
    rows = pd.DataFrame([{**cell(who, 1.0, i), "target_id": who * 8} for i, who in enumerate("xy")])
    assert len(leaderboard(rows, allow_mixed=True)) == 2
    rows.loc[1, "task_hash"] = "b" * 16
    assert len(leaderboard(rows, allow_mixed=True)) == 1


def test_rows_that_are_all_infinite_are_not_ranked_first() -> None:
    """Planted bug: where the better rows have no number, the others were first, all at ∞."""
    table = table_of(cell("never", inf), cell("neither", inf, 1), cell("none", None))
    assert not table.ranked and "Nothing is ranked: no row has a finite kl_target ↓." in table.legend


def test_what_is_known_to_be_finite_comes_before_what_is_infinite() -> None:
    """Planted: bounds below ∞, so that of a base with bounds alone a law that is infinitely far would be first."""
    some = [
        cell("far", inf),
        cell("least", None, ci_low=0.2),
        cell("within", None, ci_low=0.1, ci_high=2.0),
        cell("b", 3.0),
    ]
    assert [row.label for row in table_of(*some).rows] == ["within", "b", "far", "least"]  # within 2, before b at 3
