"""Experiment trackers that are told of each generator's rows as they finish, and of training: trackio, wandb, mlflow.

A row of a leaderboard (a generator on a task) is one run of the tracker, with the row's own `run_id`: the same command
again goes on in the same run. The training of an aligner is a run of its own, and another one where a later command
goes on with it. In Python: ``tell = report([Spec("wandb")], print)``, then
``alignbench.evaluate(…, on_rows=tell, on_step=tell.on_step)`` and ``tell.finish()``. To add a tracker, write a class
with the `Tracker` methods and name it in `TRACKERS`.
"""

from __future__ import annotations

import inspect
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, field
from importlib import import_module
from math import isfinite
from textwrap import shorten
from typing import Any, Protocol

from alignbench.errors import UsageError, did_you_mean, unknown
from alignbench.run.rows import Row
from alignbench.spec import Spec

PROJECT = "alignbench"
"""Where runs go unless the user names a project (mlflow: an experiment)."""


class Tracker(Protocol):
    """What is asked of a tracker: one run for each row of a leaderboard, and for each training; one at a time."""

    def start(self, run_id: str, name: str, config: Mapping[str, Any]) -> None:
        """Begin a run, or go on with the one of this `run_id`."""

    def log(self, numbers: Mapping[str, float], step: int | None) -> None:
        """Finite numbers by name; `step` is a training step, such as a checkpoint's."""

    def finish(self) -> None:
        """End the run."""


@dataclass
class Trackio:
    """Runs of trackio, by the words of `trackio.init`, such as project and space_id; local unless told otherwise."""

    module: Any
    settings: Mapping[str, Any]

    def __post_init__(self) -> None:
        _check("trackio", self.settings, _words(self.module.init) - {"name", "config", "resume"})

    def start(self, run_id: str, name: str, config: Mapping[str, Any]) -> None:
        """See `Tracker.start`; a name that was there is gone on with."""
        given = {"project": PROJECT, "group": config["task"], "embed": False, **self.settings}
        self.module.init(**given, name=f"{name} {run_id}", config=dict(config), resume="allow")

    def log(self, numbers: Mapping[str, float], step: int | None) -> None:
        """See `Tracker.log`."""
        self.module.log(dict(numbers), step=step)

    def finish(self) -> None:
        """See `Tracker.finish`."""
        self.module.finish()


@dataclass
class Wandb:
    """Runs of Weights & Biases, by the words of `wandb.init`, such as project, entity and mode=offline."""

    module: Any
    settings: Mapping[str, Any]
    run: Any = None

    def __post_init__(self) -> None:
        _check("wandb", self.settings, _words(self.module.init) - {"id", "name", "config", "resume", "settings"})

    def start(self, run_id: str, name: str, config: Mapping[str, Any]) -> None:
        """See `Tracker.start`."""
        given = {"project": PROJECT, "group": config["task"], **self.settings}
        quiet = self.module.Settings(silent=True, console="off")  # else 30 lines a row, and it wraps standard output
        self.run = self.module.init(**given, id=run_id, name=name, config=dict(config), resume="allow", settings=quiet)

    def log(self, numbers: Mapping[str, float], step: int | None) -> None:
        """See `Tracker.log`."""
        self.run.log(dict(numbers), step=step)

    def finish(self) -> None:
        """See `Tracker.finish`."""
        self.run.finish()


@dataclass
class Mlflow:
    """Runs of MLflow: `tracking_uri` and `experiment_name` say where."""

    module: Any
    settings: Mapping[str, Any]

    LONGEST = 500
    """Characters of a parameter that every MLflow server takes; longer ones become text files of the run."""

    def __post_init__(self) -> None:
        _check("mlflow", self.settings, {"tracking_uri", "experiment_name"})

    def start(self, run_id: str, name: str, config: Mapping[str, Any]) -> None:
        """See `Tracker.start`; the row's `run_id` is the tag `alignbench.run_id`."""
        if "tracking_uri" in self.settings:
            self.module.set_tracking_uri(self.settings["tracking_uri"])
        self.module.set_experiment(self.settings.get("experiment_name", PROJECT))
        found = self.module.search_runs(filter_string=f"tags.`alignbench.run_id` = '{run_id}'", output_format="list")
        if found:
            self.module.start_run(run_id=found[0].info.run_id)
            return
        self.module.start_run(run_name=name, tags={"alignbench.run_id": run_id})
        long = {key: value for key, value in config.items() if len(str(value)) > self.LONGEST}
        self.module.log_params({key: value for key, value in config.items() if key not in long})
        for key, value in long.items():
            self.module.log_text(str(value), f"{key}.txt")

    def log(self, numbers: Mapping[str, float], step: int | None) -> None:
        """See `Tracker.log`."""
        self.module.log_metrics(dict(numbers), step=step)

    def finish(self) -> None:
        """See `Tracker.finish`."""
        self.module.end_run()


TRACKERS: Mapping[str, Callable[[Any, Mapping[str, Any]], Tracker]] = {
    "trackio": Trackio, "wandb": Wandb, "mlflow": Mlflow,
}  # fmt: skip
"""Name, of the package and of the extra alike → what speaks to it."""


