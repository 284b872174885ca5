"""Sums over all continuations by dynamic programming: a world's exact numbers without listing its draws.

numpy alone, and nothing of the sampling code, so that a sum here and a sum over `enumerate_draws` check one another.
A law is summed state by state where its model has finitely many hidden states: contexts of an n-gram model (under any
decoding settings but a repetition penalty), hidden states of a hidden Markov model (decoded plainly).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from alignbench.errors import UsageError
from alignbench.generators.described import described
from alignbench.generators.exact.automaton import Automaton
from alignbench.generators.law import Law
from alignbench.generators.warp import Warp
from alignbench.types import Array

SAME = 11
"""Decimals to which two prefixes' beliefs and log-ratios agree before they are summed as one."""


@runtime_checkable
class Summable(Protocol):
    """A model with finitely many hidden states."""

    def steps(self, warp: Warp) -> Array:
        """(H, V, H) P(say the word, then be in the second state | the first)."""
        ...

    def belief(self, rendered: str) -> Array:
        """(H,) P(state | prompt)."""
        ...


@dataclass(frozen=True, eq=False)
class Chain:
    """A law as numbers: `steps` (H, V, H), and which tokens end a draw (V,)."""

    law: Law
    model: Summable
    steps: Array
    ends: Array

    @property
    def says(self) -> Array:
        """(H, V) P(word | hidden state)."""
        return np.asarray(self.steps.sum(2))

    def belief(self, prompt: str) -> Array:
        """(H,) P(hidden state | prompt)."""
        return np.asarray(self.model.belief(self.law.render(prompt)))


def chain_of(law: Law) -> Chain:
    """The law as numbers; raises UsageError where its model has no finitely many hidden states."""
    if not isinstance(law, Law) or not isinstance(law.model, Summable):
        raise UsageError(f"{described(law).name or law}: only n-gram and hidden Markov models can be summed")
    return Chain(law, law.model, law.model.steps(law.warp), np.isin(np.arange(len(law.vocab)), list(law.vocab.eos)))


def twists(chain: Chain, log_ratio: Automaton, max_tokens: int) -> list[Array]:
    """By tokens left (0 … max_tokens), (S, H, V): P(say the word | H) · E[exp(log_ratio) | what was said, the word].

    The mean is over what the chain may still say. The first, with none left, is a single column: exp(log_ratio) of a
    draw cut there. Sums over V are the value V(state, hidden state) of the backward recursion (Bellman).
    """
    ended = np.exp(log_ratio.finished)[:, None, None] * chain.says * chain.ends
    found = [np.repeat(np.exp(log_ratio.cut)[:, None, None], len(chain.steps), axis=1)]
    for _ in range(max_tokens):
        value = found[-1].sum(2)  # (S, H)
        ahead = np.einsum("hvk,svk->shv", chain.steps, value[log_ratio.after], optimize=True)
        found.append(ended + ahead * ~chain.ends)
    return found


def log_z(law: Law, log_ratio: Automaton, prompts: Sequence[str], *, max_tokens: int) -> Array:
    """(C,) log Z in nats, Z = Σ_x a(x) exp(log_ratio(x)), by the backward recursion; −inf where p does not exist."""
    chain = chain_of(law)
    value = twists(chain, log_ratio, max_tokens)[-1][0].sum(1)
    with np.errstate(divide="ignore"):
        return np.asarray(np.log([chain.belief(prompt) @ value for prompt in prompts]))


def final_masses(law: Law, automaton: Automaton, prompts: Sequence[str], *, max_tokens: int) -> Array:
    """(C, 2S) probabilities under the law that a draw finished in each state, and that it was cut there.

    They belong to `automaton.values`, and are all that p, its moments and any law a · w(log_ratio) depend on.
    """
    chain = chain_of(law)
    words = chain.steps * ~chain.ends[:, None]
    goes = np.eye(len(automaton.after))[automaton.after]  # (S, V, S)
    live = np.zeros((len(prompts), len(chain.steps), len(automaton.after)))
    live[:, :, 0] = [chain.belief(prompt) for prompt in prompts]
    finished = np.zeros(live.shape[::2])
    for _ in range(max_tokens):
        finished += np.einsum("chs,hv->cs", live, chain.says * chain.ends)
        live = np.einsum("chs,hvk,svu->cku", live, words, goes, optimize=True)
    return np.concatenate([finished, live.sum(1)], axis=1)


