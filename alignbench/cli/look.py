"""`alignbench ls`, `show` and `validate`: what is there, how a task is written, and whether one is right."""

from __future__ import annotations

from collections.abc import Iterator
from inspect import Parameter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alignbench.cli.app import app
from alignbench.cli.words import IncludePath, say
from alignbench.errors import AlignbenchError, unknown

if TYPE_CHECKING:
    from alignbench.registry import Entry

COLUMNS = {"tasks": ("name", "tags", "what it is"), "aligners": ("name", "arguments", "density", "what it is")}
"""What `ls` tells of each kind, where that is not name, arguments and summary."""


@app.command("ls")
def list_things(
    what: Annotated[str, typer.Argument(metavar="tasks|aligners|generators|features|metrics")] = "tasks",
    include_path: IncludePath = None,
) -> None:
    """List what is there: tasks, aligners, generators, features or metrics."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in COLUMNS.get(what, ("name", "arguments", "what it is")):
        table.add_column(column, overflow="fold")
    for line in _listing(what, tuple(include_path or ())):
        table.add_row(*map(escape, line))  # "[log π]" is no markup
    Console().print(table)


@app.command()
def show(
    task: Annotated[str, typer.Argument(metavar="TASK", help="A name, or a YAML file.")],
    include_path: IncludePath = None,
) -> None:
    """Print a task's YAML, to copy and change."""
    from alignbench.errors import UsageError
    from alignbench.task import task_files

    files = task_files(task, tuple(include_path or ()))
    if len(files) > 1:
        names = ", ".join(path.stem for path in files)
        raise UsageError(f"'{task}' stands for {len(files)} tasks: {names}; name one")
    try:
        print(files[0].read_text(encoding="utf-8"), end="")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{files[0]}: cannot be read ({error})") from None


@app.command()
def validate(
    tasks: Annotated[list[str], typer.Argument(metavar="TASK…", help="Names, patterns or YAML files.")],
    include_path: IncludePath = None,
) -> None:
    """Check tasks without a model: keys, features, target, metrics."""
    from alignbench.registry import load_plugins

    folders = tuple(include_path or ())
    load_plugins(folders)
    worst = max(_validated(words, folders) for words in tasks)
    if worst:
        raise typer.Exit(worst)


def _validated(words: str, folders: tuple[Path, ...]) -> int:
    """Print a line for each task that `words` means, and tell what is wrong with the others; the exit code for them."""
    from alignbench.task import load_task, task_files

    worst = 0
    try:
        paths = task_files(words, folders)
    except AlignbenchError as error:
        say(str(error))
        return error.exit_code
    for path in paths:
        try:
            task = load_task(path)
        except AlignbenchError as error:
            say(str(error))
            worst = max(worst, error.exit_code)
            continue
        print(f"{task.name} v{task.version}: ok, {len(task.prompts)} prompts × {task.draws} draws, "
              f"{task.max_tokens} tokens, #{task.hash[:8]}")  # fmt: skip
    return worst


def _listing(what: str, include_path: tuple[Path, ...]) -> Iterator[tuple[str, ...]]:
    from alignbench.registry import KINDS, load_plugins
    from alignbench.task import all_tasks, headline, tags

    if what == "tasks":
        found = all_tasks(include_path).items()
        yield from ((name, ", ".join(tags(path)), headline(path)[1]) for name, path in found)
        return
    if what not in KINDS:
        raise unknown("kind", what, ("tasks", *KINDS))
    load_plugins(include_path)
    for name in KINDS[what]:
        entry = KINDS[what][name]
        arguments = ", ".join(_argument(name, value) for name, value in _usual(entry).items())
        yield name, arguments, *([entry.declared] if what == "aligners" else []), entry.summary


def _usual(entry: Entry) -> dict[str, Any]:
    """Argument → its default; a trained aligner that is given no budget takes one of steps."""
    from alignbench.aligners.training.options import STEPS, Options

    usual = {name: p.default for name, p in entry.parameters.items()}
    trains = isinstance(entry.thing, type) and issubclass(entry.thing, Options)
    return {**usual, "steps": STEPS} if trains else usual


def _argument(name: str, default: Any) -> str:
    return f"{name}=…" if default is Parameter.empty else f"{name}={default}"
