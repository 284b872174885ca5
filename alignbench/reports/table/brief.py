"""A table that is read in ten seconds: verdicts, the two parts of KL(p‖π), what was asked, what it cost, a conclusion.

Two digits a number and the most important rows; `board.Table` has everything.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, floor, inf, isfinite, isinf, log2, log10
from statistics import median
from typing import Any

from alignbench.reports.rows import parts_of
from alignbench.reports.table.board import Brief, BriefRow, Heading
from alignbench.reports.table.cells import notes_of
from alignbench.reports.table.lines import DRAWS, Line
from alignbench.reports.table.numbers import INFINITY, MISSING
from alignbench.reports.table.pairs import number
from alignbench.reports.table.standing import goal_of
from alignbench.reports.table.verdict import ASKED, KL, NO_BASE, NOT_TOLD, VS_BASE, WORDS, Verdict, not_told
from alignbench.stats.asked import AT_LEAST, AT_MOST

Record = Mapping[str, Any]
COLLATERAL, KEPT, CALLS, PERPLEXITY = (
    "divergence.kl_collateral", "divergence.mass_kept", "cost.calls_per_draw", "perplexity",
)  # fmt: skip
NOTES = 3
"""Notes of a table."""
LAM = "fitted λ"
CHEAP = 1.5
"""Times the base's calls: what costs no more is told as cheap."""
NEAR = 0.05
"""Nats: a base as near to p as that is there already."""
LARGE = 1e5  # from here on, powers of ten
SMALL = 0.005  # half a width: below, a third decimal tells
SYMMETRIC = 0.1  # of the half width: sides that differ by less are printed as one ±


# --- numbers ----------------------------------------------------------------------------------------------------------


def two_digits(value: float) -> str:
    """A number to two significant digits, without a 0 before the point: `.13`, `1.2`, `11`, `0`, `∞`."""
    if isinf(value):
        return INFINITY if value > 0 else f"−{INFINITY}"
    if abs(value) >= LARGE:
        return f"{value:.1e}"
    return _to(value, _decimals(value))


def _decimals(value: float, most: int = 2) -> int:
    """Decimals that show two significant digits; none of what is 10 or more, and not more than `most`."""
    return 0 if value == 0 else min(max(1 - floor(log10(abs(value)) + 1e-9), 0), most)


def _to(value: float, decimals: int) -> str:
    text = f"{abs(value):.{decimals}f}"
    if float(text) == 0:
        return "0"
    text = text.removeprefix("0") if abs(value) < 1 and text.startswith("0.") else text
    return f"−{text}" if value < 0 else text


def spelled(value: float | None, low: float | None, high: float | None) -> str:
    """A number with its 95 % limits: `.13 .07–.34`, `11 ±2.2`, `0` where it is exact; a bound as `≥ .3`."""
    low, high = None if low == -inf else low, None if high == inf else high
    if value is None:
        known = [f"{sign} {two_digits(x)}" for sign, x in (("≥", low), ("≤", high)) if x is not None]
        return " ".join(known) or MISSING
    if isinf(value) or (low is None and high is None) or low == high == value:
        return two_digits(value)
    if low is None or high is None:
        return f"{two_digits(value)} {'≥ ' + two_digits(low) if low is not None else '≤ ' + two_digits(high or inf)}"
    half = (high - low) / 2
    if abs(value) >= 10 and abs(high + low - 2 * value) <= 2 * SYMMETRIC * half:
        return f"{two_digits(value)} ±{two_digits(half)}"
    decimals = _decimals(half, 2 if half >= SMALL else 3)
    return f"{_to(value, decimals)} {_to(low, decimals)}–{_to(high, decimals)}"


def percent(value: float | None, low: float | None, high: float | None) -> str:
    """A share with its limits in percent: `83 72–90`; a decimal where the interval is narrower than 2 %."""
    if value is None or low is None or high is None:
        return spelled(*(None if x is None else 100 * x for x in (value, low, high)))
    decimals = 0 if high - low >= 0.02 else 1
    told = [f"{100 * x:.{decimals}f}".removesuffix(".0") for x in (value, low, high)]
    return told[0] if low == high else f"{told[0]} {told[1]}–{told[2]}"


