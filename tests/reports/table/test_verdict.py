"""One word on each row: what is shown against the base, all rows at once."""

from __future__ import annotations

from math import inf
from typing import Any

import numpy as np
import pandas as pd
import pytest

from alignbench.reports.table.leaderboards import Leaderboard, leaderboard
from alignbench.reports.table.verdict import NOT_TOLD

PARTS = ("kl_target", "kl_asked", "kl_collateral", "kl_target_vs_base", "kl_asked_vs_base", "tv", "mass_kept")


Record = dict[str, Any]


def record(aligner: str, metric: str, part: str, value: float | None, half: float | None = 0.1, **more: Any) -> Record:
    """A row with a symmetric interval, or with none."""
    bare = value is None or half is None or np.isinf(value)
    return {
        "run_id": "r1", "task": "a", "task_version": 1, "task_hash": "a" * 16, "generator": "m", "aligner": aligner,
        "base": "m", "metric": metric, "part": part, "value": value, "stderr": None if bare else half / 1.96, "n": 64,
        "ci_low": None if bare else value - half, "ci_high": None if bare else value + half, "ess": None, "seed": 0,
        "better": "lower", "note": "", "seconds": 1.0, "draws": 16, "signature": "alignbench|prompts:2|seed:0", **more,
    }  # fmt: skip


def law(aligner: str, half: float = 0.1, note: str = "", task: str = "a", **parts: float | None) -> list[Record]:
    """The rows of one generator: parts of the divergence by name."""
    more = {"task": task, "task_hash": task * 16, "note": note}
    return [record(aligner, "divergence", part, parts[part], half, **more) for part in PARTS if part in parts]


def base(kl: float = 1.0, task: str = "a") -> list[dict[str, Any]]:
    """The base's rows, which is at 0 of itself."""
    zero = {"kl_collateral": 0.0, "kl_target_vs_base": 0.0, "kl_asked_vs_base": 0.0}
    return [*law("", task=task, kl_target=kl, kl_asked=kl), *law("", half=0.0, task=task, **zero)]


def board(*rows: list[dict[str, Any]], **more: Any) -> Leaderboard:
    """The leaderboard of some generators."""
    return leaderboard(pd.DataFrame([row for part in rows for row in part]), **more)


def words(*rows: list[dict[str, Any]]) -> dict[str, str]:
    """Label → verdict."""
    [table] = board(*rows).tables
    at = next((i for i, c in enumerate(table.columns) if c.key == "verdict"), None)
    return {} if at is None else {row.label: row.cells[at].point for row in table.rows}


CASES = {
    "better": law("x", kl_target=0.5, kl_target_vs_base=-0.5, kl_asked_vs_base=-0.5),
    "trade": law("x", kl_target=1.0, kl_target_vs_base=0.05, kl_asked_vs_base=-0.5),
    "worse": law("x", kl_target=1.5, kl_target_vs_base=0.5, kl_asked_vs_base=0.3),
    "same": law("x", half=0.03, kl_target=1.0, kl_target_vs_base=0.01, kl_asked_vs_base=0.01),
    "unclear": law("x", half=0.4, kl_target=1.1, kl_target_vs_base=0.1, kl_asked_vs_base=0.1),
    "asked only": law("x", kl_asked=0.5, kl_asked_vs_base=-0.5),
}


@pytest.mark.parametrize("word", CASES)
def test_each_word_is_said_where_it_is_shown(word: str) -> None:
    assert words(base(), CASES[word]) == {"m (base)": "", "x": word}


def test_an_infinite_distance_is_worse_unless_what_was_asked_is_nearer() -> None:
    lost = {"kl_target": inf, "kl_target_vs_base": inf}
    found = words(base(), law("a", **lost, kl_asked_vs_base=0.2), law("b", **lost, kl_asked_vs_base=-0.5))
    assert (found["a"], found["b"]) == ("worse", "trade")


def test_a_law_that_truncates_is_never_better() -> None:
    """With more reference draws it becomes infinitely far."""
    nearer = {"kl_target": 0.5, "kl_target_vs_base": -0.5}
    note = "π truncates; target mass it leaves uncovered ≤ 0.02"
    found = words(
        base(), law("a", note=note, **nearer, kl_asked_vs_base=-0.5), law("b", **nearer, kl_asked_vs_base=0.0)
    )
    assert (found["a"], found["b"]) == ("trade", "better")


def test_words_hold_for_all_rows_at_once() -> None:
    """Planted: each row tested for itself. A difference of 2.2 standard errors is shown alone, and not among ten."""
    one = law("x", half=0.1, kl_target=0.9, kl_target_vs_base=-0.112, kl_asked_vs_base=0.0)
    others = [law(f"y{i}", half=0.1, kl_target=1.0, kl_target_vs_base=0.0, kl_asked_vs_base=0.0) for i in range(9)]
    alone = words(base(), law("x", half=0.1, kl_target=0.9, kl_target_vs_base=-0.14, kl_asked_vs_base=0.0))
    assert alone["x"] == "better" and words(base(), one, *others)["x"] != "better"


