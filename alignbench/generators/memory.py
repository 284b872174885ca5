"""The most memory that was in use: of a GPU, or of this process."""

from __future__ import annotations

import sys

import torch

try:
    import resource
except ImportError:  # Windows does not say
    resource = None  # type: ignore[assignment]


def reset_peak() -> None:
    """Begin the GPU's high-water mark anew; a process's cannot be."""
    if _gpu_used():
        torch.cuda.reset_peak_memory_stats()


def peak_memory(device: torch.device | str | None = None) -> int | None:
    """Bytes: the high-water mark of a GPU since `reset_peak`, on any other device that of this process since it began.

    Without a `device` it is the GPU's where this process used one. None where it did not use the GPU of that name, or
    the system does not say.
    """
    if _gpu_used() if device is None else str(device).startswith("cuda"):
        return int(torch.cuda.max_memory_allocated(device)) if _gpu_used() else None
    if resource is None:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)  # macOS counts bytes, Linux KiB


def _gpu_used() -> bool:
    return bool(torch.cuda.is_available() and torch.cuda.is_initialized())  # type: ignore[no-untyped-call]
