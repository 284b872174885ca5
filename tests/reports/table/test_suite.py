"""Several tasks as one table: verdicts counted, and what each task says."""

from __future__ import annotations

from typing import Any

from test_verdict import base, board, law, record

from alignbench.reports.table.leaderboards import Table
from alignbench.reports.table.suite import CHEAPEST


def better(name: str, task: str, kl: float = 0.5) -> list[dict[str, Any]]:
    """A row that is better than the base."""
    return law(name, task=task, kl_target=kl, kl_asked=kl, kl_target_vs_base=kl - 1, kl_asked_vs_base=kl - 1)


def worse(name: str, task: str) -> list[dict[str, Any]]:
    """A row that is worse."""
    return law(name, task=task, kl_target=2.0, kl_asked=1.5, kl_target_vs_base=1.0, kl_asked_vs_base=0.5)


def texts(table: Table) -> dict[str, list[str]]:
    """What the cells of each row say, but for the first, which has the best at little cost."""
    assert table.rows[0].mark == CHEAPEST
    return {row.label: [c.text for c in row.cells] for row in table.rows[1:]}


def test_verdicts_are_counted_and_missing_cells_with_them() -> None:
    """Planted: a row that had one easy task alone led the suite by its mean rank."""
    tasks = [base(task=task) for task in "abc"]
    rows = [*[better("x", task) for task in "abc"], better("y", "a"), worse("y", "b"), better("lone", "c", 0.1)]
    [suite] = board(*tasks, *rows).suite
    assert [c.heading for c in suite.columns] == ["better", "trade", "same", "unclear", "worse", "—", "a", "b", "c"]
    assert texts(suite) == {
        "x": ["3", "0", "0", "0", "0", "0", "better .50", "better .50", "better .50"],
        "lone": ["1", "0", "0", "0", "0", "2", "—", "—", "better .10"],
        "y": ["1", "0", "0", "0", "1", "1", "better .50", "worse 1.50", "—"],
    }


def test_more_better_then_more_trade_then_fewer_worse() -> None:
    tasks = [base(task=task) for task in "ab"]
    trade = [law("t", task=task, kl_target=1.0, kl_target_vs_base=0.0, kl_asked_vs_base=-0.5) for task in "ab"]
    rows = [*[worse("w", task) for task in "ab"], *trade, better("b", "a"), worse("b", "b")]
    [suite] = board(*tasks, *rows).suite
    assert list(texts(suite)) == ["b", "t", "w"]


def test_one_task_two_bases_or_no_verdict_make_no_suite() -> None:
    assert board(base(), better("x", "a")).suite == ()
    others = [{**row, "base": "n", "generator": "n"} for part in (base(task="b"), better("x", "b")) for row in part]
    assert board(base(), better("x", "a"), others).suite == ()
    silent = [law("x", task=task, kl_target=None) for task in "ab"]
    assert board(base(task="a"), base(task="b"), *silent).suite == ()


def test_the_base_takes_no_part() -> None:
    [suite] = board(base(task="a"), base(task="b"), better("x", "a"), better("x", "b")).suite
    assert list(texts(suite)) == ["x"] and suite.title == "suite · base m · 2 tasks"


def test_one_short_label_of_two_generators_has_digits() -> None:
    """Planted bug: generators with other texts on each task were taken for one."""
    long = "{{name: rejection, cap: 64, proposal: {{name: prompt, text: {}, chat: true}}}}"
    rows = [better(long.format(text), task) for task, text in (("a", "one"), ("b", "one"), ("a", "two"), ("b", "two"))]
    rows += [better(long.format("three"), "a"), better(long.format("four"), "b")]
    [suite] = board(base(task="a"), base(task="b"), *rows).suite
    assert len(texts(suite)) == len(suite.rows) - 1 == 4


def test_three_findings_and_the_best_at_little_cost() -> None:
    """Planted bugs: the nearest row whatever it costs; tasks without a cheap one left out."""

    def calls(name: str, task: str, number: float) -> list[dict[str, Any]]:
        return [record(name, "cost", "calls_per_draw", number, None, task=task)]

    rows = [[*base(task=task), *calls("", task, 40)] for task in "abc"]
    rows += [[*better("dear", task, 0.1), *calls("dear", task, 160)] for task in "abc"]
    rows += [[*better("cheap", "a", 0.5), *calls("cheap", "a", 50)], worse("cheap", "b"), worse("cheap", "c")]
    rows += [[row for task in "abc" for row in worse("bad", task)]]
    [suite] = board(*rows).suite
    assert [cell.point for cell in suite.rows[0].cells[-3:]] == ["cheap", "base", "base"]
    assert suite.conclusion.splitlines() == [
        "dear is better than the base on 3 of 3 tasks, at 4.0× its calls.",
        "At up to 1.5× its calls the best is cheap on 1; on 2 no row is better.",
        "Worse than doing nothing: bad on 3, cheap on 2 of 3 tasks.",
    ]
