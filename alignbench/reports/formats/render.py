"""All formats of a leaderboard, and the files that hold it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path

from alignbench.files import write_atomic
from alignbench.reports.examples import Shown
from alignbench.reports.formats.html import to_html
from alignbench.reports.formats.latex import to_latex
from alignbench.reports.formats.markdown import to_markdown
from alignbench.reports.formats.readme import refreshed
from alignbench.reports.formats.strict_json import to_json
from alignbench.reports.formats.terminal import to_terminal
from alignbench.reports.rows import csv_bytes
from alignbench.reports.table.board import Leaderboard

Renderer = Callable[[Leaderboard], str]
FORMATS: Mapping[str, Renderer] = {
    "md": to_markdown,
    "html": to_html,
    "tex": to_latex,
    "json": to_json,
}
"""Extension → renderer; the CSV beside them is the tidy rows themselves."""
EXTENSIONS = ("csv", *FORMATS)


def leaderboard_files(
    board: Leaderboard,
    folder: Path | None,
    formats: Sequence[str] = EXTENSIONS,
    readme: Path | None = None,
    examples: Sequence[Shown] = (),
    latex: Renderer = to_latex,
) -> dict[Path, bytes]:
    """What leaderboard.<extension> in `folder` and the marked block of `readme` hold; nothing is written.

    The page has the `examples` of the generators' draws; `latex` makes the LaTeX.
    Raises UsageError where the `readme` cannot be read or its marks are not right.
    """
    files = (
        {}
        if folder is None
        else {folder / f"leaderboard.{kind}": rendered(board, kind, examples, latex) for kind in formats}
    )
    return files | ({} if readme is None else {readme: refreshed(readme, to_markdown(board))})


def rendered(board: Leaderboard, extension: str, examples: Sequence[Shown] = (), latex: Renderer = to_latex) -> bytes:
    """A leaderboard in one format, UTF-8."""
    if extension == "csv":
        return csv_bytes(board.rows)
    makers: Mapping[str, Renderer] = {**FORMATS, "html": partial(to_html, examples=examples), "tex": latex}
    text = makers[extension](board)
    return text.encode("utf-8", "backslashreplace")


def write_leaderboard(board: Leaderboard, folder: Path, examples: Sequence[Shown] = ()) -> list[Path]:
    """Write leaderboard.{csv,md,html,tex,json} into `folder`, each in one step; raises StoreError where it cannot."""
    return write_files(leaderboard_files(board, folder, examples=examples))


def write_files(files: Mapping[Path, bytes]) -> list[Path]:
    """Write each file in one step; raises StoreError where it cannot."""
    for path, content in files.items():
        write_atomic(path, content)
    return list(files)


def differences(files: Mapping[Path, bytes]) -> Iterator[str]:
    """A line for each file that does not hold what it should: the first line that differs."""
    for path, content in files.items():
        try:
            there = path.read_bytes()
        except OSError as error:
            yield f"{path}: cannot be read: {error.strerror}"
            continue
        if there != content:
            yield f"{path}: {_first_difference(there, content)}"


def _first_difference(there: bytes, content: bytes) -> str:
    lines = zip_longest(there.splitlines(keepends=True), content.splitlines(keepends=True), fillvalue=b"")
    number, (old, new) = next((n, pair) for n, pair in enumerate(lines, 1) if pair[0] != pair[1])
    at = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    return f"line {number} has {_excerpt(old, at)}, its rows give {_excerpt(new, at)}"


def _excerpt(line: bytes, at: int) -> str:
    """What stands in a line about one place."""
    return repr(line[max(at - 20, 0) : at + 30].decode("utf-8", "replace")) if line else "nothing"


__all__ = [
    "EXTENSIONS", "FORMATS", "differences", "leaderboard_files", "rendered", "to_html", "to_json", "to_latex",
    "to_markdown", "to_terminal", "write_files", "write_leaderboard",
]  # fmt: skip
