"""Names to things: one small registry per open room, and the loading of plug-ins."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from importlib.metadata import entry_points
from pathlib import Path
from types import FunctionType
from typing import Any, TypeVar, get_type_hints, overload

from alignbench.errors import UsageError, brief, plain_failures, unknown

F = TypeVar("F", bound=Callable[..., Any])

BUILT_INS = ("alignbench.features", "alignbench.metrics", "alignbench.generators", "alignbench.aligners")
"""The rooms; each one's `__init__` imports its own files."""
FLAG = "trust_remote_code"
"""What only the command line's flag, or Python, may hand to a loader of models: no spec, task or run file."""


def refuse_code(arguments: Any, where: str) -> None:
    """Raise UsageError where arguments, or mappings inside them, ask to run the code that a repository ships."""
    seen, left = set(), [arguments]
    while left:
        value = left.pop()
        if not isinstance(value, (Mapping, list, tuple)) or id(value) in seen:
            continue
        seen.add(id(value))  # each once: the aliases of YAML may make a loop, or a tree too large to walk
        if isinstance(value, Mapping) and FLAG in value:
            raise UsageError(f"{where}: {FLAG} is not an argument; give the flag --{FLAG}")
        left += value.values() if isinstance(value, Mapping) else value


@dataclass(frozen=True)
class Entry:
    """What was registered: the thing, where it came from, and what was declared about it."""

    name: str
    thing: Callable[..., Any]
    meta: Mapping[str, Any]

    @property
    def summary(self) -> str:
        """The first line of its docstring."""
        return (inspect.getdoc(self.thing) or "").partition("\n")[0]

    @property
    def opt_in(self) -> bool:
        """Whether it is had only where it is named: a metric that takes long, or that answers a question of its own."""
        return bool(self.meta.get("opt_in", False))

    @property
    def runs_code(self) -> bool:
        """Whether its arguments name code that it runs: such a metric is not taken from a results folder unasked."""
        return bool(self.meta.get("runs_code", False))

    @property
    def declared(self) -> str:
        """What an aligner declares: how its density is known, and whether it reads the target; "" of other things."""
        density, driven = self.meta.get("density", ""), self.meta.get("target_driven", False)
        return ", ".join(filter(None, (density, "target-driven" if driven else "")))

    @property
    def parameters(self) -> dict[str, inspect.Parameter]:
        """The keyword arguments that a user may give, by name."""
        return {
            name: p
            for name, p in inspect.signature(self.thing).parameters.items()
            if p.kind is p.KEYWORD_ONLY or (inspect.isclass(self.thing) and p.kind is p.POSITIONAL_OR_KEYWORD)
        }

    def check(self, arguments: Mapping[str, Any], where: str = "", supplied: Sequence[str] = ()) -> None:
        """Raise UsageError unless the thing can be called with `arguments`.

        Names, then types (what pydantic's strict mode makes of the hints), then the declared `check`, which is called
        with the defaults filled in. `supplied` names what will be given besides.
        """
        place = where or self.name
        refuse_code(arguments, place)
        open_ended = any(p.kind is p.VAR_KEYWORD for p in inspect.signature(self.thing).parameters.values())
        for name in arguments:
            if name not in self.parameters and not open_ended:
                raise unknown("argument", name, self.parameters, place)
        for name, p in self.parameters.items():
            if p.default is p.empty and name not in arguments and name not in supplied:
                raise UsageError(f"{place}: '{self.name}' needs the argument '{name}'")
        who = place if where.endswith(f"'{self.name}'") or place == self.name else f"{place}: '{self.name}'"
        for name, value in arguments.items():
            if problem := mismatch(self._hint(name), value):
                raise UsageError(f"{who} argument '{name}'{problem}")
        self._ask(arguments, who)

    def _hint(self, name: str) -> Any:
        """The type of a parameter; `Any` where there is none, or none that can be looked up at run time."""
        call = self.thing.__init__ if inspect.isclass(self.thing) else inspect.unwrap(self.thing)
        stub = FunctionType((lambda: None).__code__, getattr(call, "__globals__", {}))
        stub.__annotations__ = {k: v for k, v in getattr(call, "__annotations__", {}).items() if k == name}
        try:
            return get_type_hints(stub, include_extras=True).get(name, Any)
        except Exception:  # a name that is imported for type checkers only, or an expression that fails
            return Any

    def _ask(self, arguments: Mapping[str, Any], who: str) -> None:
        """What the declared `check` says of the parameters; raises UsageError that begins with `who`."""
        if "check" not in self.meta:
            return
        known = {name: p.default for name, p in self.parameters.items() if p.default is not p.empty}
        try:
            with plain_failures("its check", UsageError):
                self.meta["check"](**{**known, **arguments})
        except UsageError as error:
            raise UsageError(f"{who} {error}") from error


QUOTED = " (where text is meant, put it in quotes, on the command line in '{name: …, key: \"…\"}')"
LISTED = " (a list is [a, b], on the command line in '{name: …, key: [a, b]}')"
YAML_BOOLEANS = " (YAML reads yes, no, on and off as true and false: put quotes around words)"


