"""The trust gate: when rescoring its own draws contradicts what a law said while sampling them."""

from __future__ import annotations

import numpy as np

from alignbench.types import Array, Draws

RESCORING = 0.1
"""Nats: in float32 a law that rescores any of its own draws further off is not trusted; it stays within 1e-3."""
HALF = 0.02
"""Nats per token, mean over draws: the same in half precision. Measured on SmolLM2-135M in bf16, 32 tokens: 0.26 nats a
draw (0.008 per token), at most 0.74; there every log-probability comes from the same kind of pass, so that most of it
cancels in a divergence."""
EDGE = 0.25
"""Share of its own draws that a law may rescore as impossible: a token at the very edge of a nucleus may come out as
cut, once in a while in fp32 and more often in bf16; a forgotten mask does it to most draws."""


def rescored(own: Draws, again: Array, half: bool) -> tuple[float | None, str]:
    """Max |Δ| in nats between sampling and rescoring, and why that is not to be trusted ("" where it is).

    `again` (B,) is the rescoring; `half` says that the models compute in half precision.
    """
    if own.log_prob is None:
        lost = float(np.mean(~np.isfinite(again)))
        return None, f"the generator calls {lost:.0%} of its own draws impossible" if lost else ""
    off = np.abs(again - own.log_prob)
    finite = np.isfinite(again)
    gap, cut = float(off[finite].max(initial=0.0)), float(np.mean(~finite))
    per_token = float((off / own.length)[finite].mean()) if finite.any() else 0.0
    if half and per_token > HALF:
        return gap, f"rescoring its own draws is off by {per_token:.2g} nats per token on average (limit {HALF})"
    if not half and gap > RESCORING:
        return gap, f"rescoring its own draws is off by up to {gap:.2g} nats (limit {RESCORING})"
    if cut > EDGE:
        return gap, f"rescoring calls {cut:.0%} of its own draws impossible (limit {EDGE:.0%})"
    return gap, ""
