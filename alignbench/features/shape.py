"""The size of a continuation."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np

from alignbench.features.words import words_of
from alignbench.registry import feature
from alignbench.types import Array, Draws

# Only the first mark of a run may begin a match: else a run of n marks takes n² steps.
_END = re.compile(r"(?<![.!?…])[.!?…]++[\"'”’»)\]]*+\s+|[。！？]+|\n\s*\n")


def sentences_of(text: str) -> list[str]:
    """The sentences of `text`: what . ! ? or … before white space, 。！？ or an empty line ends, if it has a word.

    An abbreviation's dot ends one too (``Mr. Smith`` is in two), as a typewriter would count (Smith & Senter 1967).
    """
    return [piece for piece in _END.split(text) if words_of(piece)]


@feature(version=1, range=(0, math.inf))
def length_tokens(prompts: Sequence[str], draws: Draws) -> Array:
    """Tokens of the continuation, EOS counted."""
    return draws.length.astype(float)


@feature(version=1, range=(0, math.inf))
def length_characters(prompts: Sequence[str], draws: Draws) -> Array:
    """Characters (Unicode code points) of the continuation, white space counted."""
    return np.array([len(text) for text in draws.texts], dtype=float)


@feature(version=1, range=(0, math.inf))
def length_words(prompts: Sequence[str], draws: Draws) -> Array:
    """Words of the continuation: letters and digits in a row, with an apostrophe or a hyphen inside.

    In a script that puts no spaces between words (Chinese, Thai), a clause counts as one.
    """
    return np.array([len(words_of(text)) for text in draws.texts], dtype=float)


@feature(version=1, range=(0, math.inf))
def length_sentences(prompts: Sequence[str], draws: Draws) -> Array:
    """Sentences of the continuation, the unfinished last one counted.

    They end at . ! ? or … before white space, at 。！？, and at an empty line; the dot of ``Mr. Smith`` ends one too.
    """
    return np.array([len(sentences_of(text)) for text in draws.texts], dtype=float)


@feature(version=1, range=(0, math.inf))
def words_per_sentence(prompts: Sequence[str], draws: Draws) -> Array:
    """Mean words a sentence of the continuation; 0 where it has no words."""
    return np.array([len(words_of(t)) / max(len(sentences_of(t)), 1) for t in draws.texts], dtype=float)
