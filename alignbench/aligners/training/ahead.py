"""Draws for several steps at once: a batch of 128 rows costs far less than four of 32."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from alignbench.aligners.training.batch import Batch
from alignbench.aligners.training.work import SPARED, Work
from alignbench.generators.policy import TrainedLaw
from alignbench.types import Array

BLOCK = 64
"""Base draws of a prompt that are made, or read from disk, at once."""


@dataclass
class OwnDraws:
    """A policy's draws, `count` a step, for `renew` steps at once: those of a policy at most `renew` − 1 steps old.

    log q is of the policy that drew them. `floor`: see `Target.log_ratio`.
    """

    work: Work
    count: int
    renew: int
    last: int | None  # steps of the training, if that is known: nothing is drawn for steps beyond
    floor: float = -np.inf
    by_token: bool = False  # whether log a is wanted by token
    hidden: bool = False  # whether the base's hidden states are wanted too
    each: int = 1  # draws of a prompt that stand together, see `Work.rows`
    held: dict[int, Batch] = field(default_factory=dict)  # by step

    def __post_init__(self) -> None:
        if self.count:
            self.work.processes.check_share(self.count, "own draws of a step")

    def batch(self, step: int, law: TrainedLaw) -> Batch:
        """The draws of a step, drawn now from `law` unless they were before."""
        if step not in self.held:
            self._draw(step, law)
        return self.held.pop(step)

    def _draw(self, step: int, law: TrainedLaw) -> None:
        end = step + self.renew - step % self.renew
        steps = range(step, end if self.last is None else max(step + 1, min(end, self.last)))
        shares = [self.work.mine(self.work.rows(s, self.count, self.each)) for s in steps]
        draws = self.work.own_draws(law, np.concatenate(shares))
        own = law is self.work.policy
        stale = len(steps) > 1 or not own
        if stale:
            draws = self.work.rescored(law, draws)
        batch = self.work.of_policy(
            draws, self.floor, SPARED * len(steps), own=own, by_token=self.by_token, hidden=self.hidden
        )
        if stale:
            batch = replace(batch, log_proposal=np.asarray(draws.log_prob))
        cuts = np.cumsum([len(share) for share in shares])[:-1]
        parts = np.split(np.arange(len(draws)), cuts)
        self.held = {s: batch.take(rows) for s, rows in zip(steps, parts, strict=True)}


@dataclass
class BaseDraws:
    """Base draws of the stream `train`, fetched by blocks of `BLOCK` a prompt."""

    work: Work
    floor: float = -np.inf  # see `Target.log_ratio`
    blocks: dict[int, Batch] = field(default_factory=dict)

    def batch(self, rows: Array) -> Batch:
        """The draws at rows (prompt, index), this process's share of them."""
        parts = []
        for number in np.unique(rows[:, 1] // BLOCK):
            block = self.block(int(number))
            parts.append(block.take(_places(block, rows[rows[:, 1] // BLOCK == number])))
        found = Batch.concat(parts)
        return found.take(np.arange(len(found))[self.work.processes.rank :: self.work.processes.count])

    def block(self, number: int) -> Batch:
        """All prompts' draws number·BLOCK … ; only the last two blocks are held."""
        if number not in self.blocks:
            count = len(self.work.prompts)
            rows = np.stack([np.repeat(np.arange(count), BLOCK), np.tile(np.arange(BLOCK), count)], axis=1)
            self.blocks[number] = self.work.of_base(
                self.work.base_draws(rows + np.array([0, number * BLOCK])), self.floor
            )
        self.blocks = dict(list(self.blocks.items())[-2:])
        return self.blocks[number]


def _places(block: Batch, rows: Array) -> Array:
    """Where rows stand in a block that is sorted by prompt and number."""
    return np.asarray(rows[:, 0] * BLOCK + rows[:, 1] % BLOCK)