def tracker(spec: Spec) -> Tracker:
    """The tracker that a spec names; raises UsageError where it is unknown, not installed, or takes no such setting."""
    if spec.name not in TRACKERS:
        raise unknown("tracker", spec.name, TRACKERS, "--tracker")
    try:
        module = import_module(spec.name)
    except ImportError as error:
        missing = f"--tracker {spec.name}: {spec.name} is not installed: pip install 'alignbench[{spec.name}]'"
        raise UsageError(missing) from error
    return TRACKERS[spec.name](module, spec.arguments)


@dataclass
class Report:
    """What `Watch.on_rows` calls, and `on_step`. A tracker that fails is told of in one line and left out from then on.

    What trackers print goes to standard error.
    """

    trackers: dict[str, Tracker]  # label → tracker
    say: Callable[[str], None]
    training: str = ""  # whose training has the trackers' current run; "" where none has
    runs: dict[str, str] = field(default_factory=dict)  # whose training → the id of its run

    def __call__(self, rows: Sequence[Row]) -> None:
        """Tell every tracker of the rows of one generator on one task."""
        self.finish()
        self._each(lambda one: _tell(one, rows))

    def on_step(self, who: str, step: int, numbers: Mapping[str, float]) -> None:
        """Tell every tracker of the numbers of one training step; `who` is "lexical_word: dpg:steps=200"."""
        if who != self.training:
            self.finish()
            self.training = who
            run_id = self.runs.setdefault(who, uuid.uuid4().hex[:12])
            self._each(lambda one: one.start(run_id, f"training, {who}", {"task": _task(who), "training": who}))
        finite = {name: float(x) for name, x in numbers.items() if isfinite(x)}
        self._each(lambda one: _log(one, finite, step))

    def finish(self) -> None:
        """End the run of a training."""
        if self.training:
            self.training = ""
            self._each(lambda one: one.finish())

    def _each(self, work: Callable[[Tracker], None]) -> None:
        """Do something with every tracker."""
        for label, one in list(self.trackers.items()):
            try:
                with redirect_stdout(sys.stderr):
                    work(one)
            except Exception as error:  # whatever a tracker raises must not lose results
                del self.trackers[label]
                told = shorten(str(error), 200, placeholder=" …")
                self.say(f"--tracker {label}: {type(error).__name__}: {told}; no more rows go there; results are kept")


def report(specs: Sequence[Spec], say: Callable[[str], None]) -> Report:
    """What tells the trackers of `specs` of rows and of training; raises UsageError as `tracker` does."""
    return Report({spec.label: tracker(spec) for spec in specs}, say)


def _tell(one: Tracker, rows: Sequence[Row]) -> None:
    key = rows[0].key
    who = f"{key.generator} + {key.aligner}" if key.aligner else key.generator
    one.start(key.run_id, f"{key.task}: {who}, seed {key.seed}", _config(rows))
    try:
        one.log(_numbers(rows), key.step)
    finally:
        one.finish()


def _log(one: Tracker, numbers: Mapping[str, float], step: int) -> None:
    """Log what there is; a run that this breaks is ended."""
    try:
        if numbers:
            one.log(numbers, step)
    except Exception:
        one.finish()
        raise


def _task(who: str) -> str:
    """The task of a training: `lexical_word` of "lexical_word (seed 1): dpg:steps=200"."""
    return who.partition(":")[0].partition(" (seed ")[0]


def _config(rows: Sequence[Row]) -> dict[str, Any]:
    """What the rows share, and in `notes` what is said of each number: why one is missing, or what to know of it."""
    key = {name: value for name, value in asdict(rows[0].key).items() if value not in (None, "")}
    notes = [f"{row.name}: {_unsaid(row)}{row.estimate.note}" for row in rows if row.estimate.note or _unsaid(row)]
    return {**key, "notes": "\n".join(notes)}


def _unsaid(row: Row) -> str:
    """Of a value that no tracker can draw, what it is."""
    value = row.estimate.value
    return "— " if value is None else "" if isfinite(value) else f"{value} "


def _numbers(rows: Sequence[Row]) -> dict[str, float]:
    """The finite values, and their standard errors and limits under the value's name with .stderr, .ci_low, .ci_high.

    MLflow would write ∞ as 1.8e308; what is not finite is said in the notes.
    """
    found = {}
    for row in rows:
        number = {"": row.estimate.value, ".stderr": row.estimate.stderr, ".ci_low": row.estimate.ci_low,
                  ".ci_high": row.estimate.ci_high}  # fmt: skip
        found.update({f"{row.name}{k}": float(x) for k, x in number.items() if x is not None and isfinite(x)})
    return found


def _words(function: Any) -> set[str]:
    """The keyword arguments that a function names."""
    return set(inspect.signature(function).parameters)


def _check(name: str, settings: Mapping[str, Any], known: set[str]) -> None:
    """Raise UsageError on a setting that a tracker does not take."""
    for key in settings:
        if key not in known:
            raise UsageError(f"--tracker {name}: unknown setting '{key}'.{did_you_mean(key, known)}")
