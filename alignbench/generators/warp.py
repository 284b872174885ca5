"""Decoding settings: what temperature, top-k, top-p and min-p make of a model's next-token distribution."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch

from alignbench.errors import UsageError


@dataclass(frozen=True)
class Warp:
    """Decoding settings, applied in transformers' order: temperature, top-k, top-p, min-p; ties are kept.

    The defaults change nothing; in particular no top-k of 50 (which transformers applies when none is given).
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise UsageError(f"{name}={value}: must be a number")
        if not self.temperature > 0 or self.temperature == float("inf"):
            raise UsageError(f"temperature={self.temperature}: must be above 0 (a law at 0 is greedy: a point mass)")
        if not float(self.top_k).is_integer() or self.top_k < 0:
            raise UsageError(f"top_k={self.top_k}: must be a whole number >= 0 (0 keeps every token)")
        if not 0 < self.top_p <= 1:
            raise UsageError(f"top_p={self.top_p}: must be in (0, 1] (1 keeps every token)")
        if not 0 <= self.min_p < 1:
            raise UsageError(f"min_p={self.min_p}: must be in [0, 1) (0 keeps every token)")
        for name, value in asdict(self).items():  # 1 and 1.0 are one law, with one identity
            object.__setattr__(self, name, int(value) if name == "top_k" else float(value))

    @property
    def truncates(self) -> bool:
        """Whether some tokens may get probability 0."""
        return self.top_k > 0 or self.top_p < 1 or self.min_p > 0

    def __call__(self, log_probs: torch.Tensor) -> torch.Tensor:
        """(…, V) nats, normalised, after the settings; −inf where a token was cut."""
        if self == Warp():
            return log_probs
        x = (log_probs / self.temperature).log_softmax(-1)
        if 0 < self.top_k < x.shape[-1]:
            x = _cut_below(x, x.topk(self.top_k).values[..., -1:])
        if self.top_p < 1:
            x = _cut_below(x, _nucleus_edge(x, self.top_p))
        if self.min_p > 0:
            x = _cut_below(x, x.max(-1, keepdim=True).values + float(np.log(self.min_p)))
        return x


def _cut_below(x: torch.Tensor, edge: torch.Tensor) -> torch.Tensor:
    """Nats renormalised over the tokens at or above `edge`."""
    return x.masked_fill(x < edge, -torch.inf).log_softmax(-1)


def _nucleus_edge(x: torch.Tensor, top_p: float) -> torch.Tensor:
    """The log-probability of the last token of the smallest set that holds `top_p` of the mass."""
    ordered = x.sort(-1, descending=True).values
    before = ordered.exp().cumsum(-1) - ordered.exp()
    kept = (before < top_p).sum(-1, keepdim=True).clamp(min=1)
    return ordered.gather(-1, kept - 1)
