"""Records: every format gives the same rows, and a damaged file is one line."""

import json
from pathlib import Path

import pandas as pd
import pytest

from alignbench import sources
from alignbench.errors import SourceError, UsageError
from alignbench.task import records

ROWS = [{"text": "A “quoted” line\u2028with a separator, and a comma", "label": "pos"}, {"text": "b", "label": "neg"}]


def write(folder: Path, kind: str) -> Path:
    path = folder / f"data.{kind}"
    if kind == "parquet":
        pd.DataFrame(ROWS).to_parquet(path)
    elif kind in ("csv", "tsv"):
        pd.DataFrame(ROWS).to_csv(path, index=False, sep="\t" if kind == "tsv" else ",")
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n\n" for r in ROWS), encoding="utf-8")
    else:
        path.write_text(json.dumps(ROWS), encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "tsv", "parquet"])
def test_every_format_gives_the_same_rows(tmp_path, kind):
    assert records.read(write(tmp_path, kind)) == ROWS


def test_a_text_file_has_a_record_a_line(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_bytes("one\r\n\n  \ntwo\u2028still two\n".encode())
    assert records.read(path) == [{"text": "one"}, {"text": "two\u2028still two"}]


def test_skip_and_take_count_records(tmp_path):
    source = sources.parse(str(write(tmp_path, "json")))
    assert records.load(source, skip=1) == (ROWS[1],)
    assert records.load(source, take=1) == (ROWS[0],)
    with pytest.raises(UsageError, match=r"has 2 records, none from number 2 on"):
        records.load(source, skip=2)


@pytest.mark.parametrize(
    ("name", "content", "kind", "message"),
    [
        ("a.jsonl", b'{"text": 1}\n{oops', SourceError, "a.jsonl: cannot be read: Expecting property name"),
        ("a.json", b'{"text": 1}', SourceError, "a.json: cannot be read: a JSON dataset is a list of records"),
        ("a.json", b"[1]", SourceError, "a.json: record 0 is no mapping from fields to values"),
        ("a.txt", b"\xff\xfe", SourceError, "a.txt: cannot be read: 'utf-8' codec can't decode byte"),
        ("a.csv", b'a,b\n"x', SourceError, "a.csv: cannot be read: unexpected end of data"),
        ("a.csv", b"a,b\n1,2\n3", SourceError, "a.csv: cannot be read: the row that ends on line 3 has not as many"),
        ("a.csv", b"a,b\n1,2,3\n", SourceError, "a.csv: cannot be read: the row that ends on line 2 has not as many"),
        ("a.parquet", b"PAR0", SourceError, "a.parquet: cannot be read: "),
        ("a.xml", b"", UsageError, "a.xml: records are read from files that end in .jsonl, .json, .csv, .tsv, "),
    ],
)  # fmt: skip
def test_a_damaged_file_is_one_line(tmp_path, name, content, kind, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(kind) as error:
        records.read(path, name)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_a_missing_field_names_the_record_and_the_nearest():
    with pytest.raises(UsageError, match=r"record 1 has no field 'text'. Did you mean 'texts'\? Known: id, texts."):
        records.values([{"text": "a"}, {"texts": "b", "id": 1}], "text")


def test_a_template_takes_values_and_leaves_other_braces():
    rows = [{"a": "x{b}", "b": 2}, {"a": "\\1", "b": None}]
    assert records.texts(rows, "{a}, {b} {} {a b}") == ["x{b}, 2 {} {a b}", "\\1, None {} {a b}"]
