"""Whether passes through a network keep what a gradient needs: they never do, but inside `differentiable`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import torch
from torch import nn

_WANTED: ContextVar[bool] = ContextVar("wanted", default=False)


@contextmanager
def differentiable() -> Iterator[None]:
    """Inside, passes record what torch's own grad mode asks for. In this thread alone, and its calls."""
    before = _WANTED.set(True)
    try:
        yield
    finally:
        _WANTED.reset(before)


def inference() -> AbstractContextManager[Any]:
    """What every pass through a network runs in: `torch.inference_mode`; inside `differentiable` nothing."""
    return nullcontext() if _WANTED.get() else torch.inference_mode()


def trainable_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that require a gradient, by name."""
    return {name: p for name, p in module.named_parameters() if p.requires_grad}
