"""The pool: draws of base and proposals, made once for all that ask; and what stands where there is none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from alignbench.seeds import Seed
from alignbench.types import Array, Draws, Sampler, collect


class Pool(Protocol):
    """Where samplers that pick among the draws of another get them."""

    def draws(self, generator: Sampler, prompts: Sequence[str], rows: Array, *, max_tokens: int, seed: Seed) -> Draws:
        """The generator's draws at `rows` (R, 2) = (prompt, index), each once, in this order.

        Attempts (see `seeds.attempts`) may lack `token_log_prob`.
        """
        ...


class NoPool:
    """Every draw is made anew, for whoever asks."""

    def draws(self, generator: Sampler, prompts: Sequence[str], rows: Array, *, max_tokens: int, seed: Seed) -> Draws:
        """See `Pool.draws`."""
        return in_order(collect(generator.sample(prompts, rows, max_tokens=max_tokens, seed=seed)), rows)


def in_order(draws: Draws, rows: Array) -> Draws:
    """Draws that are sorted by prompt and sample number, in the order of `rows` (R, 2), each of which is there once."""
    place = np.empty(len(rows), dtype=np.int64)
    place[np.lexsort((rows[:, 1], rows[:, 0]))] = np.arange(len(rows))
    return draws.take(place)
