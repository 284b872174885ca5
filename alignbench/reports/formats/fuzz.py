"""What a fuzz found, in a terminal of 80 columns and as CSV: coverage by quantity, kind of target, law and size."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from io import StringIO
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from alignbench.reports.formats.checks import STYLES, empty_table, short
from alignbench.reports.table.numbers import plain, spell

if TYPE_CHECKING:
    from alignbench.checks.fuzz import Count, Family, Report

COLUMNS = ("quantity", "kind", "law", "size", "runs", "printed", "covered", "wrong", "bounds", "refused", "sure",
           "infinite", "worlds", "fault")  # fmt: skip
MOST = 30
"""Failures that are shown; the CSV has all of them."""


def of_fuzz(report: Report) -> RenderableType:
    """Two tables, a line for each quantity, then what fails."""
    return Group(*_overall(report), *_by_kind(report), *_left(report), *_verdict(report))


def as_csv(report: Report) -> str:
    """A line for each family: counts of runs, its worlds, and why it fails; no kind, law or size means all of them."""
    out = StringIO()
    lines = csv.writer(out, lineterminator="\n")
    lines.writerow(COLUMNS)
    for family, count in sorted(report.runs.items()):
        worlds = report.worlds[family].runs if family in report.worlds else 0
        lines.writerow(
            [*family, count.runs, count.printed, count.covered, count.wrong, count.of("bound"), count.of("nothing"),
             count.of("sure"), count.of("infinite"), worlds, report.faults.get(family, "")]
        )  # fmt: skip
    return out.getvalue()


def _overall(report: Report) -> Iterator[RenderableType]:
    worlds = sum(report.tally.trials.values())
    yield Text(f"Estimates beside the truth in {worlds:,} random world{'s' * (worlds > 1)}", style="bold")
    names = ("printed", "covered", "wrong", "bounds", "refused")
    shown = empty_table(("quantity", "left"), ("runs", "right"), *((name, "right") for name in names), ("", "left"))
    for family, count in _whole(report):
        verdict = "FAIL" if any(f.quantity == family.quantity for f in report.faults) else "ok"
        parts = (count.printed, count.covered, count.wrong, count.of("bound"), count.of("nothing"))
        of = (count.runs, count.printed, count.runs, count.runs, count.runs)
        cells = [_percent(part, whole) for part, whole in zip(parts, of, strict=True)]
        shown.add_row(Text(short(family.quantity)), f"{count.runs:,}", *cells, Text(verdict, style=STYLES[verdict]))
    yield shown
    yield Text(
        "printed: with an interval; covered: of these; wrong: of all runs, those whose interval or bound does not "
        "hold the truth. Not counted are numbers said to be exact, and what is ∞ in truth: there each must be right.\n",
        style="dim",
    )  # fmt: skip


def _by_kind(report: Report) -> Iterator[RenderableType]:
    kinds = sorted({f.kind for f in report.runs if f.kind}, key=[kind for kind, _ in report.tally.trials].index)
    yield Text("Of 100 intervals cover, by kind of target / of 100 runs print one", style="bold")
    shown = empty_table(("quantity", "left"), *((kind, "right") for kind in kinds))
    shown.padding = 0  # else 8 kinds do not fit
    for family, _ in _whole(report):
        shown.add_row(Text(short(family.quantity)), *(_cell(report, family._replace(kind=kind)) for kind in kinds))
    yield shown
    yield Text("A kind of target is red where it fails: at one size, at all, or of the base alone.\n", style="dim")


def _cell(report: Report, family: Family) -> Text:
    """Coverage, and the share that is printed where not all is."""
    count = report.runs.get(family)
    if count is None or not count.runs:
        return Text("")
    bad = any((f.quantity, f.kind) == (family.quantity, family.kind) for f in report.faults)
    printed = "" if count.printed == count.runs else f"/{100 * count.printed / count.runs:.0f}"
    covered = f"{100 * count.covered / count.printed:.0f}" if count.printed else "–"
    return Text(covered + printed, style=STYLES["FAIL"] if bad else "")


def _whole(report: Report) -> Iterator[tuple[Family, Count]]:
    """The families over all kinds, laws and sizes."""
    for family, count in sorted(report.runs.items()):
        if not (family.kind or family.law or family.size) and count.runs:
            yield family, count


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "–"


def _left(report: Report) -> Iterator[RenderableType]:
    if report.tally.left:
        laws = ", ".join(f"{count} × {law}" for law, count in sorted(report.tally.left.items()))
        yield Text(f"Not to be had, for a reason that was said: {laws}\n", style="dim")


def _verdict(report: Report) -> Iterator[RenderableType]:
    for line in report.failures[:MOST]:
        yield Text(f"FAIL {line}", style=STYLES["FAIL"])
    if more := report.failures[MOST:]:
        yield Text(f"FAIL … and {len(more)} more", style=STYLES["FAIL"])
    if not report.failures:
        worlds = sum(report.tally.trials.values())
        yield Text(f"ok: {len(report.tested)} families in {worlds:,} world{'s' * (worlds > 1)}", STYLES["ok"])


def of_world(report: Report) -> RenderableType:
    """Every number of the one world that was run, beside the truth."""
    shown = empty_table(
        ("law, quantity", "left"), ("exact", "right"), ("estimate", "right"), ("", "left"), ("note", "left")
    )
    law = ""
    for seen in report.tally.seen:
        if seen.law != law:
            law = seen.law
            shown.add_row(Text(law, style="italic"))
        verdict = "" if seen.covered is None else "ok" if seen.covered else "off"
        told = " ".join(spell(seen.estimate.value, *seen.limits)).rstrip()
        shown.add_row(
            Text(f"  {short(seen.quantity)}"), plain(seen.exact), told,
            Text(verdict, style="" if verdict != "off" else STYLES["FAIL"]), Text(seen.estimate.note, style="dim"),
        )  # fmt: skip
    return Group(*(Text(line, style="bold") for line in report.tally.told), shown, *_left(report), *_verdict(report))
