"""Masks from regular expressions, JSON schemas and grammars say exactly the token sequences whose text matches."""

from __future__ import annotations

import builtins
import json
import re
from collections.abc import Iterable
from itertools import product

import numpy as np
import pytest

from alignbench.errors import RunError, UsageError
from alignbench.features.pattern import matches
from alignbench.features.structure import is_json
from alignbench.generators.base import Vocab
from alignbench.generators.masked import grammar, json_grammar, regular
from alignbench.generators.masked.grammar import masks
from alignbench.types import Draws


def vocabulary(tokens: Iterable[str | bytes]) -> tuple[Vocab, tuple[bytes, ...]]:
    """Tokens as given, a special one that is no text and two that end a draw."""
    spelt = tuple(t if isinstance(t, bytes) else t.encode() for t in tokens)
    names = (*(t.decode("latin-1") for t in spelt), "<s>", "</s>", "<end>")
    return Vocab(names, frozenset({len(spelt) + 1, len(spelt) + 2})), (*spelt, b"", b"", b"")


def said(made, most: int, prompt: str = "", *, cut: bool = False) -> set[tuple[int, ...]]:
    """Sequences that may end within `most` tokens, their EOS among them; `cut`: those of `most` tokens without one."""
    paths, states, found = [()], np.array([made.start(prompt)]), set()
    ends = sorted(made.vocab.eos)
    for left in range(most, 0, -1):
        allowed = made.allowed(states, left)
        assert (allowed[:, ends] == allowed[:, ends[:1]]).all() and not allowed[:, ends[0] - 1].any()
        found |= {path for path, ok in zip(paths, allowed[:, ends[0]], strict=True) if ok}
        rows, tokens = np.nonzero(allowed[:, : ends[0] - 1])
        paths = [(*paths[r], int(t)) for r, t in zip(rows, tokens, strict=True)]
        states = made.after(states[rows], tokens)
        if not paths:
            break
    return {path for path in paths if len(path) == most} if cut else found


def sequences(vocab: Vocab, most: int) -> list[tuple[int, ...]]:
    """All sequences of fewer than `most` tokens."""
    return [ids for n in range(most) for ids in product(range(len(vocab) - 3), repeat=n)]


def keeping(feature, spelt: tuple[bytes, ...], ids: list[tuple[int, ...]], prompt: str = "", **arguments):
    """Those of `ids` that a feature says 1 of."""
    texts = [b"".join(spelt[i] for i in path).decode("utf-8", "replace") for path in ids]
    draws = Draws.from_texts(np.stack([np.zeros(len(ids), int), np.arange(len(ids))], 1), texts)
    return {path for path, value in zip(ids, feature([prompt], draws, **arguments), strict=True) if value}


LETTERS = vocabulary(["a", "b", "ab", "aba"])
PATTERNS = [
    "a|ab",
    "(a|b)*a",
    "a??b??",
    "[^a]*",
    "(?:ab){2,3}",
    "",
    "b.{2,4}",
    "(?i)A+",
    "(?x) a b # ab",
]


@pytest.mark.parametrize("lookahead", [False, True])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_regex_says_what_python_matches(pattern, lookahead):
    vocab, spelt = LETTERS
    made = masks(vocab, spelt, regex=pattern, lookahead=lookahead)
    every = sequences(vocab, 5)
    assert said(made, 5) == keeping(matches, spelt, every, pattern=pattern, full=True)
    text = {path: "".join(vocab.tokens[i] for i in path) for path in every}
    first = masks(vocab, spelt, regex=pattern, lookahead=lookahead, first=True)
    begins = {p for p in every if any(re.fullmatch(pattern, text[p][:n]) for n in range(len(text[p]) + 1))}
    assert said(first, 5) == begins


def test_alternatives_would_be_lost_without_the_end(monkeypatch):
    monkeypatch.setattr(regular, "END", "")
    assert said(masks(*LETTERS, regex="a|ab"), 3) == {(0,)}  # (0, 1) and (2,) are missing


@pytest.mark.parametrize("pattern", ["(?:ab){2,3}", "b.{2,4}a", "a|bababab"])
def test_looking_ahead_every_draw_matches_where_it_is_cut(pattern, monkeypatch):
    vocab, spelt = LETTERS
    for most in (3, 4, 5):
        made = masks(vocab, spelt, regex=pattern, lookahead=True)
        whole = [p for p in sequences(vocab, most + 1) if len(p) == most]
        assert said(made, most, cut=True) == keeping(matches, spelt, whole, pattern=pattern, full=True)
    late = masks(vocab, spelt, regex=pattern, lookahead=True)
    right = type(late).allowed
    monkeypatch.setattr(type(late), "allowed", lambda made, states, left: right(made, states, left + 1))
    assert not all(re.fullmatch(pattern, "".join(vocab.tokens[i] for i in p)) for p in said(late, 3, cut=True))


