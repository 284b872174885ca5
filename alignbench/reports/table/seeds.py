"""Rows of several seeds: beside them the mean over the seeds, and how far these lie apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import exp, inf, isinf, isnan, sqrt
from typing import Any

import numpy as np
import pandas as pd

from alignbench.metrics import range_of
from alignbench.metrics.replicates import spelled
from alignbench.metrics.satisfaction import BIASED
from alignbench.reports.rows import tidy
from alignbench.reports.table.pairs import degrees
from alignbench.stats.intervals import folded, normal, on_logit_scale, spread_or_none, without_interval
from alignbench.types import Estimate

Record = Mapping[str, Any]
Span = tuple[float, float]
SETTING = ("task", "task_hash", "base_id", "base", "judge", "ci_over")
NUMBERS = ("value", "stderr", "ci_low", "ci_high", "n", "ess", "note")


def with_means(rows: pd.DataFrame) -> pd.DataFrame:
    """Tidy `rows` and a row for the mean over seeds of everything that was measured on more than one.

    Such a row has no `seed`; `seeds` counts them, `seed_sd` is the standard deviation between them, and its interval is
    Student's t with seeds − 1 degrees, on the log or logit scale where the metric's `range` asks for it: seeds share no
    draws, no reference draws and no λ, but their prompts, see `_mean_of`. Where all seeds gave the same number, the
    limits are the means of theirs. A mean of sizes of errors is biased up in each seed alike, which no spread shows:
    its lower limit is the mean of the seeds' own. Where a seed gave no number, or some but not all gave ∞, there is no
    mean and the note says so. Mean rows that are there already are made anew.
    """
    single = rows[rows["seeds"].isna()] if "seeds" in rows else rows
    if single["seed"].nunique() < 2:
        return single
    by_setting = single[single["seed"].notna()].groupby(list(SETTING), sort=False)
    means = [row for _, group in by_setting for row in _means_of(group)]
    return tidy(pd.concat([single, tidy(pd.DataFrame(means))], ignore_index=True)) if means else single


def _means_of(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of the means of all generators on one setting."""
    if rows["seed"].nunique() < 2:
        return []
    found: dict[tuple[str, ...], dict[int, list[Record]]] = {}
    for record in ({str(name): value for name, value in r.items()} for r in rows.to_dict("records")):
        found.setdefault(whose(record), {}).setdefault(int(record["seed"]), []).append(record)
    return [row for by_seed in found.values() if len(by_seed) > 1 for row in _means(by_seed)]


def whose(record: Record) -> tuple[str, ...]:
    """What tells the generators of a table apart, but for the seed: an aligner makes another one of each λ."""
    return (record["generator"], record["aligner"], str(record["draws"]),
            "" if record["aligner"] else record["generator_id"])  # fmt: skip


def key_of(record: Record) -> str:
    """`metric.part`, or the metric alone."""
    return ".".join(filter(None, (record["metric"], record["part"])))


def newest(records: Sequence[Record]) -> dict[str, Record]:
    """Key → record of the measurement that was made last (of those of one time, the one that comes last)."""
    order = list(dict.fromkeys((r["measured"], r["run_id"]) for r in records))
    last = max(reversed(order), key=lambda when: when[0])
    return {key_of(r): r for r in records if (r["measured"], r["run_id"]) == last}


def joined_targets(targets: Sequence[str]) -> dict[str, str]:
    """target_id → the name of all that differ from it by the seed alone, as the rows of means say."""
    families: dict[str, dict[str, None]] = {}
    for target in targets:
        ids = dict.fromkeys(target.split("+"))
        joined = {i: None for known in ids for i in families.get(known, {known: None})}
        families |= dict.fromkeys(joined, joined)
    names = {known: "+".join(family) for known, family in families.items()}
    return {target: names[target.partition("+")[0]] for target in targets}


def _means(by_seed: Mapping[int, Sequence[Record]]) -> list[dict[str, Any]]:
    """The rows of the means of one generator, from its records by seed."""
    latest = {seed: newest(by_seed[seed]) for seed in sorted(by_seed)}
    keys = dict.fromkeys(key for records in latest.values() for key in records)
    return [_mean({seed: records.get(key) for seed, records in latest.items()}) for key in keys]


