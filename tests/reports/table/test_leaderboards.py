"""Which rows share a table, in which order, with which columns and footnotes."""

from __future__ import annotations

from math import inf, nan

import pandas as pd
import pytest

from alignbench.errors import UnknownName
from alignbench.reports.rows import COLUMNS, tidy
from alignbench.reports.table.cells import shared_notes
from alignbench.reports.table.leaderboards import Cell, Table, common_signature, leaderboard, plain_text


def keys(table: Table) -> list[str]:
    """The columns, exact ones marked."""
    return [c.key + ("!" if c.exact else "") for c in table.columns]


def cell(table: Table, label: str, key: str) -> Cell:
    """The cell of a row label and a column."""
    [row] = [r for r in table.rows if r.label == label]
    return row.cells[keys(table).index(key)]


def notes(table: Table, label: str, key: str) -> list[str]:
    """The footnotes of a cell."""
    return [table.footnotes[n - 1] for n in cell(table, label, key).notes]


@pytest.fixture
def table(rows: pd.DataFrame) -> Table:
    """The table of the first task."""
    return leaderboard(rows).tables[0]


def test_a_note_stands_at_the_head_of_a_column_where_every_measured_row_has_it() -> None:
    told = [{"value": 1.0, "note": "all; first"}, {"value": 2.0, "note": "second; all"}, {"value": nan, "note": "none"}]
    assert shared_notes(told) == ("all",) and shared_notes(told[:1]) == ()


def test_hashes_and_bases_never_share_a_table(rows: pd.DataFrame) -> None:
    other = rows.assign(base="gpt2", base_id="0ther")
    hashed = rows.assign(task_hash="other")
    board = leaderboard(pd.concat([rows, other, hashed]))
    seen = [(t.task, t.task_hash, t.base) for t in board]
    assert len(seen) == len(set(seen)) == 6
    assert leaderboard(rows.head(0)).tables == ()


def test_rows_are_sorted_by_the_primary_metric_and_pinned_ones_stand_below(table: Table) -> None:
    assert [row.label for row in table.rows] == [
        "rejection", "SmolLM2 (base)", "temperature:t=0.7", "best_of_n:n=4", "draws of p (ceiling)",
    ]  # fmt: skip
    assert [row.mark for row in table.rows] == ["", "base", "", "", "ceiling"]


def test_null_models_are_pinned_in_their_order(rows: pd.DataFrame) -> None:
    names = {"temperature:t=0.7": "copy", "best_of_n:n=4": "{name: constant, text: 'a, b'}"}
    marks = [row.mark for row in leaderboard(rows.replace({"aligner": names})).tables[0].rows]
    assert marks == ["", "base", "constant", "copy", "ceiling"]


def test_another_primary_metric_sorts_by_its_own_direction(rows: pd.DataFrame) -> None:
    rows["better"] = rows["better"].where(rows["metric"] != "perplexity", "higher")
    table = leaderboard(rows, primary={"gender_balance": "perplexity"}).tables[0]
    assert keys(table)[:2] == ["verdict", "perplexity"]
    labels = ["rejection", "best_of_n:n=4", "temperature:t=0.7"]
    assert [r.label for r in table.rows if r.label in labels] == labels
    assert leaderboard(rows, primary={"gender_balance": None}).tables[0].columns[1].key == "divergence.kl_target"


def test_default_columns_begin_with_the_primary_and_exact_follows(table: Table) -> None:
    assert keys(table) == [
        "verdict", "divergence.kl_target", "divergence.kl_target!", "satisfaction.share.she", "divergence.kl_base",
        "divergence.tv", "perplexity",
    ]  # fmt: skip
    headings = [c.heading for c in table.columns]
    assert headings == ["vs base", "kl_target ↓", "exact", "share.she", "kl_base ↓", "tv ↓", "perplexity → p"]


