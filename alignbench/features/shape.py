"""The size of a continuation."""

from __future__ import annotations

import math
from collections.abc import Sequence

from alignbench.registry import feature
from alignbench.types import Array, Draws


@feature(version=1, range=(0, math.inf))
def length_tokens(prompts: Sequence[str], draws: Draws) -> Array:
    """Tokens of the continuation, EOS counted."""
    return draws.length.astype(float)
