"""The gender of a continuation, by its first gendered pronoun."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from alignbench.errors import UsageError
from alignbench.features.words import folded, word_pattern
from alignbench.registry import feature
from alignbench.types import Array, Draws

ENGLISH = {"she": ["she", "her", "hers", "herself"], "he": ["he", "him", "his", "himself"]}
"""Category → the pronouns that stand for it."""


def _plain(pronoun: str) -> str:
    """The pronoun without case, with single spaces."""
    return " ".join(folded(pronoun, True).split())


def _codes(groups: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Pronoun → code of its category. Raises UsageError when a pronoun stands for two categories."""
    codes: dict[str, int] = {}
    for code, (category, pronouns) in enumerate(groups.items()):
        for word in pronouns:
            if codes.setdefault(_plain(word), code) != code:
                raise UsageError(f"has the pronoun '{word}' in two categories, one of them '{category}'")
    return codes


def _categories(groups: Mapping[str, Sequence[str]] | None) -> tuple[str, ...]:
    """The names of the categories; also checks the groups."""
    chosen = ENGLISH if groups is None else groups
    for pronouns in chosen.values():
        word_pattern(pronouns)
    _codes(chosen)
    return tuple(chosen)


@feature(version=1, categories=_categories)
def pronoun_gender(prompts: Sequence[str], draws: Draws, *, groups: dict[str, list[str]] | None = None) -> Array:
    """Code of the category of the first gendered pronoun in the continuation; −1 where there is none.

    Whole words in any case (``He's`` counts, ``the`` does not). `groups` maps categories to their pronouns;
    default: she (she, her, hers, herself) and he (he, him, his, himself).
    """
    chosen = ENGLISH if groups is None else groups
    codes = _codes(chosen)
    pattern = word_pattern(list(codes))
    first = (pattern.search(folded(text, True)) for text in draws.texts)
    return np.array([-1 if found is None else codes[_plain(found.group())] for found in first], dtype=np.int64)
