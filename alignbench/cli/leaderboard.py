"""`alignbench leaderboard`: the tables of any number of runs, printed, written, or checked against what is there."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alignbench.cli.app import app
from alignbench.cli.words import say
from alignbench.errors import UsageError, unknown

if TYPE_CHECKING:
    import pandas as pd

    from alignbench.reports.examples import Shown
    from alignbench.reports.gather import Gathered
    from alignbench.reports.table.board import Leaderboard, Table

WIDTH = 100  # columns where there is no terminal
EXTENSIONS = {"md": "md", "csv": "csv", "html": "html", "latex": "tex", "json": "json"}
"""Format → extension of its file."""
STYLES = ("full", "compact")
"""Of LaTeX."""

Columns = Annotated[
    str | None,
    typer.Option("--columns", "--metrics", metavar="A,B", help="Only these columns, in full: metrics or metric.part."),
]
Rows = Annotated[int | None, typer.Option("--rows", metavar="N", help="Rows of a task's table at most. (default: 12)")]
Rename = Annotated[
    list[str] | None,
    typer.Option(
        "--rename",
        metavar="OLD=NEW",
        help="Call a row (label or pattern) something else; @FILE has one a line; repeatable.",
    ),
]
Style = Annotated[
    str | None,
    typer.Option(
        metavar="full|compact",
        help="Of LaTeX: every column and note, or one table in brief for all tasks. (default: full)",
    ),
]
Full = Annotated[bool, typer.Option("--full", help="Whole tables: every column, note and rank.")]


@dataclass(frozen=True)
class Printed:
    """How many rows of a table are printed, None for a default; whether whole tables are; whether LaTeX is in brief."""

    rows: int | None = None
    full: bool = False
    compact: bool = False


def renames(given: list[str] | None) -> dict[str, str]:
    """Label or pattern → name; the last = parts the two, since labels have some. `@FILE` has one a line.

    Raises UsageError.
    """
    found = {}
    for text in (line for one in given or () for line in _lines(one)):
        old, equals, new = text.rpartition("=")
        if not (equals and old and new):
            raise UsageError(f"--rename {text}: give OLD=NEW, such as best_of_n:n=4=best")
        found[old] = new
    return found


def _lines(given: str) -> list[str]:
    """What is given, or the lines of the file that it names after an @."""
    if not given.startswith("@"):
        return [given]
    try:
        lines = Path(given[1:]).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise UsageError(f"--rename {given}: cannot be read: {error}") from error
    return [line for line in lines if line.strip()]


def most_rows(given: int | None) -> int | None:
    """The rows of a table; raises UsageError on fewer than 1."""
    if given is not None and given < 1:
        raise UsageError(f"--rows {given}: give 1 or more")
    return given


EXAMPLES = """
Examples:

  alignbench leaderboard results

  alignbench leaderboard results --full --rename 'best_of_n:n=4=best of 4'

  alignbench leaderboard results/laptop results/cluster --tasks 'lexical_*' --columns divergence,satisfaction

  alignbench leaderboard results --sort perplexity --baseline temperature:t=0.7

  alignbench leaderboard results --format latex > table.tex

  alignbench leaderboard results --format latex --style compact > paper.tex

  alignbench leaderboard results --out published --format md,csv

  alignbench leaderboard results --readme README.md

  alignbench leaderboard published --out published --check

In a README or a model card the tables stand between two lines of their own: <!-- alignbench:start --> and
<!-- alignbench:end -->.

