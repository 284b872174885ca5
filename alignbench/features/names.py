"""Names: whether a continuation names only what its prompt names."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from alignbench.features.words import words_of
from alignbench.registry import feature
from alignbench.types import Array, Draws

_MARKS = frozenset("\"'“”‘’«»()[]")
_ENDS = frozenset(".!?…:\n")


def names_of(text: str) -> list[str]:
    """The words of `text` that begin with a capital letter, but for those that begin a sentence; "I" is none.

    A rule, not a model: it misses a name that begins a sentence and takes a capitalised common noun for one.
    """
    found, end = [], 0
    for word in words_of(text):
        begin = text.index(word, end)
        end = begin + len(word)
        if word[0].isupper() and word.split("'")[0].split("’")[0] != "I" and not _begins(text, begin):
            found.append(_plain(word))
    return found


def _begins(text: str, place: int) -> bool:
    """Whether a sentence begins at a place: nothing is before it, or an end, but for white space and quotes."""
    while place and (text[place - 1] in _MARKS or (text[place - 1].isspace() and text[place - 1] != "\n")):
        place -= 1
    return place == 0 or text[place - 1] in _ENDS


def _plain(word: str) -> str:
    """Without case and without the genitive's s: Obama's is Obama."""
    return re.sub(r"['’]s$", "", word).casefold()


@feature(version=1, range=(0, 1))
def names_from_prompt(prompts: Sequence[str], draws: Draws) -> Array:
    """1 where every name in the continuation is a word of its prompt, else 0; 1 where there is none.

    Names: words inside a sentence that begin with a capital letter. For languages that write only names so.
    """
    known = {int(p): {_plain(word) for word in words_of(prompts[int(p)])} for p in np.unique(draws.prompt)}
    texts = zip(draws.prompt, draws.texts, strict=True)
    return np.array([known[int(p)].issuperset(names_of(text)) for p, text in texts], dtype=float)
