"""Early stopping: the weights with the smallest loss on draws of p that no step learns from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save

from alignbench.aligners.training.folder import Folder
from alignbench.aligners.training.method import Method
from alignbench.aligners.training.options import Options
from alignbench.aligners.training.passes import Passes
from alignbench.files import write_atomic
from alignbench.generators.gradient import trainable_parameters
from alignbench.generators.policy import TrainedLaw

BEST = "best.safetensors"
LOOK_EVERY = 10
"""Steps between two looks at the held-out loss."""


@dataclass
class Stopping:
    """Looks at the held-out loss every `LOOK_EVERY` steps; stops after `patience` looks without a new best."""

    recipe: Options
    method: Method
    folder: Folder
    best: float = math.inf
    step: int = 0  # of the best
    worse: int = 0  # looks since
    weights: Mapping[str, torch.Tensor] | None = field(default=None, init=False, repr=False)  # the best; None: on disk

    @property
    def stopped(self) -> bool:
        """Whether to stop now."""
        return bool(self.method.patience) and self.worse >= self.method.patience

    @property
    def told(self) -> dict[str, float]:
        """What recipe.json says of it."""
        return {"best_step": self.step, "held_out": self.best} if self.method.patience else {}

    def state(self) -> dict[str, Any]:
        """Plain data to go on with."""
        return {"best": self.best, "step": self.step, "worse": self.worse} if self.method.patience else {}

    def look(self, step: int, policy: TrainedLaw, passes: Passes) -> dict[str, float]:
        """The held-out loss at every `LOOK_EVERY`th step, nats: −mean log π over draws of p. Keeps the best weights."""
        if not self.method.patience or step % LOOK_EVERY:
            return {}
        processes = passes.work.processes
        batch = self.method.held_out()
        nats = passes.values(batch).double().sum(1).cpu().numpy()
        weight = np.ones(len(nats)) if batch.weight is None else batch.weight
        sums = processes.gathered((float(weight @ nats), float(weight.sum())))
        found = -sum(total for total, _ in sums) / sum(count for _, count in sums)
        if found < self.best:
            self.best, self.step, self.worse = found, step, 0
            self._keep(policy, write=processes.first)
        else:
            self.worse += 1
        return {"held_out": found}

    def _keep(self, policy: TrainedLaw, *, write: bool) -> None:
        self.weights = {name: p.detach().cpu().clone() for name, p in trainable_parameters(policy.module).items()}
        if write and self.folder.path is not None:
            write_atomic(self.folder.path / BEST, save({name: p.contiguous() for name, p in self.weights.items()}))

    @torch.no_grad()
    def restore(self, policy: TrainedLaw) -> None:
        """Give the policy its best weights, where there was a look."""
        if math.isinf(self.best):
            return
        known = trainable_parameters(policy.module)
        if self.weights is None:
            assert self.folder.path is not None
            self.weights = load((self.folder.path / BEST).read_bytes())
        for name, tensor in self.weights.items():
            known[name].copy_(tensor)
