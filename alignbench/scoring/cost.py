"""What a generator's draws cost: seconds, tokens, model calls, proposals, memory."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

try:
    import resource
except ImportError:  # Windows does not say
    resource = None  # type: ignore[assignment]

from alignbench.generators.described import described, drawn_on
from alignbench.store.draws import Stored
from alignbench.types import Cost, Draws, Sampler, Training


def cost_of(stored: Stored, own: Draws, generator: Sampler, training: Training | None) -> Cost:
    """The cost of the stored draws, of which `own` were kept, and of the `training` before."""
    drawn = stored.draws
    return replace(
        counted(drawn), seconds=stored.seconds, kept=len(own), exhausted=len(drawn) - len(own),
        peak_bytes=_peak_bytes(), device=described(generator).device, training=training,
        uncounted="; ".join(filter(None, (described(law).uncounted for law in drawn_on(generator)))),
    )  # fmt: skip


def counted(drawn: Draws) -> Cost:
    """What draws themselves say that they took: tokens, model calls and proposals."""
    tokens = drawn.length if drawn.spent is None else drawn.spent
    calls = tokens if drawn.calls is None else drawn.calls
    proposals = len(drawn) if drawn.proposals is None else drawn.proposals.sum()
    return Cost(tokens=int(tokens.sum()), calls=int(calls.sum()), proposals=int(proposals))


def reset_peak() -> None:
    """Begin the GPU's high-water mark anew; a process's cannot be."""
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()


def _peak_bytes() -> int | None:
    """The process's memory high-water mark, or the GPU's where one was used."""
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        return int(torch.cuda.max_memory_allocated())
    if resource is None:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)  # macOS counts bytes, Linux KiB