def test_a_metric_that_a_task_named_is_shown_even_where_it_has_no_number(rows: pd.DataFrame) -> None:
    first = rows[rows["task"] == rows["task"].iloc[0]]
    empty = first.assign(value=None, stderr=None, ci_low=None, ci_high=None, exact=None, part="", note="no references")
    named = pd.concat([first, empty.assign(metric="bleu"), empty.assign(metric="acceptance", part="rate")])
    table = leaderboard(named.drop_duplicates(["generator", "aligner", "metric", "part"])).tables[0]
    assert "bleu" in keys(table) and "acceptance.rate" not in keys(table)


@pytest.mark.parametrize(("name", "shown"), [("entropy", False), ("win_rate", False), ("vendi", True), ("mine", True)])
def test_a_metric_says_whether_it_is_a_detail(rows: pd.DataFrame, name: str, shown: bool) -> None:
    first = rows[rows["task"] == rows["task"].iloc[0]]
    more = first[first["metric"] == "perplexity"].assign(metric=name)
    assert (name in keys(leaderboard(pd.concat([first, more])).tables[0])) == shown


def test_metrics_pick_columns(rows: pd.DataFrame) -> None:
    [first, second] = leaderboard(rows, metrics=["perplexity", "divergence"])
    assert keys(first) == ["verdict", "perplexity", "divergence.kl_target", "divergence.kl_target!", "divergence.tv",
                           "divergence.kl_base"]  # fmt: skip
    assert keys(second) == ["divergence.kl_target"]
    picked = leaderboard(rows, metrics=["satisfaction.share"]).tables[0]
    assert keys(picked) == ["verdict", "satisfaction.share.she"]
    with pytest.raises(UnknownName, match="Did you mean 'perplexity'"):
        leaderboard(rows, metrics=["perplexitty"])


def test_cells_say_what_is_known(table: Table) -> None:
    assert cell(table, "SmolLM2 (base)", "divergence.kl_target").text == "0.412 ± 0.053"
    assert cell(table, "SmolLM2 (base)", "divergence.kl_target!").text == "0.4017"
    assert cell(table, "SmolLM2 (base)", "divergence.tv").text == "0.210 [0.120, 0.410]"
    assert cell(table, "temperature:t=0.7", "divergence.kl_target").text == "∞"
    assert cell(table, "temperature:t=0.7", "divergence.kl_target").value == inf
    assert cell(table, "best_of_n:n=4", "divergence.kl_target").text == "≥ 0.123"
    assert cell(table, "rejection", "divergence.tv").text == "—"
    assert cell(table, "best_of_n:n=4", "divergence.kl_target!").text == ""


def test_an_exact_zero_is_not_printed_as_its_rounding_error(rows: pd.DataFrame) -> None:
    rows["exact"] = -2.46e-17
    assert cell(leaderboard(rows).tables[0], "rejection", "divergence.kl_target!").text == "0"


def test_every_dash_bound_and_bare_number_has_a_footnote(table: Table) -> None:
    for row in table.rows:
        for c, column in zip(row.cells, table.columns, strict=True):
            assert c.spread or c.notes or column.exact or column.notes or column.key == "verdict"
    assert notes(table, "rejection", "divergence.tv") == ["fewer than 50 draws of p; 31 are too few"]
    assert notes(table, "best_of_n:n=4", "divergence.tv") == ["not reported"]
    assert notes(table, "best_of_n:n=4", "perplexity") == ["3 draws were cut"]


def test_what_all_cells_note_belongs_to_the_head(table: Table) -> None:
    heads = {c.key: [table.footnotes[n - 1] for n in c.notes] for c in table.columns if c.notes}
    assert heads == {
        "divergence.tv": ["the interval is a percentile bootstrap"],
        "perplexity": ["judge: the base model itself"],
    }
    assert len(set(table.footnotes)) == len(table.footnotes)


@pytest.mark.parametrize(
    ("numbers", "note"),
    [
        ({"value": nan}, "not measured; no reason was given"),
        ({"value": 0.5}, "no interval was given"),
        ({"value": nan, "ci_low": 0.1}, "a bound at 95 %"),
    ],
)
def test_what_nobody_explained_is_said(rows: pd.DataFrame, numbers: dict[str, float], note: str) -> None:
    rows = rows.head(1).assign(stderr=nan, ci_low=nan, ci_high=nan).assign(**numbers)
    assert leaderboard(rows).tables[0].footnotes == (note,)


