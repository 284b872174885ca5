"""GDC: DPG with a proposal of its own, replaced when the policy has come nearer to p (Khalifa et al. 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save

from alignbench.aligners.base import whole
from alignbench.aligners.training.batch import Batch
from alignbench.aligners.training.dpg import Matching, Pooled
from alignbench.aligners.training.method import Method
from alignbench.aligners.training.options import unlabelled
from alignbench.aligners.training.work import Work
from alignbench.errors import StoreError
from alignbench.files import write_atomic
from alignbench.generators.gradient import trainable_parameters
from alignbench.generators.policy import TrainedLaw, policy_of
from alignbench.registry import aligner
from alignbench.types import Array


@aligner("gdc", target_driven=True, density="exact")
@dataclass(frozen=True, kw_only=True)
class GDC(Pooled):
    """Descends KL(p‖π) on draws of a proposal q: the base, then π whenever that is nearer to p.

    Looked at every `adapt` steps: KL(p‖q) − KL(p‖π) = E_q[P/(Zq)·log(π/q)] over the draws since the last look, π as it
    was when each was trained on (Khalifa et al. 2021, algorithm 1). `baseline` as in dpg.
    """

    adapt: int = unlabelled(20)
    baseline: bool = unlabelled(False)

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("gdc:adapt", self.adapt)

    def method(self, work: Work) -> Method:
        """See `Trained.method`."""
        return Adaptive(work, self)


class Adaptive(Matching):
    """As `Matching`, on draws of a copy of the policy that changes rarely."""

    recipe: GDC

    def __init__(self, work: Work, recipe: GDC) -> None:
        super().__init__(work, recipe, baseline=recipe.baseline)
        self.draws_own = False
        self.copy = policy_of(work.setting.base, recipe.adapter, seed=work.setting.seed.entropy)
        self.adopted, self.gain, self.looked_at = 0, 0.0, 0  # step of q; Σ and number since the last look
        self.saved = 0  # step of q in the last saved state

    @property
    def proposal(self) -> TrainedLaw:
        """Q."""
        return self.copy

    def after(self, step: int, values: Mapping[str, tuple[Batch, Array]]) -> dict[str, float]:
        """See `Matching.after`; and count what the draws say of π and q, and replace q where it is due and better."""
        told = super().after(step, values)
        batch, log_pi = values["loss"]
        gains = self.gains(batch, log_pi)
        self.gain, self.looked_at = self.gain + float(gains.sum()), self.looked_at + len(gains)
        found = self.gain / self.looked_at
        if (step + 1) % self.recipe.adapt == 0:
            if found > 0:
                self._adopt(step + 1)
            self.gain, self.looked_at = 0.0, 0
        return told | {"nearer_than_proposal": found, "proposal_step": float(self.adopted)}

    def gains(self, batch: Batch, log_pi: Array) -> Array:
        """(B,) P/(Zq)·log(π/q), nats; its mean over draws of q is KL(p‖q) − KL(p‖π)."""
        assert batch.log_proposal is not None
        return np.asarray(np.exp(batch.log_p(self.log_z) - batch.log_proposal) * (log_pi - batch.log_proposal))

    @torch.no_grad()
    def _adopt(self, step: int) -> None:
        """Q becomes the policy as it is."""
        mine = trainable_parameters(self.work.policy.module)
        for name, p in trainable_parameters(self.copy.module).items():
            p.copy_(mine[name])
        self.adopted = step
        self.own.held.clear()  # drawn ahead from what q was
        folder = self.work.setting.workdir
        if folder is not None and self.work.processes.first:
            write_atomic(folder / _file(step), save({n: p.detach().cpu().contiguous() for n, p in mine.items()}))

    def state(self) -> dict[str, Any]:
        """See `Method.state`; proposals that neither this state nor the one before needs are deleted."""
        if (folder := self.work.setting.workdir) is not None:
            for old in set(folder.glob(_file("*"))) - {folder / _file(step) for step in (self.saved, self.adopted)}:
                old.unlink(missing_ok=True)
        self.saved = self.adopted
        return {"adopted": self.adopted, "gain": self.gain, "looked_at": self.looked_at}

    @torch.no_grad()
    def resume(self, step: int, state: Mapping[str, Any]) -> None:
        """See `Method.resume`."""
        self.adopted = self.saved = state["adopted"]
        self.gain, self.looked_at = state["gain"], state["looked_at"]
        folder = self.work.setting.workdir
        if not self.adopted or folder is None:
            return
        try:
            tensors = load((folder / _file(self.adopted)).read_bytes())
        except Exception as error:  # whatever reading a damaged file raises
            raise StoreError(f"{folder / _file(self.adopted)}: cannot be read; delete its folder") from error
        for name, p in trainable_parameters(self.copy.module).items():
            p.copy_(tensors[name])


def _file(step: int | str) -> str:
    return f"proposal-{step}.safetensors"
