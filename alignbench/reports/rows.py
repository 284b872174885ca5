"""The tidy results table: its columns, and its CSV file."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import islice
from math import isnan
from pathlib import Path

import numpy as np
import pandas as pd

from alignbench.errors import StoreError, brief
from alignbench.files import write_atomic
from alignbench.reports.spreadsheet import guard, guarded, unguarded

COLUMNS = (
    "run_id", "task", "task_version", "task_hash", "generator", "aligner", "generator_id", "base", "base_id",
    "target_id", "metric", "part", "value", "stderr", "ci_low", "ci_high", "n", "ess", "better", "note", "seed",
    "draws", "judge", "signature", "measured", "seconds", "exact", "ci_over",
)  # fmt: skip
"""`*_id` are 8 hex digits of an identity ("" where it is not known), `draws` is per prompt, `judge` "" is the base."""
RARE = {"step": "Int64", "seeds": "Int64", "seed_sd": "float64", "replicates": "object", "primary": "object"}
"""Columns that are there where some row says something: a checkpoint's training step; the number of seeds that a mean
is over, and the standard deviation between them (see `seeds.with_means`); the number with one block of draws left out,
for each block, with spaces between (see `metrics.replicates`; of a mean over seeds, with one seed left out), "" where a
row has none; what sorts the tables of a task of the user's own, as `gather` learned it from a run folder."""
DIGEST = "digest"
"""The column of a CSV file that knows its rows; rows in memory have none."""
EDITED = "is not what was written: its digest is another"
NEEDED = (
    "run_id", "task", "task_version", "task_hash", "generator", "aligner", "base", "metric", "part", "value", "stderr",
    "ci_low", "ci_high", "n", "note",
)  # fmt: skip
"""What makes a table one of results: whose number it is, the number and how well it is known."""
NUMBERS = ("value", "stderr", "ci_low", "ci_high", "ess", "seconds", "exact")
COUNTS = ("n", "seed", "draws")
NUMERIC = (*NUMBERS, *COUNTS, *(name for name, kind in RARE.items() if kind != "object"))
WORDS = tuple(name for name in COLUMNS if name not in NUMBERS + COUNTS)


def tidy(rows: pd.DataFrame) -> pd.DataFrame:
    """`rows` with the columns of `COLUMNS` first and their types settled: floats, nullable integers, else text.

    A missing number is NaN, a missing word is empty; so are all of a column that is absent. A column of `RARE` without
    a number is left out. A lone surrogate, which no file can hold, becomes its escape. Raises StoreError where one of
    `NEEDED` is absent.
    """
    absent = [name for name in NEEDED if name not in rows]
    if absent:
        raise StoreError(f"not a results table: it lacks the columns {', '.join(absent)}")
    rare = {name: kind for name, kind in RARE.items() if name in rows and _says_something(rows[_witness(name)])}
    extra = [name for name in rows if name not in COLUMNS and name not in RARE]
    table = rows.reindex(columns=[*COLUMNS, *rare, *extra]).reset_index(drop=True)
    words = {name: _words(table[name]) for name in _worded(table)}
    table = table.assign(**words).astype(dict.fromkeys(NUMBERS, "float64") | dict.fromkeys(COUNTS, "Int64") | rare)
    table.attrs = dict(rows.attrs)
    return table


def _worded(table: pd.DataFrame) -> list[str]:
    """The columns that hold text: those of WORDS, and any more that are not of numbers."""
    more = [str(name) for name in table if not pd.api.types.is_numeric_dtype(table[name])]
    return [name for name in dict.fromkeys((*WORDS, *more)) if name in table and name not in NUMERIC]


def _words(column: pd.Series) -> pd.Series:
    """The column as text that UTF-8 can hold, missing as ""; equal words are one string in memory."""
    codes, uniques = pd.factorize(column.astype(object))
    texts = np.array([*map(_valid, uniques), ""], dtype=object)
    return pd.Series(texts[codes], index=column.index, dtype=object)