def _cell(line: Line, key: str, in_percent: bool = False) -> str:
    """A record as printed; `≥` and `≤` where cells hold several values, what a law keeps of p where it is ∞ away."""
    record = line.records.get(key)
    if record is None:
        return MISSING
    value, low, high = (number(record.get(name)) for name in ("value", "ci_low", "ci_high"))
    text = (percent if in_percent else spelled)(value, low, high)
    if value == inf and key == KL and (kept := line.value(KEPT)) is not None:
        return f"{text} keeps {two_digits(100 * kept)} %"
    note = str(record.get("note", ""))
    if value is not None and not isinf(value) and AT_LEAST in note:
        return f"≥ {two_digits(max(low or 0.0, 0.0))}"
    if value is not None and not isinf(value) and AT_MOST in note:
        return MISSING if high is None else f"≤ {two_digits(high)}"
    return text


def gap_of(line: Line) -> str:
    """The asked gap of a line without its limits, unless these are all that is known."""
    text = _cell(line, ASKED)
    return text if text[:1] in ("≥", "≤", MISSING) else text.split(" ")[0]


# --- columns ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Column:
    key: str
    heading: Heading
    percent: bool = False
    plain: bool = False  # without limits


def _columns(lines: Sequence[Line]) -> list[_Column]:
    """What a terminal shows, as far as some row has it; not more of what was asked than fits."""
    asked = [column for line in lines for column in _asked(line)]
    parts = {ASKED: "asked gap", COLLATERAL: "+ collateral", KL: "= KL(p‖π)"}
    there = [key for key in parts if any(_says(line, key) for line in lines)]
    heads = {key: name if len(there) == len(parts) else name.strip("+= ") for key, name in parts.items()}
    found = [
        *(_Column(key, Heading(heads[key], "nats a draw ↓, 0 = p" if key == there[0] else "")) for key in there),
        *{column.key: replace(column, heading=_towards(lines, column)) for column in asked}.values(),
        _Column(PERPLEXITY, Heading("ppl", _goal(lines, PERPLEXITY)), plain=True),
        _Column(CALLS, Heading("calls", "a draw"), plain=True),
    ]  # fmt: skip
    return [column for column in found if any(_says(line, column.key) for line in lines)]


def _asked(line: Line) -> list[_Column]:
    """The columns of what the target asks: shares in percent, means as they are."""
    found = []
    for key, record in line.records.items():
        kind, _, name = key.removeprefix("satisfaction.").partition(".")
        if not key.startswith("satisfaction.") or kind not in ("always", "share", "moment", "reward"):
            continue
        want = next((n.removeprefix("wanted ") for n in notes_of(record) if n.startswith("wanted ")), "")
        if kind == "always":
            name = want if want and " and " not in want else "all kept"
            found.append(_Column(key, Heading(f"{name} %", "want 100"), percent=True))
        elif kind == "share":
            found.append(_Column(key, Heading(f"{name.partition('.')[2]} %", _want(want, 100)), percent=True))
        else:
            found.append(_Column(key, Heading(name, _want(want, 1))))
    shares = [column for column in found if column.percent and column.heading.below != "want 100"]
    return [column for column in found if len(shares) != 2 or column is not shares[1]]  # the other's complement


def _want(want: str, factor: float) -> str:
    try:
        return f"want {two_digits(factor * float(want))}"
    except ValueError:
        return ""


def _towards(lines: Sequence[Line], column: _Column) -> Heading:
    """The heading of what was asked, with p's own number where none was wanted."""
    return column.heading if column.heading.below else Heading(column.heading.name, _goal(lines, column.key))


def _goal(lines: Sequence[Line], key: str) -> str:
    goal = goal_of(lines, key)
    return "" if goal is None else f"p {two_digits(goal)}"


def _says(line: Line, key: str) -> bool:
    record = line.records.get(key)
    return record is not None and any(number(record.get(x)) is not None for x in ("value", "ci_low", "ci_high"))


# --- the whole --------------------------------------------------------------------------------------------------------


def brief(lines: Sequence[Line], found: Sequence[Verdict], title: str) -> Brief:
    """What a terminal shows of the lines of a table, which are in order; p's own numbers are in the headings."""
    columns = _columns(lines)
    rows = [_row(line, v, columns) for line, v in zip(lines, found, strict=True) if line.mark != "ceiling"]
    return Brief(
        title, conclusion(lines, found), tuple(column.heading for column in columns), tuple(rows),
        tuple(_notes(lines, found)[:NOTES]), _truth(lines),
    )  # fmt: skip


def _row(line: Line, verdict: Verdict, columns: Sequence[_Column]) -> BriefRow:
    base = line.is_base
    cells = tuple(_plain(line, c.key) if c.plain else _cell(line, c.key, c.percent) for c in columns)
    label = "base" if base and "base" in line.remarks else line.label  # else the user has a name for it
    return BriefRow(label, verdict.word, cells, base)


