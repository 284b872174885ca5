"""Brief tables in LaTeX: one booktabs `table*` for several tasks, on less than a page where they fit."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf, isinf

from alignbench.reports.formats.brief import ROWS, left_out, one_line, short_names
from alignbench.reports.formats.tex import escape, points, running
from alignbench.reports.table.board import Cell, Column, Row, Table
from alignbench.reports.table.brief import VERDICT, kept
from alignbench.reports.table.brief_columns import CALLS, COLLATERAL, PERPLEXITY, TRAINING
from alignbench.reports.table.cells import common_signature
from alignbench.reports.table.digits import sides, two_digits
from alignbench.reports.table.numbers import MISSING
from alignbench.reports.table.verdict import ASKED, KL, ORDER, Verdict, legend

PREAMBLE = r"""% Made by alignbench: do not edit. A document that shows it, in one column or in two:
%   \documentclass[twocolumn]{article}
%   \usepackage{booktabs}
%   \begin{document}
%   \input{leaderboard}
%   \end{document}
% Where its letters are those of 11pt or 12pt, fewer rows fit on a page: --rows 8."""
SATISFACTION = "satisfaction"
PARTS = (ASKED, COLLATERAL, KL)
KEYS = (VERDICT.key, *PARTS, SATISFACTION, PERPLEXITY, CALLS, TRAINING)
"""The columns; `SATISFACTION` is the first thing that a task asks, which is another one in each."""
MEANINGS: Mapping[str, tuple[str, str]] = {
    ASKED: ("asked gap", "what the row misses of what was asked."),
    COLLATERAL: ("collateral", "what it changed besides."),
    KL: ("KL(p‖π)", "how far it is from p, in nats a draw."),
    SATISFACTION: ("satisfied", "how much of the first thing that the task asks, in % or as a mean."),
    PERPLEXITY: ("ppl", "perplexity under the judge; nearest to that of p is best."),
    CALLS: ("calls", "model calls for a draw that is kept."),
    TRAINING: ("training", "seconds, once for all draws."),
}
"""Key of a column → how the caption calls it, and what it says of it."""
ROOM = 320.0  # points of a line: the 345 of an article in one column, less what its larger letters take
LABEL, WRAPPED = 116.0, 0.28  # points that names take at most; the share of a line in which longer ones are wrapped
HEIGHT, LINE, PAGE = 10.5, 9.5, 510.0  # points: a row with its limits, a line of the caption, what a page takes
FEW = 30  # rows of a task in one float
PENDING = 12  # floats after which a page is ended: LaTeX keeps no more than 52 that it has no place for
NAME, NOTE, SIGNATURE = 80, 300, 160  # characters that a name of a task or a base, a note and a signature may have
REMEDY = re.compile(r" (More )?--draws .*stored draws are kept\.$")  # is for who can draw, not for who reads
NUMBER = re.compile(r"−?[\d.]*(∞|e[+-]\d+)?")


def compact(tables: Sequence[Table], most: int = ROWS) -> str:
    """The brief tables, `most` rows each, as floats `table*` of whole tasks: one where they fit on a page.

    A table without verdicts is named in a comment. Beside others, one whose truth is known is a line of the caption.
    """
    told = [table for table in tables if table.brief is not None and table.brief.rows]
    lost = [t.title for t in tables if t.brief is None or not t.brief.rows]
    if not told:
        return f"% No table has verdicts to show in brief: {escape(', '.join(lost))}\n"
    beside = any(table.brief is not None and not table.brief.truth for table in told)
    blocks = [
        block for table in told if table.brief is not None and not (beside and table.brief.truth)
        for block in _blocks(table, table.brief, most)
    ]  # fmt: skip
    paper = _Paper(told, blocks)
    floats = ["\n".join(_float(paper, part)) for part in _pages(paper)]
    ends = [f"{text}\n\n\\clearpage" if i % PENDING == 0 else text for i, text in enumerate(floats, 1)]
    left = [f"% Left out, since it has no verdicts: {escape(title)}" for title in lost]
    return "\n\n".join(["\n".join([PREAMBLE, *left]), *ends]) + "\n"


@dataclass(frozen=True)
class _Block:
    """Rows of a task that stand together."""

    table: Table
    brief: Table
    rows: Sequence[Row]
    names: Sequence[str]
    first: bool
    left: str  # what is said of rows that are not shown

    def column(self, key: str) -> tuple[int, Column] | None:
        """The place of a column and the column; of `SATISFACTION` that of the first thing asked."""
        found = ((i, c) for i, c in enumerate(self.brief.columns) if c.key == key or c.key.startswith(f"{key}."))
        return next(found, None)

    def says(self, key: str) -> bool:
        """Whether some row has a number or a word there."""
        found = self.column(key)
        return found is not None and any(row.cells[found[0]].point not in ("", MISSING) for row in self.rows)


def _blocks(table: Table, brief: Table, most: int) -> Iterator[_Block]:
    rows = kept(brief.rows, most)
    names = short_names(rows)
    for i in range(0, len(rows), FEW):
        left = left_out(brief, rows) if i + FEW >= len(rows) else ""
        yield _Block(table, brief, rows[i : i + FEW], names[i : i + FEW], i == 0, left)


@dataclass(frozen=True)
class _Paper:
    """All that is shown, and what its tasks have in common."""

    tables: Sequence[Table]
    blocks: Sequence[_Block]

    @cached_property
    def keys(self) -> list[str]:
        """The columns that some task has."""
        return [key for key in KEYS if key == VERDICT.key or any(block.says(key) for block in self.blocks)]

    @cached_property
    def base(self) -> str:
        """The base of all tasks; "" where they have several."""
        found = {block.table.subtitle.removeprefix("base ") for block in self.blocks}
        return found.pop() if len(found) == 1 else ""

    @cached_property
    def wrapped(self) -> bool:
        """Whether some name is so long that names are wrapped."""
        return any(points(name) > LABEL for block in self.blocks for name in block.names)

    @cached_property
    def wide(self) -> bool:
        """Whether the columns need smaller letters."""
        return _width(self) > ROOM


def _width(paper: _Paper) -> float:
    label = max(points(name) for block in paper.blocks for name in block.names)
    texts = {key: [_head(paper, key), *(_plain(b, row, key) for b in paper.blocks for row in b.rows)]
             for key in paper.keys}  # fmt: skip
    return min(label, LABEL) + sum(4 + max(map(points, some)) for some in texts.values())


def _plain(block: _Block, row: Row, key: str) -> str:
    """About what a cell takes of a line: of the limits half, which are smaller and above each other."""
    cell = _at(block, row, key)
    return cell.point if key == VERDICT.key else cell.point + cell.spread[: (len(cell.spread) + 1) // 2]


def _at(block: _Block, row: Row, key: str) -> Cell:
    found = block.column(key)
    return Cell() if found is None else row.cells[found[0]]


def _pages(paper: _Paper) -> list[list[_Block]]:
    """The blocks in floats, each of which fits on a page."""
    pages: list[list[_Block]] = [[]]
    for block in paper.blocks:
        if pages[-1] and _height(paper, [*pages[-1], block], first=len(pages) == 1) > PAGE:
            pages.append([])
        pages[-1].append(block)
    return pages


def _height(paper: _Paper, blocks: Sequence[_Block], *, first: bool) -> float:
    said = [*(_about(paper) if first else ()), *_notes(blocks), *_truths(paper), ("", _signature(paper))]
    caption = LINE * (4 + 0.8 * sum(points(term) + points(text) for term, text in said) / ROOM)  # words are narrower
    rows = sum(2 + bool(block.left) + points(_title(paper, block)) // ROOM for block in blocks)
    rows += sum(1 + paper.wrapped * (points(name) // (WRAPPED * ROOM)) for block in blocks for name in block.names)
    return caption + HEIGHT * (rows + 2)


def _float(paper: _Paper, blocks: Sequence[_Block]) -> Iterator[str]:
    first, last = blocks[0] is paper.blocks[0], blocks[-1] is paper.blocks[-1]
    yield from (r"\begin{table*}[tp]", r"\centering\footnotesize", *(() if first else [r"\addtocounter{table}{-1}"]))
    yield rf"\caption[Generators beside the base]{{{_caption(paper, blocks, first=first, last=last)}}}"
    yield r"\smallskip" + r"\scriptsize" * paper.wide
    yield r"\setlength{\tabcolsep}{2pt}\renewcommand{\arraystretch}{1.15}"
    yield rf"\begin{{tabular*}}{{\linewidth}}{{@{{\extracolsep{{\fill}}}}{_columns(paper)}@{{}}}}"
    yield r"\toprule"
    yield from _heads(paper)
    for block in blocks:
        yield r"\midrule"
        yield from _lines(paper, block)
    yield from (r"\bottomrule", r"\end{tabular*}", r"\end{table*}")


def _columns(paper: _Paper) -> str:
    """How the columns stand: words and numbers with limits to the left, others to the right."""
    label = rf"p{{{WRAPPED}\linewidth}}" if paper.wrapped else "l"
    return label + "".join("r" if key in (PERPLEXITY, CALLS, TRAINING) else "l" for key in paper.keys)


def _heads(paper: _Paper) -> Iterator[str]:
    yield " & ".join(["", *(escape(_head(paper, key)) for key in paper.keys)]) + r" \\"
    parts = [key for key in paper.keys if key in PARTS]
    nats = rf"\multicolumn{{{len(parts)}}}{{l}}{{{escape('nats a draw ↓, 0 = p')}}}"
    below = [nats if key in parts else escape(_below(paper, key)) for key in paper.keys if key not in parts[1:]]
    yield " & ".join(["", *below]) + r" \\"


def _head(paper: _Paper, key: str) -> str:
    if key == SATISFACTION:
        return "satisfied"
    found = [found[1].label for block in paper.blocks if (found := block.column(key))]
    return max(found, key=len, default="")  # `= KL(p‖π)` where it stands beside its parts


def _below(paper: _Paper, key: str) -> str:
    """The unit of a column; goals are a task's own and stand beside its name."""
    if key == SATISFACTION:
        asked = [found[1].label for block in paper.blocks if (found := block.column(key))]
        return "%" if all(label.endswith(" %") for label in asked) else "see task"
    return {CALLS: "a draw", TRAINING: "seconds"}.get(key, "")


