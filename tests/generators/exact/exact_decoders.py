"""Decoders of exact worlds: the one that samples p itself, the locally constrained one, and laws as rules of the walk.

`twisted` and `constrained` are `Law`s; `warping`, `masking` and `twisting` are what `dynamic.kinds` makes of the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from alignbench.errors import UsageError
from alignbench.generators.base import State, Vocab
from alignbench.generators.exact import dynamic
from alignbench.generators.exact.automaton import Automaton
from alignbench.generators.exact.dynamic import Prefixes, Rule
from alignbench.generators.exact.hidden import HiddenState
from alignbench.generators.exact.words import walked
from alignbench.generators.law import Law, LawState
from alignbench.generators.masked.steered import masked
from alignbench.generators.warp import Warp
from alignbench.types import Array, Draws


def twisted(base: Law, log_ratio: Automaton, *, max_tokens: int) -> Law:
    """Exact sampler of p ∝ a · exp(log_ratio), token by token: a(x_t | x_<t) · V(x_≤t) / V(x_<t).

    V is the mean of exp(log_ratio) over what the base may still say in the tokens left, summed by dynamic programming
    (the optimal twist; Whiteley and Lee 2014; with hidden Markov models Zhang et al. 2023). `log_ratio` is in nats,
    −inf what p rules out. The base must be an n-gram model, or a hidden Markov model decoded plainly.
    """
    return Law(Twisted(base, max_tokens, log_ratio))


def constrained(base: Law, keeps: Automaton, *, lookahead: int | None = None) -> Law:
    """Locally constrained decoder: the base's next token among those after which a draw can still be kept.

    Each step renormalises alone, which is what grammar-constrained decoding does and why it is not p (Park et al.
    2024). `lookahead` is the max_tokens that it may use: tokens are masked from which no kept draw fits. None masks by
    the automaton alone, so that tokens may run out before a draw is kept. The automaton does not see what the base
    cannot say: where the base gives nothing to what is left, it goes on unmasked (and the draw is not kept).
    """
    return masked(base, Keeping(keeps, lookahead), max_tokens=lookahead)


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


@dataclass(frozen=True, eq=False)
class Twisted:
    """See `twisted`."""

    base: Law
    max_tokens: int
    automaton: Automaton
    batch_size: int = field(init=False)

    def __post_init__(self) -> None:
        if self.automaton.vocab.fingerprint != self.base.vocab.fingerprint:
            raise UsageError(f"{self.name}: the automaton reads other tokens than {self.base.name} says")
        if self.max_tokens < 1:
            raise UsageError(f"{self.name}: max_tokens={self.max_tokens}: must be at least 1")
        object.__setattr__(self, "batch_size", self.base.model.batch_size)
        dynamic.chain_of(self.base)  # raises UsageError where the base cannot be summed

    @property
    def name(self) -> str:
        return f"{self.base.name} twisted"

    @property
    def vocab(self) -> Vocab:
        return self.base.vocab

    @property
    def device(self) -> torch.device:
        return self.base.model.device

    def render(self, prompt: str) -> str:
        return self.base.render(prompt)

    def decode(self, rendered: str, tokens: Sequence[Array]) -> list[str]:
        return self.base.model.decode(rendered, tokens)

    def identity(self) -> Mapping[str, Any]:
        """The base, the automaton and the tokens that the sums run over."""
        return {
            "kind": "twisted", "base": self.base.identity(), "max_tokens": self.max_tokens,
            "automaton": self.automaton.identity,
        }  # fmt: skip

    @property
    def truncates(self) -> bool:
        """Whether p rules something out."""
        return bool(np.isneginf(self.automaton.values).any())

    @property
    def _after(self) -> torch.Tensor:
        return torch.as_tensor(self.automaton.after, device=self.device)

    @cached_property
    def _tables(self) -> list[torch.Tensor]:
        """By tokens left, (S, H, V): P(say the word | hidden state) · V after it."""
        chain = dynamic.chain_of(self.base)
        return [torch.as_tensor(t, device=self.device) for t in dynamic.twists(chain, self.automaton, self.max_tokens)]

    def encode(self, rendered: str, max_tokens: int) -> Sequence[int]:
        """See `Model.encode`; raises UsageError where p does not exist."""
        if max_tokens and self.max_tokens != max_tokens:
            raise UsageError(f"{self.name}: made for max_tokens={self.max_tokens}, asked for {max_tokens}")
        ids = self.base.model.encode(rendered, max_tokens)
        belief = self.base.model.belief(rendered)
        if not (belief @ self._tables[self.max_tokens][0].numpy()).sum() > 0:
            raise UsageError(f"prompt '{rendered}': nothing that the base says in {max_tokens} tokens has P > 0")
        return ids

    def start(self, rendered: Sequence[str], *, max_tokens: int) -> TwistedState:
        """See `Model.start`."""
        for prompt in set(rendered):
            self.encode(prompt, max_tokens)
        zeros = torch.zeros(len(rendered), dtype=torch.long, device=self.device)
        return TwistedState(self, self.base.begun(rendered, max_tokens=max_tokens), zeros, max_tokens)

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
            mass[rows] = _averaged(self.base.select(rows).state, table[state])
        lost = mass.sum(-1, keepdim=True) == 0
        return torch.where(lost, self.base.log_probs, mass.log()).log_softmax(-1)

    def extend(self, tokens: torch.Tensor) -> TwistedState:
        """See `State.extend`."""
        return TwistedState(self.model, self.base.extend(tokens), self.model._after[self.state, tokens], self.left - 1)

    def select(self, rows: torch.Tensor) -> TwistedState:
        """See `State.select`."""
        return replace(self, base=self.base.select(rows), state=self.state[rows])


def _averaged(state: State, values: torch.Tensor) -> torch.Tensor:
    """(R, V) the mean of values (H, V) over what each row's hidden state, or context, may be."""
    return state.belief @ values if isinstance(state, HiddenState) else values[state.contexts]


