"""`alignbench selfcheck`: estimators beside the truth, or a model of one's own."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from alignbench.cli.app import app
from alignbench.cli.words import IncludePath, progress
from alignbench.errors import UsageError

SELFCHECK = """
Examples (the first tests this installation, the second your own model):

  alignbench selfcheck

  alignbench selfcheck --model hf --model_args pretrained=gpt2

  alignbench selfcheck --seeds 200 --worlds exact_rare,exact_reward

  alignbench selfcheck --model hf:pretrained=gpt2,dtype=bfloat16 --prompts "It rained"
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


def _check_worlds(given: dict[str, Any]) -> None:
    """Show the worlds' estimates beside the truth; exit 1 where one is off."""
    import os

    from rich.console import Console

    from alignbench.checks import selfcheck as checker
    from alignbench.reports.formats import checks

    names = [w.strip() for w in given.get("worlds", ",".join(checker.WORLDS)).split(",") if w.strip()]
    folders = tuple(given.get("include_path", ()))
    report = checker.check(
        checker.find_worlds(names, folders), given.get("seeds", checker.SEEDS), progress=progress,
        jobs=given.get("jobs") or min(os.cpu_count() or 1, 8), include_path=folders,
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
