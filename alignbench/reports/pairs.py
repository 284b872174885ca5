"""Rows of a results table in pairs: which may be compared, and by how much they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isinf
from typing import Any

import numpy as np

from alignbench.stats.intervals import normal
from alignbench.stats.ranks import Numbers, jackknife_error
from alignbench.types import Array, Estimate

Record = Mapping[str, Any]
SHARED = {
    "task_hash": "another task", "base_id": "another base", "judge": "another judge", "target_id": "another λ",
    "seed": "another seed", "draws": "another number of draws", "ci_over": "intervals of another kind",
}  # fmt: skip
"""What two rows must have in common to be paired, and what is said where they do not."""
APART = ("task_hash", "base_id", "judge")
"""What they must have in common to be compared at all."""
NOT_PAIRED = "not paired"
"""Begins the note of a difference whose interval holds whatever the two rows share."""


def replicates_of(record: Record) -> Array | None:
    """(G,) the number of a row with each block of draws left out; None where it has none."""
    words = record.get("replicates")
    return np.array(words.split(), float) if isinstance(words, str) and words.strip() else None


def difference(first: Record, second: Record) -> Estimate:
    """`first` − `second` in their unit, of two rows of one metric, with a 95 % interval by paired replicates.

    Student's t with G − 1 degrees of freedom. Where the rows cannot be paired the standard error is the sum of theirs,
    the most that it can be whatever they share, and the note begins with "not paired" and says why. Rows of another
    task, base or judge are not compared. A difference from ∞ is ∞ and has no interval; of two ∞ there is none.
    """
    unlike = [why for name, why in SHARED.items() if name in APART and not _same(first.get(name), second.get(name))]
    if unlike:
        return Estimate.missing(f"not comparable: {', '.join(unlike)}")
    a, b = number(first.get("value")), number(second.get("value"))
    if a is None or b is None:
        return Estimate.missing(
            "not measured for " + ("both" if a is b else "the first" if a is None else "the second")
        )
    n = int(min(number(first.get("n")) or 0, number(second.get("n")) or 0))
    if isinf(a) or isinf(b):
        return Estimate.missing("∞ for both", n=n) if a == b else Estimate(a - b, n=n, note="∞ was seen")
    why = not_paired(first, second)
    if not why:
        mine, theirs = replicates_of(first), replicates_of(second)
        assert mine is not None and theirs is not None
        error = float(jackknife_error(mine - theirs))
        return normal(a - b, error**2, n=n, df=mine.size - 1)
    errors = number(first.get("stderr")), number(second.get("stderr"))
    if None in errors:
        return Estimate(a - b, n=n, note=f"{NOT_PAIRED} ({why}), and the error of one is not known: no interval")
    told = f"{NOT_PAIRED} ({why}): the interval holds whatever the two share"
    return normal(a - b, (errors[0] + errors[1]) ** 2, n=n, note=told)  # type: ignore[operator]


def not_paired(first: Record, second: Record) -> str:
    """Why two rows cannot be paired; "" where they can."""
    unlike = [why for name, why in SHARED.items() if not _same(first.get(name), second.get(name))]
    if unlike:
        return ", ".join(unlike)
    mine, theirs = replicates_of(first), replicates_of(second)
    if mine is None or theirs is None:
        return "no replicates"
    return "" if mine.size == theirs.size else "other blocks of draws"


def numbers(records: Sequence[Record | None], better: str) -> Numbers:
    """What rows of one metric of one table reached, for `stats.ranks`; None stands for a row without that metric.

    The rows that most others can be paired with keep their replicates.
    """
    told = [{} if r is None else r for r in records]
    sets: dict[tuple[Any, ...], list[int]] = {}
    for i, record in enumerate(told):
        found = replicates_of(record)
        if found is not None:
            sets.setdefault((found.size, *(str(record.get(name)) for name in SHARED)), []).append(i)
    rows = max(sets.values(), key=len, default=[])
    count = max((len(replicates_of(told[i])) for i in rows), default=0)  # type: ignore[arg-type]
    table = np.full((len(told), count), np.nan)
    for i in rows:
        table[i] = replicates_of(told[i])
    columns = [[np.nan if (x := number(r.get(name))) is None else x for r in told] for name in ("value", "stderr")]
    return Numbers(np.array(columns[0], float), table, np.array(columns[1], float), better)


def number(value: Any) -> float | None:
    """A cell of a results table as a number; None where it has none."""
    return None if value is None or value != value or value == "" else float(value)


def _same(first: Any, second: Any) -> bool:
    return str(first) == str(second)