def _plain(line: Line, key: str) -> str:
    value = line.value(key)
    return MISSING if value is None else two_digits(value)


def _notes(lines: Sequence[Line], found: Sequence[Verdict]) -> list[str]:
    """The notes that change how the numbers are read: what is not told, bounds, and what could be seen."""
    notes = [f"No verdicts: {NOT_TOLD}."] if not_told(lines) else []
    said = {text for line in lines for key in (ASKED, COLLATERAL) if key in line.records
            for text in notes_of(line.records[key])}  # fmt: skip
    if AT_LEAST in said or AT_MOST in said:
        notes.append("≥, ≤: by cells that hold several values of what is asked.")
    lam = next((note for line in lines if KL in line.records for note in notes_of(line.records[KL]) if LAM in note), "")
    notes += [f"{lam[0].upper()}{lam[1:]}, whose error is in no interval."] if lam else []
    why = Counter(v.more for v in found if v.word == "—" and v.more not in ("", NOT_TOLD, NO_BASE))
    if why:
        reason, count = why.most_common(1)[0]
        of_it = [line for line, v in zip(lines, found, strict=True) if v.more == reason]
        notes.append(f"— vs base ({count}): {reason}.{_remedy(reason, of_it[0].who[DRAWS])}")
    widths = [w for line in lines if not line.is_base and line.mark != "ceiling" and (w := _half(line)) is not None]
    draws = _draws(line for line in lines if line.is_base or _half(line) is not None)
    if widths and draws:
        seen = two_digits(median(widths))
        notes.append(f"{draws} draws a prompt: differences in KL from the base are known to ± {seen} nats (median).")
    return notes


def _draws(lines: Iterable[Line]) -> str:
    """How many draws a prompt rows have: `64`, or `40–64` where not all have as many."""
    known = sorted({int(float(line.who[DRAWS])) for line in lines if line.who[DRAWS]})
    return "–".join(map(str, dict.fromkeys((known[0], known[-1])))) if known else ""


def _remedy(reason: str, draws: str) -> str:
    """What to do about a cell without a number: a power of 2 of draws that its gate takes; "" where none would do."""
    if told := re.search(r"needs (\d+) (?:base )?draws a prompt", reason):
        return f" --draws {told[1]} would do; stored draws are kept."
    counts = re.match(r"([\d.]+) (?:base )?draws .*?([\d.]+) are needed", reason)
    if counts and draws and float(counts[1]) > 0:
        enough = 1.25 * int(draws) * float(counts[2]) / float(counts[1])  # chance may have been kind to the first
        return f" --draws {2 ** ceil(log2(enough))} would do; stored draws are kept."
    return " More --draws would do; stored draws are kept." if re.search(r"need|too few|fewer than", reason) else ""


def _half(line: Line) -> float | None:
    """Half the width of the interval of the difference to the base; None where there is none."""
    record = line.records.get(VS_BASE)
    known = record is not None and number(record.get("value")) is not None
    ends = None if record is None or not known else (number(record.get("ci_low")), number(record.get("ci_high")))
    if ends is None or ends[0] is None or ends[1] is None or not isfinite(ends[1] - ends[0]) or ends[0] == ends[1]:
        return None
    return (ends[1] - ends[0]) / 2


def _truth(lines: Sequence[Line]) -> str:
    """Of a world whose truth is known: how many intervals hold it; "" of others."""
    held, all_of_them = 0, 0
    for line in lines:
        for record in line.records.values():
            exact, low, high = (number(record.get(name)) for name in ("exact", "ci_low", "ci_high"))
            one_sided = any(note in str(record.get("note", "")) for note in (AT_LEAST, AT_MOST))
            if exact is not None and low is not None and high is not None and low < high and not one_sided:
                all_of_them += 1
                held += low <= exact <= high
    return f"{held} of {all_of_them} intervals hold the truth" if all_of_them else ""


def title_of(lines: Sequence[Line], heading: str, base: str) -> str:
    """Task, base, and how much was drawn."""
    signatures = [parts_of(str(r["signature"])) for line in lines for r in line.records.values()]
    prompts = next((s["prompts"] for s in signatures if "prompts" in s), "")
    draws = _draws(lines)
    size = f"{prompts} prompt{'s' * (prompts != '1')} × {draws} draws" if prompts and draws else ""
    every = (number(r.get("seeds")) for line in lines for r in line.records.values())
    seeds = next((count for count in every if count is not None), None)
    return " · ".join(filter(None, (heading, base, size, "" if seeds is None else f"mean of {seeds:.0f} seeds")))


# --- the conclusion ---------------------------------------------------------------------------------------------------