def test_an_interval_is_made_from_a_standard_error(rows: pd.DataFrame) -> None:
    rows = rows.head(1).assign(value=1.0, stderr=0.1, ci_low=nan, ci_high=nan)
    assert leaderboard(rows).tables[0].rows[0].cells[0].text == "1.00 ± 0.20"


def test_a_repeated_run_counts_once(rows: pd.DataFrame) -> None:
    again = rows.assign(run_id="r2", value=rows["value"].astype(float) + 1)
    table = leaderboard(pd.concat([rows, again])).tables[0]
    assert len(table.rows) == 5
    assert cell(table, "SmolLM2 (base)", "divergence.kl_target").value == pytest.approx(1.412)


def titles(*parts: pd.DataFrame) -> list[str]:
    """The titles of the tables of the first task."""
    return [t.title for t in leaderboard(pd.concat(parts)) if t.task == "gender_balance"]


def test_a_title_says_what_tells_tables_of_one_task_apart(rows: pd.DataFrame) -> None:
    name = "gender_balance v1 · base SmolLM2"
    assert titles(rows) == [name]
    assert titles(rows, rows.assign(base_id="0ther")) == [f"{name} #ba5eba5e", f"{name} #0ther"]
    assert titles(rows, rows.assign(base_id="")) == [f"{name} #ba5eba5e", f"{name} #unknown"]
    assert titles(rows, rows.assign(base_id="0ther", base="gpt2")) == [name, "gender_balance v1 · base gpt2"]
    assert titles(rows, rows.assign(judge="gpt2")) == [f"{name} · judge the base", f"{name} · judge gpt2"]
    assert titles(rows, rows.assign(target_id="n3w")) == [
        f"{name} · λ differs: target #7a49e700", f"{name} · λ differs: target #n3w",
    ]  # fmt: skip
    assert titles(rows, rows.assign(task_hash="abc", target_id="n3w")) == [
        f"{name} · task #01234567", f"{name} · task #abc",
    ]  # fmt: skip
    assert titles(rows, rows.assign(task_hash="0123456789", target_id="n3w")) == [
        f"{name} · task #0123456789abcdef", f"{name} · task #0123456789",
    ]  # fmt: skip
    every = [rows.assign(base_id=b, judge=j, target_id=b + t) for b in "xy" for j in ("", "z") for t in "12"]
    assert len(set(titles(*every))) == 8


def test_one_base_under_two_names_is_one_table(rows: pd.DataFrame) -> None:
    again = rows.assign(base="other/name", generator=rows["generator"].replace("SmolLM2", "other/name"))
    [table, _] = leaderboard(pd.concat([rows, again]))
    assert {"SmolLM2 (base)", "other/name (base)"} <= {r.label for r in table.rows}
    assert titles(rows.assign(base_id=""), again.assign(base_id="")) == [
        "gender_balance v1 · base SmolLM2", "gender_balance v1 · base other/name",
    ]  # fmt: skip


def labels(*parts: pd.DataFrame) -> set[str]:
    """The labels of the first table."""
    return {r.label for r in leaderboard(pd.concat(parts)).tables[0].rows}


def test_a_generator_is_not_ranked_against_itself(rows: pd.DataFrame) -> None:
    """Of what was measured with 64 and with 128 draws the 128 stand; planted bug: both do, and share the first rank."""
    fewer = rows.assign(draws=64)
    assert labels(rows, fewer) == labels(rows)
    alone = fewer[fewer["aligner"] == "rejection"].assign(aligner="other")
    assert {"SmolLM2 (base, 128 draws)", "rejection (128 draws)", "other (64 draws)"} <= labels(rows, fewer, alone)
    [table, *_] = leaderboard(pd.concat([rows, fewer]))
    left = [line for line in table.legend if "left out: their generators have rows of more draws" in line]
    assert len(left) == 1 and len(table.rows) == len(leaderboard(rows).tables[0].rows)
    assert not any("left out: their" in line for line in leaderboard(rows).tables[0].legend)


