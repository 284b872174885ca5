"""What the parameters of metrics must be, said before anything is sampled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from alignbench.errors import UsageError


def at_least(**lowest: int) -> Callable[..., None]:
    """A `check` for `@metric`: raises UsageError where a parameter is below its lowest value."""

    def check(**params: Any) -> None:
        for name, low in lowest.items():
            if params.get(name) is not None and params[name] < low:
                raise UsageError(f"argument '{name}': must be at least {low}, not {params[name]}")

    return check
