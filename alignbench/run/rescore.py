"""Rows again from stored evidence, without a model: `alignbench score`, and what a folder remembers of its tasks."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignbench.errors import AlignbenchError, StoreError, UsageError
from alignbench.files import dump, write_atomic
from alignbench.registry import metric as registry
from alignbench.run.rows import Asked, Row, measure, read_evidence
from alignbench.run.writer import restate
from alignbench.store.packed import evidence_files
from alignbench.task import Task
from alignbench.types import PRIMARY


def remember(output: Path | None, task: Task) -> None:
    """Write task_<name>.json: what the latest run asked for, so that `score` asks for the same and pages can say it.

    Its metrics and what is primary, what it asks in a sentence, and those features of its target, with their arguments,
    that can say where in a text they find what they look for.
    """
    if output is not None:
        content = {
            "version": task.version, "metrics": task.metrics, "primary": task.primary or PRIMARY,
            "summary": task.summary, "features": _looked_for(task),
        }  # fmt: skip
        write_atomic(output / f"task_{task.name}.json", dump(content))


def _looked_for(task: Task) -> dict[str, Any]:
    """Name → specification, as a task file has it, of the features whose finds can be marked."""
    asked = {constraint.feature: task.features[constraint.feature] for constraint in task.target.constraints}
    return {name: {"feature": bound.name, **bound.params} for name, bound in asked.items() if bound.marks}


@dataclass(frozen=True)
class Remembered:
    """What the latest run of a task asked for, as its output folder says it."""

    asked: Asked = None  # metrics; None for all that apply
    primary: str = PRIMARY
    refused: tuple[str, ...] = ()  # a line for each metric that is left out, or that the file cannot be read
    summary: str = ""


def remembered(folder: Path, task: str, *, trusted: bool = False) -> Remembered:
    """What `task_<name>.json` in an output folder says; all metrics where it does not say.

    A folder may be a stranger's: a metric that runs code (a script, a module from the hub) is refused unless `trusted`.
    """
    path = folder / f"task_{task}.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        listed, primary, summary = content["metrics"], str(content["primary"]), str(content.get("summary", ""))
        asked = None if listed is None else [(str(metric), dict(params)) for metric, params in listed]
    except FileNotFoundError:
        return Remembered()
    except (OSError, ValueError, KeyError, TypeError):
        return Remembered(refused=(f"{path}: is not what a run writes: all metrics that apply are measured",))
    if trusted or asked is None:
        return Remembered(asked, primary, summary=summary)
    refused = [name for name, _ in asked if name in registry and registry[name].runs_code]
    lines = tuple(f"{path}: the metric '{name}' is left out: it runs code that this file names; "
                  "--trust_remote_code runs it" for name in refused)  # fmt: skip
    return Remembered([one for one in asked if one[0] not in refused], primary, lines, summary)


@dataclass
class Rescored:
    """Rows recomputed from stored evidence, what each task asks and sorts by, and the files that could not be used."""

    rows: list[Row] = field(default_factory=list)
    primary: dict[str, str] = field(default_factory=dict)
    summaries: dict[str, str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def fail(self, error: AlignbenchError) -> None:
        """Note a failure, once."""
        if str(error) not in self.failures:
            self.failures.append(str(error))


def rescore(folder: Path, *, trusted: bool = False) -> Rescored:
    """Every metric recomputed from the evidence in an output folder; no model is needed.

    A damaged file, and a metric that fails, is told and left out, and so is one that runs code named by a folder that
    is not `trusted`. Raises StoreError where there is no evidence at all.
    """
    found = Rescored()
    for path in evidence_files(folder):
        try:
            evidence, key = read_evidence(path)
            known = remembered(folder, key.task, trusted=trusted)
            found.primary[key.task] = known.primary
            found.summaries[key.task] = known.summary
            for line in known.refused:
                found.fail(UsageError(line))
            rows = measure(known.asked, key, evidence, found.fail)
            restate(path.parent, rows, "")
            found.rows += rows
        except AlignbenchError as error:
            found.fail(error)
    if not found.rows and not found.failures:
        raise StoreError(f"{folder}: holds no results (no */evidence_*.npz); give the --output_path of a run")
    return found
