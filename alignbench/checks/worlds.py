"""Random worlds that can be listed: each is a function of its number, so that one of them can be run again alone.

The numbers take turns through the kinds of target and the sizes, so that all are equally frequent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from alignbench.features import bind
from alignbench.generators.exact import NGram, enumerate_draws
from alignbench.generators.exact.hidden import HiddenMarkov
from alignbench.generators.law import Law
from alignbench.spec import Spec
from alignbench.target import Constraint, Target
from alignbench.task import Task
from alignbench.types import Array

SIZES: Mapping[str, tuple[int, int]] = {"small": (32, 96), "medium": (97, 320), "large": (321, 1024)}
"""Draws a prompt, by size; log-uniform between the two."""
MOST_ROWS = 1100
"""Draws of all prompts together: with 1,024 draws a prompt there is but one prompt."""
TRIED = 1600
"""Proposals of all rows of a law that rejects or picks, about: worlds whose Z is 0.001 would take minutes."""
WORDS = ("sun", "rain", "wind", "snow")
KEY = WORDS[0]
"""The word that targets ask for; its probability is what makes Z small."""
Rng = np.random.Generator


@dataclass(frozen=True)
class World:
    """A task on a base of its own, another model beside it, and the aligners that are tried on it."""

    number: int
    kind: str
    size: str
    task: Task
    base: Law
    model: Law
    laws: tuple[tuple[str, Spec], ...]  # (what kind of law, aligner)

    def __str__(self) -> str:
        task, base = self.task, "hidden Markov" if isinstance(self.base.model, HiddenMarkov) else "n-gram"
        asked = ", ".join(f"{c.kind} {task.features[c.feature].name}" for c in task.target.constraints)
        return (
            f"world {self.number}, {self.kind}, {self.size}: {task.draws} draws for each of {len(task.prompts)} "
            f"prompts, at most {task.max_tokens} tokens, {base} base; {asked}"
        )


@dataclass(frozen=True)
class TargetSpec:
    """What a kind of target asks: features, constraints, and the draws that join the base's."""

    features: Mapping[str, Mapping[str, Any]]
    asks: tuple[Constraint, ...]
    proposals: tuple[Spec, ...] = ()


@dataclass(frozen=True)
class Basis:
    """A base, its prompts and how far it goes on."""

    base: Law
    prompts: tuple[str, ...]
    max_tokens: int

    def mean(self, feature: Mapping[str, Any]) -> float:
        """E_a of a feature, mean over prompts, by listing every continuation."""
        every = enumerate_draws(self.base, self.prompts, max_tokens=self.max_tokens)
        assert every.log_prob is not None
        return float(np.exp(every.log_prob) @ bind(feature)(self.prompts, every)) / len(self.prompts)


