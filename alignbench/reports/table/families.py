"""Families of aligners: rows that differ in one number of one aligner and agree in all else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from alignbench.errors import UsageError
from alignbench.reports.table.board import Row
from alignbench.spec import AT, Spec, parse_spec

Families = dict[tuple[str, str], dict[str, list[tuple[float, int]]]]


def families_of(rows: Sequence[Row], base: str) -> Families:
    """(aligner, argument) → what else is given → (its number, place of the row, from 1); alone is no family.

    An argument of an aligner inside another is named with dots, such as `proposal.n`. Checkpoints are left out.
    """
    found: Families = {}
    for place, row in enumerate(rows, 1):
        if (spec := _spec(row.aligner)) is None:
            continue
        for path, value in _numbers(spec.arguments):
            rest = Spec(spec.name, _without(spec.arguments, path)).label
            name = rest if row.generator == base else f"{row.generator} + {rest}"
            lines = found.setdefault((spec.name, ".".join(path)), {})
            lines.setdefault(name, []).append((value, place))
    kept = {who: {n: s for n, s in lines.items() if len({x for x, _ in s}) > 1} for who, lines in found.items()}
    return {who: lines for who, lines in kept.items() if lines}


def _spec(aligner: str) -> Spec | None:
    """The spec of an aligner's name; None where it reads as none, or is that of a checkpoint."""
    if AT.search(aligner):
        return None
    try:
        return parse_spec(aligner, "aligner") if aligner else None
    except UsageError:
        return None


def _numbers(arguments: Mapping[str, Any], within: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], float]]:
    """(path, number) of all numbers among the arguments, those of mappings inside too."""
    for key, value in arguments.items():
        if isinstance(value, Mapping):
            yield from _numbers({str(k): v for k, v in value.items()}, (*within, key))
        elif isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300:
            yield (*within, key), float(value)


def _without(arguments: Mapping[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    """The arguments but for one, which shows as an asterisk."""
    head, *rest = path
    return {k: v if str(k) != head else _without(v, tuple(rest)) if rest else "*" for k, v in arguments.items()}
