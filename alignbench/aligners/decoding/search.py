"""Searches as aligners: greedy decoding and beam search, whose laws are point masses."""

from __future__ import annotations

from dataclasses import dataclass

from alignbench.aligners.base import Immediate, Setting, whole
from alignbench.errors import Unsupported, UsageError
from alignbench.generators.base import Autoregressive
from alignbench.generators.point_mass import Beams, PointMass
from alignbench.registry import aligner
from alignbench.types import Sampler


@aligner("greedy", target_driven=False, density="exact")
@dataclass(frozen=True)
class Greedy(Immediate):
    """The likeliest token at each step: a point mass, one continuation a prompt. Never reads the target."""

    def align(self, setting: Setting) -> PointMass:
        """See `Aligner.align`."""
        return PointMass(_walked(setting.base, "greedy"), setting.max_tokens)


@aligner("beam", target_driven=False, density="exact")
@dataclass(frozen=True)
class Beam(Immediate):
    """The best of `num_beams` beams by log-probability over tokens^length_penalty (Freitag and Al-Onaizan 2017).

    A point mass; `generate`'s words and defaults (early_stopping=False). Never reads the target.
    """

    num_beams: int = 4
    length_penalty: float = 1.0

    def __post_init__(self) -> None:
        whole("beam:num_beams", self.num_beams)
        given = self.length_penalty
        if isinstance(given, bool) or not isinstance(given, (int, float)) or not -10 <= given <= 10:
            raise UsageError(
                f"beam:length_penalty={given}: must be a number from -10 to 10 (0 is the log-probability alone)"
            )

    def align(self, setting: Setting) -> PointMass:
        """See `Aligner.align`."""
        beams = Beams(self.num_beams, self.length_penalty)
        return PointMass(_walked(setting.base, "beam"), setting.max_tokens, beams)


def _walked(base: Sampler, aligner: str) -> Autoregressive:
    """`base` as a law that can be walked token by token; raises Unsupported for any other."""
    if not isinstance(base, Autoregressive):
        raise Unsupported(
            f"aligner '{aligner}' goes token by token; a {type(base).__name__} gives no next-token probabilities"
        )
    return base
