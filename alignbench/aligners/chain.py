"""Laws one after another: each step aligns what the one before it made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from alignbench.aligners.base import Aligner, Immediate, Named, Setting, checked, told
from alignbench.errors import Unsupported, UsageError, brief
from alignbench.registry import aligner
from alignbench.spec import Spec, parse_spec
from alignbench.types import Distribution, Sampler


@aligner("chain", target_driven=False, density="exact")
@dataclass(frozen=True)
class Chain(Immediate):
    """The last law of several aligners, each put to work on the law that the one before it made, the first on the base.

    A step that is driven by the target would aim at it from the base, not from what the steps before it made: such an
    aligner takes the chain as its `proposal` instead.
    """

    steps: Sequence[Named]

    def __post_init__(self) -> None:
        if isinstance(self.steps, str) or not isinstance(self.steps, Sequence) or not self.steps:
            raise UsageError(f"chain: steps is a list of aligners, not {brief(self.steps)}")
        labels = tuple(_label(step, f"chain: step {i}") for i, step in enumerate(self.steps, start=1))
        object.__setattr__(self, "steps", labels)  # all written alike, with their defaults, as tables show them

    @property
    def recipes(self) -> list[Aligner]:
        """The aligners, in order."""
        return [parse_spec(step, "chain").build(aligner, "chain") for step in self.steps]

    @property
    def shots(self) -> int:
        """How many examples a prompt comes after."""
        return sum(getattr(recipe, "shots", 0) for recipe in self.recipes)

    def align(self, setting: Setting) -> Sampler:
        """See `Aligner.align`."""
        *before, last = self.recipes
        for recipe in before:
            law = setting.aligned(recipe)
            if not isinstance(law, Distribution):
                raise Unsupported(f"chain: a {type(law).__name__} has no log_prob, and can only be the last step")
            setting = setting.on(law)
        return setting.aligned(last)


def _label(step: Named, where: str) -> str:
    """The label of one step, its arguments checked; raises UsageError, which names `where`."""
    if not isinstance(step, str | dict):
        raise UsageError(f"{where}: an aligner is a name or {{name: NAME, …}}, not {brief(step)}")
    spec = checked(step, where)
    entry = aligner.find(spec.name, where)
    if entry.meta.get("target_driven"):
        hint = f": make the chain its proposal, {{name: {spec.name}, proposal: {{name: chain, …}}}}"
        raise UsageError(
            f"{where}: '{spec.name}' is driven by the target, and can be no step"
            + (hint if "proposal" in entry.parameters else "")
        )
    return Spec(spec.name, told(spec.build(aligner, where), spec.arguments)).label
