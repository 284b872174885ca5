"""Short names of aligners: `quasi_rejection over prompt` for a spec of several lines."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from hashlib import sha256
from typing import Any

from alignbench.errors import UsageError
from alignbench.reports.table.board import plain_text
from alignbench.spec import Spec, at_step, parse_spec, without_step

SHORT = 40
"""A label of so many characters stays as it is."""
WIDTH = 16
"""Of a text or a list among the arguments, so many characters are shown."""
OVER = "proposal"
"""The argument that a short name says as `… over …`."""


def short_labels(labels: Iterable[str]) -> dict[str, str]:
    """Each aligner's label → a short one, which no other has: its name, with arguments or digits where need be.

    Checkpoints of one training share it, but for their step.
    """
    parts = {label: without_step(label) for label in dict.fromkeys(labels)}
    short = _short_labels(trained for trained, _ in parts.values())
    return {
        label: short[trained] if step is None else at_step(short[trained], step)
        for label, (trained, step) in parts.items()
    }


def _short_labels(labels: Iterable[str]) -> dict[str, str]:
    specs = {label: _parsed(label) if len(label) > SHORT else None for label in dict.fromkeys(labels)}
    chosen = {label: plain_text(label) for label, spec in specs.items() if spec is None}
    long = {label: spec for label, spec in specs.items() if spec is not None}
    heads = Counter(aligner_name(label) + (_over(spec) if spec else "") for label, spec in specs.items())
    tries: tuple[Callable[[str, Spec], str], ...] = (
        lambda label, spec: spec.name + _over(spec) if heads[spec.name + _over(spec)] == 1 else _brief(spec),
        lambda label, spec: _brief(spec),
        lambda label, spec: _brief(spec, deep=True),
        lambda label, spec: f"{_brief(spec)} #{digits(label)}",
    )
    for name_of in tries:
        found = {label: plain_text(name_of(label, spec)) for label, spec in long.items() if label not in chosen}
        count = Counter([*chosen.values(), *found.values()])
        chosen |= {label: name for label, name in found.items() if count[name] == 1}
    return {label: chosen.get(label) or plain_text(label) for label in specs}


def aligner_name(label: str) -> str:
    """The registered name that the label of an aligner begins with; "" where it says none."""
    found = re.match(r"(?:\{name: *)?['\"]?(\w+)", label)
    return found[1] if found else ""


def meant(name: str, labels: Collection[str]) -> list[str]:
    """The labels that a user's word for a row means: itself, else those whose path it ends, else an aligner's name."""
    if name in labels:
        return [name]
    ends = [label for label in labels if label.endswith(f"/{name.rstrip('/')}")]
    return ends or [label for label in labels if label.split(":")[0] == name]


def digits(label: str) -> str:
    """Eight digits that tell a label from others."""
    return sha256(label.encode("utf-8", "backslashreplace")).hexdigest()[:8]


def _parsed(given: Any) -> Spec | None:
    """The spec that a label or an argument says; None where it is none."""
    try:
        return parse_spec(given, "")
    except (UsageError, ValueError):  # a date that is none is a ValueError of the YAML reader
        return None


def _brief(spec: Spec, *, deep: bool = False) -> str:
    """The spec with long arguments cut; nested ones by their names alone unless `deep`; a text alone in quotes."""
    if len(spec.arguments) == 1 and isinstance(text := next(iter(spec.arguments.values())), str) and " " in text:
        return f'{spec.name} "{_cut(text)}"' if _nested(text) is None else spec.name
    told = ",".join(f"{k}={_value(v, deep)}" for k, v in spec.arguments.items() if k != OVER)
    return f"{spec.name}{':' if told else ''}{told}{_over(spec, deep)}"


def _over(spec: Spec, deep: bool = False) -> str:
    """` over <proposal>`; nothing where it chooses among draws of the base."""
    return f" over {_value(spec.arguments[OVER], deep)}" if OVER in spec.arguments else ""


def _value(value: Any, deep: bool) -> str:
    if nested := _nested(value):
        return _brief(nested, deep=deep) if deep else nested.name
    if isinstance(value, (list, tuple)):
        items = [_value(v, deep) for v in value]
        return " + ".join(items) if any(map(_nested, value)) else _cut(f"[{', '.join(items)}]")
    if isinstance(value, Mapping):
        return "{…}"
    return _cut(str(value).lower() if isinstance(value, bool) else str(value))


def _nested(value: Any) -> Spec | None:
    """A spec among the arguments: a mapping with a name, or one written as inline YAML."""
    is_spec = "name" in value if isinstance(value, Mapping) else str(value).startswith("{name:")
    return _parsed(value) if is_spec else None


def _cut(text: str) -> str:
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 1].rstrip()}…"
