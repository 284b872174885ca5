"""Null models: what says the same whatever it is asked. A metric that they win does not measure what it seems to.

Source: Zheng et al., Cheating Automatic LLM Benchmarks: Null Models Achieve High Win Rates (2025).
"""

from __future__ import annotations

from dataclasses import dataclass

from alignbench.aligners.base import Immediate, Setting
from alignbench.errors import UsageError
from alignbench.generators.law import law_of
from alignbench.generators.point_mass import PointMass, Said
from alignbench.registry import aligner


@aligner("constant", target_driven=False, density="exact")
@dataclass(frozen=True)
class Constant(Immediate):
    """The same `text` after every prompt, by default none: a point mass that reads neither prompt nor target."""

    text: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise UsageError(f"constant:text={self.text}: must be a text")

    def align(self, setting: Setting) -> PointMass:
        """See `Aligner.align`."""
        return PointMass(law_of(setting.base, "constant"), setting.max_tokens, Said(self.text, "constant"))


@aligner("copy", target_driven=False, density="exact")
@dataclass(frozen=True)
class Copy(Immediate):
    """The prompt once more, after a space: a point mass that never reads the target."""

    def align(self, setting: Setting) -> PointMass:
        """See `Aligner.align`."""
        return PointMass(law_of(setting.base, "copy"), setting.max_tokens, Said(" {prompt}", "copy"))