def _lines(paper: _Paper, block: _Block) -> Iterator[str]:
    """The task's name over all columns, its rows, the base's between hairlines, and how many are left out."""
    task, about = _cut(block.table.heading, NAME), _title(paper, block)
    title = rf"\textbf{{{running(task, ROOM / 2)}}}{running(about, ROOM / 2)}"
    yield _across(paper, title)
    base = next((i for i, row in enumerate(block.rows) if row.is_base), -1)
    for i, (name, row) in enumerate(zip(block.names, block.rows, strict=True)):
        if i and base in (i, i - 1):
            yield r"\specialrule{.2pt}{1.5pt}{1.5pt}"
        label = rf"\raggedright {running(name, WRAPPED * ROOM / 2)}" if paper.wrapped else escape(name)
        cells = (_cell(block, row, key) for key in paper.keys)
        yield " & ".join([rf"\textit{{{label}}}" if row.is_base else label, *cells]) + r" \\"
    if block.left:
        yield _across(paper, escape(block.left))


def _across(paper: _Paper, text: str) -> str:
    """A row over all columns, which takes no room of any."""
    box = rf"\rlap{{\parbox[t]{{\linewidth}}{{\raggedright {text}}}}}"
    return rf"\multicolumn{{{len(paper.keys) + 1}}}{{@{{}}l@{{}}}}{{{box}}} \\"