def conclusion(lines: Sequence[Line], found: Sequence[Verdict]) -> str:
    """What the table means, from printed numbers and verdicts alone: a word that is not shown is not said."""
    base = next((line for line in lines if line.is_base), None)
    if not_told(lines):
        return "The target is not told from the base: no verdicts."
    if base is None:
        return "There is no row of the base to compare with."
    told = ((line, v.word) for line, v in zip(lines, found, strict=True) if v.word)
    rows = sorted(told, key=lambda row: _far(row[0]))
    if not rows:
        return ""
    exact = [line for line, word in rows if word in ("better", "—") and _is_exact(line)]
    better = [line for line, word in rows if word == "better" and not _is_exact(line)]
    told_of = {word: [line for line, said in rows if said == word] for word in WORDS}
    none = [] if better or exact else [_none_better([word for _, word in rows])]
    sentences = [
        *_near(base), *_best(better, base), *_cheap(better, base), *_exactly(exact, base), *none,
        *_nearer_alone(told_of["asked only"]), *_trades(told_of["trade"], base), *_worse(told_of["worse"]),
    ]  # fmt: skip
    return " ".join(sentences)


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
    also = f" ({', '.join(tied[:3])}{' and more' * (len(tied) > 3)}: not told from it)" if tied else ""
    told = filter(None, (_asked_for(first, base), _kl(first, base), _cost(first, base)))
    return [f"{first.label}{also}: {', '.join(told)}."]


def _overlap(first: Line, other: Line) -> bool:
    """Whether the intervals of two rows' KL touch: a tie that is said, where paired differences would tell more."""
    mine, theirs = (line.records.get(KL, {}) for line in (first, other))
    ends = [(number(r.get("ci_low")), number(r.get("ci_high"))) for r in (mine, theirs)]
    (low, high), (least, most) = [(-inf if a is None else a, inf if b is None else b) for a, b in ends]
    return low <= most and least <= high


def _cheap(better: Sequence[Line], base: Line) -> list[str]:
    """The best row at no more than `CHEAP` times the base's calls, where the best costs more."""
    calls = base.value(CALLS)
    if not better or not calls or (better[0].value(CALLS) or inf) <= CHEAP * calls:
        return []
    some = [line for line in better[1:] if (line.value(CALLS) or inf) <= CHEAP * calls]
    return [f"At up to {CHEAP:g}× the base's calls: {some[0].label}, {_kl(some[0], base)}."] if some else []


def _exactly(exact: Sequence[Line], base: Line) -> list[str]:
    named = [", ".join(filter(None, (line.label, _proviso(line), _cost(line, base)))) for line in exact[:2]]
    return [f"Exactly p: {'; '.join(named)}."] if named else []


def _proviso(line: Line) -> str:
    note = str(line.records[KL].get("note", ""))
    return "if its proposal reaches all of p" if "provided" in note else ""


def _trades(trades: Sequence[Line], base: Line) -> list[str]:
    """What was asked is nearer, at a price."""
    return [f"{line.label}: {_trade(line, base)}." for line in trades[:2]]


def _trade(line: Line, base: Line) -> str:
    asked = _asked_for(line, base) or f"asked gap {_point(line, ASKED)} (base {_point(base, ASKED)})"
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
    for column in _asked(line):
        mine, theirs = line.value(column.key), base.value(column.key)
        if mine is not None and theirs is not None:
            told = [f"{100 * x:.0f} %" if column.percent else two_digits(x) for x in (mine, theirs)]
            return f"{column.heading.name.removesuffix(' %')} {told[0]} (base {told[1]})"
    return ""


def _kl(line: Line, base: Line) -> str:
    """KL of both; where one is not measured, how much nearer the row is."""
    if line.value(KL) is not None and base.value(KL) is not None:
        return f"KL {_point(line, KL)} (base {_point(base, KL)})"
    nearer = line.value(VS_BASE)
    return "" if nearer is None else f"{two_digits(abs(nearer))} nats nearer p than the base"


def _point(line: Line, key: str) -> str:
    """A number as the table prints it, without its limits; `<.01` where one that is not exact rounds to 0."""
    value, record = line.value(key), line.records.get(key, {})
    point = _cell(line, key).split(" ")[0] if value is not None else MISSING
    return "<.01" if point == "0" and (number(record.get("stderr")) or 0) > 0 and (value or 0) > 0 else point


def _cost(line: Line, base: Line) -> str:
    mine, theirs = line.value(CALLS), base.value(CALLS)
    return f"{two_digits(mine / theirs)}× the calls" if mine and theirs else ""
