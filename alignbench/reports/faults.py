"""What in the rows of a CSV file cannot be true: a sign that somebody or a spreadsheet has changed it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from alignbench.reports.rows import EDITED, salvage

MOST = 3
"""Lines about one file, after which the rest is counted."""
MANGLED = re.compile(r"\d{1,7}|\d(\.\d+)?E\+\d+")
"""What a spreadsheet makes of 8 hex digits that look like a number: 00012345 becomes 12345, 1234e567 1.23E+570."""
REPLICATES = re.compile(r"(-?\d+(\.\d*)?(e[+-]?\d+)?( |$))*")


def sound(path: Path) -> tuple[pd.DataFrame, list[str]]:
    """The rows of a CSV file that can be true, and lines that name the file and the line for those that cannot.

    Means over seeds, which tables make anew, are left out. Raises StoreError where it is no results table.
    """
    found = salvage(path)
    wrong = pd.Series("", index=found.rows.index, dtype=object)
    for bad, why in _contradictions(found.rows):
        wrong = wrong.mask(bad & (wrong == ""), why)
    wrong = wrong.mask(pd.Series(found.edited, found.rows.index, dtype=bool) & (wrong == ""), EDITED)
    lines = pd.Series(found.lines, index=found.rows.index, dtype="int64")
    bad = wrong != ""
    faults = [*found.faults, *(f"line {line}: {why}" for line, why in zip(lines[bad], wrong[bad], strict=True))]
    rows = found.rows[~bad]
    told = few([f"{path}: {fault}; the row is left out" for fault in faults], f"{path}: %d more rows are left out")
    empty = lines[~bad][_silent(rows)]
    told += few(
        [f"{path}: line {line}: there is neither a number nor a note that says why" for line in empty],
        f"{path}: %d more rows have neither a number nor a note",
    )
    return _of_one_seed(rows), told


def _contradictions(rows: pd.DataFrame) -> Iterator[tuple[pd.Series, str]]:
    """Which rows are wrong, and in what."""
    for name in ("task", "generator", "metric"):
        yield rows[name] == "", f"column '{name}' is empty"
    yield ~rows["better"].isin(["", "lower", "higher"]), "column 'better' says neither lower nor higher"
    for name in ("generator_id", "base_id", "target_id"):
        mangled = [word for word in rows[name].unique() if MANGLED.fullmatch(word)]
        yield rows[name].isin(mangled), f"column '{name}' is no 8 digits: a spreadsheet may have changed them"
    if "replicates" in rows:
        whole = [REPLICATES.fullmatch(words) is not None for words in rows["replicates"]]
        yield ~pd.Series(whole, rows.index, dtype=bool), "column 'replicates' has words that are no numbers"
    yield rows["stderr"] < 0, "column 'stderr' is negative"
    yield rows["ci_low"] > rows["ci_high"], "ci_low is above ci_high"
    outside = (rows["value"] < rows["ci_low"]) | (rows["value"] > rows["ci_high"])
    yield outside, "the value is outside its limits"
    ways = rows[rows["better"] != ""].groupby(["metric", "part"])["better"]
    most = ways.transform(lambda way: way.mode().iloc[0]).reindex(rows.index, fill_value="")
    yield (rows["better"] != "") & (rows["better"] != most), "other rows of its metric say another way is better"


def _silent(rows: pd.DataFrame) -> pd.Series:
    return rows[["value", "ci_low", "ci_high"]].isna().all(axis=1) & (rows["note"] == "")


def _of_one_seed(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["seeds"].isna()].drop(columns=["seeds", "seed_sd"]) if "seeds" in rows else rows


def few(lines: Sequence[str], rest: str) -> list[str]:
    """The first of many lines, and how many more there are."""
    return [*lines[:MOST], rest % (len(lines) - MOST)] if len(lines) > MOST else list(lines)