def test_classes_are_pythons():
    some = ["é", "_", "\x1c", "٣", "K", "ſ", "x", "\n", "²", "\u200d"]
    vocab, spelt = vocabulary(some)
    for pattern in (
        r"\w",
        r"\W",
        r"\d",
        r"\D",
        r"\s",
        r"\S",
        r"[^\w\n]",
        r"(?a:\w)",
        r"(?s:.)",
        ".",
        r"(?i)k",
        r"[\s_]",
    ):
        assert said(masks(vocab, spelt, regex=pattern), 2) == {
            (i,) for i, one in enumerate(some) if re.fullmatch(pattern, one)
        }, pattern


def test_parts_of_a_character_are_tokens_too():
    vocab, spelt = vocabulary(["é".encode()[:1], "é".encode()[1:], "x", "é"])
    every = sequences(vocab, 4)
    for kind, pattern in (({"regex": "é+x?"}, "é+x?"), ({"lark": 'start: "é"+ "x"?'}, "é+x?")):
        assert said(masks(vocab, spelt, **kind), 4) == keeping(matches, spelt, every, pattern=pattern, full=True)


def test_the_prompt_is_the_beginning():
    made = masks(*LETTERS, regex="(ab)+", include_prompt=True)
    assert said(made, 3, "aba") == {(1,), (1, 2)} and (1,) not in said(made, 3, "ab") and () in said(made, 3, "ab")
    with pytest.raises(UsageError, match=r"^regex '\(ab\)\+': nothing after the prompt 'abb' can match$"):
        made.start("abb")
    parsed = masks(*LETTERS, lark='start: "ab"+', include_prompt=True)
    assert said(parsed, 3, "aba") == said(made, 3, "aba") and said(parsed, 3, "ab") == said(made, 3, "ab")
    with pytest.raises(UsageError, match=r"^lark: nothing after the prompt 'abb' can match$"):
        parsed.start("abb")
    assert masks(*LETTERS, regex="(ab)+").start("zzz") == masks(*LETTERS, regex="(ab)+").start("")


JSON = vocabulary(['{"a":', '"b"', '"a"', "}", "1", ".0", ", ", "true", "[", "]"])
MEMBERS = vocabulary(['"a":', '"b" : true', "1", "true", ", ", "}"])
VALUES = [
    {}, {"type": "integer"}, {"anyOf": [{"type": "integer"}, {"type": "boolean"}]}, {"type": ["boolean", "number"]},
    {"enum": [1, "a"]}, {"const": True},
    {"type": "array", "items": {"type": "integer"}}, {"type": "array", "items": False},
    {"type": "array", "minItems": 1, "items": {"type": "string"}}, {"type": "integer", "minimum": 10, "maximum": 11},
    {"type": "object", "properties": {"a": {"type": "integer"}}},
]  # fmt: skip
OBJECTS = [
    {}, {"properties": {"a": {"type": "integer"}}}, {"properties": {"a": {"type": "integer"}}, "required": ["a"]},
    {"properties": {"a": True, "b": {"type": "boolean"}}, "required": ["b", "a"]},
    {"properties": {"a": {"title": "any"}}, "additionalProperties": False},
    {"additionalProperties": {"type": "boolean"}, "required": ["b"]},
]  # fmt: skip
# What is right and yet not said: a number written otherwise where a schema limits or lists it, what follows 1.0, and
# a member that a later one of the same key makes good.
LOST = re.compile(r"1\.0|(\"[ab]\") ?:.*\1")


def sound_and_lost(where, schema, most, prompt="", first=False) -> set[str]:
    """Texts that are right and are not said; none is said that is wrong."""
    vocab, spelt = where
    made = masks(vocab, spelt, json_schema=schema, first=first, include_prompt=bool(prompt))
    found = said(made, most, prompt)
    asked = {"schema": schema, "first": first, "include_prompt": bool(prompt)}
    right = keeping(is_json, spelt, sequences(vocab, most), prompt, **asked)
    assert found and found <= right
    return {"".join(vocab.tokens[i] for i in path) for path in right - found}


@pytest.mark.parametrize("schema", VALUES, ids=str)
def test_json_says_what_is_valid(schema):
    for first in (False, True):
        assert all(LOST.search(text) for text in sound_and_lost(JSON, schema, 5, first=first))


