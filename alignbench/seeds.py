"""Randomness as an argument: a draw is a function of (entropy, stream, rendered prompt, index)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

STREAMS = {"ref": 0, "fit": 1, "heldout": 2, "train": 3, "own": 4}
"""Streams that never share a draw, and the number that stands for each in a seed."""
APART = 1_000_000
"""Sample numbers of each proposal's reference draws begin so far apart: a draw is a function of its number, so that
no proposal reuses the uniforms of the base."""


@dataclass(frozen=True)
class Seed:
    """A root of random numbers: `entropy` chosen by the user, `stream` by what the draws are for.

    `salt` separates uses within one stream (tokens 0, accept decisions 1, ties 2), so that a sampler built on
    another one does not reuse its uniforms.
    """

    entropy: int = 0
    stream: str = "own"
    salt: int = 0

    def __post_init__(self) -> None:
        if self.stream not in STREAMS:
            raise ValueError(f"unknown stream {self.stream!r}; known: {', '.join(STREAMS)}")
        if self.entropy < 0 or self.salt < 0:
            raise ValueError("entropy and salt are integers >= 0")

    def rng(self, prompt: str, index: int) -> np.random.Generator:
        """The generator of draw `index` of `prompt` (the rendered text); the same on every machine."""
        digest = int.from_bytes(sha256(prompt.encode()).digest()[:8], "big")
        words = [self.entropy, STREAMS[self.stream], digest, int(index)]
        return np.random.default_rng(np.random.SeedSequence([*words, self.salt] if self.salt else words))

    def uniforms(self, prompt: str, index: int, count: int) -> NDArray[np.float64]:
        """(count, 2) uniforms on [0, 1): for each token, one picks a block of ids and one the id inside it."""
        return self.rng(prompt, index).random((count, 2))

    def on(self, stream: str) -> Seed:
        """The same entropy on another stream."""
        return replace(self, stream=stream)

    def salted(self, salt: int) -> Seed:
        """The same stream for another use; uniforms are independent of every other salt's."""
        return replace(self, salt=salt)
