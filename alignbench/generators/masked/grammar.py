"""Token masks from a regular expression, a JSON schema or a Lark grammar; see `masks`."""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from alignbench.errors import RunError, UsageError, brief
from alignbench.generators.base import Vocab
from alignbench.generators.masked.json_grammar import lark_of
from alignbench.generators.masked.masks import Masks
from alignbench.generators.masked.regular import Regular, translated
from alignbench.types import Array

UNFORCED = '%llguidance {"no_forcing": true}'  # else only one spelling is let through of a text that must follow
DEAD, FREE, UNREAD = 0, 1, 2  # states from where nothing may be said, and anything; the state before any text
SPACE = b" \t\n\r"
UNNUMBERED = (b"{", b"[", b'"', b"t", b"f", b"n")  # how values of JSON begin that are no number
KEPT = 1024  # parsers and their masks, at 8 KB each for 49,152 tokens; the others are made again from their tokens


def masks(
    vocab: Vocab,
    token_bytes: tuple[bytes, ...],
    *,
    regex: str | None = None,
    json_schema: Any = None,
    lark: str | None = None,
    include_prompt: bool = False,
    first: bool = False,
    lookahead: bool = False,
) -> Masks:
    """Which tokens may come next so that a draw's text matches exactly one of `regex`, `json_schema` and `lark`.

    `token_bytes` are by id, b"" for what is no text. A `regex` matches the whole text as it stands (the feature
    `matches` leaves out white space around it). `include_prompt`: the prompt is the beginning of the text that matches.
    `first`: only a beginning of the text is asked to match. `lookahead` (`regex` alone): see `Regular`. Raises
    UsageError where none or two are given, and where nothing can match.
    """
    check(regex=regex, json_schema=json_schema, lark=lark, first=first, lookahead=lookahead)
    if regex is not None:
        return Regular(vocab, token_bytes, regex, include_prompt, first, lookahead)
    if lark is not None:
        text, free = _whole(lark, first), False
    else:
        text, free = lark_of(json_schema, first)
        text = f"{UNFORCED}\n{text}"
    own = {"json_schema": json_schema} if lark is None else {"lark": lark}
    asked = {**own, "include_prompt": include_prompt, "first": first}
    return Grammar(vocab, token_bytes, text, asked, free)


def check(*, regex: str | None, json_schema: Any, lark: str | None, first: bool, lookahead: bool) -> None:
    """Raise UsageError where none or two are given, or what is given can be masks of no vocabulary.

    It needs no model, and no library that may be missing; what is wrong with a `lark` grammar is told by `masks`.
    """
    every = {"regex": regex, "json_schema": json_schema, "lark": lark}
    given = [name for name, value in every.items() if value is not None]
    if len(given) != 1:
        raise UsageError(f"give one of regex, json_schema and lark, not {' and '.join(given) or 'none'}")
    if lookahead and regex is None:
        raise UsageError(
            f"lookahead: how many tokens {given[0]} still needs is not known; only regex and word lists say"
        )
    if regex is not None:
        translated(regex)
    if json_schema is not None:
        lark_of(json_schema, first)


def _whole(lark: str, first: bool) -> str:
    """The grammar of the texts of this one, or of those that begin with one."""
    start = "start: @asked REST?\nREST: /(?s:.+)/" if first else "start: @asked"
    return json.dumps({"grammars": [{"lark_grammar": f"{UNFORCED}\n{start}"}, {"name": "asked", "lark_grammar": lark}]})


