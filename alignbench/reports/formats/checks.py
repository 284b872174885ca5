"""Selfchecks in a terminal of 80 columns: estimates beside the truth, coverage by quantity, findings on a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from alignbench.reports.table.numbers import plain, spell

if TYPE_CHECKING:
    from alignbench.checks.modelcheck import Finding
    from alignbench.checks.selfcheck import Cell, Report

STYLES = {"ok": "green", "FAIL": "bold red", "said": "yellow"}


def of_worlds(report: Report) -> RenderableType:
    """A table for each world (estimates of the first seed, how many seeds cover), then a line for each quantity."""
    worlds = [part for name, cells in report.by_world().items() for part in _world(report, name, cells)]
    return Group(*worlds, *_coverage(report), *_verdict(report))


def _world(report: Report, name: str, cells: Sequence[Cell]) -> Iterator[RenderableType]:
    yield Text(name, style="bold")
    columns = ("law, quantity", "left"), ("exact", "right"), ("estimate, seed 0", "right"), ("covered", "right")
    table = empty_table(*columns)
    law = ""
    for cell in cells:
        if not cell.told or (cell.constant and not report.faults(cell)):
            continue
        if cell.first.law != law:
            law = cell.first.law
            table.add_row(Text(law, style="italic"))
        table.add_row(*_beside_truth(cell, STYLES["FAIL"] if report.faults(cell) else ""))
    yield table
    yield Text(_rest(report, cells), style="dim")


def _beside_truth(cell: Cell, style: str) -> Iterator[Text]:
    seen = cell.first
    yield Text(f"  {short(seen.quantity)}", style=style)
    yield Text(plain(seen.exact), style=style)
    yield Text(" ".join(spell(seen.estimate.value, *seen.limits)).rstrip(), style=style)
    yield Text(_share(cell), style=style)


def _rest(report: Report, cells: Sequence[Cell]) -> str:
    """The cells that a table leaves out, in a few words."""
    exact = sum(cell.constant and not report.faults(cell) for cell in cells)
    refused = sum(not cell.told for cell in cells)
    return f"left out: {exact} numbers without error, all right; {refused} refused in every run\n"


def _share(cell: Cell) -> str:
    """How many of the intervals that were given cover the truth."""
    return f"{cell.covered}/{cell.told}"


def _coverage(report: Report) -> Iterator[RenderableType]:
    low, high = report.limits(report.seeds)
    yield Text(f"Coverage of the 95 % intervals over {report.seeds} seeds", style="bold")
    columns = ("quantity", "left"), ("laws", "right"), ("covered", "right"), ("fewest", "right"), ("far", "right")
    table = empty_table(*columns, ("refused", "right"), ("", "left"))
    for quantity, cells in report.by_quantity().items():
        tested = [cell for cell in cells if cell in report.tested]
        if tested:
            table.add_row(*_line(report, quantity, tested))
    yield table
    yield Text(
        f"covered: of all intervals given; fewest: of one law in one world, where {low} to {high} of {report.seeds} "
        f"may be; far: the farthest estimate, in standard errors, where {report.most_distant:.1f} may be. The cells of "
        "a quantity are tested together too. All limits are set so that chance alone breaks one in 1,000 versions of a "
        "healthy harness.\n", style="dim",
    )  # fmt: skip


def _line(report: Report, quantity: str, cells: Sequence[Cell]) -> Iterator[Text]:
    told, covered = sum(c.told for c in cells), sum(c.covered for c in cells)
    worst = min(cells, key=lambda c: c.covered / c.told)
    verdict = "FAIL" if quantity in report.pooled_faults or any(report.faults(c) for c in cells) else "ok"
    refused = sum(len(c.runs) for c in cells) - told
    yield Text(short(quantity))
    yield Text(str(len(cells)))
    yield Text(f"{covered / told:.1%}")
    yield Text(_share(worst))
    yield Text(f"{max(c.farthest for c in cells):.1f}")
    yield Text(str(refused or ""))
    yield Text(verdict, style=STYLES[verdict])


def _verdict(report: Report) -> Iterator[RenderableType]:
    for line in report.failures:
        yield Text(f"FAIL {line}", style=STYLES["FAIL"])
    if not report.failures:
        told, worlds = sum(c.told > 0 for c in report.cells), len(report.by_world())
        yield Text(f"ok: {told} numbers in {worlds} world{'s' * (worlds > 1)}", style=STYLES["ok"])


def short(quantity: str) -> str:
    """A quantity by its part, where the metric goes without saying."""
    return quantity.removeprefix("divergence.").removeprefix("satisfaction.")


def of_model(name: str, findings: Sequence[Finding]) -> RenderableType:
    """One line for each finding: the check, its verdict, what was found and why."""
    table = empty_table(("check", "left"), ("", "left"), ("found", "left"))
    for finding in findings:
        told = Text(f"{finding.found}\n") + Text(finding.reason, style="dim")
        table.add_row(Text(finding.check), Text(finding.verdict, style=STYLES[finding.verdict]), told)
    failed = sum(f.verdict == "FAIL" for f in findings)
    end = (
        Text(f"FAIL: {failed} of {len(findings)} checks", style=STYLES["FAIL"]) if failed else Text("ok", style="green")
    )
    return Group(Text(name, style="bold"), table, end)


def empty_table(*columns: tuple[str, str]) -> Table:
    """An empty table of columns (name, side)."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for name, side in columns:
        table.add_column(Text(name), justify="right" if side == "right" else "left", overflow="fold", min_width=1)
    return table
