"""PPO: clipped policy gradients by token, with values of prefixes and the KL to the base in each token's reward."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from alignbench.aligners.base import whole
from alignbench.aligners.training.batch import Batch, Known
from alignbench.aligners.training.method import Method
from alignbench.aligners.training.options import a_share, joined, unlabelled
from alignbench.aligners.training.reinforce import Reinforcing, Rewarded
from alignbench.aligners.training.rewards import Rollout, advantages, by_token_reward, clipped
from alignbench.aligners.training.values import ValueHead
from alignbench.aligners.training.work import Work
from alignbench.registry import aligner
from alignbench.target import Target
from alignbench.types import Array

MOST, GAIN = 0.2, 0.1
"""The largest error that an adaptive β heeds, and how much it changes for it (Ziegler et al. 2019, equation 3)."""


@aligner("ppo", target_driven=True, density="exact")
@dataclass(frozen=True, kw_only=True)
class PPO(Rewarded):
    """Ascends E_π[r − log(π/a)], nats, by clipped ratios of tokens (Schulman et al. 2017).

    A token's reward is −log(π/a), and the last one's also r, that of `Rewarded`. Draws for `renew` steps are gone over
    `epochs` times. `trace` is the λ of the generalised advantage: below 1 it leans on the values, linear in the base's
    hidden states, see `ValueHead`. `epsilon` clips a token's π/π_old. The rate falls to 0 over all of the budget. With
    `target_kl` the weight β of the KL adapts until KL(π‖a) is so many nats (Ziegler et al. 2019): that is another
    target.
    """

    cooldown: float = unlabelled(1.0)
    epochs: int = unlabelled(2)
    epsilon: float = unlabelled(0.2)
    trace: float = unlabelled(0.95)
    target_kl: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("ppo:epochs", self.epochs)
        a_share("ppo:trace", self.trace)
        self._positive("epsilon", "target_kl")

    def remark(self, target: Target) -> str:
        """See `Trained.remark`."""
        own = "" if self.trace == 1 else "trace < 1: its optimum is p only as far as its values are right"
        if self.target_kl is not None:
            own = f"β adapts until KL(π‖a) is {self.target_kl:g} nats: its optimum is not p"
        return joined(own, super().remark(target))

    def method(self, work: Work) -> Method:
        """See `Trained.method`."""
        return Proximal(work, self)


class Proximal(Reinforcing):
    """Steps on draws of the policy as it was, each with its advantages."""

    recipe: PPO

    def __init__(self, work: Work, recipe: PPO) -> None:
        super().__init__(work, recipe)
        self.own = replace(self.own, hidden=True, last=None)
        self.head, self.beta = ValueHead(), 1.0
        self.held: list[Batch] = []

    @property
    def each(self) -> int:
        """Steps between two sets of draws."""
        return self.recipe.renew * self.recipe.epochs

    def batches(self, step: int) -> Mapping[str, Batch]:
        """See `Method.batches`."""
        number, place = divmod(step, self.each)
        if place == 0:
            self.held = self._drawn(number)
        return {"loss": self.held[place % self.recipe.renew]}

    def _drawn(self, number: int) -> list[Batch]:
        """Draws for the next steps with their advantages, of which values are learned."""
        first, policy = number * self.recipe.renew, self.work.policy
        found = [self.own.batch(first + k, policy) for k in range(self.recipe.renew)]
        found = [batch if batch.log_proposal is not None else self._dated(batch) for batch in found]
        told = [self._advantages(batch) for batch in found]
        self._learn(found, [returns for _, returns in told])
        if self.recipe.target_kl is not None:
            self._adapt(found)
        return [replace(b, values=gained, hidden=None) for b, (gained, _) in zip(found, told, strict=True)]

    def _dated(self, batch: Batch) -> Batch:
        """With the density that its draws have now, which is an older one from the next step on."""
        draws = self.work.rescored(self.work.policy, batch.draws)
        return replace(batch, draws=draws, log_proposal=np.asarray(draws.log_prob))

    def _advantages(self, batch: Batch) -> tuple[Array, Array]:
        old, base, hidden = batch.draws.token_log_prob, batch.base_by_token, batch.hidden
        assert old is not None and base is not None and hidden is not None
        reward = by_token_reward(old, base, batch.log_ratio, batch.draws.length, self.beta)
        return advantages(reward, self.head(hidden), batch.draws.length, self.recipe.trace)

    def _learn(self, batches: list[Batch], returns: list[Array]) -> None:
        """Make the values those of these draws, of all processes."""
        places, wanted = [], []
        for batch, mine in zip(batches, returns, strict=True):
            assert batch.hidden is not None
            inside = np.arange(mine.shape[1]) < batch.draws.length[:, None]
            places.append(batch.hidden[inside])
            wanted.append(mine[inside])
        processes = self.work.processes
        if not self.head.size:  # the same for all
            sizes = processes.gathered(float(np.mean(np.concatenate(places).astype(float) ** 2)))
            self.head.size = float(np.sqrt(np.mean(sizes)))
        hands = processes.gathered(self.head.sums(np.concatenate(places), np.concatenate(wanted)))
        squares, products = zip(*hands, strict=True)
        self.head.learn(np.sum(squares, 0), np.sum(products, 0))

    def _adapt(self, batches: list[Batch]) -> None:
        """Change β by how far KL(π‖a) is from what it is to be."""
        gaps = self.work.processes.gathered(np.concatenate([b.log_proposal - b.log_base for b in batches]))
        error = float(np.concatenate(gaps).mean()) / float(self.recipe.target_kl or 1) - 1
        self.beta *= 1 + GAIN * float(np.clip(error, -MOST, MOST))

    def loss(self, term: str, by_token: torch.Tensor, known: Known) -> torch.Tensor:
        """See `Method.loss`."""
        assert known.values is not None
        rollout = Rollout.of(known, by_token)
        return clipped(by_token, rollout, known.values, epsilon=self.recipe.epsilon).sum(1).mean()

    def after(self, step: int, values: Mapping[str, tuple[Batch, Array]]) -> dict[str, float]:
        """See `Reinforcing.after`; with β where it adapts."""
        beta = {} if self.recipe.target_kl is None else {"beta": self.beta}
        return {**super().after(step, values), **beta}

    def resumable(self, step: int) -> bool:
        """See `Method.resumable`."""
        return step % self.each == 0

    def state(self) -> dict[str, Any]:
        """See `Method.state`."""
        return {"weights": self.head.weights.tolist(), "size": self.head.size, "beta": self.beta}

    def resume(self, step: int, state: Mapping[str, Any]) -> None:
        """See `Method.resume`."""
        self.head, self.beta = ValueHead(np.array(state["weights"]), state["size"]), state["beta"]
