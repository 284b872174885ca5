"""Generators that are not there yet: an outline tells what files can, and weights are loaded when they are needed."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from alignbench.errors import RunError, Unsupported, UsageError, plain_failures
from alignbench.generators.described import check, described, identity_of
from alignbench.registry import Entry
from alignbench.seeds import Seed
from alignbench.types import Array, Distribution, Draws, Sampler

S = TypeVar("S", bound=Sampler)
Kind = TypeVar("Kind", bound=Sampler, covariant=True)


@dataclass(frozen=True)
class Later(Generic[Kind]):
    """A generator that is made when it is needed: `make` gives the same one each time.

    `told` has its name, identity and tokenizer now. Its outline checks prompts besides, and aligners can be put on it,
    but it cannot draw or score; it is made by `outlining`, where that takes a while, else it is what is `told`.
    """

    told: Kind
    make: Callable[[], Kind]
    outlining: Callable[[], Kind] | None = None

    @property
    def outline(self) -> Kind:
        """The outline, made now if it was not."""
        return self.told if self.outlining is None else self.outlining()


def made(given: S | Later[S]) -> S:
    """The generator itself, made now where it was not."""
    return given.make() if isinstance(given, Later) else given


def outline_of(given: S | Later[S]) -> S:
    """What can be checked of a generator before it is made; one that is there is its own outline."""
    return given.outline if isinstance(given, Later) else given


def told_of(given: S | Later[S]) -> S:
    """What has a generator's name, identity and tokenizer, without any work."""
    return given.told if isinstance(given, Later) else given


@dataclass(frozen=True)
class Tokens:
    """The fingerprint of a tokenizer that is not loaded."""

    fingerprint: str


@dataclass(frozen=True)
class Recalled:
    """What stands for a generator of which only name, identity and tokenizer are known."""

    name: str
    said: Mapping[str, Any] | None
    tokens: str | None = None  # fingerprint
    there: Any = None  # the generator, where it is loaded: it checks prompts
    aligned: bool = False  # it is what an aligner would make

    @staticmethod
    def of(generator: Sampler, name: str = "", there: Any = None) -> Recalled:
        """What is known of a generator that says what it is; `name` where it has none."""
        told, kind = described(generator), RecalledScorer if isinstance(generator, Distribution) else Recalled
        return kind(told.name or name, identity_of(generator), told.fingerprint, there)

    @property
    def vocab(self) -> Tokens | None:
        """Its tokens."""
        return None if self.tokens is None else Tokens(self.tokens)

    def identity(self) -> Mapping[str, Any] | None:
        """All that its draws depend on."""
        return self.said

    def check(self, prompts: Sequence[str], max_tokens: int) -> None:
        """See `Checked.check`; nothing is checked before the generator is there."""
        if self.there is not None:
            check(self.there, prompts, max_tokens)

    def sample(self, prompts: Sequence[str], rows: Array, *, max_tokens: int, seed: Seed) -> Iterator[Draws]:
        """It cannot; raises RunError."""
        raise RunError(f"{self.name}: asked for draws before it was made")


@dataclass(frozen=True)
class RecalledScorer(Recalled):
    """The same of a generator that can score draws."""

    def log_prob(self, prompts: Sequence[str], draws: Draws) -> Array:
        """It cannot; raises RunError."""
        raise RunError(f"{self.name}: asked for log-probabilities before it was made")


def outlined(entry: Entry, arguments: Mapping[str, Any], name: str) -> Sampler | None:
    """What a factory says of the generator that it would make of these arguments; None where it says nothing.

    A factory is registered with `outline`, a function of its arguments that gives a generator without weights, or with
    `identity`, one that gives the generator's identity. Raises UsageError as the factory would.
    """
    if "outline" in entry.meta:
        found: Sampler | None = asked_of(entry, "outline", arguments)
        return found
    if "identity" in entry.meta:
        said = asked_of(entry, "identity", arguments)
        return None if said is None else RecalledScorer(name, dict(said))  # whether it scores is seen when it is made
    return None


def named(outline: Sampler | None) -> Sampler | None:
    """The outline, if it says what the generator is; None where only weights tell."""
    with suppress(Unsupported):
        return None if outline is None or identity_of(outline) is None else outline
    return None


def asked_of(entry: Entry, what: str, arguments: Mapping[str, Any]) -> Any:
    """What a function that a factory is registered with gives for those of its arguments that it takes."""
    ask = entry.meta[what]
    takes = inspect.signature(ask).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in takes.values())
    given = {k: v for k, v in arguments.items() if k in entry.parameters and (open_ended or k in takes)}
    with plain_failures(f"'{what}' of the generator '{entry.name}'", UsageError):
        return ask(**given)
