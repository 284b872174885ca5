"""What the page takes from a leaderboard: charts of the same rows, and of each row its own draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import pandas as pd
from chart_rows import WORDS, frame, of

from alignbench.reports.examples import Example, Shown
from alignbench.reports.formats.html import to_html
from alignbench.reports.formats.page.drawn import of_table
from alignbench.reports.formats.page.sections import sections
from alignbench.reports.table import standing
from alignbench.reports.table.board import Leaderboard
from alignbench.reports.table.leaderboards import leaderboard
from alignbench.run.rows import RowKey

IDS = {"base_id": "ba5e", "target_id": "7a49", "generator_id": "9e4e", "draws": 4, "judge": "", "measured": "2026"}


def shown(rows: pd.DataFrame) -> list[Shown]:
    """A draw of everything that was measured, whose text says which it is."""
    names = [f.name for f in fields(RowKey)]
    units = rows.drop_duplicates(["task_hash", "target_id", "generator", "generator_id", "aligner", "seed", "draws"])
    keys = [RowKey(**{k: v for k, v in unit.items() if k in names}) for unit in units.to_dict("records")]
    return [Shown(key, (Example("p", 0, said(key), True, {}, None, None, None, None),)) for key in keys]


def said(key: RowKey) -> str:
    return f"{key.task_hash} {key.target_id} {key.generator}/{key.generator_id} {key.seed} {key.draws}"


def drawn(board: Leaderboard, draws: Sequence[Shown]) -> list[dict[str, str]]:
    """Of each table: label → the text of its first draw."""
    labels = [[row.label for row in table.rows] for table in board]
    return [
        {of_its[n - 1]: some[0].text for n, some in of_table(table, draws).items()}
        for of_its, table in zip(labels, board, strict=True)
    ]


def test_a_page_with_a_baseline_has_charts() -> None:
    """Planted bugs: charts of rows arranged anew lack its label; differences are drawn too."""
    board = leaderboard(WORDS, baseline="greedy", metrics=["divergence.kl_target"])
    [section] = sections(board)
    assert "greedy (baseline)" in {p.label for p in section.scatters[0].points}
    assert [row.label for row in section.reached] == [r.label for r in board.tables[0].rows if r.label in {
        p.label for p in section.scatters[0].points}]  # fmt: skip
    names = [[panel.name for panel in bars.panels] for bars in section.bars]
    assert names == [["always", "share.pronoun.she"], ["kl_target", "kl_base"]]
    assert "greedy (baseline)" in to_html(board)


def test_charts_of_the_page_compare_nothing_again(monkeypatch) -> None:
    """Ranks and ties take most of the time of a large leaderboard, and charts show none."""
    board = leaderboard(WORDS)
    monkeypatch.setattr(standing, "ranks", None)
    monkeypatch.setattr(standing, "tied", None)
    assert '<svg class="chart"' in to_html(board)


def test_versions_that_share_a_table_have_no_charts() -> None:
    """They may want different things, of which a chart would show one."""
    rows = pd.concat([WORDS, WORDS.assign(task_version="2", task_hash="beef")])
    board = leaderboard(rows, allow_mixed=True)
    page = to_html(board)
    assert (
        len(board) == 1 and "No charts: versions of a task are not comparable" in page and 'class="chart"' not in page
    )
    assert page.count("No charts") == 1 and "No charts" not in to_html(leaderboard(rows))


def test_each_row_has_its_own_draws() -> None:
    """Rows of one name that differ by digits; planted bug: names alone do not tell them apart.

    Of one that was measured with fewer draws too, those with the most.
    """
    rows = frame(*(of("org/m", 0.5, 0.1, **IDS | own) for own in ({}, {"draws": 64}, {"generator_id": "0dd"})))
    board = leaderboard(rows)
    [found] = drawn(board, shown(rows))
    assert found == {
        "org/m (64 draws)": "cafe 7a49 org/m/9e4e 0 64",
        "org/m (4 draws)": "cafe 7a49 org/m/0dd 0 4",
    }
    assert drawn(board, shown(rows.assign(draws=5))) == drawn(board, shown(rows.assign(judge="x"))) == [{}]


def test_a_mean_over_seeds_has_the_draws_of_the_first() -> None:
    seeds = [
        of("greedy", 0.5 + s / 10, 0.1, **IDS | {"seed": s, "target_id": f"7a49{s}", "generator_id": f"9e4e{s}"})
        for s in (2, 1)
    ]
    alone = of("org/m", 0.5, 0.1, **IDS | {"seed": 2, "target_id": "7a492"})
    board = leaderboard(frame(*seeds, alone))
    assert drawn(board, shown(frame(*seeds, alone))) == [
        {"greedy": "cafe 7a491 m/9e4e1 1 4", "org/m (seed 2)": "cafe 7a492 org/m/9e4e 2 4"}
    ]
    assert "draws of its first seed" in to_html(board, shown(frame(*seeds, alone)))


def test_versions_that_share_a_table_have_their_own_draws() -> None:
    rows = frame(
        *(of("org/m", 0.5, 0.1, **IDS, task_hash=h, task_version=v) for h, v in (("cafe", "1"), ("beef", "2")))
    )
    [found] = drawn(leaderboard(rows, allow_mixed=True), shown(rows))
    assert sorted(text[:4] for text in found.values()) == ["beef", "cafe"]