def mean(
    law: Law, log_ratio: Automaton | None, feature: Automaton, prompts: Sequence[str], *, max_tokens: int
) -> Array:
    """(C,) E_p[feature], p ∝ a · exp(log_ratio); without a log-ratio E_a[feature]."""
    if log_ratio is None:
        return np.asarray(final_masses(law, feature, prompts, max_tokens=max_tokens) @ feature.values)
    weighed = log_ratio.joined(feature, lambda r, f: np.exp(r) * f)
    total = final_masses(law, weighed, prompts, max_tokens=max_tokens) @ weighed.values
    return np.asarray(total / np.exp(log_z(law, log_ratio, prompts, max_tokens=max_tokens)))


# --- laws that are no function of the log-ratio alone: walk prefixes, summing those that are alike


@dataclass(frozen=True, eq=False)
class Prefixes:
    """Kinds of prefixes: those of one kind have one belief, one automaton state and, law by law, one log π/a."""

    mass: Array  # (R,) under the base
    belief: Array  # (R, H)
    state: Array  # (R,)
    log_ratio: Array  # (R, laws) nats


Rule = Callable[[Prefixes, Array, int], Array]
"""Next-token probabilities (R, V) of a law: what it makes of the base's (R, V) with so many tokens left."""


@dataclass(frozen=True, eq=False)
class Kinds:
    """Kinds of draws of one prompt; sums over kinds are sums over draws, divergences between the laws too."""

    masses: Array  # (1 + laws, K) probabilities under the base, then under each law
    value: Array  # (K,) the automaton's value


def kinds(law: Law, automaton: Automaton, rules: Sequence[Rule], prompt: str, *, max_tokens: int) -> Kinds:
    """All draws of the base `law`, grouped by the automaton's value and by log π/a of each law that `rules` make of it.

    Prefixes of one belief, one state and equal ratios are summed as one. n-gram worlds stay small that way (aⁿb: linear
    in max_tokens); beliefs of a hidden Markov model hardly ever meet, so that it costs what listing costs.
    """
    chain = chain_of(law)
    live = Prefixes(np.ones(1), chain.belief(prompt)[None], np.zeros(1, dtype=int), np.zeros((1, len(rules))))
    done: list[tuple[Array, Array, Array]] = []
    for left in range(max_tokens, 0, -1):
        ended, live = _step(chain, automaton, rules, live, left)
        done.append((ended.mass, ended.log_ratio, automaton.finished[ended.state]))
    done.append((live.mass, live.log_ratio, automaton.cut[live.state]))
    mass, log_ratio, value = (np.concatenate(parts) for parts in zip(*done, strict=True))
    return Kinds(np.concatenate([mass[None], mass * np.exp(log_ratio).T]), value)


def _step(
    chain: Chain, automaton: Automaton, rules: Sequence[Rule], live: Prefixes, left: int
) -> tuple[Prefixes, Prefixes]:
    """What ended with one more token, and what lives on, its alike prefixes summed."""
    says = live.belief @ chain.says
    with np.errstate(divide="ignore"):
        ratios = [np.log(rule(live, says, left)) - np.log(np.where(says > 0, says, 1)) for rule in rules]
    row, word = np.nonzero(says > 0)
    more = [live.log_ratio[row, k] + ratio[row, word] for k, ratio in enumerate(ratios)]
    log_ratio = np.stack(more, axis=1) if more else np.zeros((len(row), 0))
    mass, ends = live.mass[row] * says[row, word], chain.ends[word]
    joint = np.einsum("rh,rhk->rk", live.belief[row], chain.steps[:, word].swapaxes(0, 1))
    belief = joint / joint.sum(1, keepdims=True)
    ended = Prefixes(mass[ends], belief[ends], live.state[row[ends]], log_ratio[ends])
    words = ~ends
    state = automaton.after[live.state[row[words]], word[words]]
    return ended, _merged(Prefixes(mass[words], belief[words], state, log_ratio[words]))


def _merged(live: Prefixes) -> Prefixes:
    """Prefixes that agree to `SAME` decimals, as one."""
    keys = np.concatenate([live.belief, live.state[:, None], live.log_ratio], axis=1).round(SAME) + 0.0
    _, first, which = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    mass = np.bincount(which.ravel(), weights=live.mass, minlength=len(first))
    return Prefixes(mass, live.belief[first], live.state[first], live.log_ratio[first])
