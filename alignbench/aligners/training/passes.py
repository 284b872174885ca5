"""Passes through the policy: log π of a step's draws and the gradient of a loss, in as many parts as memory asks."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from alignbench.aligners.training.batch import Batch, Known
from alignbench.aligners.training.options import Options
from alignbench.aligners.training.work import Work
from alignbench.errors import RunError
from alignbench.generators.budget import ran_out
from alignbench.types import Array

_LOG = logging.getLogger(__name__)

TOKENS = {"cpu": 2048, "cuda": 32768}
"""Tokens in one part, prompts included (by their words): on a CPU more are no faster, and hold more memory."""
Loss = Callable[[torch.Tensor, Known], torch.Tensor]


@dataclass(frozen=True)
class Slope:
    """A loss of all processes' draws, and its derivative by what this process's say."""

    loss: float
    by_token: torch.Tensor  # (b, T, …) of this process's draws
    batch: Batch  # (B) draws, all processes'
    log_pi: Array  # (B,) nats


class Passes:
    """Forward and backward through one policy."""

    def __init__(self, work: Work, recipe: Options, module: nn.Module | None = None) -> None:
        self.work, self.accumulate, self.precision = work, recipe.accumulate, recipe.precision
        self.module = module or work.policy.module
        self.most = TOKENS.get(work.policy.device.type, TOKENS["cpu"])

    def back(self, batch: Batch, loss: Loss) -> Slope:
        """The gradient of a loss of all processes' draws by this one's, in `grad`.

        The loss is differentiated by log π first, with all draws in it; each part then passes its share on. So a loss
        in which draws stand beside each other has its exact gradient in any number of parts. Raises RunError where
        memory runs out with a single draw.
        """
        known: list[Slope] = []  # the others are told once, however often memory runs out here
        while True:
            try:
                return self._back(batch, loss, known)
            except Exception as error:
                if not ran_out(error):
                    raise
            for p in self.work.policy.parameters:
                p.grad = None  # what a part of the draws left
            if self.accumulate >= len(batch):
                raise RunError(
                    "memory ran out training on a single draw: take an adapter with fewer numbers (lora:r=4), a "
                    "smaller model, or shorter prompts"
                )
            self.accumulate = 2 * max(self.accumulate, len(self.parts(batch)))
            gc.collect()
            _LOG.info(f"memory ran out: each step goes in {self.accumulate} parts now (lower batch to be faster)")

    def _back(self, batch: Batch, loss: Loss, known: list[Slope]) -> Slope:
        parts = self.parts(batch)
        whole = self.forward(batch) if len(parts) == 1 else None
        if not known:
            values = self.values(batch, parts) if whole is None else whole.detach()
            known.append(self._slope(batch, values, loss))
        slope = known[0].by_token
        if whole is not None:
            torch.autograd.backward(whole, slope)
        else:
            for rows in parts:
                part = self.forward(batch.take(rows))
                torch.autograd.backward(part, slope[torch.as_tensor(rows, device=slope.device), : part.shape[1]])
        self.work.book(trained=int(batch.draws.length.sum()))
        return known[0]

    def parts(self, batch: Batch) -> list[Array]:
        """Rows of the draws of like length, as many at once as a part may hold."""
        if not len(batch):
            return [np.zeros(0, int)]
        width = int(batch.draws.length.max()) + max(len(p.split()) for p in batch.prompts)
        count = max(min(self.accumulate, len(batch)), -(-len(batch) * width // self.most))
        order = np.lexsort((batch.draws.prompt, -batch.draws.length))
        return [part for part in np.array_split(order, min(count, len(batch))) if len(part)]

    def forward(self, batch: Batch) -> torch.Tensor:
        """(B, T) log π by token with its gradient, or what else the module says."""
        with self._autocast():
            found: torch.Tensor = self.module(batch.prompts, batch.draws)
        return found

    @torch.no_grad()
    def values(self, batch: Batch, parts: list[Array] | None = None) -> torch.Tensor:
        """(B, T) log π by token."""
        assert batch.draws.tokens is not None
        found: torch.Tensor | None = None
        for rows in self.parts(batch) if parts is None else parts:
            part = self.forward(batch.take(rows))
            if found is None:
                found = part.new_zeros((*batch.draws.tokens.shape, *part.shape[2:]))
            found[torch.as_tensor(rows, device=part.device), : part.shape[1]] = part
        assert found is not None
        self.work.book(scored=int(batch.draws.length.sum()))
        return found

    def _slope(self, batch: Batch, values: torch.Tensor, loss: Loss) -> Slope:
        """The loss, and its derivative by log π by token (b, T) of this process's draws."""
        processes, first, everything = self.work.processes, 0, batch
        joined = values
        if processes.count > 1:
            hands = processes.gathered((batch, values.cpu()))
            everything = Batch.concat([hand for hand, _ in hands])
            assert everything.draws.tokens is not None
            width = everything.draws.tokens.shape[1]
            joined = torch.cat([_padded(part, width) for _, part in hands]).to(values.device)
            first = sum(len(hand) for hand, _ in hands[: processes.rank])
        joined = joined.detach().requires_grad_(True)
        found = loss(joined, Known.of(everything, joined))
        (slope,) = torch.autograd.grad(found, joined)
        mine = slope[first : first + len(batch), : values.shape[1]]
        log_pi = joined.detach() if joined.dim() == 2 else joined.detach()[..., 0]
        return Slope(float(found.detach()), mine, everything, log_pi.double().sum(1).cpu().numpy())

    def _autocast(self) -> AbstractContextManager[object]:
        if self.precision == "auto":
            return nullcontext()
        return torch.autocast(self.work.policy.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")


def _padded(values: torch.Tensor, width: int) -> torch.Tensor:
    return nn.functional.pad(values, (*[0, 0] * (values.dim() - 2), 0, width - values.shape[1]))
