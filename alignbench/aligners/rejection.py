"""Rejection sampling: the base's draws, each kept with probability P/(a·bound), so that what is kept is exactly p."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from alignbench.aligners.base import identity_of, whole
from alignbench.aligners.best_of_n import batch_rows
from alignbench.errors import Unsupported
from alignbench.registry import aligner
from alignbench.seeds import Seed
from alignbench.target import Target
from alignbench.types import Array, Draws, Selection, collect

ACCEPT = 1  # salt of the uniforms that decide acceptance


@aligner("rejection", target_driven=True, density="closed form")
@dataclass(frozen=True)
class Rejection:
    """Exact draws of p by rejection from the base (von Neumann 1951), at most `cap` proposals each.

    A draw whose proposals run out is marked, left out of every metric but the acceptance rate, and reported.
    """

    cap: int = 256

    def __post_init__(self) -> None:
        whole("rejection:cap", self.cap)

    def align(
        self, base: Any, target: Target, prompts: Sequence[str], *, max_tokens: int, seed: Seed,
        workdir: Path | None = None,
    ) -> RejectionSampler:  # fmt: skip
        """See `Aligner.align`; raises Unsupported where log P − log a has no known bound."""
        bound = target.log_bound(len(prompts))
        if bound is None:
            raise Unsupported(
                "aligner 'rejection' needs a bound on log P − log a, and a feature of this target declares no range; "
                "use best_of_n, or a feature with a range"
            )
        return RejectionSampler(self, base, target, tuple(float(b) for b in bound))


@dataclass(frozen=True)
class RejectionSampler:
    """Draw i is the first accepted of the base's draws i·cap + attempt, attempt = 0, 1, …, cap − 1."""

    aligner: Rejection
    base: Any
    target: Target
    bound: tuple[float, ...]

    @property
    def selection(self) -> Selection:
        """How it picks among base draws."""
        return Selection("first", self.aligner.cap)

    def identity(self) -> Mapping[str, Any]:
        """All that a draw depends on besides prompt, length and seed."""
        return identity_of(self.aligner, self.base, self.target)

    def sample(self, prompts: Sequence[str], rows: Array, *, max_tokens: int, seed: Seed) -> Iterator[Draws]:
        """See `Sampler.sample`; proposes at most a full batch at a time and yields what each round accepted.

        Each row gets as many proposals at once as one acceptance takes by what was accepted so far: with as many as the
        batch holds, half of all tokens were decoded in vain. `proposals` counts attempts up to the accepted one,
        whatever the batch; `spent` counts every token decoded.
        """
        every = [_Wanted(int(c), int(i)) for c, i in rows[np.lexsort((rows[:, 1], rows[:, 0]))]]
        waiting, size = every, batch_rows(self.base)
        while waiting:
            kept, tried = sum(w.accepted for w in every), sum(w.tried for w in every)
            needed = -(-(tried + 1) // (kept + 1))  # of one acceptance; 1 while nothing is known
            active, tries = waiting[:size], max(1, min(size // len(waiting), needed))
            done = self._round(prompts, active, tries, max_tokens, seed)
            if done:
                yield Draws.concat(done)
            waiting = [w for w in active if not w.done] + waiting[size:]

    def _round(
        self, prompts: Sequence[str], active: list[_Wanted], tries: int, max_tokens: int, seed: Seed
    ) -> list[Draws]:
        cap = self.aligner.cap
        attempts = [range(w.tried, min(w.tried + tries, cap)) for w in active]
        pairs = [(w.prompt, w.index * cap + a) for w, span in zip(active, attempts, strict=True) for a in span]
        proposals = collect(self.base.sample(prompts, np.array(pairs), max_tokens=max_tokens, seed=seed))
        accepted = self._accept(prompts, proposals, seed)
        begin, finished = 0, []
        for wanted, span in zip(active, attempts, strict=True):
            mine = np.arange(begin, begin + len(span))
            begin += len(span)
            kept = wanted.settle(accepted[mine], int(proposals.length[mine].sum()), cap)
            if kept is not None:
                finished.append(wanted.draw(proposals.take(mine[[kept]])))
        return finished

    def _accept(self, prompts: Sequence[str], proposals: Draws, seed: Seed) -> Array:
        log_accept = self.target.log_ratio_of(prompts, proposals) - np.asarray(self.bound)[proposals.prompt]
        coins = [
            seed.salted(ACCEPT).rng(prompts[c], i).random()
            for c, i in zip(proposals.prompt, proposals.index, strict=True)
        ]
        return np.asarray(np.array(coins) < np.exp(log_accept))


@dataclass
class _Wanted:
    """One row on its way: how many proposals it has had, and what they cost."""

    prompt: int
    index: int
    tried: int = 0
    spent: int = 0
    accepted: bool = False
    done: bool = False

    def settle(self, accepted: Array, tokens: int, cap: int) -> int | None:
        """Take in a round; the place of the draw to keep (the last proposal if the cap is reached), else None."""
        self.spent += tokens
        hits = np.flatnonzero(accepted)
        self.accepted = bool(len(hits))
        self.tried += int(hits[0]) + 1 if self.accepted else len(accepted)
        self.done = self.accepted or self.tried >= cap
        if not self.done:
            return None
        return int(hits[0]) if self.accepted else len(accepted) - 1

    def draw(self, proposal: Draws) -> Draws:
        """The finished draw."""
        return replace(
            proposal, index=np.array([self.index]), log_prob=None, token_log_prob=None,
            proposals=np.array([self.tried]), spent=np.array([self.spent]), accepted=np.array([self.accepted]),
        )  # fmt: skip
