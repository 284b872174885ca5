"""The draws of a run: each made once for all that ask, on disk batch by batch, found again by what it depends on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from alignbench.errors import RunError, plain_failures
from alignbench.files import digest
from alignbench.generators.described import identity_of
from alignbench.generators.pool import in_order
from alignbench.seeds import Seed
from alignbench.store.shelf import Memory, Shelf
from alignbench.types import Array, Draws, Sampler, Speaking

FORMAT = 1
MEMORY = 256 * 2**20
"""Bytes of draws that a run holds beside those on disk: 4,000 draws of 40 tokens are 4 MB."""


@dataclass
class DrawStore:
    """The draws of an output folder, and the pool of a run: whoever asks for a row gets the draw that was made first.

    `folder` None keeps them in memory, as many as fit into `memory` bytes; what does not is drawn again when it is
    asked for. Draws of a generator without an identity are not kept.
    """

    folder: Path | None
    memory: int = MEMORY
    drew: Callable[[int], None] = field(default=lambda tokens: None, compare=False)  # told of tokens as they are drawn
    tokens: int = field(default=0, init=False)  # that were drawn and not found
    borrowed: float = field(default=0.0, init=False)  # seconds that found draws took when they were made, less training

    def __post_init__(self) -> None:
        self._memory, self._shelves = Memory(self.memory), dict[str, Shelf]()

    def sample(
        self,
        generator: Sampler,
        identity: Mapping[str, Any] | None,
        request: DrawRequest,
        advance: Callable[[int], None] = lambda count: None,
    ) -> Stored:
        """The wanted rows, from disk where they are there, else drawn; each batch is on disk before the next begins.

        `advance` is told the number of draws that have become available. The seconds are what the draws took when they
        were made, those that the generator found in this store among them: what it would take alone.
        """
        shelf = self._shelf(identity, request)
        spell = generator.texts_of if isinstance(generator, Speaking) else None
        found = shelf.find(request.prompts, request.rows, spell) if shelf else []
        parts, seconds = [draws for draws, _ in found], sum(took for _, took in found)
        self.borrowed += seconds
        missing = _missing(request.rows, parts)
        advance(len(request.rows) - len(missing))
        began, before = self._clock(), self.tokens
        for batch in request.draw(generator, missing):
            took = self._clock() - began
            self._count(batch, before)
            before = self.tokens
            if shelf:
                shelf.keep(request.prompts, batch, took, spell)
            parts.append(batch)
            seconds += took
            advance(len(batch))
            began = self._clock()
        return Stored(Draws.concat(parts).sorted(), float(seconds), len(missing))

    def draws(self, generator: Sampler, prompts: Sequence[str], rows: Array, *, max_tokens: int, seed: Seed) -> Draws:
        """See `Pool.draws`."""
        began = self._clock()
        stored = self.sample(generator, identity_of(generator), DrawRequest(prompts, rows, max_tokens, seed))
        if seed.stream == "train":  # a pilot, examples: they are no part of what a draw takes
            self.borrowed -= self._clock() - began
        return in_order(stored.draws, rows)

    def _count(self, batch: Draws, before: int) -> None:
        """Count the tokens of a batch, but where those that it was made of were drawn from here and counted."""
        if self.tokens == before:
            drawn = int(batch.length.sum())
            self.tokens += drawn
            self.drew(drawn)

    def _clock(self) -> float:
        return time.perf_counter() + self.borrowed

    def _shelf(self, identity: Mapping[str, Any] | None, request: DrawRequest) -> Shelf | None:
        if identity is None:
            return None
        key = {
            "identity": identity,
            "max_tokens": request.max_tokens,
            "seed": request.seed.entropy,
            "stream": request.seed.stream,
            "format": FORMAT,
            **({"salt": request.seed.salt} if request.seed.salt else {}),
        }
        name = digest(key)
        if name not in self._shelves:
            self._shelves[name] = Shelf(self.folder / name if self.folder else None, key, self._memory)
        return self._shelves[name]


@dataclass(frozen=True)
class DrawRequest:
    """The draws that are wanted: `rows` (R, 2) = (prompt, index) of these prompts, on this seed."""

    prompts: Sequence[str]
    rows: Array
    max_tokens: int
    seed: Seed

    def draw(self, generator: Sampler, rows: Array) -> Iterator[Draws]:
        """Fresh draws of `rows`, batch by batch; raises RunError where the generator fails or gives other rows."""
        if not len(rows):
            return
        left = set(map(tuple, rows.tolist()))
        with plain_failures("the generator", RunError):
            for batch in generator.sample(self.prompts, rows, max_tokens=self.max_tokens, seed=self.seed):
                _check_batch(batch, left)
                yield batch
        if left:
            raise RunError(f"the generator gave {len(rows) - len(left)} of the {len(rows)} draws asked of it")


def _check_batch(batch: Any, left: set[tuple[int, ...]]) -> None:
    """Take a batch's rows out of those that are `left`; raise RunError where it is no batch of them."""
    if not isinstance(batch, Draws):
        raise RunError(f"the generator gave a {type(batch).__name__}, not Draws")
    arrays = {f.name: value for f in fields(batch) if isinstance(value := getattr(batch, f.name), np.ndarray)}
    for name, value in arrays.items():
        if len(value) != len(batch):
            raise RunError(f"the generator gave {len(batch)} texts and {len(value)} of {name}")
    for row in zip(batch.prompt.tolist(), batch.index.tolist(), strict=True):
        if row not in left:
            raise RunError(f"the generator gave draw {row[1]} of prompt {row[0]}, which was not asked or given before")
        left.remove(row)


@dataclass(frozen=True)
class Stored:
    """What a request for draws brought: the draws, the seconds they took whenever they were drawn, how many are new."""

    draws: Draws
    seconds: float
    fresh: int


def _missing(rows: Array, parts: Sequence[Draws]) -> Array:
    """The rows that are in none of the parts."""
    have = {row for p in parts for row in zip(p.prompt.tolist(), p.index.tolist(), strict=True)}
    return np.array([row for row in rows.tolist() if tuple(row) not in have], dtype=np.int64).reshape(-1, 2)
