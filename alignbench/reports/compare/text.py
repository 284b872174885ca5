"""Comparisons in words: for a terminal, as Markdown, as JSON; every text of a model or a file is escaped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table as Grid
from rich.text import Text
from tabulate import tabulate

from alignbench.files import dump
from alignbench.reports.compare.compared import LEVEL, Compared, Comparison, Difference
from alignbench.reports.compare.shifts import Example, Shift
from alignbench.reports.formats.markdown import escape
from alignbench.reports.formats.terminal import superscript
from alignbench.reports.table.board import plain_text
from alignbench.reports.table.numbers import MISSING, plain, spell
from alignbench.types import Estimate

TEMPLATE = Path(__file__).with_name("page.html.jinja")
LONGEST = 240  # characters of a draw that are shown; JSON has all
LEVEL_NOTE = "± and [low, high] are 95 % limits, of differences paired ones; not adjusted for their number"
VERDICTS = {"better": "green", "worse": "red", "differs": "bold"}
LEGEND = (
    "difference: the candidate's number less the baseline's, paired by draws, with 95 % limits. d_z: the difference in "
    "standard deviations of what one pair of draws adds to it. p: two-sided, by flipped signs of paired draws or "
    "blocks of draws. Holm: p adjusted for all numbers of the task and all candidates; a verdict is given where "
    f"it is at most {LEVEL}, or where the difference is exact or infinite."
)


@dataclass(frozen=True)
class Grille:
    """A table of words: what is above it, its head, its lines, numbered notes, and what holds for all of it.

    `verdicts` are those of the lines, which are then numbers.
    """

    title: str
    head: Sequence[str]
    body: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    about: Sequence[str] = ()
    verdicts: Sequence[str] = ()


def grilles(compared: Compared, most: int | None = None) -> Iterator[Grille]:
    """The tables of one generator beside the baseline on one task: `most` differences, prompts that moved, draws."""
    yield of_differences(compared, most)
    if compared.shifts:
        yield of_shifts(compared)
    for example in compared.examples:
        yield of_example(compared, example)


def of_differences(compared: Compared, most: int | None = None) -> Grille:
    """One line for each number, `most` of them; the verdict stands first, where no width pushes it below."""
    notes: list[str] = []
    table = compared.table[:most]
    body = [_line(compared.shown[d.key], d, notes) for d in table]
    head = ("", "verdict", compared.first, compared.other, "difference", "d_z", "p", "Holm")
    left = len(compared.table) - len(table)
    about = [
        *([f"{left} more"] if left else []), *compared.notes,
        f"{compared.prompts} prompts × {compared.draws} draws; base {compared.base}",
    ]  # fmt: skip
    return Grille(
        compared.title, [plain_text(h) for h in head], body, notes, [plain_text(line) for line in about],
        [d.verdict for d in table],
    )  # fmt: skip


def _line(heading: str, d: Difference, notes: list[str]) -> list[str]:
    numbers = [spelled(e) for e in (d.first, d.other, d.difference)]
    note = plain_text(d.difference.note)
    if note and note not in notes:
        notes.append(note)
    mark = superscript((notes.index(note) + 1,)) if note else ""
    difference = signed(d.difference.value, numbers[2]) + mark
    return [plain_text(heading), d.verdict, *numbers[:2], difference, *map(_short, (d.effect, d.p_value, d.adjusted))]


def spelled(e: Estimate) -> str:
    """A number and its limits."""
    return " ".join(spell(e.value, e.ci_low, e.ci_high)).rstrip()


def signed(value: float | None, text: str) -> str:
    """A difference with its sign, so that a rise reads as one."""
    return f"+{text}" if value is not None and value > 0 else text


def _short(number: float | None) -> str:
    return "" if number is None else f"{number:.2g}"


def of_shifts(compared: Compared) -> Grille:
    """One line for each prompt that moved."""
    looked = compared.shifts[0].looked_at
    told = dict.fromkeys(plain_text(s.difference.note) for s in compared.shifts if s.difference.note)
    note = (f"each prompt by what moved most on it, in standard deviations of a draw; limits at 1 − {LEVEL}/{looked}, "
            f"since the largest of {looked} were picked")  # fmt: skip
    head = ("prompt", "what", compared.first, compared.other, "difference")
    body = [_moved(s) for s in compared.shifts]
    return Grille("prompts that moved most", [plain_text(h) for h in head], body, about=[note, *told])


def _moved(shift: Shift) -> list[str]:
    difference = signed(shift.difference.value, spelled(shift.difference))
    return [plain_text(shift.prompt), plain_text(shift.quantity), plain(shift.first), plain(shift.other), difference]


def of_example(compared: Compared, example: Example) -> Grille:
    """Two draws, and below them what differs."""
    body = [["text", *(plain_text(_cut(text)) for text in (example.first, example.other))]]
    body += [[f"{plain_text(name)} (changed)", *map(_word, pair)] for name, pair in example.changed.items()]
    if example.log_base is not None:
        body.append(["log-prob under the base", *map(plain, example.log_base)])
    title = f"draw {example.index} of: {plain_text(example.prompt)}"
    return Grille(title, ["", plain_text(compared.first), plain_text(compared.other)], body)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _word(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return plain_text(str(value))
    return plain(float(value)) if value == value else MISSING


def to_terminal(shown: Sequence[Grille]) -> RenderableType:
    """A rich renderable of all tables."""
    return Group(*map(_Fitting, shown))


@dataclass(frozen=True)
class _Fitting:
    """A table whose columns of numbers follow below where they do not fit side by side; texts are folded instead."""

    grille: Grille

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        grille = self.grille
        yield Text(grille.title, style="bold")
        for columns in _groups(grille, options.max_width) if grille.verdicts else [range(1, len(grille.head))]:
            yield _grid(grille, [0, *columns])
            yield Text()
        yield from (Text(f"{superscript((n,))} {note}", style="dim") for n, note in enumerate(grille.notes, 1))
        yield from (Text(line, style="dim") for line in grille.about)
        if grille.notes or grille.about:
            yield Text()


def _groups(grille: Grille, room: int) -> list[list[int]]:
    """The columns after the first that fit beside it, in order."""
    widths = [max(map(cell_len, cells)) + 2 for cells in zip(grille.head, *grille.body, strict=True)]
    groups: list[list[int]] = [[]]
    for column in range(1, len(widths)):
        if groups[-1] and widths[0] + sum(widths[i] for i in groups[-1]) + widths[column] > room:
            groups.append([])
        groups[-1].append(column)
    return groups


def _grid(grille: Grille, columns: Sequence[int]) -> Grid:
    grid = Grid(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for place in columns:
        numeric = bool(place and grille.verdicts)
        grid.add_column(Text(grille.head[place]), justify="right" if numeric else "left", overflow="fold",
                        no_wrap=numeric)  # fmt: skip
    for number, line in enumerate(grille.body):
        verdict = grille.verdicts[number] if grille.verdicts else ""
        styles = [VERDICTS.get(verdict, "") if place == 1 else "" for place in columns]
        grid.add_row(*(Text(line[place], style=style) for place, style in zip(columns, styles, strict=True)))
    return grid


def markdown_of(shown: Sequence[Grille], *closing: str) -> str:
    """All tables as pipe tables, each below its title, then the closing lines."""
    blocks = [part for grille in shown for part in _piped(grille)]
    return "\n\n".join([*blocks, *map(escape, closing)]) + "\n"


def _piped(grille: Grille) -> Iterator[str]:
    yield f"{'###' if grille.verdicts else '####'} {escape(grille.title)}"
    body = [[escape(cell) for cell in line] for line in grille.body]
    for line, verdict in zip(body, grille.verdicts, strict=False):
        line[1] = f"**{verdict}**" if verdict else ""
    align = ["left", *["right" if grille.verdicts else "left"] * (len(grille.head) - 1)]
    yield tabulate(body, [escape(h) for h in grille.head], "pipe", disable_numparse=True, colalign=align)
    if grille.notes:
        yield "\n".join(f"{n}. {escape(note)}" for n, note in enumerate(grille.notes, 1))
    yield from map(escape, grille.about)


def to_markdown(comparison: Comparison) -> str:
    """All tables, what could not be compared, and the legend."""
    failures = [f"Not compared: {plain_text(line)}" for line in comparison.failures]
    return markdown_of([g for c in comparison.tables for g in grilles(c)], *failures, LEGEND, *_cited(comparison))


def _cited(comparison: Comparison) -> list[str]:
    signatures = dict.fromkeys(s for c in comparison.tables for s in c.signatures if s)
    return [f"Signature: {plain_text(s)}" for s in signatures]


def to_json(comparison: Comparison) -> str:
    """Everything that was compared, draws whole; strict JSON, infinities as "inf"."""
    tables = [
        {**asdict(c), "differences": [{**asdict(d), "verdict": d.verdict} for d in c.differences]}
        for c in comparison.tables
    ]
    return dump({"baseline": comparison.baseline, "comparisons": tables, "failures": comparison.failures})


def html_of(shown: Sequence[Grille], *closing: str) -> str:
    """All tables on one page without a script or a request; every string is escaped by the template engine."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(TEMPLATE.parent)
    engine = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return engine.get_template(TEMPLATE.name).render(grilles=shown, closing=closing) + "\n"


def to_html(comparison: Comparison) -> str:
    """All tables, what could not be compared, and the legend, as a page."""
    failures = [f"Not compared: {plain_text(line)}" for line in comparison.failures]
    return html_of([g for c in comparison.tables for g in grilles(c)], *failures, LEGEND, *_cited(comparison))


FORMATS: Mapping[str, Callable[[Comparison], str]] = {"md": to_markdown, "html": to_html, "json": to_json}
"""Extension → renderer."""
