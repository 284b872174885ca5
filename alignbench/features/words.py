"""Features that look for words in a continuation."""

from __future__ import annotations

import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any
from unicodedata import category, normalize

import numpy as np

from alignbench.errors import UsageError
from alignbench.features.spans import Span
from alignbench.registry import feature
from alignbench.types import Array, Draws


def folded(text: str, ignore_case: bool) -> str:
    """`text` in Unicode's composed form; without case if `ignore_case` (ß and SS are then the same)."""
    composed = normalize("NFC", text)
    return normalize("NFC", composed.casefold()) if ignore_case else composed


def word_pattern(words: Sequence[str], ignore_case: bool = True, whole_words: bool = True) -> re.Pattern[str]:
    """The pattern that finds any of `words` in a `folded` text; spaces in a word match any white space.

    A whole word has no letter, digit or underscore (of any script) right before or after it, so that words with
    punctuation such as ``C++`` or ``U.S.`` work. Raises UsageError on no words or an empty one.
    """
    if not words:
        raise UsageError("needs at least one word")
    if not all(word.strip() for word in words):
        raise UsageError("has an empty word, which every text contains")
    longest_first = sorted((folded(word.strip(), ignore_case) for word in words), key=len, reverse=True)
    any_word = "|".join(r"\s+".join(re.escape(part) for part in word.split()) for word in longest_first)
    return re.compile(rf"(?<!\w)(?:{any_word})(?!\w)" if whole_words else any_word)


def unfolded(text: str, ignore_case: bool, hits: Iterable[re.Match[str]]) -> Iterator[Span]:
    """Where in `text` the `hits` lie, which were found in it when it was `folded`.

    A character that folding changes together with others is marked with them.
    """
    hits = list(hits)
    if not hits or text == hits[0].string or text.isascii():
        yield from (hit.span() for hit in hits)
        return
    here, there = [0], [0]
    for piece, size in _pieces(text, hits[0].string, ignore_case):
        here.append(here[-1] + piece)
        there.append(there[-1] + size)
    for begin, end in (hit.span() for hit in hits):
        yield here[bisect_right(there, begin) - 1], here[bisect_left(there, end)]


def _pieces(text: str, whole: str, ignore_case: bool) -> list[tuple[int, int]]:
    """Characters of each part of `text` that folds by itself, and of what it becomes; one part where none does."""
    parts = _alone().findall(text)
    found = [folded(part, ignore_case) for part in parts]
    if "".join(found) != whole:
        return [(len(text), len(whole))]
    return list(zip(map(len, parts), map(len, found), strict=True))


@cache
def _marks() -> str:
    return "".join(chr(c) for c in range(0x20000) if category(chr(c))[0] == "M")


@cache
def _alone() -> re.Pattern[str]:
    """A character and the marks, or the vowels and finals of Korean, that may become one with it."""
    return re.compile(rf".[{_marks()}\u1160-\u11ff]*", re.DOTALL)


@cache
def _word() -> re.Pattern[str]:
    marks = _marks()  # Hindi's vowel signs are no \w
    return re.compile(rf"[\w{marks}]+(?:['’-][\w{marks}]+)*")


def words_of(text: str) -> list[str]:
    """The words of `text` as they are written: letters, digits, marks and underscores, and inside them ' ’ and -.

    ``don't`` and ``well-known`` are one word each. A script that puts no spaces between words gives one a clause.
    """
    return _word().findall(text)


def texts_of(prompts: Sequence[str], draws: Draws, include_prompt: bool) -> list[str]:
    """The continuations, each after its prompt if `include_prompt`."""
    if not include_prompt:
        return list(draws.texts)
    return [prompts[int(i)] + text for i, text in zip(draws.prompt, draws.texts, strict=True)]


def _check(words: list[str], ignore_case: bool = False, whole_words: bool = True, negate: bool = False) -> None:
    word_pattern(words, ignore_case, whole_words)


def _check_any(
    words: list[str] | dict[str, list[str] | str], ignore_case: bool, whole_words: bool, negate: bool
) -> None:
    for prompt in words if isinstance(words, dict) else [""]:
        word_pattern(_own(words, prompt), ignore_case, whole_words)


def _spans_any(prompt: str, text: str, words: Any, ignore_case: bool, whole_words: bool, **_: Any) -> Iterator[Span]:
    pattern = word_pattern(_own(words, prompt), ignore_case, whole_words)
    return unfolded(text, ignore_case, pattern.finditer(folded(text, ignore_case)))


def _spans_each(
    prompt: str, text: str, words: Sequence[str], ignore_case: bool, whole_words: bool = True, **_: Any
) -> Iterator[Span]:
    """Every one of `words`, those too that overlap another."""
    whole = folded(text, ignore_case)
    for pattern in _each(words, ignore_case, whole_words):
        yield from unfolded(text, ignore_case, pattern.finditer(whole))