def _valid(word: object) -> str:
    return str(word).encode("utf-8", "backslashreplace").decode()


def _says_something(column: pd.Series) -> bool:
    """Whether any row has a number or a word there."""
    return bool((column.notna() & (column.astype(object) != "")).any())


def _witness(name: str) -> str:
    """The column that says whether a rare one is wanted: means have a spread column even where none has a spread."""
    return "seeds" if name == "seed_sd" else name


def parts_of(signature: str) -> Mapping[str, str]:
    """Name → what a signature says of it; of two parts of one name (a prompt's text may hold a |) the first counts."""
    parts = [part.partition(":") for part in signature.split("|")]
    return {name: value for name, colon, value in reversed(parts) if colon}


def write_rows(path: Path, rows: pd.DataFrame) -> None:
    """Write `rows` as CSV in one step, see `csv_bytes`."""
    write_atomic(path, csv_bytes(rows))


def csv_bytes(rows: pd.DataFrame) -> bytes:
    """`rows` as UTF-8 CSV: floats to the last bit, infinity as `inf`, missing as empty.

    Words and names of columns that a spreadsheet would take for formulas have an apostrophe in front (`spreadsheet`).
    The last column is a digest of the others, by which an edited row is known.
    """
    table = tidy(rows.drop(columns=DIGEST, errors="ignore"))
    worded = _worded(table)
    cells = {name: guard(table[name]) if name in worded else _spelled(table[name]) for name in table}
    table = pd.DataFrame(cells, index=table.index, dtype=object).rename(columns=guarded)
    table[DIGEST] = [_digest(row) for row in table.itertuples(index=False, name=None)]
    text = table.to_csv(index=False, lineterminator="\n")
    if "\r" in text:  # which only a quoted word may hold
        text = table.to_csv(index=False, lineterminator="\n", quoting=csv.QUOTE_ALL)
    return text.encode("utf-8", "backslashreplace")


def _spelled(numbers: pd.Series) -> list[str]:
    """Each number to the last bit, a missing one as nothing."""
    return ["" if missing else str(number) for number, missing in zip(numbers.tolist(), numbers.isna(), strict=True)]


def _digest(cells: Sequence[str]) -> str:
    """10 hex digits that stand for the cells of a row as they are in the file, after an "x": a spreadsheet keeps it."""
    return "x" + sha256("\x1f".join(cells).encode()).hexdigest()[:10]


def read_rows(path: Path) -> pd.DataFrame:
    """The rows that `write_rows` wrote; raises StoreError where the file is missing, damaged or no results table."""
    found = salvage(path)
    edited = [f"line {line}: {EDITED}" for line, bad in zip(found.lines, found.edited, strict=True) if bad]
    if faults := [*found.faults, *edited]:
        raise _unreadable(path, faults[0])
    return found.rows


@dataclass
class Salvaged:
    """What could be read of a CSV file: its rows, the line on which each ends, and what is wrong with the others."""

    rows: pd.DataFrame = field(default_factory=pd.DataFrame)
    lines: list[int] = field(default_factory=list)
    edited: list[bool] = field(default_factory=list)  # for each row, whether it is not what its digest stands for
    faults: list[str] = field(default_factory=list)  # "line 3, column 'value': …"


class _Pool(dict[str, str]):
    """A word as it stands in the file → as it was before `guarded`, one string for all that are equal."""

    def __missing__(self, word: str) -> str:
        self[word] = unguarded(word)
        return self[word]


AT_ONCE = 20_000  # rows that are held as text


def salvage(path: Path) -> Salvaged:
    """The rows of a CSV file that are whole; raises StoreError where it is missing or no results table.

    A byte order mark is passed over, and so are apostrophes before what a spreadsheet would run. Equal words are one
    string in memory: 17 columns of a million rows hold few.
    """
    found, parts, pool = Salvaged(), [], _Pool()
    csv.field_size_limit(sys.maxsize)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file, strict=True)
            head = _head([unguarded(name) for name in next(lines, [])])
            while some := list(islice(_whole(lines, len(head), found), AT_ONCE)):
                parts.append(_typed(head, some, found, pool))
        columns = [name for name in head if name != DIGEST]
        found.rows = tidy(pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns))
        return found
    except (OSError, ValueError, csv.Error, StoreError) as error:  # UnicodeDecodeError is a ValueError
        at = f"line {lines.line_num}: " if isinstance(error, csv.Error) else ""
        raise _unreadable(path, at + " ".join(str(error).split())) from error


