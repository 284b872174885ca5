"""Progress on standard error: a bar on a terminal, else a line once in a while."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import isfinite, nan
from typing import TYPE_CHECKING

from alignbench.cli.words import say
from alignbench.run.pace import Pace, spelled

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn, TaskID

EVERY = 30.0
"""Seconds between lines of progress where there is no terminal."""
QUICK = 3.0
"""A row that took fewer seconds has no line."""


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error; where that is no terminal, a line every `EVERY` seconds."""
    from rich.progress import TimeElapsedColumn, TimeRemainingColumn

    with _bar(TimeElapsedColumn(), TimeRemainingColumn()) as bars:
        if bars is None:
            yield _lines(what, total)
            return
        bar = bars.add_task(what, total=total)
        yield lambda count: bars.advance(bar, count)


def _lines(what: str, total: int) -> Callable[[int], None]:
    """Tells how much is done and how long the rest takes at this rate, once in a while."""
    began = told = time.monotonic()
    done = 0

    def advance(count: int) -> None:
        nonlocal done, told
        done, now = done + count, time.monotonic()
        if now - told >= EVERY and 0 < done < total:
            told = now
            say(f"{what}: {done} of {total}, {spelled((now - began) * (total - done) / done)} left")

    return advance


@contextmanager
def _bar(*more: ProgressColumn) -> Iterator[Progress | None]:
    """A bar that goes when it is done, with `more` columns after it; None where there is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn(), *more)
    with Progress(*columns, console=console, transient=True) as bars:
        yield bars


class RunProgress:
    """Where a run is: its row of how many, tokens drawn and time left; without a terminal a line for each row."""

    def __init__(self) -> None:
        from rich.console import Console

        self.pace = Pace(self._changed)
        self._lines = not Console(stderr=True).is_terminal
        self._bars: tuple[Progress, TaskID] | None = None
        self._row: tuple[int, str, float] = (-1, "", 0.0)  # the step under way, its title, when it began
        self._told = time.monotonic()

    @contextmanager
    def __call__(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """See `progress`; what a stage is called matters only before the first row."""
        from rich.progress import TextColumn

        with _bar(TextColumn("{task.fields[left]}")) as bars:
            if bars is None:
                yield lambda count: self._changed()
                return
            self._bars = bars, bars.add_task(self.pace.title or what, total=total, left=self._tokens())
            try:
                yield lambda count: bars.advance(self._bars[1], count) if self._bars else None
            finally:
                self._bars = None

    def on_step(self, who: str, step: int, numbers: Mapping[str, float]) -> None:
        """See `Watch.on_step`: shown until the next step, or told once in a while."""
        line = line_of(step, numbers)
        if self._bars is not None:
            bars, bar = self._bars
            bars.update(bar, left=line)
        elif self._lines and time.monotonic() - self._told >= EVERY:
            self._say(f"{who} · {line}")

    def finish(self) -> None:
        """Tell of the last row."""
        self._tell_row()

    def _tokens(self) -> str:
        left = self.pace.left
        return f"{self.pace.tokens:,} tokens" + ("" if left is None else f" · {spelled(left)} left")

    def _changed(self) -> None:
        """Show what is now so."""
        if self._bars is not None:
            bars, bar = self._bars
            bars.update(bar, description=self.pace.title, left=self._tokens())
        elif not self._lines:
            return
        elif self._row[0] != self.pace.at:
            self._tell_row()
            self._row = (self.pace.at, self.pace.title, time.monotonic())
        elif time.monotonic() - self._told >= EVERY and self.pace.drawn.get(self.pace.at):
            self._say(f"{self.pace.title} · {self._tokens()}")

    def _tell_row(self) -> None:
        """A line for a row that took draws; one that was found on disk is not worth one."""
        at, title, began = self._row
        took, left = time.monotonic() - began, self.pace.left
        if self._lines and took >= QUICK and (drawn := self.pace.drawn.get(at)):
            said = f"{title} · {drawn:,} tokens in {spelled(took)}"
            self._say(said + ("" if left is None else f" · {spelled(left)} left"))

    def _say(self, line: str) -> None:
        self._told = time.monotonic()
        say(line)


class TrainingProgress:
    """Where a training is: a bar with its numbers, or without a terminal a line once in a while."""

    def __init__(self) -> None:
        self._bar: tuple[Progress, TaskID] | None = None
        self._told = -EVERY
        self._last = ""

    @contextmanager
    def __call__(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """See `progress`; the bar ends with the numbers of the last step, if it is one of steps."""
        from rich.progress import TextColumn

        with _bar(TextColumn("{task.fields[numbers]}")) as bars:
            if bars is None:
                yield lambda count: None
                return
            self._bar = bars, bars.add_task(what, total=total, numbers="")
            try:
                yield lambda count: bars.advance(self._bar[1], count) if self._bar else None
            finally:
                self._bar = None

    def on_step(self, who: str, step: int, numbers: Mapping[str, float]) -> None:
        """See `Watch.on_step`."""
        self._last = line_of(step, numbers)
        if self._bar is not None:
            bars, bar = self._bar
            bars.update(bar, numbers=self._last)
        elif time.monotonic() - self._told >= EVERY:
            self._told = time.monotonic()
            say(self._last)

    def finish(self) -> bool:
        """Tell of the last step; whether there was one."""
        if self._last:
            say(self._last)
        return bool(self._last)


def line_of(step: int, numbers: Mapping[str, float]) -> str:
    """A step's numbers in one line: step, objective, KL(π‖a), what is reached, time left."""
    parts = [f"step {step}"]
    if "objective" in numbers:
        parts.append(f"objective {numbers['objective']:.3g}")
    if isfinite(numbers.get("kl_base", nan)):
        parts.append(f"KL(π‖a) {numbers['kl_base']:.2f}")
    for name, value in numbers.items():
        kind = name.partition(".")[0]
        if kind in ("always", "share"):
            parts.append(f"{'satisfied' if name == 'always' else name.partition('.')[2]} {value:.0%}")
        elif kind in ("moment", "reward"):
            parts.append(f"{name.partition('.')[2]} {value:.3g}")
    left = numbers.get("left", nan)
    return " · ".join([*parts, *([f"{spelled(left)} left"] if isfinite(left) and left > 0 else [])])