def world(number: int) -> World:
    """The world of that number: its kind of target, size, base, target, model and aligners."""
    kind, rng = kind_of(number), np.random.default_rng(number)
    size = list(SIZES)[number // len(KINDS) % len(SIZES)]
    rare, deep, spec_of = KINDS[kind]
    draws = _between(rng, *SIZES[size])
    prompts, asked = int(rng.integers(1, min(4 if deep else 8, MOST_ROWS // draws) + 1)), None
    while asked is None:
        basis = _basis(rng, prompts, rare, deep)
        asked = spec_of(rng, basis)
    features = {name: bind(spec, name) for name, spec in asked.features.items()}
    categories = {name: f.categories for name, f in features.items() if f.categories}
    ranges = {name: f.range for name, f in features.items() if not f.categories}
    task = Task(
        name=f"fuzz_{number}", version=1, summary=kind, prompts=basis.prompts, max_tokens=basis.max_tokens,
        draws=draws, features=features, target=Target(asked.asks, categories, ranges), proposals=asked.proposals,
    )  # fmt: skip
    return World(number, kind, size, task, basis.base, _beside(rng, basis.base), _laws(rng, task))


def kind_of(number: int) -> str:
    """The kind of target of the world of that number."""
    return list(KINDS)[number % len(KINDS)]


def _between(rng: Rng, low: int, high: int) -> int:
    """A whole number, log-uniform."""
    return round(float(np.exp(rng.uniform(np.log(low), np.log(high)))))


# --- bases ------------------------------------------------------------------------------------------------------------


def _basis(rng: Rng, prompts: int, rare: tuple[float, float, float], deep: bool) -> Basis:
    """An n-gram or a hidden Markov model of 2 to 4 words, with at most some 1,000 continuations a prompt.

    `rare`: decades by which the key word is rarer than others, from and to, and by how many more at most by context.
    """
    words = WORDS[: int(rng.integers(2, 4 if deep else 5))]
    most = ({2: 8, 3: 5} if deep else {2: 6, 3: 4, 4: 3})[len(words)]
    low, spread = rng.uniform(*rare[:2]), rng.uniform(0, rare[2])
    make = _hidden if rng.random() < (0.8 if deep else 0.5) else _ngram
    return Basis(make(rng, words, low, spread), _prompts(rng, words, prompts), most - int(rng.integers(0, 2)))


def _prompts(rng: Rng, words: Sequence[str], count: int) -> tuple[str, ...]:
    """Distinct texts of one to four words."""
    found: dict[str, None] = {}
    while len(found) < count:
        found[" ".join(rng.choice(words, int(rng.integers(1, 5))))] = None
    return tuple(found)


def _rows(rng: Rng, count: int, size: int, decades: Array) -> Array:
    """(count, size) probabilities ~ Dirichlet, the first so many decades rarer."""
    table = rng.dirichlet(np.full(size, rng.choice([0.3, 1.0, 3.0])), count) + 1e-3
    table[:, 0] *= 10.0**-decades
    return np.asarray(table / table.sum(1, keepdims=True))


def _ngram(rng: Rng, words: tuple[str, ...], low: float, spread: float) -> Law:
    """Of order 2 to 4; how rare the key word is depends on the context's first word, which a long context remembers."""
    order, size = int(rng.integers(2, 5)), len(words) + 1
    contexts = (size + 1) ** (order - 1)
    decades = low + spread * rng.random(size + 1)[np.arange(contexts) // (size + 1) ** (order - 2)]
    return Law(NGram(words, np.log(_rows(rng, contexts, size, decades)), order))


def _hidden(rng: Rng, words: tuple[str, ...], low: float, spread: float) -> Law:
    """2 to 4 hidden states that last: the prompt tells which it is, and so how rare the key word is to be."""
    states = int(rng.integers(2, 5))
    leaves = 10.0 ** -rng.uniform(0.5, 4)
    moves = (1 - leaves) * np.eye(states) + leaves * rng.dirichlet(np.ones(states), states)
    decades = low + spread * rng.permutation(np.linspace(0, 1, states))
    first = rng.dirichlet(np.ones(states))
    return Law(HiddenMarkov(words, first, moves, _rows(rng, states, len(words) + 1, decades)))


def _beside(rng: Rng, base: Law) -> Law:
    """A model of one's own: the base with noise of 0.2 to 1.5 nats on every entry of its table."""
    noise, model = rng.uniform(0.2, 1.5), base.model
    if isinstance(model, NGram):
        table = model.table + noise * rng.standard_normal(model.table.shape)
        return Law(NGram(model.words, table - np.logaddexp.reduce(table, 1, keepdims=True), model.order))
    assert isinstance(model, HiddenMarkov)
    says = model.says * np.exp(noise * rng.standard_normal(model.says.shape))
    return Law(HiddenMarkov(model.words, model.first, model.moves, says / says.sum(1, keepdims=True)))


# --- targets ----------------------------------------------------------------------------------------------------------

_HAS: Mapping[str, Any] = {"feature": "contains_any", "words": [KEY]}
_COUNT: Mapping[str, Any] = {"feature": "count", "words": [KEY]}
_SHARE: Mapping[str, Any] = {"feature": "word_share", "words": [KEY]}
_LENGTH: Mapping[str, Any] = {"feature": "length_tokens"}
_HARD = Constraint("has", "always")


def _hard(rng: Rng, basis: Basis) -> TargetSpec:
    return TargetSpec({"has": {**_HAS, "negate": bool(rng.random() < 0.2)}}, (_HARD,))


def _rare(rng: Rng, basis: Basis) -> TargetSpec:
    return TargetSpec({"has": _HAS}, (_HARD,))


def _shares(rng: Rng, basis: Basis) -> TargetSpec:
    """Which word comes first, key word or another, in shares of 0.2 to 0.8."""
    share = float(rng.uniform(0.2, 0.8))
    first = {"feature": "first_of", "groups": {"one": [KEY], "two": [WORDS[1]]}}
    per = "prompt" if rng.random() < 0.3 else "task"
    wanted = {"one": share, "two": 1 - share}
    return TargetSpec({"first": first}, (Constraint("first", "distribution", wanted, per=per),))  # type: ignore[arg-type]


def _moment(rng: Rng, basis: Basis) -> TargetSpec:
    """The key word's presence, its number or the length, moved from what the base has."""
    feature = (_HAS, _COUNT, _LENGTH)[int(rng.integers(3))]
    base = basis.mean(feature)
    if feature is _HAS:
        odds = base / (1 - base) * float(np.exp(rng.uniform(-1.5, 1.5)))
        wanted = odds / (1 + odds)
    else:
        least = 0 if feature is _COUNT else 1  # token
        wanted = least + (base - least) * float(rng.uniform(0.6, 1.4))
    return TargetSpec({"f": feature}, (Constraint("f", "moment", wanted),))


def _mild(rng: Rng, basis: Basis) -> TargetSpec:
    feature = (_HAS, _COUNT, _SHARE)[int(rng.integers(3))]
    return TargetSpec({"f": feature}, (_reward("f", rng, 0.7, 3),))


def _steep(rng: Rng, basis: Basis) -> TargetSpec | None:
    """A number without a bound, each of which is worth 2 to 3.5 nats; None where the base is not about as reluctant.

    One more is worth 0.25 to 0.6 times what it is rare: p's mass falls slowly, into classes that no draw is in.
    """
    nats = float(np.log(rng.uniform(0.25, 0.6) / basis.mean(_COUNT)))
    return TargetSpec({"f": _COUNT}, (Constraint("f", "reward", beta=1 / nats),)) if 2 < nats < 3.5 else None


def _both(rng: Rng, basis: Basis) -> TargetSpec:
    """A hard constraint, and a reward or a moment of another word."""
    other = {"feature": "count", "words": [WORDS[1]]}
    if rng.random() < 0.5:
        return TargetSpec({"has": _HAS, "f": other}, (_HARD, _reward("f", rng, 0.5, 3)))
    held = {"feature": "contains_any", "words": [WORDS[1]]}
    return TargetSpec({"has": _HAS, "f": held}, (_HARD, Constraint("f", "moment", float(rng.uniform(0.2, 0.8)))))


def _mixture(rng: Rng, basis: Basis) -> TargetSpec | None:
    """A hard constraint of Z = 0.001 to 0.02, or as often a steep reward, with proposals that reach some of it."""
    asked = _steep(rng, basis) if rng.random() < 0.5 else None
    if asked is None and not 0.001 < basis.mean(_HAS) < 0.02:
        return None
    asked = asked or _rare(rng, basis)
    laws = [_proposal(rng, basis) for _ in range(int(rng.integers(1, 3)))]
    return TargetSpec(asked.features, asked.asks, tuple({spec.label: spec for spec in laws}.values()))


def _proposal(rng: Rng, basis: Basis) -> Spec:
    """The base at a higher temperature; after the key word; or a stranger, who says it where the base does not."""
    kind, words = int(rng.integers(5)), basis.base.vocab.tokens[:-1]
    if kind == 0:
        return Spec("temperature", {"t": round(float(rng.uniform(1.2, 3)), 2)})
    if kind == 1:
        return Spec("prompt", {"text": "{prompt} " + KEY})
    given = {"words": " ".join(words), "order": 2, "seed": int(rng.integers(1000)), "concentration": 0.3}
    return Spec("exact", given)


def _reward(feature: str, rng: Rng, low: float, high: float) -> Constraint:
    return Constraint(feature, "reward", beta=float(np.exp(rng.uniform(np.log(low), np.log(high)))))


MakeTarget = Callable[[Rng, Basis], TargetSpec | None]
KINDS: Mapping[str, tuple[tuple[float, float, float], bool, MakeTarget]] = {
    "hard": ((-0.3, 0.5, 1.0), False, _hard),
    "rare": ((0.3, 1.7, 3.0), False, _rare),
    "shares": ((-0.3, 0.5, 1.0), False, _shares),
    "moment": ((-0.3, 0.5, 1.0), False, _moment),
    "mild": ((-0.3, 0.7, 1.0), False, _mild),
    "steep": ((0.8, 1.7, 0.4), True, _steep),
    "tilted": ((-0.3, 0.5, 1.0), False, _both),
    "mixture": ((1.2, 2.0, 1.0), True, _mixture),
}
"""Kind of target → how rare its word is, whether continuations are long, and what it asks."""


# --- laws -------------------------------------------------------------------------------------------------------------


def _laws(rng: Rng, task: Task) -> tuple[tuple[str, Spec], ...]:
    """Two of the aligners that are there, each of another kind."""
    rows = task.draws * len(task.prompts)
    unbounded = any(c.kind == "reward" and task.features[c.feature].name == "count" for c in task.target.constraints)
    soft = all(c.kind != "always" for c in task.target.constraints)
    refused = {"rejection": unbounded, "filtered of q": soft}
    names = [name for name in LAWS if not refused.get(name)]
    return tuple((str(name), LAWS[name](rng, rows)) for name in rng.choice(names, 2, replace=False))


def _some(rng: Rng, rows: int, most: int) -> int:
    """A small n, so that n times the rows stay within `TRIED`."""
    return int(rng.integers(2, max(3, min(most, TRIED // rows) + 1)))


def _truncation(rng: Rng, rows: int) -> Spec:
    return [Spec("top_k", {"k": 2}), Spec("top_p", {"p": round(float(rng.uniform(0.5, 0.95)), 2)}),
            Spec("min_p", {"p": 0.2})][int(rng.integers(3))]  # fmt: skip


def _hot(rng: Rng) -> str:
    return f"temperature:t={rng.uniform(0.6, 2):.2f}"


def _cap(rows: int) -> int:
    return int(np.clip(TRIED // rows, 8, 256))


def _quasi(rng: Rng, rows: int, **more: Any) -> Spec:
    beta = round(float(np.exp(rng.uniform(-1, 2))), 2)
    spec_of: Mapping[str, Any] = ({"beta": beta}, {"acceptance": 0.3}, {"tv": 0.1})[int(rng.integers(3))]
    return Spec("quasi_rejection", {**spec_of, "pilot": 32, "cap": _cap(rows), **more})


LAWS: Mapping[str, Callable[[Rng, int], Spec]] = {
    "model": lambda rng, rows: Spec("model"),
    "temperature": lambda rng, rows: Spec("temperature", {"t": round(float(rng.uniform(0.5, 2)), 2)}),
    "truncation": _truncation,
    "best_of_n": lambda rng, rows: Spec("best_of_n", {"n": _some(rng, rows, 8)}),
    "best_of_n by rank": lambda rng, rows: Spec("best_of_n", {"n": _some(rng, rows, 8), "rank": "likelihood"}),
    "rejection": lambda rng, rows: Spec("rejection", {"cap": _cap(rows)}),
    "quasi_rejection": _quasi,
    "quasi_rejection of q": lambda rng, rows: _quasi(rng, rows, proposal=_hot(rng)),
    "sir": lambda rng, rows: Spec("sir", {"n": _some(rng, rows, 8)}),
    "filtered of q": lambda rng, rows: Spec("filtered", {"cap": _cap(rows), "proposal": _hot(rng)}),
    "sir of q": lambda rng, rows: Spec("sir", {"n": _some(rng, rows, 8), "proposal": _hot(rng)}),
}
"""Kind of law → an aligner of it for so many rows; "model" is the world's own."""
REJECTING = ("rejection", "quasi_rejection", "quasi_rejection of q", "filtered of q")
"""Kinds of law that have an acceptance rate."""
