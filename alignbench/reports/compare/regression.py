"""Gates: whether a generator is beyond doubt worse than the baseline in a metric, so that CI can stop a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isfinite, isinf

from alignbench.errors import UsageError, unknown
from alignbench.reports.compare.compared import LEVEL, Compared, Comparison, Difference
from alignbench.reports.table.board import plain_text
from alignbench.reports.table.numbers import plain


@dataclass(frozen=True)
class Gate:
    """A metric (`metric.part`) and by how much it may be worse, in its own unit."""

    key: str
    margin: float = 0.0


@dataclass(frozen=True)
class Judgement:
    """What a gate says of one comparison: worse by more than the margin, or not, or None where that is not known."""

    regressed: bool | None
    line: str


def gate_of(words: str) -> Gate:
    """The gate that `METRIC[:MARGIN]` means; raises UsageError where the margin is no number from 0 on."""
    key, _, margin = words.rpartition(":") if ":" in words else (words, "", "0")
    try:
        found = Gate(key.strip(), float(margin))
    except ValueError:
        found = Gate(key, -1.0)
    if not found.key or not isfinite(found.margin) or found.margin < 0:
        raise UsageError(f"--fail_on_regression {words}: is METRIC or METRIC:MARGIN, the margin a number from 0 on, "
                         "such as divergence.kl_target:0.1")  # fmt: skip
    return found


def judged(gates: Sequence[Gate], comparison: Comparison) -> Iterator[Judgement]:
    """What each gate says of each comparison that has its metric.

    A generator has regressed where p <= 0.05 and the whole 95 % interval of its paired difference is beyond the margin
    on the worse side, or the difference itself where all pairs differ alike and there is no interval. Where few pairs
    differ an interval alone is too narrow: 4 of 192 that all fell, p = 0.125, are 0.0004 to 0.041 by their interval.
    ∞ where the baseline is finite is worse by any margin. Raises UsageError on a metric that nobody has, or that has no
    better side.
    """
    for gate in gates:
        known = {d.key: d.better for c in comparison.tables for d in c.differences}
        directed = [key for key, better in known.items() if better]
        if gate.key not in known:
            raise unknown("metric", gate.key, directed, "--fail_on_regression")
        if gate.key not in directed:
            raise UsageError(f"--fail_on_regression {gate.key}: has no better side, so that nothing is a regression")
        for compared in comparison.tables:
            found = next((d for d in compared.differences if d.key == gate.key), None)
            yield from [] if found is None else [_judged(gate, compared, found)]


def _judged(gate: Gate, compared: Compared, d: Difference) -> Judgement:
    value, sign = d.difference.value, -1.0 if d.better == "higher" else 1.0
    where = plain_text(f"{compared.task}: {gate.key} of {compared.other}")
    if value is None and isinf(d.first.value or 0.0) and d.first.value == d.other.value:
        return Judgement(False, f"{where} is as infinite as that of {plain_text(compared.first)}")
    if value is None:
        return Judgement(None, f"{where} could not be compared: {plain_text(d.difference.note)}")
    least = _least(d, sign)
    if least is None:
        return Judgement(None, f"{where} could not be judged: {plain_text(d.difference.note)}")
    beyond = least > gate.margin
    by = "the same" if value == 0 else _by(sign * value)
    limit = f"worse by at least {plain(least)}" if least >= 0 else f"better by at most {plain(-least)}"
    verdict = f"more than {plain(gate.margin)} beyond doubt" if beyond else f"not shown to be over {plain(gate.margin)}"
    return Judgement(beyond, f"{where} is {by} (at 95 % {limit}): {verdict}")


def _by(worse: float) -> str:
    return f"worse by {plain(worse)}" if worse > 0 else f"better by {plain(-worse)}"


def _least(d: Difference, sign: float) -> float | None:
    """By how much it is worse at least, at 95 % (two-sided); None where that is not known."""
    value = sign * float(d.difference.value or 0.0)
    limit = d.difference.ci_low if sign > 0 else d.difference.ci_high
    if not isfinite(value):
        return value
    least = value if limit is None else sign * limit
    if d.p_value is None:
        return None if limit is None else least
    return least if d.p_value <= LEVEL or least <= 0 else 0.0