@pytest.mark.parametrize("schema", OBJECTS, ids=str)
def test_members_come_in_any_order(schema):
    lost = sound_and_lost(MEMBERS, {"type": "object", **schema}, 6, "{")
    assert all(LOST.search(text) for text in lost)
    assert not lost or "properties" in schema or "additionalProperties" in schema


def test_an_order_that_is_fixed_is_caught(monkeypatch):
    monkeypatch.setattr(json_grammar, "OBJECT", set())  # leaves objects to llguidance
    lost = sound_and_lost(MEMBERS, {"type": "object", **OBJECTS[1]}, 6, "{")
    assert '"b" : true, "a":1}' in lost


def test_json_goes_on_from_the_prompt_in_any_order():
    vocab, spelt = vocabulary(["1", "1.5", "}", '"age"', ":", ",", " ", '"x"', "5", "\n"])
    schema = {"type": "object", "properties": {"age": {"type": "integer"}, "year": {"type": "integer"}}}
    for first, prompt in ((True, '{"city": "Ada", "age":'), (False, '{"year": 1, "age":')):
        made = masks(vocab, spelt, json_schema=schema, include_prompt=True, first=first)
        every = sequences(vocab, 5)
        right = keeping(is_json, spelt, every, prompt, schema=schema, include_prompt=True, first=first)
        assert said(made, 5, prompt) == right and right
    with pytest.raises(UsageError, match=r"^json_schema: nothing after the prompt '\[1' can match$"):
        made.start("[1")


def test_an_escape_hides_no_key(monkeypatch):
    vocab, spelt = vocabulary(['{"', "a", "\\u0061", '":', "1", "true", "}"])
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    found = said(masks(vocab, spelt, json_schema=schema), 6)
    assert (0, 1, 3, 4, 6) in found and found <= keeping(is_json, spelt, sequences(vocab, 6), schema=schema)
    monkeypatch.setattr(json_grammar, "OBJECT", set())  # leaves objects to llguidance
    assert (0, 2, 3, 5, 6) not in said(masks(vocab, spelt, json_schema=schema), 6)
    monkeypatch.setattr(json_grammar, "_theirs", lambda schema: f"%json {json.dumps(schema)}")
    assert (0, 2, 3, 5, 6) in said(masks(vocab, spelt, json_schema=schema), 6)


def test_a_grammar_that_no_regex_has():
    vocab, spelt = vocabulary(["(", ")", "()", "x"])
    made = masks(vocab, spelt, lark='start: "(" start ")" | "x"')
    every = sequences(vocab, 6)

    def balanced(path):
        return bool(re.fullmatch(r"\(*x\)*", text := "".join(vocab.tokens[i] for i in path))) and text.count(
            "("
        ) == text.count(")")

    assert said(made, 6) == {path for path in every if balanced(path)}
    first = masks(vocab, spelt, lark='start: "(" start ")" | "x"', first=True)
    begun = re.compile(r"x.*|\(x\).*|\(\(x\)\).*", re.DOTALL)
    assert said(first, 6) == {p for p in every if begun.fullmatch("".join(vocab.tokens[i] for i in p))}


def test_forcing_would_hide_spellings(monkeypatch):
    vocab, spelt = vocabulary(["n", "u", "nu", "ll", "l"])
    made = masks(vocab, spelt, lark='start: "null"')
    assert said(made, 5) == {(0, 1, 3), (2, 3), (0, 1, 4, 4), (2, 4, 4)}
    monkeypatch.setattr(grammar, "UNFORCED", "")
    with pytest.raises((UsageError, AssertionError)):
        assert said(masks(vocab, spelt, lark='start: "null"'), 5) == said(made, 5)


def test_what_is_forgotten_is_read_again(monkeypatch):
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    whole = said(masks(*JSON, json_schema=schema), 5)
    monkeypatch.setattr(grammar, "KEPT", 1)
    assert said(masks(*JSON, json_schema=schema), 5) == whole


def test_a_state_keeps_its_last_token_and_not_the_text_so_far():
    made, states = masks(*LETTERS, lark="start: /[ab]*/"), np.array([2])
    for _ in range(50):
        states = made.after(states, np.array([3]))
    assert sum(len(said) for _, said in made._before) == 50 * len("aba")
    assert made._text(states[0]) == (2, b"aba" * 50) and made.allowed(states, 1).sum() == 4 + 2


