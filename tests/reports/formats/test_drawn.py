"""Draws as a page carries them."""

from __future__ import annotations

import json

import pytest

from alignbench.features.spans import Span
from alignbench.reports.examples import Example
from alignbench.reports.formats.page.drawn import packed


@pytest.mark.parametrize(
    ("text", "marks", "told"),
    [
        ("a sun", ((2, 5),), [[2, 5]]),
        ("é sun", ((2, 5),), [[2, 5]]),
        ("🌞 sun", ((2, 5),), [[3, 6]]),  # planted bug: characters of Python
        ("🌞", ((0, 1),), [[0, 2]]),
        ("\ud83c\udf1e sun", ((3, 6),), [[3, 6]]),  # two lone surrogates, which JavaScript joins
        ("sun", (), None),
    ],
)
def test_marks_are_places_in_a_string_of_javascript(
    text: str, marks: tuple[Span, ...], told: list[list[int]] | None
) -> None:
    draw = Example("p", 0, text, True, {}, None, None, None, None, marks=marks)
    [found] = json.loads(packed({1: [draw]}))["draws"]["1"]
    assert found.get("marks") == told and ("marks" in found) == bool(marks)
    units = found["tokens"].encode("utf-16-le", "surrogatepass")
    for (begin, end), (first, last) in zip(marks, told or (), strict=True):
        assert units[2 * first : 2 * last] == text[begin:end].encode("utf-16-le", "surrogatepass")
