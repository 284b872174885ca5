"""What stands between the two marks is replaced, and not a byte beside it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from alignbench.errors import UsageError
from alignbench.reports.formats.readme import END, START, refreshed, replaced

PAGE = f"# A title\n\n  {START}  \nold\n\n| a |\n{END}\n\nThe rest, with `{START}` in a line.\n"


def test_the_block_takes_the_place_of_what_was_there() -> None:
    assert replaced(PAGE, "new\n\nlines\n", "f") == PAGE.replace("old\n\n| a |\n", "new\n\nlines\n")


def test_the_same_block_again_changes_nothing() -> None:
    once = replaced(PAGE, "new\n", "f")
    assert replaced(once, "new\n", "f") == once
    assert replaced(once, "", "f") == f"# A title\n\n  {START}  \n{END}\n\nThe rest, with `{START}` in a line.\n"


@pytest.mark.parametrize("text", [f"{START}\n{END}", f"{START}\n{END}\n", f"a\n{START}\nb\n{END}"])
def test_marks_at_the_ends_of_a_file(text: str) -> None:
    before, after = text.split(START)[0], text.split(END)[1]
    assert replaced(text, "new", "f") == f"{before}{START}\nnew\n{END}{after}"


def test_the_block_takes_the_line_ends_of_the_file() -> None:
    windows = PAGE.replace("\n", "\r\n")
    assert replaced(windows, "new\nlines\n", "f") == replaced(PAGE, "new\nlines\n", "f").replace("\n", "\r\n")


def test_bytes_that_are_no_text_stay(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_bytes(b"\xef\xbb\xbf\xff\xfe caf\xe9\r\n" + PAGE.replace("\n", "\r\n").encode() + b"\x00\x80 end")
    new = refreshed(path, "± 0.1 π\n")
    assert new == path.read_bytes().replace(b"old\r\n\r\n| a |\r\n", "± 0.1 π\r\n".encode())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", f"f: no line '{START}'"),
        (f"{START}\n", f"f: no line '{END}'"),
        (f"say `{START}` and {END}\n", f"f: no line '{START}'"),
        (f"{START}\n{START}\n{END}\n", f"f: '{START}' stands in lines 1 and 2"),
        (f"{START}\n{END}\n\n{END}\n", f"f: '{END}' stands in lines 2 and 4"),
        (f"{END}\n{START}\n", f"f:1: '{END}' stands before '{START}'"),
    ],
)
def test_marks_that_are_not_right_are_one_line_with_the_file(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=re.escape(says)) as caught:
        replaced(text, "new", "f")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        refreshed(tmp_path / "README.md", "new")
