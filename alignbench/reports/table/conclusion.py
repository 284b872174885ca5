"""What a table means in a few sentences, by rule: from printed numbers and verdicts alone."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import inf, isinf

from alignbench.reports.table.brief_columns import CALLS, COLLATERAL, asked_columns, point_of
from alignbench.reports.table.digits import two_digits
from alignbench.reports.table.lines import Line
from alignbench.reports.table.pairs import number
from alignbench.reports.table.verdict import ASKED, IF_NOTHING_LOST, KL, VS_BASE, WORDS, Verdict, not_told

CHEAP = 1.5
"""Times the base's calls: what costs no more is called cheap."""
NEAR = 0.05
"""Nats: a base as near to p as that is there already."""


def conclusion(lines: Sequence[Line], found: Sequence[Verdict]) -> str:
    """What the table means, a sentence a line. It uses only numbers and verdicts that the table prints."""
    base = next((line for line in lines if line.is_base), None)
    if not_told(lines):
        return "The target cannot be told from the base: no verdicts."
    if base is None:
        return "There is no row of the base to compare with."
    told = ((line, v.word) for line, v in zip(lines, found, strict=True) if v.word)
    rows = sorted(told, key=lambda row: (_far(row[0]), row[0].calls))
    if not rows:
        return ""
    exact = [line for line, word in rows if word in ("better", "—") and _is_exact(line)]
    nearer = [line for line, word in rows if word == "better"]
    better = [line for line in nearer if not _is_exact(line)]
    told_of = {word: [line for line, said in rows if said == word] for word in WORDS}
    unless = {line.label for line, verdict in zip(lines, found, strict=True) if verdict.more == IF_NOTHING_LOST}
    none = [] if nearer or exact else [_none_better([word for _, word in rows])]
    sentences = [
        *_near(base), *_exactly(exact, base), *_best(better, base), *_cheap(nearer, cheap(lines, found), base), *none,
        *_nearer_alone(told_of["asked only"]), *_trades(told_of["trade"], unless, base), *_worse(told_of["worse"]),
    ]  # fmt: skip
    return "\n".join(sentences)


def _far(line: Line) -> float:
    """KL(p‖π); ∞ where it is not known."""
    value = line.value(KL)
    return inf if value is None else value


def _none_better(words: Sequence[str]) -> str:
    if all(word == "—" for word in words):
        return "No row could be compared with the base."
    return "No row is shown nearer p than the base."


def _nearer_alone(lines: Sequence[Line]) -> list[str]:
    names = ", ".join(line.label for line in lines[:4])
    return [f"Nearer in what was asked, with no density for more: {names}."] if lines else []


def _near(base: Line) -> list[str]:
    value, record = base.value(KL), base.records.get(KL)
    high = None if record is None else number(record.get("ci_high"))
    there = value is not None and value <= NEAR and high is not None and high <= 2 * NEAR
    return [f"The base is near p already: KL {two_digits(value or 0.0)}."] if there else []


def _is_exact(line: Line) -> bool:
    record = line.records.get(KL)
    return record is not None and number(record.get("value")) == 0 and number(record.get("stderr")) == 0


def _best(better: Sequence[Line], base: Line) -> list[str]:
    """The row nearest to p, and those that are tied with it."""
    if not better:
        return []
    first = better[0]
    tied = [line.label for line in better[1:] if _overlap(first, line)]
    also = f" ({', '.join(tied[:3])}{' and more' * (len(tied) > 3)}: no difference shown)" if tied else ""
    told = filter(None, (_asked_for(first, base), _kl(first, base), _cost(first, base)))
    return [f"{first.label}{also}: {', '.join(told)}."]


def _overlap(first: Line, other: Line) -> bool:
    """Whether the intervals of two rows' KL overlap (cruder than a test of their paired difference)."""
    mine, theirs = (line.records.get(KL, {}) for line in (first, other))
    ends = [(number(r.get("ci_low")), number(r.get("ci_high"))) for r in (mine, theirs)]
    (low, high), (least, most) = [(-inf if a is None else a, inf if b is None else b) for a, b in ends]
    return low <= most and least <= high


def cheap(lines: Sequence[Line], found: Sequence[Verdict]) -> list[Line]:
    """The rows that are better than the base at no more than `CHEAP` times its calls, the nearest to p first."""
    base = next((line for line in lines if line.is_base), None)
    calls = None if base is None else base.value(CALLS)
    if not calls:
        return []
    better = (line for line, verdict in zip(lines, found, strict=True) if verdict.word == "better")
    return sorted((line for line in better if line.calls <= CHEAP * calls), key=lambda x: (_far(x), x.calls))


def _cheap(nearer: Sequence[Line], some: Sequence[Line], base: Line) -> list[str]:
    """The nearest row of those that cost little, where the nearest of all costs more."""
    if not base.value(CALLS) or some[:1] == list(nearer[:1]):
        return []
    best = ", ".join(filter(None, (some[0].label, _kl(some[0], base)))) if some else "no row is better"
    return [f"At up to {CHEAP:g}× the base's calls: {best}."]


def _exactly(exact: Sequence[Line], base: Line) -> list[str]:
    named = [", ".join(filter(None, (line.label, _proviso(line), _cost(line, base)))) for line in exact[:2]]
    return [f"Exactly p: {'; '.join(named)}."] if named else []


def _proviso(line: Line) -> str:
    note = str(line.records[KL].get("note", ""))
    return "if its proposal reaches all of p" if "provided" in note else ""


def _trades(trades: Sequence[Line], unless: Collection[str], base: Line) -> list[str]:
    """What was asked is nearer, at a price; `unless`: labels of rows that are nearer p if they leave out nothing."""
    return [f"{line.label}: {_trade(line, base, line.label in unless)}." for line in trades[:2]]


def _trade(line: Line, base: Line, unless: bool) -> str:
    if unless:
        told = filter(None, (_asked_for(line, base), _kl(line, base)))
        return f"{', '.join(told)}, if it leaves out nothing of p"
    asked = _asked_for(line, base) or f"asked gap {point_of(line, ASKED)} (base {point_of(base, ASKED)})"
    rest = line.value(COLLATERAL)
    if rest is None:
        return f"{asked}, but not shown nearer p than the base"
    if isinf(rest):
        return f"{asked}, but it leaves out part of p"
    return f"{asked}, but {two_digits(rest)} nats of collateral"


def _worse(worse: Sequence[Line]) -> list[str]:
    names = [line.label for line in worse]
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return [f"Worse than the base: {', '.join(names[:4])}{more}."] if names else []


def _asked_for(line: Line, base: Line) -> str:
    """What the first thing asked reaches, in percent or as it is."""
    for shown in asked_columns(line):
        mine, theirs = line.value(shown.key), base.value(shown.key)
        if mine is not None and theirs is not None:
            told = [f"{100 * x:.0f} %" if shown.percent else two_digits(x) for x in (mine, theirs)]
            return f"{shown.column.label.removesuffix(' %')} {told[0]} (base {told[1]})"
    return ""


def _kl(line: Line, base: Line) -> str:
    """KL of both; where one is not measured, how much nearer the row is."""
    if line.value(KL) is not None and base.value(KL) is not None:
        return f"KL {point_of(line, KL)} (base {point_of(base, KL)})"
    nearer = line.value(VS_BASE)
    return "" if nearer is None else f"{two_digits(abs(nearer))} nats nearer p than the base"


def _cost(line: Line, base: Line) -> str:
    mine, theirs = line.value(CALLS), base.value(CALLS)
    return f"{two_digits(mine / theirs)}× the calls" if mine and theirs else ""
