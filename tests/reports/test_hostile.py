"""A thousand strings that mean harm, in every place a string can come from, through every format.

Each format has a check that a page without escaping must fail.
"""

from __future__ import annotations

import csv
import html
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from html.parser import HTMLParser
from io import StringIO
from itertools import islice
from math import inf
from pathlib import Path
from typing import Any
from unicodedata import category

import pandas as pd
import pytest
from hostile_words import ATTACKS, COUNT, strings
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.console import Console

from alignbench.reports import rows
from alignbench.reports.examples import Example, Shown
from alignbench.reports.formats import latex, markdown, tex
from alignbench.reports.formats.page import drawn
from alignbench.reports.formats.readme import END, START, replaced
from alignbench.reports.formats.render import to_html, to_json, to_latex, to_markdown, to_terminal
from alignbench.reports.rows import COLUMNS, read_rows, tidy, write_rows
from alignbench.reports.spreadsheet import guarded, unguarded
from alignbench.reports.table.board import Leaderboard, plain_text
from alignbench.reports.table.leaderboards import leaderboard
from alignbench.run.rows import RowKey


def table(words: Iterator[str], tasks: int) -> pd.DataFrame:
    """Rows of so many tasks, eight generators and two metrics each, with every word taken from `words`.

    Three tasks have the base and the generators in common, so that there are ranks, ties and suites over tasks.
    """
    found: list[dict[str, Any]] = []
    for number in range(tasks):
        if number % 3 == 0:
            base = {name: next(words) for name in ("base", "base_id", "judge")}
            who = [{name: next(words) for name in ("generator", "aligner", "generator_id")} for _ in range(7)]
            who.append({"generator": base["base"], "aligner": "", "generator_id": base["base_id"]})
        task = {name: next(words) for name in ("task", "task_version", "task_hash", "target_id", "ci_over")}
        metrics = [(f"user {next(words)}", next(words), next(words)), ("divergence", "kl_target", "lower")]
        for place, generator in enumerate(who):
            for metric, part, better in metrics:
                free = {name: next(words) for name in ("run_id", "note", "signature", "measured")}
                row = {"metric": metric, "part": part, "better": better, "seed": 0, "draws": 8} | around(-(place // 2))
                found.append(base | generator | task | free | row)
    frame = pd.DataFrame(found, dtype=object).reindex(columns=[*COLUMNS, "replicates"])
    return frame.assign(**{"=mine <b>": pd.Series([next(words) for _ in found], dtype=object)})


def around(value: float) -> dict[str, Any]:
    """A number with its interval and its replicates."""
    noise = [0.01 * ((7 * g + 3 * value) % 5 - 2) for g in range(16)]
    replicates = " ".join(f"{value + x:.8g}" for x in noise)
    return {
        "value": value,
        "stderr": 0.1,
        "ci_low": value - 0.2,
        "ci_high": value + 0.2,
        "n": 8,
        "replicates": replicates,
    }


def cycle(words: Sequence[str]) -> Iterator[str]:
    while True:
        yield from words


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """Every string in some place, with places left for more."""
    words = strings()
    assert len(words) == COUNT
    made = table(iter(words + words), tasks=12)
    assert sum(made[name].nunique() for name in made) > 0.9 * COUNT
    return made


@pytest.fixture(scope="module")
def board(frame: pd.DataFrame) -> Leaderboard:
    made = leaderboard(frame, metrics=sorted(set(frame["metric"])))
    assert made.suite and any(row.mark for table in made for row in table.rows)
    assert all(table.ranked and any(c.best for row in table.rows for c in row.cells) for table in made)
    return made


@pytest.fixture(scope="module")
def innocent() -> Leaderboard:
    """The same table with words that mean nothing."""
    made = table(map("word{}".format, range(10**6)), tasks=12)
    return leaderboard(made, metrics=sorted(set(made["metric"])))


def shown(board: Leaderboard) -> list[str]:
    """What every format has to show: titles, labels, headings, notes, signatures."""
    tables = board.shown
    return [
        *(t.title for t in tables), *(r.label for t in tables for r in t.rows), *(t.signature for t in tables),
        *(c.label for t in tables for c in t.columns), *(n for t in tables for n in (*t.footnotes, *t.legend)),
    ]  # fmt: skip


# HTML


class Page(HTMLParser):
    """The tags of a page with their attributes, its comments and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.parts: set[tuple[str, str]] = set()
        self.comments: list[str] = []
        self.data: list[tuple[str, str]] = []
        self.links: list[str] = []
        self.last = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.last = tag
        self.parts |= {(tag, name) for name, _ in [("", ""), *attrs]}
        self.links += [
            value or "" for name, value in attrs if name in ("href", "src", "action", "srcset", "xlink:href")
        ]

    def handle_endtag(self, tag: str) -> None:
        self.last = ""

    def handle_data(self, data: str) -> None:
        self.data.append((self.last, data))

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)

    handle_decl = handle_pi = unknown_decl = handle_comment

    def inside(self, tag: str) -> list[str]:
        return [data for last, data in self.data if last == tag]


def check_html(text: str, like: str, words: Sequence[str]) -> None:
    page, model = Page(text), Page(like)
    assert page.parts <= model.parts
    assert page.comments == model.comments
    assert page.inside("style") == model.inside("style")
    assert len(page.inside("script")) == len(model.inside("script"))
    assert all(link.startswith(("#", "data:,")) for link in page.links)
    seen = " ".join(" ".join(data for _, data in page.data).split())
    assert [word for word in words if word not in seen] == []


def draws_of(rows: pd.DataFrame, words: Iterator[str]) -> list[Shown]:
    """Two draws of each generator, one by token, with words in every place of them."""
    names = [f.name for f in fields(RowKey)]
    units = rows.drop_duplicates(["task", "generator", "aligner"]).to_dict("records")
    return [Shown(RowKey(**{k: v for k, v in u.items() if k in names}), _two(words)) for u in units]


def _two(words: Iterator[str]) -> tuple[Example, ...]:
    pieces = tuple(islice(words, 6))
    nats = (-0.1, -1.0, -3.0, -5.0, -9.0, -inf)
    features: dict[str, float | str | None] = {next(words): next(words), next(words): 1.0}
    return (
        Example(next(words), 0, "".join(pieces), True, features, -1.0, None, -inf, None, pieces, nats),
        Example(next(words), 1, next(words), False, {}, None, None, None, None),
    )


def carried(page: str) -> list[str]:
    """All strings of the draws that a page carries, as a browser reads them."""
    blocks = [json.loads(text, parse_constant=refuse) for text in Page(page).inside("script") if text[0] == "{"]
    found = [word for block in blocks for word in (*block["prompts"], *block["features"])]
    for draw in (draw for block in blocks for some in block["draws"].values() for draw in some):
        found += [draw["tokens"]] if isinstance(draw["tokens"], str) else draw["tokens"]
        found += [value for _, value in draw["features"]]
    return found


def test_html_has_no_element_or_attribute_but_its_own(
    board: Leaderboard, innocent: Leaderboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each word comes back out of the draws as it was; planted bugs: nothing is escaped, draws are but JSON."""
    draws = draws_of(board.rows, cycle(strings()))
    page, like = to_html(board, draws), to_html(innocent, draws_of(innocent.rows, map("word{}".format, range(10**6))))
    words = [text for t in board for row in t.rows if not row.is_base for text in (row.label, t.heading)]
    check_html(page, like, words)
    assert set(carried(page)) >= set(strings()) and page.count('class="draws script"') == len(board)
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x00-\x08\x0b-\x1f]", page.replace("\n", ""))
    with pytest.raises(AssertionError):
        check_html(html.unescape(page), like, words)
    monkeypatch.setattr(drawn, "DANGEROUS", re.compile("(?!)"))
    with pytest.raises(AssertionError):
        check_html(to_html(board, draws), like, words)


# Markdown


class Marked:
    """What an independent reader of Markdown finds."""

    def __init__(self, text: str) -> None:
        tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
        inline = [child for token in tokens for child in token.children or ()]
        self.kinds = [token.type for token in (*tokens, *inline)]
        self.html = {token.content for token in inline if token.type == "html_inline"}
        self.nodes = [re.split("\0", _joined(token.children or ())) for token in tokens if token.type == "inline"]

    def count(self, kind: str) -> int:
        return self.kinds.count(f"{kind}_open")


def _joined(children: Sequence[Any]) -> str:
    """Text as a host sees it, with \\0 where an element parts it."""
    return "".join(child.content if child.type in ("text", "text_special") else "\0" for child in children)


KINDS = {
    "heading", "paragraph", "inline", "text", "text_special", "html_inline", "table", "thead", "tbody", "tr", "th",
    "td", "ordered_list", "bullet_list", "list_item", "em", "strong",
}  # fmt: skip


def check_markdown(text: str, board: Leaderboard) -> None:
    page, tables = Marked(text), board.shown
    assert {re.sub("_(open|close)$", "", kind) for kind in page.kinds} <= KINDS
    assert page.html <= {"<sup>", "</sup>", markdown.APART}
    assert page.count("heading") == page.count("table") == len(tables)
    assert page.count("th") == sum(len(t.columns) + 1 + t.ranked for t in tables)
    assert page.count("td") == sum((len(t.columns) + 1 + t.ranked) * len(t.rows) for t in tables)
    assert page.count("list_item") == sum(len(t.footnotes) + len(t.findings) for t in tables)
    assert page.count("bullet_list") == sum(bool(t.findings) for t in tables)
    assert page.count("em") == sum(bool(r.mark) for t in tables for r in t.rows)
    assert page.count("strong") == sum(c.best for t in tables for r in t.rows for c in r.cells)
    linked = [
        node for nodes in page.nodes for node in nodes if re.search(r"://|www\.|@\w|:[\w+-]+:", node, re.IGNORECASE)
    ]
    assert linked == []
    seen = "\n".join("".join(nodes) for nodes in page.nodes)
    assert [word for word in shown(board) if word.strip() not in seen] == []


def test_markdown_shows_every_string_as_it_is(board: Leaderboard, monkeypatch: pytest.MonkeyPatch) -> None:
    check_markdown(to_markdown(board), board)
    monkeypatch.setattr(markdown, "_LINKED", re.compile("(?!)"))
    with pytest.raises(AssertionError):
        check_markdown(to_markdown(board), board)
    monkeypatch.setattr(markdown, "escape", lambda text: text)
    with pytest.raises(AssertionError):
        check_markdown(to_markdown(board), board)


def test_a_table_stays_between_the_marks_of_a_readme(board: Leaderboard) -> None:
    page = replaced(f"a\n{START}\n{END}\nb\n", to_markdown(board), "README.md")
    assert replaced(page, "", "README.md") == f"a\n{START}\n{END}\nb\n"


# LaTeX

PRINTED = tuple(tex.SPECIAL.values())
OWN = r"""
    \begin \end \centering \footnotesize \scriptsize \setlength \tabcolsep \caption \toprule \midrule \bottomrule
    \par \quad \smallskip \raggedright \hangindent \linewidth \textsuperscript \texttt \textbf \allowbreak \clearpage
    \noindent \hat \\
"""


def check_latex(text: str) -> None:
    body = text.removeprefix(latex.PREAMBLE)
    bare = re.sub(r"\\[\\{}]", "", body)
    depth = [1 if c == "{" else -1 for c in bare if c in "{}"]
    assert sum(depth) == 0 and all(sum(depth[:i]) >= 0 for i in range(0, len(depth), 97))
    assert {c for c in body if c > tex.LAST or c in tex.MISSING or (c < " " and c != "\n")} == set()
    for printed in sorted({*PRINTED} - {"~", "---", "--", "$-$"}, key=len, reverse=True):
        body = body.replace(printed, " ")
    assert set(re.findall(r"\\[A-Za-z]+|\\.", body)) <= set(OWN.split()) | set(tex.GREEK.values())
    assert set(re.findall(r"[#%^_\"'`<>|]", body)) == set()
    assert set(re.findall(r"\$[^$]*\$", body)) <= {"$-$"} | {rf"$\hat{{{x}}}$" for x in [*tex.GREEK.values(), *"xZ "]}
    for line in body.splitlines():
        assert not line.startswith(("[", "*")) and (line.count("&") == 0 or line.endswith(r"\\"))


def test_latex_has_no_command_but_its_own(board: Leaderboard, monkeypatch: pytest.MonkeyPatch) -> None:
    check_latex(to_latex(board))
    monkeypatch.setattr(tex, "SPECIAL", {**tex.SPECIAL, "%": "%"})
    with pytest.raises(AssertionError):
        check_latex(to_latex(board))


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="needs pdflatex")
def test_latex_compiles(tmp_path: Path) -> None:
    """A few tables with the named attacks, in the very document that the file's first lines recommend."""
    made = table(cycle(ATTACKS), tasks=3)
    (tmp_path / "leaderboard.tex").write_text(to_latex(leaderboard(made, metrics=sorted(set(made["metric"])))), "utf-8")
    document = [line.removeprefix("%   ") for line in latex.PREAMBLE.splitlines() if line.startswith("%   ")]
    (tmp_path / "page.tex").write_text("\n".join(document))
    command = ["pdflatex", "-no-shell-escape", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout
    assert {path.suffix for path in tmp_path.iterdir()} == {".tex", ".pdf", ".log", ".aux"}


# CSV, JSON, terminal


def check_csv(text: str) -> None:
    """No cell begins a formula, however a spreadsheet parts the cells; a number is none."""
    for sign in ",;\t":
        for cells in csv.reader(StringIO(text, newline=""), delimiter=sign):
            for cell in cells:
                assert not re.match("[\t\r\n]*[=+\\-@\uff1d]", cell) or re.fullmatch(r"-?[\d.e-]+", cell), (sign, cell)


def test_csv_runs_nothing_and_reads_back(frame: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def written() -> str:
        write_rows(tmp_path / "a.csv", frame)
        return (tmp_path / "a.csv").read_bytes().decode()

    check_csv(written())
    back = read_rows(tmp_path / "a.csv")
    pd.testing.assert_frame_equal(back, tidy(frame))
    assert set(back["note"]) == {word.encode("utf-8", "backslashreplace").decode() for word in frame["note"]}
    monkeypatch.setattr(rows, "guard", lambda words: words)
    with pytest.raises(AssertionError):
        check_csv(written())


def refuse(literal: str) -> None:
    """NaN and Infinity are not JSON."""
    raise AssertionError(literal)


def test_json_is_strict_and_whole(board: Leaderboard) -> None:
    text = to_json(board)
    page = json.loads(text.encode(), parse_constant=refuse)
    assert [row["note"] for row in page["rows"]] == list(board.rows["note"])
    assert [t["title"] for t in page["tables"]] == [t.title for t in board]


def check_terminal(print_: Callable[[Console], None], board: Leaderboard) -> None:
    out = StringIO()
    print_(Console(file=out, width=400, force_terminal=False, legacy_windows=False))
    assert not re.search(
        "[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", out.getvalue()
    )
    squeezed = re.sub(r"\s", "", out.getvalue())
    assert [t.title for t in board if re.sub(r"\s", "", t.title) not in squeezed] == []


def test_a_terminal_obeys_none_of_it(board: Leaderboard) -> None:
    check_terminal(lambda console: console.print(to_terminal(board)), board)
    with pytest.raises(AssertionError):
        check_terminal(lambda console: console.print("\u202e"), board)


@given(st.text("'\"=+-@;\t\r\n\uff1d\ufeff a\0", max_size=12))
@settings(max_examples=100, derandomize=True, deadline=None)
def test_a_guard_is_taken_off_exactly(word: str) -> None:
    assert unguarded(guarded(word)) == word
    assert not re.search("(^|[;\t\r\n])[=+\\-@]", guarded(word))


def test_plain_text_of_all_of_it() -> None:
    for word in strings():
        plain = plain_text(word)
        assert plain_text(plain) == plain == plain.strip()
        assert len(plain) <= 2000 and not {category(c) for c in plain if c not in "\u200c\u200d"} & {"Cc", "Cf", "Cs"}
        plain.encode()
    assert plain_text("x" * 2000) == "x" * 2000 != plain_text("x" * 2001) != plain_text("x" * 2002)
