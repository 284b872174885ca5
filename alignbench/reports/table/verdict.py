"""Is a row nearer to the target than the base is? One word for each row, from differences that no luck explains.

Two numbers decide, both against the base: KL(p‖π) − KL(p‖a) = E_p[log a − log π], in which Ẑ cancels, and the same
difference of the asked gap, on the row's own cells. Their p-values are adjusted together over the rows of a table
(Holm), so that all words that claim a difference hold at once with 95 %.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, isinf
from typing import Literal

import numpy as np
from scipy.special import ndtr

from alignbench.reports.table.cells import RESIDUE
from alignbench.reports.table.lines import Line, Record
from alignbench.reports.table.pairs import difference, number
from alignbench.stats.compare import LEVEL, holm
from alignbench.stats.intervals import Z95
from alignbench.types import Estimate

Word = Literal["better", "trade", "same", "unclear", "worse", "asked only", "—", ""]
WORDS: Mapping[Word, str] = {
    "better": "KL(p‖π) is below the base's",
    "trade": "the asked gap is below the base's, KL(p‖π) is not shown to be",
    "same": "KL(p‖π) is within max(0.05, 10 %) of the base's (90 % interval)",
    "unclear": "neither is shown; the interval of the difference is that wide",
    "worse": "KL(p‖π) is above the base's, the asked gap not below",
    "asked only": "the asked gap is below the base's; there is no density for more",
    "—": "not known; a note says why",
}
"""Each word, and what it says."""
ORDER: Sequence[Word] = ("better", "trade", "same", "asked only", "unclear", "worse", "—", "")
KL, ASKED = "divergence.kl_target", "divergence.kl_asked"
VS_BASE, ASKED_VS_BASE = "divergence.kl_target_vs_base", "divergence.kl_asked_vs_base"
ALIKE, SHARE = 0.05, 0.1
"""A difference is small up to so many nats, or so much of the base's KL(p‖a)."""
Z90 = 1.6448536269514722
LEGEND = "vs base, all at once with 95 % (Holm; of bounds alone, where 95 % limits separate): {}."
TRUNCATES = "truncates"
"""In the note of a law, or of its proposal, that may leave out part of p."""
NOT_TOLD = "the target cannot be told from the base: the interval of λ holds 0"
NO_BASE = "no row of the base to compare with"
IF_NOTHING_LOST = "nearer p than the base if it leaves out nothing of p; none was seen that it does"
"""What there is to add to a trade whose KL(p‖π) is below the base's, of a law that truncates."""


@dataclass(frozen=True)
class Verdict:
    """One word on a row, and what there is to add: the width of what is unclear, or what to do about a `—`."""

    word: Word = ""
    more: str = ""

    def __str__(self) -> str:
        return f"{self.word} {self.more}".rstrip()


@dataclass(frozen=True)
class _Case:
    """What a row has to say for itself."""

    kl: Estimate  # KL(p‖π) − KL(p‖a)
    asked: Estimate  # the same of the asked gap
    truncates: bool
    separate: int  # −1, 1: bounds of KL(p‖π) lie below, above the base's interval; else 0
    why: str


def verdicts(lines: Sequence[Line]) -> list[Verdict]:
    """A verdict for each line of a table; "" for the base and draws of p."""
    base = next((line for line in lines if line.is_base), None)
    judged = [i for i, line in enumerate(lines) if not line.is_base and line.mark != "ceiling"]
    found = [Verdict() for _ in lines]
    if not_told(lines):
        for i in judged:
            found[i] = Verdict("—", NOT_TOLD)
        return found
    cases = [_case(lines[i], base) for i in judged]
    signs = _signs([e for case in cases for e in (case.kl, case.asked)])
    for place, case, kl, asked in zip(judged, cases, signs[::2], signs[1::2], strict=True):
        found[place] = _verdict(case, kl if case.kl.value is not None else case.separate, asked, _value(base, KL))
    return found


def legend(found: Sequence[Verdict]) -> list[str]:
    """What the words of a table mean."""
    said = [word for word in ORDER if word not in ("", "—") and any(v.word == word for v in found)]
    return [LEGEND.format("; ".join(f"{word}: {WORDS[word]}" for word in said))] if said else []


def not_told(lines: Sequence[Line]) -> bool:
    """Whether the target is moments alone and the interval of each λ holds 0: p may then be the base itself."""
    lam = next(filter(None, (_lam(line) for line in lines)), [])
    keys = {key for line in lines for key in line.records}
    asks_more = any(key == "satisfaction.always" or key.startswith("satisfaction.reward.") for key in keys)
    ends = [(number(r.get("ci_low")), number(r.get("ci_high"))) for r in lam]
    return (
        bool(lam)
        and not asks_more
        and all(low is not None and high is not None and low <= 0 <= high for low, high in ends)
    )


def _lam(line: Line) -> list[Record]:
    return [record for key, record in line.records.items() if key.startswith("target.lam.")]


