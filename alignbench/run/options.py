"""Options to a job: the words of the command line, of a run file and of the environment, put together and checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alignbench.errors import UsageError
from alignbench.generators.warp import Warp
from alignbench.registry import Entry
from alignbench.run import config
from alignbench.run.job import QUICKSTART, Job
from alignbench.scoring.evidence import Progress
from alignbench.spec import Spec, parse_arguments, parse_spec


def job_of(given: config.Words, environment: config.Words, argv: tuple[str, ...], progress: Progress) -> Job:
    """The job that the options given, those of their run file and those of the environment describe, in this order.

    The quickstart where they name neither model, task nor aligner. Raises UsageError, or TaskError on the run file.
    """
    path = given.get("config", environment.get("config"))
    of_file = {} if path is None else config.read(Path(path))
    words = {"batch_size": "auto", "device": "auto", "seed": "0", **environment, **of_file, **given}
    start = {} if {"model", "model_args", "base", "tasks", "aligner"} & words.keys() else QUICKSTART
    names = tuple(t.strip() for text in words.get("tasks", ()) for t in text.split(",") if t.strip())
    if not names and not start:
        raise UsageError("no --tasks given; `alignbench ls tasks` lists them")
    chosen: dict[str, Any] = {
        "models": models_of(words.get("model", []), words.get("model_args", [])),
        "aligners": tuple(_spec(a, "--aligner") for a in words.get("aligner", ())),
        "tasks": names,
        "output_path": Path(words["output_path"]) if "output_path" in words else None,
        "draws": words.get("draws"),
    }
    merged = {"output_path": Path("results"), **start, **{k: v for k, v in chosen.items() if v}}
    seeds, words["batch_size"] = words["seed"], _batch_size(words["batch_size"])
    return Job(
        **merged, base=_spec(words["base"], "--base") if "base" in words else None,
        include_path=tuple(map(Path, words.get("include_path", ()))), limit=words.get("limit"),
        gen_kwargs=_settings(words.get("gen_kwargs", "")),
        judge=_spec(words["judge"], "--judge") if "judge" in words else None,
        seed=tuple(config.seeds_of(seeds) if isinstance(seeds, str) else seeds),
        log_samples=words.get("log_samples", False),
        trackers=tuple(_spec(t, "--tracker") for t in words.get("tracker", ())), argv=argv, progress=progress,
        supplied={k: words[k] for k in ("batch_size", "device", "apply_chat_template", "system_instruction",
                                        "trust_remote_code") if words.get(k)},
    )  # fmt: skip


def models_of(names: list[Any], arguments: list[str]) -> tuple[Any, ...]:
    """Pair each --model with its --model_args; one --model may go with several --model_args."""
    if arguments and not names:
        raise UsageError("--model_args without --model; did you mean --model hf?")
    if len(names) == 1 and len(arguments) > 1:
        names = names * len(arguments)
    if arguments and len(names) != len(arguments):
        raise UsageError(f"{len(names)} --model but {len(arguments)} --model_args: give one for each, in order")
    specs = [_spec(name, "--model") for name in names]
    if not arguments:
        return tuple(specs)
    return tuple(
        Spec(s.name, {**s.arguments, **parse_arguments(a, "--model_args")})
        for s, a in zip(specs, arguments, strict=True)
    )


def _spec(given: Any, where: str) -> Any:
    """A spec as typed; a run file's is one already."""
    return parse_spec(given, where) if isinstance(given, str) else given


def _batch_size(size: Any) -> Any:
    if isinstance(size, str) and size.isdecimal() and int(size) > 0:
        return int(size)
    if size != "auto" and not isinstance(size, int):
        raise UsageError(f"--batch_size {size}: must be 'auto' or a whole number >= 1")
    return size


def _settings(given: Any) -> dict[str, Any]:
    """Decoding settings, checked."""
    settings = parse_arguments(given, "--gen_kwargs") if isinstance(given, str) else dict(given)
    Entry("--gen_kwargs", Warp, {}).check(settings, "--gen_kwargs")
    Warp(**settings)
    return settings
