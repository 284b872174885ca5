"""How many rows go side by side: as many as memory holds, and half as many each time it turns out to be too little."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

FREE = {"cuda": 0.8, "cpu": 0.5}
"""Share of the free memory that a batch may take: other programs share a CPU's, and nobody swaps gladly."""


@dataclass
class Budget:
    """Bytes that a batch may take, found at the first use; `halve` remembers that a batch did not fit.

    One object serves all the generators that share a model, so that a lesson is learned once a run.
    """

    limit: float | None = None

    def rows(self, each: int, most: int, device: torch.device) -> int:
        """Rows of `each` bytes that fit, at least 1 and at most `most`."""
        if self.limit is None:
            self.limit = free_memory(device) * FREE.get(device.type, 0.5)
        return max(1, min(most, int(self.limit // max(1, each))))

    def halve(self, rows: int, each: int) -> None:
        """Remember that `rows` rows of `each` bytes were too many."""
        self.limit = rows * each / 2


def free_memory(device: torch.device) -> int:
    """Bytes of memory that nobody uses, on the device."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(free)
    return min(int(psutil.virtual_memory().available), _left_in_container())


def _left_in_container() -> int:
    """Bytes that a container's limit leaves, which `available` does not know; a large number where there is none."""
    group = Path("/sys/fs/cgroup")
    try:
        return int((group / "memory.max").read_text()) - int((group / "memory.current").read_text())
    except (OSError, ValueError):  # no such limit: "max", or another system
        return sys.maxsize


def ran_out(error: BaseException) -> bool:
    """Whether an exception says that memory ran out; torch on a CPU raises a plain RuntimeError."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    said = str(error).lower()
    signs = ("can't allocate memory", "out of memory", "alloc_failed")  # a CPU's, CUDA's, those of its libraries
    return isinstance(error, RuntimeError) and any(sign in said for sign in signs)


def bucket(rows: int) -> int:
    """The smallest of 1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 192, … that is >= `rows`.

    Shapes from a short list: in bfloat16 on a CPU each new one compiles kernels (90 s lost once).
    """
    power = 1 << max(0, rows - 1).bit_length()
    return power * 3 // 4 if power >= 64 and rows <= power * 3 // 4 else power