@pytest.mark.parametrize("kind", [{"regex": "ab"}, {"lark": 'start: "ab"'}])
def test_after_what_was_not_allowed_nothing_is(kind):
    vocab, spelt = LETTERS
    made = masks(vocab, spelt, **kind)
    start = np.array([made.start("")] * len(vocab))
    after = made.after(start, np.arange(len(vocab)))
    assert made.allowed(after, 9).any(1).tolist() == [True, False, True, False, False, False, False]
    for _ in range(2):
        after = made.after(after, np.arange(len(vocab)))
        assert not made.allowed(after, 9).any()


def test_identities_tell_masks_apart():
    kinds = [{"regex": "ab"}, {"regex": "a"}, {"lark": 'start: "ab"'}, {"regex": "ab", "first": True},
             {"regex": "ab", "lookahead": True}, {"lark": 'start: "ab"', "include_prompt": True}]  # fmt: skip
    made = [masks(*LETTERS, **kind).identity() for kind in kinds]
    assert len({json.dumps(one, sort_keys=True) for one in made}) == len(made)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ({"regex": r"\bfoo"}, "has an anchor (the whole draw is matched: leave ^ and $ out)"),
        ({"regex": "^a$"}, "has an anchor"), ({"regex": r"(a)\1"}, "refers back to a group"),
        ({"regex": "a(?=b)"}, "looks ahead or behind"), ({"regex": "(?<!b)a"}, "looks ahead or behind"),
        ({"regex": "(?>a)"}, "an atomic group"), ({"regex": "a++"}, "a possessive repetition"),
        ({"regex": "(?a)b(?i:k)"}, "has the flags a and i at once"),
        ({"regex": "[a"}, "is no regular expression: unterminated character set"),
        ({"regex": "ax"}, "no text that the tokens spell matches it (none of them has 'x')"),
        ({"regex": r"a[^\s\S]"}, "nothing matches it"), ({"regex": r"\ud800"}, "no automaton of it"),
        ({"regex": "(a{100}){100}"}, "its repetitions spell out more than 1000 characters"),
        ({"json_schema": 3}, "json_schema is 3, which is no JSON Schema (a mapping)"),
        ({"json_schema": {"type": "text"}}, "json_schema is no JSON Schema: type: "),
        ({"json_schema": False}, "json_schema: no value satisfies it"),
        ({"json_schema": {"type": "object", "required": ["a"], "properties": {"a": False}}}, "no value satisfies it"),
        ({"json_schema": {"type": "string", "minLength": 3, "maxLength": 2}}, "json_schema: Unsatisfiable schema"),
        ({"json_schema": {"not": {}}}, 'json_schema: Unimplemented keys: ["not"]'),
        ({"json_schema": {"type": "integer"}}, "json_schema: no text that the tokens spell matches it"),
        ({"lark": "start: x"}, 'lark: unknown name: "x"'), ({"lark": 'start: "a'}, "lark: 1(10): lexer error"),
        ({"lark": ""}, "lark: no start rule found"), ({"lark": "start: /a(?=b)/"}, "look-around"),
        ({"lark": r"start: /[^\s\S]/"}, "lark: no text that the tokens spell matches it"),
        ({"lark": 'start: "x"'}, "lark: no text that the tokens spell matches it"),
        ({}, "give one of regex, json_schema and lark, not none"),
        ({"regex": "a", "lark": "b"}, "give one of regex, json_schema and lark, not regex and lark"),
        ({"lark": 'start: "a"', "lookahead": True}, "lookahead: how many tokens lark still needs is not known"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line(kind, told):
    with pytest.raises(UsageError, match=re.escape(told)) as raised:
        masks(*LETTERS, **kind)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ({"regex": "a"}, "regex needs outlines-core: pip install 'alignbench[constrained]'"),
        ({"lark": 'start: "a"'}, "lark needs llguidance: pip install 'alignbench[constrained]'"),
    ],
)
def test_without_the_libraries(kind, told, monkeypatch):
    real = builtins.__import__

    def missing(name, *rest):
        if name in ("llguidance", "outlines_core"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(UsageError, match=re.escape(told)):
        masks(*LETTERS, **kind)


def test_a_grammar_that_is_too_much_is_told_and_not_guessed(monkeypatch):
    made = masks(*LETTERS, lark='start: "ab"')

    class Broken:
        def deep_copy(self):
            return self

        def compute_bitmask(self):
            return b"\xff\xff"

        def try_consume_tokens(self, tokens):
            return 0

        def is_error(self):
            return True

        def get_error(self):
            return "LexerTooComplex\n<state>\nmuch"

    made._kept.clear()
    made.__dict__["_unread"] = Broken()
    with pytest.raises(RunError, match=r"^lark: the grammar is too much for llguidance: LexerTooComplex$"):
        made.allowed(np.array([made.start("")]), 3)
