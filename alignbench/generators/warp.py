"""Decoding settings: what temperature, cuts and a repetition penalty make of a model's next-token distribution."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch

from alignbench.errors import UsageError

ADDED = ("typical_p", "repetition_penalty")
"""Settings that the identity of a law names only where they are on, so that draws stored before them are found."""


CACHED = 16
"""Rows at once on a CPU: 16 rows of 49,152 float32 are 3 MB, which stay in the second-level cache."""
IN_CACHE = 16 * 49_152
"""Numbers of them: of a smaller vocabulary more rows go at once, of one of some ids all that there are."""


@dataclass(frozen=True)
class Warp:
    """Decoding settings, in transformers' order: repetition penalty, temperature, top-k, top-p, min-p, typical.

    `repetition_penalty` θ divides the positive logits of the tokens said before, in the prompt or the draw, by θ and
    multiplies the negative ones (Keskar et al. 2019); `typical_p` keeps the tokens whose surprise is nearest to the
    entropy, as many as hold that mass (Meister et al. 2022). Ties are kept. The defaults change nothing; in particular
    no top-k of 50 (which transformers applies when none is given).
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    repetition_penalty: float = 1.0

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
        if not 0 < self.typical_p <= 1:
            raise UsageError(f"typical_p={self.typical_p}: must be in (0, 1] (1 keeps every token)")
        if not 0 < self.repetition_penalty < float("inf"):
            raise UsageError(f"repetition_penalty={self.repetition_penalty}: must be above 0 (1 changes nothing)")
        for name, value in asdict(self).items():  # 1 and 1.0 are one law, with one identity
            object.__setattr__(self, name, int(value) if name == "top_k" else float(value))

    @property
    def truncates(self) -> bool:
        """Whether some tokens may get probability 0."""
        return self.top_k > 0 or self.top_p < 1 or self.min_p > 0 or self.typical_p < 1

    @property
    def remembers(self) -> bool:
        """Whether the settings depend on which tokens were said before, and on logits that are not normalised."""
        return self.repetition_penalty != 1

    def identity(self) -> dict[str, float]:
        """The settings, without those of `ADDED` that are off."""
        return {name: value for name, value in asdict(self).items() if name not in ADDED or value != 1}

    def __call__(self, x: torch.Tensor, seen: torch.Tensor | None = None) -> torch.Tensor:
        """(…, V) nats, normalised, after the settings; −inf where a token was cut.

        `x` are nats; with `seen` (…, V) bool, the tokens said before, they are logits. Raises UsageError without it
        where the settings remember.
        """
        if seen is None and self.remembers:
            raise UsageError(f"repetition_penalty={self.repetition_penalty}: needs to know what was said before")
        if seen is not None:
            x = log_normalised(_penalised(x, seen, self.repetition_penalty))
        if self.temperature == 1 and not self.truncates:
            return x
        x = log_normalised(x / self.temperature)
        if 0 < self.top_k < x.shape[-1]:
            x = _cut_below(x, x.topk(self.top_k).values[..., -1:])
        if self.top_p < 1:
            x = _cut_below(x, _nucleus_edge(x, self.top_p))
        if self.min_p > 0:
            x = _cut_below(x, x.max(-1, keepdim=True).values + float(np.log(self.min_p)))
        if self.typical_p < 1:
            x = _typical(x, self.typical_p)
        return x


PLAIN = Warp()
"""The model as it is."""


def at_least_float32(x: torch.Tensor) -> torch.Tensor:
    """The numbers in float32, those in float64 as they are: half precision would round nats to 0.03."""
    return x if x.dtype == torch.float64 else x.float()


def log_normalised(x: torch.Tensor) -> torch.Tensor:
    """(…, V) x − log Σ eˣ.

    On a CPU not by torch's log_softmax: it adds float32 up one after the other, and is 7e-6 nats off at each token of
    SmolLM2 (V = 49,152), always to the same side.
    """
    if x.device.type != "cpu":
        return x.log_softmax(-1)
    if torch.is_grad_enabled() and x.requires_grad:
        return x - _total(x)
    flat = x.reshape(-1, x.shape[-1])
    out, step = torch.empty_like(flat), cached_rows(x.shape[-1])
    for i in range(0, len(flat), step):
        part = flat[i : i + step]
        torch.sub(part, _total(part), out=out[i : i + step])
    return out.view(x.shape)


def _total(x: torch.Tensor) -> torch.Tensor:
    """(…, 1) log Σ eˣ; NaN where it is infinite, so that a network that overflowed gives no numbers."""
    total = x.logsumexp(-1, keepdim=True)
    return total.masked_fill(total == torch.inf, torch.nan)


def cached_rows(size: int) -> int:
    """How many rows of `size` ids are worked on at once on a CPU."""
    return max(CACHED, IN_CACHE // size)


def _penalised(logits: torch.Tensor, seen: torch.Tensor, penalty: float) -> torch.Tensor:
    """The logits, those of `seen` tokens moved away from 0 if negative, towards it if positive."""
    return torch.where(seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits)


def _typical(x: torch.Tensor, mass: float) -> torch.Tensor:
    """Nats renormalised over the smallest set that holds `mass` of the tokens whose −x is nearest to the entropy."""
    entropy = torch.special.entr(x.exp()).sum(-1, keepdim=True)
    off = (x + entropy).abs()
    nearest = off.sort(-1)
    held = x.gather(-1, nearest.indices).exp().cumsum(-1)
    last = (held < mass).sum(-1, keepdim=True).clamp(max=x.shape[-1] - 1)  # rounding may leave a mass near 1 unheld
    return log_normalised(x.masked_fill(off > nearest.values.gather(-1, last), -torch.inf))


def _cut_below(x: torch.Tensor, edge: torch.Tensor) -> torch.Tensor:
    """Nats renormalised over the tokens at or above `edge`."""
    return log_normalised(x.masked_fill(x < edge, -torch.inf))


def _nucleus_edge(x: torch.Tensor, top_p: float) -> torch.Tensor:
    """The log-probability of the last token of the smallest set that holds `top_p` of the mass."""
    ordered = x.sort(-1, descending=True).values
    before = ordered.exp().cumsum(-1) - ordered.exp()
    kept = (before < top_p).sum(-1, keepdim=True).clamp(min=1)
    return ordered.gather(-1, kept - 1)
