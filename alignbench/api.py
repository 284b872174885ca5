"""The Python way in: `alignbench.evaluate`, a run whose result is a table of rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from alignbench.aligners.base import Aligner, Named
from alignbench.errors import RunError, UsageError, brief, unknown
from alignbench.run.outcome import Outcome, Watch
from alignbench.run.runner import run
from alignbench.run.settings import OPTIONS, checked
from alignbench.run.values import Origin
from alignbench.spec import Spec
from alignbench.types import Sampler

if TYPE_CHECKING:
    import pandas as pd

Given = Named | Spec | Sampler
"""A model as a user gives it: its name, with arguments, or an object."""
Recipe = Named | Spec | Aligner
"""An aligner as a user gives it."""
WATCH = ("on_rows", "on_step", "progress")
"""Options of `evaluate` that are functions: told of rows as they finish, of training steps, and of progress."""


def evaluate(
    generator: Given | Sequence[Given],
    tasks: str | Sequence[str],
    *,
    base: Given | None = None,
    aligners: Recipe | Sequence[Recipe] = (),
    **options: Any,
) -> pd.DataFrame:
    """Tidy rows of `generator` on `tasks`: one row per metric and part, beside the base and each aligner on it.

    `generator`, `base` and `aligners` are specs ("hf:pretrained=gpt2", "best_of_n:n=4") or objects; `options` are the
    words of the command line: draws, limit, seed (one or a list), judge, include_path, output_path, log_samples,
    gen_kwargs, batch_size, device, dtype, …; and `on_rows`, which is called with each generator's rows as they finish,
    and `on_step`, which an aligner that trains calls with its label, the step and numbers such as the loss. Without an
    output_path nothing is written. Several seeds add rows of the mean over them. What alone failed is raised
    as it was; else RunError tells all failures, and its attribute `rows` has those that could be measured. Raises
    UsageError on a wrong name.
    """
    known = OPTIONS.keys() - {"model", "aligner", "tracker"} | {*WATCH}
    for name, value in options.items():
        if name not in known:
            raise unknown("option", name, {*known, "aligners"}, "evaluate")
        if name in WATCH and not callable(value):
            raise UsageError(f"{name} {brief(value)}: must be a function")
    watch = Watch(**{name: options.pop(name) for name in WATCH if name in options})
    given = {"model": generator, "tasks": tasks, "base": base, "aligner": aligners, **options}
    return _frame(run(checked(given, Origin(objects=True)), watch))


def _frame(outcome: Outcome) -> pd.DataFrame:
    """The rows; raises what failed."""
    if len(outcome.errors) == 1 and not outcome.rows:
        raise outcome.errors[0]
    if outcome.failures:
        error = RunError("; ".join(outcome.failures))
        error.rows = outcome.frame()  # type: ignore[attr-defined]
        raise error
    return outcome.frame()
