"""What a value of the settings may be: each type with its check, what is said where it fails, and its JSON schema."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationInfo, WithJsonSchema
from pydantic_core import PydanticCustomError

from alignbench.errors import UsageError, brief
from alignbench.spec import Spec, parse_arguments, parse_spec, titled

MOST = 10**9
"""No count is larger: numpy could not hold it, and nobody wants it."""


@dataclass(frozen=True)
class Origin:
    """Where values come from: what a field and a value are called there, and whether a value may be an object."""

    name: Callable[[str], str] = str
    shown: Callable[[Any], str] = brief  # as Python writes it; where all is text, as it was typed
    between: str = " "
    objects: bool = False

    def refused(self, field: str, value: Any, wanted: str) -> UsageError:
        """The error that says what the value of a field must be."""
        return UsageError(f"{self.name(field)}{self.between}{self.shown(value)}: must be {wanted}")


def typed(name: Callable[[str], str], between: str = " ") -> Origin:
    """Where all is text: a command line, variables."""
    return Origin(name, lambda value: value if isinstance(value, str) and value else brief(value), between)


class Refused(ValueError):
    """A value that is not what it must be: the value, and what it must be."""

    def __init__(self, value: Any, wanted: str) -> None:
        super().__init__(wanted)
        self.value, self.wanted = value, wanted


def _checked(check: Callable[..., Any], *, named: bool = False) -> BeforeValidator:
    """A validator of `check(value)`, which raises Refused; a `named` one is given the field's name for errors too."""

    def validate(value: Any, info: ValidationInfo) -> Any:
        origin, field = origin_of(info), str(info.field_name)
        with _collected():
            try:
                return check(value, origin.name(field)) if named else check(value)
            except Refused as error:
                raise origin.refused(field, error.value, error.wanted) from error

    return BeforeValidator(validate)


def origin_of(info: ValidationInfo) -> Origin:
    """Where a value comes from: Python, where nothing else is said."""
    return info.context if isinstance(info.context, Origin) else Origin(objects=True)


@contextmanager
def _collected() -> Iterator[None]:
    """A usage error as one that pydantic collects with its place."""
    try:
        yield
    except UsageError as error:
        raise PydanticCustomError("usage", "{told}", {"told": str(error)}) from error


def _listed(value: Any) -> tuple[Any, ...]:
    """One thing or several, as several; in Python several may be a set or an iterator too."""
    several = isinstance(value, (Sequence, Set, Iterator)) and not isinstance(value, (str, bytes))
    return tuple(value) if several else () if value is None else (value,)


def _names(value: Any) -> tuple[Any, ...]:
    """Names one by one, with commas between, or both; in Python a path is one too."""
    return tuple(word for item in _listed(value) for word in _split(item))


def _split(item: Any) -> list[Any]:
    if isinstance(item, Path):
        return [str(item)]
    return [word.strip() for word in item.split(",") if word.strip()] if isinstance(item, str) else [item]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise Refused(value, "a text")
    return value


def _torch_word(value: Any) -> str:
    """A text, or a dtype or device of torch by its name."""
    kind = type(value)
    if kind.__module__ == "torch" and kind.__name__ in ("dtype", "device"):
        return str(value).removeprefix("torch.")
    return _text(value)


def _path(value: Any) -> Path:
    return value if isinstance(value, Path) else Path(_text(value))


def _count(value: Any) -> int:
    if type(value) is not int or value < 1:
        raise Refused(value, "a whole number >= 1")
    if value > MOST:
        raise Refused(value, f"a whole number of at most {MOST:,}")
    return value


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise Refused(value, "true or false")
    return value


def _template(value: Any) -> bool | str:
    if not isinstance(value, (bool, str)):
        raise Refused(value, "true, false or the name of a template")
    return value


def _draws(value: Any) -> int | dict[str, int]:
    if not isinstance(value, Mapping):
        return _count(value)
    try:
        return {_text(task): _count(size) for task, size in value.items()}
    except Refused as error:
        raise Refused(value, "{TASK: N, …} with whole numbers >= 1") from error


