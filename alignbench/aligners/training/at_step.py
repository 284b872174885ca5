"""A trained aligner as it was after some of its steps: what a checkpoint of it is worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from alignbench.aligners.base import Aligner, Setting
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
    """The policy of a finished training after `step` of its steps; its cost is what was spent until then."""

    recipe: Trained
    step: int

    def identity(self, setting: Setting) -> Mapping[str, Any]:
        """See `Identified.identity`."""
        return {**self.recipe.identity(setting), "step": self.step}

    def align(self, setting: Setting) -> Distribution:
        """See `Aligner.align`; raises StoreError where the checkpoint is not there."""
        folder = replace(setting, who=self.recipe).folder
        if folder is None or self.step not in checkpoints(folder):
            raise StoreError(f"{folder}: has no checkpoint of step {self.step}; delete it to train again")
        recipe = self.recipe
        policy = replace(policy_of(setting.base, recipe.adapter, seed=setting.seed.entropy), said=recipe.remark)
        set_weights(checkpoints(folder)[self.step], policy.module)
        setting.bill.restate(trained_after(folder, self.step))
        return recipe.law(Work(setting, policy, Processes()))


def steps_kept(aligner: Aligner, setting: Setting) -> list[int]:
    """The steps of the checkpoints of a finished training, but the last, which is the aligner's own row."""
    folder = replace(setting, who=aligner).folder
    if not isinstance(aligner, Trained) or folder is None or not is_finished(folder):
        return []
    return [step for step in checkpoints(folder) if step < int(trained_after(folder, None).steps)]
