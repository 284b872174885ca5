"""Leaderboards in LaTeX: booktabs tables that compile whatever the names and notes contain."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from alignbench.reports.table import Leaderboard, Table

PREAMBLE = "% needs \\usepackage{booktabs}; made from leaderboard.csv, do not edit"
SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "'": r"\textquotesingle{}", "`": r"\textasciigrave{}",
    "[": "{[}", "]": "{]}",  # a bracket after \\ would be read as its argument
    "—": "---", "–": "--", "…": r"\ldots{}", "·": r"$\cdot$", "±": r"$\pm$", "∞": r"$\infty$", "≥": r"$\geq$",
    "≤": r"$\leq$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "‖": r"$\Vert$", "×": r"$\times$", "−": "$-$",
    "π": r"$\pi$", "λ": r"$\lambda$", "φ": r"$\varphi$", "χ": r"$\chi$", "σ": r"$\sigma$", "β": r"$\beta$",
    "Σ": r"$\Sigma$", "²": r"$^2$", "\u0302": r"\textasciicircum{}", "\u00a0": "~",
}  # fmt: skip


def to_latex(board: Leaderboard) -> str:
    """All tables, each a floating `table`."""
    return "\n\n".join([PREAMBLE, *("\n".join(_lines(table)) for table in board)]) + "\n"


def _lines(table: Table) -> Iterator[str]:
    yield from (r"\begin{table}", r"\centering", r"\small", rf"\caption{{{escape(table.title)}}}")
    yield from (rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}", r"\toprule")
    yield _line("", [escape(column.heading) + _marks(column.notes) for column in table.columns])
    yield r"\midrule"
    for row in table.rows:
        yield _line(escape(row.label), [_number(cell.text) + _marks(cell.notes) for cell in row.cells])
    yield from (r"\bottomrule", r"\end{tabular}")
    for number, note in enumerate(table.footnotes, 1):
        yield rf"\par\footnotesize\raggedright {_marks((number,))} {escape(note)}"
    if table.signature:
        yield rf"\par\footnotesize\raggedright \texttt{{{_breakable(table.signature)}}}"
    yield r"\end{table}"


def _line(label: str, cells: Sequence[str]) -> str:
    return " & ".join([label, *cells]) + r" \\"


def escape(text: str) -> str:
    """`text` as LaTeX prints it; letters beyond Latin-1, which not every engine has, as their code points."""
    return "".join(SPECIAL.get(c) or (c if ord(c) < 0x100 else f"{{[}}U+{ord(c):04X}{{]}}") for c in text)


def _number(text: str) -> str:
    return re.sub(r"(?<![\w.])-(?=\d|\$)", "$-$", escape(text))


def _marks(numbers: Sequence[int]) -> str:
    return rf"\textsuperscript{{{','.join(map(str, numbers))}}}" if numbers else ""


def _breakable(signature: str) -> str:
    """A signature may break after each of its parts."""
    return r"\textbar{}\allowbreak{}".join(escape(part) for part in signature.split("|"))