def _title(paper: _Paper, block: _Block) -> str:
    """What stands beside the name of a task: its base if not that of all, its size, what it asks, p's perplexity."""
    rest = block.brief.heading.removeprefix(block.table.task)
    rest = rest.replace(f" · {paper.base}", "", 1) if paper.base else rest
    asked, ppl = block.column(SATISFACTION), block.column(PERPLEXITY)
    said = [
        *([f"satisfied: {_goal(asked[1])}"] if asked else []),
        *([f"ppl of {ppl[1].below}"] if ppl and ppl[1].below else []),
    ]
    return "".join(
        [_cut(rest, 2 * NAME), *(f" · {_cut(text, NAME)}" for text in said), "" if block.first else " (continued)"]
    )


def _goal(column: Column) -> str:
    return ", ".join(filter(None, (column.label, column.below)))


def _cell(block: _Block, row: Row, key: str) -> str:
    cell = _at(block, row, key)
    if key == VERDICT.key:
        style = {"better": r"\textbf{better}", "worse": r"\textit{worse}"}
        return style.get(cell.point) or escape(cell.point)
    found = block.column(key)
    in_percent = found is not None and found[1].label.endswith(" %")
    if key == KL and cell.value == inf and row.kept is not None:
        return rf"$\infty$ ({two_digits(100 * row.kept)}\,\%)"
    return number(cell, 100.0 if in_percent else 1.0)


