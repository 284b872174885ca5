"""The command line: words to calls. The only place that prints and chooses exit codes."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from alignbench.errors import AlignbenchError, UsageError, unknown

if TYPE_CHECKING:
    from alignbench.job import Job
    from alignbench.run import Outcome

app = typer.Typer(
    name="alignbench",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"], "token_normalize_func": lambda s: s.replace("-", "_")},
    help="Did aligning this language model reach the distribution it was meant to reach, and what did that cost?",
)

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

SELFCHECK = """
Examples (the first tests this installation, the second your own model):

  alignbench selfcheck

  alignbench selfcheck --model hf --model_args pretrained=gpt2

  alignbench selfcheck --seeds 200 --worlds exact_rare,exact_reward

  alignbench selfcheck --model hf:pretrained=gpt2,dtype=bfloat16 --prompts "It rained"
"""

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


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import PackageNotFoundError, version  # not `results`, which loads torch

        try:
            print(f"alignbench {version('alignbench')}")
        except PackageNotFoundError:
            print("alignbench, not installed")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    pass


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
    job = _job(given)
    if dry_run:
        _show_plan(job)
        return
    from alignbench import run as runner

    try:
        outcome = runner.run(job)
    except KeyboardInterrupt:
        _say(f"interrupted; the draws so far are in {job.output_path}: the same command goes on from there")
        raise typer.Exit(130) from None
    _finish(job, outcome)


@app.command()
def score(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The --output_path of earlier runs.")],
    include_path: IncludePath = None,
) -> None:
    """Recompute every metric from stored draws (no model is loaded) and rebuild the leaderboard."""
    from alignbench import results
    from alignbench.registry import load_plugins

    load_plugins(tuple(include_path or ()))
    found = results.rescore(folder)
    if found.rows:
        _show(results.frame(found.rows, found.primary), folder, found.primary)
    for line in found.failures:
        _say(line)
    if found.failures:
        raise typer.Exit(1)


@app.command("ls")
def list_things(
    what: Annotated[str, typer.Argument(metavar="tasks|aligners|generators|features|metrics")] = "tasks",
    include_path: IncludePath = None,
) -> None:
    """List what is there: tasks, aligners, generators, features or metrics."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in COLUMNS.get(what, ("name", "arguments", "what it is")):
        table.add_column(column, overflow="fold")
    for line in _listing(what, tuple(include_path or ())):
        table.add_row(*line)
    Console().print(table)


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
        _say(str(error))
        return error.exit_code
    for path in paths:
        try:
            task = load_task(path)
        except AlignbenchError as error:
            _say(str(error))
            worst = max(worst, error.exit_code)
            continue
        print(f"{task.name} v{task.version}: ok, {len(task.prompts)} prompts × {task.draws} draws, "
              f"{task.max_tokens} tokens, #{task.hash[:8]}")  # fmt: skip
    return worst


@app.command(epilog=SELFCHECK)
def selfcheck(
    seeds: Annotated[int | None, typer.Option(metavar="N", min=2, help="Runs of each world. (default: 20)")] = None,
    worlds: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Tasks with an exact base. (default: the exact_… tasks but exact_ngram)"),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Processes. (default: one a core, at most 8)")
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="Check this model instead, such as hf.")] = None,
    model_args: Annotated[
        str | None, typer.Option("--model_args", metavar="K=V,…", help="Its arguments, such as pretrained=gpt2.")
    ] = None,
    prompts: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="What the model is asked; repeatable.")
    ] = None,
    draws: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Draws per prompt, of the model. (default: 4)")
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option("--max_tokens", metavar="N", min=1, help="Tokens per draw, of the model. (default: 20)"),
    ] = None,
    device: Annotated[str | None, typer.Option(metavar="DEVICE", help="auto, cpu, cuda, cuda:1 or mps.")] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust_remote_code", help="Run code that a model repository ships.")
    ] = False,
    include_path: IncludePath = None,
) -> None:
    """Compare every estimator with the truth in worlds that can be listed, or check a model of your own.

    Worlds: exact values beside estimates, and how many intervals cover.

    A model: whether sampling and scoring agree, in any batch and beside
    longer prompts, whether an EOS is charged for, what the dtype costs.

    Exit code 1 where something fails.
    """
    given = {k: v for k, v in locals().items() if v not in (None, [], False)}
    of_model = ("model_args", "prompts", "draws", "max_tokens", "device", "trust_remote_code")
    stray = next((k for k in (("seeds", "worlds", "jobs") if model else of_model) if k in given), None)
    if stray:
        raise UsageError(f"--{stray} with --model: it is for the worlds" if model else f"--{stray} without --model")
    (_check_model if model else _check_worlds)(given)


