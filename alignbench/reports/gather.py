"""Rows of any number of runs as one table: output folders, published CSV files, from this machine or another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from alignbench.errors import StoreError, TaskError
from alignbench.reports.folders import TABLE, is_generator, is_output, of_output, read_json, sound
from alignbench.reports.rows import COLUMNS, tidy
from alignbench.types import PRIMARY


@dataclass(frozen=True)
class Gathered:
    """Tidy rows of single seeds; what sorts each task's tables; lines about what is missing, and about what was chosen.

    `failures` are what a command exits non-zero for; `remarks` are worth telling and no more.
    """

    rows: pd.DataFrame
    primary: Mapping[str, str]
    failures: Sequence[str] = ()
    remarks: Sequence[str] = ()


def gather(paths: Sequence[Path]) -> Gathered:
    """The rows in `paths`: each the --output_path of runs, a generator's folder in it, a folder of CSVs, or a CSV.

    Whatever is wrong with one file becomes a line that names it; the rows of the others are there all the same.
    """
    pile = _Pile()
    for path in dict.fromkeys(paths):
        pile.add(path)
    rows = tidy(pd.concat(pile.parts, ignore_index=True) if pile.parts else pd.DataFrame(columns=list(COLUMNS)))
    return Gathered(rows, pile.primaries(rows), tuple(dict.fromkeys(pile.failures)), tuple(pile.remarks))


@dataclass
class _Pile:
    """What was found so far."""

    parts: list[pd.DataFrame] = field(default_factory=list)
    primary: dict[str, str] = field(default_factory=dict)
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
        try:
            self.parts.append(sound(path, self.failures))
        except StoreError as error:
            self.failures.append(str(error))

    def _output(self, folder: Path, generators: str = "*") -> None:
        parts, failures = of_output(folder, generators)
        self.parts += parts
        self.failures += failures
        if not parts and not failures:
            self.failures.append(_nothing(folder))
        for path in sorted(folder.glob("task_*.json")):
            try:
                told = str(read_json(path)["primary"])
                self.primary.setdefault(path.stem.removeprefix("task_"), told)
            except (StoreError, KeyError) as error:
                self.failures.append(str(error) if isinstance(error, StoreError) else f"{path}: lacks 'primary'")

    def _published(self, folder: Path) -> None:
        """One CSV a task; a leaderboard.csv beside them is made from them."""
        files = sorted(folder.glob("*.csv"))
        for path in [p for p in files if p.name != TABLE] or files:
            self._csv(path)
        if not files:
            self.failures.append(_nothing(folder))

    def primaries(self, rows: pd.DataFrame) -> dict[str, str]:
        """What sorts the tables of each task: what its run said, else the built-in task of its name and version."""
        known = rows[["task", "task_version"]].drop_duplicates()
        told = {task: _built_in(task, version) for task, version in known.itertuples(index=False)}
        return {task: self.primary.get(task, told[task]) for task in told}


def _nothing(folder: Path) -> str:
    """What to say of a folder without results, with the first below it that have some."""
    below = [
        str(path) for path in sorted(folder.iterdir()) if path.is_dir() and (is_output(path) or any(path.glob("*.csv")))
    ]
    hint = f"; did you mean {', '.join(below[:3])}?" if below else "; give the --output_path of a run"
    return f"{folder}: holds no results{hint}"


def _built_in(task: str, version: str) -> str:
    from alignbench.task import builtin_folder
    from alignbench.yamlfile import read

    try:
        data = read(builtin_folder() / f"{task}.yaml").data
    except TaskError:
        return PRIMARY
    return str(data.get("primary") or PRIMARY) if str(data.get("version")) == version else PRIMARY
