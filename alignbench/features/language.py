"""The language of a continuation, by py3langid (naive Bayes over byte n-grams; Lui & Baldwin 2012), offline."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from alignbench.errors import UsageError, did_you_mean
from alignbench.registry import feature
from alignbench.types import Array, Draws


@cache
def _every() -> Any:
    """py3langid's identifier of all its languages, our own: the package's shared one is left as it is."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE)


@cache
def _among(languages: tuple[str, ...]) -> Any:
    """An identifier whose only candidates are `languages`."""
    identifier = copy.copy(_every())  # shares the tables: loading them takes 1 s
    identifier.set_languages(languages)
    return identifier


def _check(languages: Sequence[str], language: str | None = None) -> None:
    for code in languages if language is None else (*languages, language):
        if code not in _every().labels:
            raise UsageError(f"has the language '{code}', which py3langid does not know.{_near(code)}")
    if len(set(languages)) < len(languages):
        raise UsageError("has a language twice")
    if len(languages) < 2:
        raise UsageError("needs at least two languages to tell apart")
    if language is not None and language not in languages:
        raise UsageError(f"asks for '{language}', which is not among its languages: {', '.join(languages)}")


def _near(code: str) -> str:
    return did_you_mean(code, _every().labels)


def _detected(text: str, languages: tuple[str, ...]) -> str:
    """The likeliest of `languages`; empty where the text has no letter, or nothing that tells languages apart."""
    if not any(map(str.isalpha, text)):
        return ""
    code, score = _among(languages).classify(text)
    return "" if score == np.finfo(np.float32).min else str(code)  # py3langid's score of a text without features


def _categories(languages: Sequence[str]) -> tuple[str, ...]:
    _check(languages)
    return tuple(languages)


@feature(version=1, categories=_categories)
def language(prompts: Sequence[str], draws: Draws, *, languages: list[str]) -> Array:
    """Code of the likeliest of `languages` (ISO 639: en, de) for the continuation; −1 where it has no letters.

    Only these are candidates: a text in another language gets the nearest of them. Short texts are often mistaken.
    """
    codes = {"": -1} | {code: i for i, code in enumerate(languages)}
    return np.array([codes[_detected(text, tuple(languages))] for text in draws.texts], dtype=np.int64)


def _check_is(language: str, languages: Sequence[str] | None) -> None:
    _check(_every().labels if languages is None else languages, language)


@feature(version=1, range=(0, 1), check=_check_is)
def is_language(prompts: Sequence[str], draws: Draws, *, language: str, languages: list[str] | None = None) -> Array:
    """1 where `language` (ISO 639: en, de) is the likeliest for the continuation, else 0; 0 where it has no letters.

    Candidates are `languages`, else all that py3langid knows.
    """
    among = tuple(_every().labels if languages is None else languages)
    return np.array([_detected(text, among) == language for text in draws.texts], dtype=float)
