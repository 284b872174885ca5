"""How many rows go side by side: as many as memory holds, and half as many each time it turns out to be too little."""

from __future__ import annotations

from dataclasses import dataclass

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
        return int(free)
    return int(psutil.virtual_memory().available)


def ran_out(error: BaseException) -> bool:
    """Whether an exception says that memory ran out; torch on a CPU raises a plain RuntimeError."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    said = str(error).lower()
    return isinstance(error, RuntimeError) and ("can't allocate memory" in said or "out of memory" in said)


def bucket(rows: int) -> int:
    """The smallest of 1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 192, … that is >= `rows`.

    Shapes from a short list: in bfloat16 on a CPU each new one compiles kernels, and a CUDA graph is made for each.
    """
    power = 1 << max(0, rows - 1).bit_length()
    return power * 3 // 4 if power >= 64 and rows <= power * 3 // 4 else power
