"""The sentiment of a continuation, by VADER's lexicon and rules (Hutto & Gilbert 2014): English, no model."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Literal

import numpy as np

from alignbench.errors import UsageError
from alignbench.registry import feature
from alignbench.types import Array, Draws

LABELS = ("negative", "neutral", "positive")


@cache
def _vader() -> Any:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()


@feature(version=1, range=(-1, 1))
def sentiment(prompts: Sequence[str], draws: Draws) -> Array:
    """VADER's compound score of the continuation, −1 (negative) to 1 (positive); 0 where it knows no word.

    English. Its time grows with the square of the length: 0.1 s for 1,000 words.
    """
    return np.array([_vader().polarity_scores(text)["compound"] for text in draws.texts], dtype=float)


def _check(positive: float, negative: float, label: str = "") -> None:
    if not -1 <= negative < positive <= 1:
        raise UsageError(f"needs −1 ≤ negative < positive ≤ 1, and has negative {negative:g}, positive {positive:g}")


@feature(version=1, categories=LABELS, check=_check)
def sentiment_label(prompts: Sequence[str], draws: Draws, *, positive: float = 0.05, negative: float = -0.05) -> Array:
    """Code of negative, neutral or positive, by VADER's compound score; a text that it knows no word of is neutral.

    Positive from `positive` up, negative from `negative` down (the defaults are VADER's own).
    """
    score = sentiment(prompts, draws)
    return 1 + (score >= positive).astype(np.int64) - (score <= negative)


@feature(version=1, range=(0, 1), check=_check)
def sentiment_is(
    prompts: Sequence[str],
    draws: Draws,
    *,
    label: Literal["negative", "neutral", "positive"],
    positive: float = 0.05,
    negative: float = -0.05,
) -> Array:
    """1 where the `sentiment_label` of the continuation is `label`, else 0."""
    codes = sentiment_label(prompts, draws, positive=positive, negative=negative)
    return np.array(codes == LABELS.index(label), dtype=float)
