"""The notes of a brief table: what changes how its numbers are read, and what would fill its empty cells."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from math import ceil, isfinite, log2
from statistics import median

from alignbench.reports.table.brief_columns import COLLATERAL
from alignbench.reports.table.cells import notes_of
from alignbench.reports.table.digits import two_digits
from alignbench.reports.table.lines import DRAWS, Line
from alignbench.reports.table.pairs import number
from alignbench.reports.table.verdict import ASKED, KL, NO_BASE, NOT_TOLD, VS_BASE, Verdict, not_told
from alignbench.stats.asked import AT_LEAST, AT_MOST

LAM = "fitted λ"


def notes_on(lines: Sequence[Line], found: Sequence[Verdict]) -> list[str]:
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
        notes.append(f"— vs base ({count}): {reason}.{remedy(reason, of_it[0].who[DRAWS])}")
    widths = [w for line in lines if not line.is_base and line.mark != "ceiling" and (w := _half(line)) is not None]
    draws = draws_of(line for line in lines if line.is_base or _half(line) is not None)
    if widths and draws:
        seen = two_digits(median(widths))
        notes.append(f"{draws} draws a prompt: differences in KL from the base are known to ± {seen} nats (median).")
    return notes


def draws_of(lines: Iterable[Line]) -> str:
    """How many draws a prompt rows have: `64`, or `40–64` where not all have as many."""
    known = sorted({int(float(line.who[DRAWS])) for line in lines if line.who[DRAWS]})
    return "–".join(map(str, dict.fromkeys((known[0], known[-1])))) if known else ""


def remedy(reason: str, draws: str) -> str:
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


def truth_of(lines: Sequence[Line]) -> str:
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
