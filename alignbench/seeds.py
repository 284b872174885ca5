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
ATTEMPT = 2**32
"""Attempt t of draw i has the sample number i + t·ATTEMPT: what a sampler that tries again draws next for it."""
TRIES = 2**31
"""Attempts that a draw can have; as many fit an int64."""
ACCEPT, TIES, RESAMPLE, PICK, EXAMPLES, PILOT, POLICY, WATCHED, CODES, PAIRS = range(1, 11)
"""Salts, each for one use of a stream beside its tokens: whether a proposal is accepted, which of tied draws is kept,
which of several is resampled, and of the stream `train` the order of few-shot examples, their draws, the draws that
choose the β of quasi-rejection, those of a policy while it is trained, those by which a training is only watched,
which control code a draw has, and which of two draws is the chosen one. Those of plug-ins begin at `PLUGIN`."""
PLUGIN = 100
USES = 256  # salts of one level; a salted seed can be salted again


@dataclass(frozen=True)
class Seed:
    """A root of random numbers: `entropy` chosen by the user, `stream` by what the draws are for.

    `salt` separates uses within one stream (tokens 0, accept decisions 1, ties 2, …), so that a sampler built on
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
        """The generator of sample number `index` of `prompt` (the rendered text); the same on every machine.

        An attempt and a salt are words of their own: numpy would split an index beyond 2³² into two words, and the
        tokens of attempt 1 would be the coins of salt 1.
        """
        digest = int.from_bytes(sha256(prompt.encode()).digest()[:8], "big")
        attempt, draw = divmod(int(index), ATTEMPT)
        words = [self.entropy, STREAMS[self.stream], digest, draw]
        more = [attempt, self.salt] if attempt else [self.salt] if self.salt else []
        return np.random.default_rng(np.random.SeedSequence([*words, *more]))

    def uniforms(self, prompt: str, index: int, count: int) -> NDArray[np.float64]:
        """(count, 2) uniforms on [0, 1): for each token, one picks a block of ids and one the id inside it."""
        return self.rng(prompt, index).random((count, 2))

    def on(self, stream: str) -> Seed:
        """The same entropy on another stream."""
        return replace(self, stream=stream)

    def salted(self, salt: int) -> Seed:
        """The same stream for another use, a number from 1 to 255; 0 changes nothing.

        Uniforms are independent of every other use's, and of those of a use within another.
        """
        if not 0 <= salt < USES:
            raise ValueError(f"a salt is a whole number from 0 to {USES - 1}")
        return replace(self, salt=self.salt * USES + salt) if salt else self


def attempts(index: NDArray[np.int64], count: int, first: int = 0, most: int | None = None) -> NDArray[np.int64]:
    """(R, count) sample numbers of the attempts first … first + count − 1 of the draws `index` (R,), of `most` at all.

    A draw may be an attempt itself, of a sampler that tries this one again: its attempts are then numbered on from
    those of the attempt before it, so that no two share a draw. Raises ValueError where there are more than `TRIES`.
    """
    index = np.asarray(index, dtype=np.int64)
    outer, each = index // ATTEMPT, count if most is None else most
    if index.size and int(outer.max()) * each + first + count > TRIES:
        raise ValueError(f"more than {TRIES} attempts at one draw: nest fewer samplers, or lower their n or cap")
    begin = outer * min(each, TRIES) + first  # where a cap is beyond what an int64 holds, `outer` is 0
    return np.asarray((index % ATTEMPT)[:, None] + (begin[:, None] + np.arange(count)) * ATTEMPT)