def _unreadable(path: Path, reason: str) -> StoreError:
    return StoreError(f"{path}: cannot be read as results: {reason}")


def _head(head: Sequence[str]) -> Sequence[str]:
    """The names of the columns; raises StoreError where a comma does not stand between them, or one is there twice."""
    if not head:
        raise StoreError("it is empty")
    for sign, name in ((";", "semicolons"), ("\t", "tabs")):
        if len(head) == 1 and sign in head[0]:
            raise StoreError(f"{name} stand between its cells, as a spreadsheet saves them; save it with commas")
    if twice := [name for name in dict.fromkeys(head) if head.count(name) > 1]:
        raise StoreError(f"it has two columns '{twice[0]}'")
    return head


def _whole(lines: Iterator[list[str]], width: int, found: Salvaged) -> Iterator[tuple[int, list[str]]]:
    """The line number and the cells of each row that has as many as the first line; what is no row is a fault."""
    number = 1
    while True:
        begun = number + 1
        try:
            cells = next(lines)
        except StopIteration:
            return
        except csv.Error as error:  # a quote that nothing closes takes all lines up to the next one with it
            cells, number = [], lines.line_num  # type: ignore[attr-defined]
            upto = f" up to line {number}" if number > begun else ""
            found.faults.append(f"line {begun}{upto}: {error}")
            continue
        number = lines.line_num  # type: ignore[attr-defined]
        if len(cells) == width:
            yield number, cells
        elif cells:
            found.faults.append(f"line {number}: has {len(cells)} cells, the first line {width}")


def _typed(head: Sequence[str], some: Sequence[tuple[int, list[str]]], found: Salvaged, pool: _Pool) -> pd.DataFrame:
    """Rows of text with their numbers read; those in which a number is none are faults."""
    columns = dict(zip(head, zip(*(cells for _, cells in some), strict=True), strict=True))
    digests = columns.pop(DIGEST, None)
    at = list(head).index(DIGEST) if digests else 0
    edited = [bool(digests) and _digest([*cells[:at], *cells[at + 1 :]]) != cells[at] for _, cells in some]
    keep = np.ones(len(some), dtype=bool)
    typed: dict[str, pd.Series] = {}
    for name, words in columns.items():
        if name not in NUMERIC:
            typed[name] = pd.Series([pool[word] for word in words], dtype=object)
            continue
        values, wrong = _numbers(name, words)
        typed[name] = values
        keep[list(wrong)] = False
        found.faults += [f"line {some[i][0]}, column '{name}': {why}" for i, why in wrong.items()]
    found.lines += [number for (number, _), kept in zip(some, keep, strict=True) if kept]
    found.edited += [bad for bad, kept in zip(edited, keep, strict=True) if kept]
    return pd.DataFrame(typed)[keep]


def _numbers(name: str, words: Sequence[str]) -> tuple[pd.Series, dict[int, str]]:
    """Exactly the numbers that were written, in Python's own reading, correct to the last bit; and what is none."""
    kind = "Int64" if name in COUNTS else RARE.get(name, "float64")
    read = int if kind == "Int64" else float
    values: list[float | None] = []
    wrong: dict[int, str] = {}
    for i, word in enumerate(words):
        try:
            value = read(word) if word else None
            values.append(value)
            if value is not None and isnan(value):
                wrong[i] = f"'{word}' is no number; leave the cell empty and say why in the note"
        except ValueError:
            values.append(None)
            wrong[i] = f"{brief(word)} is no {'whole ' if read is int else ''}number"
    return pd.Series(values, dtype=kind), wrong
