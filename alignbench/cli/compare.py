"""`alignbench compare`: generators beside a baseline, from stored draws."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from alignbench.cli.app import app
from alignbench.cli.leaderboard import EXTENSIONS, Rename, most_rows, renames, words_in
from alignbench.cli.words import IncludePath, say
from alignbench.errors import RunError, UsageError, unknown

if TYPE_CHECKING:
    from alignbench.reports.compare.regression import Gate
    from alignbench.reports.table.board import Table

EXAMPLES = """
Examples:

  alignbench compare results base temperature:t=0.7

  alignbench compare results/before results/after

  alignbench compare results base best_of_n:n=4 rejection --format html --out page

  alignbench compare old new --fail_on_regression satisfaction.always:0.02 --fail_on_regression divergence.kl_target

  alignbench compare results base best_of_n --tasks 'lexical_*' --columns divergence,satisfaction --rows 10

  alignbench compare results --series step

A regression is a metric whose whole 95 % interval of the paired difference is worse by more than MARGIN (default 0, in
the metric's unit) and whose p, not adjusted, is at most 0.05, or that is infinite where the baseline's is finite.

Exit codes: 0; 1 where nothing, or not all that --fail_on_regression asks, could be compared; 2 for words that mean
nothing; 3 for a regression.
"""
REGRESSION = 3  # exit code


@app.command(epilog=EXAMPLES)
def compare(
    generators: Annotated[
        list[str],
        typer.Argument(metavar="A B [C…]", help="Folders of results, and labels of rows in them; the baseline first."),
    ],
    fail_on_regression: Annotated[
        list[str] | None,
        typer.Option(
            "--fail_on_regression", metavar="METRIC[:MARGIN]", help="Exit 3 where this is worse by more; repeatable."
        ),
    ] = None,
    series: Annotated[
        str | None, typer.Option(metavar="step", help="Curves of a series of checkpoints over training instead.")
    ] = None,
    format: Annotated[  # noqa: A002 (the option's name)
        str | None,
        typer.Option(metavar="md,html,json,latex", help="Print this format, or with --out write these. (default: all)"),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Write comparison.{md,html,json,tex} there.")] = None,
    tasks: Annotated[
        str | None, typer.Option(metavar="A,B", help="Only these tasks: names or patterns, comma-separated.")
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option("--columns", "--metrics", metavar="A,B", help="Only these numbers: metrics or metric.part."),
    ] = None,
    most: Annotated[int | None, typer.Option("--rows", metavar="N", help="Numbers of a table at most.")] = None,
    rename: Rename = None,
    include_path: IncludePath = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust_remote_code", help="Run the scripts of metrics that the folders name.")
    ] = False,
) -> None:
    """Compare generators by paired differences on the draws that they share.

    A folder is an --output_path, or that of one generator in it; whatever is no folder is the label of a row.

    Every number with its difference from the baseline's, 95 % limits, a permutation p-value adjusted by Holm's method,
    which prompts moved most, and draws side by side.
    """
    from alignbench.registry import load_plugins
    from alignbench.reports.compare.regression import gate_of

    load_plugins(tuple(include_path or ()))
    gates = [gate_of(words) for words in fail_on_regression or ()]
    if series is None:
        asked = Asked(
            tuple(words_in(tasks)), tuple(words_in(columns)), most_rows(most), renames(rename), trust_remote_code
        )
        _compare(generators, gates, _Where(format, out), asked)
    elif series != "step":
        raise unknown("series", series, ["step"], "--series")
    elif gates:
        raise UsageError("--fail_on_regression compares generators with a baseline; it is not for --series")
    elif tasks or columns or most or rename:
        raise UsageError("--tasks, --columns, --rows and --rename choose what is compared; they are not for --series")
    else:
        _series(generators, _Where(format, out))


class Asked(NamedTuple):
    """What of a comparison is asked for: tasks (names or patterns), columns, how many of them, what rows are called."""

    tasks: tuple[str, ...]
    columns: tuple[str, ...]
    rows: int | None
    rename: Mapping[str, str]
    trusted: bool  # whether metrics may run code that a folder names


@dataclass(frozen=True)
class _Where:
    """Which formats are asked for, and the folder that they go to; neither: the terminal."""

    format: str | None
    out: Path | None

    def formats(self, known: Iterable[str]) -> list[str]:
        """The formats to write or to print; raises UsageError on one that is not `known`."""
        names = list(known) if self.format is None else [name.strip() for name in self.format.split(",")]
        for name in names:
            if name not in known:
                raise unknown("format", name, known, "--format")
        if self.out is None and self.format is not None and len(names) > 1:
            raise UsageError("--format: without --out DIR, where files go, only one format can be printed")
        return names


def _compare(generators: Sequence[str], gates: Sequence[Gate], where: _Where, asked: Asked) -> None:
    from alignbench.reports.compare import text
    from alignbench.reports.compare.compared import compare as compared
    from alignbench.reports.compare.contenders import contenders, of_tasks, renamed
    from alignbench.reports.compare.regression import judged

    where.formats(text.FORMATS)
    found, damaged = contenders(generators)
    found = renamed(of_tasks(found, asked.tasks), asked.rename)
    with waiting("comparing") as told:
        comparison = compared(found, told, asked.columns, trusted=asked.trusted)
    if not comparison.tables:
        for line in (*damaged, *comparison.failures):
            say(line)
        raise RunError("nothing could be compared")
    judgements = list(judged(gates, comparison))
    _give(comparison, text.FORMATS, text.all_tables(comparison, asked.rows), where)
    if where == _Where(None, None):
        print(text.LEGEND)
    lines = [*damaged, *comparison.failures]
    for line in (*lines, *(j.line for j in judgements)):
        say(line)
    if any(j.regressed for j in judgements):
        raise typer.Exit(REGRESSION)
    if damaged or (gates and lines) or any(j.regressed is None for j in judgements):
        raise typer.Exit(1)


def _series(generators: Sequence[str], where: _Where) -> None:
    from alignbench.reports.compare import checkpoints

    where.formats(checkpoints.FORMATS)
    with waiting("comparing checkpoints"):
        found, failures = checkpoints.series_of(generators)
    _give(found, checkpoints.FORMATS, checkpoints.tables_of(found), where)
    for line in failures:
        say(line)
    if failures:
        raise typer.Exit(1)


def _give(shown: Any, formats: Mapping[str, Callable[[Any], str]], tables: Sequence[Table], where: _Where) -> None:
    """Write the files asked for, or print one format, or the terminal's tables."""
    from rich.console import Console

    from alignbench.files import write_atomic
    from alignbench.reports.formats.terminal import tables_to_terminal

    names = where.formats(formats)
    if where.out is not None:
        paths = {where.out / f"comparison.{EXTENSIONS.get(name, name)}": formats[name](shown) for name in names}
        for path, content in paths.items():
            write_atomic(path, content.encode("utf-8", "backslashreplace"))
        print("wrote " + ", ".join(map(str, paths)))
    elif where.format is not None:
        print(formats[names[0]](shown), end="")
    else:
        Console().print(tables_to_terminal(tables), crop=False)


@contextmanager
def waiting(what: str) -> Iterator[Callable[[str], None]]:
    """A line on standard error that says what is being done; nothing where that is no terminal."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda task: None
        return
    with console.status(what) as status:
        yield lambda task: status.update(f"{what}: {task}")
