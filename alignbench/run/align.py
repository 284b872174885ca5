"""`alignbench align`: one aligner trained on one task, in a folder that `hf` loads."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from alignbench.aligners.base import Immediate, unheard
from alignbench.aligners.training.processes import first_launched
from alignbench.errors import RunError, UsageError, plain_failures
from alignbench.generators.later import told_of
from alignbench.run.known import Known
from alignbench.run.models import Models, name_of
from alignbench.run.outcome import Watch
from alignbench.run.plan import look_up, no_base, own_base
from alignbench.run.settings import Settings
from alignbench.scoring.bench import Bench
from alignbench.scoring.references import References
from alignbench.seeds import Seed
from alignbench.store.draws import DrawStore
from alignbench.types import Training, silent

_LOG = logging.getLogger(__name__)

OWN = {"draws", "known", "cost.json"}
"""What is in the folder besides the training's files: draws of the base, what is fitted on them, the bill."""


@dataclass(frozen=True)
class Trainee:
    """What was trained: its folder, the aligner's label, what it cost."""

    folder: Path
    label: str
    training: Training | None


def align(settings: Settings, out: Path, watch: Watch | None = None) -> Trainee:
    """Train the one aligner of the settings on their one task, below `out`; the same again goes on, or does nothing.

    Raises UsageError where they name several, or the folder holds something else, and what the training raises.
    """
    plan, watch = look_up(settings), watch or Watch()
    for error in plan.failures:
        raise error
    tasks, recipes = [task.name for task in plan.tasks], [recipe.label for recipe in plan.recipes]
    for option, found in (("tasks", tasks), ("aligner", recipes), ("seed", [*map(str, settings.seed)])):
        if len(found) != 1:
            raise UsageError(f"align trains one aligner on one task with one seed: --{option} names {len(found)}: "
                             f"{', '.join(found)}".rstrip(": "))  # fmt: skip
    [task], [recipe] = plan.tasks, plan.recipes
    if isinstance(recipe.aligner, Immediate):
        raise UsageError(
            f"aligner '{recipe.label}' trains nothing: `alignbench run --aligner {recipe.label}` puts it to work"
        )
    first = first_launched()
    if first:  # the others would see the files that it is writing
        _refuse_strangers(out)
    given = own_base(task) or plan.base
    if given is None:
        raise no_base(task)
    models = Models(settings.handed, settings.gen_kwargs, dict(plan.broken), Known(out / "known" if first else None))
    base = models.later(given, keep=True)
    bench = Bench(
        task=task, given=base, base_name=name_of(told_of(base), given), draws=plan.draws_of(task),
        store=DrawStore(out / "draws" if first else None), limit=plan.limit_of(task),
        whole=plan.sizes.get(task.name, 0), seed=Seed(settings.seed[0]), progress=watch.progress if first else silent,
        output=out if first else None,
    )  # fmt: skip
    told = partial(watch.on_step, f"{task.name}: {recipe.label}")
    setting = replace(References(bench).setting, report=told if first else unheard)
    with plain_failures(f"align of {recipe.label}", RunError):
        setting.aligned(recipe.aligner, out)
    return Trainee(out, recipe.label, setting.bill.total)


def _refuse_strangers(out: Path) -> None:
    """Raise UsageError on a folder with files that are no training's: nothing of them is to be overwritten."""
    if out.is_file():
        raise UsageError(f"--out {out}: is a file; give a folder")
    names = {path.name for path in out.iterdir()} if out.is_dir() else set()
    if "recipe.json" not in names and (others := sorted(names - OWN)):
        raise UsageError(f"--out {out}: holds no training, and has other files ({others[0]}, …): give another folder")
