"""Which dtype a model runs in when nobody says: bfloat16 on a GPU that has it, float32 on every CPU.

A base in another dtype is another base. Were a CPU's dtype chosen by a stopwatch, two machines would make two bases of
one checkpoint, and their rows could not share a table.
"""

from __future__ import annotations

import logging
from functools import cache

import torch

_LOG = logging.getLogger(__name__)
HALVES = (torch.float16, torch.bfloat16)


def default_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 on a GPU that has it, float32 elsewhere; what the other choice means is said once."""
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        _say("dtype=auto: bfloat16, which this GPU has; with dtype=float32 no batch size changes a draw")
        return torch.bfloat16
    if device.type == "cpu" and multiplies_bfloat16():
        _say("dtype=auto: float32; with dtype=bfloat16, which this CPU multiplies in hardware, SmolLM2-135M drew 2.0 "
             "times as many tokens a second; it is another base, whose draws depend a bit on their batch")  # fmt: skip
    return torch.float32


def multiplies_bfloat16() -> bool:
    """Whether the CPU has instructions that multiply bfloat16 matrices; False where torch does not know."""
    known = (getattr(torch.cpu, f"_is_{what}_supported", None) for what in ("amx_tile", "avx512_bf16"))
    return any(bool(asked()) for asked in known if asked is not None)


@cache
def _say(line: str) -> None:
    """Log a line, once a process: a run may load many models."""
    _LOG.info(line)