@dataclass(frozen=True, eq=False)
class Grammar:
    """The masks of a grammar that llguidance parses; a state stands for the tokens so far.

    A parser is no number, so that each of these gets one: 0.3 KB each, however long, for as long as the masks live.
    `free`: whether anything may follow a value of JSON that is no number.
    """

    vocab: Vocab
    spelt: tuple[bytes, ...]
    grammar: str
    asked: Mapping[str, Any]
    free: bool
    _before: list[tuple[int, bytes]] = field(default_factory=lambda: [(DEAD, b"")] * 3)  # and what was said since
    _states: dict[tuple[int, bytes], int] = field(default_factory=dict)
    _freed: set[int] = field(default_factory=lambda: {FREE})
    _kept: OrderedDict[int, tuple[Any, Array]] = field(default_factory=OrderedDict)

    def __post_init__(self) -> None:
        if self._unread and not self.asked["include_prompt"] and not self._mask(UNREAD).any():
            raise UsageError(f"{self.name}: no text that the tokens spell matches it")

    @property
    def name(self) -> str:
        """What messages call it."""
        return next(iter(self.asked))

    def identity(self) -> Mapping[str, Any]:
        """See `Masks.identity`."""
        return {"kind": self.name, **self.asked, "vocab": self.vocab.fingerprint}

    def start(self, prompt: str) -> int:
        """See `Masks.start`; raises UsageError where a prompt that is to match already cannot."""
        read = prompt.encode("utf-8", "surrogatepass") if self.asked["include_prompt"] else b""
        state = self._state(UNREAD, read) if read else UNREAD
        if not self._mask(state).any():
            raise UsageError(f"{self.name}: nothing after the prompt {brief(prompt)} can match")
        return state

    def after(self, states: Array, tokens: Array) -> Array:
        """See `Masks.after`."""
        found = [self._after(int(s), self.spelt[t]) for s, t in zip(states, tokens, strict=True)]
        return np.array(found, dtype=np.int64)

    def allowed(self, states: Array, left: int) -> Array:
        """See `Masks.allowed`; raises RunError where a grammar is too much for llguidance."""
        distinct, which = np.unique(np.asarray(states), return_inverse=True)
        return np.asarray(np.stack([self._mask(int(state)) for state in distinct])[which])

    def _after(self, state: int, said: bytes) -> int:
        if state == DEAD or not said:
            return DEAD
        return FREE if state in self._freed else self._state(state, said)

    def _state(self, before: int, said: bytes) -> int:
        if (before, said) not in self._states:
            self._states[before, said] = len(self._before)
            self._before.append((before, said))
        return self._states[before, said]

    def _text(self, state: int, since: Container[int] = ()) -> tuple[int, bytes]:
        """The last state that is in `since`, `UNREAD` where none is, and what was said after it."""
        said = []
        while state != UNREAD and state not in since:
            state, last = self._before[state]
            said.append(last)
        return state, b"".join(reversed(said))

    def _mask(self, state: int) -> Array:
        """(V,) bool: what may follow."""
        if state == DEAD:
            return np.zeros(len(self.vocab), dtype=bool)
        if state in self._freed:
            return self._any
        parser, packed = self._parsed(state)
        row = np.unpackbits(packed, count=len(self.vocab), bitorder="little").astype(bool) & self._said
        row[sorted(self.vocab.eos)] = may_end = parser is not None and parser.is_accepting()
        if may_end and self.free and self._text(state)[1].lstrip(SPACE)[:1] in UNNUMBERED:
            self._freed.add(state)
            return self._any
        return row

    @cached_property
    def _said(self) -> Array:
        """(V,) bool: tokens that are text."""
        return np.array([bool(token) for token in self.spelt])

    @cached_property
    def _any(self) -> Array:
        return self._said | np.isin(np.arange(len(self.vocab)), sorted(self.vocab.eos))

    def _parsed(self, state: int) -> tuple[Any, Array]:
        """The parser after a text, None where it does not read it, and its mask, packed."""
        if state in self._kept:
            self._kept.move_to_end(state)
            return self._kept[state]
        nearest, rest = self._text(state, self._kept)
        parser = self._kept[nearest][0] if nearest in self._kept else self._unread
        parser = parser and parser.deep_copy()
        mask = bytes(len(self.vocab) // 8 + 1)
        if parser and parser.try_consume_tokens([len(self.vocab) + byte for byte in rest]) == len(rest):
            mask = parser.compute_bitmask()
        elif parser and not parser.is_error():
            parser = None
        if parser and parser.is_error():
            if not parser.get_error().startswith("NoExtensionBias"):  # that is a text after which nothing can be said
                raise RunError(f"{self.name}: the grammar is too much for llguidance: {_told(parser.get_error())}")
            parser, mask = None, bytes(len(mask))
        self._kept[state] = parser, np.frombuffer(mask, dtype=np.uint8)
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return self._kept[state]

    @cached_property
    def _unread(self) -> Any:
        """The parser before any text; its tokens are those of the vocabulary and then every byte alone."""
        try:
            from llguidance import LLMatcher, LLTokenizer
        except ImportError:
            raise UsageError(f"{self.name} needs llguidance: pip install 'alignbench[constrained]'") from None
        tokens = [*self.spelt, *(bytes([byte]) for byte in range(256)), b""]
        parser = LLMatcher(LLTokenizer(_Spelt(tokens), n_vocab=len(tokens)), self.grammar, log_level=0)  # type: ignore[arg-type]
        if parser.is_error():
            raise UsageError(f"{self.name}: {_told(parser.get_error())}")
        return parser


class _Spelt:
    """What llguidance reads of a tokenizer; the last token is the end."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, tokens: list[bytes]) -> None:
        self.tokens = tokens
        self.eos_token_id = len(tokens) - 1
        self.special_token_ids = [i for i, token in enumerate(tokens) if not token]

    def __call__(self, text: Any) -> list[int]:
        return []


def _told(message: str) -> str:
    """A message of llguidance, on one line, without what it shows of the grammar and of its own state."""
    lines = [line.strip() for line in message.split("<state>")[0].splitlines()]
    said = [line for line in lines if line and "|" not in line and set(line) != {"^"}]
    return re.sub(r"^(at \d+\(\d+\): )?(failed to compile JSON schema: )?", "", " ".join(said))[:200]
