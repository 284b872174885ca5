"""What any generator says of itself, read in one place, and what stands where it says nothing.

A generator need only draw. Whoever asks for more asks `described`, or for a capability of `types` (`Checked`,
`Warpable`, …), never for a class.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from alignbench.errors import RunError, UsageError, plain_failures
from alignbench.types import Array, Checked, Distribution, Draws, Sampler, Selection

T = TypeVar("T")

ABOVE_ONE = 1e-3  # nats: rounding may leave a sum of log-probabilities above 0

Rank = Callable[[Sequence[str], Draws], Array]
"""(prompts, draws) → (B,) what a selection ranks draws by."""


class Fingerprinted(Protocol):
    """The tokens of a generator, as far as they must be known to tell whether two generators share them."""

    @property
    def fingerprint(self) -> str:
        """Equal exactly where the tokens are."""
        ...


@dataclass(frozen=True)
class Description:
    """What a generator says of itself, with what stands where it says nothing; asked for when it is needed.

    Some of it may be costly: quasi-rejection chooses its β when its selection is asked for.
    """

    generator: Sampler | None

    def _said(self, name: str, default: T) -> T:
        said: T | None = getattr(self.generator, name, None)
        return default if said is None else said

    @property
    def name(self) -> str:
        """What tables call it; "" for its spec."""
        said: Any = self._said("name", "")
        return said if isinstance(said, str) else ""

    @property
    def truncates(self) -> bool:
        """Whether it may give probability 0 to what the base can say."""
        return bool(self._said("truncates", False))

    @property
    def remark(self) -> str:
        """See `Evidence.remark`."""
        return self._said("remark", "")

    @property
    def uncounted(self) -> str:
        """See `Cost.uncounted`."""
        return self._said("uncounted", "")

    @property
    def selection(self) -> Selection | None:
        """How it picks among a proposal's draws; None where it does not."""
        none: Selection | None = None
        return self._said("selection", none)

    @property
    def proposal(self) -> Sampler | None:
        """What it draws from, where that is not the base."""
        none: Sampler | None = None
        return self._said("proposal", none)

    @property
    def rank(self) -> Rank | None:
        """What its selection ranks draws by; None: log P − log a."""
        none: Rank | None = None
        return self._said("rank", none)

    @property
    def vocab(self) -> Fingerprinted | None:
        """Its tokens; None where its draws have none."""
        none: Fingerprinted | None = None
        return self._said("vocab", none)

    @property
    def fingerprint(self) -> str | None:
        """That of its tokens; None where it has none, or says them in no way that is known here."""
        said = getattr(self.vocab, "fingerprint", None)
        return said if isinstance(said, str) else None

    @property
    def eos(self) -> Collection[int] | None:
        """The ids that end a draw; None where it does not say them."""
        found: Collection[int] | None = getattr(self.vocab, "eos", None)
        return found

    @property
    def device(self) -> str:
        """Where it computes; "" where it does not say."""
        return str(self._said("device", ""))

    @property
    def half(self) -> bool:
        """Whether a network behind it computes in half precision."""
        found = (getattr(thing, "network", None) for thing in stands_on(self.generator))
        return any(str(getattr(network, "dtype", "")).endswith(("bfloat16", "float16")) for network in found)

    @property
    def rows_at_once(self) -> int:
        """Rows that it likes to draw at once."""
        said: Any = self._said("rows_at_once", self._said("batch_size", 64))
        return said if isinstance(said, int) else 64

    @property
    def plain(self) -> bool:
        """Whether the `model_log_prob` of its draws is its own log-probability."""
        return self._said("plain", False) is True

    @property
    def enumerable(self) -> bool:
        """Whether every continuation can be listed."""
        return self._said("enumerable", False) is True


def described(generator: Sampler | None) -> Description:
    """What a generator says of itself."""
    return Description(generator)


def identity_of(generator: Sampler | None) -> Mapping[str, Any] | None:
    """Plain data that a generator's draws depend on; None (nothing is stored) where it does not say."""
    identity = getattr(generator, "identity", None)
    if identity is None:
        return None
    with plain_failures(f"identity() of {type(generator).__name__}", UsageError):
        found = identity()
        return None if found is None else dict(json.loads(json.dumps(found)))


def log_prob_of(generator: Distribution, prompts: Sequence[str], draws: Draws) -> Array:
    """(B,) nats of draws under a generator; raises RunError where it fails, or gives what is no log-probability."""
    who = called(generator)
    with plain_failures(f"log_prob of {who}", RunError):
        found = np.asarray(generator.log_prob(prompts, draws), dtype=float)
    if found.shape != (len(draws),):
        raise RunError(f"log_prob of {who} must give a number for each of {len(draws)} draws, gave {found.shape}")
    if np.isnan(found).any() or (found > ABOVE_ONE).any():
        raise RunError(f"log_prob of {who} gave {'NaN' if np.isnan(found).any() else 'a probability above 1'}")
    return found


def drawn_on(generator: Sampler | None) -> Iterator[Sampler]:
    """A generator, its proposal, if it draws from one, the proposal of that, and so on."""
    while generator is not None:
        yield generator
        generator = described(generator).proposal


def stands_on(generator: Sampler | None) -> Iterator[object]:
    """A generator, the model or the base that it stands on, what that stands on, and so on."""
    thing: object = generator
    while thing is not None:
        yield thing
        thing = getattr(thing, "model", getattr(thing, "base", None))


def called(generator: Sampler) -> str:
    """What errors call a generator: its name, else its class."""
    return described(generator).name or type(generator).__name__


def readable(base: Sampler, draws: Draws) -> bool:
    """Whether `base` can score the draws: they are ids of its tokens, or it has none."""
    fingerprint = described(base).fingerprint
    return fingerprint is None or (draws.tokens is not None and draws.vocab == fingerprint)


def check(generator: Sampler, prompts: Sequence[str], max_tokens: int) -> None:
    """Raise UsageError where a prompt does not fit, as far as the generator can tell before a draw."""
    if isinstance(generator, Checked):
        with plain_failures(f"check of {called(generator)}", UsageError):
            generator.check(prompts, max_tokens)
