"""Locally constrained decoding: the base's next token among those that masks allow, each step renormalised alone.

It is a `Model`, so that `Law` samples and scores it; the state of the masks travels with the base's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from alignbench.errors import UsageError, brief
from alignbench.generators.base import Decoder, Positions, Slotted, Vocab
from alignbench.generators.described import identity_of
from alignbench.generators.history import Before, after, history_of, seen_of
from alignbench.generators.law import Law, LawState, together
from alignbench.generators.masked.masks import ANY_LEFT, Masks
from alignbench.types import Array, Draws, Sampler


def masked(base: Law, masks: Masks, *, max_tokens: int | None = None) -> Law:
    """The base's next token among those that `masks` allows, each step renormalised alone.

    That is what grammar-constrained decoding does and why it is not p (Park et al. 2024). `max_tokens` is that of the
    draws where the masks look ahead, else None. Where the base gives nothing to what is left, it goes on unmasked.
    """
    kind = SlottedConstrained if isinstance(base.model, Slotted) else Constrained
    return Law(kind(base, max_tokens, masks))


def masks(law: Sampler, base: Sampler) -> bool:
    """Whether `law` is `base` with tokens masked, each step renormalised, and nothing else changed."""
    if not isinstance(law, Law) or not isinstance(law.model, Constrained) or law != Law(law.model):
        return False
    return law.model.masked_base.identity() == identity_of(base)


@dataclass(frozen=True, eq=False)
class Constrained:
    """See `masked`."""

    base: Law
    max_tokens: int | None
    batch_size: int = field(init=False)
    masks: Masks
    _begins: dict[str, int] = field(default_factory=dict, init=False, repr=False)
    truncates = True

    def __post_init__(self) -> None:
        if self.masks.vocab.fingerprint != self.base.vocab.fingerprint:
            raise UsageError(f"{self.name}: the automaton reads other tokens than {self.base.name} says")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise UsageError(f"{self.name}: max_tokens={self.max_tokens}: must be at least 1")
        object.__setattr__(self, "batch_size", self.base.model.batch_size)

    @property
    def name(self) -> str:
        """The base's name and how it is steered."""
        return f"{self.base.name} constrained"

    @property
    def vocab(self) -> Vocab:
        """See `Model.vocab`."""
        return self.base.vocab

    @property
    def device(self) -> torch.device:
        """See `Model.device`."""
        return self.base.model.device

    @property
    def masked_base(self) -> Law:
        """The law whose tokens are masked: log a − log q <= 0 wherever this one, q, says anything."""
        return self.base

    def identity(self) -> Mapping[str, Any]:
        """The base, the masks and the tokens they look ahead to."""
        return {
            "kind": "constrained", "base": self.base.identity(), "max_tokens": self.max_tokens,
            "masks": dict(self.masks.identity()),
        }  # fmt: skip

    def render(self, prompt: str) -> str:
        """See `Model.render`; raises UsageError where nothing can be said, or two prompts become one with two masks."""
        rendered, state = self.base.render(prompt), self.masks.start(prompt)
        if rendered not in self._begins:
            self._check_fits(prompt, state)
        if self._begins.setdefault(rendered, state) != state:
            raise UsageError(
                f"{self.name}: two prompts become the same text '{rendered}' but are constrained otherwise"
            )
        return rendered

    def _check_fits(self, prompt: str, state: int) -> None:
        """Raise UsageError where masks that look ahead leave no first token: the base would go on unmasked."""
        if self.max_tokens is not None and not self.masks.allowed(np.array([state]), self.max_tokens).any():
            raise UsageError(
                f"{self.name}: no draw of {self.max_tokens} tokens after the prompt {brief(prompt)} keeps what is asked"
            )

    def encode(self, rendered: str, max_tokens: int) -> Sequence[int]:
        """See `Model.encode`; raises UsageError where a draw is to have other than the tokens it was made for."""
        if max_tokens and self.max_tokens not in (None, max_tokens):
            raise UsageError(f"{self.name}: made for max_tokens={self.max_tokens}, asked for {max_tokens}")
        return self.base.model.encode(rendered, max_tokens)

    def history(self, rendered: str) -> Sequence[int]:
        """See `Remembering.history`: what stands before the base's draws."""
        return history_of(self.base.model, rendered)

    def decode(self, rendered: str, tokens: Sequence[Array]) -> list[str]:
        """See `Model.decode`."""
        return self.base.model.decode(rendered, tokens)

    def begun(self, rendered: Sequence[str]) -> Array:
        """(R,) states of the masks before the first token."""
        return np.array([self._begins[text] for text in rendered])

    def left(self, said: Array) -> Array:
        """(R,) tokens still to draw after so many, as far as the masks need to know."""
        return np.full(len(said), ANY_LEFT) if self.max_tokens is None else np.maximum(self.max_tokens - said, 1)

    def nats(self, log_probs: torch.Tensor, states: Array, said: Array) -> torch.Tensor:
        """(R, V) nats of the base's law, masked in these states (R,) after so many tokens (R,), and renormalised."""
        kept = log_probs.masked_fill(~self._allowed(states, self.left(said)), -torch.inf)
        none_left = (kept == -torch.inf).all(-1, keepdim=True)
        return torch.where(none_left, log_probs, kept).log_softmax(-1)

    def _allowed(self, states: Array, left: Array) -> torch.Tensor:
        """(R, V) bool, each pair of state and tokens left asked for once."""
        allowed = np.empty((len(states), len(self.vocab)), dtype=bool)
        for tokens in np.unique(left):
            mine = np.flatnonzero(left == tokens)
            unlike, which = np.unique(states[mine], return_inverse=True)
            allowed[mine] = self.masks.allowed(unlike, int(tokens))[which]
        return torch.as_tensor(allowed, device=self.device)

    def start(self, rendered: Sequence[str], *, max_tokens: int) -> ConstrainedState:
        """See `Model.start`."""
        for prompt in set(rendered):
            self.encode(prompt, max_tokens)
        return ConstrainedState(self, self.base.begun(rendered, max_tokens=max_tokens), self.begun(rendered), 0)

    def forced(self, rendered: Sequence[str], draws: Draws) -> Positions:
        """See `Model.forced`; one teacher-forced pass of the base, masked as it is cut."""
        assert draws.tokens is not None
        width, state, before = int(draws.length.max()), self.begun(rendered), []
        for t in range(width):
            before.append(state)
            inside = t < draws.length
            state = state.copy()
            state[inside] = self.masks.after(state[inside], draws.tokens[inside, t])
        inside = np.arange(width) < draws.length[:, None]
        said = np.broadcast_to(np.arange(width), inside.shape)[inside]
        base = Before.of(self.base.model, rendered, draws, remembers=self.base.warp.remembers)
        return Masked(self, base.places, base.said, np.stack(before, 1)[inside], said)

    def together(self, prompt: int, width: int) -> int:
        """See `Grouped.together`."""
        return together(self.base.model, prompt, width)


