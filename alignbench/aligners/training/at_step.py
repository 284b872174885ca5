"""A trained aligner as it was after some of its steps: what a checkpoint of it is worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from alignbench.aligners.base import Setting
from alignbench.aligners.training.folder import checkpoints, is_finished, trained_after
from alignbench.aligners.training.processes import Processes
from alignbench.aligners.training.recipe import Trained
from alignbench.aligners.training.work import Work
from alignbench.errors import StoreError
from alignbench.generators.checkpoint import set_weights
from alignbench.generators.policy import policy_of
from alignbench.types import Distribution


@dataclass(frozen=True)
class AtStep:
    """The policy of a finished training after `step` of its steps; its cost is what was spent until then.

    Its peak memory is that of the whole training.
    """

    recipe: Trained
    step: int

    def identity(self, setting: Setting) -> Mapping[str, Any]:
        """See `Identified.identity`."""
        return {**self.recipe.identity(setting), "step": self.step}

    def align(self, setting: Setting) -> Distribution:
        """See `Aligner.align`; raises StoreError where the checkpoint is not there."""
        whole = replace(setting, who=self.recipe)
        folder = whole.folder
        if folder is None or self.step not in checkpoints(folder):
            raise StoreError(f"{folder}: has no checkpoint of step {self.step}; delete it to train again")
        recipe = self.recipe
        policy = replace(
            policy_of(setting.base, recipe.adapter, seed=setting.seed.entropy), said=recipe.remark(setting.target)
        )
        set_weights(checkpoints(folder)[self.step], policy.module)
        peak = whole.booked.peak_bytes  # no step has one of its own
        setting.bill.restate(replace(trained_after(folder, self.step), peak_bytes=peak))
        return recipe.law(Work(setting, policy, Processes()))


def steps_of(recipe: Trained, setting: Setting) -> int | None:
    """How many steps a training took; None until it is finished."""
    folder = replace(setting, who=recipe).folder
    return trained_after(folder, None).steps if folder is not None and is_finished(folder) else None


def steps_kept(recipe: Trained, setting: Setting) -> list[int]:
    """The steps of the checkpoints of a finished training, but the last, which is the aligner's own row."""
    folder, whole = replace(setting, who=recipe).folder, steps_of(recipe, setting)
    return [] if folder is None or whole is None else [step for step in checkpoints(folder) if step < whole]
