"""Where in a text a feature finds what it looks for: spans of its characters, end excluded."""

from __future__ import annotations

from collections.abc import Iterable

Span = tuple[int, int]


def joined(spans: Iterable[Span], length: int) -> tuple[Span, ...]:
    """`spans` in order, those that overlap as one; what lies outside a text of `length` characters is cut off."""
    found: list[Span] = []
    for begin, end in sorted((max(begin, 0), min(end, length)) for begin, end in spans):
        if begin >= end:
            continue
        if found and begin < found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((begin, end))
    return tuple(found)
