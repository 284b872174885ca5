"""A trained head as a guide: the next token of any base with the same hidden states, weighed by e^Q."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from alignbench.aligners.base import Setting
from alignbench.errors import StoreError, UsageError
from alignbench.generators.head import TENSORS, HeadedLaw, load_head
from alignbench.generators.law import law_of
from alignbench.registry import aligner
from alignbench.sources import sha256_file


@aligner("head", target_driven=False, density="exact")
@dataclass(frozen=True)
class GuidedByHead:
    """π(v | prefix) ∝ a(v | prefix)·e^{Q(v)}, Q of a head that was trained before, such as by `soft_q`.

    `path`: the folder that `alignbench align --aligner soft_q` left. The base may be another one, such as one under
    another prompt, if its hidden states have as many numbers and its tokens are the same.
    """

    format: ClassVar[int] = 1
    path: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.path, str) or not self.path:
            raise UsageError("head: needs path=, the folder of a trained head, as `align --aligner soft_q` leaves one")

    def identity(self, setting: Setting) -> Mapping[str, Any]:
        """See `Identified.identity`: the head's numbers."""
        file = Path(self.path, TENSORS)
        if not file.is_file():
            raise StoreError(f"{self.path}: holds no head ({TENSORS})")
        return {"format": self.format, "weights": sha256_file(file)}

    def align(self, setting: Setting) -> HeadedLaw:
        """See `Aligner.align`; raises StoreError where the folder holds no head, or one of another base."""
        return load_head(law_of(setting.base, "head"), self.path)
