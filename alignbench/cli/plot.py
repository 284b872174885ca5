"""`alignbench plot`: trade-offs, suites, moments, divergences, series and sweeps as pictures for papers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from alignbench.cli.app import app
from alignbench.cli.leaderboard import Rename, most_rows, renames, words_in
from alignbench.cli.words import say
from alignbench.errors import UsageError, unknown

if TYPE_CHECKING:
    from alignbench.reports.charts.drawing import Chart
    from alignbench.reports.table.board import Arrangement, Row, Table

_Numbers = tuple[str | None, str | None, str | None]

NOTHING = {
    "tradeoff": "no row has a finite number on both axes",
    "suite": "fewer than two tasks have a verdict on a row (those of a base and judge make a suite)",
    "moments": "the target asks nothing that rows tell",
    "divergences": "no row has a divergence",
    "series": "no two rows are checkpoints (rows with a step)",
    "sweep": "no two rows differ in one number of an aligner alone, such as temperature:t=0.7 and temperature:t=1.3",
}
"""Kind of plot → why a table has none."""

EXAMPLES = """
Examples (in the folder plots, a file for each task):

  alignbench plot tradeoff results --out plots

  alignbench plot tradeoff results --tasks lexical_word --x cost.calls_per_draw --out figure1.pdf

  alignbench plot suite results --out suite.svg

  alignbench plot moments results other_machine/results --format png,svg,pdf

  alignbench plot divergences results --generators base --generators 'best_of_n*'

  alignbench plot series results --y divergence.kl_target

  alignbench plot sweep results

