"""What the page takes from a leaderboard: charts of the same rows, and of each row its own draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from math import nan

import pandas as pd
from chart_rows import WORDS, frame, of
from many_rows import many_rows

from alignbench.reports.examples import Example, Shown
from alignbench.reports.formats.html import shape, to_html
from alignbench.reports.formats.page.drawn import of_table
from alignbench.reports.formats.page.sections import FIRST, grids, sections
from alignbench.reports.table import standing
from alignbench.reports.table.board import Arrangement, Leaderboard
from alignbench.reports.table.brief import kept
from alignbench.reports.table.leaderboards import arranged, leaderboard
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


def test_a_page_with_a_baseline_has_its_label_and_differences() -> None:
    board = leaderboard(WORDS, baseline="greedy", metrics=["divergence.kl_target"])
    [section] = sections(board)
    assert "greedy (baseline)" in {line.row.label for line in section.lines} and "Δ" in to_html(board)


def test_the_page_compares_nothing_again(monkeypatch) -> None:
    """Ranks and ties take most of the time of a large leaderboard, and a page shows what is there."""
    board = leaderboard(WORDS)
    monkeypatch.setattr(standing, "ranks", None)
    monkeypatch.setattr(standing, "tied", None)
    assert '<svg class="chart" viewBox' in to_html(board)


def test_versions_that_share_a_table_have_no_charts() -> None:
    """They may want different things, of which a chart would show one."""
    mixed = pd.concat([WORDS, WORDS.assign(task_version="2", task_hash="beef")])
    page = to_html(leaderboard(mixed, allow_mixed=True))
    assert '<svg class="chart" viewBox' not in page and "Rows of 2 versions of the task" in page
    assert page.count('class="task"') == 1 < to_html(leaderboard(mixed)).count('class="task"')


def test_the_first_rows_are_those_of_the_terminal() -> None:
    """The base in its place, what is nearer before the rest; the others behind a button."""
    board = arranged(many_rows(1, 30), Arrangement())
    [section] = sections(board)
    shown = [line.row.label for line in section.lines if line.first]
    brief = board.tables[0].brief
    assert brief is not None and shown == [row.label for row in kept(brief.rows, FIRST)]
    assert len(shown) == FIRST and "base" in shown and section.more == len(section.lines) - FIRST


def test_a_row_of_fewer_draws_has_a_badge_in_place_of_notes() -> None:
    """Of how many draws all its numbers are; what one number lacks stays a note."""
    said = "3 of 64 draws left out: their proposals ran out"
    rows = many_rows(1, 4)
    some = rows["aligner"].str.startswith("best") & (rows["metric"] != "perplexity")
    odd = rows["aligner"].str.startswith("best") & (rows["metric"] == "perplexity")
    rows.loc[some, "note"] = said
    rows.loc[odd, "note"] = "5 of 64 draws are empty"
    [section] = sections(arranged(rows, Arrangement()))
    with_badge = {line.row.label: line for line in section.lines if line.partly}
    assert len(with_badge) == rows.loc[some, "aligner"].nunique()
    for line in with_badge.values():
        notes = [section.footnotes[n - 1] for cell in line.cells for n in cell.notes]
        assert line.partly == "61/64" and line.why == (said,) and said not in notes
        assert "5 of 64 draws are empty" in notes and said not in section.footnotes


def test_no_number_of_the_page_lacks_its_limits() -> None:
    """Planted bug: perplexity without limits, as a terminal has it, though the page has room and no other column."""
    [section] = sections(arranged(many_rows(1, 6), Arrangement()))
    ppl = next(i for i, head in enumerate(section.heads) if head.column.key == "perplexity")
    known = [line.cells[ppl] for line in section.lines if line.cells[ppl].value is not None]
    assert known and all(cell.spread for cell in known)


def test_no_note_is_lost() -> None:
    """Planted bug: columns that the whole table lacks had no notes, though the page promises a reason for each `—`."""
    rows = many_rows(1, 6)
    empty = rows["part"].isin(["kl_asked", "kl_collateral"]) & rows["aligner"].str.startswith("best")
    rows.loc[empty, ["value", "stderr", "ci_low", "ci_high"]] = nan
    rows.loc[empty, "note"] = "9 draws of p, 10 are needed"
    [section] = sections(arranged(rows, Arrangement()))
    asked = next(i for i, head in enumerate(section.heads) if head.column.key == "divergence.kl_asked")
    for line in section.lines:
        if line.row.label.startswith("best"):
            assert [section.footnotes[n - 1] for n in line.cells[asked].notes] == ["9 draws of p, 10 are needed"]
    every = {n for line in section.lines for cell in line.cells for n in cell.notes}
    every |= {n for head in section.heads for n in head.notes} | {n for line in section.lines for n in line.row.notes}
    assert every == set(range(1, len(section.footnotes) + 1))


def test_curves_say_which_family_is_which() -> None:
    """Planted bug: the page has one legend of verdicts, and the names of families were left out with it."""
    rows = many_rows(1, 20)
    steps = rows[rows["step"].notna()]
    runs = pd.concat(
        [rows, steps.assign(generator="two/" + steps["generator"], generator_id="0dd" + steps["generator_id"])]
    )
    [section] = sections(arranged(runs, Arrangement()))
    training = next(figure for figure in section.figures if figure.name == "Training")
    assert training.families == (("line 1", "out/step-*"), ("line 2", "two/out/step-*"))
    assert all("l-line-1 dot" in picture and "l-line-2 dot" in picture for picture in training.pictures)
    page = to_html(arranged(runs, Arrangement()))
    for look, family in training.families:
        assert f"<span>{shape(look)}<bdi>{family}</bdi></span>" in page


def test_a_difference_stands_beside_its_number() -> None:
    [section] = sections(arranged(many_rows(1, 6), Arrangement(baseline="temperature:t=0.5")))
    heads = [(head.column.key, head.column.delta) for head in section.heads if not head.group]
    place = heads.index(("divergence.kl_target", False))
    assert heads[place + 1] == ("divergence.kl_target", True)


def test_two_bases_have_grids_of_their_own_tasks() -> None:
    """Planted bug: both grids led to the sections of the second base."""
    other = many_rows(2, 6).replace({"base": {"SmolLM2": "Other"}, "generator": {"SmolLM2": "Other"}})
    other = other.assign(base_id="0ther")
    board = arranged(pd.concat([many_rows(2, 6), other]), Arrangement())
    for grid in grids(board):
        assert [board.tables[n - 1].base for _, n in grid.tasks] == [grid.table.base] * 2
    assert "<title>2 tasks on 2 bases</title>" in to_html(board)


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
