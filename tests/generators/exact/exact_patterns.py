"""Patterns over words as automata, by Brzozowski's derivatives (Brzozowski 1964).

A pattern is words separated by spaces, with `( )`, `|`, `*`, `+`, `?`, and `.` for any word: "( a | c )* b".
What is left of a pattern after a word is a pattern again; those are the automaton's states.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from alignbench.errors import UsageError
from alignbench.generators.base import Vocab
from alignbench.generators.exact.automaton import Automaton
from alignbench.generators.exact.words import ids_of

Rest = tuple[Any, ...]
"""What may follow: ("no",), ("end",), ("one", ids or None for any), ("then", r, s), ("or", frozenset), ("many", r)."""

NO: Rest = ("no",)
END: Rest = ("end",)
ANY: Rest = ("one", None)
TOKEN = re.compile(r"[()|*+?.]|[^\s()|*+?.]+")


def matches(vocab: Vocab, pattern: str, *, cut: bool = False) -> Automaton:
    """1 for draws whose words match the whole pattern, else 0; a draw cut at max_tokens matches only if `cut`."""
    first = _Reader(vocab, pattern).read()
    named = sorted(_named(first))
    number, todo, rows = {first: 0}, [first], []
    for rest in todo:  # grows while it is walked
        row = np.empty(len(vocab), dtype=np.int64)
        for word in (None, *named):  # None: every word that the pattern does not name
            left = _after(rest, word)
            if left not in number:
                number[left] = len(todo)
                todo.append(left)
            row[slice(None) if word is None else word] = number[left]
        rows.append(row)
    done = np.array([_may_end(rest) for rest in todo], dtype=float)
    return Automaton(vocab, np.stack(rows), done, done if cut else np.zeros_like(done))


def contains_any(vocab: Vocab, phrases: Sequence[str]) -> Automaton:
    """1 for draws, finished or cut, in which one of the phrases (words separated by spaces) is said, else 0."""
    if not phrases:
        raise UsageError("contains_any: give at least one phrase")
    return matches(vocab, f".* ( {' | '.join(phrases)} ) .*", cut=True)


def _then(first: Rest, second: Rest) -> Rest:
    if NO in (first, second):
        return NO
    if first == END:
        return second
    if first[0] == "then":  # to the right, so that equal rests are spelt alike
        return _then(first[1], _then(first[2], second))
    return first if second == END else ("then", first, second)


def _or(*rests: Rest) -> Rest:
    found: set[Rest] = set()
    for rest in rests:
        found |= rest[1] if rest[0] == "or" else {rest}
    found.discard(NO)
    if _many(ANY) in found:
        return _many(ANY)
    return NO if not found else next(iter(found)) if len(found) == 1 else ("or", frozenset(found))


def _many(rest: Rest) -> Rest:
    return END if rest in (NO, END) else rest if rest[0] == "many" else ("many", rest)


def _may_end(rest: Rest) -> bool:
    match rest:
        case ("end",) | ("many", _):
            return True
        case ("then", first, second):
            return _may_end(first) and _may_end(second)
        case ("or", several):
            return any(map(_may_end, several))
    return False


def _after(rest: Rest, word: int | None) -> Rest:
    """What may follow once `word` is said; None is a word that the pattern does not name."""
    match rest:
        case ("one", ids):
            return END if ids is None or word == ids else NO
        case ("then", first, second):
            left = _then(_after(first, word), second)
            return _or(left, _after(second, word)) if _may_end(first) else left
        case ("or", several):
            return _or(*(_after(r, word) for r in several))
        case ("many", inner):
            return _then(_after(inner, word), rest)
    return NO


def _named(rest: Rest) -> set[int]:
    """The ids that a pattern names."""
    match rest:
        case ("one", word):
            return set() if word is None else {word}
        case ("or", several):
            return set().union(*map(_named, several))
    return set().union(*(_named(part) for part in rest[1:]))


@dataclass
class _Reader:
    """A pattern on its way from text to `Rest`: alternatives of sequences of repeated atoms."""

    vocab: Vocab
    text: str
    at: int = 0

    def __post_init__(self) -> None:
        self.tokens = TOKEN.findall(self.text)

    def read(self) -> Rest:
        """The whole pattern; raises UsageError where it is not one."""
        rest = self._alternatives()
        if self._next() is not None:
            raise self._wrong(f"'{self._next()}' closes nothing")
        return rest

    def _next(self) -> str | None:
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    def _take(self) -> str | None:
        self.at += 1
        return self.tokens[self.at - 1] if self.at <= len(self.tokens) else None

    def _wrong(self, why: str) -> UsageError:
        return UsageError(f"pattern '{self.text}': {why}")

    def _alternatives(self) -> Rest:
        found = [self._sequence()]
        while self._next() == "|":
            self._take()
            found.append(self._sequence())
        return _or(*found)

    def _sequence(self) -> Rest:
        rest = END
        while self._next() not in (None, "|", ")"):
            rest = _then(rest, self._repeated())
        return rest

    def _repeated(self) -> Rest:
        rest = self._atom()
        while self._next() in ("*", "+", "?"):
            sign = self._take()
            rest = _or(rest, END) if sign == "?" else _many(rest) if sign == "*" else _then(rest, _many(rest))
        return rest

    def _atom(self) -> Rest:
        token = self._take()
        if token == ".":
            return ANY
        if token == "(":
            rest = self._alternatives()
            if self._take() != ")":
                raise self._wrong("a '(' is not closed")
            return rest
        if token in ("*", "+", "?"):
            raise self._wrong(f"nothing to repeat before '{token}'")
        return ("one", ids_of(self.vocab.tokens, str(token), "pattern")[0])
