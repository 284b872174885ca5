"""What commands share: their options, and how they speak and show progress."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any

import typer

from alignbench.run.settings import OPTIONS, Option, help_of

IncludePath = Annotated[
    list[Path] | None,
    typer.Option("--include_path", metavar="DIR", help="More tasks (.yaml) and plug-ins (.py); repeatable."),
]


def takes_settings(command: Callable[..., None]) -> Callable[..., None]:
    """The command with an option for each field of the settings, which it gets as `**options`."""
    own = [p for p in signature(command, eval_str=True).parameters.values() if p.kind is not Parameter.VAR_KEYWORD]
    options = [_parameter(name, option) for name, option in OPTIONS.items()]
    first, rest = options[:1], options[1:]  # --model_args stands beside --model
    command.__signature__ = Signature([*first, *own[:1], *rest, *own[1:]])  # type: ignore[attr-defined]
    return command


def _parameter(name: str, option: Option) -> Parameter:
    """A field of the settings as a typer option; its text is checked with all others, not by typer."""
    kind: Any = bool if option.flag else list[str] | None if option.many else str | None
    said = typer.Option(f"--{name}", metavar=option.metavar or None, help=help_of(name))
    return Parameter(
        name, Parameter.POSITIONAL_OR_KEYWORD, default=False if option.flag else None, annotation=Annotated[kind, said]
    )


def say(line: str) -> None:
    """One line on standard error; what commands a terminal, in the name of a file or in its text, is escaped."""
    print(f"alignbench: {''.join(map(_harmless, line))}", file=sys.stderr)


def _harmless(character: str) -> str:
    """A character as it is, or the escape of one that is not seen."""
    return character if character.isprintable() else character.encode("unicode_escape").decode()


EVERY = 30.0
"""Seconds between lines of progress where there is no terminal."""


def _lines(what: str, total: int) -> Callable[[int], None]:
    """Tells how much is done and how long the rest takes at this rate, once in a while."""
    began = told = time.monotonic()
    done = 0

    def advance(count: int) -> None:
        nonlocal done, told
        done, now = done + count, time.monotonic()
        if now - told >= EVERY and 0 < done < total:
            told, left = now, (now - began) * (total - done) / done
            say(f"{what}: {done} of {total}, {int(left) // 60}:{int(left) % 60:02} left")

    return advance


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error; where that is no terminal, a line every `EVERY` seconds."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn(),
               TimeRemainingColumn())  # fmt: skip
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(what, total)
        return
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        bar = bars.add_task(what, total=total)
        yield lambda count: bars.advance(bar, count)
