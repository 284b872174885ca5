"""Words of a CSV file that a spreadsheet would take for formulas, written so that it does not, and read back exactly.

A word that begins as a formula may (= + - @, their wide forms, a quote, a control character) gets an apostrophe in
front, which spreadsheets take for "this is text"; so does the rest of a word after a semicolon, a tab or a line end,
where a spreadsheet that separates cells otherwise begins a new one. Numbers are no words and stay as they are.
Source: OWASP, "CSV Injection".
"""

from __future__ import annotations

import re

import pandas as pd

_BEGINS = r"(?:\A|(?<=[;\t\r\n]))"
_FORMULA = "[=+\\-@\uff1d\uff0b\uff0d\uff20'\"\ufeff\\x00-\\x1f\\x7f]"
_RISKY = re.compile(f"{_BEGINS}(?={_FORMULA})")
_GUARD = re.compile(f"{_BEGINS}'(?={_FORMULA})")


def guarded(word: str) -> str:
    """`word` with an apostrophe wherever a formula could begin."""
    return _RISKY.sub("'", word)


def unguarded(word: str) -> str:
    """The word that `guarded` wrote: an apostrophe of its own had another put before it, so none is lost."""
    return _GUARD.sub("", word)


def guard(words: pd.Series) -> pd.Series:
    """`guarded` of each; equal words are looked at once."""
    return words.astype(object).map({word: guarded(word) for word in words.unique()})
