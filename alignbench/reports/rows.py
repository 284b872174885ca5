"""The tidy results table: its columns, and its CSV file."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pandas as pd

from alignbench.errors import StoreError
from alignbench.reports.spreadsheet import guard, guarded, unguard, unguarded
from alignbench.store import write_atomic

COLUMNS = (
    "run_id", "task", "task_version", "task_hash", "generator", "aligner", "generator_id", "base", "base_id",
    "target_id", "metric", "part", "value", "stderr", "ci_low", "ci_high", "n", "ess", "better", "note", "seed",
    "draws", "judge", "signature", "measured", "seconds", "exact", "ci_over",
)  # fmt: skip
"""`*_id` are 8 hex digits of an identity ("" where it is not known), `draws` is per prompt, `judge` "" is the base."""
RARE = {"step": "Int64", "seeds": "Int64", "seed_sd": "float64", "replicates": "object"}
"""Columns that are there where some row says something: a checkpoint's training step; the number of seeds that a mean
is over, and the standard deviation between them (see `seeds.with_means`); the number with one block of draws left out,
for each block, with spaces between (see `metrics.replicates`), "" where a row has none."""
LATER = ("generator_id", "base_id", "target_id", "draws", "judge", "measured", "exact", "ci_over")
"""Columns that older files lack."""
NUMBERS = ("value", "stderr", "ci_low", "ci_high", "ess", "seconds", "exact")
COUNTS = ("n", "seed", "draws")
NUMERIC = (*NUMBERS, *COUNTS, *(name for name, kind in RARE.items() if kind != "object"))
WORDS = tuple(name for name in COLUMNS if name not in NUMBERS + COUNTS)


def tidy(rows: pd.DataFrame) -> pd.DataFrame:
    """`rows` with the columns of `COLUMNS` first and their types settled: floats, nullable integers, else text.

    A missing number is NaN, a missing word is empty; so are all of a column of `LATER` that is absent. A column of
    `RARE` without a number is left out. A lone surrogate, which no file can hold, becomes its escape. Raises
    StoreError on other absent columns.
    """
    absent = [name for name in COLUMNS if name not in rows and name not in LATER]
    if absent:
        raise StoreError(f"not a results table: it lacks the columns {', '.join(absent)}")
    rare = {name: kind for name, kind in RARE.items() if name in rows and _says_something(rows[_witness(name)])}
    extra = [name for name in rows if name not in COLUMNS and name not in RARE]
    table = rows.reindex(columns=[*COLUMNS, *rare, *extra]).reset_index(drop=True)
    worded = [name for name in (*WORDS, "replicates") if name in table]
    words = {name: _words(table[name]) for name in worded}
    table = table.assign(**words).astype(dict.fromkeys(NUMBERS, "float64") | dict.fromkeys(COUNTS, "Int64") | rare)
    table.attrs = dict(rows.attrs)
    return table


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


def write_rows(path: Path, rows: pd.DataFrame) -> None:
    """Write `rows` as UTF-8 CSV in one step: floats to the last bit, infinity as `inf`, missing as empty.

    Words and names of columns that a spreadsheet would take for formulas have an apostrophe in front (`spreadsheet`).
    """
    table = tidy(rows)
    table = table.assign(**{name: guard(table[name]) for name in _worded(table)}).rename(columns=guarded)
    text = table.to_csv(index=False, lineterminator="\n")
    if "\r" in text:  # which only a quoted word may hold
        text = table.to_csv(index=False, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    write_atomic(path, text.encode("utf-8", "backslashreplace"))


def read_rows(path: Path) -> pd.DataFrame:
    """The rows that `write_rows` wrote; raises StoreError where the file is missing, damaged or no results table."""
    try:
        data = io.BytesIO(path.read_bytes())
        rows = pd.read_csv(data, encoding="utf-8-sig", dtype=str, keep_default_na=False, na_filter=False)
        rows = rows.rename(columns=unguarded)
        rows = rows.assign(**{name: unguard(rows[name]) for name in _worded(rows)})
        return tidy(rows.assign(**{name: _numbers(rows[name]) for name in NUMERIC if name in rows}))
    except (OSError, ValueError, StoreError) as error:
        reason = " ".join(str(error).split())
        raise StoreError(f"{path}: cannot be read as results: {reason}") from error


def _worded(table: pd.DataFrame) -> list[str]:
    """The columns that hold text, which are all but the numbers."""
    return [str(name) for name in table if name not in NUMERIC and not pd.api.types.is_numeric_dtype(table[name])]


def _numbers(words: pd.Series) -> pd.Series:
    """Exactly the numbers that were written: Python's own reading of them, which is correct to the last bit."""
    kind = "Int64" if words.name in COUNTS else RARE.get(str(words.name), "float64")
    values = [(int if kind == "Int64" else float)(word) if word else None for word in words]
    return pd.Series(values, index=words.index, dtype=kind)
