"""Rows of a results table in pairs: which may be compared, and by how much they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf, isinf
from typing import Any

import numpy as np
import pandas as pd

from alignbench.metrics.replicates import replicates_of
from alignbench.reports.rows import parts_of
from alignbench.stats.intervals import normal
from alignbench.stats.ranks import SAME, Numbers, jackknife_error
from alignbench.types import Estimate

Record = Mapping[str, Any]
SHARED = {
    "task_hash": "another task", "base_id": "another base", "judge": "another judge", "target_id": "another λ",
    "seed": "another seed", "seeds": "other seeds", "draws": "another number of draws",
    "ci_over": "intervals of another kind",
}  # fmt: skip
"""What two rows must have in common to be paired, and what is said where they do not."""
APART = ("task_hash", "base_id", "judge")
"""What they must have in common to be compared at all."""
NOT_PAIRED = "not paired"
"""Begins the note of a difference whose interval holds whatever the two rows share."""
STILL = "no interval: without any block of draws the difference is the same"


def difference(first: Record, second: Record) -> Estimate:
    """`first` − `second` in their unit, of two rows of one metric, with a 95 % interval by paired replicates.

    Student's t with G − 1 degrees of freedom. Where the rows cannot be paired the standard error is the sum of theirs,
    the most that it can be whatever they share, and the note begins with "not paired" and says why; it has the degrees
    of freedom of the row with fewer (`degrees`). Rows of another task, base or judge are not compared. A difference
    from ∞ is ∞ and has no interval; of two ∞ there is none.
    """
    unlike = _unlike(first, second, APART)
    if unlike:
        return Estimate.missing(f"not comparable: {unlike}")
    a, b = number(first.get("value")), number(second.get("value"))
    if a is None or b is None:
        return Estimate.missing(f"not measured for {'both' if a is b else 'the second' if b is None else 'the first'}")
    n = int(min(number(first.get("n")) or 0, number(second.get("n")) or 0))
    if isinf(a) or isinf(b):
        return Estimate.missing("∞ for both", n=n) if a == b else Estimate(a - b, n=n, note="∞ was seen")
    why = not_paired(first, second)
    errors = number(first.get("stderr")), number(second.get("stderr"))
    if not why:
        mine, theirs = replicates_of(first), replicates_of(second)
        assert mine is not None and theirs is not None
        error = float(jackknife_error(mine - theirs))
        if error <= SAME * max(1.0, abs(a), abs(b)) and errors != (0.0, 0.0):
            return Estimate(a - b, n=n, note=STILL)
        return normal(a - b, error**2, n=n, df=mine.size - 1)
    if errors[0] is None or errors[1] is None:
        return Estimate(a - b, n=n, note=f"{NOT_PAIRED} ({why}), and the error of one is not known: no interval")
    told = f"{NOT_PAIRED} ({why}): the interval holds whatever the two share"
    df = min(degrees(first), degrees(second))
    return normal(a - b, (errors[0] + errors[1]) ** 2, n=n, df=df, note=told)


def not_paired(first: Record, second: Record) -> str:
    """Why two rows cannot be paired; "" where they can."""
    unlike = _unlike(first, second, tuple(SHARED))
    if unlike:
        return unlike
    mine, theirs = replicates_of(first), replicates_of(second)
    if mine is None or theirs is None:
        return "no replicates"
    return "" if mine.size == theirs.size else "other blocks of draws"


def numbers(records: Sequence[Record | None], better: str) -> Numbers:
    """What rows of one metric of one table reached, for `stats.ranks`; None stands for a row without that metric.

    The rows that most others can be paired with keep their replicates.
    """
    told = [{} if r is None else r for r in records]
    found = [replicates_of(r) for r in told]
    sets: dict[tuple[Any, ...], list[int]] = {}
    for i, (record, values) in enumerate(zip(told, found, strict=True)):
        if values is not None:
            sets.setdefault((values.size, *(_told(record, name) for name in SHARED)), []).append(i)
    (count, *_), rows = max(sets.items(), key=lambda item: len(item[1]), default=((0,), []))
    table = np.full((len(told), count), np.nan)
    for i in rows:
        table[i] = found[i]
    value, error = ([np.nan if (x := number(r.get(name))) is None else x for r in told] for name in ("value", "stderr"))
    df = np.array([degrees(record) for record in told])
    return Numbers(np.array(value, float), table, np.array(error, float), better, df)


def degrees(record: Record) -> float:
    """Degrees of freedom of a row's own standard error: seeds less one of a mean, prompts less one over prompts."""
    counts = [number(record.get("seeds")), _prompts(record)]
    return min((count for count in counts if count is not None), default=inf) - 1


def _prompts(record: Record) -> int | None:
    """How many prompts, or blocks of them, an interval for prompts like these is over; None of another interval.

    2 where a row does not tell: there is no interval over fewer.
    """
    if _told(record, "ci_over") != "prompts_like_these":
        return None
    left, signed = replicates_of(record), parts_of(_told(record, "signature")).get("prompts", "")
    return left.size if left is not None else int(signed) if signed.isdecimal() else 2


def number(value: Any) -> float | None:
    """A cell of a results table as a number; None where it is empty."""
    return None if value is None or pd.isna(value) or value == "" else float(value)


def _unlike(first: Record, second: Record, names: Sequence[str]) -> str:
    """What tells the settings of two rows apart."""
    return ", ".join(SHARED[name] for name in names if _told(first, name) != _told(second, name))


def _told(record: Record, name: str) -> str:
    """What a row says of its setting; of the seeds of a mean, which they are."""
    if name == "seeds":
        return "".join(p for p in str(record.get("signature", "")).split("|") if p.startswith("seeds:"))
    value = record.get(name)
    return "" if value is None or pd.isna(value) else str(value)
