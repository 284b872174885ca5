"""How a user names a thing with its arguments: `name`, `name:key=value,key=value`, or inline YAML."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from glob import has_magic
from pathlib import Path
from typing import Any

import yaml

from alignbench.errors import UsageError
from alignbench.registry import Registry, refuse_code

STEP = re.compile(r"(?<![a-z])(?:step|checkpoint|ckpt|iter)s?[-_=]?(\d+)(?![a-z\d]|\.\d)", re.IGNORECASE)
"""Where the name of a checkpoint tells its training step."""
AT = re.compile(r" @ step-(\d+)$")
"""Where the label of an aligner that was stopped early tells the step, see `at_step`."""


class Loader(yaml.SafeLoader):
    """Safe YAML in which 1e-3 is a number, as in YAML 1.2 and on the command line (YAML 1.1 wants 1.0e-3)."""


class Dumper(yaml.SafeDumper):
    """Writes what `Loader` reads: the text "1e-3" goes in quotes."""


Dumper.add_representer(
    str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, '"' if "\n" in text else None)
)  # a text of several lines on one, as "\n"
for _kind in (Loader, Dumper):
    _kind.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)[eE][-+]?\d+$"), list("-+.0123456789")
    )


@dataclass(frozen=True)
class Spec:
    """A registered name and the arguments given to it."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    alias: str = field(default="", compare=False)  # what its row is called; "" for its label
    only: tuple[str, ...] = field(default=(), compare=False)  # names or patterns of the tasks that it is run on
    ends: Mapping[str, str] = field(default_factory=dict, compare=False)  # argument → the end of its path that tells it

    @property
    def label(self) -> str:
        """The spec as a user would type it, which reads as the same spec again; what tables show."""
        given = ",".join(f"{k}={_typed(v)}" for k, v in self.arguments.items())
        if not all(_plain(v) for v in self.arguments.values()):
            return _inline({"name": self.name, **self.arguments})
        return f"{self.name}:{given}" if given else self.name

    def build(self, registry: Registry, where: str, **supplied: Any) -> Any:
        """Call the registered thing with these arguments, and with those `supplied` that it takes and are not given.

        Raises UsageError on an unknown name or argument, and on `trust_remote_code` unless it is `supplied`.
        """
        entry = registry.find(self.name, where)
        entry.check(self.arguments, f"{where} '{self.name}'" if where else self.name, supplied=tuple(supplied))
        extra = {k: v for k, v in supplied.items() if k in entry.parameters and k not in self.arguments}
        return entry.thing(**{**extra, **self.arguments})


def parse_spec(given: str | Mapping[str, Any], where: str) -> Spec:
    """A spec from what a user typed or a file says, without leave to run a repository's code; raises UsageError."""
    spec = _from_mapping(given, where) if isinstance(given, Mapping) else _from_text(given, where)
    refuse_code(spec.arguments, where)
    return spec


def titled(spec: Spec, where: str) -> Spec:
    """The spec of a row, without the words that are no arguments: `name=` (in YAML `as`) and `tasks=`.

    Raises UsageError where one of them is no text, or an alias is empty.
    """
    arguments = dict(spec.arguments)
    alias = arguments.pop("as", arguments.pop("name", None))
    only = arguments.pop("tasks", ())
    patterns = (only,) if isinstance(only, str) else tuple(only) if isinstance(only, (list, tuple)) else (only,)
    if alias is not None and (not isinstance(alias, str) or not alias.strip()):
        raise UsageError(f"{where} '{spec.name}': name= is what its row is called, not {alias!r}")
    if not all(isinstance(pattern, str) for pattern in patterns):
        raise UsageError(f"{where} '{spec.name}': tasks= is a task's name or pattern, or a list of them, not {only!r}")
    return Spec(spec.name, arguments, (alias or "").strip(), patterns)


PATHS = ("pretrained", "peft", "json_schema")
"""Arguments that may be a path; in no other is a text taken for one, which may begin with dots too."""


