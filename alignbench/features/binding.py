"""A registered feature with its parameters: checked before sampling, and its values after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from alignbench.errors import RunError, UsageError, plain_failures
from alignbench.features.spans import Span, joined
from alignbench.registry import Entry, feature
from alignbench.types import Array, Draws


@dataclass(frozen=True)
class BoundFeature:
    """A feature of the registry and the parameters it is called with."""

    name: str
    params: Mapping[str, Any]  # defaults filled in
    version: int
    range: tuple[float, float] | None  # lowest and highest value; None where not declared
    categories: tuple[str, ...]  # names of the codes 0, 1, …; empty for a number

    def __call__(self, prompts: Sequence[str], draws: Draws) -> Array:
        """(B,) values, or codes with −1 = no category.

        Raises UsageError on a wrong shape or an impossible value, RunError where the feature itself fails.
        """
        thing = feature.find(self.name).thing
        with plain_failures(f"feature '{self.name}'", RunError):
            values = np.asarray(thing(prompts, draws, **self.params))
        if values.shape != (len(draws),):
            raise UsageError(f"feature '{self.name}' returned {_amount(values, draws)}")
        if values.dtype.kind not in "biuf":
            raise UsageError(f"feature '{self.name}' returned {values.dtype} values, not numbers")
        return self._possible(values, draws)

    def _possible(self, values: Array, draws: Draws) -> Array:
        """The same values, as codes or floats; raises UsageError at the first that was not declared possible."""
        numbers = values.astype(float)
        low, high = (-1, len(self.categories) - 1) if self.categories else self.range or (-np.inf, np.inf)
        bad = ~np.isfinite(numbers) | (numbers < low) | (numbers > high)
        if self.categories:
            bad |= numbers != np.rint(numbers)
        if bad.any():
            i = int(np.flatnonzero(bad)[0])
            raise UsageError(
                f"feature '{self.name}' returned {numbers[i]:g}, outside {_span(low, high)}, for {_draw(draws, i)}"
            )
        return numbers.astype(np.int64) if self.categories else numbers

    @property
    def marks(self) -> bool:
        """Whether it can say where in a text it finds what it looks for."""
        return "spans" in feature.find(self.name).meta

    def spans(self, prompt: str, text: str) -> tuple[Span, ...]:
        """Where in the continuation `text` it finds what it looks for: in order, none overlapping another.

        Empty where the feature declares no `spans`. Raises UsageError or RunError where the feature itself fails.
        """
        if not self.marks:
            return ()
        with plain_failures(f"feature '{self.name}'", RunError):
            return joined(feature.find(self.name).meta["spans"](prompt, text, **self.params), len(text))

    @property
    def identity(self) -> dict[str, Any]:
        """What the values depend on: name, version, parameters or their `identity`, and what codes stand for."""
        told = feature.find(self.name).meta.get("identity", dict)
        return {
            "feature": self.name,
            "version": self.version,
            "params": told(**self.params),
            "categories": list(self.categories),
        }


def bind(spec: Mapping[str, Any], where: str = "") -> BoundFeature:
    """The feature that `spec` = {feature: name, parameter: value, …} asks for; errors begin with `where`."""
    place = where or "feature"
    if not isinstance(spec.get("feature"), str):
        raise UsageError(f"{place}: needs the key 'feature', the name of a feature (one of {', '.join(feature)})")
    entry = feature.find(spec["feature"], where)
    given = {name: value for name, value in spec.items() if name != "feature"}
    entry.check(given, place)
    params = {name: given.get(name, p.default) for name, p in entry.parameters.items()} | given
    return _bound(entry, params, place)


def _bound(entry: Entry, params: dict[str, Any], place: str) -> BoundFeature:
    """The feature with its declarations resolved for `params`."""
    try:
        with plain_failures("its declaration of a range or categories", UsageError):
            categories = _resolve(entry.meta.get("categories", ()), params)
            bounds = _resolve(entry.meta.get("range"), params)
    except UsageError as error:
        raise UsageError(f"{place}: '{entry.name}' {error}") from error
    pair = None if bounds is None else (float(bounds[0]), float(bounds[1]))
    return BoundFeature(entry.name, params, int(entry.meta.get("version", 1)), pair, tuple(categories))


def _resolve(declared: Any, params: Mapping[str, Any]) -> Any:
    """A declaration, or what it says of these parameters if it is a function of them."""
    return declared(**params) if callable(declared) else declared


def _span(low: float, high: float) -> str:
    return "the finite numbers" if np.isinf(low) and np.isinf(high) else f"{low:g} to {high:g}"


def _draw(draws: Draws, i: int) -> str:
    """Which draw the `i`-th is, and its text."""
    return f"draw {int(draws.index[i])} of prompt {int(draws.prompt[i])}: {draws.texts[i]!r}"


def _amount(values: Array, draws: Draws) -> str:
    """What a feature returned that is not one value a draw, and the first draw that has none."""
    if values.ndim != 1:
        return f"an array of shape {values.shape} for {len(draws)} draws, not one value each"
    without = f"; the first without a value is {_draw(draws, len(values))}" if len(values) < len(draws) else ""
    return f"{len(values)} value{'' if len(values) == 1 else 's'} for {len(draws)} draws{without}"
