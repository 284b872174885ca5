"""CUDA graphs of a decode step: captured once for each width, replayed for every token."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import torch

_LOG = logging.getLogger(__name__)

CAPTURING = threading.Lock()
"""torch captures one graph at a time in a process."""


class Graphs:
    """A decode step as CUDA graphs, one for each width: what the CPU would launch kernel by kernel is replayed at once.

    Where a step cannot be captured, it is run as it is, and said.
    """

    def __init__(self, forward: Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]) -> None:
        self.forward = forward
        self.made: dict[int, Any] = {}
        self.inputs: tuple[torch.Tensor, torch.Tensor] | None = None
        self.logits: torch.Tensor | None = None  # what every graph writes
        self.pool: Any = None
        self.side: Any = None
        self.works = True

    def __call__(self, ids: torch.Tensor, at: torch.Tensor, width: int) -> torch.Tensor:
        """(R, V) logits of `forward(ids, at, width)`; valid until the next call."""
        if not self.works:
            return self.forward(ids, at, width)
        if self.inputs is None:
            self.inputs = ids.clone(), at.clone()
        for held, new in zip(self.inputs, (ids, at), strict=True):
            held.copy_(new)
        if width not in self.made and not self._capture(width):
            return self.forward(ids, at, width)
        assert self.logits is not None
        self.made[width].replay()
        return self.logits

    def _capture(self, width: int) -> bool:
        """Whether there is a graph for this width now, whose first replay says what the step itself says."""
        try:
            with CAPTURING:
                self.made[width] = self._captured(width)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            told = (str(error) or type(error).__name__).splitlines()[0]
            _LOG.warning(f"no CUDA graph ({told}): decoding runs kernel by kernel")
            self.works = False
        return self.works

    def _write(self, width: int) -> None:
        """What a graph replays: one step, into the tensor that all graphs write."""
        assert self.inputs is not None and self.logits is not None
        self.logits.copy_(self.forward(*self.inputs, width))

    def _captured(self, width: int) -> Any:
        assert self.inputs is not None
        device = self.inputs[0].device
        with torch.cuda.device(device):  # the current device is another one where copies run on several
            self.side = self.side or torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            self.side.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(self.side):  # libraries allocate at their first calls, which a graph cannot hold
                for _ in range(2):
                    plain = self.forward(*self.inputs, width)
            torch.cuda.current_stream(device).wait_stream(self.side)
            self.logits = plain.clone() if self.logits is None else self.logits
            graph, self.pool = torch.cuda.CUDAGraph(), self.pool or torch.cuda.graph_pool_handle()
            with torch.cuda.graph(graph, pool=self.pool, stream=self.side, capture_error_mode="thread_local"):
                self._write(width)
            graph.replay()
            if not torch.allclose(self.logits.float(), plain.float(), rtol=0.05, atol=0.1, equal_nan=True):
                raise RuntimeError("its replay differs from the step")
        return graph
