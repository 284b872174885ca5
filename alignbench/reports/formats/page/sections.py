"""What a page shows of each table of a leaderboard: its rows, its charts, and example draws."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from markupsafe import Markup

from alignbench.reports.charts.axes import TITLES
from alignbench.reports.charts.boards import Charts, charts_of, is_mixed
from alignbench.reports.charts.data import Bar, Bars, Curves, LeftOut, Panel, Scatter, Stop
from alignbench.reports.charts.drawing import draw
from alignbench.reports.charts.drawing.curves import picture_of
from alignbench.reports.charts.picture import SCREEN
from alignbench.reports.charts.svg import inline
from alignbench.reports.charts.two_parts import TwoParts
from alignbench.reports.examples import Example, Shown
from alignbench.reports.formats.page.drawn import of_table, packed
from alignbench.reports.table.board import Cell, Leaderboard, Row, Table
from alignbench.reports.table.brief import COLLATERAL
from alignbench.reports.table.lines import SEED
from alignbench.reports.table.verdict import ASKED


@dataclass(frozen=True)
class Body:
    """Rows of a table that are sorted among themselves, each with its number in the table."""

    pinned: bool
    rows: tuple[tuple[int, Row], ...]


@dataclass(frozen=True)
class Drawn:
    """A picture with what it does not show."""

    name: str
    picture: Markup
    left_out: tuple[LeftOut, ...]


@dataclass(frozen=True)
class Reached:
    """The row of a label in a table beside a chart; an empty cell for what the chart leaves out."""

    number: int
    label: str
    front: bool
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Strips:
    """Bars as columns of a table: (number, label, a bar for each panel or None) of each row."""

    name: str
    panels: tuple[Panel, ...]
    rows: tuple[tuple[int, str, tuple[Bar | None, ...]], ...]


@dataclass(frozen=True)
class Traced:
    """Curves over one number: their pictures, and (number, stop, a cell for each curve) of each row."""

    name: str
    pictures: tuple[Drawn, ...]
    chart: Curves
    rows: tuple[tuple[int, Stop, tuple[Cell, ...]], ...]


@dataclass(frozen=True)
class Section:
    """What the page shows of one table; `number` counts from 1 and is part of ids."""

    number: int
    name: str  # in the table of contents
    table: Table
    charts: Charts | None
    draws: Mapping[int, tuple[Example, ...]]  # by number of the row

    @property
    def mixed(self) -> bool:
        """Whether rows of several versions of the task share the table, which then has no charts."""
        return is_mixed(self.table)

    @property
    def bodies(self) -> tuple[Body, ...]:
        """The rows that compete, then those that are pinned below them."""
        rows = list(enumerate(self.table.rows, 1))
        parts = [Body(pinned, tuple(r for r in rows if bool(r[1].mark) == pinned)) for pinned in (False, True)]
        return tuple(part for part in parts if part.rows)

    @cached_property
    def numbers(self) -> Mapping[str, int]:
        """Label → number of the row in the table."""
        return {row.label: n for n, row in enumerate(self.table.rows, 1)}

    @cached_property
    def scatters(self) -> tuple[Scatter, ...]:
        """What the task asks against KL(π‖a) where the two parts of KL(p‖π) are not known, and against the cost."""
        if self.charts is None:
            return ()
        first = self.charts.tradeoff if self.charts.two_parts is None else None
        return tuple(chart for chart in (first, self.charts.by_cost) if chart is not None)

    @cached_property
    def tradeoffs(self) -> tuple[Drawn, ...]:
        """The pictures of the trade-offs: asked gap against collateral, then the scatters."""
        parts = self.charts.two_parts if self.charts is not None else None
        charts = (*(() if parts is None else (parts,)), *self.scatters)
        return tuple(
            Drawn(
                "asked gap and collateral" if isinstance(chart, TwoParts) else chart.x.title,
                inline(draw(chart, SCREEN), f"trade-{self.number}-{i}"), chart.left_out,
            )
            for i, chart in enumerate(charts, 1)
        )  # fmt: skip

    @property
    def heads(self) -> tuple[str, ...]:
        """The columns of `reached`."""
        parts = self.charts is not None and self.charts.two_parts is not None
        both = (TITLES[ASKED], TITLES[COLLATERAL]) if parts else ()
        return (*both, *(chart.y.title for chart in self.scatters[:1]), *(chart.x.title for chart in self.scatters))

    @property
    def reached(self) -> tuple[Reached, ...]:
        """The numbers of the trade-offs: the two parts, what the task asks, and what each scatter has across."""
        parts = self.charts.two_parts if self.charts is not None else None
        in_parts = {} if parts is None else {p.row.number: p for p in parts.points}
        points = [{p.number: p for p in chart.points} for chart in self.scatters]
        rows = []
        for label, number in self.numbers.items():
            two, of_row = in_parts.get(number), [by_number.get(number) for by_number in points]
            known = [p for p in of_row if p is not None]
            if known or two is not None:
                both = () if parts is None else (Cell(), Cell()) if two is None else (two.row.asked, two.row.collateral)
                ys = (known[0].y if known else Cell(),) if points else ()
                cells = (*both, *ys, *(Cell() if p is None else p.x for p in of_row))
                front = any(p.front for p in known) or (two is not None and two.front)
                rows.append(Reached(number, label, front, cells))
        return tuple(rows)

    @property
    def bars(self) -> tuple[Strips, ...]:
        """Charts of bars: what is wanted and reached, and divergences."""
        if self.charts is None:
            return ()
        found = (("Wanted and reached", self.charts.moments), ("Divergences", self.charts.divergences))
        return tuple(self._strips(name, bars) for name, bars in found if bars is not None)

    def _strips(self, name: str, bars: Bars) -> Strips:
        by_label = [{bar.label: bar for bar in panel.bars} for panel in bars.panels]
        rows = ((n, label, tuple(bars.get(label) for bars in by_label)) for label, n in self.numbers.items())
        return Strips(name, bars.panels, tuple(row for row in rows if any(row[2])))

    @property
    def curves(self) -> tuple[Traced, ...]:
        """Charts of curves: over training, and over each number that aligners are swept over."""
        if self.charts is None:
            return ()
        series = [("Training", self.charts.series)] if self.charts.series is not None else []
        named = (*series, *((f"Sweep of {chart.x.title}", chart) for chart in self.charts.sweeps))
        return tuple(
            Traced(name, self._pictures(k, chart), chart, tuple(self._stops(chart)))
            for k, (name, chart) in enumerate(named, 1)
        )

    def _pictures(self, k: int, chart: Curves) -> tuple[Drawn, ...]:
        ident = f"curve-{self.number}-{k}"
        return tuple(
            Drawn(curve.axis.title, inline(picture_of(chart, curve, SCREEN), f"{ident}-{i}"), curve.left_out)
            for i, curve in enumerate(chart.curves, 1)
        )

    def _stops(self, chart: Curves) -> Iterator[tuple[int, Stop, tuple[Cell, ...]]]:
        """The numbers of a chart of curves: a row of the table, where it stands, a cell for each curve."""
        found: dict[str, Stop] = {}
        cells: dict[tuple[str, int], Cell] = {}
        for i, curve in enumerate(chart.curves):
            for stop in (stop for line in curve.lines for stop in line.stops):
                found.setdefault(stop.label, stop)
                cells[stop.label, i] = stop.cell
        for label, stop in found.items():
            yield (
                self.numbers.get(label, 0),
                stop,
                tuple(cells.get((label, i), Cell()) for i in range(len(chart.curves))),
            )

    @property
    def means(self) -> bool:
        """Whether some rows are means over seeds."""
        return any(row.who and not row.who[SEED] for row in self.table.rows)

    @property
    def drawn(self) -> tuple[tuple[int, str], ...]:
        """Number and label of the rows that have example draws."""
        return tuple((n, label) for label, n in self.numbers.items() if n in self.draws)

    @property
    def data(self) -> Markup:
        """The example draws, as JSON."""
        return packed(self.draws)


def sections(board: Leaderboard, examples: Sequence[Shown] = ()) -> tuple[Section, ...]:
    """A section for each table, in the order of the leaderboard, then for each suite."""
    shown = board.shown
    charts = [*charts_of(board), *(None for _ in board.suite)]
    headings = [table.heading for table in shown]
    names = [t.heading if headings.count(t.heading) == 1 else t.title for t in shown]
    return tuple(
        Section(number, name, table, charts[number - 1], of_table(table, examples))
        for number, (name, table) in enumerate(zip(names, shown, strict=True), 1)
    )
