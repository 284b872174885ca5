"""What was said before: the tokens that a repetition penalty looks at, beside the logits that it changes.

A model's logits are what its states and positions call `logits`; those without it give nats, which are logits too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch

from alignbench.generators.base import Model, Positions, State
from alignbench.generators.warp import at_least_float32
from alignbench.types import Array, Draws


@runtime_checkable
class Remembering(Protocol):
    """A model that reads other ids than those its draws follow: a decoder's own, or no virtual tokens."""

    def history(self, rendered: str) -> Sequence[int]:
        """The ids before a draw."""
        ...


@runtime_checkable
class WithLogits(Protocol):
    """A state that keeps its logits."""

    @property
    def logits(self) -> torch.Tensor | None:
        """(R, V); None where it does not have them."""
        ...


@runtime_checkable
class WithHidden(Protocol):
    """A state that keeps the last hidden states that its logits were made of."""

    @property
    def last_hidden(self) -> torch.Tensor | None:
        """(R, D); None where it does not have them."""
        ...


@runtime_checkable
class WithHiddenStates(Protocol):
    """Positions that show the last hidden state of each place."""

    @property
    def hidden(self) -> torch.Tensor:
        """(P, D)."""
        ...


@dataclass(frozen=True)
class LogitsAndHidden:
    """See `Positions` and `WithHiddenStates`: logits, and the hidden states that they were made of."""

    logits: torch.Tensor  # (P, V)
    hidden: torch.Tensor  # (P, D)

    def __getitem__(self, part: slice) -> torch.Tensor:
        return self.logits[part]


@runtime_checkable
class OfLogits(Protocol):
    """Positions of nats that can be had as logits."""

    @property
    def logits(self) -> Positions:
        """The same places, as logits."""
        ...


@runtime_checkable
class OfHidden(Protocol):
    """Positions that are made of a hidden state of each place, and of nothing else that depends on the draws."""

    @property
    def hidden(self) -> torch.Tensor:
        """(P, D) the last hidden states."""
        ...

    @property
    def trained(self) -> bool:
        """Whether what makes distributions of them is trained too."""
        ...

    def on(self, hidden: torch.Tensor) -> Positions:
        """The same of other hidden states."""
        ...


def history_of(model: Model, rendered: str) -> Sequence[int]:
    """The ids that stand before a draw: its prompt's, unless the model says otherwise."""
    return model.history(rendered) if isinstance(model, Remembering) else model.encode(rendered, 0)


def logits_of(state: State) -> torch.Tensor:
    """(R, V) logits of a state."""
    found = state.logits if isinstance(state, WithLogits) else None
    return state.log_probs if found is None else found


def shown_by(state: State) -> Positions:
    """(R, V) logits of a state, with its hidden states where it keeps them."""
    hidden = state.last_hidden if isinstance(state, WithHidden) else None
    return logits_of(state) if hidden is None else LogitsAndHidden(logits_of(state), hidden)


def seen_of(model: Model, rendered: Sequence[str]) -> torch.Tensor:
    """(R, V) bool: the tokens that stand before the first of a draw."""
    known = {text: history_of(model, text) for text in set(rendered)}
    ids = [known[text] for text in rendered]
    seen = torch.zeros((len(ids), len(model.vocab)), dtype=torch.bool, device=model.device)
    rows = np.repeat(np.arange(len(ids)), [len(one) for one in ids])
    seen[torch.as_tensor(rows), torch.as_tensor([i for one in ids for i in one], dtype=torch.long)] = True
    return seen


def after(seen: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """(R, V) bool: what was said once one more token (R,) was."""
    return seen.scatter(1, tokens[:, None], True)


@dataclass(frozen=True)
class Before:
    """What decoding settings need of P places: nats; where they remember, logits and what was said before each."""

    places: Positions
    said: Said | None = None

    @staticmethod
    def of(model: Model, rendered: Sequence[str], draws: Draws, *, remembers: bool) -> Before:
        """The places before each token of each draw; see `Model.forced`."""
        found = model.forced(rendered, draws)
        if not remembers:
            return Before(found)
        places = found.logits if isinstance(found, OfLogits) else found
        return Before(places, Said.of(model, rendered, draws))

    def __getitem__(self, part: slice) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(n, V) of those places, and (n, V) what was said before them."""
        x = self.places[part]
        if self.said is None:
            return x, None
        return at_least_float32(x), self.said[part]


@dataclass(frozen=True)
class Said:
    """The tokens said before each of P places, draw by draw; made as they are cut."""

    first: torch.Tensor  # (B, V) bool: before each draw
    tokens: torch.Tensor  # (B, T)
    row: torch.Tensor  # (P,) the draw of each place
    step: torch.Tensor  # (P,) tokens of it that stand before the place

    @staticmethod
    def of(model: Model, rendered: Sequence[str], draws: Draws) -> Said:
        """What stands before each token of each draw."""
        assert draws.tokens is not None
        places: Sequence[Array] = np.nonzero(np.arange(draws.tokens.shape[1]) < draws.length[:, None])
        row, step = (torch.as_tensor(x, device=model.device) for x in places)
        return Said(seen_of(model, rendered), torch.as_tensor(draws.tokens, device=model.device), row, step)

    def __getitem__(self, part: slice) -> torch.Tensor:
        row, size = self.row[part], self.first.shape[1]
        said = torch.arange(self.tokens.shape[1], device=row.device) < self.step[part, None]
        seen = torch.nn.functional.pad(self.first[row], (0, 1))  # one column more, for what is not said yet
        return seen.scatter_(1, torch.where(said, self.tokens[row], size), True)[:, :size]
