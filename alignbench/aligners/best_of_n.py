"""Best-of-n: draw n times from the base, keep the draw with the largest log P − log a."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from alignbench.aligners.base import identity_of, whole
from alignbench.registry import aligner
from alignbench.seeds import Seed
from alignbench.stats.weights import TIE
from alignbench.target import Target
from alignbench.types import Array, Draws, Selection, collect

TIES = 2  # salt of the uniforms that break ties


@aligner("best_of_n", target_driven=True, density="closed form")
@dataclass(frozen=True)
class BestOfN:
    """The best of n base draws by the target's ratio log P − log a, ties broken at random."""

    n: int = 16

    def __post_init__(self) -> None:
        whole("best_of_n:n", self.n)

    def align(
        self, base: Any, target: Target, prompts: Sequence[str], *, max_tokens: int, seed: Seed,
        workdir: Path | None = None,
    ) -> BestOfNSampler:  # fmt: skip
        """See `Aligner.align`."""
        return BestOfNSampler(self, base, target)


@dataclass(frozen=True)
class BestOfNSampler:
    """Draw i is the best of the base's draws i·n … i·n + n − 1."""

    aligner: BestOfN
    base: Any
    target: Target

    @property
    def selection(self) -> Selection:
        """How it picks among base draws."""
        return Selection("best", self.aligner.n)

    def identity(self) -> Mapping[str, Any]:
        """All that a draw depends on besides prompt, length and seed."""
        return identity_of(self.aligner, self.base, self.target)

    def sample(self, prompts: Sequence[str], rows: Array, *, max_tokens: int, seed: Seed) -> Iterator[Draws]:
        """See `Sampler.sample`; yields after each full batch of proposals."""
        n = self.aligner.n
        rows = rows[np.lexsort((rows[:, 1], rows[:, 0]))]
        step = max(1, batch_rows(self.base) // n)
        for begin in range(0, len(rows), step):
            part = rows[begin : begin + step]
            wanted = np.stack([np.repeat(part[:, 0], n), (part[:, 1:] * n + np.arange(n)).ravel()], axis=1)
            proposals = collect(self.base.sample(prompts, wanted, max_tokens=max_tokens, seed=seed))
            yield self._best(prompts, part, proposals, seed)

    def _best(self, prompts: Sequence[str], rows: Array, proposals: Draws, seed: Seed) -> Draws:
        n = self.aligner.n
        score = self.target.log_ratio_of(prompts, proposals).reshape(-1, n)
        ties = np.stack([seed.salted(TIES).rng(prompts[c], i).random(n) for c, i in rows])
        best = np.where(score >= score.max(1, keepdims=True) - TIE, ties, -1).argmax(1)  # what rounding parts is tied
        kept = proposals.take(np.arange(len(rows)) * n + best)
        spent = proposals.length.reshape(-1, n).sum(1)
        return replace(kept, index=rows[:, 1], log_prob=None, token_log_prob=None, spent=spent,
                       proposals=np.full(len(rows), n))  # fmt: skip


def batch_rows(base: Any) -> int:
    """How many rows `base` likes to draw at once."""
    return int(getattr(getattr(base, "model", None), "batch_size", 64))
