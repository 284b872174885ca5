"""A registered feature with its parameters: checked before sampling, and its values after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_type_hints

import numpy as np
from pydantic import ConfigDict, PydanticSchemaGenerationError, TypeAdapter, ValidationError

from alignbench.errors import UsageError
from alignbench.registry import Entry, feature
from alignbench.types import Array, Draws

_STRICT = ConfigDict(strict=True)
_YAML_BOOLEANS = " (YAML reads yes, no, on and off as true and false: put quotes around words)"


@dataclass(frozen=True)
class BoundFeature:
    """A feature of the registry and the parameters it is called with."""

    name: str
    params: Mapping[str, Any]  # defaults filled in
    version: int
    range: tuple[float, float] | None  # lowest and highest value; None where not declared
    categories: tuple[str, ...]  # names of the codes 0, 1, …; empty for a number

    def __call__(self, prompts: Sequence[str], draws: Draws) -> Array:
        """(B,) values, or codes with −1 = no category. Raises UsageError on a wrong shape or an impossible value."""
        values = np.asarray(feature.find(self.name).thing(prompts, draws, **self.params))
        if values.shape != (len(draws),):
            raise UsageError(f"feature '{self.name}' returned shape {values.shape} for {len(draws)} draws")
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
                f"feature '{self.name}' returned {numbers[i]:g}, outside {_span(low, high)}, for draw "
                f"{int(draws.index[i])} of prompt {int(draws.prompt[i])}: {draws.texts[i]!r}"
            )
        return numbers.astype(np.int64) if self.categories else numbers

    @property
    def identity(self) -> dict[str, Any]:
        """What the values depend on: name, version, parameters, and what each code stands for."""
        return {
            "feature": self.name,
            "version": self.version,
            "params": dict(self.params),
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
    _check_types(entry, given, place)
    params = {name: given.get(name, p.default) for name, p in entry.parameters.items()} | given
    return _bound(entry, params, place)


def _bound(entry: Entry, params: dict[str, Any], place: str) -> BoundFeature:
    """The feature with its declarations resolved for `params`."""
    try:
        if "check" in entry.meta:
            entry.meta["check"](**params)
        categories = _resolve(entry.meta.get("categories", ()), params)
        bounds = _resolve(entry.meta.get("range"), params)
    except UsageError as error:
        raise UsageError(f"{place}: '{entry.name}' {error}") from error
    pair = None if bounds is None else (float(bounds[0]), float(bounds[1]))
    return BoundFeature(entry.name, params, int(entry.meta.get("version", 1)), pair, tuple(categories))


def _resolve(declared: Any, params: Mapping[str, Any]) -> Any:
    """A declaration, or what it says of these parameters if it is a function of them."""
    return declared(**params) if callable(declared) else declared


def _check_types(entry: Entry, given: Mapping[str, Any], place: str) -> None:
    """Raise UsageError when a value is not what the parameter's type hint says."""
    hints = get_type_hints(entry.thing, include_extras=True)
    for name, value in given.items():
        problem = _mismatch(hints.get(name, Any), value)
        if problem:
            raise UsageError(f"{place}: '{entry.name}' argument '{name}'{problem}")


def _mismatch(hint: Any, value: Any) -> str:
    """Why `value` is not a `hint`, or nothing; hints that pydantic has no rule for are not checked."""
    try:
        TypeAdapter(hint, config=_STRICT).validate_python(value)
    except PydanticSchemaGenerationError:
        return ""
    except ValidationError as error:
        first = error.errors()[0]
        item = "".join(f" item {part}" for part in first["loc"] if isinstance(part, int))
        hint = _YAML_BOOLEANS if isinstance(first["input"], bool) else ""
        return f"{item}: {first['msg'][0].lower()}{first['msg'][1:]}, not {first['input']!r}{hint}"
    return ""


def _span(low: float, high: float) -> str:
    return "the finite numbers" if np.isinf(low) and np.isinf(high) else f"{low:g} to {high:g}"
