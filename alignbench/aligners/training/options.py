"""The hyper-parameters that all trained aligners share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from alignbench.aligners.base import is_number, whole
from alignbench.aligners.identities import registered
from alignbench.errors import UsageError, did_you_mean
from alignbench.generators.hf.policy import recipe_of

PRECISIONS = ("auto", "float32", "bfloat16")
STEPS = 200
"""Of a training that is given no budget."""


def unlabelled(default: Any) -> Any:
    """A hyper-parameter that a row's label leaves out where it is the default."""
    return field(default=default, metadata={"told": False})


def joined(*remarks: str) -> str:
    """What a row says of its aligner: those that are not empty."""
    return "; ".join(filter(None, remarks))


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a trained aligner is told, whatever its objective.

    One budget: `steps` of the optimiser (200 where none is given), `minutes`, or `tokens` drawn, scored and trained on.
    `batch` draws a step, over all prompts and processes, back-propagated in `accumulate` parts or more. AdamW at rate
    `lr`, which rises over `warmup` steps and falls to 0 over the last `cooldown` of the budget; gradients are clipped
    to norm `clip`. `precision` "bfloat16": the training pass alone, by autocast. `every`: steps between checkpoints.
    """

    format: ClassVar[int] = 1

    steps: int | None = None
    minutes: float | None = unlabelled(None)
    tokens: int | None = unlabelled(None)
    adapter: str = unlabelled("lora:r=16")
    batch: int = unlabelled(32)
    lr: float = unlabelled(1e-4)
    warmup: int = unlabelled(5)
    cooldown: float = unlabelled(0.3)
    clip: float = unlabelled(1.0)
    accumulate: int = unlabelled(1)
    precision: str = unlabelled("auto")
    every: int | None = unlabelled(None)

    def __post_init__(self) -> None:
        given = [name for name in ("steps", "minutes", "tokens") if getattr(self, name) is not None]
        if len(given) > 1:
            raise UsageError(f"{self.name}: {' and '.join(given)} are all budgets: give one of steps, minutes, tokens")
        if not given:
            object.__setattr__(self, "steps", STEPS)
        for name in ("steps", "tokens", "batch", "accumulate", "every"):
            if getattr(self, name) is not None:
                whole(f"{self.name}:{name}", getattr(self, name))
        self._positive("minutes", "lr", "clip")
        whole(f"{self.name}:warmup", self.warmup, 0)
        a_share(f"{self.name}:cooldown", self.cooldown)
        if self.precision not in PRECISIONS:
            raise UsageError(
                f"{self.name}:precision={self.precision}: unknown.{did_you_mean(str(self.precision), PRECISIONS)}"
            )
        try:
            recipe_of(self.adapter)
        except UsageError as error:
            raise UsageError(f"{self.name}:adapter={self.adapter}: {error}") from error

    def _positive(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if value is not None and (not is_number(value) or not 0 < value < float("inf")):
                raise UsageError(f"{self.name}:{name}={value}: must be a number above 0")

    @property
    def name(self) -> str:
        """What users call it."""
        return registered(self)


def a_share(name: str, value: object) -> None:
    """Raise UsageError unless the hyper-parameter `name` is a number from 0 to 1."""
    if not is_number(value) or not 0 <= value <= 1:  # type: ignore[operator]
        raise UsageError(f"{name}={value}: must be a share, from 0 to 1")