def test_one_folder_under_two_names_is_one_row(rows: pd.DataFrame) -> None:
    """A checkpoint is `step-10` alone and `words/step-10` beside another: the newest name stands, once."""
    mine = rows[rows["aligner"] == "rejection"].assign(aligner="", generator_id="f00d")
    short = mine.assign(generator="step-10", measured="2026-01-01")
    longer = mine.assign(generator="words/step-10", measured="2026-01-02")
    for parts in ((short, longer), (longer, short)):
        found = {label for label in labels(rows, *parts) if "step-10" in label}
        assert found == {"words/step-10"}
    other = labels(rows, short, longer.assign(generator_id="beef"))
    assert {"step-10", "words/step-10"} <= other, "other weights"


def test_rows_of_one_name_say_what_differs(rows: pd.DataFrame) -> None:
    namesake = rows[(rows["generator"] == "SmolLM2") & (rows["aligner"] == "")].assign(generator_id="0ther")
    assert {"SmolLM2 (base, #ba5eba5e)", "SmolLM2 (#0ther)"} <= labels(rows, namesake)
    both = labels(rows, rows.assign(seed=7, draws=64, generator_id="x"))  # the fewest words that tell them apart
    assert {"SmolLM2 (base, 128 draws)", "SmolLM2 (64 draws)", "rejection (64 draws)"} <= both
    three = labels(rows, rows.assign(seed=7), rows.assign(seed=7, draws=64))  # a mean over seeds, and a seed alone
    assert {"rejection (128 draws)", "rejection (seed 7, 64 draws)"} <= three


def test_the_newest_measurement_replaces_the_whole_row(rows: pd.DataFrame) -> None:
    """Planted bug: the part that the newer run did not measure was taken from the older."""
    newer = rows[rows["metric"] == "divergence"].assign(
        run_id="r2", value=0.5, ci_low=0.4, ci_high=0.6, measured="2026-02-02T00:00:00+00:00"
    )
    for order in ([rows, newer], [newer, rows]):
        table = leaderboard(pd.concat(order)).tables[0]
        assert cell(table, "SmolLM2 (base)", "divergence.kl_target").value == 0.5
        assert notes(table, "SmolLM2 (base)", "perplexity") == ["not reported"]
        assert cell(table, "draws of p (ceiling)", "perplexity").value == 13.1


def test_the_primary_metric_may_come_with_the_rows(rows: pd.DataFrame) -> None:
    rows.attrs["primary"] = {"gender_balance": "perplexity"}
    assert keys(leaderboard(rows).tables[0])[1] == "perplexity"
    assert keys(leaderboard(rows, primary={}).tables[0])[1] == "divergence.kl_target"
    rows.attrs["primary"] = "perplexity"
    assert keys(leaderboard(rows).tables[0])[1] == "divergence.kl_target"


def test_an_aligner_on_another_model_says_which(rows: pd.DataFrame) -> None:
    other = rows[rows["generator"] == "SmolLM2"].assign(generator="gpt2")
    labels = {r.label for r in leaderboard(pd.concat([rows, other])).tables[0].rows}
    assert {"rejection", "gpt2 + rejection", "gpt2"} <= labels


@pytest.mark.parametrize(
    ("signatures", "common"),
    [
        ([], ""),
        (["alignbench|a:1|seed:0"], "alignbench|a:1|seed:0"),
        (["a:1|seed:0|seconds:3|b:2", "a:1|seed:1|seconds:4|b:2"], "a:1|b:2"),
        (["a:1", "b:2"], ""),
    ],
)
def test_a_signature_keeps_what_all_rows_share(signatures: list[str], common: str) -> None:
    assert common_signature(signatures) == common


def test_text_cannot_command_a_terminal() -> None:
    assert plain_text("a\x1b[31m\nb\t\u202ec\x00\ud800") == "a\ufffd[31m b \ufffdc\ufffd\ufffd"
    assert plain_text("naïve 中文 π") == "naïve 中文 π"


def test_rows_from_a_file_and_from_memory_make_the_same_tables(rows: pd.DataFrame) -> None:
    assert leaderboard(rows).tables == leaderboard(tidy(rows)[list(COLUMNS)]).tables
