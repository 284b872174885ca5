"""Q-learning with a hard backup, and ILQL: Q of each next token as the field has it; its optimum is not p."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from alignbench.aligners.base import is_number
from alignbench.aligners.training.backups import backed_up, expectile, squared
from alignbench.aligners.training.batch import Known
from alignbench.aligners.training.method import Method
from alignbench.aligners.training.options import joined
from alignbench.aligners.training.soft_q import ValueBased, ValueSteps
from alignbench.aligners.training.work import Work
from alignbench.errors import UsageError
from alignbench.generators.head import Valued
from alignbench.registry import aligner
from alignbench.target import Target


@aligner("q_learning", target_driven=True, density="exact")
@dataclass(frozen=True, kw_only=True)
class QLearning(ValueBased):
    """Learns Q, nats, of a token as the largest Q after it, and acts by π ∝ a·e^Q: not p.

    With `tau` a value of each prefix is learned, the τ-expectile of Q over what the base says next, and Q is that value
    after the token: ILQL (Snell et al. 2022), which keeps to the base's own tokens.
    """

    tau: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tau is not None and (not is_number(self.tau) or not 0 < self.tau < 1):
            raise UsageError(f"q_learning:tau={self.tau}: must be between 0 and 1")

    def remark(self, target: Target) -> str:
        """See `Trained.remark`."""
        what = "the largest Q" if self.tau is None else f"the {self.tau:g}-expectile of Q"
        own = f"its values are {what}, not log E[e^r]: its optimum is not p"
        return joined(own, super().remark(target))

    def method(self, work: Work) -> Method:
        """See `Trained.method`."""
        return Hard(work, self)


class Hard(ValueSteps):
    """The hard backup, or that of a value which is learned too."""

    recipe: QLearning

    def error(self, valued: Valued, known: Known) -> torch.Tensor:
        """See `ValueSteps.error`."""
        q, tau, inside = valued.log_t + valued.v, self.recipe.tau, known.inside
        if tau is None:
            return squared(q, backed_up(valued.q_max, known.log_ratio, inside), inside)
        wanted = backed_up(valued.state_value, known.log_ratio, inside)
        return squared(q, wanted, inside) + expectile(valued.state_value, valued.q, inside, tau=tau)