def _mean(by_seed: Mapping[int, Record | None]) -> dict[str, Any]:
    """The row of one mean; None stands for a seed in which the number was not reported."""
    records = [r for r in by_seed.values() if r is not None]
    estimate, spread = _estimate(list(by_seed), list(by_seed.values()), _span(records[0]))
    exact = [_number(r["exact"]) for r in records]
    numbers = {name: getattr(estimate, name) for name in NUMBERS}
    return {
        **{name: _common(name, records) for name in ("run_id", "generator_id")},
        **{k: v for k, v in records[0].items() if k not in ("run_id", "generator_id")}, **numbers,
        "target_id": "+".join(dict.fromkeys(r["target_id"] for r in records)),
        "seed": None, "seeds": len(by_seed), "seed_sd": spread, "signature": _signature(list(by_seed), records),
        "measured": max(r["measured"] for r in records), "seconds": sum(r["seconds"] for r in records),
        "exact": None if None in exact else float(np.mean(np.array(exact, dtype=float))),
        "replicates": "" if estimate.value is None else _replicates(records),
    }  # fmt: skip


def _replicates(records: Sequence[Record]) -> str:
    """The mean without each seed; "" where some value is infinite.

    Differences of two means are then paired by seed, Student's t with seeds − 1 degrees of freedom as the means' own
    intervals: blocks of draws would know nothing of how λ and training differ between seeds. For prompts like these
    there are none: they would know nothing of how other prompts differ.
    """
    if _like_these(records):
        return ""
    values = np.array([_number(r["value"]) for r in records], float)
    return spelled((values.sum() - values) / (values.size - 1)) if np.isfinite(values).all() else ""


def _common(name: str, records: Sequence[Record]) -> str:
    return records[0][name] if all(r[name] == records[0][name] for r in records) else ""


def _signature(seeds: Sequence[int], records: Sequence[Record]) -> str:
    """The parts that all seeds share, and the seeds; λ is not among them where it was fitted to each."""
    parts = [r["signature"].split("|") for r in records]
    kept = [p for p in parts[0] if p.startswith("seed:") or all(p in other for other in parts)]
    told = "seeds:" + ",".join(map(str, seeds))
    return "|".join(told if p.startswith("seed:") else p for p in kept)


def _estimate(seeds: Sequence[int], records: Sequence[Record | None], span: Span) -> tuple[Estimate, float | None]:
    """The mean of independent values, one a seed, with Student's t; and their standard deviation, divisor seeds − 1."""
    count = len(seeds)
    n = int(sum(_number(r["n"]) or 0 for r in records if r is not None))
    found = [None if r is None else _number(r["value"]) for r in records]
    values = [v for v in found if v is not None]
    infinite = [v for v in values if isinf(v)]
    if len(values) < count or 0 < len(infinite) < count or len(set(infinite)) > 1:
        return Estimate(None, n=n, note=f"no mean over {count} seeds: {_why_not(records, len(infinite))}"), None
    if infinite:
        return Estimate(infinite[0], n=n, note=f"the same in each of {count} seeds").noted(_notes(records)), None
    return _of_seeds(seeds, [r for r in records if r is not None], span)


def _of_seeds(seeds: Sequence[int], records: Sequence[Record], span: Span) -> tuple[Estimate, float]:
    """The same where each seed has a finite number."""
    mean, spread = _mean_of(records)
    if {r["stderr"] for r in records} != {0.0}:  # else exact in each, and so is the mean
        mean = spread_or_none(mean, "the seeds do not differ")
    how = f"interval by Student's t over them{' and over prompts' if _like_these(records) else ''}"
    how = how if mean.stderr else ""
    mean = _within(mean, span) if mean.stderr or spread else _alike(mean, records)
    if mean.stderr and all(BIASED in str(r["note"]) for r in records):
        mean = _biased(mean, [_number(r["ci_low"]) for r in records])
        how = f"{how}, but for the lower limit, the mean of theirs" if mean.stderr else ""
    told = "; ".join(filter(None, (f"mean of {len(seeds)} seeds ({', '.join(map(str, seeds))})", how, mean.note)))
    return replace(mean, note=told).noted(_notes(records)), spread


