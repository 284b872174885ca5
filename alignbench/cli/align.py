"""`alignbench align`: train an aligner, and leave a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alignbench.cli.app import app
from alignbench.cli.progress import TrainingProgress
from alignbench.cli.words import IncludePath, say, trackers_of
from alignbench.errors import UsageError

if TYPE_CHECKING:
    from alignbench.run.settings import Settings

EXAMPLES = """
Examples:

  alignbench align --model hf --model_args pretrained=gpt2 --aligner dpg:steps=200 --tasks lexical_word --out ckpt

  alignbench run --model hf:pretrained=gpt2 --model hf:pretrained=gpt2,peft=ckpt --tasks lexical_word

  alignbench align --model hf:pretrained=gpt2 --aligner sft:minutes=10 --tasks lexical_word --out ckpt --every 50

  alignbench run --model hf:pretrained=gpt2 --model 'hf:pretrained=gpt2,peft=ckpt/checkpoint-*' --tasks lexical_word

  accelerate launch --num_processes 2 -m alignbench align …   (on a CPU: torchrun --nproc_per_node 2 -m …)

  torchrun --nproc_per_node 2 -m alignbench align … --device cpu

`alignbench ls aligners` lists the aligners. The same command again goes on where it was stopped.

The folder has the adapter (with adapter=full the model), recipe.json, curve.csv and what the training goes on from.

`alignbench run --aligner dpg:steps=200` trains and measures in one.
"""


@app.command(epilog=EXAMPLES)
def align(
    aligner: Annotated[list[str], typer.Option(metavar="SPEC", help="The aligner, such as dpg:steps=200.")],
    tasks: Annotated[list[str], typer.Option(metavar="TASK", help="The task whose target it is to reach.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the checkpoint goes.")],
    model: Annotated[list[str] | None, typer.Option(metavar="NAME", help="The base, such as hf.")] = None,
    model_args: Annotated[
        str | None, typer.Option("--model_args", metavar="K=V,…", help="Its arguments: pretrained=gpt2,…")
    ] = None,
    every: Annotated[int | None, typer.Option(metavar="N", help="Keep a checkpoint every N steps.")] = None,
    seed: Annotated[str, typer.Option(metavar="N", help="Root of all random numbers.")] = "0",
    draws: Annotated[
        str | None, typer.Option(metavar="N", help="Draws per prompt that λ is fitted on. (default: the task's)")
    ] = None,
    limit: Annotated[str | None, typer.Option(metavar="N", help="Only the first N prompts.")] = None,
    include_path: IncludePath = None,
    device: Annotated[str | None, typer.Option(metavar="DEVICE", help="auto, cpu, cuda, cuda:1 or mps.")] = None,
    dtype: Annotated[str | None, typer.Option(metavar="DTYPE", help="float32, bfloat16 or float16.")] = None,
    batch_size: Annotated[
        str | None, typer.Option("--batch_size", metavar="auto|N", help="Most rows decoded at once.")
    ] = None,
    apply_chat_template: Annotated[
        bool, typer.Option("--apply_chat_template", help="Wrap prompts in the model's chat template.")
    ] = False,
    system_instruction: Annotated[
        str | None, typer.Option("--system_instruction", metavar="TEXT", help="System prompt for the chat template.")
    ] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust_remote_code", help="Run code that a model repository brings.")
    ] = False,
    tracker: Annotated[
        list[str] | None, typer.Option(metavar="SPEC", help="Tell trackio, wandb or mlflow of each step; repeatable.")
    ] = None,
) -> None:
    """Train an aligner on a task: a folder that `hf` loads (peft=DIR), with its recipe and curve.

    Killed at any step, the same command goes on and ends with the same weights.
    """
    _refuse_several(aligner=aligner, tasks=tasks, model=model or [])
    settings = _settings(
        {"model": model, "model_args": [model_args] if model_args else None, "tasks": tasks,
         "aligner": [_spec(aligner[0], every)], "seed": seed, "draws": draws, "limit": limit,
         "include_path": include_path, "device": device, "dtype": dtype, "batch_size": batch_size,
         "apply_chat_template": apply_chat_template,
         "system_instruction": system_instruction, "trust_remote_code": trust_remote_code, "tracker": tracker}
    )  # fmt: skip
    _carry_out(settings, out)


def _refuse_several(**typed: list[str]) -> None:
    """Raise UsageError where an option was typed again: the last would be taken, and the others lost."""
    for name, found in typed.items():
        if len(found) > 1:
            what = {"aligner": "one aligner", "tasks": "on one task", "model": "one model"}[name]
            raise UsageError(f"align trains {what}: --{name} was given {len(found)} times")


def _settings(given: dict[str, Any]) -> Settings:
    """The settings that the options describe; the environment has no part in them."""
    from alignbench.run.words import settings_of

    return settings_of({name: value for name, value in given.items() if value not in (None, [], False)}, {})


def _carry_out(settings: Settings, out: Path) -> None:
    """Train, and show how it goes."""
    from alignbench.aligners.training.processes import first_launched, leave
    from alignbench.generators.checkpoint import STATE
    from alignbench.run.align import align as train
    from alignbench.run.outcome import Watch

    shown, report = TrainingProgress(), trackers_of(settings)

    def on_step(who: str, step: int, numbers: Mapping[str, float]) -> None:
        shown.on_step(who, step, numbers)
        if report:
            report.on_step(who, step, numbers)

    try:
        done = train(settings, out, Watch(progress=shown, on_step=on_step))
    except KeyboardInterrupt:
        kept = (out / STATE).is_file()
        again = f"goes on from the last state in {out}" if kept else "begins again: no state was saved yet"
        say(f"interrupted; the same command {again}")
        raise typer.Exit(130) from None
    finally:
        if report:
            report.finish()
    if first_launched():
        if not shown.finish():
            say("nothing to do: it was trained before")
        print(f"{done.label}: {out}")
    leave()


def _spec(aligner: str, every: int | None) -> Any:
    """The aligner as it was typed, with its checkpoints."""
    from alignbench.spec import Spec, parse_spec

    spec = parse_spec(aligner, "--aligner")
    if every is None:
        return spec
    if "every" in spec.arguments:
        raise UsageError("--every and every= of the aligner: give one")
    return Spec(spec.name, {**spec.arguments, "every": every})
