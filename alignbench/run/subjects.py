"""Whose rows a run makes, known before they are there: a generator that was given, or what an aligner makes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from alignbench.aligners.base import Aligner, Immediate, Setting
from alignbench.aligners.bill import made_in
from alignbench.errors import RunError, UsageError, plain_failures
from alignbench.generators.described import identity_of
from alignbench.generators.later import Later, made, told_of
from alignbench.run.known import Known
from alignbench.types import Sampler, Training


class Subject(Protocol):
    """Whose rows are made: what it depends on is known before it is there."""

    @property
    def identity(self) -> Mapping[str, Any] | None:
        """What its evidence is found by, told before any work; None: it is not found so."""
        ...

    def make(self) -> Sampler:
        """The generator, made now; a plug-in's failure is one line."""
        ...

    def told(self, generator: Sampler) -> Mapping[str, Any] | None:
        """What evidence may be found by once the generator is there."""
        ...

    def unlike(self, weights: Mapping[str, str]) -> bool:
        """Whether it would now be made otherwise than with these weights, by the folder that they are in."""
        ...

    @property
    def weights(self) -> Mapping[str, str]:
        """The hashes of what it was trained to, by folder, once it is made."""
        ...

    @property
    def training(self) -> Training | None:
        """What that took."""
        ...


@dataclass(frozen=True)
class Given:
    """A generator that a user names or gives."""

    generator: Sampler | Later[Sampler]
    weights: Mapping[str, str] = field(default_factory=dict)
    training: Training | None = None

    @property
    def identity(self) -> Mapping[str, Any] | None:
        """See `Subject`."""
        return identity_of(told_of(self.generator))

    def make(self) -> Sampler:
        """See `Subject`."""
        return made(self.generator)

    def told(self, generator: Sampler) -> Mapping[str, Any] | None:
        """See `Subject`."""
        return identity_of(generator)

    def unlike(self, weights: Mapping[str, str]) -> bool:
        """See `Subject`."""
        return False


@dataclass(frozen=True)
class Aligned:
    """What an aligner makes in a setting."""

    aligner: Aligner
    setting: Setting
    known: Known

    @cached_property
    def identity(self) -> Mapping[str, Any] | None:
        """See `Subject`; an outline may not do for `align`, and then it is not told before."""
        try:
            return self.known.identity_of(self.aligner, self.setting)
        except UsageError:
            raise
        except Exception:
            return None

    def make(self) -> Sampler:
        """See `Subject`."""
        with plain_failures(f"align of {type(self.aligner).__name__}", RunError):
            return self.setting.aligned(self.aligner)

    def told(self, generator: Sampler) -> Mapping[str, Any] | None:
        """See `Subject`; an aligner that works and does not say what it does may do another thing each time."""
        said = identity_of(generator) if isinstance(self.aligner, Immediate) else None
        self.known.remember_identity(self.aligner, self.setting, said)
        return said

    def unlike(self, weights: Mapping[str, str]) -> bool:
        """See `Subject`."""
        folder = self.setting.work or Path()
        return any((folder / name).is_dir() and made_in(folder / name) != known for name, known in weights.items())

    @property
    def weights(self) -> Mapping[str, str]:
        """See `Subject`."""
        return self.setting.bill.weights

    @property
    def training(self) -> Training | None:
        """See `Subject`."""
        return self.setting.bill.total
