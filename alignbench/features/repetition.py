"""How much a continuation repeats itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from alignbench.errors import UsageError
from alignbench.features.words import folded, words_of
from alignbench.registry import feature
from alignbench.types import Array, Draws


def _check(n: int) -> None:
    if n < 1:
        raise UsageError(f"argument 'n' is {n}: an n-gram has at least 1 word")


@feature(version=1, range=(0, 1), check=_check)
def repetition_rate(prompts: Sequence[str], draws: Draws, *, n: int = 4) -> Array:
    """Share of the continuation's word n-grams that already occurred in it; 0 where it has fewer than n words.

    1 − different n-grams / n-grams: seq-rep-n of Welleck et al. 2020 (Neural Text Generation with Unlikelihood
    Training), over words instead of tokens. Case counts, punctuation does not.
    """
    return np.array([_rate(words_of(folded(text, False)), n) for text in draws.texts], dtype=float)


def _rate(words: Sequence[str], n: int) -> float:
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0