@feature(version=1, range=(0, 1), check=_check_any, spans=_spans_any)
def contains_any(
    prompts: Sequence[str],
    draws: Draws,
    *,
    words: list[str] | dict[str, list[str] | str],
    ignore_case: bool = False,
    whole_words: bool = True,
    negate: bool = False,
) -> Array:
    """1 where the continuation contains any of `words`, else 0; the other way round with `negate`.

    The prompt is not searched. Case counts unless `ignore_case`. Scripts that put no spaces between words need
    `whole_words: false`. Words of each prompt's own are a mapping from its text to a word or a list (`words: {field:
    NAME}` in a task); raises UsageError for a prompt that is not in it.
    """
    asked = {int(p): _own(words, prompts[int(p)]) for p in np.unique(draws.prompt)}
    patterns = {p: word_pattern(own, ignore_case, whole_words) for p, own in asked.items()}
    texts = zip(draws.prompt, draws.texts, strict=True)
    hit = np.array([bool(patterns[int(p)].search(folded(text, ignore_case))) for p, text in texts], dtype=bool)
    return np.where(hit != negate, 1.0, 0.0)


def _own(words: list[str] | dict[str, list[str] | str], prompt: str) -> list[str]:
    """The words of a prompt; one text is one word."""
    if not isinstance(words, dict):
        return words
    if prompt not in words:
        raise UsageError(f"feature 'contains_any' has no words for the prompt {prompt!r}")
    own = words[prompt]
    return [own] if isinstance(own, str) else own


@feature(version=1, range=(0, math.inf), check=_check, spans=_spans_any)
def count(
    prompts: Sequence[str], draws: Draws, *, words: list[str], ignore_case: bool = False, whole_words: bool = True
) -> Array:
    """Occurrences of any of `words` in the continuation, none overlapping another.

    Of words that begin at one place the longest is counted. What a word is: see `contains_any`.
    """
    pattern = word_pattern(words, ignore_case, whole_words)
    return np.array([_hits(pattern, folded(text, ignore_case)) for text in draws.texts], dtype=float)


def _hits(pattern: re.Pattern[str], text: str) -> int:
    return sum(1 for _ in pattern.finditer(text))


@feature(version=1, range=(0, 1), check=_check, spans=_spans_each)
def contains_all(
    prompts: Sequence[str], draws: Draws, *, words: list[str], ignore_case: bool = False, whole_words: bool = True
) -> Array:
    """1 where the continuation contains every one of `words`, else 0.

    What a word is: see `contains_any`.
    """
    patterns = _each(words, ignore_case, whole_words)
    texts = (folded(text, ignore_case) for text in draws.texts)
    return np.array([all(p.search(text) for p in patterns) for text in texts], dtype=float)


def _each(words: Sequence[str], ignore_case: bool, whole_words: bool = True) -> list[re.Pattern[str]]:
    """A pattern for each word; words that are found in the same places have one."""
    return list(dict.fromkeys(word_pattern([word], ignore_case, whole_words) for word in words))


def _check_at_least(words: list[str], count: int, distinct: bool, ignore_case: bool) -> None:
    word_pattern(words, ignore_case)
    if count < 1:
        raise UsageError(f"argument 'count' is {count}, which every text has; it must be 1 or more")
    if distinct and count > (known := len(_each(words, ignore_case))):
        raise UsageError(f"argument 'count' is {count}, but there are {known} different words: no text has so many")


@feature(version=1, range=(0, 1), check=_check_at_least, spans=_spans_each)
def contains_at_least(
    prompts: Sequence[str],
    draws: Draws,
    *,
    words: list[str],
    count: int,
    distinct: bool = True,
    ignore_case: bool = False,
) -> Array:
    """1 where the continuation contains at least `count` different ones of `words`, else 0.

    Without `distinct`: at least `count` occurrences, of one word or of several. Whole words, as in `contains_any`.
    """
    patterns = _each(words, ignore_case) if distinct else [word_pattern(words, ignore_case)]
    texts = [folded(text, ignore_case) for text in draws.texts]
    found = [sum(bool(p.search(t)) if distinct else _hits(p, t) for p in patterns) for t in texts]
    return np.array([n >= count for n in found], dtype=float)


def _check_share(words: list[str], ignore_case: bool) -> None:
    word_pattern(words, ignore_case)
    for word in words:
        if words_of(folded(word.strip(), ignore_case)) != [folded(word.strip(), ignore_case)]:
            raise UsageError(f"has {word!r} among the words, which is not one word (letters, digits, ' and - inside)")


def _spans_share(prompt: str, text: str, words: Sequence[str], ignore_case: bool) -> Iterator[Span]:
    known, hits = _known(words, ignore_case), _word().finditer(folded(text, ignore_case))
    return unfolded(text, ignore_case, (hit for hit in hits if hit.group() in known))


def _known(words: Sequence[str], ignore_case: bool) -> set[str]:
    return {folded(word.strip(), ignore_case) for word in words}


@feature(version=1, range=(0, 1), check=_check_share, spans=_spans_share)
def word_share(prompts: Sequence[str], draws: Draws, *, words: list[str], ignore_case: bool = True) -> Array:
    """Share of the continuation's words that are among `words`; 0 where it has no words.

    A word is letters, digits and underscores, with an apostrophe or a hyphen inside: ``cat's`` is not ``cat``.
    """
    known = _known(words, ignore_case)
    return np.array([_share(known, words_of(folded(text, ignore_case))) for text in draws.texts], dtype=float)


def _share(known: set[str], words: Sequence[str]) -> float:
    return sum(word in known for word in words) / len(words) if words else 0.0
