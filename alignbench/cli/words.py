"""What commands share: their options, and how they speak and show progress."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[list[str] | None, typer.Option(metavar="NAME", help="A generator, such as hf; repeat for more rows.")]
ModelArgs = Annotated[
    list[str] | None,
    typer.Option("--model_args", metavar="K=V,…", help="Its arguments, such as pretrained=gpt2; one for each --model."),
]
Base = Annotated[
    str | None, typer.Option(metavar="SPEC", help="What divergences are measured from. (default: the model)")
]
Aligners = Annotated[
    list[str] | None,
    typer.Option("--aligner", metavar="SPEC", help="An aligner on the base, such as best_of_n:n=16; repeatable."),
]
Tasks = Annotated[
    list[str] | None, typer.Option(metavar="A,B", help="Task names, patterns or YAML files, comma-separated.")
]
IncludePath = Annotated[
    list[Path] | None,
    typer.Option("--include_path", metavar="DIR", help="More tasks (.yaml) and plug-ins (.py); repeatable."),
]
BatchSize = Annotated[
    str | None,
    typer.Option(
        "--batch_size", metavar="auto|N", help="Most rows decoded at once. (default: auto, as many as memory holds)"
    ),
]
Device = Annotated[str | None, typer.Option(metavar="DEVICE", help="auto, cpu, cuda, cuda:1 or mps. (default: auto)")]
Seeds = Annotated[
    str | None,
    typer.Option(metavar="N,…", help="Root of all random numbers; several give means over seeds. (default: 0)"),
]
Count = Annotated[int | None, typer.Option(metavar="N", min=1)]


def say(line: str) -> None:
    """One line on standard error; what commands a terminal, in the name of a file or in its text, is escaped."""
    print(f"alignbench: {''.join(map(_harmless, line))}", file=sys.stderr)


def _harmless(character: str) -> str:
    """A character as it is, or the escape of one that is not seen."""
    return character if character.isprintable() else character.encode("unicode_escape").decode()


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error; nothing where that is no terminal."""
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
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        bar = bars.add_task(what, total=total)
        yield lambda count: bars.advance(bar, count)
