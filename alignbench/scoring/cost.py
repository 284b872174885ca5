"""What a generator's draws cost: seconds, tokens, model calls, proposals, memory."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import numpy as np

try:
    import resource
except ImportError:  # Windows does not say
    resource = None  # type: ignore[assignment]

from alignbench.generators.described import described, drawn_on
from alignbench.store.draws import Stored
from alignbench.types import Array, Cost, Draws, Sampler, Training


def cost_of(stored: Stored, own: Draws, generator: Sampler, training: Training | None) -> Cost:
    """The cost of the stored draws, of which `own` were kept, and of the `training` before."""
    return replace(
        counted(spent_on(stored.draws), len(own)), seconds=stored.seconds, peak_bytes=_peak_bytes(),
        device=described(generator).device, training=training,
        uncounted="; ".join(filter(None, (described(law).uncounted for law in drawn_on(generator)))),
    )  # fmt: skip


def spent_on(drawn: Draws) -> Array:
    """(N, 4) prompt, tokens decoded, model calls and proposals of every draw."""
    tokens = drawn.length if drawn.spent is None else drawn.spent
    calls = tokens if drawn.calls is None else drawn.calls
    proposals = np.ones(len(drawn), int) if drawn.proposals is None else drawn.proposals
    return np.stack([drawn.prompt, tokens, calls, proposals], axis=1)


def counted(spent: Array, kept: int) -> Cost:
    """What can be counted of draws: the sums of what each was `spent` on, see `spent_on`, of which `kept` were kept."""
    _, tokens, calls, proposals = map(int, spent.sum(axis=0))
    return Cost(tokens=tokens, calls=calls, proposals=proposals, kept=kept, exhausted=len(spent) - kept)


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