def main() -> NoReturn:
    """Run the command line; a failure that is the user's to mend is one line, never a traceback."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("alignbench").setLevel(logging.INFO)
    try:
        app()
    except AlignbenchError as error:
        _say(str(error))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        _say("interrupted")
        sys.exit(130)
    sys.exit(0)


def _say(line: str) -> None:
    print(f"alignbench: {line}", file=sys.stderr)


def _job(given: dict[str, Any]) -> Job:
    """The job that the options describe; a variable that is no option is told."""
    import os

    from alignbench import config, options

    environment, strays = config.from_environment(os.environ)
    for line in strays:
        _say(line)
    return options.job_of(given, environment, tuple(sys.argv[1:]), _progress)


def _show_plan(job: Job) -> None:
    """What the job would draw."""
    from alignbench.plan import plan

    for line in plan(job):
        print(line)


def _finish(job: Job, outcome: Outcome) -> None:
    """Show and write the leaderboard; exit 1 where something that was asked for is missing."""
    if outcome.rows:
        _show(outcome.frame(), job.output_path, outcome.primary)
    if outcome.rows and not outcome.fresh:
        _say("nothing was drawn: every draw was found on disk")
    for line in outcome.failures:
        _say(line)
    if outcome.failures:
        raise typer.Exit(outcome.exit_code)


def _show(rows: Any, folder: Path | None, primary: dict[str, str]) -> None:
    from rich.console import Console

    from alignbench.reports import render
    from alignbench.reports.table import leaderboard

    console = Console()
    for table in leaderboard(rows, primary=primary).tables:
        console.print(render.to_terminal(table), crop=False)
    if folder is not None:
        written = render.write_leaderboard(rows, folder, primary=primary)
        print("wrote " + ", ".join(str(path) for path in written))


def _check_worlds(given: dict[str, Any]) -> None:
    """Show the worlds' estimates beside the truth; exit 1 where one is off."""
    import os

    from rich.console import Console

    from alignbench import selfcheck as checker
    from alignbench.reports import checks

    names = [w.strip() for w in given.get("worlds", ",".join(checker.WORLDS)).split(",") if w.strip()]
    folders = tuple(given.get("include_path", ()))
    report = checker.check(
        checker.find_worlds(names, folders), given.get("seeds", checker.SEEDS), progress=_progress,
        jobs=given.get("jobs") or min(os.cpu_count() or 1, 8), include_path=folders,
    )  # fmt: skip
    Console().print(checks.of_worlds(report))
    if report.failures:
        raise typer.Exit(1)


def _check_model(given: dict[str, Any]) -> None:
    """Show what is found on the model; exit 1 where a check fails."""
    from dataclasses import replace

    from rich.console import Console

    from alignbench import modelcheck
    from alignbench.options import models_of
    from alignbench.registry import load_plugins
    from alignbench.reports import checks

    load_plugins(tuple(given.get("include_path", ())))
    spec = models_of([given["model"]], [given["model_args"]] if "model_args" in given else [])[0]
    trial = modelcheck.load(spec, **{k: given[k] for k in ("device", "trust_remote_code") if k in given})
    trial = replace(trial, **{k: given[k] for k in ("prompts", "draws", "max_tokens") if k in given})
    findings = modelcheck.check(trial, _progress)
    Console().print(checks.of_model(trial.law.name, findings))
    if any(f.verdict == "FAIL" for f in findings):
        raise typer.Exit(1)


COLUMNS = {"tasks": ("name", "what it is"), "aligners": ("name", "arguments", "density", "what it is")}
"""What `ls` tells of each kind, where that is not name, arguments and summary."""


def _listing(what: str, include_path: tuple[Path, ...]) -> Iterator[tuple[str, ...]]:
    from alignbench.registry import KINDS, load_plugins
    from alignbench.task import all_tasks, headline

    if what == "tasks":
        yield from ((name, headline(path)[1]) for name, path in all_tasks(include_path).items())
        return
    if what not in KINDS:
        raise unknown("kind", what, ("tasks", *KINDS))
    load_plugins(include_path)
    for name in KINDS[what]:
        entry = KINDS[what][name]
        arguments = ", ".join(_argument(p) for p in entry.parameters.values())
        yield name, arguments, *([entry.declared] if what == "aligners" else []), entry.summary


def _argument(parameter: Any) -> str:
    if parameter.default is parameter.empty:
        return f"{parameter.name}=…"
    return f"{parameter.name}={parameter.default}"


@contextmanager
def _progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
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
