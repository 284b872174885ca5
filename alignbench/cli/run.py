"""`alignbench run` and `alignbench score`: draws, rows and the leaderboard."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alignbench.cli.app import app
from alignbench.cli.leaderboard import Columns, Full, Printed, Rename, Rows, most_rows, renames
from alignbench.cli.leaderboard import show as print_tables
from alignbench.cli.progress import RunProgress
from alignbench.cli.words import IncludePath, say, takes_settings, trackers_of
from alignbench.errors import AlignbenchError, UsageError

if TYPE_CHECKING:
    from alignbench.run.outcome import Outcome
    from alignbench.run.settings import Settings

EXAMPLES = """
Examples (the first is the quickstart: a small real model, three tasks):

  alignbench run

  alignbench run --model hf --model_args pretrained=gpt2 --tasks lexical_word

  alignbench run --model hf:pretrained=gpt2 --tasks 'lex*' --draws 8

  alignbench run --tasks exact_ngram --aligner rejection --aligner top_k:k=3

  alignbench run --model hf --model_args 'pretrained=ckpts/step-*' --tasks lexical_word --seed 0,1,2

  alignbench run --config run.yaml

A run file has these options as keys, such as:

  model: ["hf:pretrained=gpt2", {name: hf, pretrained: distilgpt2}]

  aligner: ["best_of_n:n=4"]

  tasks: ["lexical_word"]

  seed: [0, 1, 2]

`alignbench schema run` prints its JSON schema, for editors.

Its paths are relative to the file, those given here to the working folder.

An option given here replaces the file's, and the file's replaces that of the environment.

ALIGNBENCH_DEVICE=cpu stands for --device cpu, and so for each option that has one value.