def _batch_size(value: Any) -> int | str:
    if value != "auto" and (type(value) is not int or not 1 <= value <= MOST):
        raise Refused(value, "auto or a whole number >= 1")
    return int(value) if value != "auto" else "auto"


def _seed(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise Refused(value, "a whole number >= 0 and below 2^63, or several of them")
    return value


def _seeds(value: Any, name: str) -> tuple[Any, ...]:
    found = _listed(value)
    if not found:
        raise UsageError(f"{name}: none is given")
    if twice := [seed for i, seed in enumerate(found) if seed in found[:i]]:
        raise UsageError(f"{name}: {twice[0]} is there twice")
    return found


def _gen_kwargs(value: Any, name: str) -> dict[str, Any]:
    """Decoding settings, each of them checked."""
    if not isinstance(value, (str, Mapping)):
        raise Refused(value, "decoding settings, such as temperature=0.7,top_k=5 or {temperature: 0.7}")
    found = parse_arguments(value, name) if isinstance(value, str) else {str(k): v for k, v in value.items()}
    if found:
        from alignbench.generators.warp import Warp  # here, since it loads torch, and most runs and --help do without
        from alignbench.registry import Entry

        Entry(name, Warp, {}).check(found, name)
        Warp(**found)
    return found


def _thing(value: Any, info: ValidationInfo) -> Any:
    """A spec; in Python it may be an object too, which stands for itself."""
    origin, field = origin_of(info), str(info.field_name)
    if isinstance(value, Spec) or (origin.objects and value is not None and not isinstance(value, (str, Mapping))):
        return value
    with _collected():
        if not isinstance(value, (str, Mapping)):
            raise origin.refused(field, value, "a spec such as hf:pretrained=gpt2 or {name: NAME, …}")
        return titled(parse_spec(value, origin.name(field)), origin.name(field))


_TEXT = {"type": "string"}
_NAME = {"type": "string", "minLength": 1}
_NAMED_MAPPING = {
    "type": "object", "required": ["name"], "properties": {"name": _NAME, "trust_remote_code": False},
}  # fmt: skip
_SPEC = {"anyOf": [_NAME, _NAMED_MAPPING]}
_COUNT = {"type": "integer", "minimum": 1, "maximum": MOST}
_SEED = {"type": "integer", "minimum": 0, "exclusiveMaximum": 2**63}


def _several(item: Mapping[str, Any], least: int = 0) -> dict[str, Any]:
    """The schema of one thing or a list of them."""
    return {"anyOf": [item, {"type": "array", "items": item, "minItems": least}]}


Thing = Annotated[Any, BeforeValidator(_thing), WithJsonSchema(_SPEC)]
Things = Annotated[tuple[Thing, ...], BeforeValidator(_listed), WithJsonSchema(_several(_SPEC))]
Text = Annotated[str, _checked(_text)]
TorchWord = Annotated[str, _checked(_torch_word)]
Names = Annotated[tuple[Text, ...], _checked(_names), WithJsonSchema(_several(_TEXT))]
Folder = Annotated[Path, _checked(_path), WithJsonSchema(_TEXT)]
Folders = Annotated[tuple[Folder, ...], BeforeValidator(_listed), WithJsonSchema(_several(_TEXT))]
Count = Annotated[int, _checked(_count), WithJsonSchema(_COUNT)]
Flag = Annotated[bool, _checked(_flag)]
Template = Annotated[bool | str, _checked(_template)]
Draws = Annotated[
    int | dict[str, int], _checked(_draws),
    WithJsonSchema({"anyOf": [_COUNT, {"type": "object", "additionalProperties": _COUNT}]}),
]  # fmt: skip
BatchSize = Annotated[int | str, _checked(_batch_size), WithJsonSchema({"anyOf": [{"const": "auto"}, _COUNT]})]
Seeds = Annotated[
    tuple[Annotated[int, _checked(_seed)], ...], _checked(_seeds, named=True), WithJsonSchema(_several(_SEED, 1))
]
Decoding = Annotated[
    dict[str, Any], _checked(_gen_kwargs, named=True), WithJsonSchema({"anyOf": [_TEXT, {"type": "object"}]})
]  # fmt: skip
