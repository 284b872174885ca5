"""Which tokens may come next: what a constrained decoder asks of an automaton, a regular expression or a grammar."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from alignbench.errors import UsageError
from alignbench.generators.base import Vocab
from alignbench.generators.exact.automaton import Automaton
from alignbench.types import Array


class Masks(Protocol):
    """Which tokens may come next, as states that tokens lead through.

    A state is a whole number >= 0, its meaning the mask's own.
    """

    @property
    def vocab(self) -> Vocab:
        """The tokens that it reads."""
        ...

    def identity(self) -> Mapping[str, Any]:
        """All that it allows depends on, as plain data."""
        ...

    def start(self, prompt: str) -> int:
        """The state before the first token of this (original) prompt.

        Raises UsageError where nothing can be said after it.
        """
        ...

    def after(self, states: Array, tokens: Array) -> Array:
        """(R,) states after one more token (R,) in each.

        It never fails: after a token that was not allowed the state is arbitrary but valid.
        """
        ...

    def allowed(self, states: Array, left: int) -> Array:
        """(R, V) bool: the tokens that may be said with `left` tokens still to draw, this one among them.

        EOS ids where a draw may end.
        """
        ...


ANY_LEFT = 2**31
"""Tokens left to draw, where there is no limit to look ahead to."""


@dataclass(frozen=True, eq=False)
class Keeping:
    """The tokens after which an automaton can still keep a draw, in `lookahead` tokens if given, else in any number.

    Raises UsageError where its values are not 0 and 1, or no draw can be kept.
    """

    automaton: Automaton
    lookahead: int | None

    def __post_init__(self) -> None:
        if not self.automaton.is_boolean:
            raise UsageError("a draw is kept or not; the automaton has other values than 0 and 1")
        if not self._live[-1, 0]:
            budget = "" if self.lookahead is None else f" in {self.lookahead} tokens"
            raise UsageError(f"no draw can be kept{budget}")

    @property
    def vocab(self) -> Vocab:
        """See `Masks.vocab`."""
        return self.automaton.vocab

    @cached_property
    def _live(self) -> Array:
        """(1 or lookahead + 1, S) bool, by tokens left: from where a draw can still be kept."""
        return self.automaton.live()[None] if self.lookahead is None else self.automaton.within(self.lookahead)

    def identity(self) -> Mapping[str, Any]:
        """The automaton."""
        return {"automaton": self.automaton.identity}

    def start(self, prompt: str) -> int:
        """0: the prompt is not read."""
        return 0

    def after(self, states: Array, tokens: Array) -> Array:
        """See `Masks.after`."""
        return np.asarray(self.automaton.after[states, tokens])

    def allowed(self, states: Array, left: int) -> Array:
        """See `Masks.allowed`."""
        live = self._live[-1 if self.lookahead is None else max(left - 1, 0)]
        allowed = live[self.automaton.after[states]]
        allowed[:, sorted(self.vocab.eos)] = self.automaton.finished[states, None] > 0
        return np.asarray(allowed)