def _case(line: Line, base: Line | None) -> _Case:
    kl, asked = (_told(line, key) for key in (VS_BASE, ASKED_VS_BASE))
    whole = line.records.get(KL)
    if (
        kl.value is None
        and VS_BASE not in line.records
        and whole is not None
        and base is not None
        and KL in base.records
    ):
        kl = difference(whole, base.records[KL])  # rows of before there was such a difference
    silent = whole is not None and number(whole.get("value")) is None
    own = str(whole.get("note", "")).partition("; ")[0] if whole is not None and silent else ""
    why = NO_BASE if base is None else own or kl.note.partition("; ")[0] or "not reported"
    truncates = whole is not None and TRUNCATES in str(whole.get("note", ""))
    return _Case(kl, asked, truncates, _beyond(kl) or _separate(line, base), why)


def _beyond(bounded: Estimate) -> int:
    """Where the limits of a difference without a value lie: −1 below 0, 1 above, else 0."""
    if bounded.value is not None:
        return 0
    if bounded.ci_high is not None and bounded.ci_high < 0:
        return -1
    return 1 if bounded.ci_low is not None and bounded.ci_low > 0 else 0


def _told(line: Line, key: str) -> Estimate:
    record = line.records.get(key)
    if record is None:
        return Estimate.missing("")
    value, stderr, low, high = (number(record.get(name)) for name in ("value", "stderr", "ci_low", "ci_high"))
    return Estimate(value, stderr, low, high, note=str(record.get("note", "")))


def _separate(line: Line, base: Line | None) -> int:
    """Where a bound of KL(p‖π) lies beyond the base's interval: −1 below it, 1 above it, else 0."""
    if base is None or KL not in line.records or KL not in base.records:
        return 0
    mine, theirs = line.records[KL], base.records[KL]
    if number(mine.get("value")) is not None:
        return 0
    low, high = number(mine.get("ci_low")), number(mine.get("ci_high"))
    least, most = number(theirs.get("ci_low")), number(theirs.get("ci_high"))
    if high is not None and least is not None and high < least:
        return -1
    return 1 if low is not None and most is not None and low > most else 0


def _signs(differences: Sequence[Estimate]) -> list[int]:
    """−1 or 1 for each difference that is below or above 0, all at once with 95 %; else 0. ∞ is above."""
    p = np.array([_p_value(e) for e in differences])
    known = np.flatnonzero(~np.isnan(p)).tolist()
    signs = [0] * len(differences)
    for k, adjusted in zip(known, holm(p[known]), strict=True):
        value = differences[k].value or 0.0
        signs[k] = int(np.sign(value)) if adjusted <= LEVEL else 0
    return signs


def _p_value(estimate: Estimate) -> float:
    """Two-sided, by the half width of the interval, which knows its degrees of freedom; NaN where nothing is known."""
    value, low, high = estimate.value, estimate.ci_low, estimate.ci_high
    if value is None or isinf(value):
        return np.nan if value is None else 0.0
    if low is None or high is None or not (isfinite(low) and isfinite(high)):
        return np.nan
    error = (value - low if value > 0 else high - value) / Z95  # of the side towards 0
    if error <= 0:
        return 1.0 if value == 0 else 0.0
    return float(2 * ndtr(-abs(value) / error))


def _verdict(case: _Case, kl: int, asked: int, of_base: float | None) -> Verdict:
    known = case.kl.value is not None or case.separate != 0
    if not known:
        if asked < 0:
            return Verdict("asked only")
        return Verdict("—", case.why) if case.asked.value is None else Verdict("unclear", _width(case.asked))
    if kl < 0 and not case.truncates:
        return Verdict("better")
    if asked < 0:
        return Verdict("trade", IF_NOTHING_LOST if kl < 0 else "")
    if kl > 0:
        return Verdict("worse")
    if _is_small(case.kl, of_base):
        return Verdict("same")
    return Verdict("unclear", _width(case.kl))


def _is_small(estimate: Estimate, of_base: float | None) -> bool:
    """Whether the 90 % interval of a difference is within what is small."""
    value, low, high = estimate.value, estimate.ci_low, estimate.ci_high
    if value is not None and (low is None or high is None):
        return abs(value) <= RESIDUE  # the same law: no reference draw tells the two apart
    if value is None or low is None or high is None or not isfinite(value):
        return False
    most = max(ALIKE, SHARE * of_base) if of_base is not None and isfinite(of_base) else ALIKE
    return -most <= value - (value - low) * Z90 / Z95 and value + (high - value) * Z90 / Z95 <= most


def _width(estimate: Estimate) -> str:
    """How wide the interval of an unclear difference is."""
    if estimate.ci_low is None or estimate.ci_high is None or not isfinite(estimate.ci_high - estimate.ci_low):
        return ""
    return f"± {(estimate.ci_high - estimate.ci_low) / 2:.2g}"


def _value(line: Line | None, key: str) -> float | None:
    return None if line is None else line.value(key)
