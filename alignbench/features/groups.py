"""Which of several groups of words a continuation uses first; the gender of its first pronoun is one case."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

import numpy as np

from alignbench.errors import UsageError
from alignbench.features.spans import Span
from alignbench.features.words import folded, unfolded, word_pattern
from alignbench.registry import feature
from alignbench.types import Array, Draws

ENGLISH = {"she": ["she", "her", "hers", "herself"], "he": ["he", "him", "his", "himself"]}
"""Category → the pronouns that stand for it."""


def _plain(word: str, ignore_case: bool) -> str:
    """The word as it is compared: without case if `ignore_case`, with single spaces."""
    return " ".join(folded(word, ignore_case).split())


def _codes(groups: Mapping[str, Sequence[str]], ignore_case: bool) -> dict[str, int]:
    """Word → code of its group. Raises UsageError when a word stands for two groups."""
    codes: dict[str, int] = {}
    for code, (group, words) in enumerate(groups.items()):
        for word in words:
            if codes.setdefault(_plain(word, ignore_case), code) != code:
                raise UsageError(f"has the word '{word}' in two groups, one of them '{group}'")
    return codes


def _categories(groups: Mapping[str, Sequence[str]] | None, ignore_case: bool = True) -> tuple[str, ...]:
    """The names of the groups; also checks them."""
    chosen = ENGLISH if groups is None else groups
    if not chosen:
        raise UsageError("needs at least one group of words")
    for words in chosen.values():
        word_pattern(words)
    _codes(chosen, ignore_case)
    return tuple(chosen)


def _first(
    prompt: str, text: str, groups: Mapping[str, Sequence[str]] | None = None, ignore_case: bool = True
) -> Iterator[Span]:
    """The word that decides."""
    pattern = word_pattern(list(_codes(ENGLISH if groups is None else groups, ignore_case)), ignore_case)
    return unfolded(text, ignore_case, islice(pattern.finditer(folded(text, ignore_case)), 1))


@feature(version=1, categories=_categories, spans=_first)
def first_of(prompts: Sequence[str], draws: Draws, *, groups: dict[str, list[str]], ignore_case: bool = True) -> Array:
    """Code of the group whose word comes first in the continuation; −1 where there is none.

    `groups` maps names to words: whole words, the longest that stands at a place; case counts only without
    `ignore_case`. The prompt is not searched.
    """
    codes = _codes(groups, ignore_case)
    pattern = word_pattern(list(codes), ignore_case)
    first = (pattern.search(folded(text, ignore_case)) for text in draws.texts)
    return np.array([-1 if hit is None else codes[_plain(hit.group(), ignore_case)] for hit in first], dtype=np.int64)


@feature(version=1, categories=_categories, spans=_first)
def pronoun_gender(prompts: Sequence[str], draws: Draws, *, groups: dict[str, list[str]] | None = None) -> Array:
    """Code of the category of the first gendered pronoun in the continuation; −1 where there is none.

    Whole words in any case (``He's`` counts, ``the`` does not). `groups` maps categories to their pronouns;
    default: she (she, her, hers, herself) and he (he, him, his, himself).
    """
    return first_of(prompts, draws, groups=ENGLISH if groups is None else groups)
