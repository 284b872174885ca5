"""Features that look for a regular expression in a continuation."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np

from alignbench.errors import UsageError
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


@feature(version=1, range=(0, 1), check=_check)
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


@feature(version=1, range=(0, math.inf), check=_check)
def count_matches(
    prompts: Sequence[str], draws: Draws, *, pattern: str, ignore_case: bool = False, include_prompt: bool = False
) -> Array:
    """Times that the regular expression is found in the continuation, none overlapping another.

    The text and the expression: see `matches`.
    """
    compiled = _compiled(pattern, ignore_case)
    texts = texts_of(prompts, draws, include_prompt)
    return np.array([sum(1 for _ in compiled.finditer(text.strip())) for text in texts], dtype=float)
