"""Rows of any number of runs as one table: output folders, published CSV files, from this machine or another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from alignbench.errors import StoreError
from alignbench.reports.asked import built_in
from alignbench.reports.faults import sound
from alignbench.reports.folders import (
    TABLE,
    UNIT,
    folder_of,
    is_generator,
    is_output,
    keys,
    read_json,
    reported,
    troubles,
)
from alignbench.reports.rows import COLUMNS, tidy
from alignbench.reports.table.board import sentence
from alignbench.types import CEILING, PRIMARY


@dataclass(frozen=True)
class Gathered:
    """Tidy rows of single seeds; what sorts each task's tables; lines about what is missing, and about what was chosen.

    `failures` are what a command exits non-zero for; `remarks` are worth telling and no more; `assumed` are
    the tasks of which no run folder and no built-in task says what is primary: `PRIMARY` is. `summaries` say in a
    sentence what each task asks of which a run folder or a built-in task says it.
    """

    rows: pd.DataFrame
    primary: Mapping[str, str]
    failures: Sequence[str] = ()
    remarks: Sequence[str] = ()
    assumed: Sequence[str] = ()
    summaries: Mapping[str, str] = field(default_factory=dict)

    @property
    def assumption(self) -> Sequence[str]:
        """A line about `assumed`, if there are any, for what goes by `primary`."""
        names = ", ".join(self.assumed[:3]) + (f" and {len(self.assumed) - 3} more" if len(self.assumed) > 3 else "")
        said = "no run folder and no built-in task says what the primary metric is"
        return [f"{names}: {said}; {PRIMARY} counts"] if names else []


def gather(paths: Sequence[Path]) -> Gathered:
    """The rows in `paths`: each the --output_path of runs, a generator's folder in it, a folder of CSVs, or a CSV.

    An output folder's rows are those of its leaderboard.csv, which the last run or `alignbench score` wrote, and of
    earlier runs' results_*.json. Of what was measured more than once the newest counts; the same row from two places
    counts once. Whatever is wrong with a file becomes a line that names it, and the rows of the others are there.
    """
    pile = _Pile()
    for path in dict.fromkeys(paths):
        pile.add(path)
    rows, remarks = _merged(pile.parts)
    told, summaries = dict(pile.primary), dict(pile.summaries)
    for task, version in sorted(keys(rows, ("task", "task_version"))):
        told[task] = told.get(task) or _built_in(task, version)
        summaries[task] = summaries.get(task) or sentence(built_in(task, version).get("summary"))
    primary = {task: told[task] or PRIMARY for (task,) in sorted(keys(rows, ("task",)))}
    assumed = tuple(task for task in primary if not told[task])
    rows = _with_primary(rows, pile.primary)
    remarks = [*pile.remarks, *remarks, *_versions(pile.parts), *_without(rows, primary)]
    known = {task: summaries[task] for task in primary if summaries[task]}
    return Gathered(rows, primary, tuple(dict.fromkeys(pile.failures)), tuple(remarks), assumed, known)


@dataclass
class _Pile:
    """What was found so far: rows and where they are from, and lines about them."""

    parts: list[tuple[Path, pd.DataFrame]] = field(default_factory=list)
    primary: dict[str, str] = field(default_factory=dict)
    summaries: dict[str, str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def add(self, path: Path) -> None:
        """Add what a path has to tell."""
        if path.is_file():
            self._csv(path)
        elif not path.is_dir():
            self.failures.append(f"{path}: does not exist; give the --output_path of a run, or a CSV file of results")
        elif is_output(path):
            self._output(path)
        elif is_generator(path):
            self._output(path.parent, path.name)
        else:
            self._published(path)

    def _csv(self, path: Path) -> None:
        rows, told = _sound(path)
        self.parts.append((path, rows))
        self.failures += told
        for task, name in sorted(keys(rows, ("task", "primary"))) if "primary" in rows else ():
            if name:
                self.primary.setdefault(task, name)

    def _output(self, folder: Path, generators: str = "*") -> None:
        known, told = _sound(folder / TABLE) if (folder / TABLE).is_file() else (_no_rows(), [])
        if generators != "*":
            names = zip(known["generator"], known["aligner"], strict=True)
            known = known[[folder_of(*name) == generators for name in names]]
        parts = [known, *reported(folder, keys(known, (*UNIT, "measured")), generators, told)]
        rows = _newest(pd.concat(parts, ignore_index=True))
        told += troubles(folder, generators, rows)
        if rows.empty and not told:
            told = [_nothing(folder)]
        self.parts.append((folder if generators == "*" else folder / generators, rows))
        self.failures += told
        self._primary(folder)

    def _primary(self, folder: Path) -> None:
        """What sorts the tables of each task, and what it asks, as its last run said; the first folder counts."""
        for path in sorted(folder.glob("task_*.json")):
            task = path.stem.removeprefix("task_")
            try:
                content = read_json(path)
            except StoreError as error:
                self.failures.append(str(error))
                continue
            told = str(content.get("primary") or PRIMARY)
            if said := sentence(content.get("summary")):
                self.summaries.setdefault(task, said)
            if self.primary.setdefault(task, told) != told:
                self.remarks.append(f"{path}: would sort by {told}; another folder's {self.primary[task]} counts")

    def _published(self, folder: Path) -> None:
        """One CSV a task; a leaderboard.csv beside them is made from them."""
        files = sorted(folder.glob("*.csv"))
        for path in [p for p in files if p.name != TABLE] or files:
            self._csv(path)
        if not files:
            self.failures.append(_nothing(folder))


def _sound(path: Path) -> tuple[pd.DataFrame, list[str]]:
    """The rows of a CSV, and what is wrong with it."""
    try:
        rows, told = sound(path)
    except StoreError as error:
        return _no_rows(), [str(error)]
    return rows, told if told or len(rows) else [f"{path}: holds no results"]


def _no_rows() -> pd.DataFrame:
    return tidy(pd.DataFrame(columns=list(COLUMNS)))


def _nothing(folder: Path) -> str:
    """What to say of a folder without results, with the first below it that have some."""
    below = [p for p in sorted(folder.iterdir()) if p.is_dir() and (is_output(p) or next(p.glob("*.csv"), None))]
    hint = f"did you mean {', '.join(map(str, below[:3]))}?" if below else "give the --output_path of a run"
    return f"{folder}: holds no results; {hint}"


def _newest(rows: pd.DataFrame) -> pd.DataFrame:
    """Of each unit (see `UNIT`) the rows of its newest measurement."""
    if rows.empty:
        return rows
    when = pd.Series(pd.factorize(rows["measured"], sort=True)[0], index=rows.index)
    return rows[when == when.groupby(_unit(rows)).transform("max")]


def _unit(rows: pd.DataFrame) -> pd.Series:
    """Which unit each row is of, by number."""
    return rows.groupby(list(UNIT), sort=False, dropna=False).ngroup()


def _merged(parts: Sequence[tuple[Path, pd.DataFrame]]) -> tuple[pd.DataFrame, list[str]]:
    """All rows as one table, and what was left out of each part: older measurements, and rows that are there twice."""
    if not parts:
        return _no_rows(), []
    source = np.repeat(np.arange(len(parts)), [len(rows) for _, rows in parts])
    rows = pd.concat([rows for _, rows in parts], ignore_index=True)
    kept = _newest(rows)
    same = kept.assign(unit=_unit(kept)).groupby(["unit", "metric", "part"], sort=False).ngroup()
    again = same.duplicated()
    values = kept["value"].to_numpy()
    earlier = values[pd.Series(np.arange(len(kept))).groupby(same.to_numpy()).transform("min")]
    differ = again & (values != earlier) & ~(np.isnan(values) & np.isnan(earlier))
    said = {
        "were measured again later; the newest count": rows.index.difference(kept.index),
        "are there twice, in it or in a path before it; each counts once": kept.index[again & ~differ],
        "differ from the same measurement in it or in a path before it; the first counts": kept.index[differ],
    }
    counts = [
        (path, what, int((source[which] == i).sum()))
        for what, which in said.items()
        for i, (path, _) in enumerate(parts)
    ]
    remarks = [f"{path}: {many} of its rows {what}" for path, what, many in counts if many]
    first = kept[~again]
    return tidy(first), remarks


def _versions(parts: Sequence[tuple[Path, pd.DataFrame]]) -> Iterator[str]:
    """A line for each task of which there are rows with several hashes, and a path that has each."""
    found: dict[str, dict[tuple[str, str], Path]] = {}
    for path, rows in parts:
        for task, version, digits in sorted(keys(rows, ("task", "task_version", "task_hash"))):
            found.setdefault(task, {}).setdefault((version, digits), path)
    for task, where in found.items():
        if len({digits for _, digits in where}) > 1:
            named = ", ".join(f"v{version} #{digits[:8]} in {path}" for (version, digits), path in where.items())
            yield f"task '{task}': there are {len(where)} tasks of this name ({named}); --allow_mixed alone joins them"


def _without(rows: pd.DataFrame, primary: Mapping[str, str]) -> Iterator[str]:
    """A line for each task some of whose generators lack the number that its tables are sorted by."""
    for task, group in rows.groupby("task", sort=False):
        name = primary[str(task)]
        reports = (group["metric"] + "." + group["part"]).str.rstrip(".") == name
        lacking = group[~reports.groupby(_unit(group)).transform("any") & (group["generator"] != CEILING)]
        who = sorted(" + ".join(filter(None, pair)) for pair in keys(lacking, ("generator", "aligner")))
        if who:
            more = f" and {len(who) - 1} more" if len(who) > 1 else ""
            yield f"task '{task}': {who[0]}{more} did not report {name}, by which it is sorted"


def _with_primary(rows: pd.DataFrame, told: Mapping[str, str]) -> pd.DataFrame:
    """The rows, which say what is primary of each task where that is neither the built-in task's nor the default."""
    own = {
        task: told[task]
        for task, version in keys(rows, ("task", "task_version"))
        if task in told and told[task] != (_built_in(task, version) or PRIMARY)
    }
    return tidy(rows.assign(primary=rows["task"].map(own))) if own else rows


def _built_in(task: str, version: str) -> str:
    """What the built-in task of this name and version is sorted by; "" where there is none."""
    data = built_in(task, version)
    return str(data.get("primary") or PRIMARY) if data else ""
