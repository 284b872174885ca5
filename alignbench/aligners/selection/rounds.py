"""Draws of a proposal in rounds until each wanted draw has one that is accepted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from alignbench.aligners.selection.proposal import Proposal, Weighed
from alignbench.generators.described import described
from alignbench.seeds import ACCEPT, Seed, attempts
from alignbench.types import Array, Draws


@dataclass(frozen=True)
class Rounds:
    """Draw i is the first accepted of the attempts 0, 1, …, cap − 1 at q's draw i.

    Each is accepted with probability min(1, P/(βq)), `log_beta` (C,) in nats by prompt. A draw whose proposals run out
    is marked.
    """

    proposal: Proposal
    cap: int
    log_beta: tuple[float, ...]

    def sample(self, prompts: Sequence[str], rows: Array, *, max_tokens: int, seed: Seed) -> Iterator[Draws]:
        """See `Sampler.sample`; proposes at most a full batch at a time and yields what each round accepted.

        Each row gets as many proposals at once as one acceptance takes by what was accepted so far: with as many as the
        batch holds, half of all tokens were decoded in vain. `proposals` counts attempts up to the accepted one,
        whatever the batch; `spent` counts every token decoded, `calls` those scored too.
        """
        every = [_Wanted(int(c), int(i)) for c, i in rows[np.lexsort((rows[:, 1], rows[:, 0]))]]
        waiting, size = every, described(self.proposal.law).rows_at_once
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
        spans = [range(w.tried, min(w.tried + tries, self.cap)) for w in active]
        rows = np.concatenate([self._rows(w, span) for w, span in zip(active, spans, strict=True)])
        proposed = self.proposal.draw(prompts, rows, max_tokens=max_tokens, seed=seed)
        accepted = self._accept(prompts, proposed, seed)
        begin, finished = 0, []
        for wanted, span in zip(active, spans, strict=True):
            mine = np.arange(begin, begin + len(span))
            begin += len(span)
            kept = wanted.settle(accepted[mine], proposed, mine, self.cap)
            if kept is not None:
                finished.append(wanted.draw(proposed.draws.take(mine[[kept]])))
        return finished

    def _rows(self, wanted: _Wanted, span: range) -> Array:
        """(n, 2) the attempts `span` at one draw."""
        tried = attempts(np.array([wanted.index]), len(span), span.start, self.cap)[0]
        return np.stack([np.full(len(span), wanted.prompt), tried], axis=1)

    def _accept(self, prompts: Sequence[str], proposed: Weighed, seed: Seed) -> Array:
        draws = proposed.draws
        log_accept = proposed.log_weight - np.asarray(self.log_beta)[draws.prompt]
        coins = [
            seed.salted(ACCEPT).rng(prompts[c], i).random() for c, i in zip(draws.prompt, draws.index, strict=True)
        ]
        return np.asarray(np.array(coins) < np.exp(np.minimum(log_accept, 0.0)))


@dataclass
class _Wanted:
    """One row on its way: how many proposals it has had, and what they cost."""

    prompt: int
    index: int
    tried: int = 0
    spent: int = 0
    calls: int = 0
    accepted: bool = False
    done: bool = False

    def settle(self, accepted: Array, proposed: Weighed, mine: Array, cap: int) -> int | None:
        """Take in a round; the place of the draw to keep (the last proposal if the cap is reached), else None."""
        self.spent += int(proposed.spent[mine].sum())
        self.calls += int(proposed.calls[mine].sum())
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
            proposals=np.array([self.tried]), spent=np.array([self.spent]), calls=np.array([self.calls]),
            accepted=np.array([self.accepted]),
        )  # fmt: skip
