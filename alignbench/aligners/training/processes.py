"""The processes that train one policy together: who takes which draws, and how numbers and gradients are joined.

Draws depend on their row alone, so that any number of processes sees the draws of one. Each has a copy of the policy,
takes every n-th row, and gets all others' numbers; losses are of all draws, gradients are summed. Started by
`accelerate launch -m alignbench align …`; a process on its own needs nothing of this.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """This process is number `rank` of `count`."""

    rank: int = 0
    count: int = 1

    @staticmethod
    def here(device: torch.device) -> Processes:
        """As the launcher says; joins the others at the first call."""
        if launched() == 1:
            return Processes()
        from accelerate import PartialState

        state = PartialState(cpu=device.type == "cpu")
        return Processes(state.process_index, state.num_processes)

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and tells."""
        return self.rank == 0

    def gathered(self, part: T) -> list[T]:
        """What each process gives, in their order."""
        if self.count == 1:
            return [part]
        from accelerate.utils import gather_object

        return list(gather_object([part]))

    def summed(self, parameters: Sequence[nn.Parameter]) -> None:
        """Each gradient becomes the sum over processes, in one message."""
        if self.count == 1:
            return
        from accelerate.utils import reduce

        flat = torch.cat([_gradient(p).flatten() for p in parameters])
        total: Any = reduce(flat, "sum")
        for p, part in zip(parameters, total.split([p.numel() for p in parameters]), strict=True):
            p.grad = part.view_as(p)


def launched() -> int:
    """How many processes the launcher started; 1 where there was none."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def first_launched() -> bool:
    """Whether this process is the first that the launcher started, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def _gradient(p: nn.Parameter) -> torch.Tensor:
    return torch.zeros_like(p) if p.grad is None else p.grad