@dataclass(frozen=True)
class Masked:
    """See `Positions`: nats at P places of the base, masked in the states there as they are cut."""

    model: Constrained
    places: Positions  # of the base's model
    seen: Positions | None  # (P, V) bool: the tokens said before, where the base's settings remember
    states: Array
    said: Array  # (P,) how many tokens were said before

    def __getitem__(self, part: slice) -> torch.Tensor:
        x, warp = self.places[part], self.model.base.warp
        x = x if x.dtype == torch.float64 else x.float()
        log_probs = warp(x.log_softmax(-1)) if self.seen is None else warp(x, self.seen[part])
        return self.model.nats(log_probs, self.states[part], self.said[part])


@dataclass(frozen=True)
class ConstrainedState:
    """R prefixes of the base, the state of the masks after each, and how many tokens were said."""

    model: Constrained
    base: LawState
    states: Array
    said: int

    @property
    def log_probs(self) -> torch.Tensor:
        """See `State.log_probs`."""
        return self.model.nats(self.base.log_probs, self.states, np.full(len(self.states), self.said))

    def extend(self, tokens: torch.Tensor) -> ConstrainedState:
        """See `State.extend`."""
        states = self.model.masks.after(self.states, tokens.cpu().numpy())
        return ConstrainedState(self.model, self.base.extend(tokens), states, self.said + 1)

    def select(self, rows: torch.Tensor) -> ConstrainedState:
        """See `State.select`."""
        return replace(self, base=self.base.select(rows), states=self.states[rows.cpu().numpy()])


