"""The processes that train one policy together: who takes which draws, and how numbers and gradients are joined.

Draws depend on their row alone, so that any number of processes sees the draws of one. Each has a copy of the policy,
takes every n-th row, and gets all others' numbers; losses are of all draws, gradients are summed. The first alone
writes; all read its folder. Started by `accelerate launch -m alignbench align …` or `torchrun`; a process on its own
needs nothing of this.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import nn

from alignbench.errors import UsageError

T = TypeVar("T")

WAIT = timedelta(days=1)
"""How long a process waits for the others, who may fit λ or draw meanwhile; who fails ends them all by the launcher."""
RANK = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
COUNT = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
"""By which torchrun, `accelerate launch` and three kinds of MPI tell a process where it stands; accelerate's names."""


@dataclass(frozen=True)
class Processes:
    """This process is number `rank` of `count`."""

    rank: int = 0
    count: int = 1

    @staticmethod
    def here(device: torch.device) -> Processes:
        """As the launcher says; joins the others at the first call. Raises UsageError where two have one GPU."""
        if launched() == 1:
            return Processes()
        from accelerate import PartialState

        local = os.environ.get("LOCAL_RANK", "0")
        if device.type == "cuda" and str(device.index or 0) != local:
            raise UsageError(f"device={device}: each of {launched()} processes needs a GPU of its own: use device=auto")
        state = PartialState(cpu=device.type == "cpu", timeout=WAIT)
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

    def check_share(self, draws: int, what: str) -> None:
        """Raise UsageError unless each process has a draw of so many, which `what` names."""
        if draws < self.count:
            raise UsageError(f"{what}: {draws} for {self.count} processes: raise batch, or start at most {draws}")

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
    """How many processes the launcher started; 1 where there was none.

    Raises UsageError where it was asked for several and started one, as `accelerate launch --cpu` does without MPI.
    """
    told = _told(COUNT)
    if told is None and "MASTER_ADDR" in os.environ and "ACCELERATE_MIXED_PRECISION" in os.environ:
        raise UsageError("accelerate launch started one process, not several, as it does on CPUs without MPI: use "
                         "torchrun --nproc_per_node N -m alignbench align …")  # fmt: skip
    return 1 if told is None else int(told)


def first_launched() -> bool:
    """Whether this process is the first that the launcher started, or the only one."""
    return (_told(RANK) or "0") == "0"


def leave() -> None:
    """Part from the others after all is done; nothing where there are none."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _told(names: Sequence[str]) -> str | None:
    return next((os.environ[name] for name in names if name in os.environ), None)


def _gradient(p: nn.Parameter) -> torch.Tensor:
    return torch.zeros_like(p) if p.grad is None else p.grad
