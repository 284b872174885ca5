"""The Python way in: `alignbench.evaluate`, a run whose result is a table of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignbench.errors import RunError, unknown
from alignbench.run.job import Job
from alignbench.run.runner import run
from alignbench.spec import parse_spec

if TYPE_CHECKING:
    import pandas as pd

MODEL_WORDS = ("batch_size", "device", "dtype", "apply_chat_template", "system_instruction", "trust_remote_code")
"""What is handed to every generator's factory that takes it."""


def evaluate(
    generator: Any, tasks: str | Sequence[str], *, base: Any = None, aligners: Sequence[Any] = (), **options: Any
) -> pd.DataFrame:
    """Tidy rows of `generator` on `tasks`: one row per metric and part, beside the base and each aligner on it.

    `generator`, `base` and `aligners` are specs ("hf:pretrained=gpt2", "best_of_n:n=4") or objects; `options` are the
    words of the command line: draws, limit, seed (one or a list), judge, include_path, output_path, log_samples,
    gen_kwargs, batch_size, device, …; and `on_rows`, which is called with each generator's rows as they finish. Without
    an output_path nothing is written. Several seeds add rows of the mean over them. What alone failed is raised as it
    was; else RunError tells all failures, and its attribute `rows` has those that could be measured. Raises UsageError
    on a wrong name.
    """
    known = {f.name for f in fields(Job)} - {"models", "supplied", "argv", "trackers"} | set(MODEL_WORDS)
    for name in options:
        if name not in known:
            raise unknown("option", name, known, "evaluate")
    folders = options.pop("include_path", ())
    where = options.pop("output_path", None)
    job = Job(
        tasks=(tasks,) if isinstance(tasks, str) else tuple(tasks),
        models=(_as_spec(generator, "generator"),),
        base=_as_spec(base, "base"),
        aligners=tuple(_as_spec(a, "aligner") for a in ([aligners] if isinstance(aligners, str) else aligners)),
        include_path=tuple(Path(p) for p in ([folders] if isinstance(folders, (str, Path)) else folders)),
        judge=_as_spec(options.pop("judge", None), "judge"),
        output_path=None if where is None else Path(where),
        supplied={name: options.pop(name) for name in MODEL_WORDS if name in options},
        **options,
    )
    outcome = run(job)
    if len(outcome.errors) == 1 and not outcome.rows:
        raise outcome.errors[0]
    if outcome.failures:
        error = RunError("; ".join(outcome.failures))
        error.rows = outcome.frame()  # type: ignore[attr-defined]
        raise error
    return outcome.frame()


def _as_spec(given: Any, where: str) -> Any:
    """A spec from text or a mapping; anything else stands for itself. Raises UsageError."""
    return parse_spec(given, where) if isinstance(given, (str, Mapping)) else given
