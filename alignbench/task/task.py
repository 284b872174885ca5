"""A task as plain data: what is asked of which prompts, and how much to draw."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from alignbench.features import BoundFeature
from alignbench.spec import Spec
from alignbench.target import Target
from alignbench.types import CiOver


@dataclass(frozen=True)
class Task:
    """Prompts, features, the target distribution, and how much to draw; plain data."""

    name: str
    version: int
    summary: str
    prompts: tuple[str, ...]
    max_tokens: int
    draws: int  # per prompt
    features: Mapping[str, BoundFeature]
    target: Target
    train: tuple[str, ...] = ()  # what aligners that train see; empty: the prompts
    corpus: tuple[str, ...] = ()  # texts that aligners which train may learn from
    preferences: tuple[tuple[str, str, str], ...] = ()  # (prompt, chosen, rejected), from which aligners may learn
    metrics: tuple[tuple[str, Mapping[str, Any]], ...] | None = None  # (name, parameters); None: all that apply
    primary: str | None = None  # metric.part that a leaderboard is sorted by
    base: str | Mapping[str, Any] | None = None  # the generator spec of a task that brings its own base
    proposals: tuple[Spec, ...] = ()  # aligners or generators whose draws join the base's as reference draws
    references: tuple[tuple[str, ...], ...] | None = None  # texts for each prompt
    ci_over: CiOver = "prompts_given"  # what intervals are meant to hold for
    path: Path | None = field(default=None, compare=False)

    @cached_property
    def hash(self) -> str:
        """Digest of what the numbers depend on: prompts, features, target, max_tokens, base, references.

        Not the name, version, summary, metrics, ci_over, proposals or number of draws.
        """
        parts = {
            "prompts": list(self.prompts),
            "features": {name: bound.identity for name, bound in self.features.items()},
            "target": self.target.identity,
            "max_tokens": self.max_tokens,
            "base": self.base,
            **({} if self.references is None else {"references": self.references}),
        }
        text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
        return sha256(text.encode()).hexdigest()

    def limited(self, prompts: int) -> Task:
        """The task on its first `prompts` prompts: another hash, since p is another."""
        cut = None if self.references is None else self.references[:prompts]
        return replace(self, prompts=self.prompts[:prompts], references=cut)
