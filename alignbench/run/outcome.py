"""What a run comes to: rows in their order, failures told once, how many draws were new; and who looks on meanwhile."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from alignbench.errors import AlignbenchError
from alignbench.run.pace import Pace
from alignbench.run.rows import Row, frame
from alignbench.types import Progress, silent

if TYPE_CHECKING:
    import pandas as pd

_LOG = logging.getLogger(__name__)

BASE, MODEL, ALIGNER, DRAWS_OF_P = range(4)
"""The rows of a task in the order in which they are listed."""


@dataclass(frozen=True, order=True)
class Place:
    """Where rows stand among those of the run: sorted by these fields, in this order."""

    task: int
    seed: int
    part: int = BASE  # or MODEL, ALIGNER, DRAWS_OF_P
    number: int = 0  # as they were asked for


@dataclass
class Outcome:
    """The rows of a run, what failed, and how many draws were new."""

    placed: list[tuple[Place, list[Row]]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    errors: list[AlignbenchError] = field(default_factory=list)  # one for each of `failures`
    fresh: int = 0
    primary: dict[str, str] = field(default_factory=dict)  # task → what sorts its leaderboard
    summaries: dict[str, str] = field(default_factory=dict)  # task → what it asks
    exit_code: int = 0
    told: set[str] = field(default_factory=set)  # lines that are said once
    broken: Mapping[str, AlignbenchError] = field(default_factory=dict)  # label of a model → why it cannot be had

    def tell(self, line: str) -> None:
        """Log a line, once a run."""
        if line not in self.told:
            self.told.add(line)
            _LOG.warning(line)

    @property
    def rows(self) -> list[Row]:
        """All rows, in order of their places."""
        return [row for _, rows in sorted(self.placed, key=lambda found: found[0]) for row in rows]

    def of_task(self, number: int) -> list[Row]:
        """The rows of the run's `number`th task, in order of their places."""
        found = sorted(((place, rows) for place, rows in self.placed if place.task == number), key=lambda one: one[0])
        return [row for _, rows in found for row in rows]

    def frame(self) -> pd.DataFrame:
        """The tidy rows."""
        return frame(self.rows, self.primary, self.summaries)

    def fail(self, line: str, error: AlignbenchError) -> None:
        """Note a failure, once."""
        if line not in self.failures:
            self.failures.append(line)
            self.errors.append(error)
            self.exit_code = max(self.exit_code, error.exit_code)

    def failed(self, who: str, error: AlignbenchError) -> None:
        """Note whose failure it is; that of a model which cannot be had is its own, whoever needed it."""
        owner = next((label for label, why in self.broken.items() if why is error), who)
        self.fail(f"{owner}: {error}", error)

    @contextmanager
    def failing(self, who: str) -> Iterator[None]:
        """A failure inside is noted with `who` before it, and the run goes on."""
        try:
            yield
        except AlignbenchError as error:
            self.failed(who, error)


@dataclass(frozen=True)
class Watch:
    """Who looks on: what was typed, who shows progress, who is told of training and of generators' and tasks' rows."""

    argv: tuple[str, ...] = ()
    progress: Progress = silent
    on_rows: Callable[[Sequence[Row]], None] = lambda rows: None  # of a generator on a task, as they finish
    on_step: Callable[[str, int, Mapping[str, float]], None] = lambda who, step, numbers: None
    """Of an aligner that trains: "lexical_word: dpg:steps=200", the step, its numbers."""
    on_task: Callable[[pd.DataFrame], None] = lambda rows: None  # of a task as a table, once its last row is there
    pace: Pace = field(default_factory=Pace)
