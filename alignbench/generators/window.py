"""Attention windows: what a token may see of those before it, as a value and as the masks that networks take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch

from alignbench.errors import UsageError
from alignbench.generators.base import Model

MASKED = ("sdpa", "eager")
"""Implementations of attention that take a mask of any shape."""


@dataclass(frozen=True)
class Window:
    """The last `k` positions, the token's own among them; of an encoder's tokens those of the slice begin:end."""

    k: int
    source_begin: int | None = None
    source_end: int | None = None

    @property
    def source(self) -> slice:
        """The encoder's tokens that a decoder may attend to."""
        return slice(self.source_begin, self.source_end)

    @property
    def cuts_source(self) -> bool:
        """Whether it hides anything of what an encoder read."""
        return self.source != slice(None)

    def refuse_source(self, name: str) -> None:
        """Raise UsageError where a span of the source is asked of a model without an encoder."""
        if self.cuts_source:
            raise UsageError(f"{name}: source_begin and source_end are a span of what an encoder reads; it has none")


@runtime_checkable
class Windowable(Protocol):
    """A model that can be put under an attention window."""

    @property
    def window(self) -> Window | None:
        """The window that it is under."""
        ...

    def windowed(self, window: Window) -> Model:
        """The same model under a window; raises UsageError where it cannot be."""
        ...


def seen(at: torch.Tensor, width: int, window: Window | None) -> torch.Tensor:
    """(…, T, width) which of `width` positions a token at position `at` (…, T) attends to."""
    key, at = torch.arange(width, device=at.device), at[..., None]
    causal = key <= at
    return causal if window is None else causal & (key > at - window.k)


def as_mask(network: Any, allowed: torch.Tensor) -> torch.Tensor:
    """`allowed` in the form that the network's attention takes: as it is, or what is added to its scores."""
    if network.config._attn_implementation == "sdpa":
        return allowed
    dtype = network.dtype
    return torch.zeros_like(allowed, dtype=dtype).masked_fill_(~allowed, torch.finfo(dtype).min)
