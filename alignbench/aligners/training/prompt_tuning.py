"""Prompt tuning: a few embeddings before every prompt are trained, and nothing else (Lester et al. 2021)."""

from __future__ import annotations

from dataclasses import dataclass

from alignbench.aligners.training.dpg import DPG
from alignbench.aligners.training.method import Method
from alignbench.aligners.training.options import unlabelled
from alignbench.aligners.training.sft import SFT
from alignbench.aligners.training.work import Work
from alignbench.errors import UsageError, did_you_mean
from alignbench.registry import aligner

OBJECTIVES = ("dpg", "sft")


@aligner("prompt_tuning", target_driven=True, density="exact")
@dataclass(frozen=True, kw_only=True)
class PromptTuning(DPG):
    """`dpg`, or `objective=sft`, of a soft prompt (Lester et al. 2021): `adapter` "prompt:tokens=20".

    A soft prompt reaches less than LoRA: its optimum is the policy of that form that is nearest to p. The rate is far
    above LoRA's.
    """

    objective: str = "dpg"
    adapter: str = "prompt:tokens=20"
    lr: float = unlabelled(3e-2)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.objective not in OBJECTIVES:
            raise UsageError(f"prompt_tuning:objective={self.objective}: unknown."
                             f"{did_you_mean(str(self.objective), OBJECTIVES)}")  # fmt: skip
        if not self.adapter.startswith("prompt"):
            raise UsageError(f"prompt_tuning:adapter={self.adapter}: must be a soft prompt, such as prompt:tokens=20")

        ignored = [name for name in ("baseline", "replay", "trace", "pool", "renew")
                   if getattr(self, name) != PromptTuning.__dataclass_fields__[name].default]  # fmt: skip
        if self.objective == "sft" and ignored:
            raise UsageError(f"prompt_tuning:{ignored[0]}={getattr(self, ignored[0])}: objective=sft has no such thing")

    def method(self, work: Work) -> Method:
        """See `Trained.method`."""
        if self.objective == "dpg":
            return super().method(work)
        return SFT(steps=self.steps, minutes=self.minutes, tokens=self.tokens, batch=self.batch).method(work)
