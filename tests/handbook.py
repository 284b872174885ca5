"""The README and the pages of docs/ as tests read them: generated blocks, commands, headings and links."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = (README, *sorted((ROOT / "docs").glob("*.md")))
BESIDE = (ROOT / "leaderboards" / "README.md", ROOT / ".github" / "CONTRIBUTING.md")
"""Pages that are no part of the handbook, but link to it."""
REPOSITORY = "https://github.com/alignbench/alignbench/blob/main/"
RAW = "https://raw.githubusercontent.com/alignbench/alignbench/main/"
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def named(page: Path) -> str:
    """How a page is called in the tests' names."""
    return page.relative_to(ROOT).as_posix()


def between(name: str) -> re.Pattern[str]:
    """What stands between the two marks of `name`: the first mark, the text, the second mark."""
    return re.compile(rf"(<!-- {name}:start -->\n)(.*?)(<!-- {name}:end -->)", re.DOTALL)


def page_with(name: str) -> Path:
    """The one page that has the marks of `name`."""
    found = [page for page in PAGES for _ in between(name).finditer(text_of(page))]
    assert len(found) == 1, f"{name}: {found}"
    return found[0]


def block(name: str) -> str:
    """The code between the marks of `name`."""
    marked = between(name).search(text_of(page_with(name)))[2]
    return FENCED.fullmatch(marked.strip())[2]


def code_beginning(language: str, beginning: str) -> str:
    """The one block of code, on any page, that begins like this."""
    found = [code for page in PAGES for kind, code in FENCED.findall(text_of(page))
             if kind == language and code.startswith(beginning)]  # fmt: skip
    assert len(found) == 1, f"{beginning}: {len(found)} blocks"
    return found[0]


def typed_commands(page: Path) -> list[str]:
    """The lines of a page's shell code that begin with `alignbench`, each with the lines that it goes on in."""
    code = "".join(code for kind, code in FENCED.findall(text_of(page)) if kind == "bash")
    indented = "".join(line[4:] for line in re.findall(r"^ {4,}.*\n", FENCED.sub("", text_of(page)), re.MULTILINE))
    return re.findall(r"^ *(alignbench (?:.*\\\n)*.*)$", code + re.sub(r"^ +", "", indented, flags=re.M), re.MULTILINE)


def mentioned_commands(page: Path) -> list[str]:
    """The commands in a page's prose, between backticks."""
    prose = FENCED.sub("", text_of(page))
    return [" ".join(words.split()) for words in re.findall(r"`(alignbench [^`]+)`", prose)]


def anchors(page: Path) -> set[str]:
    """What a link can point to in a page: its headings, as GitHub turns them into anchors."""
    headings = re.findall(r"^#+ (.*)$", FENCED.sub("", text_of(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> list[str]:
    """The targets of a page's links and pictures."""
    prose = re.sub(r"`[^`\n]*`", "", FENCED.sub("", text_of(page)))
    return re.findall(r"\]\(([^)\s]+)\)", prose)
