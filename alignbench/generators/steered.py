"""Decoders steered by an automaton: the optimal one, which samples p itself, and the one that masks token by token.

Both are `Model`s, so that `Law` samples and scores them; the automaton's state travels with the base's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from alignbench.errors import UsageError
from alignbench.generators import dynamic
from alignbench.generators.automaton import Automaton
from alignbench.generators.base import State, Vocab
from alignbench.generators.history import Before, history_of
from alignbench.generators.law import Law, LawState
from alignbench.generators.words import walked
from alignbench.types import Array, Draws


def twisted(base: Law, log_ratio: Automaton, *, max_tokens: int) -> Law:
    """Exact sampler of p ∝ a · exp(log_ratio), token by token: a(x_t | x_<t) · V(x_≤t) / V(x_<t).

    V is the mean of exp(log_ratio) over what the base may still say in the tokens left, summed by dynamic programming
    (the optimal twist; Whiteley and Lee 2014; with hidden Markov models Zhang et al. 2023). `log_ratio` is in nats,
    −inf what p rules out. The base must be an n-gram model, or a hidden Markov model decoded plainly.
    """
    return Law(Twisted(base, log_ratio, max_tokens))


def constrained(base: Law, keeps: Automaton, *, lookahead: int | None = None) -> Law:
    """Locally constrained decoder: the base's next token among those after which a draw can still be kept.

    Each step renormalises alone, which is what grammar-constrained decoding does and why it is not p (Park et al.
    2024). `lookahead` is the max_tokens that it may use: tokens are masked from which no kept draw fits. None masks by
    the automaton alone, so that tokens may run out before a draw is kept. The automaton does not see what the base
    cannot say: where the base gives nothing to what is left, it goes on unmasked (and the draw is not kept).
    """
    return Law(Constrained(base, keeps, lookahead))


@dataclass(frozen=True, eq=False)
class _Steered:
    """What a steered model has from its base."""

    base: Law
    automaton: Automaton
    max_tokens: int | None
    batch_size: int = field(init=False)
    truncates = True

    def __post_init__(self) -> None:
        if self.automaton.vocab.fingerprint != self.base.vocab.fingerprint:
            raise UsageError(f"{self.name}: the automaton reads other tokens than {self.base.name} says")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise UsageError(f"{self.name}: max_tokens={self.max_tokens}: must be at least 1")
        object.__setattr__(self, "batch_size", self.base.model.batch_size)

    @property
    def name(self) -> str:
        """The base's name and how it is steered."""
        return f"{self.base.name} {type(self).__name__.lower()}"

    @property
    def vocab(self) -> Vocab:
        """See `Model.vocab`."""
        return self.base.vocab

    @property
    def device(self) -> torch.device:
        """See `Model.device`."""
        return self.base.model.device

    @property
    def enumerable(self) -> bool:
        """Whether the base's continuations can be listed."""
        return bool(getattr(self.base.model, "enumerable", False))

    def identity(self) -> Mapping[str, Any]:
        """The base, the automaton and the tokens it may use."""
        return {"kind": type(self).__name__.lower(), "base": self.base.identity(),
                "automaton": self.automaton.identity, "max_tokens": self.max_tokens}  # fmt: skip

    def render(self, prompt: str) -> str:
        """See `Model.render`."""
        return self.base.render(prompt)

    def encode(self, rendered: str, max_tokens: int) -> Sequence[int]:
        """See `Model.encode`; raises UsageError where a draw is to have other than the tokens it was made for."""
        if self.max_tokens not in (None, max_tokens):
            raise UsageError(f"{self.name}: made for max_tokens={self.max_tokens}, asked for {max_tokens}")
        return self.base.model.encode(rendered, max_tokens)

    def history(self, rendered: str) -> Sequence[int]:
        """See `Remembering.history`: what stands before the base's draws."""
        return history_of(self.base.model, rendered)

    def decode(self, rendered: str, tokens: Sequence[Array]) -> list[str]:
        """See `Model.decode`."""
        return self.base.model.decode(rendered, tokens)

    def _base_state(self, rendered: Sequence[str], max_tokens: int) -> LawState:
        for prompt in set(rendered):
            self.encode(prompt, max_tokens)
        return self.base.begun(rendered, max_tokens=max_tokens)

    @property
    def _after(self) -> torch.Tensor:
        return torch.as_tensor(self.automaton.after, device=self.device)


