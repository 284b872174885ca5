"""Decoding settings as aligners: each changes the law and knows nothing of the target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from alignbench.aligners.base import Immediate, Setting
from alignbench.aligners.identities import registered
from alignbench.generators.law import Law, law_of
from alignbench.generators.warp import Warp
from alignbench.registry import aligner


@dataclass(frozen=True)
class _Decoding(Immediate):
    def settings(self) -> dict[str, Any]:
        raise NotImplementedError

    def __post_init__(self) -> None:
        Warp(**self.settings())  # raises UsageError on a value out of range

    def align(self, setting: Setting) -> Law:
        """See `Aligner.align`."""
        return law_of(setting.base, registered(self)).warped(**self.settings())


@aligner("temperature", target_driven=False, density="exact")
@dataclass(frozen=True)
class Temperature(_Decoding):
    """π ∝ a^(1/t) at each token; t < 1 sharpens. Changes the law only, never reads the target."""

    t: float = 0.7

    def settings(self) -> dict[str, Any]:
        """The law's settings."""
        return {"temperature": self.t}


@aligner("top_k", target_driven=False, density="exact")
@dataclass(frozen=True)
class TopK(_Decoding):
    """Keep the k likeliest tokens at each step (Fan et al. 2018); truncates, so KL(p‖π) is often infinite."""

    k: int = 50

    def settings(self) -> dict[str, Any]:
        """The law's settings."""
        return {"top_k": self.k}


@aligner("top_p", target_driven=False, density="exact")
@dataclass(frozen=True)
class TopP(_Decoding):
    """Keep the smallest set of tokens that holds mass p (Holtzman et al. 2020); truncates as top-k does."""

    p: float = 0.9

    def settings(self) -> dict[str, Any]:
        """The law's settings."""
        return {"top_p": self.p}


@aligner("min_p", target_driven=False, density="exact")
@dataclass(frozen=True)
class MinP(_Decoding):
    """Keep the tokens with at least p times the likeliest token's probability (Nguyen et al. 2024); truncates."""

    p: float = 0.1

    def settings(self) -> dict[str, Any]:
        """The law's settings."""
        return {"min_p": self.p}


@aligner("typical", target_driven=False, density="exact")
@dataclass(frozen=True)
class Typical(_Decoding):
    """Keep the tokens whose surprise is nearest to the entropy, up to mass p (Meister et al. 2022); truncates."""

    p: float = 0.95

    def settings(self) -> dict[str, Any]:
        """The law's settings."""
        return {"typical_p": self.p}


@aligner("repetition_penalty", target_driven=False, density="exact")
@dataclass(frozen=True)
class RepetitionPenalty(_Decoding):
    """Logits of tokens said before over θ, or times θ if negative (Keskar et al. 2019); keeps full support."""

    penalty: float = 1.2

    def settings(self) -> dict[str, Any]:
        """The law's settings."""
        return {"repetition_penalty": self.penalty}
