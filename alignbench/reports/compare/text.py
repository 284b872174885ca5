"""Comparisons as tables, and the files that hold them; every text of a model or a file is escaped by the renderers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, replace

from alignbench.files import dump
from alignbench.reports.compare.compared import LEVEL, Compared, Comparison, Difference
from alignbench.reports.compare.shifts import Example, Shift
from alignbench.reports.formats.html import page_of
from alignbench.reports.formats.latex import PREAMBLE, latex_of
from alignbench.reports.formats.markdown import markdown_of
from alignbench.reports.table.board import Cell, Column, Row, Table, plain_text
from alignbench.reports.table.cells import Footnotes
from alignbench.reports.table.numbers import MISSING, plain, spell
from alignbench.types import Estimate

LONGEST = 240  # characters of a draw that are shown; JSON has all
LEVEL_NOTE = "± and [low, high] are 95 % limits, of differences paired ones; not adjusted for their number"
LEGEND = (
    "difference: the candidate's number less the baseline's, paired by draws, with 95 % limits. d_z: the difference in "
    "standard deviations of what one pair of draws adds to it. p: two-sided, by flipped signs of paired draws or "
    "blocks of draws. Holm: p adjusted for all numbers of the task and all candidates; a verdict is given where "
    f"it is at most {LEVEL}, or where the difference is exact or infinite."
)


def tables_of(compared: Compared, most: int | None = None) -> Iterator[Table]:
    """The tables of one generator beside the baseline on one task: `most` differences, prompts that moved, draws."""
    yield of_differences(compared, most)
    if compared.shifts:
        yield of_shifts(compared)
    for example in compared.examples:
        yield of_example(compared, example)


def of_differences(compared: Compared, most: int | None = None) -> Table:
    """One row for each number, `most` of them; the verdict stands first, where no width pushes it below."""
    footnotes = Footnotes()
    rows = tuple(_row(compared.shown[d.key], d, footnotes) for d in compared.table[:most])
    heads = (compared.first, compared.other, "difference", "d_z", "p", "Holm")
    columns = (Column("verdict", "verdict", words=True), *(Column(f"of.{i}", h) for i, h in enumerate(_plain(heads))))
    left = len(compared.table) - len(rows)
    about = [
        *([f"{left} more"] if left else []), *compared.notes,
        f"{compared.prompts} prompts × {compared.draws} draws; base {compared.base}",
    ]  # fmt: skip
    return Table(
        compared.title, columns, rows, footnotes=tuple(footnotes.notes), legend=tuple(_plain(about)), named="number"
    )


def _row(heading: str, d: Difference, footnotes: Footnotes) -> Row:
    notes = footnotes.number([plain_text(d.difference.note)])
    difference = replace(cell(d.difference), notes=notes)
    signed = replace(difference, point=with_sign(d.difference.value, difference.point))
    tests = (Cell(_short(number), value=number) for number in (d.effect, d.p_value, d.adjusted))
    cells = (Cell(d.verdict, best=bool(d.verdict)), cell(d.first), cell(d.other), signed, *tests)
    return Row(plain_text(heading), cells)


def cell(e: Estimate) -> Cell:
    """A number and its limits."""
    return Cell(*spell(e.value, e.ci_low, e.ci_high), e.value, e.ci_low, e.ci_high)


def with_sign(value: float | None, text: str) -> str:
    """A difference with its sign, so that a rise reads as one."""
    return f"+{text}" if value is not None and value > 0 else text


def _short(number: float | None) -> str:
    return "" if number is None else f"{number:.2g}"


def _plain(texts: Iterable[str]) -> list[str]:
    return [plain_text(text) for text in texts]


def of_shifts(compared: Compared) -> Table:
    """One row for each prompt that moved."""
    looked = compared.shifts[0].looked_at
    notes = dict.fromkeys(plain_text(s.difference.note) for s in compared.shifts if s.difference.note)
    about = (f"each prompt by what moved most on it, in standard deviations of a draw; limits at 1 − {LEVEL}/{looked}, "
             f"since the largest of {looked} were picked")  # fmt: skip
    rows = tuple(Row(plain_text(shift.prompt), _moved(shift)) for shift in compared.shifts)
    heads = ("what", compared.first, compared.other, "difference")
    return Table("prompts that moved most", _worded(heads), rows, legend=(about, *notes), named="prompt")


def _worded(heads: Iterable[str]) -> tuple[Column, ...]:
    return tuple(Column(f"of.{i}", head, words=True) for i, head in enumerate(_plain(heads)))


def _moved(shift: Shift) -> tuple[Cell, ...]:
    difference = with_sign(shift.difference.value, cell(shift.difference).text)
    return tuple(map(Cell, (plain_text(shift.quantity), plain(shift.first), plain(shift.other), difference)))


def of_example(compared: Compared, example: Example) -> Table:
    """Two draws, and below them what differs."""
    rows = [Row("text", tuple(Cell(plain_text(_cut(text))) for text in (example.first, example.other)))]
    rows += [
        Row(f"{plain_text(name)} (changed)", tuple(Cell(_word(value)) for value in pair))
        for name, pair in example.changed.items()
    ]
    if example.log_base is not None:
        rows.append(Row("log-prob under the base", tuple(Cell(plain(value)) for value in example.log_base)))
    title = f"draw {example.index} of: {plain_text(example.prompt)}"
    return Table(title, _worded((compared.first, compared.other)), tuple(rows))


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _word(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return plain_text(str(value))
    return plain(float(value)) if value == value else MISSING


def all_tables(comparison: Comparison, most: int | None = None) -> list[Table]:
    """The tables of all candidates."""
    return [table for compared in comparison.tables for table in tables_of(compared, most)]


def closing(comparison: Comparison) -> list[str]:
    """What could not be compared, the legend, and the signatures."""
    failures = [f"Not compared: {plain_text(line)}" for line in comparison.failures]
    return [*failures, LEGEND, *cited(s for compared in comparison.tables for s in compared.signatures)]


def cited(signatures: Iterable[str]) -> list[str]:
    """A line for each signature."""
    return [f"Signature: {plain_text(s)}" for s in dict.fromkeys(signatures) if s]


def to_markdown(comparison: Comparison) -> str:
    """All tables, what could not be compared, and the legend."""
    return markdown_of(all_tables(comparison), *closing(comparison))


def to_json(comparison: Comparison) -> str:
    """Everything that was compared, draws whole; strict JSON, infinities as "inf"."""
    tables = [
        {**asdict(c), "differences": [{**asdict(d), "verdict": d.verdict} for d in c.differences]}
        for c in comparison.tables
    ]
    return dump({"baseline": comparison.baseline, "comparisons": tables, "failures": comparison.failures})


def to_html(comparison: Comparison) -> str:
    """All tables, what could not be compared, and the legend, as a page."""
    return page_of("Comparison", all_tables(comparison), closing(comparison))


def to_latex(comparison: Comparison) -> str:
    """The tables of differences; draws side by side are for pages."""
    preamble = PREAMBLE.replace(" from leaderboard.csv", "").replace("{leaderboard}", "{comparison}")
    return latex_of([of_differences(compared) for compared in comparison.tables], LEGEND, preamble)


FORMATS: Mapping[str, Callable[[Comparison], str]] = {
    "md": to_markdown,
    "html": to_html,
    "json": to_json,
    "latex": to_latex,
}
"""Format → renderer."""