@dataclass(frozen=True, eq=False)
class Constrained(_Steered):
    """See `constrained`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.automaton.is_boolean:
            raise UsageError(f"{self.name}: a draw is kept or not; the automaton has other values than 0 and 1")
        if not self._live[-1, 0]:
            budget = "" if self.max_tokens is None else f" in {self.max_tokens} tokens"
            raise UsageError(f"{self.name}: no draw can be kept{budget}")

    @cached_property
    def _live(self) -> Array:
        """(1 or max_tokens + 1, S) bool, by tokens left: from where a draw can still be kept."""
        return self.automaton.live()[None] if self.max_tokens is None else self.automaton.within(self.max_tokens)

    def _allowed(self, left: int) -> torch.Tensor:
        """(S, V) bool: the tokens that may be said with `left` tokens still to draw, this one among them."""
        allowed = self._live[-1 if self.max_tokens is None else max(left - 1, 0)][self.automaton.after]
        allowed[:, sorted(self.vocab.eos)] = self.automaton.finished[:, None] > 0
        return torch.as_tensor(allowed, device=self.device)

    def masked(self, log_probs: torch.Tensor, state: torch.Tensor, left: int) -> torch.Tensor:
        """(R, V) nats of the base in these states (R,), masked and renormalised."""
        kept = log_probs.masked_fill(~self._allowed(left)[state], -torch.inf)
        none_left = (kept == -torch.inf).all(-1, keepdim=True)
        return torch.where(none_left, log_probs, kept).log_softmax(-1)

    def start(self, rendered: Sequence[str], *, max_tokens: int) -> ConstrainedState:
        """See `Model.start`."""
        zeros = torch.zeros(len(rendered), dtype=torch.long, device=self.device)
        return ConstrainedState(self, self._base_state(rendered, max_tokens), zeros, max_tokens)

    def forced(self, rendered: Sequence[str], draws: Draws) -> torch.Tensor:
        """See `Model.forced`; one teacher-forced pass of the base."""
        assert draws.tokens is not None
        before = Before.of(self.base.model, rendered, draws, remembers=self.base.warp.remembers)
        raw = self.base.warp(*before[:])
        tokens = torch.as_tensor(draws.tokens, device=self.device).clamp(min=0)
        steps = torch.as_tensor(np.arange(int(draws.length.max())) < draws.length[:, None], device=self.device)
        state, draw, at = torch.zeros(len(draws), dtype=torch.long, device=self.device), *steps.nonzero(as_tuple=True)
        masked = raw.clone()
        for t in range(steps.shape[1]):
            masked[at == t] = self.masked(raw[at == t], state[draw[at == t]], (self.max_tokens or 0) - t)
            state = self._after[state, tokens[:, t]]
        return masked


@dataclass(frozen=True)
class ConstrainedState:
    """R prefixes of the base, the automaton's state after each, and how many tokens are left."""

    model: Constrained
    base: State
    state: torch.Tensor
    left: int

    @property
    def log_probs(self) -> torch.Tensor:
        """See `State.log_probs`."""
        return self.model.masked(self.base.log_probs, self.state, self.left)

    def extend(self, tokens: torch.Tensor) -> ConstrainedState:
        """See `State.extend`."""
        return ConstrainedState(
            self.model, self.base.extend(tokens), self.model._after[self.state, tokens], self.left - 1
        )

    def select(self, rows: torch.Tensor) -> ConstrainedState:
        """See `State.select`."""
        return replace(self, base=self.base.select(rows), state=self.state[rows])


@dataclass(frozen=True, eq=False)
class Twisted(_Steered):
    """See `twisted`."""

    max_tokens: int

    def __post_init__(self) -> None:
        super().__post_init__()
        dynamic.chain_of(self.base)  # raises UsageError where the base cannot be summed

    @property
    def truncates(self) -> bool:  # type: ignore[override]
        """Whether p rules something out."""
        return bool(np.isneginf(self.automaton.values).any())

    @cached_property
    def _tables(self) -> list[torch.Tensor]:
        """By tokens left, (S, H, V): P(say the word | hidden state) · V after it."""
        chain = dynamic.chain_of(self.base)
        return [torch.as_tensor(t, device=self.device) for t in dynamic.twists(chain, self.automaton, self.max_tokens)]

    def encode(self, rendered: str, max_tokens: int) -> Sequence[int]:
        """See `Model.encode`; raises UsageError where p does not exist."""
        ids = super().encode(rendered, max_tokens)
        belief = self.base.model.belief(rendered)  # type: ignore[attr-defined]
        if not (belief @ self._tables[self.max_tokens][0].numpy()).sum() > 0:
            raise UsageError(f"prompt '{rendered}': nothing that the base says in {max_tokens} tokens has P > 0")
        return ids

    def start(self, rendered: Sequence[str], *, max_tokens: int) -> TwistedState:
        """See `Model.start`."""
        zeros = torch.zeros(len(rendered), dtype=torch.long, device=self.device)
        return TwistedState(self, self._base_state(rendered, max_tokens), zeros, max_tokens)

    def forced(self, rendered: Sequence[str], draws: Draws) -> torch.Tensor:
        """See `Model.forced`."""
        return walked(self.start(rendered, max_tokens=self.max_tokens), draws)


@dataclass(frozen=True)
class TwistedState:
    """R prefixes of the base, the automaton's state after each, and how many tokens are left."""

    model: Twisted
    base: LawState
    state: torch.Tensor
    left: int

    @property
    def log_probs(self) -> torch.Tensor:
        """See `State.log_probs`; the base's own where P is 0 whatever follows (nothing that was drawn leads there)."""
        table = self.model._tables[max(self.left, 1)]
        mass = torch.zeros((len(self.state), table.shape[-1]), dtype=table.dtype)
        for state in np.unique(self.state.cpu().numpy()).tolist():
            rows = (self.state == state).nonzero()[:, 0]
            mass[rows] = self.base.select(rows).state.averaged(table[state])  # type: ignore[attr-defined]
        lost = mass.sum(-1, keepdim=True) == 0
        return torch.where(lost, self.base.log_probs, mass.log()).log_softmax(-1)

    def extend(self, tokens: torch.Tensor) -> TwistedState:
        """See `State.extend`."""
        return TwistedState(self.model, self.base.extend(tokens), self.model._after[self.state, tokens], self.left - 1)

    def select(self, rows: torch.Tensor) -> TwistedState:
        """See `State.select`."""
        return replace(self, base=self.base.select(rows), state=self.state[rows])
