"""Which dtype a model runs in when nobody says: bfloat16 where the hardware multiplies it faster, float32 otherwise."""

from __future__ import annotations

import logging
import os
import platform
import statistics
import time
from functools import cache
from hashlib import sha256
from pathlib import Path

import torch

from alignbench import sources

_LOG = logging.getLogger(__name__)

FASTER = 1.5
"""bfloat16 must be so many times as fast on a CPU: less is not worth draws that depend a little on their batch."""


def best_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 on a GPU that has it and on a CPU where it is measured faster; float32 elsewhere."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    if device.type == "cpu" and cpu_likes_bfloat16():
        return torch.bfloat16
    return torch.float32


@cache
def cpu_likes_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 matrices `FASTER` times as fast as float32 ones.

    Measured once and kept in the cache folder: the dtype belongs to a base's identity, and must not change from one run
    to the next because another program was busy.
    """
    machine = sha256(f"{_cpu()}, torch {torch.__version__}".encode()).hexdigest()[:12]  # a home may be shared by many
    known = sources.cache_folder() / f"bfloat16_speedup_{machine}.txt"
    try:
        return float(known.read_text()) >= FASTER
    except (OSError, ValueError):
        found = _speedup()
    try:
        known.parent.mkdir(parents=True, exist_ok=True)
        scratch = known.with_suffix(f".{os.getpid()}.tmp")
        scratch.write_text(f"{found:.3f}\n")
        scratch.replace(known)
    except OSError as error:  # a read-only cache: measured again next time
        _LOG.debug(str(error))
    return found >= FASTER


def _cpu() -> str:
    """The CPU's name; its kind where the system does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _speedup(rows: int = 128, size: int = 1024) -> float:
    """Seconds of a float32 product over those of a bfloat16 one, medians of 7 in turn."""
    seconds: dict[torch.dtype, list[float]] = {torch.float32: [], torch.bfloat16: []}
    data = {kind: (torch.ones(rows, size, dtype=kind), torch.ones(size, size, dtype=kind)) for kind in seconds}
    for turn in range(8):
        for kind, (x, weight) in data.items():
            began = time.perf_counter()
            torch.nn.functional.linear(x, weight)
            if turn:  # the first call compiles
                seconds[kind].append(time.perf_counter() - began)
    return statistics.median(seconds[torch.float32]) / statistics.median(seconds[torch.bfloat16])
