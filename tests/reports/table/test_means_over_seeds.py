"""Means over seeds: what they are, where there is none, and that a table shows them in place of their seeds."""

from __future__ import annotations

from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from alignbench.metrics.satisfaction import BIASED
from alignbench.reports.rows import COLUMNS, read_rows, tidy, write_rows
from alignbench.reports.table.leaderboards import leaderboard
from alignbench.reports.table.seeds import joined_targets, with_means

VALUES = {0: 0.1, 1: 0.4, 2: 0.25}


def seeds(rows: pd.DataFrame, *changes: dict[str, Any], numbers: tuple[int, ...] = (0, 1, 2)) -> pd.DataFrame:
    """The first row of the table once a seed; `changes` are to the row of each, and λ differs."""
    first = rows.head(1).assign(exact=None)
    parts = [first.assign(seed=s, target_id=f"t{s}", signature=f"alignbench|lam:{s}|seed:{s}|version:1", **more)
             for s, more in zip(numbers, changes, strict=True)]  # fmt: skip
    return tidy(pd.concat(parts, ignore_index=True))


def mean_of(table: pd.DataFrame) -> pd.Series:
    means = table[table["seeds"].notna()]
    assert len(means) == 1
    return means.iloc[0]


def test_a_mean_over_seeds_is_students(rows: pd.DataFrame) -> None:
    """scipy's one-sample t interval. Planted bugs: divisor S, and the normal's 1.96, are both far outside rounding."""
    table = with_means(seeds(rows, *({"value": v} for v in VALUES.values())))
    mean = mean_of(table)
    golden = stats.ttest_1samp(list(VALUES.values()), 0.0).confidence_interval(0.95)
    assert len(table) == 4 and mean["seeds"] == 3 and pd.isna(mean["seed"])
    assert mean["value"] == pytest.approx(0.25) and mean["seed_sd"] == pytest.approx(0.15)
    assert (mean["ci_low"], mean["ci_high"]) == pytest.approx((golden.low, golden.high))
    assert mean["stderr"] == pytest.approx(0.15 / np.sqrt(3)) != pytest.approx(np.std(list(VALUES.values())) / 3**0.5)
    assert mean["n"] == 3 * 128 and mean["note"] == "mean of 3 seeds (0, 1, 2); interval by Student's t over them"
    assert mean["signature"] == "alignbench|seeds:0,1,2|version:1" and mean["target_id"] == "t0+t1+t2"


def test_what_is_biased_in_each_seed_is_not_told_from_zero_by_many(rows: pd.DataFrame) -> None:
    """Sizes of errors that are 0 in truth, all about 0.03. Planted bug: Student's lower limit is far above 0."""
    sizes = [{"value": v, "ci_low": 0.0, "ci_high": 2 * v, "note": BIASED} for v in (0.02, 0.03, 0.04, 0.03)]
    mean = mean_of(with_means(seeds(rows, *sizes, numbers=(0, 1, 2, 3))))
    assert mean["ci_low"] == 0.0 and mean["ci_high"] > mean["value"] == pytest.approx(0.03)
    assert mean["value"] - 3.2 * mean["stderr"] > 0 and "the lower limit, the mean of theirs" in mean["note"]


@pytest.mark.parametrize(
    ("changes", "value", "note"),
    [
        (({"value": inf},) * 3, inf, "the same in each of 3 seeds"),
        (({"value": inf}, {}, {}), None, "no mean over 3 seeds: ∞ in 1"),
        (({"value": inf}, {"value": None, "ci_low": None, "ci_high": None, "note": "few; draws"}, {}), None,
         "no mean over 3 seeds: ∞ in 1, missing in 1 (few, draws)"),
        (({"value": None, "ci_low": 0.2, "ci_high": None},) * 3, None, "no mean over 3 seeds: a bound alone in 3"),
        (({"metric": "other"}, {}, {}), None, "no mean over 3 seeds: not reported in 1"),
        (({"value": inf}, {"value": -inf}, {"value": inf}), None, "no mean over 3 seeds: ∞ in 3"),
    ],
)  # fmt: skip
def test_no_mean_is_invented(rows: pd.DataFrame, changes: Any, value: float | None, note: str) -> None:
    table = with_means(seeds(rows, *changes))
    mean = table[table["seeds"].notna() & (table["metric"] == "divergence")].iloc[0]
    assert pd.isna(mean["value"]) if value is None else mean["value"] == value
    assert mean["note"] == note and mean[["stderr", "ci_low", "ci_high", "seed_sd"]].isna().all()


def test_seeds_that_agree_keep_the_means_of_their_limits(rows: pd.DataFrame) -> None:
    limits = ({"ci_low": 0.1, "ci_high": 0.8}, {"ci_low": 0.3, "ci_high": 0.9}, {"ci_low": 0.2, "ci_high": 0.7})
    same = mean_of(with_means(seeds(rows, *({"value": 0.5, **pair} for pair in limits))))
    assert same["seed_sd"] == 0 and "the seeds do not differ: limits are the means of theirs" in same["note"]
    assert (same["ci_low"], same["ci_high"]) == pytest.approx((0.2, 0.8))
    without = ({"value": 0.5, "ci_low": None, "ci_high": None}, *({"value": 0.5},) * 2)
    alone = mean_of(with_means(seeds(rows, *without)))
    assert pd.isna(alone["ci_low"]) and "the seeds do not differ" in alone["note"]
    exact = mean_of(with_means(seeds(rows, *({"value": 0.0, "stderr": 0.0, "ci_low": 0.0, "ci_high": 0.0},) * 3)))
    assert exact["ci_low"] == exact["ci_high"] == 0


