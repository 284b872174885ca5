"""Axes of charts: what they are called, from where to where they go, and where the ticks stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, copysign, expm1, floor, isfinite, log1p, log10

from alignbench.metrics import range_of

TITLES = {
    "divergence.kl_target": "KL(p‖π), nats",
    "divergence.kl_reverse": "KL(π‖p), nats",
    "divergence.kl_base": "KL(π‖a), nats",
    "divergence.kl_asked": "asked gap, nats",
    "divergence.kl_collateral": "collateral, nats",
    "divergence.tv": "TV(π, p)",
    "divergence.js": "JS(π, p), nats",
    "satisfaction.always": "share of draws that keep all hard constraints",
    "moment_error": "mean |reached − wanted|",
    "cost.calls_per_draw": "model calls per draw",
    "cost.tokens_per_draw": "tokens computed per draw",
    "cost.proposals_per_draw": "proposals per draw",
    "cost.seconds": "seconds",
}  # fmt: skip
"""Column → what its axis is called; another goes by its key."""
WIDE = 30.0  # the largest over the smallest positive value, beyond which an axis bends
TICKS = 5


@dataclass(frozen=True)
class Axis:
    """An axis from `low` to `high`; above `linear_below`, where it is set, it is logarithmic (a symlog axis)."""

    key: str
    title: str
    better: str  # "higher", "lower" or ""
    low: float
    high: float
    ticks: tuple[float, ...]
    linear_below: float | None = None

    def place(self, value: float) -> float:
        """Where `value` stands: 0 at the low end, 1 at the high end."""
        low, high, at = (self._bent(v) for v in (self.low, self.high, value))
        return (at - low) / (high - low)

    def value(self, place: float) -> float:
        """What stands at `place`, the inverse of `place()`."""
        low, high = self._bent(self.low), self._bent(self.high)
        at = low + place * (high - low)
        return at if self.linear_below is None else copysign(self.linear_below * expm1(abs(at)), at)

    def padded(self, share: float) -> Axis:
        """The same with `share` of its length more at both ends, so that marks there are free."""
        return replace(self, low=self.value(-share), high=self.value(1 + share))

    def _bent(self, value: float) -> float:
        return value if self.linear_below is None else copysign(log1p(abs(value) / self.linear_below), value)


def axis_over(key: str, values: Sequence[float], limits: Sequence[float], better: str, *, zero: bool = True) -> Axis:
    """The axis that holds all finite `values` and `limits`: linear, or symlog where values span `WIDE`.

    It begins at 0 where nothing is below and `zero` asks for it; a share goes from 0 to 1.
    """
    shown = [v for v in (*values, *limits) if isfinite(v)]
    span = range_of(*key.partition(".")[::2])
    if span is not None and all(isfinite(end) and all(span[0] <= v <= span[1] for v in shown) for end in span):
        return ruled(key, better, *span)
    low, high = min(shown, default=0.0), max(shown, default=1.0)
    low = min(low, 0.0) if zero else low
    if low == high:
        low, high = (low, 1.0) if low == 0 else (low - abs(low) / 2, high + abs(high) / 2)
    bend = _bend([v for v in values if isfinite(v) and v > 0])
    return ruled(key, better, low, high) if bend is None else _symlog(key, better, low, high, bend)


def _bend(positive: Sequence[float]) -> float | None:
    """The power of ten at or below a quarter of the values, where they span decades: few are squeezed below it."""
    if not positive or max(positive) <= WIDE * min(positive):
        return None
    return float(10.0 ** floor(log10(sorted(positive)[len(positive) // 4])))


def ruled(key: str, better: str, low: float, high: float) -> Axis:
    """Ticks at round numbers: 1, 2 or 5 times a power of ten apart."""
    rough = (high - low) / TICKS
    power = 10.0 ** floor(log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * (1 - 1e-9))
    first, last = ceil(low / step - 1e-9), floor(high / step + 1e-9)
    ticks = tuple(float(f"{n * step:.12g}") for n in range(first, last + 1))
    return Axis(key, TITLES.get(key, key), better, low, high, ticks)


def _symlog(key: str, better: str, low: float, high: float, bend: float) -> Axis:
    """Ticks at 0 and at powers of ten from `bend` on, on both sides; where these are few, at three times them too."""
    powers = [bend * 10.0**n for n in range(floor(log10(max(high, -low, bend) / bend) + 1e-9) + 1)]
    powers = powers[:: 1 + len(powers) // (TICKS + 2)]
    if len(powers) < TICKS - 1:
        powers = [m * p for p in powers for m in (1, 3)]
    every = [*(-p for p in reversed(powers)), 0.0, *powers]
    ticks = tuple(float(f"{t:.12g}") for t in every if low <= t <= high)
    return Axis(key, TITLES.get(key, key), better, low, high, ticks, bend)
