"""The laws that generators keep, as checks that a plug-in's author can run: `check(generator, prompts, max_tokens=5)`.

Each law is a function that raises `LawBroken` with what was found; those that need more than a generator can do
(a density, next-token states) are left out and not in the list that `check` returns. How far apart two outcomes are is
measured by `gap`, `differing` and `goes_on`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch

from alignbench.generators.base import Autoregressive, Batched
from alignbench.generators.described import described, stands_on
from alignbench.generators.exact.world import enumerate_draws
from alignbench.seeds import Seed
from alignbench.types import Array, Distribution, Draws, Sampler, collect, rows_of

TOLERANCE = 1e-4
"""Nats: how far fp32 log-probabilities of one draw may differ between a batch of 1 and of 64, padded or not."""

MANY = 2000
"""Draws of each prompt whose frequencies are compared with probabilities, and rows of one batch of them."""


class LawBroken(AssertionError):
    """A generator does not do what its kind promises."""


@dataclass(frozen=True)
class Case:
    """A generator and what it is asked for."""

    generator: Sampler
    prompts: Sequence[str]
    max_tokens: int
    draws: int = 16
    seed: Seed = field(default_factory=lambda: Seed(20))

    def sample(self, rows: Array | None = None) -> Draws:
        """The draws at `rows` (default: all), in order of prompt and index."""
        rows = rows_of(len(self.prompts), self.draws) if rows is None else rows
        parts = self.generator.sample(self.prompts, rows, max_tokens=self.max_tokens, seed=self.seed)
        return collect(parts)

    @property
    def scored(self) -> Distribution:
        """The generator, where it has a density."""
        if not isinstance(self.generator, Distribution):
            raise LawBroken(f"{type(self.generator).__name__} is no Distribution: it has no method log_prob")
        return self.generator

    @property
    def walked(self) -> Autoregressive:
        """The generator, where it has states."""
        if not isinstance(self.generator, Autoregressive):
            raise LawBroken(
                f"{type(self.generator).__name__} is not Autoregressive: it has no vocab or no method start"
            )
        return self.generator

    @cached_property
    def every(self) -> Draws:
        """Every continuation of each prompt, with its probability."""
        return enumerate_draws(self.walked, self.prompts, max_tokens=self.max_tokens)


def delivers_the_rows(case: Case) -> None:
    """Each wanted row comes once; arrays have their shapes; a draw ends in its only EOS or is cut at max_tokens."""
    draws = case.sample()
    got = np.stack([draws.prompt, draws.index], axis=1)
    _require(np.array_equal(got, rows_of(len(case.prompts), case.draws)), "the rows wanted are not the rows delivered")
    _require(len(draws.texts) == len(draws.length) == len(draws.finished), "arrays of different lengths")
    if draws.tokens is None:
        return
    _require(np.array_equal((draws.tokens >= 0).sum(1), draws.length), "length is not the number of tokens")
    cut = draws.length[~draws.finished]
    _require(bool((cut == case.max_tokens).all()), "a draw without EOS is shorter than max_tokens")
    eos = described(case.generator).eos
    if eos is not None:
        _require(not goes_on(draws, eos).any(), "a draw goes on after an EOS")
        ended = (_is_in(draws, eos) & _is_last(draws)).any(axis=1)
        _require(np.array_equal(ended, draws.finished), "finished is not whether a draw ended in an EOS")


def draws_depend_on_their_row_alone(case: Case) -> None:
    """A draw is a function of (prompt, seed, index): any order, any subset, any other prompts, twice."""
    every = case.sample()
    rows = rows_of(len(case.prompts), case.draws)
    shuffled = np.random.default_rng(0).permutation(rows)
    for part in (shuffled, shuffled[: len(rows) // 3], rows[-1:]):
        again = case.sample(part)
        where = again.prompt * case.draws + again.index
        _same_draws(every.take(where), again, "asked in another order or company")


def batch_size_changes_nothing(case: Case) -> None:
    """Batches of 1, 7 and 64 rows give the same draws, and log-probabilities within the tolerance."""
    found = []
    for rows in (1, 7, 64):
        with _batch_size(case.generator, rows):
            found.append(case.sample())
    for other in found[1:]:
        _same_draws(found[0], other, "in another batch size")


def rescoring_is_sampling(case: Case) -> None:
    """log_prob of its own draws is what sampling said; and what the token log-probabilities sum to."""
    draws = case.sample()
    _close(case.scored.log_prob(case.prompts, draws), draws.log_prob, "log_prob and the sampling log-probability")
    if draws.token_log_prob is not None:
        _close(draws.token_log_prob.sum(1), draws.log_prob, "the sum over tokens and the sampling log-probability")


def probabilities_sum_to_one(case: Case) -> None:
    """Over all continuations of a prompt, EOS and cut ones included, probabilities sum to 1 and agree with log_prob."""
    every = case.every
    for number, prompt in enumerate(case.prompts):
        total = float(np.exp(nats(every)[every.prompt == number]).sum())
        _require(abs(total - 1) < TOLERANCE, f"probabilities of the continuations of '{prompt}' sum to {total:.6f}")
    _close(case.scored.log_prob(case.prompts, every), every.log_prob, "log_prob and a walk through the states")


def frequencies_are_probabilities(case: Case) -> None:
    """The share of each first token and of finished draws is its probability, within 5 standard errors."""
    many = Case(case.generator, case.prompts, case.max_tokens, MANY, case.seed)
    with _batch_size(case.generator, MANY):
        draws = many.sample()
    every = case.every
    for number in range(len(case.prompts)):
        mine, truth = draws.take(draws.prompt == number), every.take(every.prompt == number)
        for what, seen, event in _events(mine, truth):
            p = min(float(np.exp(nats(truth)[event]).sum()), 1.0)  # rounding: 1 + 1e-16
            off = abs(seen.mean() - p) / max(np.sqrt(p * (1 - p) / len(mine)), 1e-9)
            _require(off < 5 or abs(seen.mean() - p) < 1e-6, f"{what}: share {seen.mean():.4f}, probability {p:.4f}")


def states_stay_as_they_were(case: Case) -> None:
    """`extend` and `select` leave the state they came from usable, and gather with repeats."""
    start = case.walked.start(case.prompts, max_tokens=case.max_tokens)
    before = start.log_probs.clone()
    ids = before.argmax(-1)
    twice = start.select(torch.zeros(3, dtype=torch.long, device=before.device))
    first, second = start.extend(ids), start.extend(ids)
    _close(start.log_probs, before, "a state before and after it was extended")
    _close(first.log_probs, second.log_probs, "two extensions of one state")
    _close(twice.log_probs, before[[0, 0, 0]], "a state selected with repeats")
    _close(twice.extend(ids[[0, 0, 0]]).log_probs, first.log_probs[[0, 0, 0]], "extending what was selected")


LAWS: dict[Any, tuple[Callable[[Case], None], ...]] = {
    Sampler: (delivers_the_rows, draws_depend_on_their_row_alone, batch_size_changes_nothing),
    Distribution: (rescoring_is_sampling,),
    Autoregressive: (probabilities_sum_to_one, frequencies_are_probabilities, states_stay_as_they_were),
}
"""Capability → the laws that it adds."""


def check(generator: Sampler, prompts: Sequence[str], *, max_tokens: int = 5, draws: int = 16) -> list[str]:
    """Run every law that applies to `generator` and return their names; raises LawBroken at the first that fails.

    Laws of `Autoregressive` list all continuations: keep vocabulary and `max_tokens` small.
    """
    case = Case(generator, prompts, max_tokens, draws)
    laws = [law for kind, added in LAWS.items() if isinstance(generator, kind) for law in added]
    if not laws:
        raise LawBroken(f"{type(generator).__name__} is no Sampler: it has no method sample")
    for law in laws:
        try:
            law(case)
        except LawBroken as broken:
            raise LawBroken(f"{law.__name__}: {broken}") from None
    return [law.__name__ for law in laws]


def gap(left: Array, right: Array) -> float:
    """The largest |left − right|, such as nats; equal infinities differ by 0, no pairs by 0."""
    return float(_gaps(left, right).max(initial=0.0))


def differing(left: Draws, right: Draws) -> Array:
    """(B,) whether two draws of one row are other ids."""
    width = int(max(left.length.max(), right.length.max()))
    return np.asarray((_ids(left, width) != _ids(right, width)).any(axis=1))


def goes_on(draws: Draws, eos: Collection[int]) -> Array:
    """(B,) whether a draw goes on after an EOS id."""
    return np.asarray((_is_in(draws, eos) & ~_is_last(draws)).any(axis=1))


def nats(draws: Draws) -> Array:
    """(B,) the log-probabilities of draws that have them."""
    assert draws.log_prob is not None
    return draws.log_prob


def _tokens(draws: Draws) -> Array:
    assert draws.tokens is not None
    return draws.tokens


def _ids(draws: Draws, width: int) -> Array:
    """(B, width) ids, −1 after a draw's end."""
    tokens = _tokens(draws)[:, :width]
    tokens = np.pad(tokens, ((0, 0), (0, width - tokens.shape[1])), constant_values=-1)
    return np.where(np.arange(width) < draws.length[:, None], tokens, -1)


