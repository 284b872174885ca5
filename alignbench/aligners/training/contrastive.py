"""Contrast: which of several draws is one of p, the others the base's (noise-contrastive estimation, InfoNCE)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from alignbench.aligners.base import whole
from alignbench.aligners.training.ahead import BaseDraws
from alignbench.aligners.training.batch import Batch, Known
from alignbench.aligners.training.method import Method
from alignbench.aligners.training.of_target import TargetDraws
from alignbench.aligners.training.options import joined, unlabelled
from alignbench.aligners.training.recipe import Trained
from alignbench.aligners.training.work import Work
from alignbench.errors import UsageError, did_you_mean
from alignbench.registry import aligner
from alignbench.seeds import APART
from alignbench.target import Target

SCORES = ("ratio", "likelihood")


@aligner("contrastive", target_driven=True, density="exact")
@dataclass(frozen=True, kw_only=True)
class Contrastive(Trained):
    """Descends −log e^{f(x⁺)/τ} / Σ e^{f(x)/τ}, nats, f = log π/a: a draw of p among base draws; optimum p at τ = 1.

    Each draw of p stands among `negatives` base draws of its prompt (van den Oord et al. 2018). τ, the `temperature`,
    is that of f: elsewhere its optimum is a·(p/a)^τ. `score` "likelihood": f = log π, as contrastive language models
    have it, whose optimum is not p.
    """

    negatives: int = unlabelled(7)
    temperature: float = unlabelled(1.0)
    score: str = unlabelled("ratio")

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("contrastive:negatives", self.negatives)
        self._positive("temperature")
        if self.score not in SCORES:
            raise UsageError(f"contrastive:score={self.score}: unknown.{did_you_mean(str(self.score), SCORES)}")
        if self.batch % (1 + self.negatives):
            raise UsageError(f"contrastive:batch={self.batch}: must be a multiple of {1 + self.negatives}, a draw of p "
                             "and its negatives")  # fmt: skip

    def remark(self, target: Target) -> str:
        """See `Trained.remark`."""
        own = "score=likelihood: its optimum is not p" if self.score == "likelihood" else ""
        cold = f"temperature={self.temperature:g}: its optimum is a·(p/a)^{self.temperature:g}, not p"
        return joined(own, "" if self.temperature == 1 else cold)

    def method(self, work: Work) -> Method:
        """See `Trained.method`."""
        return Contrasting(work, self)


class Contrasting(Method):
    """Steps on draws of p among base draws, none of which is used twice."""

    draws_own = False

    def __init__(self, work: Work, recipe: Contrastive) -> None:
        super().__init__(work, recipe.batch)
        self.recipe, self.sets = recipe, recipe.batch // (1 + recipe.negatives)
        self.target, self.base = TargetDraws(work), BaseDraws(work)

    def batches(self, step: int) -> Mapping[str, Batch]:
        """See `Method.batches`."""
        rows, k = self.work.rows(step, self.sets), self.recipe.negatives
        place = {(int(c), int(i)): number for number, (c, i) in enumerate(rows)}
        processes, good = self.work.processes, self.target.batch(rows)
        good = replace(good, group=np.arange(self.sets)[processes.rank :: processes.count])
        among = np.repeat(rows, k, axis=0)
        among[:, 1] = 2 * APART + k * among[:, 1] + np.tile(np.arange(k), self.sets)  # apart from what is kept of p
        bad = self.base.batch(among)
        numbers = zip(bad.draws.prompt, (bad.draws.index - 2 * APART) // k, strict=True)
        group = np.array([place[int(c), int(i)] for c, i in numbers], int)
        return {"loss": Batch.concat([good, replace(bad, weight=-np.ones(len(bad)), group=group)])}

    def loss(self, term: str, by_token: torch.Tensor, known: Known) -> torch.Tensor:
        """See `Method.loss`."""
        log_pi = by_token.sum(1)
        f = log_pi if self.recipe.score == "likelihood" else log_pi - known.log_base
        return info_nce(f / self.recipe.temperature, known)


def info_nce(f: torch.Tensor, known: Known) -> torch.Tensor:
    """Mean over sets of −log e^f(x⁺) / Σ e^f, nats, each weighed as its draw of p is (van den Oord et al. 2018, 4).

    `known.weight` is that of the draw of p, and below 0 of the others of its set, which `known.group` numbers.
    """
    assert known.group is not None
    order = torch.argsort(2 * known.group + (known.weight < 0).long(), stable=True)
    sets = order.reshape(int(known.group.max()) + 1, -1)
    first = sets[:, 0]
    return (known.weight[first] * (f[sets].logsumexp(1) - f[first])).mean()
