"""Constrained decoding: tokens are masked after which words, a regular expression or a grammar cannot be kept."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignbench.aligners.base import need_law
from alignbench.errors import UsageError, brief
from alignbench.generators import lexical
from alignbench.generators.law import Law
from alignbench.generators.masks import Masks
from alignbench.generators.steered import masked
from alignbench.generators.token_bytes import token_bytes
from alignbench.registry import aligner
from alignbench.seeds import Seed
from alignbench.target import Target

FAMILIES = ("regex", "json_schema", "lark")
LEXICAL = ("must", "any_of", "never")


@aligner("constrained", target_driven=False, density="exact")
@dataclass(frozen=True)
class Constrained:
    """Masks tokens by words, a `regex`, a `json_schema` or a `lark` grammar, each step renormalised alone.

    Words: each of `must`, one of `any_of` and none of `never`, as the feature contains_any finds them. Without
    `lookahead` tokens may run out before a draw is kept; with it those are masked after which no kept draw fits. The
    law is exact and is not p (Willard and Louf 2023; Park et al. 2024): as the proposal of rejection it is corrected.
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
        if words:
            self._words()

    def align(
        self, base: Any, target: Target, prompts: Sequence[str], *, max_tokens: int, seed: Seed,
        workdir: Path | None = None,
    ) -> Law:  # fmt: skip
        """See `Aligner.align`; raises UsageError where nothing can be kept, or the tokenizer cannot spell it."""
        law = need_law(base, "constrained")
        ahead = max_tokens if self.lookahead else None
        aligned = masked(law, self._masks(law, ahead), max_tokens=ahead)
        for prompt in prompts:
            aligned.render(prompt)  # raises UsageError where nothing can be said after it
        return aligned

    def _words(self) -> lexical.Words:
        try:
            return lexical.Words(tuple(self.must), tuple(self.any_of), tuple(self.never), self.ignore_case)
        except UsageError as error:
            raise UsageError(f"constrained: {error}") from None

    def _masks(self, law: Law, ahead: int | None) -> Masks:
        texts = token_bytes(law.model)
        try:
            if any(getattr(self, name) for name in LEXICAL):
                return lexical.masks(law.vocab, texts, self._words(), ahead)
            from alignbench.generators import grammar

            options = {name: getattr(self, name) for name in ("regex", "lark", "include_prompt", "first", "lookahead")}
            found: Masks = grammar.masks(law.vocab, texts, json_schema=self._schema(), **options)
            return found
        except UsageError as error:
            raise UsageError(f"constrained: {error}") from None

    def _schema(self) -> Mapping[str, Any] | None:
        """The JSON Schema given, or that of the file given."""
        if self.json_schema is None or not isinstance(self.json_schema, str):
            return self.json_schema
        try:
            schema = json.loads(Path(self.json_schema).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(f"json_schema={self.json_schema}: no JSON file can be read there: {error}") from None
        if not isinstance(schema, dict):
            raise UsageError(f"json_schema={self.json_schema}: holds no JSON Schema, which is an object")
        return schema