def beside(folder: Path, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that a file in `folder` says, its relative paths found from the working folder."""
    return {key: _moved(key, value, Path(), folder) for key, value in arguments.items()}


def seen_from(folder: Path, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `beside`: the arguments as a file in `folder` says them."""
    return {key: _moved(key, value, folder, Path()) for key, value in arguments.items()}


def moved(path: str | Path, to: Path, start: Path) -> str:
    """A path as it is written in the folder `to`, if it is relative to `start`."""
    return str(path) if Path(path).expanduser().is_absolute() else os.path.relpath(start / path, to)


def _moved(key: str, value: Any, to: Path, start: Path) -> Any:
    if isinstance(value, Mapping) and isinstance(value.get("name"), str):  # a spec among the arguments
        return {k: _moved(str(k), v, to, start) for k, v in value.items()}
    if isinstance(value, list):
        return [_moved("", v, to, start) for v in value]
    if key not in PATHS or not isinstance(value, str) or value.startswith(("pypi:", "hf:")):
        return value
    if has_magic(value) or (start / value).exists():
        return moved(value, to, start)
    if not value.startswith(("./", "../")):  # of the hub, for all that is known here
        return value
    found = moved(value, to, start)
    return found if found.startswith((os.pardir, os.sep)) else f"./{found}"


def _from_text(given: str, where: str) -> Spec:
    text = given.strip()
    if text.startswith("{"):
        return _from_mapping(_yaml(text, where), where)
    name, _, rest = text.partition(":")
    if not name:
        raise UsageError(f"{where}: '{given}' names nothing")
    return Spec(name.strip(), parse_arguments(rest, f"{where} '{name}'"))


def parse_arguments(text: str, where: str) -> dict[str, Any]:
    """`key=value,key=value` as a dict; numbers, true, false and null are read as such, all else is text.

    A comma inside a value needs the inline form.
    """
    found: dict[str, Any] = {}
    for piece in filter(None, (p.strip() for p in text.split(","))):
        key, equals, value = piece.partition("=")
        if not equals or not key:
            raise UsageError(
                f"{where}: '{piece}' is not key=value (where a value holds a comma, use inline YAML: "
                "'{name: …, key: \"a, b\"}')"
            )
        if key.strip() in found:
            raise UsageError(f"{where}: '{key.strip()}' is given twice")
        found[key.strip()] = parse_scalar(value)
    return found


def _from_mapping(given: Any, where: str) -> Spec:
    if not isinstance(given, Mapping) or not isinstance(given.get("name"), str):
        raise UsageError(f"{where}: a spec in YAML is a mapping with a 'name', such as {{name: best_of_n, n: 16}}")
    return Spec(given["name"], {str(k): v for k, v in given.items() if k != "name"})


WORDS = {"true": True, "false": False, "null": None, "~": None}
LONGEST_NUMBER = 4000  # digits; Python reads no integer of more than 4,300
NUMBER = re.compile(r"[-+]?(\d+(?P<fraction>\.\d*)?|(?P<bare>\.\d+))(?P<power>e[-+]?\d+)?", re.IGNORECASE)


def parse_scalar(text: str) -> Any:
    """true, false, null and decimal numbers (1e-3 too, which YAML 1.1 calls text); anything else is text."""
    text = text.strip()
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    number = NUMBER.fullmatch(text)
    if number is None or len(text) > LONGEST_NUMBER:
        return text
    return float(text) if any(number.groupdict().values()) else int(text)


def _inline(spec: Mapping[str, Any]) -> str:
    """A spec as inline YAML; values that YAML cannot say are shown by their `str`."""
    try:
        text = yaml.dump(
            dict(spec), Dumper=Dumper, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**9
        )
    except yaml.YAMLError:
        return _inline({k: v if isinstance(v, str) else str(v) for k, v in spec.items()})
    return text.strip()


def _yaml(text: str, where: str) -> Any:
    try:
        return yaml.load(text, Loader)
    except yaml.YAMLError as error:
        raise UsageError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from error
    except (RecursionError, ValueError) as error:  # brackets thousands deep, numbers of thousands of digits
        raise UsageError(f"{where}: too long or too deep to be read as YAML") from error


def _plain(value: Any) -> bool:
    """Whether a value reads as itself where it stands between commas, on one line."""
    typed = _typed(value)
    return not {",", "\n"} & set(typed) and bool(parse_scalar(typed) == value)


def _typed(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def family_of(label: str, step: int) -> str:
    """The label of a checkpoint with * for its step: the number after a word such as "step", else the last that it is.

    Digits elsewhere stay: smollm2/step-2 and smollm2/step-4 are of one family.
    """
    digits = str(step).lstrip("0")
    for pattern in (STEP, re.compile(r"(\d+)")):
        spans = [m.span(1) for m in pattern.finditer(label) if m[1].lstrip("0") == digits]
        if spans:
            start, end = spans[-1]
            return f"{label[:start]}*{label[end:]}"
    return f"{label}*"


def at_step(label: str, step: int | str) -> str:
    """The label of an aligner's checkpoint: `dpg:steps=200 @ step-50`."""
    return f"{label} @ step-{step}"


def without_step(label: str) -> tuple[str, int | None]:
    """The inverse of `at_step`: an aligner's label, and the step; None where it is no checkpoint's."""
    found = AT.search(label)
    return (label, None) if found is None else (label[: found.start()], int(found[1]))


def training_of(generator: str, aligner: str, step: int) -> str:
    """The label that all checkpoints of one training share, with * for the step.

    Of an aligner `dpg:steps=200 @ step-50`, and where the base's name tells no step `dpg:steps=200` itself, its last:
    `dpg:steps=200 @ step-*`. Of another generator, see `family_of`.
    """
    trained, told = without_step(aligner)
    if aligner and (told == step or (told is None and not STEP.search(generator))):
        return " + ".join(filter(None, (generator, at_step(trained, "*"))))
    return " + ".join(filter(None, (family_of(generator, step), aligner)))
