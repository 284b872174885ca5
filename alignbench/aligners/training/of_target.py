"""Draws of p itself, to learn from: base draws kept by rejection, or weighed by P/a where nothing bounds it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from alignbench.aligners.training.ahead import BLOCK, BaseDraws
from alignbench.aligners.training.batch import Batch
from alignbench.aligners.training.work import Work
from alignbench.errors import Unsupported, brief
from alignbench.generators.described import called
from alignbench.seeds import ACCEPT
from alignbench.types import Array


@dataclass
class TargetDraws:
    """Draws of p by prompt and number, of base draws numbered from `first` on.

    Where P/a is bounded a base draw is kept with probability P/(a·bound), and weighs 1; else all with P > 0 are kept,
    and weigh P/a over its mean among them. Raises Unsupported after `cap` base draws of a prompt without one that is
    kept.
    """

    work: Work
    first: int = 0
    cap: int = 4096
    log_z: Array | None = None  # where nothing bounds P/a: log of its mean over base draws with P > 0
    kept: list[Batch] = field(default_factory=list)  # what is kept of each block of base draws
    places: list[list[tuple[int, int]]] = field(default_factory=list)  # by prompt: block and row of its draws

    def __post_init__(self) -> None:
        prompts = self.work.prompts
        self.base, self.places = BaseDraws(self.work), [[] for _ in prompts]
        self.bound = self.work.target.log_bound(len(prompts))
        if self.bound is None and self.log_z is None:
            pool = self.work.pool(256)
            share = np.bincount(pool.draws.prompt, pool.log_ratio > -np.inf) / np.bincount(pool.draws.prompt)
            self.log_z = self.work.log_z(pool) - np.log(share)  # of base draws with P > 0: their mean weight is 1

    def batch(self, rows: Array) -> Batch:
        """This process's share of the draws at rows (prompt, number of the draw of p)."""
        wanted = np.bincount(rows[:, 0], minlength=len(self.places)) * 0
        np.maximum.at(wanted, rows[:, 0], rows[:, 1] + 1)
        while any(len(mine) < count for mine, count in zip(self.places, wanted, strict=True)):
            self._more()
        at = np.array([self.places[c][i] for c, i in rows])[self.work.processes.rank :: self.work.processes.count]
        if not len(at):
            return self.kept[0].take(np.zeros(0, int))
        numbers = np.unique(at[:, 0])
        found = Batch.concat([self.kept[number].take(at[at[:, 0] == number, 1]) for number in numbers])
        order = np.concatenate([np.flatnonzero(at[:, 0] == number) for number in numbers])
        return found.take(np.argsort(order))

    def _more(self) -> None:
        """Look at the next block of base draws."""
        found = self._accepted(self.base.block(self.first // BLOCK + len(self.kept)))
        for row, prompt in enumerate(found.draws.prompt):
            self.places[int(prompt)].append((len(self.kept), row))
        self.kept.append(found)
        tried = len(self.kept) * BLOCK
        for prompt, mine in zip(self.work.prompts, self.places, strict=True):
            if tried > self.cap * (len(mine) + 1):
                raise Unsupported(
                    f"no draw of p to learn from: {len(mine)} of {tried} draws of {called(self.work.setting.base)} for "
                    f"prompt {brief(prompt)} were kept: ask for less, or use cdpg, which draws from the policy"
                )

    def _accepted(self, block: Batch) -> Batch:
        """Those of a block that are draws of p, or what they weigh."""
        if self.bound is None:
            assert self.log_z is not None
            kept = block.take(np.flatnonzero(block.log_ratio > -np.inf))
            return replace(kept, weight=np.exp(kept.log_ratio - self.log_z[kept.draws.prompt]))
        seed, draws = self.work.setting.seed.salted(ACCEPT), block.draws
        coins = [seed.rng(self.work.prompts[c], i).random() for c, i in zip(draws.prompt, draws.index, strict=True)]
        kept = np.log(np.array(coins)) < block.log_ratio - self.bound[draws.prompt]
        return replace(block.take(np.flatnonzero(kept)), weight=np.ones(int(kept.sum())))
