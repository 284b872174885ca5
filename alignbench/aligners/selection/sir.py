"""Sampling importance resampling: n draws of a proposal, one of them kept with probability ∝ P/q."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from alignbench.aligners.base import PICKING, Immediate, Named, Setting, whole
from alignbench.aligners.selection.proposal import Weighing, check_proposal, proposal_of
from alignbench.generators.described import described
from alignbench.registry import aligner
from alignbench.seeds import RESAMPLE, Seed, attempts
from alignbench.stats.weights import scaled
from alignbench.types import Array, Draws, Selection


@aligner("sir", target_driven=True, density="closed form")
@dataclass(frozen=True)
class SIR(Immediate):
    """One of n proposals, drawn with probability ∝ P/q (Rubin 1987): p as n grows, and exactly p for hard constraints.

    A draw all of whose proposals have P = 0 is marked, left out and reported, as in rejection. What
    `stats.resampled` says of the law needs no density.
    """

    format: ClassVar[int] = PICKING
    n: int = 16
    proposal: Named | None = None

    def __post_init__(self) -> None:
        whole("sir:n", self.n)
        check_proposal(self.proposal, "sir: proposal")

    def align(self, setting: Setting) -> SIRSampler:
        """See `Aligner.align`."""
        return SIRSampler(self, proposal_of(self.proposal, setting, "sir"))


@dataclass(frozen=True)
class SIRSampler(Weighing):
    """Draw i is one of the attempts 0 … n − 1 at the proposal's draw i."""

    aligner: SIR

    @property
    def selection(self) -> Selection:
        """How it picks among the proposal's draws; exactly p, as rejection, where all that is kept has one weight."""
        exact = self.weighed.is_base and self.weighed.target.is_boolean
        return Selection("first" if exact else "resampled", self.aligner.n)

    def sample(self, prompts: Sequence[str], rows: Array, *, max_tokens: int, seed: Seed) -> Iterator[Draws]:
        """See `Sampler.sample`; yields after each full batch of proposals."""
        n = self.aligner.n
        rows = rows[np.lexsort((rows[:, 1], rows[:, 0]))]
        step = max(1, described(self.proposal).rows_at_once // n)
        for begin in range(0, len(rows), step):
            yield self._kept(prompts, rows[begin : begin + step], max_tokens, seed)

    def _kept(self, prompts: Sequence[str], rows: Array, max_tokens: int, seed: Seed) -> Draws:
        n, count = self.aligner.n, len(rows)
        wanted = np.stack([np.repeat(rows[:, 0], n), attempts(rows[:, 1], n).ravel()], axis=1)
        draws, log_weight, spent, calls = self.weighed.draw(prompts, wanted, max_tokens=max_tokens, seed=seed)
        coins = [seed.salted(RESAMPLE).rng(prompts[c], i).random() for c, i in rows]
        picked = np.array([_pick(w, u) for w, u in zip(log_weight.reshape(count, n), coins, strict=True)])
        return replace(
            draws.take(np.arange(count) * n + picked), index=rows[:, 1], log_prob=None, token_log_prob=None,
            proposals=np.full(count, n), spent=spent.reshape(count, n).sum(1), calls=calls.reshape(count, n).sum(1),
            accepted=log_weight.reshape(count, n).max(axis=1) > -np.inf,
        )  # fmt: skip


def _pick(log_weight: Array, uniform: float) -> int:
    """Which of n is drawn with probability ∝ its weight; the last where all weights are 0."""
    total = np.cumsum(scaled(log_weight)[0])
    return min(int(np.searchsorted(total, uniform * total[-1], side="right")), log_weight.size - 1)