def number(cell: Cell, factor: float = 1.0) -> str:
    r"""A cell as `$.13^{+.21}_{-.06}$`, `$11 \pm 2.2$`, `$\geq .3$`, or its number alone where no limits are known.

    Limits alone are `$[.36, 1.2]$`. `factor` makes values what the cell prints: 100 of shares in percent.
    """
    words = cell.point.split()
    if not words or not all(word in "≥≤" or NUMBER.fullmatch(word) for word in words):
        return escape(cell.point)
    if words[0] == "≥" and "≤" in words:
        return f"$[{_math(words[1])}, {_math(words[-1])}]$"
    return f"${' '.join(map(_math, words))}{_limits(cell, factor)}$"


def _math(word: str) -> str:
    """A number or a sign in math mode."""
    signs = {"≥": r"\geq", "≤": r"\leq"}
    text = word.replace("−", "-").replace("∞", r"\infty")
    return signs.get(word) or re.sub(r"e\+?(-?)0*(\d+)$", r"{\\times}10^{\1\2}", text)


def _limits(cell: Cell, factor: float) -> str:
    if cell.value is None or isinf(cell.value) or not cell.spread:
        return ""
    if cell.spread.startswith("±"):
        return rf" \pm {_math(cell.spread[1:].strip())}"
    low, high = (None if x is None else factor * x for x in (cell.low, cell.high))
    up, down = sides(cell.text, factor * cell.value, low, high)
    if up == down:
        return "" if up in ("", "0") else rf" \pm {up}"
    return (f"^{{+{up}}}" if up else "") + (f"_{{-{down}}}" if down else "")


def _caption(paper: _Paper, blocks: Sequence[_Block], *, first: bool, last: bool) -> str:
    """What the columns and words are, the notes of these tasks; at the end worlds whose truth is known, signature."""
    base = f"the base {_cut(paper.base, NAME)}" if paper.base else "their base"
    head = f"Generators beside {base}, task by task, the nearest to the target p first, with 95 % limits."
    said = [*(_about(paper) if first else ()), *_notes(blocks), *(_truths(paper) if last else ())]
    told = [rf"\textit{{{escape(term)}}}: {_prose(text)}" if term else _prose(text) for term, text in said]
    if last and (signature := _signature(paper)):
        told.append(rf"\texttt{{{running(signature, ROOM / 8)}}}")
    return rf"{_prose(head if first else '(continued)')} \footnotesize {' '.join(told)}"


def _prose(text: str) -> str:
    """A sentence as LaTeX prints it; the `'s` of words and minus signs as print has them."""
    apart = re.sub(r"(?<=[a-z])\\textquotesingle\{\}s\b", "'s", running(text, ROOM / 2))
    return re.sub(r"(?<![\w.])-(?=\d|\$)", "$-$", apart)


def _about(paper: _Paper) -> list[tuple[str, str]]:
    """Terms and what they say: the columns, and the words of the verdicts."""
    infinite = any(_at(b, row, KL).value == inf and row.kept is not None for b in paper.blocks for row in b.rows)
    said = {_at(block, row, VERDICT.key).point for block in paper.blocks for row in block.rows}
    verdicts = [line.partition(", ")[::2] for line in legend([Verdict(word) for word in ORDER if word in said])]
    return [
        *(MEANINGS[key] for key in paper.keys if key in MEANINGS),
        *([("∞ (x %)", "the row can say x % of the mass of p.")] if infinite else []),
        *verdicts,
    ]  # fmt: skip


def _notes(blocks: Sequence[_Block]) -> list[tuple[str, str]]:
    """The notes of these tasks, each once; with the task's name where it is not of all."""
    tasks: dict[str, dict[str, None]] = {}
    for block in blocks:
        for note in block.brief.legend:
            tasks.setdefault(REMEDY.sub("", note), {})[_cut(block.table.task, NAME)] = None
    every = len({block.table.task for block in blocks})
    owned: dict[str, list[str]] = {}
    for note, of in tasks.items():
        owned.setdefault("" if len(of) == every else ", ".join(of), []).append(_cut(note, NOTE))
    return [(of, " ".join(notes)) for of, notes in sorted(owned.items(), key=lambda owner: owner[0] != "")]


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _truths(paper: _Paper) -> list[tuple[str, str]]:
    """Of each world whose truth is known and that is not shown, how many intervals hold it."""
    shown = {id(block.table) for block in paper.blocks}
    return [
        ("", f"{_cut(one_line(t.brief), NOTE)}.") for t in paper.tables if t.brief is not None and id(t) not in shown
    ]


def _signature(paper: _Paper) -> str:
    """What the signatures of all tables share; "" where that is long."""
    shared = common_signature([table.signature for table in paper.tables])
    return shared if len(shared) <= SIGNATURE else ""