Every run writes its own run file, config_….yaml, into its output folder.
"""


@app.command(epilog=EXAMPLES)
@takes_settings
def run(
    model_args: Annotated[
        list[str] | None,
        typer.Option("--model_args", metavar="K=V,…", help="Arguments of each --model, in order: pretrained=gpt2,…"),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A run file (YAML) of these options; see below.")
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry_run", help="Say what would be drawn and, by some draws of the base, how long it takes."),
    ] = False,
    columns: Columns = None,
    most: Rows = None,
    rename: Rename = None,
    full: Full = False,
    **options: Any,
) -> None:
    """Sample generators on tasks and print a leaderboard. Without arguments: the quickstart.

    The same command again goes on where an earlier one stopped, or says that there is nothing left to do.
    """
    _refuse_several()
    how = Shown.of(columns, most, rename, full)
    settings = _settings({"model_args": model_args or [], "config": config, **options})
    report = trackers_of(settings)  # under --dry_run too, which says what is wrong with them
    if dry_run:
        _show_plan(settings)
        return
    from alignbench.run.outcome import Watch
    from alignbench.run.runner import run as carry_out

    shown, printed = RunProgress(), _Tables(how)

    def on_step(who: str, step: int, numbers: Mapping[str, float]) -> None:
        shown.on_step(who, step, numbers)
        if report:
            report.on_step(who, step, numbers)

    told: dict[str, Any] = {"on_rows": report} if report else {}
    watch = Watch(tuple(sys.argv[1:]), shown, on_step=on_step, on_task=printed.add, pace=shown.pace, **told)
    try:
        outcome = carry_out(settings, watch)
        shown.finish()
    except KeyboardInterrupt:
        say(f"interrupted; the draws so far are in {settings.output_path}: the same command goes on from there")
        raise typer.Exit(130) from None
    finally:
        if report:
            report.finish()
    _finish(settings, outcome, printed)


def _refuse_several() -> None:
    """Raise UsageError in one of several processes: each would write the same rows."""
    if (count := int(os.environ.get("WORLD_SIZE", "1"))) > 1:
        raise UsageError(f"run is one process, and {count} were started: train by `alignbench align`, which takes many,"
                         " and measure its folder (hf:…,peft=DIR) by one")  # fmt: skip


@app.command()
def score(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The --output_path of earlier runs.")],
    include_path: IncludePath = None,
    columns: Columns = None,
    most: Rows = None,
    rename: Rename = None,
    full: Full = False,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust_remote_code", help="Run the scripts of metrics that the folder names.")
    ] = False,
) -> None:
    """Recompute every metric from stored draws (no model is loaded) and rebuild the leaderboard."""
    from alignbench.registry import load_plugins
    from alignbench.run.rescore import rescore
    from alignbench.run.rows import frame

    how = Shown.of(columns, most, rename, full)
    load_plugins(tuple(include_path or ()))
    found = rescore(folder, trusted=trust_remote_code)
    if found.rows:
        show(frame(found.rows, found.primary, found.summaries), folder, found.primary, _Tables(how))
    for line in found.failures:
        say(line)
    if found.failures:
        raise typer.Exit(1)


def _settings(given: dict[str, Any]) -> Settings:
    """The settings that the options describe; a variable that is no option is told."""
    from alignbench.run.words import from_environment, settings_of

    environment, strays = from_environment(os.environ)
    for line in strays:
        say(line)
    return settings_of({name: value for name, value in given.items() if value not in (None, [], False)}, environment)


def _show_plan(settings: Settings) -> None:
    """What would be drawn."""
    from alignbench.run.forecast import dry_run

    for line in dry_run(settings):
        print(line)


def _finish(settings: Settings, outcome: Outcome, printed: _Tables) -> None:
    """Show and write the leaderboard; exit 1 where something that was asked for is missing."""
    if outcome.rows:
        show(outcome.frame(), settings.output_path, outcome.primary, printed)
    if outcome.rows and not outcome.fresh:
        say("nothing was drawn: every draw was found on disk")
    for line in outcome.failures:
        say(line)
    if outcome.failures:
        raise typer.Exit(outcome.exit_code)


@dataclass(frozen=True)
class Shown:
    """How tables are printed: which columns, what rows are called, how many there are, and whether in full."""

    columns: tuple[str, ...]
    rename: Mapping[str, str]
    printed: Printed

    @classmethod
    def of(cls, columns: str | None, most: int | None, rename: list[str] | None, full: bool) -> Shown:
        """What the options say; raises UsageError."""
        named = tuple(word.strip() for word in (columns or "").split(",") if word.strip())
        return cls(named, renames(rename), Printed(most_rows(most), full or bool(named)))


@dataclass
class _Tables:
    """Tables printed as their tasks finish; and which were."""

    how: Shown
    tasks: set[str] = field(default_factory=set)

    def add(self, rows: Any) -> None:
        """Print the table of a task whose rows are all there.

        A world whose truth is known waits for the end, unless a real task was printed: beside one it is a line.
        """
        from alignbench.reports.table.board import Arrangement
        from alignbench.reports.table.leaderboards import arranged

        asked = Arrangement(rows.attrs["primary"], rename=self.how.rename, summaries=rows.attrs["summaries"])
        try:
            board = arranged(rows, asked, self.how.columns or None, partly=True)
        except AlignbenchError:  # a wrong --columns is told when all is drawn and written
            return
        if self.tasks or any(table.brief is None or not table.brief.truth for table in board.tables):
            print_tables(replace(board, suite=()), self.how.printed, beside=bool(self.tasks))
            sys.stdout.flush()
            self.tasks |= {table.task for table in board.tables}


def show(rows: Any, folder: Path | None, primary: dict[str, str], printed: _Tables) -> None:
    """Print what is not printed yet of the leaderboard of `rows`; write it in all formats where there is a `folder`."""
    from alignbench.reports.examples import examples
    from alignbench.reports.formats.html import ROOM
    from alignbench.reports.formats.render import write_leaderboard
    from alignbench.reports.table.leaderboards import leaderboard

    board, written, how = leaderboard(rows, primary=primary), [], printed.how
    if folder is not None:
        draws, _ = examples([folder], budget=ROOM)  # a file that cannot be read was told when it was measured
        written = write_leaderboard(board, folder, draws)
    wrong = None
    if how.columns or how.rename:
        try:
            board = leaderboard(rows, primary=primary, metrics=how.columns or None, rename=how.rename)
        except AlignbenchError as error:  # what was measured is shown all the same
            wrong = error
    left = tuple(table for table in board.tables if table.task not in printed.tasks)
    print_tables(replace(board, tables=left), how.printed, beside=bool(printed.tasks))
    if written:
        print("wrote " + ", ".join(map(str, written)))
    if wrong is not None:
        raise wrong
