"""A YAML file as plain data that knows its lines: every error names the file and the line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from alignbench.errors import TaskError, UsageError, brief, did_you_mean
from alignbench.spec import Loader

Key = tuple[str | int, ...]
MOST_KEYS = 200_000  # a file that aliases blow up to more than this is refused


class Strict(BaseModel):
    """The keys of a mapping, and no others."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


_S = TypeVar("_S", bound=Strict)


@dataclass(frozen=True)
class Page:
    """A YAML file's mapping as plain data, and the line of each of its keys and items."""

    path: Path
    data: dict[str, Any]
    lines: Mapping[Key, int]

    def where(self, key: Key = ()) -> str:
        """``file:line`` of a key, or of the nearest one around it that is written down."""
        while key not in self.lines and key:
            key = key[:-1]
        return f"{shown(self.path)}:{self.lines[key]}" if key in self.lines else shown(self.path)

    @contextmanager
    def at(self, key: Key) -> Iterator[str]:
        """Usage errors inside become task errors that begin with where the key is; yields that place."""
        where = self.where(key)
        try:
            yield where
        except TaskError:
            raise
        except UsageError as error:
            told = str(error)
            for known in (f"{where}: ", f"{where} "):  # a spec's own errors begin "where 'name': "
                told = told.removeprefix(known)
            raise TaskError(f"{where}: {told}") from error

    def refuse(self, key: Key, what: str) -> TaskError:
        """The error that says `what` of a key."""
        return TaskError(f"{self.where(key)}: {what}")

    def checked(self, model: type[_S], data: Any, key: Key) -> _S:
        """`data`, found at `key`, as a model; raises TaskError on the first thing that is wrong."""
        try:
            return model.model_validate(data)
        except ValidationError as error:
            raise self._first(error, model, key) from error

    def _first(self, error: ValidationError, model: type[BaseModel], key: Key) -> TaskError:
        first = min(error.errors(), key=lambda e: self.lines.get((*key, *e["loc"]), 0))
        loc = tuple(part for part in first["loc"] if part != "[key]")
        name = ".".join(map(str, loc))
        if first["type"] == "extra_forbidden":
            what = f"unknown key '{name}'.{did_you_mean(name, model.model_fields)}"
        elif first["type"] == "missing":
            what = f"the key '{name}' is missing"
        elif first["type"] == "greater_than_equal":
            what = f"{name} must be at least {first['ctx']['ge']}, not {first['input']!r}"
        else:
            what = f"{name}: {first['msg'][0].lower()}{first['msg'][1:]}, not {brief(first['input'])}"
        return self.refuse((*key, *loc), what)


def read(path: Path, what: str = "a task is a mapping of keys (name, version, …)") -> Page:
    """The mapping in a YAML file and the lines of its keys; a safe loader, so nothing is executed."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"{shown(path)}: cannot be read: {reason_of(error)}") from error
    try:
        lines, data = _parse(text, path)
    except yaml.YAMLError as error:
        raise TaskError(f"{shown(path)}{_complaint(error)}") from error
    if len(lines) == MOST_KEYS:
        raise TaskError(f"{shown(path)}: has more than {MOST_KEYS:,} keys and items")
    if not isinstance(data, dict):
        raise TaskError(f"{shown(path)}:1: {what}, not {brief(data)}")
    return Page(path, data, lines)


def _parse(text: str, path: Path) -> tuple[dict[Key, int], Any]:
    """The line of each key (at most MOST_KEYS of them), and the plain data."""
    loader = Loader(text)
    try:
        node = loader.get_single_node()
        lines = dict(islice(_lines(node, (), path, frozenset()), MOST_KEYS))
        return lines, {} if node is None else loader.construct_document(node)
    finally:
        loader.dispose()


def _lines(node: yaml.Node | None, key: Key, path: Path, above: frozenset[int]) -> Iterator[tuple[Key, int]]:
    """(key, line) of everything in the tree; raises TaskError on a key given twice, and on a loop of aliases."""
    if isinstance(node, yaml.ScalarNode) or node is None:
        return
    if id(node) in above:
        raise TaskError(f"{shown(path)}:{node.start_mark.line + 1}: a YAML alias that contains itself")
    seen: dict[str, int] = {}
    for name, marked, child in _children(node):
        line = marked.start_mark.line + 1
        if name in seen:
            raise TaskError(f"{shown(path)}:{line}: the key '{name}' is there twice, first on line {seen[name]}")
        seen[name] = line
        yield (*key, name), line
        yield from _lines(child, (*key, name), path, above | {id(node)})


def _children(node: yaml.Node) -> Iterator[tuple[Any, yaml.Node, yaml.Node]]:
    """(key or position, the node that marks its line, the child) of a mapping or a list."""
    for i, item in enumerate(node.value):
        if isinstance(node, yaml.MappingNode):
            yield (item[0].value if isinstance(item[0], yaml.ScalarNode) else i, *item)
        else:
            yield i, item, item


def _complaint(error: yaml.YAMLError) -> str:
    """``:line:column: what is wrong`` of broken YAML."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return f": is not YAML: {getattr(error, 'reason', None) or str(error).splitlines()[0]}"
    problem = getattr(error, "problem", None) or getattr(error, "context", None) or "is not YAML"
    return f":{mark.line + 1}:{mark.column + 1}: broken YAML: {problem}"


def reason_of(error: OSError | UnicodeDecodeError) -> str:
    """Why a text file cannot be read, in a few words."""
    return "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error.strerror or str(error)


def shown(path: Path) -> str:
    """The path as a person would type it: relative where it lies below the working folder."""
    return str(path.relative_to(Path.cwd())) if path.is_absolute() and path.is_relative_to(Path.cwd()) else str(path)