A trade-off is the asked gap against the collateral, the two parts of KL(p‖π), with --x or --y any two columns. The
suite has the verdict and the asked gap of each row on each task. What has no number to draw is named on standard
error, with the reason.
"""


Columns = Annotated[
    str | None,
    typer.Option("--columns", "--metrics", metavar="A,B", help="Of bars and curves: only these, by metric.part."),
]
Rows = Annotated[
    int | None, typer.Option("--rows", metavar="N", help="Only the first rows of each table. (default: all)")
]


@app.command(epilog=EXAMPLES)
def plot(
    what: Annotated[str, typer.Argument(metavar="|".join(NOTHING))],
    paths: Annotated[
        list[Path], typer.Argument(metavar="DIR…", help="The --output_path of runs, or CSV files of results.")
    ],
    tasks: Annotated[
        list[str] | None, typer.Option(metavar="A,B", help="Task names or patterns, comma-separated.")
    ] = None,
    x: Annotated[
        str | None, typer.Option(metavar="METRIC", help="Of tradeoff: what goes across. (default: asked gap)")
    ] = None,
    y: Annotated[
        str | None,
        typer.Option(
            metavar="METRIC",
            help="Of tradeoff, series, sweep. (default: what is asked; of a series KL too)",
        ),
    ] = None,
    generators: Annotated[
        list[str] | None,
        typer.Option(metavar="LABEL", help="Only rows of this label or pattern, as tables show them; repeatable."),
    ] = None,
    columns: Columns = None,
    most: Rows = None,
    rename: Rename = None,
    out: Annotated[
        Path, typer.Option(metavar="FILE|DIR", help="Where to write. (default: the working folder)")
    ] = Path(),
    formats: Annotated[
        str | None,
        typer.Option("--format", metavar="png,svg,pdf,json", help="json: the chart's data. (default: png)"),
    ] = None,
) -> None:
    """Draw trade-offs, suites, moments, divergences, series or sweeps: PNG, SVG or PDF, a picture for each table.

    PNG and PDF need the extra `plots`. Exit code 1 where something that was asked for is missing.
    """
    from alignbench.reports.charts import files as chart_files
    from alignbench.reports.gather import gather

    asked = _Asked.of(what, (x, y, columns), _Rows(tuple(generators or ()), most_rows(most), renames(rename)),
                      out or Path(), formats)  # fmt: skip
    chart_files.check_formats(asked.formats)
    found = gather(paths)
    missing = list(found.failures)
    rows = found.rows[found.rows["task"].isin(_tasks(tasks, list(dict.fromkeys(found.rows["task"])), missing))]
    pictures = list(asked.pictures(rows, found.primary, missing))
    targets = asked.targets([name for name, _ in pictures])
    for (name, chart), files in zip(pictures, targets, strict=True):
        for line in _left_out(chart):
            say(f"{name}: {line}")
        for file in files:
            chart_files.save(chart, file)
    if targets:
        print("wrote " + ", ".join(str(file) for files in targets for file in files))
    for line in (*found.remarks, *missing):
        say(line)
    if missing:
        raise typer.Exit(1)


class _Rows(NamedTuple):
    """Which rows are asked for, how many at most, and what they are called."""

    labels: tuple[str, ...]
    most: int | None
    rename: Mapping[str, str]


@dataclass(frozen=True)
class _Asked:
    """What was asked for, checked."""

    what: str
    x: str | None
    y: str | None
    columns: tuple[str, ...]
    rows: _Rows
    out: Path
    formats: tuple[str, ...]
    one_file: bool

    @classmethod
    def of(cls, what: str, numbers: _Numbers, rows: _Rows, out: Path, formats: str | None) -> _Asked:
        """The same, or UsageError; `numbers` are --x, --y and --columns."""
        x, y, columns = numbers
        from alignbench.reports.charts.files import FORMATS

        if what not in NOTHING:
            raise unknown("plot", what, NOTHING)
        for option, given, fitting in (("x", x, ("tradeoff",)), ("y", y, ("tradeoff", "series", "sweep"))):
            if given is not None and what not in fitting:
                raise UsageError(f"--{option} with {what}: it is for {' and '.join(fitting)}")
        if columns and (what in ("tradeoff", "suite") or y):
            why = {"tradeoff": "a trade-off has --x and --y", "suite": "a suite has verdicts and asked gaps"}
            raise UsageError(f"--columns: {why.get(what, 'give it or --y')}")
        extension = out.suffix.removeprefix(".").lower()
        one_file = extension.isalpha() and not out.is_dir()
        names = [f.strip() for f in (formats or (extension if one_file else "png")).split(",") if f.strip()]
        for name in names:
            if name not in FORMATS:
                raise unknown("format", name, FORMATS, f"--out {out}" if one_file and not formats else "--format")
        if one_file and names != [extension]:
            raise UsageError(f"--out {out} is a file: leave out --format, or give a folder")
        return cls(what, x, y, tuple(words_in(columns)), rows, out, tuple(names), one_file)

    def pictures(self, rows: Any, primary: Any, missing: list[str]) -> Iterator[tuple[str, Chart]]:
        """(name, chart) of all that the rows show; what they do not show goes to `missing`."""
        from alignbench.reports.charts import data as charts
        from alignbench.reports.table.board import Arrangement

        if len(rows) == 0:
            return
        keys = list(dict.fromkeys(map(_key, rows["metric"], rows["part"])))
        x, y = (name and _column(name, keys, option) for name, option in ((self.x, "--x"), (self.y, "--y")))
        shown = self._shown(keys) or ([y] if y else [])
        arrangement = Arrangement(primary, rename=self.rows.rename)
        tables = self._tables(rows, arrangement, [key for key in (x, y, *shown) if key])
        if self.what == "suite" and not tables:
            missing.append(f"suite: {NOTHING['suite']}")
        steps, seen = charts.steps_of(rows), set()
        for table in tables:
            part, known = _only(table, self.rows)
            seen |= known
            found = list(self._charts(part, (x, y), shown, steps))
            if not found and part.rows:
                missing.append(f"{self.what} of {table.title}: {NOTHING[self.what]}")
            alone = sum(t.task == table.task for t in tables) == 1
            yield from ((f"{self.what} {table.task if alone else table.title}{end}", chart) for end, chart in found)
        labels = {row.label for table in tables for row in table.rows}
        missing += [str(unknown("generator", name, labels)) for name in self.rows.labels if name not in seen]

    def _tables(self, rows: Any, arrangement: Arrangement, also: Sequence[str]) -> tuple[Table, ...]:
        """The tables that are drawn; verdicts take long and are found for trade-offs and suites alone."""
        from alignbench.reports.charts.data import charted
        from alignbench.reports.table.leaderboards import arranged

        if self.what == "suite":
            return arranged(rows, arrangement).suite
        return charted(rows, arrangement, also, judged=self.what == "tradeoff")

    def _shown(self, keys: Sequence[str]) -> list[str]:
        """The columns that --columns names; raises UnknownName where it names none."""
        from alignbench.reports.table.columns import keys_named, label_of

        for name in self.columns:
            if not keys_named(keys, name):
                raise unknown("metric", name, {*keys, *map(label_of, keys)}, "--columns")
        return list(dict.fromkeys(key for name in self.columns for key in keys_named(keys, name)))

    def _charts(
        self, table: Table, axes: tuple[str | None, str | None], keys: Sequence[str], steps: Any
    ) -> Iterator[tuple[str, Any]]:
        """(end of the name, chart) of one table."""
        from alignbench.reports.charts import data as charts
        from alignbench.reports.charts.suite import suite

        match self.what:
            case "tradeoff":
                found: list[Any] = [_tradeoff(table, axes)]
            case "suite":
                found = [suite(table)] if table.rows else []
            case "moments":
                found = [charts.moments(table, keys)]
            case "divergences":
                found = [charts.divergences(table, keys)]
            case "series":
                found = [charts.series(table, steps, keys)]
            case _:
                yield from ((f" {c.x.key}", c) for c in charts.sweeps(table, keys))
                return
        yield from (("", chart) for chart in found if chart is not None)

    def targets(self, names: Sequence[str]) -> list[list[Path]]:
        """The files of each picture; raises UsageError where several pictures have one file."""
        if self.one_file and len(names) > 1:
            raise UsageError(f"--out {self.out} is one file, and there are {len(names)} pictures ({', '.join(names)}): "
                             "give a folder, or pick with --tasks")  # fmt: skip
        if self.one_file:
            return [[self.out] for _ in names]
        stems = [re.sub(r"[^\w.=-]+", "_", name)[:100].strip("_") for name in names]
        stems = [f"{s}_{i}" if stems.count(s) > 1 else s for i, s in enumerate(stems, 1)]
        return [[self.out / f"{stem}.{extension}" for extension in self.formats] for stem in stems]


def _tradeoff(table: Table, axes: tuple[str | None, str | None]) -> Chart | None:
    """The two parts of KL(p‖π), unless other axes are asked for or no row has them."""
    from alignbench.reports.charts import data as charts
    from alignbench.reports.charts.two_parts import rows_of, two_parts

    x, y = axes
    brief = table.brief if x is None and y is None else None
    parts = None if brief is None else two_parts(rows_of(brief), table.title)
    return parts or charts.tradeoff(table, x or charts.X, y)


def _key(metric: str, part: str) -> str:
    return f"{metric}.{part}" if part else metric


def _column(name: str, keys: Sequence[str], option: str) -> str:
    """The column of that name, or of the one part of that name; raises UnknownName where there is none."""
    parts = [key for key in keys if key.partition(".")[2] == name]
    if name in keys or len(parts) == 1:
        return name if name in keys else parts[0]
    known = keys if "." in name else {part for key in keys if (part := key.partition(".")[2])}
    raise unknown("metric", name, known, option)


def _tasks(patterns: Sequence[str] | None, known: Sequence[str], missing: list[str]) -> list[str]:
    """The tasks that fit any of the patterns; a line in `missing` for each that none fits."""
    names = [name.strip() for words in patterns or ["*"] for name in words.split(",") if name.strip()]
    if patterns:
        missing += [str(unknown("task", n, known)) for n in names if not any(fnmatchcase(task, n) for task in known)]
    return [task for task in known if any(fnmatchcase(task, name) for name in names)]


def _only(table: Table, asked: _Rows) -> tuple[Table, set[str]]:
    """The table with the rows that were asked for, by label, mark or pattern; and the words that found any."""
    from alignbench.reports.table.labels import meant

    def fits(row: Row, name: str) -> bool:
        return fnmatchcase(row.label, name) or bool(meant(name, {row.label, row.full, row.mark}))

    found = {name: [row for row in table.rows if fits(row, name)] for name in asked.labels}
    kept = [i for i, row in enumerate(table.rows) if not found or any(row in some for some in found.values())]
    brief = table.brief and replace(table.brief, rows=tuple(table.brief.rows[i] for i in kept[: asked.most]))
    part = replace(table, rows=tuple(table.rows[i] for i in kept[: asked.most]), brief=brief)
    return part, {name for name, some in found.items() if some}


def _left_out(chart: Chart) -> Iterator[str]:
    """What the chart does not show, a line for each reason."""
    from alignbench.reports.charts.data import Bars, Curves
    from alignbench.reports.charts.picture import short
    from alignbench.reports.charts.suite import Suite

    if isinstance(chart, Suite):
        return
    if isinstance(chart, Bars):
        told = [(row.label, f"{panel.name}: {row.reason}") for panel in chart.panels for row in panel.left_out]
    elif isinstance(chart, Curves):
        told = [(row.label, row.reason) for curve in chart.curves for row in curve.left_out]
    else:
        told = [(row.label, row.reason) for row in chart.left_out]
    for reason in dict.fromkeys(reason for _, reason in told):
        yield f"left out {', '.join(short(label, 60) for label, why in told if why == reason)}: {reason}"
