"""Worlds made for a purpose, whose numbers are known in closed form: what estimators must find.

A world is a base, a constraint as an automaton, prompts and a length; sums over it are in `dynamic`, decoders in
`exact_decoders`, its target for the harness in `World.target`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, log

import numpy as np
from exact_decoders import constrained, twisted
from exact_patterns import contains_any, matches

from alignbench.errors import UsageError
from alignbench.generators.exact import dynamic
from alignbench.generators.exact.automaton import Automaton
from alignbench.generators.exact.words import vocab_of
from alignbench.generators.exact.world import NGram, exact
from alignbench.generators.law import Law
from alignbench.target import Constraint, Target
from alignbench.types import Array


@dataclass(frozen=True, eq=False)
class World:
    """A base, the draws that p keeps, prompts and a length."""

    base: Law
    keeps: Automaton
    prompts: tuple[str, ...]
    max_tokens: int

    @property
    def target(self) -> Target:
        """The target p ∝ a · b, b the automaton, as a feature called "kept"."""
        asked = (Constraint("kept", "always"),)
        return Target(asked, ranges={"kept": (0.0, 1.0)}, measures={"kept": self.keeps})

    @property
    def log_z(self) -> Array:
        """(C,) log Z in nats, by dynamic programming."""
        return dynamic.log_z(self.base, self.keeps.log(), self.prompts, max_tokens=self.max_tokens)

    @property
    def ideal(self) -> Law:
        """The exact sampler of p."""
        return twisted(self.base, self.keeps.log(), max_tokens=self.max_tokens)

    def constrained(self, *, lookahead: bool) -> Law:
        """The locally constrained decoder, with or without a look at the tokens left."""
        return constrained(self.base, self.keeps, lookahead=self.max_tokens if lookahead else None)


def from_table(words: Sequence[str], rows: Mapping[str, Mapping[str, float]]) -> Law:
    """An order-2 world from {last word: {next word: probability}}; what is missing of 1 is EOS.

    Contexts that are not named, among them the empty prompt's, say nothing more.
    """
    size = len(words) + 1
    table = np.zeros((size + 1, size))
    table[:, -1] = 1.0
    for last, after in rows.items():
        row = np.array([after.get(word, 0.0) for word in words])
        if (row < 0).any() or row.sum() > 1 + 1e-12:
            raise UsageError(f"exact: the row of '{last}' has no probabilities that sum to 1 or less")
        table[words.index(last)] = [*row, max(0.0, 1 - row.sum())]
    with np.errstate(divide="ignore"):
        nats = np.log(table)
    return Law(NGram(tuple(words), nats - np.logaddexp.reduce(nats, 1, keepdims=True), 2))


def grammar(*, a: float = 0.1, b: float = 0.1, end: float = 0.1, max_tokens: int = 6) -> World:
    """Draws of independent tokens: P(a) = a, P(b) = b, P(EOS) = end, P(c) the rest; kept are aⁿb EOS, n >= 0.

    A draw cut at max_tokens is not kept. `grammar_truth` has the numbers for max_tokens → ∞.
    """
    rest = 1 - a - b - end
    if min(a, b, end, rest) <= 0:
        raise UsageError(f"grammar: P(a)={a}, P(b)={b}, P(EOS)={end} must be above 0 and sum to less than 1")
    table = np.log([[a, b, rest, end]])
    words = ("a", "b", "c")
    return World(Law(NGram(words, table, 1)), matches(vocab_of(words), "a* b"), ("",), max_tokens)


def grammar_truth(*, a: float = 0.1, b: float = 0.1, end: float = 0.1) -> Mapping[str, float]:
    """log_z, KL(p‖π), KL(π‖p) in nats and TV(p, π) of the unbounded `grammar`, π its locally constrained decoder.

    With s = a + b:  P(aⁿb EOS) = aⁿ b end, so Z = b end / (1 − a) and p(n) = (1 − a) aⁿ. Before b the decoder
    renormalises over {a, b}, after b over {EOS}: π(n) = (b / s) (a / s)ⁿ. Hence log p/π = log((1 − a) s / b) + n log s,
    with E_p n = a / (1 − a) and E_π n = a / b. The ratio falls in n, so that p > π for n < k alone, k the first n where
    log p/π <= 0, and TV = Σ_{n<k} p − π = (a / s)^k − a^k. For a = b = 0.1: log 1.8 + log(0.2) / 9 = 0.408960,
    log 5 − log 1.8 = 1.021651, and 0.5 − 0.1 = 0.4.
    """
    s = a + b
    level, slope = log((1 - a) * s / b), log(s)
    k = ceil(-level / slope)
    return {
        "log_z": log(b * end / (1 - a)),
        "kl_target": level + slope * a / (1 - a),
        "kl_reverse": -level - slope * a / b,
        "tv": (a / s) ** k - a**k,
    }


def two_rates(*, low: float = 0.02, high: float = 0.2) -> World:
    """Two prompts, "calm" and "dark", after which the word "storm" follows with probability `low` and `high`.

    Otherwise "rain" follows; then EOS or "rain". So Z = low and high; one λ that makes storms as frequent as not, on
    average over the two prompts, solves Σ_c sigmoid(logit rate_c + λ) = 1: 2.639057 for 0.02 and 0.2.
    """
    words = ("calm", "dark", "storm", "rain")
    after = {"calm": {"storm": low, "rain": 1 - low}, "dark": {"storm": high, "rain": 1 - high}}
    later = {"storm": {"rain": 0.5}, "rain": {"rain": 0.5}}
    return World(from_table(words, after | later), contains_any(vocab_of(words), ["storm"]), ("calm", "dark"), 4)


def hard(*, order: int = 2, hidden: int = 0, seed: int = 0, max_tokens: int = 5) -> World:
    """A random world over three words in which draws that say "sun rain" or "wind wind" are kept."""
    base = exact(words=("sun", "rain", "wind"), order=order, hidden=hidden, seed=seed)
    return World(base, contains_any(base.vocab, ["sun rain", "wind wind"]), ("sun", "rain wind"), max_tokens)
