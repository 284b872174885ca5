"""Several tasks as one table."""

from __future__ import annotations

from math import inf

import pandas as pd
from test_standing import cell

from alignbench.reports.table.leaderboards import Leaderboard, Table, leaderboard


def on(task: str, **values: float | None) -> list[dict[str, object]]:
    """Rows of one task."""
    return [cell(name, x, i, task=task, task_hash=task * 16) for i, (name, x) in enumerate(values.items())]


def board(*rows: list[dict[str, object]]) -> Leaderboard:
    """A leaderboard of tasks."""
    return leaderboard(pd.DataFrame([row for part in rows for row in part]))


def texts(table: Table) -> dict[str, list[str]]:
    """What the cells of each row say."""
    return {row.label: [c.text for c in row.cells] for row in table.rows}


def test_mean_ranks_are_over_the_rows_that_no_task_misses() -> None:
    """Planted bug: a row that was on the easy task alone had the best mean rank."""
    [suite] = board(on("a", x=1.0, y=2.0, z=3.0, lone=0.1), on("b", x=5.0, y=4.0, z=None), on("c", x=1.0, y=2.0)).suite
    assert [c.heading for c in suite.columns] == ["mean rank ↓", "tasks", "a", "b", "c"]
    found = texts(suite)
    assert list(found) == ["x", "y", "z"]
    assert found["x"] == ["1.333 [1.333, 1.333]", "3", "2 [2, 2]", "2 [2, 2]", "1 [1, 1]"]
    assert found["z"] == ["—", "1", "4 [4, 4]", "—", "—"]
    [z] = [row for row in suite.rows if row.label == "z"]
    assert [suite.footnotes[c.notes[0] - 1] for c in z.cells if c.notes] == [
        "a task is missing", "no number to rank by", "no result",
    ]  # fmt: skip
    assert "among the 2 rows" in suite.legend[0] and suite.legend[1] == "Not shown: rows of one task alone (1)."


def test_rows_that_are_infinite_everywhere_lead_no_suite() -> None:
    """Planted bug: the only rows without a gap, all of them at ∞, had a mean rank, and better ones had none."""
    [suite] = board(on("a", x=1.0, y=inf, z=inf), on("b", x=None, w=1.0, y=inf, z=inf)).suite
    assert {row.cells[0].text for row in suite.rows} == {"—"}
    found = {row.label: suite.footnotes[row.cells[0].notes[0] - 1] for row in suite.rows}
    assert found["x"] == "a task is missing" and "equal on every task" in found["y"] == found["z"]


def test_one_task_or_two_bases_make_no_suite() -> None:
    assert board(on("a", x=1.0, y=2.0)).suite == ()
    others = [{**row, "base": "n", "generator": "n"} for row in on("b", x=1.0, y=2.0)]
    assert board(on("a", x=1.0, y=2.0), others).suite == ()


def test_pinned_rows_take_no_part() -> None:
    base = [cell("", 0.5, task=task, task_hash=task * 16) for task in "ab"]
    [suite] = board(on("a", x=1.0, y=2.0), on("b", x=1.0, y=2.0), base).suite
    assert [row.label for row in suite.rows] == ["x", "y"] and suite.title == "suite · base m · 2 tasks"


def test_one_short_label_of_two_generators_has_digits() -> None:
    """Planted bug: generators with other texts on each task were taken for one."""
    long = "{{name: rejection, cap: 64, proposal: {{name: prompt, text: {}, chat: true}}}}"
    rows = [
        on(task, **{long.format(text): 1.0, "x": 2.0})
        for task, text in zip("abab", ("one", "one", "two", "two"), strict=True)
    ]
    rows[2:] = [[r for r in part if r["aligner"] != "x"] for part in rows[2:]]
    [suite] = board(*rows).suite
    assert len({row.label for row in suite.rows}) == 3
