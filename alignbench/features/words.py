"""Features that look for words in a continuation."""

from __future__ import annotations

import re
from collections.abc import Sequence
from unicodedata import normalize

import numpy as np

from alignbench.errors import UsageError
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


def _check(words: list[str], ignore_case: bool, whole_words: bool, negate: bool) -> None:
    word_pattern(words, ignore_case, whole_words)


@feature(version=1, range=(0, 1), check=_check)
def contains_any(
    prompts: Sequence[str],
    draws: Draws,
    *,
    words: list[str],
    ignore_case: bool = False,
    whole_words: bool = True,
    negate: bool = False,
) -> Array:
    """1 where the continuation contains any of `words`, else 0; the other way round with `negate`.

    The prompt is not searched. Case counts unless `ignore_case`. Scripts that put no spaces between words need
    `whole_words: false`.
    """
    pattern = word_pattern(words, ignore_case, whole_words)
    hit = np.array([bool(pattern.search(folded(text, ignore_case))) for text in draws.texts], dtype=bool)
    return np.where(hit != negate, 1.0, 0.0)