Exit codes: 0; 1 where something that was asked for is missing, or with --check where a file differs; 2 for a wrong
option.
"""


@app.command(epilog=EXAMPLES)
def leaderboard(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="DIR…", help="--output_path of runs, folders of published CSV files, or CSV files."),
    ],
    tasks: Annotated[
        str | None, typer.Option(metavar="A,B", help="Only these tasks: names or patterns, comma-separated.")
    ] = None,
    columns: Columns = None,
    most: Rows = None,
    rename: Rename = None,
    full: Full = False,
    formats: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="A,B",
            help="md, csv, html, latex, json: what --out writes (default: all); without --out, the one to print.",
        ),
    ] = None,
    style: Style = None,
    sort: Annotated[
        str | None, typer.Option(metavar="METRIC", help="Sort and rank by this. (default: each task's primary metric)")
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(metavar="NAME", help="A row, by its label: show each paired difference to it.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write leaderboard.{md,csv,html,tex,json} there.")
    ] = None,
    readme: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Put the tables as Markdown between this file's marks.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing: tell whether the files are as they would be.")
    ] = False,
    allow_mixed: Annotated[
        bool, typer.Option("--allow_mixed", help="Let versions of a task share a table, in which nothing is ranked.")
    ] = False,
) -> None:
    """Merge the results of runs into leaderboards: one table for each task, target, base and judge."""
    how = Printed(most_rows(most), full or columns is not None, _is_compact(style, formats))
    asked = _Asked.of(formats, out, readme, check=check, how=how)
    from alignbench.reports.table.board import Arrangement
    from alignbench.reports.table.leaderboards import arranged

    found = _read(folders, tasks, sort)
    arrangement = Arrangement(found.primary, baseline or "", allow_mixed, renames(rename), found.summaries)
    board = arranged(found.rows, arrangement, words_in(columns) or None)
    if not asked.delivered(board, folders) or found.failures:
        raise typer.Exit(1)


def _is_compact(style: str | None, formats: str | None) -> bool:
    """Whether LaTeX is asked for in brief; raises UsageError where no LaTeX is."""
    if style is not None and style not in STYLES:
        raise unknown("style", style, STYLES, "--style")
    if style == "compact" and words_in(formats) != ["latex"]:
        raise UsageError("--style compact: is a way to write LaTeX: give --format latex, and no other format")
    return style == "compact"


@dataclass(frozen=True)
class _Asked:
    """Where the tables go, and as what."""

    extensions: tuple[str, ...]  # of the files to write, or of the one format to print
    out: Path | None
    readme: Path | None
    check: bool  # compare with what is there, and write nothing
    how: Printed

    @classmethod
    def of(cls, formats: str | None, out: Path | None, readme: Path | None, *, check: bool, how: Printed) -> _Asked:
        """The options, which go together; raises UsageError."""
        names = words_in(formats)
        for name in names:
            if name not in EXTENSIONS:
                raise unknown("format", name, EXTENSIONS, "--format")
        if check and out is None and readme is None:
            raise UsageError("--check: says whether files are as they should be: give --out DIR or --readme FILE too")
        found = tuple(dict.fromkeys(EXTENSIONS[name] for name in names or EXTENSIONS))
        if how.compact and how.full:
            raise UsageError("--style compact: has columns of its own: leave --full and --columns out")
        if formats and out is None and (len(found) > 1 or readme is not None):
            raise UsageError("--format: without --out one format alone can be printed: give --out DIR, or one format")
        return cls(found if formats or out else (), out, readme, check, how)

    def delivered(self, board: Leaderboard, folders: list[Path]) -> bool:
        """Print, write or check; False where a checked file is not as it should be."""
        from alignbench.reports.formats import render

        draws = _draws(folders) if "html" in self.extensions else []
        latex = self._brief if self.how.compact else render.to_latex
        files = render.leaderboard_files(board, self.out, self.extensions, self.readme, draws, latex)
        if self.check:
            stale = list(render.differences(files))
            for line in stale:
                say(line)
            return not stale
        if self.out is None and self.extensions:
            sys.stdout.write(render.rendered(board, self.extensions[0], draws, latex).decode("utf-8"))
        else:
            show(board, self.how)
        if files:
            print("wrote " + ", ".join(str(path) for path in render.write_files(files)))
        if self.how.compact and not any(table.brief is not None and table.brief.rows for table in board):
            say("--style compact: no table has verdicts to show in brief: --style full shows every number")
            return False
        return True

    def _brief(self, board: Leaderboard) -> str:
        """The brief tables in LaTeX."""
        from alignbench.reports.formats.brief import ROWS
        from alignbench.reports.formats.latex_compact import compact

        return compact(board.tables, self.how.rows or ROWS)


def show(board: Leaderboard, how: Printed, *, beside: bool | None = None) -> None:
    """Print the tables: in brief, or in full where that is asked for or a table has no verdicts.

    Beside tasks of real models, a world whose truth is known is there to say how many intervals hold it: one line.
    """
    from rich.console import Console

    from alignbench.reports.formats.brief import ROWS, brief_lines, one_line
    from alignbench.reports.formats.render import to_terminal

    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    beside = beside or any(table.brief is not None and not table.brief.truth for table in board.tables)
    for table in board.tables:
        if how.full or table.brief is None:
            console.print(to_terminal(table), crop=False)
        elif beside and table.brief.truth:
            print(one_line(table.brief), end="\n\n")
        else:
            print("\n".join(brief_lines(table.brief, console.width, how.rows or ROWS)), end="\n\n")
    for suite in board.suite:
        console.print(to_terminal(suite if how.full else _shorter(suite, how.rows or ROWS)), crop=False)


def _shorter(suite: Table, most: int) -> Table:
    """A suite without notes, of so many rows."""
    rows = [replace(row, notes=(), cells=tuple(replace(c, notes=()) for c in row.cells)) for row in suite.rows[:most]]
    left = len(suite.rows) - len(rows)
    return replace(suite, rows=tuple(rows), footnotes=(), signature="", legend=(f"{left} more",) if left else ())


def words_in(given: str | None) -> list[str]:
    """What commas part."""
    return [word.strip() for word in (given or "").split(",") if word.strip()]


def _read(folders: list[Path], tasks: str | None, sort: str | None) -> Gathered:
    """The rows asked for, what sorts each task's tables, and what is missing, which is told; exit 1 without rows."""
    from alignbench.reports.gather import gather

    found = gather(folders)
    failures = list(found.failures)
    rows = _of_tasks(found.rows, tasks, failures)
    for line in (*found.remarks, *(() if sort else found.assumption), *failures):
        say(line)
    if not len(rows):
        raise typer.Exit(1)
    return replace(found, rows=rows, primary=_primary(rows, sort) or found.primary, failures=failures)


def _of_tasks(rows: pd.DataFrame, tasks: str | None, failures: list[str]) -> pd.DataFrame:
    """The rows of the tasks asked for; a name or pattern that fits none is a failure."""
    patterns, there = words_in(tasks), list(rows["task"].unique())
    for pattern in patterns:
        if there and not any(fnmatchcase(task, pattern) for task in there):
            failures.append(str(unknown("task", pattern, there, "--tasks")))
    if not patterns:
        return rows
    return rows[[any(fnmatchcase(task, pattern) for pattern in patterns) for task in rows["task"]]]


def _primary(rows: pd.DataFrame, sort: str | None) -> dict[str, str]:
    """What sorts each task's tables where --sort says it; raises UnknownName."""
    if sort is None:
        return {}
    from alignbench.reports.table.columns import key_named

    return dict.fromkeys(rows["task"].unique(), key_named(sort, rows))


def _draws(folders: list[Path]) -> list[Shown]:
    """Example draws for the page; what cannot be read is told, and no number is missing for it."""
    from alignbench.reports.examples import examples
    from alignbench.reports.formats.html import ROOM

    found, failures = examples(folders, budget=ROOM)
    for line in failures:
        say(line)
    return found
