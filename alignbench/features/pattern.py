"""Features that look for a regular expression in a continuation.

Values are had by `re`, which has no limit of time. Marks on a page are made of patterns that a results folder names:
`regex`, which reads nearly all of them alike, is given half a second.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

import numpy as np

from alignbench.errors import UsageError
from alignbench.features.spans import Span
from alignbench.features.words import texts_of
from alignbench.registry import feature
from alignbench.types import Array, Draws


def _compiled(pattern: str, ignore_case: bool) -> re.Pattern[str]:
    """The regular expression; raises UsageError, with the position, where it is none."""
    try:
        return re.compile(pattern, re.IGNORECASE if ignore_case else 0)
    except (re.error, OverflowError, RecursionError) as error:
        raise UsageError(f"has the pattern {pattern!r}, which is no regular expression: {error}") from error


def _check(pattern: str, ignore_case: bool, include_prompt: bool, full: bool = False) -> None:
    _compiled(pattern, ignore_case)


PATIENCE = 0.5
"""Seconds that may pass until what a pattern finds in one text is known."""
FOREIGN = re.compile(r"\[:|(?<!\\)\{(?!\d*,?\d*\})")
"""What `regex` reads in another way: [[:alpha:]], and (a){e<=1}, which in `re` is text."""


def _spans(
    prompt: str, text: str, pattern: str, full: bool = False, ignore_case: bool = False, include_prompt: bool = False
) -> Iterator[Span]:
    """All that the expression finds, without what of it lies in the prompt. Raises TimeoutError."""
    import regex

    if FOREIGN.search(pattern):
        return
    whole = prompt + text if include_prompt else text
    before = len(whole) - len(whole.lstrip()) - (len(prompt) if include_prompt else 0)
    compiled = regex.compile(pattern, regex.IGNORECASE if ignore_case else 0)
    ask = compiled.fullmatch if full else compiled.finditer
    found = ask(whole.strip(), timeout=PATIENCE)
    hits = found if not full else [found] if found else []
    yield from ((hit.start() + before, hit.end() + before) for hit in hits)


@feature(version=1, range=(0, 1), check=_check, spans=_spans)
def matches(
    prompts: Sequence[str],
    draws: Draws,
    *,
    pattern: str,
    full: bool = False,
    ignore_case: bool = False,
    include_prompt: bool = False,
) -> Array:
    """1 where the regular expression is found in the continuation (with `full`: is all of it), else 0.

    White space around the text does not count; `include_prompt` puts the prompt before it. `pattern` is Python's
    ``re``, without a limit of time: nested repetitions such as ``(a+)+b`` can take for ever.
    """
    compiled = _compiled(pattern, ignore_case)
    ask = compiled.fullmatch if full else compiled.search
    return np.array([bool(ask(text.strip())) for text in texts_of(prompts, draws, include_prompt)], dtype=float)


@feature(version=1, range=(0, math.inf), check=_check, spans=_spans)
def count_matches(
    prompts: Sequence[str], draws: Draws, *, pattern: str, ignore_case: bool = False, include_prompt: bool = False
) -> Array:
    """Times that the regular expression is found in the continuation, none overlapping another.

    The text and the expression: see `matches`.
    """
    compiled = _compiled(pattern, ignore_case)
    texts = texts_of(prompts, draws, include_prompt)
    return np.array([sum(1 for _ in compiled.finditer(text.strip())) for text in texts], dtype=float)
