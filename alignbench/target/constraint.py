"""A constraint: a feature, one thing that is asked of it, and whether that can be asked at all."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from alignbench.errors import UsageError
from alignbench.types import Array, Wanted

Kind = Literal["always", "moment", "distribution", "reward"]


@dataclass(frozen=True)
class Constraint:
    """A feature and what is asked of it.

    "always": b = 1[feature is 1]. "moment": E_p[feature] = wanted. "distribution": category → its share among the
    draws that fall in a listed category; the other draws stay free. "reward": tilt by feature / β.
    """

    feature: str
    kind: Kind
    wanted: float | Mapping[str, float] | None = None
    beta: float = 1.0
    per: Literal["task", "prompt"] = "task"  # one λ for the task, or one per prompt

    def __post_init__(self) -> None:
        if self.kind == "moment" and not (_is_number(self.wanted) and math.isfinite(self.number)):
            raise UsageError(f"{self}: a moment is a finite number, not {self.wanted!r}")
        if self.kind == "distribution":
            self._check_shares()
        if not (_is_number(self.beta) and 0 < self.beta < math.inf):
            raise UsageError(f"{self}: beta must be above 0, not {self.beta!r}")

    def __str__(self) -> str:
        return f"{self.kind} constraint on '{self.feature}'"

    @property
    def number(self) -> float:
        """The wanted value of a moment."""
        return float(self.wanted)  # type: ignore[arg-type]

    @property
    def shares(self) -> Mapping[str, float]:
        """Category → wanted share; empty unless a distribution."""
        return self.wanted if isinstance(self.wanted, Mapping) else {}

    @property
    def is_moment(self) -> bool:
        """Whether λ is fitted for it."""
        return self.kind in ("moment", "distribution")

    @property
    def identity(self) -> dict[str, Any]:
        """What p depends on."""
        asked: dict[str, Any] = {"feature": self.feature, "kind": self.kind}
        if self.kind == "moment":
            asked["wanted"] = self.number
        if self.kind == "distribution":
            asked["wanted"] = [[name, float(share)] for name, share in self.shares.items()]
        if self.kind == "reward":
            asked["beta"] = float(self.beta)
        return asked | ({"per": self.per} if self.is_moment else {})

    @property
    def asks(self) -> tuple[Wanted, ...]:
        """What is asked, one for each listed category of a distribution."""
        if self.kind == "distribution":
            return tuple(Wanted(self.feature, "distribution", name, float(s)) for name, s in self.shares.items())
        value = {"always": 1.0, "moment": self.wanted, "reward": None}[self.kind]
        return (Wanted(self.feature, self.kind, value=None if value is None else float(value)),)  # type: ignore[arg-type]

    @property
    def free(self) -> tuple[Wanted, ...]:
        """What has a λ of its own: the last share of a distribution follows from the others."""
        return () if not self.is_moment else self.asks[:-1] if self.kind == "distribution" else self.asks

    def holds(self, values: Array) -> Array:
        """(B,) where a hard constraint holds; raises UsageError on a value other than 0 and 1."""
        odd = (values != 0) & (values != 1)
        if odd.any():
            raise UsageError(f"{self}: 'always' needs a feature that is 0 or 1, and a draw has {values[odd][0]:g}")
        return np.asarray(values == 1)

    def _check_shares(self) -> None:
        if len(self.shares) < 2:
            raise UsageError(f"{self}: needs the shares of two categories or more, not {self.wanted!r}")
        for name, share in self.shares.items():
            if not (_is_number(share) and 0 <= share < math.inf):
                raise UsageError(f"{self}: the share of '{name}' must be a number above 0, not {share!r}")
            if share == 0:
                raise UsageError(
                    f"{self}: a share of 0 rules '{name}' out, which no λ can do; leave it out here and use an "
                    "'always' constraint on a feature that is 0 there"
                )
        total = math.fsum(self.shares.values())
        if abs(total - 1) > 1e-6:
            raise UsageError(f"{self}: the shares must sum to 1, not {total:g}")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