def _mean_of(records: Sequence[Record]) -> tuple[Estimate, float]:
    """The mean over seeds by Student's t, and the standard deviation between them, divisor seeds − 1.

    Seeds share their prompts, so that their spread knows nothing of other prompts. For prompts like these the variance
    over prompts is added, at the most that it can be whatever seeds share: the square of their mean standard error.
    """
    count, values = len(records), [float(r["value"]) for r in records]
    n, spread = int(sum(_number(r["n"]) or 0 for r in records)), float(np.std(values, ddof=1))
    mean = normal(float(np.mean(values)), (spread / sqrt(count)) ** 2, n=n, df=count - 1)
    if not _like_these(records):
        return mean, spread
    errors = [error for r in records if (error := _number(r["stderr"])) is not None]
    if len(errors) < count:
        return without_interval(mean, "no interval: some seed has none over its prompts"), spread
    df = min(count - 1, *map(degrees, records))
    variance = (spread / sqrt(count)) ** 2 + float(np.mean(errors)) ** 2
    return normal(float(np.mean(values)), variance, n=n, df=df), spread


def _like_these(records: Sequence[Record]) -> bool:
    return bool(records[0]["ci_over"] == "prompts_like_these")


def _span(record: Record) -> Span:
    """What the number of a row cannot lie outside; infinite where nothing is declared."""
    return range_of(record["metric"], record["part"]) or (-inf, inf)


def _within(mean: Estimate, span: Span) -> Estimate:
    """The same with limits inside the span, which begins at 0: Student's t over a few seeds would leave it."""
    (low, high), value, upper = span, mean.value, mean.ci_high
    if isinf(low) or value is None or upper is None:
        return mean
    if not low < value < high:
        return folded(mean, high)
    if not isinf(high):
        return on_logit_scale(mean, high)
    factor = exp((upper - value) / value)
    return replace(mean, ci_low=value / factor, ci_high=value * factor)


def _alike(mean: Estimate, records: Sequence[Record]) -> Estimate:
    """The mean of equal numbers with the means of the seeds' limits, where each seed has both."""
    limits = [(_number(r["ci_low"]), _number(r["ci_high"])) for r in records]
    lows, highs = ([x for x in side if x is not None] for side in zip(*limits, strict=True))
    if mean.stderr == 0.0 or len(lows) < len(records) or len(highs) < len(records):
        return mean
    told = replace(mean, ci_low=float(np.mean(lows)), ci_high=float(np.mean(highs)))
    return replace(told, note="the seeds do not differ: limits are the means of theirs")


def _biased(mean: Estimate, lows: Sequence[float | None]) -> Estimate:
    """The mean of sizes of errors with the mean of the seeds' lower limits; without an interval where some has none."""
    known = [low for low in lows if low is not None]
    if len(known) < len(lows):
        return without_interval(mean, "no interval: some seed has none, and a mean of sizes is biased up in each")
    return replace(mean, ci_low=float(np.mean(known)))


def _why_not(records: Sequence[Record | None], infinite: int) -> str:
    """In how many seeds there was ∞, only a bound, or nothing, with the first reason for that."""
    absent = [r for r in records if r is not None and _number(r["value"]) is None]
    bounds = [r for r in absent if _number(r["ci_low"]) is not None or _number(r["ci_high"]) is not None]
    empty = [str(r["note"]).replace("; ", ", ") or "no reason was given" for r in absent if r not in bounds]
    unreported = sum(r is None for r in records)
    said = {
        f"∞ in {infinite}": infinite, f"a bound alone in {len(bounds)}": len(bounds),
        f"missing in {len(empty)} ({empty[0] if empty else ''})": len(empty),
        f"not reported in {unreported}": unreported,
    }  # fmt: skip
    return ", ".join(text for text, many in said.items() if many)


def _notes(records: Sequence[Record | None]) -> str:
    """The parts of notes that all seeds have, and whether some have others; why a seed has no interval is its own."""
    parts = [[p for p in str(r["note"]).split("; ") if p and "no interval" not in p] for r in records if r is not None]
    shared = [p for p in parts[0] if all(p in other for other in parts)]
    more = ["notes differ by seed: see their rows"] if any(len(p) > len(shared) for p in parts) else []
    return "; ".join(shared + more)


def _number(value: Any) -> float | None:
    return None if value is None or pd.isna(value) or isnan(value) else float(value)