def _is_in(draws: Draws, ids: Collection[int]) -> Array:
    return np.isin(_tokens(draws), list(ids))


def _is_last(draws: Draws) -> Array:
    return np.asarray(np.arange(_tokens(draws).shape[1]) == draws.length[:, None] - 1)


def _gaps(left: Array, right: Array) -> Array:
    """|left − right| of each pair; 0 where equal, infinities too."""
    with np.errstate(invalid="ignore"):
        return np.where(left == right, 0.0, np.abs(left - right))


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise LawBroken(otherwise)


def _close(left: Any, right: Any, what: str) -> None:
    """Raise unless equal within the tolerance; −inf equals −inf."""
    a, b = (np.asarray(x.cpu() if isinstance(x, torch.Tensor) else x, dtype=float) for x in (left, right))
    apart = ~(_gaps(a, b) <= TOLERANCE)  # NaN is further off than any tolerance
    if apart.any():
        i = tuple(int(k) for k in np.argwhere(apart)[0])
        raise LawBroken(f"{what} differ: {a[i]:.6f} and {b[i]:.6f} at {i} ({int(apart.sum())} of {a.size})")


def _same_draws(left: Draws, right: Draws, when: str) -> None:
    _require(left.texts == right.texts, f"other draws {when}")
    if left.tokens is not None and right.tokens is not None:
        _require(not differing(left, right).any(), f"other token ids {when}")
    if left.log_prob is not None:
        _close(left.log_prob, right.log_prob, f"log-probabilities of the same draws {when}")


def _events(draws: Draws, truth: Draws) -> Iterator[tuple[str, Array, Array]]:
    """(name, whether each draw is in it, whether each listed continuation is) of simple events."""
    yield "finished", draws.finished, truth.finished
    if draws.tokens is not None and truth.tokens is not None:
        for token in np.unique(truth.tokens[:, 0]):
            yield f"first token {token}", draws.tokens[:, 0] == token, truth.tokens[:, 0] == token


@contextmanager
def _batch_size(generator: Sampler, rows: int) -> Iterator[None]:
    """Another batch size for the model under a law or a sampler; nothing where there is none to set."""
    owner = next((one for one in stands_on(generator) if isinstance(one, Batched)), None)
    if owner is None:
        yield
        return
    before = owner.batch_size
    object.__setattr__(owner, "batch_size", rows)
    try:
        yield
    finally:
        object.__setattr__(owner, "batch_size", before)
