"""Leaderboards in LaTeX: booktabs tables that compile whatever the names and notes contain."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from alignbench.reports.formats.markdown import LEGEND
from alignbench.reports.formats.tex import escape, points, running
from alignbench.reports.table.board import Cell, Column, Leaderboard, Row, Table, units

PREAMBLE = r"""% Made by alignbench from leaderboard.csv: do not edit. A document that shows it:
%   \documentclass{article}
%   \usepackage{booktabs}
%   \begin{document}
%   \input{leaderboard}
%   \end{document}
% Columns that do not fit side by side into the text of that class follow in tables of their own. Where the text is in
% two columns, make each table a table*."""
ROOM = 320.0  # points: the 345 of an article's lines, less what larger letters take in its options 11pt and 12pt
GAP = 8.0  # points between two columns
LABEL = 0.34  # of a line is what labels take at most; beyond it they are wrapped
HEADING = 44.0  # points that a heading may take where its numbers are narrower
ROW, PAGE = 9.6, 500.0  # points of height: a line, and what a table with its notes may take of a page
PENDING = 12  # floats after which a page is ended: LaTeX keeps no more than 52 that it has no place for


def to_latex(board: Leaderboard) -> str:
    """All tables, each as floats `table` of columns that fit into a line."""
    return latex_of(board.shown, LEGEND)


def latex_of(tables: Sequence[Table], legend: str, preamble: str = PREAMBLE) -> str:
    """Any tables in that way, with what is said above all and below each."""
    floats = ["\n".join(_float(part)) for table in tables for part in _parts(table, legend)]
    ends = [f"{text}\n\n\\clearpage" if i % PENDING == 0 else text for i, text in enumerate(floats, 1)]
    return "\n\n".join([preamble, *ends]) + "\n"


@dataclass(frozen=True)
class _Part:
    """Columns of a table that stand side by side."""

    table: Table
    legend: str
    columns: Sequence[int]
    first: bool
    last: bool

    @property
    def ranked(self) -> bool:
        """Whether the ranks stand here."""
        return self.first and self.table.ranked

    @property
    def notes(self) -> list[int]:
        """The numbers of the footnotes that are marked here."""
        table = self.table
        marked = [table.columns[i].notes for i in self.columns]
        marked += [row.cells[i].notes for row in table.rows for i in self.columns]
        marked += [row.notes for row in table.rows] if self.first else []
        marked += [table.rank_notes, *(row.rank.notes for row in table.rows)] if self.ranked else []
        return sorted({number for numbers in marked for number in numbers})


def _parts(table: Table, legend: str) -> list[_Part]:
    label = min(_label_points(table), LABEL * ROOM)
    ranks = max([points(row.rank.text) for row in table.rows], default=0) + GAP if table.ranked else 0
    groups: list[list[int]] = [[]]
    room = ROOM - label - ranks
    for unit in units(table):
        width = sum(_column_points(table, i) + GAP for i in unit)
        if groups[-1] and width > room:
            groups.append([])
            room = ROOM - label
        groups[-1] += unit
        room -= width
    return [_Part(table, legend, columns, i == 0, i == len(groups) - 1) for i, columns in enumerate(groups)]


def _label_points(table: Table) -> float:
    return max([points(row.label + " ◆" * row.front) for row in table.rows], default=0)


def _column_points(table: Table, i: int) -> float:
    numbers = max([points(row.cells[i].text) for row in table.rows], default=0)
    return max(numbers, *(points(line) for line in _folded(table.columns[i], numbers)))


def _folded(column: Column, room: float) -> list[str]:
    """The heading in lines of about `room` points, broken after spaces, dots and underscores, else anywhere."""
    lines = [""]
    for piece in re.findall(r"[^ ._]{1,24}[._]?|[ ._]", column.heading):
        if lines[-1].strip() and points(lines[-1] + piece) > max(room, HEADING):
            lines.append("")
        lines[-1] += piece
    return [line.strip() for line in lines]


def _float(part: _Part) -> Iterator[str]:
    table = part.table
    title = running(table.title, ROOM / 2) + ("" if part.first else ", continued")
    yield from (r"\begin{table}", r"\centering", r"\footnotesize", r"\setlength{\tabcolsep}{4pt}")
    yield rf"\caption{{{title}}}"
    yield rf"\begin{{tabular}}{{@{{}}{'l' * part.ranked}{_label_column(table)}{'r' * len(part.columns)}@{{}}}}"
    yield r"\toprule"
    yield _line(part, ["rank" + _marks(table.rank_notes), "", *(_heading(table, i) for i in part.columns)])
    yield r"\midrule"
    for number, row in enumerate(table.rows):
        if number and number == table.ranking:
            yield r"\midrule"
        yield _line(part, [_cell(row.rank), _label(part, row), *(_cell(row.cells[i]) for i in part.columns)])
    yield from (r"\bottomrule", r"\end{tabular}")
    below = [r"\par\smallskip\raggedright\scriptsize", *_below(part)]
    if _height(part) < PAGE:
        yield from (*below, r"\end{table}")
    else:  # a float cannot be broken over pages, text can
        yield from (r"\end{table}", "", rf"{{\scriptsize\noindent Notes to {title}:", *below, "}")


def _height(part: _Part) -> float:
    """About how many points a table takes with what stands below it."""
    table = part.table
    lines = 4 + sum(1 + points(row.label) // (LABEL * ROOM) for row in table.rows)
    said = [table.footnotes[number - 1] for number in part.notes]
    said += [part.legend, *table.legend] if part.first else []
    said += [table.signature] if part.last else []
    return ROW * lines + 8 * sum(0.8 * points(text) / ROOM + (text in table.legend) for text in said)


def _below(part: _Part) -> Iterator[str]:
    """What stands under the columns: the notes that they mark, the legend, and at the end the signature."""
    table = part.table
    notes = [f"{_marks((number,))}~{running(table.footnotes[number - 1], ROOM / 2)}" for number in part.notes]
    if notes:
        yield "\\quad\n".join(notes) + r"\par"
    if part.first:
        yield from (rf"{running(line, ROOM / 2)}\par" for line in (part.legend, *table.legend))
    if part.last and table.signature:
        yield rf"\texttt{{{running(table.signature, ROOM / 4)}}}\par"


def _line(part: _Part, cells: Sequence[str]) -> str:
    return " & ".join(cells if part.ranked else cells[1:]) + r" \\"


def _label_column(table: Table) -> str:
    return "l" if _label_points(table) <= LABEL * ROOM else rf"p{{{LABEL}\linewidth}}"


def _label(part: _Part, row: Row) -> str:
    """The name; where it was not said before, with its notes and its place on the front."""
    more = (r"~$\diamond$" if row.front else "") + _marks(row.notes) if part.first else ""
    if _label_column(part.table) == "l":
        return escape(row.label) + more
    return rf"\raggedright\hangindent=1em {running(row.label, LABEL * ROOM - 10)}{more}"


def _heading(table: Table, i: int) -> str:
    column = table.columns[i]
    numbers = max([points(row.cells[i].text) for row in table.rows], default=0)
    lines = [escape(line) for line in _folded(column, numbers)]
    lines[-1] += _marks(column.notes)
    if len(lines) == 1:
        return lines[0]
    return r"\begin{tabular}[b]{@{}r@{}}" + r" \\ ".join(lines) + r"\end{tabular}"


def _cell(cell: Cell) -> str:
    point, spread = _number(cell.point), _number(cell.spread)
    bold = rf"\textbf{{{point}}}"
    return f"{bold if cell.best else point} {spread}".rstrip() + _marks(cell.notes)


def _number(text: str) -> str:
    return re.sub(r"(?<![\w.])-(?=\d|\$)", "$-$", escape(text))


def _marks(numbers: Sequence[int]) -> str:
    return rf"\textsuperscript{{{','.join(map(str, numbers))}}}" if numbers else ""
