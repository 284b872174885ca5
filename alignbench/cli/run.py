"""`alignbench run` and `alignbench score`: draws, rows and the leaderboard."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alignbench.cli.app import app
from alignbench.cli.leaderboard import show as print_tables
from alignbench.cli.words import (
    Aligners,
    Base,
    BatchSize,
    Device,
    IncludePath,
    Model,
    ModelArgs,
    Seeds,
    Tasks,
    progress,
    say,
)

if TYPE_CHECKING:
    from alignbench.run.job import Job
    from alignbench.run.runner import Outcome

EXAMPLES = """
Examples (the first is the quickstart: a small real model, three tasks, four generators):

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

Its paths are relative to the working folder, as they are here.

An option given here replaces the file's, and the file's replaces that of the environment.

ALIGNBENCH_DEVICE=cpu stands for --device cpu, and so for each option that has one value.

Every run writes its own run file, config_….yaml, into its output folder.
"""


@app.command(epilog=EXAMPLES)
def run(
    model: Model = None,
    model_args: ModelArgs = None,
    base: Base = None,
    aligner: Aligners = None,
    tasks: Tasks = None,
    include_path: IncludePath = None,
    draws: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Draws per prompt. (default: the task's)")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Only the first N prompts of each task.")
    ] = None,
    batch_size: BatchSize = None,
    device: Device = None,
    gen_kwargs: Annotated[
        str | None,
        typer.Option(
            "--gen_kwargs",
            metavar="K=V,…",
            help="Decoding settings of the models: temperature, top_k, top_p, min_p, typical_p, repetition_penalty.",
        ),
    ] = None,
    judge: Annotated[str | None, typer.Option(metavar="SPEC", help="Who measures fluency. (default: the base)")] = None,
    seed: Seeds = None,
    output_path: Annotated[
        Path | None, typer.Option("--output_path", metavar="DIR", help="Where draws and results go. (default: results)")
    ] = None,
    log_samples: Annotated[bool, typer.Option("--log_samples", help="Write every draw as JSON lines.")] = False,
    tracker: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SPEC",
            help="Tell trackio, wandb or mlflow of each row as it finishes, such as wandb:project=mine; repeatable.",
        ),
    ] = None,
    apply_chat_template: Annotated[
        bool, typer.Option("--apply_chat_template", help="Wrap prompts in the model's chat template.")
    ] = False,
    system_instruction: Annotated[
        str | None, typer.Option("--system_instruction", metavar="TEXT", help="System prompt for the chat template.")
    ] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust_remote_code", help="Run code that a model repository ships.")
    ] = False,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A run file (YAML) of these options; see below.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry_run", help="Say what would be drawn, and stop.")] = False,
) -> None:
    """Sample generators on tasks and print a leaderboard. Without arguments: the quickstart.

    The same command again goes on where an earlier one stopped, or says that there is nothing left to do.
    """
    given = {k: v for k, v in locals().items() if v not in (None, [], False)}
    job = job_of(given)
    if dry_run:
        _show_plan(job)
        return
    from alignbench.run import runner

    try:
        outcome = runner.run(job)
    except KeyboardInterrupt:
        say(f"interrupted; the draws so far are in {job.output_path}: the same command goes on from there")
        raise typer.Exit(130) from None
    _finish(job, outcome)


@app.command()
def score(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The --output_path of earlier runs.")],
    include_path: IncludePath = None,
) -> None:
    """Recompute every metric from stored draws (no model is loaded) and rebuild the leaderboard."""
    from alignbench.registry import load_plugins
    from alignbench.run import results

    load_plugins(tuple(include_path or ()))
    found = results.rescore(folder)
    if found.rows:
        show(results.frame(found.rows, found.primary), folder, found.primary)
    for line in found.failures:
        say(line)
    if found.failures:
        raise typer.Exit(1)


def job_of(given: dict[str, Any]) -> Job:
    """The job that the options describe; a variable that is no option is told."""
    import os

    from alignbench.run import config, options

    environment, strays = config.from_environment(os.environ)
    for line in strays:
        say(line)
    job = options.job_of(given, environment, tuple(sys.argv[1:]), progress)
    if not job.trackers:
        return job
    from dataclasses import replace

    from alignbench.integrations.trackers import report

    return replace(job, on_rows=report(job.trackers, say))


def _show_plan(job: Job) -> None:
    """What the job would draw."""
    from alignbench.run.plan import plan

    for line in plan(job):
        print(line)


def _finish(job: Job, outcome: Outcome) -> None:
    """Show and write the leaderboard; exit 1 where something that was asked for is missing."""
    if outcome.rows:
        show(outcome.frame(), job.output_path, outcome.primary)
    if outcome.rows and not outcome.fresh:
        say("nothing was drawn: every draw was found on disk")
    for line in outcome.failures:
        say(line)
    if outcome.failures:
        raise typer.Exit(outcome.exit_code)


def show(rows: Any, folder: Path | None, primary: dict[str, str]) -> None:
    """Print the leaderboard of `rows`, and write it in every format where there is a `folder`."""
    from alignbench.reports.examples import examples
    from alignbench.reports.formats.html import ROOM
    from alignbench.reports.formats.render import write_leaderboard
    from alignbench.reports.table.leaderboards import leaderboard

    board = leaderboard(rows, primary=primary)
    print_tables(board)
    if folder is not None:
        draws, _ = examples([folder], budget=ROOM)  # a file that cannot be read was told when it was measured
        print("wrote " + ", ".join(str(path) for path in write_leaderboard(board, folder, draws)))
