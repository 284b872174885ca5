"""REINFORCE: the expected reward less the KL to the base, by draws of the policy (Williams 1992; RLOO)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from alignbench.aligners.base import is_number
from alignbench.aligners.training.ahead import OwnDraws
from alignbench.aligners.training.batch import Batch, Known
from alignbench.aligners.training.dpg import Matches
from alignbench.aligners.training.method import Method
from alignbench.aligners.training.options import joined, unlabelled
from alignbench.aligners.training.rewards import Rollout, reinforced
from alignbench.aligners.training.work import Work
from alignbench.errors import Unsupported, UsageError, did_you_mean
from alignbench.generators.law import law_of
from alignbench.registry import aligner
from alignbench.target import Target
from alignbench.types import Array

KL = ("reward", "reward_k3", "loss_k1", "loss_k2", "loss_k2_by_token", "loss_k3", "none")
REACHES = ("reward", "loss_k2")
"""Of these the optimum is p: k2 of the whole draw has the gradient of the KL on draws of π."""


@dataclass(frozen=True, kw_only=True)
class Rewarded(Matches):
    """What aligners that ascend a reward have in common: r = log P − log a, a broken hard constraint's log ε = `floor`.

    That of a reward r at β is r/β, of moments λ·φ at the fitted λ; with the KL to the base the optimum is
    p_ε ∝ a·max(b, ε)·e^{λ·φ + r/β}.
    """

    floor: float = unlabelled(0.01)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_floor(self.name, self.floor)
        if self.batch < 2:
            raise UsageError(f"{self.name}:batch={self.batch}: it compares draws of a prompt: give 2 at least")

    def remark(self, target: Target) -> str:
        """See `Trained.remark`."""
        return p_epsilon(self.floor, target)


def check_floor(name: str, floor: object) -> None:
    """Raise UsageError unless ε is between 0 and 1."""
    if not is_number(floor) or not 0 < floor < 1:  # type: ignore[operator]
        raise UsageError(f"{name}:floor={floor}: must be between 0 and 1, as what a broken hard constraint weighs")


def p_epsilon(floor: float, target: Target) -> str:
    """What a row says where a broken hard constraint weighs ε, and p_ε is aimed at; "" where nothing is hard."""
    hard = any(c.kind == "always" for c in target.constraints)
    return f"a broken hard constraint weighs ε = {floor:g}: it aims at p_ε" if hard else ""


@aligner("reinforce", target_driven=True, density="exact")
@dataclass(frozen=True, kw_only=True)
class Reinforce(Rewarded):
    """Ascends E_π[r − log(π/a)], nats: the KL to the base is in the reward, so that the optimum is p_ε.

    r is that of `Rewarded`, the baseline the mean of the other draws of the prompt (RLOO, Ahmadian et al. 2024). `kl`:
    where the KL is, see `rewards.reinforced`; all but "reward" and "loss_k2" have other optima than p_ε.
    """

    kl: str = unlabelled("reward")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kl not in KL:
            raise UsageError(f"reinforce:kl={self.kl}: unknown.{did_you_mean(str(self.kl), KL)}")

    def remark(self, target: Target) -> str:
        """See `Trained.remark`."""
        own = "" if self.kl in REACHES else f"kl={self.kl}: its optimum is not p"
        return joined(own, super().remark(target))

    def method(self, work: Work) -> Method:
        """See `Trained.method`."""
        return Reinforcing(work, self)


class Reinforcing(Method):
    """Steps on draws of the policy, at most `renew` − 1 steps old."""

    def __init__(self, work: Work, recipe: Rewarded) -> None:
        super().__init__(work, recipe.batch)
        base = law_of(work.setting.base, recipe.name)
        if base.truncates:
            raise Unsupported(f"{recipe.name}: {base.name} cannot say all tokens, and the KL to it is soon infinite: "
                              "leave out what cuts them (top_k, top_p, …), or take dpg")  # fmt: skip
        self.recipe = recipe
        floor = float(np.log(recipe.floor))
        alone = recipe.batch < 2 * len(work.prompts)  # where prompts are many a step has two draws of some
        self.own = OwnDraws(
            work, recipe.batch, recipe.renew, recipe.steps, floor, by_token=True, each=2 if alone else 1
        )

    def batches(self, step: int) -> Mapping[str, Batch]:
        """See `Method.batches`."""
        return {"loss": self.own.batch(step, self.work.policy)}

    def loss(self, term: str, by_token: torch.Tensor, known: Known) -> torch.Tensor:
        """See `Method.loss`."""
        assert isinstance(self.recipe, Reinforce)
        return reinforced(by_token, Rollout.of(known, by_token), kl=self.recipe.kl).mean()

    def after(self, step: int, values: Mapping[str, tuple[Batch, Array]]) -> dict[str, float]:
        """See `Method.after`: KL(π‖a) − E_π[r] as it was when they were drawn, which is KL(π‖p_ε) − log Z_ε."""
        batch, log_pi = values["loss"]
        log_q = log_pi if batch.log_proposal is None else batch.log_proposal
        return {"objective": float((log_q - batch.log_base - batch.log_ratio).mean())}

    def resumable(self, step: int) -> bool:
        """See `Method.resumable`: what is drawn ahead is not kept."""
        return not self.own.held
