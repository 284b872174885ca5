"""Zero-shot prompting: tell the model what is wanted, and score against the base on the original prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from alignbench.aligners.base import need_law
from alignbench.errors import UsageError
from alignbench.generators.law import Law
from alignbench.registry import aligner
from alignbench.seeds import Seed
from alignbench.target import Target


@aligner("prompt", target_driven=False, density="exact")
@dataclass(frozen=True)
class Prompt:
    """π(·|prompt) = a(·|text with the prompt in it); `text` without "{prompt}" is put before the prompt."""

    text: str

    def __post_init__(self) -> None:
        if not isinstance(self.text, str) or not self.text.strip():
            raise UsageError("prompt: needs text=…, the instruction to put before each prompt")

    def align(
        self, base: Any, target: Target, prompts: Sequence[str], *, max_tokens: int, seed: Seed,
        workdir: Path | None = None,
    ) -> Law:  # fmt: skip
        """See `Aligner.align`."""
        law = need_law(base, "prompt")
        text = self.text if "{prompt}" in self.text else f"{self.text.rstrip()} {{prompt}}"
        return replace(law, template=law.template.replace("{prompt}", text))
