"""How hard a continuation is to read, by formulas that need no dictionary of syllables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from alignbench.features.shape import sentences_of
from alignbench.features.words import words_of
from alignbench.registry import feature
from alignbench.types import Array, Draws


@feature(version=1)
def readability(prompts: Sequence[str], draws: Draws, *, index: Literal["ari", "coleman_liau"] = "ari") -> Array:
    """School grade (United States) needed to read the continuation; 0 where it has no words.

    `ari`: 4.71 (letters and digits a word) + 0.5 (words a sentence) − 21.43, the Automated Readability Index (Smith
    & Senter 1967, AMRL-TR-66-220). `coleman_liau`: 5.88 (letters a word) − 29.6 (sentences a word) − 15.8 (Coleman &
    Liau 1975, J. Applied Psychology 60). Made for English prose; short texts go below 0. Sentences as in
    `length_sentences`.
    """
    formula = _ari if index == "ari" else _coleman_liau
    return np.array([formula(text) if words_of(text) else 0.0 for text in draws.texts], dtype=float)


def _ari(text: str) -> float:
    words = len(words_of(text))
    return 4.71 * sum(map(str.isalnum, text)) / words + 0.5 * words / len(sentences_of(text)) - 21.43


def _coleman_liau(text: str) -> float:
    words = len(words_of(text))
    return 5.88 * sum(map(str.isalpha, text)) / words - 29.6 * len(sentences_of(text)) / words - 15.8
