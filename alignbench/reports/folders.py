"""The rows and the troubles of a run's output folder, read from what a run leaves behind; see `alignbench.results`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from alignbench.errors import AlignbenchError, StoreError
from alignbench.reports.rows import salvage, tidy
from alignbench.results import safe_name

TABLE = "leaderboard.csv"
UNIT = (
    "task", "task_hash", "target_id", "base", "base_id", "judge", "generator", "generator_id", "aligner", "seed",
    "draws",
)  # fmt: skip
"""What is measured as one: all rows of a generator on a task, on one seed and number of draws."""
RUN = ("task", "task_hash", "generator", "aligner", "seed", "draws", "judge")
"""What a run file says of it."""


def is_output(folder: Path) -> bool:
    """Whether runs have left something in a folder."""
    return any(next(folder.glob(pattern), None) for pattern in ("*/results_*.json", "*/run_*.json", "task_*.json"))


def is_generator(folder: Path) -> bool:
    """Whether a folder is that of one generator inside an output folder."""
    return any(next(folder.glob(pattern), None) for pattern in ("results_*.json", "run_*.json", "evidence_*.npz"))


def of_output(folder: Path, generators: str = "*") -> tuple[list[pd.DataFrame], list[str]]:
    """The rows of all runs into an output folder, and a line for each file that is wrong or led to nothing.

    leaderboard.csv has the rows of the last run or `alignbench score`; those of earlier runs are in
    <generator>/results_*.json. Of one unit (see `UNIT`) the file with the newest measurement counts, the CSV before
    others. `generators` is a pattern of their folders.
    """
    failures: list[str] = []
    latest: dict[tuple[str, ...], pd.DataFrame] = {}
    for rows in _tables(folder, generators, failures):
        for _, unit in rows.groupby(list(UNIT), sort=False, dropna=False):
            who, earlier = identity(unit, UNIT), latest.get(identity(unit, UNIT))
            if earlier is None or unit["measured"].iloc[0] > earlier["measured"].iloc[0]:
                latest[who] = unit
    known = {identity(unit, RUN) for unit in latest.values()}
    return list(latest.values()), [*failures, *_unfinished(folder, generators, known)]


def identity(rows: pd.DataFrame, names: Sequence[str]) -> tuple[str, ...]:
    """What the first of some rows say under `names`."""
    return tuple(str(rows[name].iloc[0]) for name in names)


def _tables(folder: Path, generators: str, failures: list[str]) -> Iterator[pd.DataFrame]:
    """The rows of each file."""
    if (folder / TABLE).is_file():
        try:
            yield _chosen(sound(folder / TABLE, failures), generators)
        except StoreError as error:
            failures.append(str(error))
    for path in sorted(folder.glob(f"{generators}/results_*.json")):
        try:
            yield _reported(path)
        except StoreError as error:
            failures.append(str(error))


def _chosen(rows: pd.DataFrame, generators: str) -> pd.DataFrame:
    if generators == "*":
        return rows
    names = [safe_name(f"{g}+{a}" if a else g) for g, a in zip(rows["generator"], rows["aligner"], strict=True)]
    return rows[[name == generators for name in names]]


def sound(path: Path, failures: list[str]) -> pd.DataFrame:
    """The rows of a CSV file that are whole, without means over seeds, which tables make anew."""
    found = salvage(path)
    failures += some([f"{path}: {fault}; the row is left out" for fault in found.faults], str(path))
    rows = found.rows
    return rows[rows["seeds"].isna()].drop(columns=["seeds", "seed_sd"]) if "seeds" in rows else rows


def some(lines: Sequence[str], where: str, most: int = 3) -> list[str]:
    """The first of many lines, and how many more there are."""
    more = len(lines) - most
    return [*lines[:most], f"{where}: {more} more of its rows are left out"] if more > 0 else list(lines)


def _reported(path: Path) -> pd.DataFrame:
    """The rows in a results_*.json; raises StoreError."""
    content = read_json(path)
    rows = content.get("rows")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise StoreError(f"{path}: has no rows of alignbench")
    try:
        return tidy(pd.DataFrame(rows))
    except (StoreError, ValueError, TypeError) as error:
        raise StoreError(f"{path}: {' '.join(str(error).split())}") from error


def read_json(path: Path) -> Mapping[str, Any]:
    """The mapping in a JSON file; raises StoreError."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise StoreError(f"{path}: is no mapping")
    return content


def _unfinished(folder: Path, generators: str, known: set[tuple[str, ...]]) -> Iterator[str]:
    """A line for each run that failed or was cut off, unless a later one brought its rows."""
    for path in sorted(folder.glob(f"{generators}/run_*.json")):
        try:
            content = read_json(path)
            config = {"judge": "", **{k: v for k, v in content["config"].items() if v is not None}}
            who, status = tuple(str(config[name]) for name in RUN), content["status"]
        except (AlignbenchError, KeyError, AttributeError) as error:
            yield str(error) if isinstance(error, AlignbenchError) else f"{path}: is not a run file of alignbench"
            continue
        if status != "finished" and who not in known:
            yield f"{path}: {_why(str(status), str(content.get('error', '')))}"


def _why(status: str, error: str) -> str:
    if status == "failed":
        return f"the run failed: {' '.join(error.split())}"
    return f"the run is half-written (status '{status}'); the same command again goes on from there"
