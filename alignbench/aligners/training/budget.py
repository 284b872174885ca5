"""How long a training goes on, and at which rate: steps, minutes or tokens."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from alignbench.aligners.training.options import Options
from alignbench.types import Training


@dataclass(frozen=True)
class Budget:
    """The budget of a recipe, of a training that began at `began` on the monotonic clock."""

    recipe: Options
    began: float

    @property
    def seconds(self) -> float:
        """Spent so far, those of earlier processes too."""
        return time.monotonic() - self.began

    def share(self, step: int, spent: Training) -> float:
        """How much of it is spent, 0 to 1; by numbers alone, not by the clock: all processes must find the same."""
        recipe = self.recipe
        if recipe.minutes is not None:
            return min(1.0, spent.seconds / (60 * recipe.minutes))
        if recipe.tokens is not None:
            return min(1.0, (spent.drawn + spent.scored + spent.trained) / recipe.tokens)
        assert recipe.steps is not None
        return min(1.0, step / recipe.steps)

    def spent(self, step: int, spent: Training) -> bool:
        """Whether nothing is left."""
        return self.share(step, spent) >= 1

    def left(self, step: int, spent: Training) -> float:
        """Seconds left at this pace; NaN while nothing is known."""
        share = self.share(step, spent)
        return spent.seconds * (1 - share) / share if share else math.nan

    def rate(self, step: int, spent: Training) -> float:
        """The rate of the step after `step` steps: risen over the warm-up, fallen over the cool-down."""
        recipe, left = self.recipe, 1 - self.share(step, spent)
        rise = min(1.0, (step + 1) / recipe.warmup) if recipe.warmup else 1.0
        fall = min(1.0, left / recipe.cooldown) if recipe.cooldown else 1.0
        return recipe.lr * min(rise, fall)
