"""The rows and the troubles of an output folder, read from what runs leave there; see `alignbench.run.writer`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from alignbench.errors import StoreError
from alignbench.reports.rows import AT_ONCE, NEEDED, NUMERIC, tidy
from alignbench.run.rows import safe_name

TABLE = "leaderboard.csv"
UNIT = (
    "task", "task_hash", "target_id", "base", "base_id", "judge", "generator", "generator_id", "aligner", "seed",
    "draws",
)  # fmt: skip
"""What is measured as one: all rows of a generator on a task, on one seed and number of draws."""
RUN = ("task", "task_hash", "generator", "aligner", "seed", "draws", "judge")
"""What a run file says of it."""

Key = tuple[str, ...]


def is_output(folder: Path) -> bool:
    """Whether runs have left something in a folder."""
    return any(next(folder.glob(pattern), None) for pattern in ("*/results_*.json", "*/run_*.json", "task_*.json"))


def is_generator(folder: Path) -> bool:
    """Whether a folder is that of one generator inside an output folder."""
    return any(next(folder.glob(pattern), None) for pattern in ("results_*.json", "run_*.json", "evidence_*.npz"))


def folder_of(generator: str, aligner: str) -> str:
    """The name of a generator's folder, as `run.writer.Writer` makes it."""
    return safe_name(f"{generator}+{aligner}" if aligner else generator)


def keys(rows: pd.DataFrame, names: Sequence[str]) -> set[Key]:
    """What the rows say under `names`, as text."""
    return {tuple(map(str, found)) for found in rows[list(names)].drop_duplicates().itertuples(index=False)}


def reported(folder: Path, known: set[Key], generators: str, failures: list[str]) -> Iterator[pd.DataFrame]:
    """The rows in <generator>/results_*.json of measurements that are not `known`, some thousand at a time.

    Of a measurement that was told more than once the latest file counts.
    """
    pile: list[Mapping[str, Any]] = []
    seen = set(known)
    for path in sorted(folder.glob(f"{generators}/results_*.json"), key=lambda p: p.name, reverse=True):
        try:
            rows = _rows(path)
        except StoreError as error:
            failures.append(str(error))
            continue
        which = tuple(str(rows[0].get(name, "")) for name in (*UNIT, "measured")) if rows else ()
        if rows and which not in seen:
            seen.add(which)
            pile += rows
        if len(pile) > AT_ONCE:
            yield tidy(pd.DataFrame(pile))
            pile = []
    if pile:
        yield tidy(pd.DataFrame(pile))


def _rows(path: Path) -> Sequence[Mapping[str, Any]]:
    """The rows in a results_*.json, infinity as a number again; raises StoreError."""
    rows = read_json(path).get("rows")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise StoreError(f"{path}: has no rows of alignbench")
    for row in rows:
        if absent := sorted(set(NEEDED) - row.keys()):
            raise StoreError(f"{path}: a row lacks {', '.join(absent)}")
        for name in NUMERIC:
            if isinstance(word := row.get(name), (str, bool, list, dict)):
                row[name] = _infinity(path, name, word)
    return rows


def _infinity(path: Path, name: str, word: object) -> float:
    if word not in ("inf", "-inf"):
        raise StoreError(f"{path}: the {name} of a row is {word!r}, which is no number")
    return float(str(word))


def read_json(path: Path) -> Mapping[str, Any]:
    """The mapping in a JSON file; raises StoreError, where it is a pipe or a device too, which may never end."""
    if path.exists() and not path.is_file():
        raise StoreError(f"{path}: cannot be read: it is no file")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise StoreError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise StoreError(f"{path}: is no mapping")
    return content


def troubles(folder: Path, generators: str, rows: pd.DataFrame) -> Iterator[str]:
    """A line for each run that failed or was cut off, and one for evidence without rows, where `rows` lack them."""
    known = keys(rows, RUN)
    unfinished: dict[Key, str] = {}  # a generator that was cut off twice is told of once
    for path in sorted(folder.glob(f"{generators}/run_*.json")):
        try:
            unfinished |= _unfinished(path, read_json(path), known)
        except StoreError as error:
            yield str(error)
    yield from unfinished.values()
    named = {(task, folder_of(generator, aligner)) for task, generator, aligner in keys(rows, RUN[:1] + RUN[2:4])}
    files = sorted(folder.glob(f"{generators}/evidence_*.npz"))
    unread = [path for path in files if (_task_of(path), path.parent.name) not in named]
    if unread:
        more = f" and {len(unread) - 1} more have" if len(unread) > 1 else " has"
        yield f"{unread[0]}{more} no rows: `alignbench score {folder}` makes them"


def _task_of(evidence: Path) -> str:
    return evidence.stem.removeprefix("evidence_").rpartition("_")[0]


def _unfinished(path: Path, content: Mapping[str, Any], known: set[Key]) -> dict[Key, str]:
    """What a run was to measure and why it has no rows; nothing where it, or another, brought them."""
    config, status = content.get("config"), str(content.get("status"))
    if not isinstance(config, dict):
        raise StoreError(f"{path}: is no run file of alignbench")
    who = tuple("" if config.get(name) is None else str(config[name]) for name in RUN)
    if status == "finished" or who in known:
        return {}
    if status == "failed":
        return {who: f"{path}: the run failed: {' '.join(str(content.get('error', '')).split())}"}
    return {who: f"{path}: the run is half-written (status '{status}'); the same command again goes on from there"}
