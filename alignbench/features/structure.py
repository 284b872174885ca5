"""Whether a continuation keeps the grammar of JSON (and a schema) or of Python (and its style guide)."""

from __future__ import annotations

import ast
import io
import json
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn
from unittest.mock import patch

import numpy as np

from alignbench.errors import UsageError
from alignbench.features.words import texts_of
from alignbench.registry import feature
from alignbench.types import Array, Draws


def _schema_errors(schema: Any) -> Iterator[str]:
    """What is wrong with a JSON Schema: its keywords, its references, an endless loop among them."""
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import validator_for
    from referencing import Registry, Resource
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012

    try:
        validator_for(schema).check_schema(schema)
    except SchemaError as error:
        yield f"{''.join(f'{key}: ' for key in error.absolute_path)}{error.message}"
        return
    try:
        resolver = Registry().resolver_with_root(Resource.from_contents(schema, default_specification=DRAFT202012))
        for reference in _references(schema):
            resolver.lookup(reference)
        instances: tuple[Any, ...] = (None, 0, "", [], {})
        for instance in instances:
            _validator(schema).is_valid(instance)
    except Unresolvable as error:
        yield f"the $ref {error.ref!r} points to nothing inside it (nothing is fetched)"
    except RecursionError:
        yield "a $ref in it leads back to itself without end"


def _references(schema: Any) -> Iterator[str]:
    """The text of every $ref, however deep."""
    if isinstance(schema, dict) and isinstance(schema.get("$ref"), str):
        yield schema["$ref"]
    for part in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        yield from _references(part)


def _validator(schema: dict[str, Any]) -> Any:
    """A validator, of the draft that $schema names or the latest, that fetches nothing."""
    from jsonschema.validators import validator_for
    from referencing import Registry

    return validator_for(schema)(schema, registry=Registry())


def _check_json(schema: dict[str, Any] | None, include_prompt: bool, first: bool) -> None:
    for problem in () if schema is None else _schema_errors(schema):
        raise UsageError(f"has a schema that is no JSON Schema: {problem}")


@feature(version=1, range=(0, 1), check=_check_json)
def is_json(
    prompts: Sequence[str],
    draws: Draws,
    *,
    schema: dict[str, Any] | None = None,
    include_prompt: bool = False,
    first: bool = False,
) -> Array:
    """1 where the whole continuation is one JSON value (RFC 8259) that satisfies `schema`, else 0.

    White space around it does not count; NaN and Infinity are no JSON. `include_prompt` for prompts that open the
    object; `first` asks only for a value that the text begins with, whatever follows. `schema` is a JSON Schema of any
    draft (`format` is not checked; a $ref must point inside it); a value nested deeper than Python can follow is 0.
    """
    valid = (lambda value: True) if schema is None else _validator(schema).is_valid
    texts = texts_of(prompts, draws, include_prompt)
    return np.array([_is_json(text.strip(" \t\n\r"), valid, first) for text in texts], dtype=float)


def _is_json(text: str, valid: Any, first: bool) -> bool:
    try:
        value, end = json.JSONDecoder(parse_constant=_no_json).raw_decode(text)
        return (first or end == len(text)) and bool(valid(value))
    except (ValueError, RecursionError):
        return False


def _no_json(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


@feature(version=1, range=(0, 1))
def python_parses(prompts: Sequence[str], draws: Draws, *, include_prompt: bool = True) -> Array:
    """1 where prompt and continuation parse as Python, else 0; nothing is executed.

    By the grammar of the Python that runs alignbench. A text nested deeper than its parser can follow is 0, an empty
    one is 1.
    """
    return np.array([_parses(text) for text in texts_of(prompts, draws, include_prompt)], dtype=float)


def _parses(text: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of "\d" or `1 is 1`, which are errors of style
            ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # NUL, lone surrogates; too deep, twice
        return False
    return True


def _check_style(max_line_length: int, include_prompt: bool, ignore: Sequence[str]) -> None:
    if max_line_length < 1:
        raise UsageError(f"argument 'max_line_length' is {max_line_length}; it must be 1 or more")
    for code in ignore:
        if not re.fullmatch(r"[EW]\d{1,3}", code):
            raise UsageError(
                f"argument 'ignore': '{code}' is no code of pycodestyle, nor the beginning of one (E501, W6)"
            )


@feature(version=1, range=(0, math.inf), check=_check_style)
def pep8_errors(
    prompts: Sequence[str],
    draws: Draws,
    *,
    max_line_length: int = 79,
    include_prompt: bool = True,
    ignore: tuple[str, ...] = (),
) -> Array:
    """Findings of pycodestyle (PEP 8) in prompt and continuation, those of one line counted singly.

    `ignore`: codes, or their beginnings, left out besides E402 (imports on top) and those that pycodestyle leaves out
    by default. A last line without an end is given one. What does not parse may have few findings: see `is_pep8`.
    """
    options = _style(max_line_length, ignore)
    return np.array([_findings(text, options) for text in texts_of(prompts, draws, include_prompt)], dtype=float)


@feature(version=1, range=(0, 1), check=_check_style)
def is_pep8(
    prompts: Sequence[str],
    draws: Draws,
    *,
    max_line_length: int = 79,
    include_prompt: bool = True,
    ignore: tuple[str, ...] = (),
) -> Array:
    """1 where prompt and continuation parse as Python and have no `pep8_errors`, else 0."""
    options = _style(max_line_length, ignore)
    texts = texts_of(prompts, draws, include_prompt)
    return np.array([_parses(text) and not _findings(text, options) for text in texts], dtype=float)


def _style(max_line_length: int, ignore: Sequence[str]) -> Any:
    """Options of pycodestyle, from these arguments alone: no file of the user or the project is read."""
    import pycodestyle

    with patch.object(pycodestyle, "USER_CONFIG", None):  # else ~/.config/pycodestyle would change the values
        return pycodestyle.StyleGuide(
            max_line_length=max_line_length,
            ignore=(*pycodestyle.DEFAULT_IGNORE.split(","), "E402", *ignore),  # 2.15 raises in E402 at a line `b`
            reporter=pycodestyle.BaseReport,  # prints nothing
        ).options


def _findings(text: str, options: Any) -> int:
    import pycodestyle

    lines = io.StringIO(text if not text or text.endswith(("\n", "\r")) else f"{text}\n", newline=None).readlines()
    report = pycodestyle.BaseReport(options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tokenizer's, of what the text does
        pycodestyle.Checker(lines=lines, options=options, report=report).check_all()
    return int(report.total_errors)
