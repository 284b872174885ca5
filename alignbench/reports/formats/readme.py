"""A leaderboard kept between two marks of any text file, such as the README of a project or a model card.

The marks are HTML comments, each alone on its line, which no renderer shows:

    <!-- alignbench:start -->
    <!-- alignbench:end -->
"""

from __future__ import annotations

import re
from pathlib import Path

from alignbench.errors import UsageError

START, END = "<!-- alignbench:start -->", "<!-- alignbench:end -->"


def replaced(text: str, block: str, where: str) -> str:
    """`text` with `block` between its marks; all else stays as it is, and the block takes the text's line ends.

    Raises UsageError, which begins with `where`, if a mark is missing, there twice, or after the other.
    """
    start, end = _place(text, START, where), _place(text, END, where)
    if end.start() < start.end():
        line = text.count("\n", 0, end.start()) + 1
        raise UsageError(f"{where}:{line}: '{END}' stands before '{START}': put the start first")
    newline = "\r\n" if start[0].endswith("\r\n") else "\n"
    body = newline.join(block.rstrip("\n").split("\n"))
    return f"{text[: start.end()]}{body}{newline if body else ''}{text[end.start() :]}"


def refreshed(path: Path, block: str) -> bytes:
    """What the file at `path` holds when `block` stands between its marks; nothing is written.

    Raises UsageError where the file cannot be read or its marks are not right.
    """
    try:
        before = path.read_bytes().decode("utf-8", "surrogateescape")
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    return replaced(before, block, str(path)).encode("utf-8", "surrogateescape")


def _place(text: str, mark: str, where: str) -> re.Match[str]:
    """The one line of `text` that is `mark`, with its end."""
    found = list(re.finditer(rf"^[ \t]*{re.escape(mark)}[ \t]*(?:\r?\n|\Z)", text, re.MULTILINE))
    if not found:
        raise UsageError(f"{where}: no line '{mark}': put '{START}' and '{END}' where the leaderboard belongs")
    if len(found) > 1:
        lines = " and ".join(str(text.count("\n", 0, match.start()) + 1) for match in found[:2])
        raise UsageError(f"{where}: '{mark}' stands in lines {lines}: a file has one leaderboard")
    return found[0]
