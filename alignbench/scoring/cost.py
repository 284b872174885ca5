"""What a generator's draws cost: seconds, tokens, model calls, proposals, memory."""

from __future__ import annotations

from dataclasses import replace

from alignbench.generators.described import described, drawn_on
from alignbench.generators.memory import peak_memory
from alignbench.store.draws import Stored
from alignbench.types import Cost, Draws, Sampler, Training


def cost_of(stored: Stored, own: Draws, generator: Sampler, training: Training | None) -> Cost:
    """The cost of the stored draws, of which `own` were kept, and of the `training` before."""
    drawn, device = stored.draws, described(generator).device
    return replace(
        counted(drawn), seconds=stored.seconds, kept=len(own), exhausted=len(drawn) - len(own),
        peak_bytes=peak_memory(device or None), device=device, training=training,
        uncounted="; ".join(filter(None, (described(law).uncounted for law in drawn_on(generator)))),
    )  # fmt: skip


def counted(drawn: Draws) -> Cost:
    """What draws themselves say that they took: tokens, model calls and proposals."""
    tokens = drawn.length if drawn.spent is None else drawn.spent
    calls = tokens if drawn.calls is None else drawn.calls
    proposals = len(drawn) if drawn.proposals is None else drawn.proposals.sum()
    return Cost(tokens=int(tokens.sum()), calls=int(calls.sum()), proposals=int(proposals))
