"""A series of checkpoints: KL and what is asked over training steps, each beside the first and the one before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from itertools import pairwise
from math import isfinite

from alignbench.errors import UsageError
from alignbench.files import dump
from alignbench.reports.compare.compared import Compared, Difference, Numbers, compare_pair
from alignbench.reports.compare.contenders import Measured, Pair, split, steps
from alignbench.reports.compare.text import LEVEL_NOTE, cell, cited, with_sign
from alignbench.reports.formats.html import page_of
from alignbench.reports.formats.markdown import markdown_of
from alignbench.reports.table.board import ARROWS, Cell, Column, Row, Table, plain_text
from alignbench.stats.asked import AT_LEAST, AT_MOST
from alignbench.types import Estimate

CURVES = (
    "divergence.kl_target", "divergence.kl_asked", "divergence.kl_collateral", "satisfaction.always",
    "satisfaction.moment.*", "satisfaction.share.*", "satisfaction.reward.*", "moment_error", "divergence.kl_base",
)  # fmt: skip
BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Stop:
    """One number at one training step, less that of the first and of the previous checkpoint (None at the first)."""

    step: int
    estimate: Estimate
    from_first: Difference | None
    from_previous: Difference | None


@dataclass(frozen=True)
class Curve:
    """One number over training."""

    key: str
    better: str
    stops: tuple[Stop, ...]


@dataclass(frozen=True)
class Series:
    """The checkpoints of one family on one task."""

    task: str
    name: str
    curves: tuple[Curve, ...]
    signatures: tuple[str, ...]


def series_of(arguments: Sequence[str]) -> tuple[list[Series], list[str]]:
    """The series of checkpoints in the folders given, of the labels given if any, and a line for each failure.

    Raises UsageError where no row has a training step, or no series has two.
    """
    pools, labels = split(arguments)
    found = [m for pool in pools for m in pool.found if not labels or any(_is(m, name) for name in labels)]
    failures = [line for pool in pools for line in pool.failures]
    families = list(steps(found))
    places = ", ".join(str(pool.folder) for pool in pools)
    if not families:
        raise UsageError(f"{places}: no rows{' of ' + ', '.join(labels) if labels else ''} have a training step; run "
                         "--model_args 'pretrained=ckpts/step-*'")  # fmt: skip
    long = [(name, series) for name, series in families if len(series) > 1]
    if not long:
        raise UsageError(f"{places}: every series has one checkpoint alone; there is nothing to compare it with")
    numbers = Numbers(failures.append)
    return [_series(name, measured, numbers) for name, measured in long], failures


def _is(measured: Measured, name: str) -> bool:
    """Whether a label given, which may be a pattern or that of a whole family, is that of a row."""
    return name in measured.names or fnmatchcase(measured.label, name)


def _series(name: str, measured: Sequence[Measured], known: Numbers) -> Series:
    first = [compare_pair(Pair(measured[0], m), ("first", m.label), known) for m in measured[1:]]
    previous = [first[0]] + [compare_pair(Pair(a, b), (a.label, b.label), known) for a, b in pairwise(measured[1:])]
    keys = [
        d.key for pattern in CURVES for d in first[0].differences if fnmatchcase(d.key, pattern)
    ]  # fmt: skip
    numbers = [int(m.key.step or 0) for m in measured]
    curves = [_curve(key, numbers, first, previous) for key in dict.fromkeys(keys)]
    told = tuple(curve for curve in curves if any(s.estimate.value is not None for s in curve.stops))
    return Series(measured[0].key.task, name, told, tuple(m.key.signature for m in measured))


def _curve(key: str, numbers: Sequence[int], first: Sequence[Compared], previous: Sequence[Compared]) -> Curve:
    from_first = [_of(key, c) for c in first]
    from_previous = [_of(key, c) for c in previous]
    start = Stop(numbers[0], from_first[0].first, None, None)
    rest = [Stop(n, d.other, d, p) for n, d, p in zip(numbers[1:], from_first, from_previous, strict=True)]
    return Curve(key, from_first[0].better, (start, *rest))


def _of(key: str, compared: Compared) -> Difference:
    missing = Estimate.missing("not reported")
    return next((d for d in compared.differences if d.key == key), Difference(key, "", missing, missing, missing))


def sparkline(values: Sequence[float | None]) -> str:
    """A bar for each value from the lowest to the highest; ∞ where it is infinite, a dot where it is missing."""
    finite = [v for v in values if v is not None and isfinite(v)]
    low, width = min(finite, default=0.0), max(finite, default=0.0) - min(finite, default=0.0)
    top = len(BARS) - 1
    return "".join(
        "·" if v is None else "∞" if not isfinite(v) else BARS[round(top * (v - low) / width) if width else 0]
        for v in values
    )


def tables_of(found: Sequence[Series]) -> list[Table]:
    """A table for each curve."""
    return [_table(series, curve) for series in found for curve in series.curves]


def _table(series: Series, curve: Curve) -> Table:
    values = [stop.estimate.value for stop in curve.stops]
    heading = f"{curve.key} {ARROWS.get(curve.better, '')}".rstrip()
    differences = [d for stop in curve.stops for d in (stop.from_first, stop.from_previous) if d is not None]
    limits = {note: None for stop in curve.stops for note in (AT_LEAST, AT_MOST) if note in stop.estimate.note}
    notes = limits | dict.fromkeys(plain_text(d.difference.note) for d in differences if d.difference.note)
    rows = tuple(
        Row(str(stop.step), (cell(stop.estimate), _difference(stop.from_first), _difference(stop.from_previous)))
        for stop in curve.stops
    )
    heads = (plain_text(curve.key), "less the first", "less the one before")
    return Table(
        plain_text(f"{series.task} · {series.name} · {heading}  {sparkline(values)}"),
        tuple(Column(f"of.{i}", head) for i, head in enumerate(heads)), rows, legend=(*notes, LEVEL_NOTE), named="step",
    )  # fmt: skip


def _difference(d: Difference | None) -> Cell:
    if d is None:
        return Cell("")
    found = cell(d.difference)
    return replace(found, point=with_sign(d.difference.value, found.point))


def to_markdown(found: Sequence[Series]) -> str:
    """All curves as tables."""
    return markdown_of(tables_of(found), *_cited(found))


def to_html(found: Sequence[Series]) -> str:
    """All curves as a page of tables."""
    return page_of("Checkpoints", tables_of(found), _cited(found))


def _cited(found: Sequence[Series]) -> list[str]:
    return cited(s for series in found for s in series.signatures)


def to_json(found: Sequence[Series]) -> str:
    """All curves; strict JSON, infinities as "inf"."""
    return dump({"series": [asdict(series) for series in found]})


FORMATS: dict[str, Callable[[Sequence[Series]], str]] = {"md": to_markdown, "html": to_html, "json": to_json}
"""Extension → renderer."""
