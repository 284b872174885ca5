"""Records: the rows of a dataset, each a mapping from fields to values, from a file, a wheel, or a hub dataset."""

from __future__ import annotations

import csv
import json
import logging
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from alignbench.errors import SourceError, UsageError, did_you_mean
from alignbench.sources import Source, fetch

_LOG = logging.getLogger(__name__)

Record = Mapping[str, Any]
TEXT = "text"
"""The field that the lines of a plain text file have."""


def load(source: Source, *, skip: int = 0, take: int | None = None) -> tuple[Record, ...]:
    """The records of `source` from number `skip` on, at most `take` of them; fetched and verified where needed.

    Raises SourceError where they cannot be fetched or read, and UsageError where none are left.
    """
    path = fetch(source, announce=_LOG.info)
    found = read(path, str(source))
    chosen = found[skip:] if take is None else found[skip : skip + take]
    if not chosen:
        raise UsageError(f"{source}: has {len(found)} records, none from number {skip} on")
    return tuple(chosen)


def read(path: Path, name: str = "") -> list[Record]:
    """All records of a file by its ending: .jsonl, .json (a list), .csv, .tsv, .parquet, .txt (a line each).

    Raises SourceError, which begins with `name`, where it is damaged, and UsageError on another ending.
    """
    name = name or str(path)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise UsageError(f"{name}: records are read from files that end in {', '.join(READERS)}")
    try:
        found = list(reader(path))
    except (OSError, ValueError, csv.Error) as error:  # JSON, Unicode and Parquet errors are ValueErrors
        raise SourceError(f"{name}: cannot be read: {' '.join(str(error).split())}") from error
    for number, record in enumerate(found):
        if not isinstance(record, dict):
            raise SourceError(f"{name}: record {number} is no mapping from fields to values")
    return found


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text(encoding="utf-8").split("\n"):  # splitlines() also splits at characters inside a text
        if line.strip():
            yield {TEXT: line.rstrip("\r")}


def _json_lines(path: Path) -> Iterator[Any]:
    for record in _lines(path):
        yield json.loads(record[TEXT])


def _json(path: Path) -> list[Any]:
    whole = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(whole, list):
        raise ValueError("a JSON dataset is a list of records")
    return whole


def _table(delimiter: str) -> Callable[[Path], Iterator[dict[str, Any]]]:
    def rows(path: Path) -> Iterator[dict[str, Any]]:
        csv.field_size_limit(sys.maxsize)
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file, delimiter=delimiter, strict=True)
            for row in table:
                if None in row or None in row.values():  # what csv puts where cells are left over or missing
                    raise ValueError(f"the row that ends on line {table.line_num} has not as many cells as the first")
                yield row

    return rows


def _parquet(path: Path) -> list[Any]:
    import pandas as pd

    return pd.read_parquet(path).to_dict("records")


READERS: Mapping[str, Callable[[Path], Any]] = {
    ".jsonl": _json_lines,
    ".json": _json,
    ".csv": _table(","),
    ".tsv": _table("\t"),
    ".parquet": _parquet,
    ".txt": _lines,
}


def values(records: Sequence[Record], field: str) -> list[Any]:
    """The value of `field` in each record; raises UsageError where one has no such field."""
    for number, record in enumerate(records):
        if field not in record:
            raise UsageError(f"record {number} has no field '{field}'.{did_you_mean(field, map(str, record))}")
    return [record[field] for record in records]


def texts(records: Sequence[Record], template: str) -> list[str]:
    """The template with each record's values in place of "{field}"; raises UsageError where a field is missing."""
    columns = {name: values(records, name) for name in dict.fromkeys(re.findall(r"\{(\w+)\}", template))}
    return [
        re.sub(r"\{(\w+)\}", lambda found, i=i: str(columns[found[1]][i]), template)  # type: ignore[misc]
        for i in range(len(records))
    ]
