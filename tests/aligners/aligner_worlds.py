"""A world of three words whose every continuation is listed, and a target with a hard and a soft constraint on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from alignbench.generators.exact.world import enumerate_draws, exact
from alignbench.generators.law import Law
from alignbench.target import Constraint, Target
from alignbench.types import Array, Draws

PROMPTS = ("sun", "rain wind")
LENGTH = 3


def has(word: str) -> Callable[..., Array]:
    """1 where the text has the word."""
    return lambda prompts, draws: np.array([float(word in text.split()) for text in draws.texts])


def count(word: str) -> Callable[..., Array]:
    """How often the text has the word: 0 to 3."""
    return lambda prompts, draws: np.array([float(text.split().count(word)) for text in draws.texts])


@dataclass(frozen=True)
class World:
    """A base, a target on it, and every continuation with its probability."""

    base: Law
    target: Target
    all: Draws
    ratio: Array  # log P − log a of each continuation

    def law(self, prompt: int, log_weight: Array | None = None) -> dict[str, float]:
        """Text and ending → probability of each continuation of a prompt under a(x) · exp(log_weight), normalised."""
        rows = self.all.prompt == prompt
        mass = np.exp(self.all.log_prob[rows] + (0 if log_weight is None else log_weight[rows]))
        return dict(zip(keys(self.all.take(rows)), mass / mass.sum(), strict=True))

    @property
    def p(self) -> list[dict[str, float]]:
        """The target, prompt by prompt."""
        return [self.law(c, self.ratio) for c in range(len(PROMPTS))]


def keys(draws: Draws) -> list[tuple[int, ...]]:
    """What was drawn, as something to count."""
    return [tuple(row[row >= 0]) for row in draws.tokens]


def make_world(*constraints: Constraint, **ranges: tuple[float, float]) -> World:
    """The world with a target of these constraints."""
    base = exact(words="sun rain wind", seed=10, batch_size=512)
    measures = {"sun": has("sun"), "winds": count("wind")}
    given = {"sun": (0.0, 1.0), "winds": (0.0, 3.0)} | ranges
    target = Target(constraints, {}, given, measures=measures).fitted(
        {}, np.zeros(0, int), {}, np.zeros(0, int), PROMPTS
    )
    everything = enumerate_draws(base, PROMPTS, max_tokens=LENGTH)
    features = target.measure(PROMPTS, everything)
    return World(base, target, everything, target.log_ratio(features, everything.prompt))


def within(draws: Draws, laws: list[dict], errors: float = 4.0) -> bool:
    """Whether the frequency of every continuation is within `errors` standard errors of its probability."""
    for prompt, law in enumerate(laws):
        drawn = keys(draws.take(draws.prompt == prompt))
        n = len(drawn)
        if not set(drawn) <= {k for k, v in law.items() if v > 0}:
            return False
        for key, truth in law.items():
            if abs(drawn.count(key) - n * truth) > errors * np.sqrt(n * truth * (1 - truth)) + errors:
                return False
    return True


def best(world: World, n: int) -> list[dict]:
    """The law of best-of-n, from the order statistics of the ratio r: P(max ≤ r) = F(r)^n, ties shared by mass."""
    laws = []
    for prompt in range(len(PROMPTS)):
        rows = world.all.prompt == prompt
        a, r = np.exp(world.all.log_prob[rows]), world.ratio[rows]
        below = np.array([a[r < x].sum() for x in r])
        upto = np.array([a[np.isclose(r, x, atol=1e-9) | (r < x)].sum() for x in r])
        share = (upto**n - below**n) / (upto - below)
        laws.append(dict(zip(keys(world.all.take(rows)), a * share, strict=True)))
        assert np.isclose(sum(laws[-1].values()), 1)
    return laws
