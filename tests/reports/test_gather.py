"""Rows out of folders and files: all of them, each once, and a line that names the file for whatever is wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from math import inf
from pathlib import Path

import pandas as pd
import pytest
from tiny_world import BRIGHT, TASK

import alignbench
from alignbench.reports.gather import Gathered, gather
from alignbench.reports.rows import COLUMNS, read_rows, tidy, write_rows

ALIGNERS = ["rejection:cap=256", "best_of_n:n=3"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    """An output folder of a run of three generators beside draws of p, and the rows that it gave."""
    folder = tmp_path_factory.mktemp("made")
    task = folder / "tiny.yaml"
    task.write_text(TASK + BRIGHT + "metrics: [satisfaction, divergence]\nprimary: satisfaction.always\n")
    rows = alignbench.evaluate("exact:words=sun rain wind,seed=3", [str(task)], aligners=ALIGNERS, draws=20,
                               output_path=folder / "out")  # fmt: skip
    return folder / "out", rows


@pytest.fixture
def out(made: tuple[Path, pd.DataFrame], tmp_path: Path) -> Path:
    """A copy of that folder, with its leaderboard.csv."""
    folder, rows = made
    shutil.copytree(folder, tmp_path / "out")
    write_rows(tmp_path / "out" / "leaderboard.csv", rows)
    return tmp_path / "out"


def same(found: pd.DataFrame, wanted: pd.DataFrame) -> None:
    order = ["task", "generator", "aligner", "metric", "part"]
    plain = (rows.drop(columns="primary", errors="ignore") for rows in (found, wanted))
    first, second = (tidy(rows).sort_values(order).reset_index(drop=True) for rows in plain)
    pd.testing.assert_frame_equal(first, second, check_exact=True)


def fine(found: Gathered) -> pd.DataFrame:
    assert (found.failures, found.remarks) == ((), ())
    return found.rows


def only(lines: object) -> str:
    assert isinstance(lines, tuple) and len(lines) == 1, lines
    return str(lines[0])


def test_an_output_folder_gives_the_rows_of_its_runs(out: Path, made: tuple[Path, pd.DataFrame]) -> None:
    found = gather([out])
    same(fine(found), made[1])
    assert found.primary == {"tiny": "satisfaction.always"}


def test_what_the_last_table_lacks_is_in_the_results_of_earlier_runs(
    out: Path, made: tuple[Path, pd.DataFrame]
) -> None:
    """Planted bug: the CSV taken for all there is."""
    rows = made[1]
    write_rows(out / "leaderboard.csv", rows[rows["aligner"] == "rejection:cap=256"])
    same(fine(gather([out])), rows)
    (out / "leaderboard.csv").unlink()
    same(fine(gather([out])), rows)


def test_the_last_table_counts_before_the_results_of_the_same_measurement(out: Path) -> None:
    rows = read_rows(out / "leaderboard.csv").assign(note="scored again")
    write_rows(out / "leaderboard.csv", rows)
    same(fine(gather([out])), rows)


def test_of_two_results_of_one_measurement_the_one_scored_last_counts(out: Path) -> None:
    """Also where a run judged the same generator by another model: those are other rows."""
    (out / "leaderboard.csv").unlink()
    path = next(out.glob("exact+rejection_cap=256/results_*.json"))
    content = json.loads(path.read_text())
    scored_again = {**content, "rows": [{**row, "note": "scored again"} for row in content["rows"]]}
    judged = {**content, "rows": [{**row, "judge": "another", "note": "judged"} for row in content["rows"]]}
    path.with_name(f"{path.stem}z.json").write_text(json.dumps(scored_again))
    path.with_name("results_0.json").write_text(json.dumps(judged))
    rows = gather([out]).rows
    notes = rows.loc[rows["aligner"] == "rejection:cap=256"].groupby("judge")["note"].unique().to_dict()
    assert {judge: list(told) for judge, told in notes.items()} == {"": ["scored again"], "another": ["judged"]}


def test_a_newer_measurement_counts(out: Path, tmp_path: Path) -> None:
    """Planted bug: the path given first counts."""
    newer = read_rows(out / "leaderboard.csv").assign(measured="2999-01-01T00:00:00+00:00", n=7, generator_id="")
    old = newer.assign(measured="1999-01-01T00:00:00+00:00", n=5)
    write_rows(tmp_path / "old.csv", old)
    write_rows(tmp_path / "new.csv", newer)
    for paths in (["old.csv", "new.csv"], ["new.csv", "old.csv"]):
        found = gather([tmp_path / name for name in paths])
        assert set(found.rows["n"]) == {7} and not found.failures
        assert only(found.remarks).startswith(f"{tmp_path / 'old.csv'}: {len(old)} of its rows were measured again")


def test_the_same_rows_count_once(out: Path, tmp_path: Path) -> None:
    """Also where one path is a part of the other, or a row stands twice in a file."""
    rows = read_rows(out / "leaderboard.csv")
    found = gather([out, out / "exact+rejection_cap=256"])
    same(found.rows, rows)
    assert only(found.remarks).startswith(f"{out / 'exact+rejection_cap=256'}: ") and "there twice" in found.remarks[0]
    write_rows(tmp_path / "twice.csv", pd.concat([rows, rows.head(1)]))
    found = gather([tmp_path / "twice.csv"])
    same(found.rows, rows)
    assert "1 of its rows are there twice" in only(found.remarks) and not found.failures
    write_rows(tmp_path / "other.csv", rows.assign(value=rows["value"] * (1 + 1e-9), ci_low=None, ci_high=None))
    assert "differ from the same measurement" in " ".join(gather([out, tmp_path / "other.csv"]).remarks)


def test_a_generators_folder_gives_its_own_rows(out: Path) -> None:
    found = gather([out / "exact+best_of_n_n=3"])
    assert set(fine(found)["aligner"]) == {"best_of_n:n=3"} and len(found.rows)


def test_published_files_know_the_built_in_tasks(out: Path, tmp_path: Path) -> None:
    rows = read_rows(out / "leaderboard.csv").assign(task="instruction_following", task_version="1")
    folder = tmp_path / "published"
    write_rows(folder / "instruction_following.csv", rows)
    write_rows(folder / "leaderboard.csv", rows.assign(n=1))  # made from the others
    found = gather([folder])
    same(fine(found), rows)
    assert found.primary == {"instruction_following": "satisfaction.always"}
    write_rows(folder / "instruction_following.csv", rows.assign(task_version="99"))
    found = gather([folder])
    assert found.primary == {"instruction_following": "divergence.kl_target"}
    assert "says what the primary metric is; divergence.kl_target counts" in found.assumption[0]
    write_rows(folder / "both.csv", pd.concat([rows, rows.assign(task_version="99", task_hash="f" * 64)]))
    assert gather([folder / "both.csv"]).primary == {"instruction_following": "satisfaction.always"}
    assert gather([folder / "instruction_following.csv"]).rows["task_version"].unique().tolist() == ["99"]


def test_infinity_and_missing_numbers_survive_the_results(out: Path) -> None:
    (out / "leaderboard.csv").unlink()
    path = next((out / "exact").glob("results_*.json"))
    content = json.loads(path.read_text())
    content["rows"][0] |= {"value": "inf", "stderr": None, "ci_low": "-inf", "ci_high": None}
    path.write_text(json.dumps(content))
    rows = gather([out]).rows
    row = rows[(rows["generator"] == "exact") & (rows["aligner"] == "")].iloc[0]
    assert (row["value"], row["ci_low"]) == (inf, -inf) and pd.isna(row["stderr"]) and pd.isna(row["ci_high"])


def test_what_sorts_a_task_of_ones_own_is_published_with_its_rows(out: Path, tmp_path: Path) -> None:
    """Planted bug: rows without it are sorted by the default, so that tables made from them alone differ."""
    write_rows(tmp_path / "published" / "tiny.csv", gather([out]).rows)
    found = gather([tmp_path / "published"])
    assert found.primary == {"tiny": "satisfaction.always"} and not found.assumed
    same(fine(found), gather([out]).rows)


def test_different_tasks_of_one_name_are_told(out: Path, tmp_path: Path) -> None:
    rows = read_rows(out / "leaderboard.csv")
    write_rows(tmp_path / "b.csv", rows.assign(task_version="2", task_hash="f" * 64))
    found = gather([out, tmp_path / "b.csv"])
    assert len(found.rows) == 2 * len(rows) and not found.failures
    told = only(found.remarks)
    assert "task 'tiny': there are 2 tasks of this name (v1 #" in told
    assert f" in {out}, v2 #ffffffff in {tmp_path / 'b.csv'})" in told


def test_who_lacks_the_primary_metric_is_told(out: Path, tmp_path: Path) -> None:
    rows = read_rows(out / "leaderboard.csv")
    lacks = (rows["aligner"] == "rejection:cap=256") & (rows["metric"] == "satisfaction")
    write_rows(tmp_path / "b.csv", rows[~lacks])
    (tmp_path / "task_tiny.json").write_text('{"primary": "satisfaction.always"}')
    (tmp_path / "b.csv").rename(tmp_path / "leaderboard.csv")
    shutil.rmtree(out)
    told = only(gather([tmp_path]).remarks)
    assert told == "task 'tiny': exact + rejection:cap=256 did not report satisfaction.always, by which it is sorted"


def run_file(folder: Path) -> Path:
    return next((folder / "exact+rejection_cap=256").glob("run_*.json"))


@pytest.mark.parametrize(
    ("status", "says"),
    [("running", "is half-written"), ("interrupted", "is half-written"), ("failed", "the run failed: no luck")],
)
def test_a_run_that_led_to_nothing_is_told(out: Path, status: str, says: str) -> None:
    path = run_file(out)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"status": status, "error": "no\nluck"}))
    fine(gather([out]))  # its rows are there: another run brought them
    for results in path.parent.glob("results_*.json"):
        results.unlink()
    rows = read_rows(out / "leaderboard.csv")
    write_rows(out / "leaderboard.csv", rows[rows["aligner"] != "rejection:cap=256"])
    found = gather([out])
    assert set(found.rows["aligner"]) == {"", "best_of_n:n=3"}
    assert str(found.failures[0]).startswith(f"{path}: ") and says in found.failures[0]
    assert "exact+rejection_cap=256/evidence_tiny_" in found.failures[1] and "`alignbench score" in found.failures[1]
    assert len(found.failures) == 2


Change = Callable[[Path], object]


@pytest.mark.parametrize(
    ("file", "change", "says"),
    [
        ("leaderboard.csv", lambda p: p.write_text("a,b\n1,2\n"), "it lacks the columns run_id"),
        ("leaderboard.csv", lambda p: p.write_bytes(b"\xff\xfe"), "cannot be read as results"),
        ("exact/results_x.json", lambda p: p.write_text("{"), "cannot be read"),
        ("exact/results_x.json", lambda p: p.write_text("[]"), "is no mapping"),
        ("exact/results_x.json", lambda p: p.write_text('{"results": {}}'), "has no rows of alignbench"),
        ("exact/results_x.json", lambda p: p.write_text('{"rows": [{"task": "a"}]}'), "a row lacks aligner"),
        ("exact/run_x.json", lambda p: p.write_text("{}"), "is no run file of alignbench"),
        ("task_x.json", lambda p: p.write_text("nothing"), "cannot be read"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_told_and_the_others_are_read(
    out: Path, made: tuple[Path, pd.DataFrame], file: str, change: Change, says: str
) -> None:
    change(out / file)
    found = gather([out])
    same(found.rows, made[1])
    assert only(found.failures).startswith(f"{out / file}: ") and says in found.failures[0]
    assert "\n" not in found.failures[0]


def test_paths_without_results_are_told(out: Path, tmp_path: Path) -> None:
    shutil.copytree(out, tmp_path / "above" / "b")
    (tmp_path / "empty").mkdir()
    (tmp_path / "none.csv").write_text(",".join(COLUMNS) + "\n")
    found = gather([tmp_path / "absent", tmp_path / "empty", tmp_path / "none.csv", tmp_path / "above", out])
    absent, empty, none, hint = found.failures
    assert "absent: does not exist; give the --output_path of a run" in absent
    assert "empty: holds no results; give" in empty and "none.csv: holds no results" in none
    assert len(found.rows) and f"above: holds no results; did you mean {tmp_path / 'above' / 'b'}?" in hint


def edited(path: Path, *changes: tuple[str, str]) -> list[str]:
    """The failures about a CSV after some of its text was changed, and that no more than one row is lost."""
    text = path.read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    (path.parent / "edited.csv").write_text(text, encoding="utf-8")
    found = gather([path.parent / "edited.csv"])
    assert len(found.rows) >= len(read_rows(path)) - 1
    return [line.removeprefix(f"{path.parent / 'edited.csv'}: ") for line in found.failures]


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("about 0.4", "line 2, column 'value': 'about 0.4' is no number; the row is left out"),
        ("nan", "line 2, column 'value': 'nan' is no number; leave the cell empty and say why in the note; the row is"),
        ("9.5", "line 2: the value is outside its limits; the row is left out"),
        ("0.4,0.4", "line 2: has 30 cells, the first line 29; the row is left out"),
        ('"0,4"', "line 2, column 'value': '0,4' is no number; the row is left out"),
    ],
)
def test_a_number_changed_by_hand_is_told(rows: pd.DataFrame, tmp_path: Path, cell: str, says: str) -> None:
    write_rows(tmp_path / "a.csv", rows)
    told = edited(tmp_path / "a.csv", (",kl_target,0.412,", f",kl_target,{cell},"))
    assert told[0].startswith(says) and len(told) == 1


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (",lower,", ",smaller,", "line 2: column 'better' says neither lower nor higher"),
        ("ba5eba5e,SmolLM2,ba5eba5e", "1.23E+10,SmolLM2,ba5eba5e", "line 2: column 'generator_id' is no 8 digits"),
        (",divergence,", ",,", "line 2: column 'metric' is empty"),
        (",0.412,0.0", ",0.412,-0.0", "line 2: column 'stderr' is negative"),
        (",128,", ",128.5,", "line 2, column 'n': '128.5' is no whole number"),
    ],
)
def test_words_that_contradict_are_told(rows: pd.DataFrame, tmp_path: Path, old: str, new: str, says: str) -> None:
    write_rows(tmp_path / "a.csv", rows)
    assert edited(tmp_path / "a.csv", (old, new))[0].startswith(says)


@pytest.mark.parametrize("words", ["0.4 abc 0.5", "0.4 nan 0.5", "0.4,0.5", "1-2 3"])
def test_replicates_changed_by_hand_are_told(rows: pd.DataFrame, tmp_path: Path, words: str) -> None:
    """Planted bug: a traceback."""
    kept = rows.assign(replicates=[words, "-1e-05 2.5 1.2345678e+08", *[""] * (len(rows) - 2)])
    write_rows(tmp_path / "a.csv", kept)
    told = only(gather([tmp_path / "a.csv"]).failures)
    assert told.endswith("line 2: column 'replicates' has words that are no numbers; the row is left out")


def test_another_direction_than_the_other_rows_say_is_told(rows: pd.DataFrame, tmp_path: Path) -> None:
    write_rows(tmp_path / "a.csv", pd.concat([rows, rows.head(1).assign(better="higher", seed=1)]))
    assert "other rows of its metric say another way is better" in only(gather([tmp_path / "a.csv"]).failures)


def test_rows_without_number_and_reason_are_told_and_kept(rows: pd.DataFrame, tmp_path: Path) -> None:
    silent = rows.assign(note="", value=None, ci_low=None, ci_high=None)
    write_rows(tmp_path / "a.csv", silent)
    found = gather([tmp_path / "a.csv"])
    assert len(found.rows) == len(rows) and "line 2: there is neither a number nor a note" in found.failures[0]
    assert len(found.failures) == 4 and f"{len(rows) - 3} more rows have neither" in found.failures[3]


@pytest.mark.parametrize(("sign", "says"), [(";", "semicolons stand between"), ("\t", "tabs stand between")])
def test_what_a_spreadsheet_saves_is_told(rows: pd.DataFrame, tmp_path: Path, sign: str, says: str) -> None:
    rows.to_csv(tmp_path / "a.csv", index=False, sep=sign)
    assert says in only(gather([tmp_path / "a.csv"]).failures)


def test_an_open_quote_costs_the_rows_that_it_swallows_and_no_others(rows: pd.DataFrame, tmp_path: Path) -> None:
    write_rows(tmp_path / "a.csv", rows)
    lines = (tmp_path / "a.csv").read_text().splitlines(keepends=True)
    (tmp_path / "cut.csv").write_text("".join(lines[:4]) + '"half a ro')  # as a copy that was cut off
    (tmp_path / "open.csv").write_text("".join([*lines[:3], '"', *lines[3:5]]))
    (tmp_path / "odd.csv").write_text("".join([*lines[:3], '"a"b' + lines[3], *lines[4:5]]))
    for name, kept, says in (
        ("cut.csv", [0, 1, 2], "line 5: unexpected end of data; the row is left out"),
        ("open.csv", [0, 1], "line 4 up to line 5: unexpected end of data; the row is left out"),
        ("odd.csv", [0, 1, 3], "line 4: ',' expected after '\"'; the row is left out"),
    ):
        found = gather([tmp_path / name])
        same(found.rows, rows.iloc[kept])
        assert found.failures[0] == f"{tmp_path / name}: {says}"


def test_means_over_seeds_are_left_to_the_tables(rows: pd.DataFrame, tmp_path: Path) -> None:
    from alignbench.reports.table.seeds import with_means

    seeds = tidy(pd.concat([rows.assign(seed=s, target_id=f"7a49e70{s}") for s in (0, 1)]))
    write_rows(tmp_path / "a.csv", with_means(seeds))
    found = gather([tmp_path / "a.csv"])
    assert not found.failures and len(found.rows) == len(seeds) and "seeds" not in found.rows


def test_what_a_task_asks_is_what_its_run_says(out: Path) -> None:
    assert gather([out]).summaries == {"tiny": "A world of three words."}
    path = out / "task_tiny.json"
    told = json.loads(path.read_text())
    path.write_text(json.dumps({**told, "summary": "two\nlines\x1b[31m " + "x" * 700}))
    said = gather([out]).summaries["tiny"]
    assert said.startswith("two lines\ufffd[31m xx") and said.endswith("x…") and len(said) == 600
    for nothing in ("", None, 5, ["x"]):
        path.write_text(json.dumps({**told, "summary": nothing}))
        found = gather([out])
        assert found.summaries == {} and found.failures == ()


@pytest.mark.parametrize(("version", "known"), [(2, True), (1, False), (22, False)])
def test_what_a_built_in_task_asks_is_known_without_a_run(
    rows: pd.DataFrame, tmp_path: Path, version: int, known: bool
) -> None:
    """Of that version alone."""
    write_rows(tmp_path / "a.csv", rows.assign(task_version=version))
    said = gather([tmp_path / "a.csv"]).summaries
    assert set(said) == ({"gender_balance"} if known else set() if version != 1 else {"lexical_word"})
    assert not known or said["gender_balance"].startswith("Continuations of sentences about six occupations")


def test_a_leaderboard_keeps_what_its_tasks_ask(made: tuple[Path, pd.DataFrame], rows: pd.DataFrame) -> None:
    assert made[1].attrs["summaries"] == {"tiny": "A world of three words."}
    assert alignbench.leaderboard(made[1]).asked.summaries == {"tiny": "A world of three words."}
    assert alignbench.leaderboard(rows).asked.summaries == {}