def mismatch(hint: Any, value: Any) -> str:
    """Why `value`, read from YAML or a command line, is not a `hint`; nothing where it is, or pydantic has no rule.

    Strict, so that "5" is no number and 5 no text; an integer is a number too, and a list will do for a tuple or a set.
    """
    from pydantic import TypeAdapter, ValidationError  # here, since it is slow to import and --help does without
    from pydantic.errors import PydanticUserError

    try:
        rule: TypeAdapter[Any] = TypeAdapter(hint)
        rule.validate_python(value, strict=True)
    except PydanticUserError:
        return ""
    except ValidationError as error:
        wrong = error.errors()
        try:  # as JSON, which has no tuples, sets and paths and takes lists and texts for them
            rule.validate_json(json.dumps(value), strict=True)
        except ValidationError as error:
            wrong = error.errors()
        except (TypeError, ValueError):
            pass
        else:
            return ""
        return _reason(wrong)
    return ""


def _reason(errors: Sequence[Mapping[str, Any]]) -> str:
    """What is wrong with the first wrong item, else with the whole; a union has an error for each alternative."""
    first = next((e for e in errors if _items(e)), errors[0])
    here = [e for e in errors if _items(e) == _items(first) and e["input"] == first["input"]]
    told = dict.fromkeys(e["msg"].partition("Input should be ")[2].replace("array", "list") for e in here)
    known = list(filter(None, told))
    what = f"input should be {' or '.join(known)}" if known else f"{first['msg'][0].lower()}{first['msg'][1:]}"
    hint = ""
    if isinstance(first["input"], bool):
        hint = YAML_BOOLEANS
    elif isinstance(first["input"], (int, float)) and any(e["type"] == "string_type" for e in here):
        hint = QUOTED
    elif isinstance(first["input"], str) and any(e["type"] in ("list_type", "tuple_type") for e in here):
        hint = LISTED
    return f"{''.join(f' item {part}' for part in _items(first))}: {what}, not {brief(first['input'])}{hint}"


def _items(error: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(part for part in error["loc"] if isinstance(part, int))


@dataclass
class Registry(Mapping[str, Entry]):
    """A mapping from names to entries that is also the decorator which fills it.

    ``@feature`` registers a function under its own name; ``@feature("other", version=2)`` under another, with
    declarations. A name that is taken raises UsageError.
    """

    kind: str
    entries: dict[str, Entry] = field(default_factory=dict)

    @overload
    def __call__(self, thing: F, /) -> F: ...
    @overload
    def __call__(self, name: str | None = None, /, **meta: Any) -> Callable[[F], F]: ...
    def __call__(self, name: Any = None, /, **meta: Any) -> Any:
        """Register a function or a class; usable with and without arguments."""
        if callable(name):
            return self._add(name, getattr(name, "__name__", ""), meta)
        return lambda thing: self._add(thing, name or thing.__name__, meta)

    def _add(self, thing: Callable[..., Any], name: str, meta: Mapping[str, Any]) -> Callable[..., Any]:
        old = self.entries.get(name)
        if old is not None and _origin(old.thing) != _origin(thing):
            raise UsageError(
                f"{self.kind} '{name}' is registered twice: in {_place(old.thing)} and in {_place(thing)}; rename one"
            )
        self.entries[name] = Entry(name, thing, dict(meta))
        return thing

    def find(self, name: str, where: str = "") -> Entry:
        """The entry called `name`; raises UnknownName with the closest match and the list."""
        if name not in self.entries:
            raise unknown(self.kind, name, self.entries, where)
        return self.entries[name]

    def __getitem__(self, name: str) -> Entry:
        return self.entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self.entries))

    def __len__(self) -> int:
        return len(self.entries)


feature = Registry("feature")
metric = Registry("metric")
generator = Registry("generator")
aligner = Registry("aligner")
KINDS = {"features": feature, "metrics": metric, "generators": generator, "aligners": aligner}


def load_plugins(include_path: Sequence[Path] = ()) -> None:
    """Fill the registries: built-ins, then the entry-point group `alignbench`, then the .py files of `include_path`."""
    for module in BUILT_INS:
        importlib.import_module(module)
    for point in entry_points(group="alignbench"):
        _guard(f"plug-in '{point.name}' ({point.value})", point.load)
    for place in include_path:
        for path in _python_files(place):
            _guard(str(path), partial(_import_file, path))


def _python_files(place: Path) -> Sequence[Path]:
    """The .py files of a folder, or the file itself; raises UsageError where there is neither."""
    if not place.exists():
        raise UsageError(f"--include_path {place}: no such file or folder")
    if place.is_dir():
        return sorted(place.glob("*.py"))
    return [place] if place.suffix == ".py" else []


def _import_file(path: Path) -> None:
    name = f"alignbench_plugin_{path.stem}_{sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path}: is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise


def _guard(what: str, load: Callable[[], Any]) -> None:
    """Run a stranger's import; whatever it raises becomes one line that names it."""
    try:
        load()
    except UsageError:
        raise
    except (Exception, SystemExit) as error:
        told = " ".join(str(error).split())
        raise UsageError(f"{what}: could not be loaded: {type(error).__name__}: {told}") from error


def _origin(thing: Callable[..., Any]) -> str:
    return f"{getattr(thing, '__module__', '?')}.{getattr(thing, '__qualname__', '?')}"


def _place(thing: Callable[..., Any]) -> str:
    """``file:line`` where a thing is defined, as far as Python knows."""
    thing = inspect.unwrap(thing)
    code = getattr(thing, "__code__", None)
    try:
        path = Path(inspect.getfile(thing))
    except (TypeError, OSError):
        return _origin(thing)
    near = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return f"{near}:{code.co_firstlineno}" if code is not None else str(near)