@dataclass(frozen=True, eq=False)
class SlottedConstrained(Constrained):
    """See `masked`; over a model with decoders of its own."""

    def decoder(self, rows: int, width: int) -> ConstrainedDecoder:
        """See `Slotted.decoder`."""
        return ConstrainedDecoder(self, self._slotted.decoder(min(rows, self.batch_size), width))

    def give_back(self, decoder: Decoder) -> None:
        """See `Slotted.give_back`."""
        assert isinstance(decoder, ConstrainedDecoder)
        self._slotted.give_back(decoder.inner)

    def too_many(self, rows: int, width: int) -> None:
        """See `Slotted.too_many`."""
        self._slotted.too_many(rows, width)

    def forget(self) -> None:
        """See `Slotted.forget`."""
        self._slotted.forget()

    @property
    def _slotted(self) -> Slotted:
        assert isinstance(self.base.model, Slotted)
        return self.base.model


class ConstrainedDecoder:
    """See `Decoder`: the base's slots, and the state of the masks in each.

    A slot that holds nothing, or whose draw has ended, goes on in whatever state it had.
    """

    def __init__(self, model: Constrained, inner: Decoder) -> None:
        self.model, self.inner = model, inner
        self.refills, self.unwatched = inner.refills, inner.unwatched
        self.states = np.full(inner.slots, -1)  # before the first prompt is there
        self.said = np.zeros(inner.slots, dtype=int)
        self.seen: torch.Tensor | None = None  # (slots, V) bool: the tokens said before, where it matters

    @property
    def slots(self) -> int:
        """See `Decoder.slots`."""
        return self.inner.slots

    def shape(self, rows: int) -> int:
        """See `Decoder.shape`."""
        return self.inner.shape(rows)

    def prefill(self, rendered: Sequence[str]) -> torch.Tensor:
        """See `Decoder.prefill`."""
        self.first = self.model.begun(rendered)
        self.states = np.where(self.states < 0, self.first[0], self.states)
        logits, first = self.inner.prefill(rendered), None
        if self.model.base.warp.remembers:
            first = seen_of(self.model.base.model, rendered)
            self.seen = first[:1].expand(self.slots, -1).clone() if self.seen is None else self.seen
        self.seen_first = first
        return Masked(self.model, logits, first, self.first, np.zeros(len(self.first), dtype=int))[:]

    def fill(self, slots: torch.Tensor, which: torch.Tensor) -> None:
        """See `Decoder.fill`."""
        self.inner.fill(slots, which)
        at = slots.cpu().numpy()
        self.states[at], self.said[at] = self.first[which.cpu().numpy()], 0
        if self.seen is not None and self.seen_first is not None:
            self.seen[slots] = self.seen_first[which]

    def step(self, ids: torch.Tensor) -> Positions:
        """See `Decoder.step`."""
        self.states, self.said = self.model.masks.after(self.states, ids.cpu().numpy()), self.said + 1
        self.seen = None if self.seen is None else after(self.seen, ids)
        return Masked(self.model, self.inner.step(ids), self.seen, self.states, self.said)

    def keep(self, rows: torch.Tensor) -> None:
        """See `Decoder.keep`."""
        self.inner.keep(rows)
        at = rows.cpu().numpy()
        self.states, self.said = self.states[at], self.said[at]
        self.seen = None if self.seen is None else self.seen[rows]