@pytest.mark.parametrize(
    ("metric", "part", "values", "span"),
    [
        ("satisfaction", "always", (0.3, 0.9), (0, 1)),
        ("divergence", "tv", (0.05, 0.4), (0, 1)),
        ("divergence", "js", (0.3, 0.69), (0, np.log(2))),
        ("perplexity", "", (20.0, 60.0), (0, np.inf)),
        ("divergence", "kl_target", (0.05, 0.4), None),  # a divergence's estimate may be negative
    ],
)
def test_few_seeds_do_not_leave_what_is_possible(rows: pd.DataFrame, metric, part, values, span) -> None:
    named = rows.assign(metric=metric, part=part)
    mean = mean_of(with_means(seeds(named, *({"value": value} for value in values), numbers=(0, 1))))
    assert mean["value"] == pytest.approx(np.mean(values))
    low, high = span or (-np.inf, 0)
    assert (low < mean["ci_low"] < mean["value"] < mean["ci_high"] < high) == (span is not None)
    assert span is not None or mean["ci_low"] < 0


def test_a_size_below_0_in_an_old_table_has_a_mean_inside(rows: pd.DataFrame) -> None:
    """Planted: rows of a version that told a total variation near 0 with its sign."""
    named = rows.assign(metric="divergence", part="tv")
    mean = mean_of(with_means(seeds(named, {"value": -3e-7}, {"value": 1e-7}, numbers=(0, 1))))
    assert mean["value"] == pytest.approx(1e-7) and mean["ci_low"] == 0 and 1e-7 < mean["ci_high"] < 1


def test_notes_that_all_seeds_have_are_kept(rows: pd.DataFrame) -> None:
    notes = ({"note": "a; b"}, {"note": "b"}, {"note": "c; b; no interval: too few"})
    told = mean_of(with_means(seeds(rows, *notes)))["note"]
    assert told == ("mean of 3 seeds (0, 1, 2); the seeds do not differ: limits are the means of theirs; b; "
                    "notes differ by seed: see their rows")  # fmt: skip


def test_exact_values_are_averaged_where_each_seed_has_one(rows: pd.DataFrame) -> None:
    assert mean_of(with_means(seeds(rows, {"exact": 1.0}, {"exact": 2.0}, {"exact": 6.0})))["exact"] == 3.0
    assert pd.isna(mean_of(with_means(seeds(rows, {"exact": 1.0}, {}, {"exact": 6.0})))["exact"])


def test_a_table_of_several_seeds_has_one_line_a_generator(rows: pd.DataFrame) -> None:
    """λ, and with it the target's digits, differs by seed, and an aligner's generator with it."""
    digits = {s: rows["generator_id"].where(rows["aligner"] == "", f"g{s}") for s in VALUES}
    parts = [rows.assign(seed=s, target_id=f"t{s}", generator_id=digits[s], signature=f"a|seed:{s}") for s in VALUES]
    board = leaderboard(pd.concat(parts))
    assert len(board) == 2 and board.tables[0].signature == "a|seeds:0,1,2|rows:5|runs:1"
    assert [row.label for row in board.tables[0].rows] == [row.label for row in leaderboard(rows).tables[0].rows]
    assert board.tables[0].title == leaderboard(rows).tables[0].title
    again = leaderboard(board.rows)  # means are made anew, not averaged again
    assert again.tables == board.tables
    assert len(again.rows) == 4 * len(rows)


def test_a_generator_of_one_seed_says_so_beside_means(rows: pd.DataFrame) -> None:
    other = rows[rows["aligner"] != "rejection"].assign(seed=1, target_id="t1")
    labels = {row.label for row in leaderboard(pd.concat([rows, other])).tables[0].rows}
    assert "rejection (seed 0)" in labels and "SmolLM2 (base)" in labels and "best_of_n:n=4" in labels


def test_the_newest_measurement_of_a_seed_counts(rows: pd.DataFrame) -> None:
    table = seeds(rows, {"value": 1.0}, {"value": 2.0}, {"value": 3.0})
    newer = table.head(1).assign(value=4.0, measured="2027-01-01T00:00:00+00:00", run_id="r2")
    assert mean_of(with_means(pd.concat([newer, table])))["value"] == 3.0


def test_other_draws_are_another_mean(rows: pd.DataFrame) -> None:
    table = seeds(rows, {}, {}, {"draws": 64})
    assert mean_of(with_means(table))["seeds"] == 2


def test_one_seed_stays_as_it_is(rows: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(with_means(tidy(rows)), tidy(rows))
    assert list(with_means(tidy(rows)).columns) == list(COLUMNS)


def test_overlapping_means_are_one_target() -> None:
    joined = joined_targets(["a", "b+c", "a+b", "d", ""])
    assert joined["a"] == joined["a+b"] == joined["b+c"] and set(joined["a"].split("+")) == set("abc")
    assert joined["d"] == "d" and joined[""] == ""


def test_steps_and_means_survive_the_file(rows: pd.DataFrame, tmp_path: Path) -> None:
    table = with_means(seeds(rows, {"step": 100}, {"step": 100}, {"step": 100}))
    write_rows(tmp_path / "a.csv", table)
    back = read_rows(tmp_path / "a.csv")
    pd.testing.assert_frame_equal(back, table, check_exact=True)
    assert set(back["step"]) == {100} and list(back.columns) == [*COLUMNS, "step", "seeds", "seed_sd", "replicates"]
