"""Guidance by a trained head: what `soft_q` and `q_learning` leave, over the base it was trained on or another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignbench.aligners.base import Immediate, Setting
from alignbench.errors import UsageError
from alignbench.generators.head import TENSORS, ByHead, load_head, no_head
from alignbench.generators.law import Law, law_of
from alignbench.generators.reweighted import reweighted
from alignbench.registry import aligner
from alignbench.sources import sha256_file


@aligner("head", target_driven=False, density="exact")
@dataclass(frozen=True)
class Head(Immediate):
    """π ∝ a·e^Q at each token, by the head in the folder `path`, which a training of `soft_q` or `q_learning` left.

    It needs a base with the tokenizer and the width of that which it was trained on: a checkpoint of it, say.
    """

    path: str

    def __post_init__(self) -> None:
        if not self.path:
            raise UsageError("head: path is empty: give the folder of a trained head")

    def identity(self, setting: Setting) -> Mapping[str, Any]:
        """See `Identified.identity`: the hash of its numbers, not where they lie."""
        file = Path(self.path).expanduser() / TENSORS
        if not file.is_file():
            raise no_head(self.path)
        return {"format": self.format, "head": sha256_file(file)}

    def align(self, setting: Setting) -> Law:
        """See `Aligner.align`; raises UsageError where there is no head in `path`, or none for this base."""
        base = law_of(setting.base, "head")
        return reweighted(base, ByHead(load_head(self.path, base)))
