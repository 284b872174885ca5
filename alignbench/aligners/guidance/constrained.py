"""Constrained decoding: tokens are masked after which words, a regular expression or a grammar cannot be kept."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alignbench.aligners.base import Immediate, Setting
from alignbench.errors import UsageError, brief
from alignbench.generators.law import Law, law_of
from alignbench.generators.masked import grammar, lexical
from alignbench.generators.masked.masks import Masks
from alignbench.generators.masked.steered import masked
from alignbench.generators.token_bytes import token_bytes
from alignbench.registry import aligner

FAMILIES = ("regex", "json_schema", "lark")
LEXICAL = ("must", "any_of", "never")


@aligner("constrained", target_driven=False, density="exact")
@dataclass(frozen=True)
class Constrained(Immediate):
    r"""Masks tokens by words, a `regex`, a `json_schema` or a `lark` grammar, each step renormalised alone.

    Words: each of `must`, one of `any_of` and none of `never`, as the feature contains_any finds them. A `regex` is all
    of the draw as it stands, its first space too: ``\s*(yes|no)``. A `json_schema` is a mapping or the path of a file.
    `include_prompt`: the prompt is the beginning of what is matched; `first`: what follows a match is free. Without
    `lookahead` (words and regex) tokens may run out before a draw is kept; with it those are masked after which no kept
    draw fits. The law is exact and is not p (Willard and Louf 2023; Park et al. 2024): as the proposal of rejection it
    is corrected.
    """

    must: tuple[str, ...] = ()
    any_of: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    ignore_case: bool = False
    regex: str | None = None
    json_schema: Mapping[str, Any] | str | None = None
    lark: str | None = None
    include_prompt: bool = False
    first: bool = False
    lookahead: bool = False

    def __post_init__(self) -> None:
        given = [name for name in FAMILIES if getattr(self, name) is not None]
        words = [name for name in LEXICAL if getattr(self, name)]
        if len(given) + bool(words) != 1:
            raise UsageError(
                f"constrained: needs words ({', '.join(LEXICAL)}) or one of {', '.join(FAMILIES)}; "
                f"has {' and '.join([*words, *given]) or 'none'}"
            )
        unread = ["ignore_case"] if given else ["include_prompt", "first"]
        for name in filter(self.__getattribute__, unread):
            raise UsageError(f"constrained: {name} is not for {(given or words)[0]}")
        if self.lark is not None and ":" not in self.lark:
            raise UsageError(
                f"constrained: lark={brief(self.lark)}: is to be a grammar, such as 'start: \"a\"+'; no rule"
            )
        with _named():
            if words:
                self._words()
            else:
                grammar.check(**self._asked(), first=self.first, lookahead=self.lookahead)

    def align(self, setting: Setting) -> Law:
        """See `Aligner.align`; raises UsageError where nothing can be kept, or the tokenizer cannot spell it."""
        law, prompts = law_of(setting.base, "constrained"), setting.prompts
        ahead = setting.max_tokens if self.lookahead else None
        with _named():
            aligned = masked(law, self._masks(law, prompts, ahead), max_tokens=ahead)
            for prompt in prompts:
                aligned.render(prompt)  # raises UsageError where nothing can be said after it
        return aligned

    def _masks(self, law: Law, prompts: Sequence[str], ahead: int | None) -> Masks:
        texts = token_bytes(law.model)
        if any(getattr(self, name) for name in LEXICAL):
            return lexical.masks(law.vocab, texts, self._words(), ahead)
        if self.json_schema is None or self.include_prompt:  # else white space in front does not count
            _refuse_lost_space(law, prompts, texts)
        options = {name: getattr(self, name) for name in ("include_prompt", "first", "lookahead")}
        return grammar.masks(law.vocab, texts, **self._asked(), **options)

    def _words(self) -> lexical.Words:
        for name in LEXICAL:
            if isinstance(one := getattr(self, name), str):
                raise UsageError(f"{name} is the text {one!r}: give a list of words, [{one}]")
        return lexical.Words(tuple(self.must), tuple(self.any_of), tuple(self.never), self.ignore_case)

    def _asked(self) -> dict[str, Any]:
        return {"regex": self.regex, "json_schema": self._schema(), "lark": self.lark}

    def _schema(self) -> Mapping[str, Any] | None:
        """The JSON Schema given, or that of the file given."""
        if not isinstance(self.json_schema, str):
            return self.json_schema
        try:
            schema = json.loads(Path(self.json_schema).read_text(encoding="utf-8"))
        except OSError as error:
            raise UsageError(f"json_schema: cannot read the file {self.json_schema}: {error.strerror}") from None
        except ValueError as error:
            raise UsageError(f"json_schema: the file {self.json_schema} is no JSON: {error}") from None
        if not isinstance(schema, dict):
            raise UsageError(f"json_schema: the file {self.json_schema} holds no JSON Schema, which is an object")
        return schema


@contextmanager
def _named() -> Iterator[None]:
    """Name the aligner in front of what is refused."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"constrained: {error}") from None


def _refuse_lost_space(law: Law, prompts: Sequence[str], texts: Sequence[bytes]) -> None:
    """Raise UsageError where a draw's text is not all that its tokens spell: a space in front is lost.

    So it is after a prompt without text, and in the answers of an encoder-decoder, if the tokenizer strips texts.
    """
    spaced = next((i for i, text in enumerate(texts) if text[:1] == b" " and text.strip().isalnum()), None)
    for prompt in prompts if spaced is not None else ():
        if not law.model.decode(law.render(prompt), [np.array([spaced])])[0].startswith(" "):
            raise UsageError(
                f"after the prompt {brief(prompt)} the texts of {law.name} lose the space of their first token; only "
                "words, and a json_schema without include_prompt, can be followed there"
            )
