"""The results table survives its CSV file to the last bit."""

from __future__ import annotations

from math import inf, pi
from pathlib import Path

import pandas as pd
import pytest

from alignbench.errors import StoreError
from alignbench.reports.rows import COLUMNS, DIGEST, NEEDED, NUMBERS, read_rows, tidy, write_rows


def test_rows_round_trip(rows: pd.DataFrame, tmp_path: Path) -> None:
    rows["seconds"] = [pi / (i + 1) * 10.0 ** (i - 9) for i in range(len(rows))]
    write_rows(tmp_path / "a.csv", rows)
    back = read_rows(tmp_path / "a.csv")
    pd.testing.assert_frame_equal(back, tidy(rows), check_exact=True)
    assert list(back.columns) == list(COLUMNS)
    assert (back["value"] == inf).sum() == 1


def test_the_file_says_inf_and_leaves_missing_empty(rows: pd.DataFrame, tmp_path: Path) -> None:
    write_rows(tmp_path / "a.csv", rows)
    lines = (tmp_path / "a.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == ",".join((*COLUMNS, DIGEST))
    assert any(",kl_target,inf,,,," in line for line in lines)
    assert "nan" not in "\n".join(lines).lower().replace("perplexity", "")


@pytest.mark.parametrize(
    "text",
    ["a,b", 'say "x"', "two\nlines", "cr\rlf\r\n", "cr\r", " spaced ", "NA", "null", "nan", "é∞π", "=1+1", "'=1", "''",
     "'tis", "-0.3", "\ufeff", "a\0b", "\t@x\r-1\n+2;'=3", '"', '";"=1+1+"'],
)  # fmt: skip
def test_words_survive_whatever_they_are(rows: pd.DataFrame, tmp_path: Path, text: str) -> None:
    rows["note"] = text
    write_rows(tmp_path / "a.csv", rows)
    assert set(read_rows(tmp_path / "a.csv")["note"]) == {text}


def test_what_a_spreadsheet_would_run_has_an_apostrophe_in_front(rows: pd.DataFrame, tmp_path: Path) -> None:
    rows = rows.assign(note="=cmd|' /C calc'!A0", signature="a;@SUM(1)\n+2", **{"=mine": "-1", "ours": -1})
    write_rows(tmp_path / "a.csv", rows)
    text = (tmp_path / "a.csv").read_text(encoding="utf-8")
    assert "'=cmd|' /C calc'!A0" in text and "a;'@SUM(1)\n'+2" in text and ",-0.0012," in text
    assert text.splitlines()[0].endswith(",'=mine,ours,digest") and text.rstrip().rpartition(",")[0].endswith(",'-1,-1")
    back = read_rows(tmp_path / "a.csv")
    assert set(back["note"]) == {"=cmd|' /C calc'!A0"} and set(back["=mine"]) == {"-1"}


def test_a_lone_surrogate_becomes_its_escape(rows: pd.DataFrame, tmp_path: Path) -> None:
    rows["generator"] = pd.Series(["models/caf\udce9"] * len(rows), dtype=object)
    write_rows(tmp_path / "a.csv", rows)
    pd.testing.assert_frame_equal(read_rows(tmp_path / "a.csv"), tidy(rows))
    assert set(tidy(rows)["generator"]) == {r"models/caf\udce9"}


def test_a_file_that_a_spreadsheet_saved_has_a_byte_order_mark(rows: pd.DataFrame, tmp_path: Path) -> None:
    write_rows(tmp_path / "a.csv", rows)
    text = (tmp_path / "a.csv").read_bytes()
    (tmp_path / "b.csv").write_bytes(b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n"))
    pd.testing.assert_frame_equal(read_rows(tmp_path / "b.csv"), tidy(rows))


def test_tidy_settles_types_and_order(rows: pd.DataFrame) -> None:
    rows = rows[list(reversed(COLUMNS))].drop(columns="exact").assign(aligner=None, mine=1)
    table = tidy(rows)
    assert list(table.columns) == [*COLUMNS, "mine"]
    assert set(table["aligner"]) == {""}
    assert set(table["task_version"]) == {"1"}
    assert {str(table[name].dtype) for name in NUMBERS} == {"float64"}
    assert str(table["seed"].dtype) == "Int64"
    assert len(tidy(pd.DataFrame(columns=list(COLUMNS)))) == 0


def test_older_files_lack_some_columns(rows: pd.DataFrame, tmp_path: Path) -> None:
    later = ["generator_id", "base_id", "target_id", "draws", "judge", "measured", "exact", "ci_over"]
    (tmp_path / "a.csv").write_text(rows.drop(columns=later).to_csv(index=False), encoding="utf-8")
    table = read_rows(tmp_path / "a.csv")
    assert list(table.columns) == list(COLUMNS)
    assert table["draws"].isna().all() and str(table["draws"].dtype) == "Int64"
    assert set(table["base_id"]) == set(table["judge"]) == set(table["measured"]) == {""}


@pytest.mark.parametrize("column", COLUMNS)
def test_a_column_that_is_absent_is_missing_or_needed(rows: pd.DataFrame, column: str) -> None:
    if column in NEEDED:
        with pytest.raises(StoreError, match=f"it lacks the columns {column}$"):
            tidy(rows.drop(columns=column))
        return
    found = tidy(rows.drop(columns=column))
    assert list(found.columns) == list(COLUMNS) and (found[column].isna() | (found[column].astype(object) == "")).all()


def test_tidy_keeps_what_is_attached(rows: pd.DataFrame) -> None:
    rows.attrs["primary"] = {"gender_balance": "perplexity"}
    assert tidy(rows).attrs == rows.attrs


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "it is empty"),
        ("run_id,task\n1,2\n", "lacks the columns task_version"),
        (",".join(COLUMNS) + "\n" + ",".join(["x"] * len(COLUMNS)) + "\n", "cannot be read"),
        (",".join(COLUMNS) + "\n" + "," * (len(COLUMNS) + 3) + '"', "cannot be read"),
    ],
)
def test_a_damaged_file_is_one_line_with_its_name(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(StoreError, match=says) as caught:
        read_rows(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_that_cannot_be_written(rows: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be read"):
        read_rows(tmp_path / "a.csv")
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be written"):
        write_rows(tmp_path / "file" / "a.csv", rows)


def test_a_failed_write_keeps_the_old_file(rows: pd.DataFrame, tmp_path: Path) -> None:
    write_rows(tmp_path / "a.csv", rows)
    before = (tmp_path / "a.csv").read_bytes()
    with pytest.raises(StoreError):
        write_rows(tmp_path / "a.csv", rows.drop(columns="metric"))
    assert (tmp_path / "a.csv").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.csv"]


def test_a_row_that_somebody_edited_is_known_by_its_digest(tmp_path: Path, rows: pd.DataFrame) -> None:
    """Planted bug: a number changed with its limits, so that nothing contradicts it, was read as measured."""
    path = tmp_path / "rows.csv"
    write_rows(path, rows)
    text = path.read_text()
    lines = text.splitlines()
    assert lines[0].endswith(",digest") and "digest" not in read_rows(path)
    lines[1] = lines[1].replace(",0.", ",0.9", 1)
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(StoreError, match="line 2: is not what was written: its digest is another"):
        read_rows(path)
