"""The prompts of a task file, with the record that each came from: a list, a dataset, or records in the file itself."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from alignbench import sources
from alignbench.errors import SourceError, UsageError, brief
from alignbench.task import records
from alignbench.task.keys import DatasetFile
from alignbench.task.records import Record
from alignbench.yamlfile import Key, Page

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prompts:
    """Texts, no two alike, and the record of each; `records` is empty where the task gives plain texts."""

    texts: tuple[str, ...]
    records: tuple[Record, ...] = ()

    def column(self, field: str) -> dict[str, Any]:
        """Prompt → the value of `field` in its record; raises UsageError where there is none."""
        if not self.records:
            raise UsageError(f"there is no field '{field}': the prompts are plain texts, without records")
        return dict(zip(self.texts, records.values(self.records, field), strict=True))


def read_prompts(page: Page, key: str, raw: Any) -> Prompts:
    """The prompts at `key` of a task file.

    A list of texts, or a dataset with the keys of `DatasetFile`. A record that repeats an earlier one's prompt is left
    out, which is said. Raises TaskError and SourceError.
    """
    if isinstance(raw, Mapping):
        return _of_dataset(page, key, page.checked(DatasetFile, raw, (key,)))
    if not isinstance(raw, list):
        raise page.refuse((key,), f"{key} must be a list of texts or {{source: …, field: …}}, not {brief(raw)}")
    if not raw:
        raise page.refuse((key,), f"{key} is empty: a task needs at least one prompt")
    seen: set[str] = set()
    for i, prompt in enumerate(raw):
        if not isinstance(prompt, str):
            raise page.refuse((key, i), f"{key}: item {i} is {brief(prompt)}, not a text: put it in quotes")
        if prompt in seen:
            raise page.refuse((key, i), f"{key}: {prompt!r} is there twice")
        seen.add(prompt)
    return Prompts(tuple(raw))


def read_references(page: Page, raw: Any, prompts: Prompts) -> tuple[tuple[str, ...], ...] | None:
    """Texts for each prompt: lists in the file, {field: NAME} of the prompts' records, or one dataset for all of them.

    Raises TaskError and SourceError.
    """
    key = "references"
    if raw is None:
        return None
    if isinstance(raw, list):
        return _listed(page, raw, len(prompts.texts))
    if not isinstance(raw, Mapping):
        raise page.refuse((key,), f"{key} must be a list of texts for each prompt or {{field: NAME}}, not {brief(raw)}")
    asked = page.checked(DatasetFile, raw, (key,))
    with page.at((key,)):
        if asked.source is None and asked.file is None and asked.records is None:
            column = prompts.column(asked.field or "")
            return tuple(_texts(column[prompt], str(asked.field)) for prompt in prompts.texts)
    shared = _of_dataset(page, key, asked).texts
    return (shared,) * len(prompts.texts)


PREFERENCE = ("prompt", "chosen", "rejected")
"""The fields of a preference, as datasets of the hub have them."""


def read_preferences(page: Page, raw: Any) -> tuple[tuple[str, str, str], ...]:
    """(prompt, chosen, rejected) of each record of a dataset with these fields.

    Where chosen and rejected begin with the prompt, as in conversations written out, it is left out of both. Raises
    TaskError and SourceError; and where both are the same text, which is no preference.
    """
    key = "preferences"
    if not isinstance(raw, Mapping):
        raise page.refuse((key,), f"{key} must be a dataset {{source: …}}, not {brief(raw)}")
    asked = page.checked(DatasetFile, raw, (key,))
    where, found = _all_records(page, key, asked)
    with page.at((key, where)):
        columns = [records.values(found, field) for field in PREFERENCE]
        for i, told in enumerate(zip(*columns, strict=True)):
            for field, value in zip(PREFERENCE, told, strict=True):
                if not isinstance(value, str):
                    raise UsageError(f"{field} of record {i} is {brief(value)}, not a text")
            if told[1] == told[2]:
                raise UsageError(f"record {i}: chosen and rejected are the same text, which is no preference")
    return tuple((p, c.removeprefix(p), r.removeprefix(p)) for p, c, r in zip(*columns, strict=True))


def with_fields(page: Page, key: Key, spec: Mapping[str, Any], prompts: Prompts) -> dict[str, Any]:
    """`spec` with each argument {field: NAME} replaced by the mapping prompt → value of that field of its record."""
    filled = dict(spec)
    for name, value in spec.items():
        if isinstance(value, Mapping) and list(value) == ["field"]:
            with page.at((*key, name)):
                filled[name] = prompts.column(str(value["field"]))
    return filled


def _of_dataset(page: Page, key: str, asked: DatasetFile) -> Prompts:
    where, found = _all_records(page, key, asked)
    with page.at((key, "template" if asked.template else "field")):
        return _distinct(f"{where}: {key}", _prompt_texts(found, asked), found)


def _all_records(page: Page, key: str, asked: DatasetFile) -> tuple[str, tuple[Record, ...]]:
    """Where a dataset stands in the file, and its records that are wanted."""
    given = [name for name in ("source", "file", "records") if getattr(asked, name) is not None]
    if len(given) != 1:
        got = " and ".join(given) or "none"
        raise page.refuse((key,), f"{key} must have exactly one of source, file, records, and has {got}")
    with page.at((key, given[0])) as where:
        try:
            found = tuple(_records(page.path.parent, asked))
        except SourceError as error:
            raise SourceError(f"{where}: {error}") from error
    with page.at((key, "without")):
        return where, _without(found, asked.without)


def _records(folder: Path, asked: DatasetFile) -> Iterable[Record]:
    """The records of every source asked for, one after the other; raises SourceError and UsageError."""
    if asked.records is not None:
        if not asked.records[asked.skip :]:
            raise UsageError("records is empty: a task needs at least one prompt")
        yield from asked.records[asked.skip :][: asked.take]
        return
    named = asked.file if asked.source is None else asked.source
    for spec in [named] if isinstance(named, str) else named or []:
        source = sources.parse(spec) if asked.source is not None else sources.Source("path", str(spec))
        if source.kind == "path":
            source = replace(source, name=str(folder / Path(source.name).expanduser()))
        yield from records.load(source, skip=asked.skip, take=asked.take)


def _without(found: tuple[Record, ...], unwanted: Mapping[str, list[Any]]) -> tuple[Record, ...]:
    """The records that have none of the unwanted values; raises UsageError where a field is missing or none is left."""
    for field, refused in unwanted.items():
        column = records.values(found, field)
        kept = [not any(x in refused for x in (v if isinstance(v, list) else [v])) for v in column]
        found = tuple(record for record, keep in zip(found, kept, strict=True) if keep)
    if not found:
        raise UsageError("without leaves no record")
    return found


def _prompt_texts(found: tuple[Record, ...], asked: DatasetFile) -> list[str]:
    if asked.template is not None and asked.field is not None:
        raise UsageError("field and template: give one of them")
    if asked.template is not None:
        return records.texts(found, asked.template)
    column = records.values(found, asked.field or records.TEXT)
    for i, value in enumerate(column):
        if not isinstance(value, str):
            raise UsageError(f"field '{asked.field}' of record {i} is {brief(value)}, not a text")
    return column


def _distinct(where: str, texts: list[str], found: tuple[Record, ...]) -> Prompts:
    """The prompts without those that an earlier record has: a draw is a function of its prompt."""
    first = dict(zip(reversed(texts), reversed(found), strict=True))
    if len(first) < len(texts):
        _LOG.info(f"{where}: {len(texts) - len(first)} of {len(texts)} records repeat a prompt and are left out")
    kept = tuple(dict.fromkeys(texts))
    return Prompts(kept, tuple(first[text] for text in kept))


def _listed(page: Page, raw: list[Any], prompts: int) -> tuple[tuple[str, ...], ...]:
    if len(raw) != prompts:
        raise page.refuse(("references",), f"references has {len(raw)} lists for {prompts} prompts: give one for each")
    for i, texts in enumerate(raw):
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise page.refuse(("references", i), f"references: item {i} is {brief(texts)}, not a list of texts")
    return tuple(map(tuple, raw))


def _texts(value: Any, field: str) -> tuple[str, ...]:
    """One reference or a list of them."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise UsageError(f"field '{field}' is {brief(value)}, not a text or a list of texts")
    return tuple(texts)