def test_words_are_of_two_sided_tests() -> None:
    """Planted: one side alone. A difference of 1.8 standard errors has p = 0.07; the two tests of a row share 5 %."""
    near = {"kl_target": 0.9, "kl_asked_vs_base": None}
    told = [words(base(), law("x", half=0.1, kl_target_vs_base=-z * 0.1 / 1.96, **near)) for z in (1.8, 2.1)]
    assert [found["x"] for found in told] == ["unclear", "better"]


def test_bounds_have_a_verdict_only_where_they_separate() -> None:
    """SIR's upper bound below the base's interval; a black box's lower limit above it."""

    def bound(aligner: str, **ends: float) -> list[dict[str, Any]]:
        return [record(aligner, "divergence", "kl_target", None) | ends]

    found = words(base(), bound("low", ci_high=0.8), bound("across", ci_high=0.95), bound("high", ci_low=1.2))
    assert found == {"m (base)": "", "low": "better", "across": "—", "high": "worse"}


def test_rows_of_before_there_were_differences_are_told_by_their_replicates() -> None:
    shared = np.random.default_rng(0).normal(0, 0.2, 20)

    def old(aligner: str, value: float) -> list[dict[str, Any]]:
        told = " ".join(
            f"{x:.8g}" for x in value + shared + 0.001 * np.random.default_rng(len(aligner)).normal(size=20)
        )
        return [record(aligner, "divergence", "kl_target", value, 0.5, replicates=told)]

    found = words(old("", 1.0), old("near", 0.7), old("far off", 1.3))
    assert (found["near"], found["far off"]) == ("better", "worse")


def test_a_target_that_is_not_told_from_the_base_gives_no_verdicts() -> None:
    lam = [record("", "target", "lam.she", -0.39, 1.0)]
    hard = [record("", "satisfaction", "always", 0.4)]
    [table] = board(base(), CASES["better"], lam).tables
    assert {row.label: row.cells[0].point for row in table.rows} == {"m (base)": "", "x": "—"}
    assert NOT_TOLD in table.footnotes
    assert table.brief is not None and table.brief.conclusion == "The target cannot be told from the base: no verdicts."
    assert words(base(), CASES["better"], lam, hard)["x"] == "better"  # a hard constraint is told
    surely = [record("", "target", "lam.he", 2.0, 1.0)]
    assert words(base(), CASES["better"], lam, surely)["x"] == "better"


def test_nothing_worse_is_bold_first_or_on_the_front() -> None:
    """A LoRA ten times further from p than the base stood first, bold and on the front: the only finite row."""
    cost = [record(who, "cost", "calls_per_draw", calls, None) for who, calls in (("", 40.0), ("x", 40.0))]
    fluent = [record(who, "perplexity", "", x, 0.1) for who, x in (("", 20.0), ("x", 19.0), ("p", 18.0))]
    fluent[-1]["generator"], fluent[-1]["aligner"] = "draws of p", ""
    [table] = board(base(), CASES["worse"], cost, fluent).tables
    assert [row.label for row in table.rows] == ["m (base)", "x", "draws of p (ceiling)"]
    [x] = [row for row in table.rows if row.label == "x"]
    assert not x.front and not any(cell.best for cell in x.cells)
    assert table.rows[0].front and table.rows[0].rank.point == "1"


def test_infinite_rows_have_no_rank_and_are_ordered_by_what_they_lose() -> None:
    """By total variation, then by the mass of p that they keep; by the asked gap a constant would be first."""
    lost = {"kl_target": inf, "kl_target_vs_base": inf, "kl_asked_vs_base": 0.5}
    rows = (law("a", **lost, tv=1.0, mass_kept=0.1), law("b", **lost, tv=0.5, mass_kept=0.2),
            law("c", **lost, tv=1.0, mass_kept=0.3), CASES["worse"])  # fmt: skip
    [table] = board(base(), *rows).tables
    assert [row.label for row in table.rows] == ["m (base)", "x", "b", "c", "a"]
    assert [row.rank.point for row in table.rows] == ["1", "2", "—", "—", "—"]


def test_p_s_own_number_is_the_goal_of_fluency_and_diversity() -> None:
    """Planted: the lowest perplexity was best, that of a sharpened law."""
    who = {"sharp": 5.5, "like p": 18.0, "": 22.0, "p": 18.7}
    rows = [record(name, "perplexity", "", x, 0.5) | ({"generator": "draws of p", "aligner": ""} if name == "p" else {})
            for name, x in who.items()]  # fmt: skip
    [table] = board(base(), rows, law("sharp", kl_target=0.9), law("like p", kl_target=0.9)).tables
    [column] = [i for i, c in enumerate(table.columns) if c.key == "perplexity"]
    assert table.columns[column].heading == "perplexity → p"
    assert [row.label for row in table.rows if row.cells[column].best] == ["like p"]
