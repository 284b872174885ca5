"""Functions of a draw that one pass over its tokens computes: deterministic automata over token ids.

Their values are what makes a world summable: a constraint (0 or 1), a feature, or a log-ratio log P − log a in nats.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256

import numpy as np

from alignbench.errors import UsageError
from alignbench.generators.base import Vocab
from alignbench.generators.exact.words import ids_of
from alignbench.types import Array, Draws

Op = Callable[[Array, Array], Array]


@dataclass(frozen=True, eq=False)
class Automaton:
    """A deterministic automaton whose last state says a draw's value; state 0 is the first.

    `after` (S, V) is the state after each token (columns of EOS ids are not read), `finished` (S,) the value of a draw
    that ended there, `cut` (S,) that of a draw cut at max_tokens there. It is a feature: call it on draws.
    """

    vocab: Vocab
    after: Array
    finished: Array
    cut: Array

    def __post_init__(self) -> None:
        states = len(self.after)
        if self.after.shape != (states, len(self.vocab)) or not self.finished.shape == self.cut.shape == (states,):
            raise UsageError(f"automaton: after {self.after.shape}, finished {self.finished.shape} and cut "
                             f"{self.cut.shape} are not (S, {len(self.vocab)}), (S,) and (S,)")  # fmt: skip
        if ((self.after < 0) | (self.after >= states)).any():
            raise UsageError(f"automaton: `after` names states outside 0 … {states - 1}")

    def __call__(self, prompts: Sequence[str], draws: Draws) -> Array:
        """(B,) values of draws, as any feature; raises UsageError on ids of another tokenizer."""
        if draws.tokens is None or draws.vocab != self.vocab.fingerprint:
            raise UsageError("automaton: these draws are ids of another tokenizer")
        said = draws.length - draws.finished
        state = np.zeros(len(draws), dtype=np.int64)
        for t in range(int(said.max(initial=0))):
            state = np.where(t < said, self.after[state, draws.tokens[:, t]], state)
        return np.where(draws.finished, self.finished[state], self.cut[state])

    @property
    def is_boolean(self) -> bool:
        """Whether its values are 0 and 1 alone."""
        return bool(np.isin(self.values, (0, 1)).all())

    @property
    def values(self) -> Array:
        """(2S,) values of the draws that finished in each state, then of those cut there."""
        return np.concatenate([self.finished, self.cut])

    @property
    def identity(self) -> str:
        """16 hex digits of a hash over vocabulary, states and values."""
        digest = sha256(self.vocab.fingerprint.encode())
        for table in (self.after.astype(np.int64), self.values.astype(float)):
            digest.update(np.ascontiguousarray(table).tobytes())
        return digest.hexdigest()[:16]

    def mapped(self, change: Callable[[Array], Array]) -> Automaton:
        """The same states, every value changed."""
        return replace(self, finished=change(self.finished), cut=change(self.cut))

    def log(self) -> Automaton:
        """Log of the values: a constraint b as the log-ratio log b, −inf where it is broken."""
        with np.errstate(divide="ignore"):
            return self.mapped(np.log)

    def joined(self, other: Automaton, op: Op) -> Automaton:
        """Both at once, valued by `op` of their values; only pairs of states that can be reached."""
        if self.vocab.fingerprint != other.vocab.fingerprint:
            raise UsageError("automata over two tokenizers cannot be joined")
        mine, theirs, after = _pairs(self.after, other.after)
        return Automaton(
            self.vocab, after, op(self.finished[mine], other.finished[theirs]), op(self.cut[mine], other.cut[theirs])
        )

    def __and__(self, other: Automaton) -> Automaton:
        return self.joined(other, np.minimum)

    def __or__(self, other: Automaton) -> Automaton:
        return self.joined(other, np.maximum)

    def __add__(self, other: Automaton) -> Automaton:
        return self.joined(other, np.add)

    def __mul__(self, factor: float) -> Automaton:
        return self.mapped(lambda values: values * factor)

    def __invert__(self) -> Automaton:
        return self.mapped(lambda values: 1 - values)

    def live(self) -> Array:
        """(S,) bool: from where a value above 0 can still be reached, however many tokens it takes."""
        live = (self.finished > 0) | (self.cut > 0)
        while (more := live | (self._leads & live).any(1)).sum() > live.sum():
            live = more
        return live

    def within(self, max_tokens: int) -> Array:
        """(max_tokens + 1, S) bool: from where a value above 0 can be reached, by tokens that are left to draw."""
        live = [self.cut > 0]
        for _ in range(max_tokens):
            live.append((self.finished > 0) | (self._leads & live[-1]).any(1))
        return np.stack(live)

    @cached_property
    def _leads(self) -> Array:
        """(S, S) bool: whether a token that does not end a draw leads from one state to another."""
        words = np.delete(np.arange(len(self.vocab)), sorted(self.vocab.eos))
        leads = np.zeros((len(self.after),) * 2, dtype=bool)
        for state, row in enumerate(self.after):
            leads[state, row[words]] = True
        return leads


def _pairs(left: Array, right: Array) -> tuple[Array, Array, Array]:
    """The reachable pairs of states of two automata, as two columns, and (pairs, V) the pair after each token."""
    number, todo, after = {(0, 0): 0}, [(0, 0)], []
    for i, j in todo:  # grows while it is walked
        row = []
        for pair in zip(left[i].tolist(), right[j].tolist(), strict=True):
            if pair not in number:
                number[pair] = len(todo)
                todo.append(pair)
            row.append(number[pair])
        after.append(row)
    mine, theirs = np.array(todo).T
    return mine, theirs, np.array(after)


def always(vocab: Vocab, value: float = 1.0) -> Automaton:
    """The same value for every draw."""
    return Automaton(vocab, np.zeros((1, len(vocab)), dtype=np.int64), np.array([value]), np.array([value]))


def counts(vocab: Vocab, words: str, most: int) -> Automaton:
    """How many of a draw's tokens are among `words` (split at spaces), counted up to `most`."""
    ids = ids_of(vocab.tokens, words, "counts of")
    after = np.tile(np.arange(most + 1)[:, None], (1, len(vocab)))
    after[:, ids] = np.minimum(after[:, ids] + 1, most)
    value = np.arange(most + 1.0)
    return Automaton(vocab, after, value, value)
