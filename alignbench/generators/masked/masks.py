"""Which tokens may come next: what a constrained decoder asks of words, a regular expression or a grammar."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from alignbench.generators.base import Vocab
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