# --- laws as rules of the walk


def quasi_rejected(masses: Array, target: Array, beta: float) -> tuple[Array, Array]:
    """Law (…, K) and acceptance rate (…,) of quasi-rejection: keep a draw x of q with min(1, P(x) / (β q(x))).

    `masses` (…, K) are q, normalised; `target` P, need not be. π ∝ min(q, P/β), AR its sum (Eikema et al. 2022).
    """
    kept = np.minimum(masses, np.asarray(target, float) / beta)
    rate = kept.sum(axis=-1)
    return kept / rate[..., None], rate


def warping(warp: Warp) -> Rule:
    """The base under other decoding settings."""
    return lambda live, says, left: warp(torch.as_tensor(says).log()).exp().numpy()


def masking(keeps: Automaton, lookahead: int | None = None) -> Rule:
    """The locally constrained decoder; see `constrained`. `keeps` must be the automaton that is walked."""
    live_from = None if lookahead is None else keeps.within(lookahead)

    def rule(live: Prefixes, says: Array, left: int) -> Array:
        alive = keeps.live() if live_from is None else live_from[left - 1]
        allowed = alive[keeps.after]
        allowed[:, sorted(keeps.vocab.eos)] = keeps.finished[:, None] > 0
        kept = says * allowed[live.state]
        total = kept.sum(1, keepdims=True)
        return np.where(total > 0, kept / np.where(total > 0, total, 1), says)

    return rule


def twisting(law: Law, log_ratio: Automaton, max_tokens: int) -> Rule:
    """The exact sampler of p; see `twisted`. `log_ratio` has the states of the automaton that is walked."""
    tables = dynamic.twists(dynamic.chain_of(law), log_ratio, max_tokens)

    def rule(live: Prefixes, says: Array, left: int) -> Array:
        mass = np.einsum("rh,rhv->rv", live.belief, tables[left][live.state])
        total = mass.sum(1, keepdims=True)
        return np.where(total > 0, mass / np.where(total > 0, total, 1), says)

    return rule
