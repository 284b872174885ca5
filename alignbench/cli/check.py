"""`alignbench selfcheck`: estimators beside the truth, in known worlds or random ones, or a model of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from alignbench.cli.app import app
from alignbench.cli.progress import progress
from alignbench.cli.words import IncludePath
from alignbench.errors import UsageError

SELFCHECK = """
Examples (the first tests this installation, the second your own model):

  alignbench selfcheck

  alignbench selfcheck --model hf --model_args pretrained=gpt2

  alignbench selfcheck --seeds 200 --worlds exact_rare,exact_reward

  alignbench selfcheck --model hf:pretrained=gpt2,dtype=bfloat16 --prompts "It rained"

Random worlds: 500 of them, and then one of them alone, number by number:

  alignbench selfcheck --fuzz 500 --output_path fuzzed

  alignbench selfcheck --fuzz 1 --seed 137
"""


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
    fuzz: Annotated[int | None, typer.Option(metavar="N", help="Check N random worlds instead.")] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="The first random world's number. (default: 0)")
    ] = None,
    kinds: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Random worlds of these kinds of target alone, such as rare,steep."),
    ] = None,
    output_path: Annotated[
        Path | None,
        typer.Option("--output_path", metavar="DIR", help="Write all that a fuzz counted as DIR/fuzz.csv."),
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

    Random worlds (--fuzz): whether what is printed is true, by quantity,
    kind of target, law and number of draws; each world has a number.

    A model: whether sampling and scoring agree, in any batch and beside
    longer prompts, whether an EOS is charged for, what the dtype costs.

    Exit code 1 where something fails.
    """
    given = {k: v for k, v in locals().items() if v not in (None, [], False)} | ({} if fuzz is None else {"fuzz": fuzz})
    what = "model" if model else "fuzz" if fuzz is not None else "worlds"
    _refuse_stray(given, what)
    {"model": _check_model, "fuzz": _check_random, "worlds": _check_worlds}[what](given)


TAKEN = {
    "worlds": ("seeds", "worlds", "jobs"),
    "fuzz": ("fuzz", "seed", "kinds", "output_path", "jobs"),
    "model": ("model", "model_args", "prompts", "draws", "max_tokens", "device", "trust_remote_code"),
}
"""What is checked → the options that it takes, besides --include_path."""


def _refuse_stray(given: dict[str, Any], what: str) -> None:
    """Raise UsageError on an option that is for another check."""
    for name in sorted(given.keys() - {*TAKEN[what], "include_path"}):
        home = next(other for other, names in TAKEN.items() if name in names)
        if what == "worlds":
            raise UsageError(f"--{name} without --{home}")
        if name == home != "worlds":
            raise UsageError(f"--{name} and --{what}: two checks; ask for one at a time")
        raise UsageError(f"--{name} with --{what}: it is for {'the worlds' if home == 'worlds' else f'--{home}'}")


def _check_random(given: dict[str, Any]) -> None:
    """Show what is printed beside the truth in random worlds; exit 1 where a family of numbers is off."""
    from rich.console import Console

    from alignbench.checks import fuzz
    from alignbench.files import check_writable, write_atomic
    from alignbench.reports.formats import fuzz as shown

    if given["fuzz"] < 1:
        raise UsageError(f"--fuzz {given['fuzz']}: must be 1 or more worlds")
    kinds, folder = _listed(given.get("kinds", "")), given.get("output_path")
    if "kinds" in given and not kinds:
        raise UsageError("--kinds names no kind of target: give some, such as rare,steep, or leave it out for all")
    if folder is not None:
        check_writable(folder)
    numbers = fuzz.numbers_of(given["fuzz"], given.get("seed", 0), kinds)
    jobs = min(_jobs(given), len(numbers))
    report = fuzz.check(numbers, progress=progress, jobs=jobs, include_path=given.get("include_path", ()))
    Console().print(shown.of_fuzz(report) if len(numbers) > 1 else shown.of_world(report))
    if folder is not None:
        write_atomic(folder / "fuzz.csv", shown.as_csv(report))
    if report.failures:
        raise typer.Exit(1)


def _listed(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


def _jobs(given: dict[str, Any]) -> int:
    import os

    return given.get("jobs") or min(os.cpu_count() or 1, 8)


def _check_worlds(given: dict[str, Any]) -> None:
    """Show the worlds' estimates beside the truth; exit 1 where one is off."""
    from rich.console import Console

    from alignbench.checks import selfcheck as checker
    from alignbench.reports.formats import checks

    names = _listed(given.get("worlds", ",".join(checker.WORLDS)))
    folders = tuple(given.get("include_path", ()))
    report = checker.check(
        checker.find_worlds(names, folders), given.get("seeds", checker.SEEDS), progress=progress,
        jobs=_jobs(given), include_path=folders,
    )  # fmt: skip
    Console().print(checks.of_worlds(report))
    if report.failures:
        raise typer.Exit(1)


def _check_model(given: dict[str, Any]) -> None:
    """Show what is found on the model; exit 1 where a check fails."""
    from dataclasses import replace

    from rich.console import Console

    from alignbench.checks import modelcheck
    from alignbench.generators.described import called
    from alignbench.registry import load_plugins
    from alignbench.reports.formats import checks
    from alignbench.run.words import models_of

    load_plugins(tuple(given.get("include_path", ())))
    spec = models_of([given["model"]], [given["model_args"]] if "model_args" in given else [])[0]
    trial = modelcheck.load(spec, **{k: given[k] for k in ("device", "trust_remote_code") if k in given})
    trial = replace(trial, **{k: given[k] for k in ("prompts", "draws", "max_tokens") if k in given})
    findings = modelcheck.check(trial, progress)
    Console().print(checks.of_model(called(trial.law), findings))
    if any(f.verdict == "FAIL" for f in findings):
        raise typer.Exit(1)
