"""SFT: maximum likelihood on draws of p, which are the base's by rejection or by weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from alignbench.aligners.base import whole
from alignbench.aligners.training.batch import Batch, Known
from alignbench.aligners.training.corpus import corpus_batch
from alignbench.aligners.training.losses import likelihood
from alignbench.aligners.training.method import Method
from alignbench.aligners.training.of_target import TargetDraws
from alignbench.aligners.training.options import unlabelled
from alignbench.aligners.training.recipe import Trained
from alignbench.aligners.training.work import Work
from alignbench.errors import UsageError, did_you_mean
from alignbench.registry import aligner
from alignbench.seeds import APART
from alignbench.target import Target
from alignbench.types import rows_of

DATA = ("fresh", "fixed", "corpus")


@aligner("sft", target_driven=True, density="exact")
@dataclass(frozen=True, kw_only=True)
class SFT(Trained):
    """Descends −E_p[log π], nats, on draws of p: base draws of the stream `train`, kept by rejection or weighed by P/a.

    `data` "fresh": no draw twice, the optimum is p; "fixed": `draws` of p a prompt again and again, which it learns by
    heart; "corpus": the task's corpus, whatever it is. With `patience` > 0 it stops after as many looks (every 10
    steps) at `held_out` other draws of p a prompt without a smaller loss, and keeps the best weights.
    """

    data: str = "fresh"
    draws: int = unlabelled(200)
    patience: int = unlabelled(0)
    held_out: int = unlabelled(32)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.data not in DATA:
            raise UsageError(f"sft:data={self.data}: unknown.{did_you_mean(str(self.data), DATA)}")
        whole("sft:draws", self.draws)
        whole("sft:held_out", self.held_out)
        whole("sft:patience", self.patience, 0)

    @property
    def ends_at(self) -> int | None:
        """See `Trained.ends_at`."""
        return None if self.patience else super().ends_at

    def remark(self, target: Target) -> str:
        """See `Trained.remark`."""
        if self.data == "corpus":
            return "trained on the task's corpus, which need not be draws of p"
        return f"trained on {self.draws} fixed draws of p a prompt" if self.data == "fixed" else ""

    def method(self, work: Work) -> Method:
        """See `Trained.method`."""
        return Likelihood(work, self)


class Likelihood(Method):
    """Steps on draws of p."""

    draws_own = False

    def __init__(self, work: Work, recipe: SFT) -> None:
        super().__init__(work, recipe.batch)
        self.recipe, self.patience = recipe, recipe.patience
        self.draws = None if recipe.data == "corpus" else TargetDraws(work)
        self.others: Batch | None = None  # the held-out draws, once they are asked for

    def batches(self, step: int) -> Mapping[str, Batch]:
        """See `Method.batches`."""
        rows = self.work.rows(step, self.batch)
        if self.draws is None:
            return {"loss": corpus_batch(self.work, rows)}
        if self.recipe.data == "fixed":
            rows[:, 1] %= self.recipe.draws
        return {"loss": self.draws.batch(rows)}

    def loss(self, term: str, by_token: torch.Tensor, known: Known) -> torch.Tensor:
        """See `Method.loss`."""
        return likelihood(by_token.sum(1), known.weight)

    def held_out(self) -> Batch:
        """See `Method.held_out`."""
        if self.others is None:
            apart = TargetDraws(self.work, first=APART)
            self.others = apart.batch(rows_of(len(self.work.prompts), self.recipe.held_out))
        return self.others
