"""Where two generators differ most: the prompts that moved, and draws of one prompt and sample number side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np

from alignbench.reports.compare.common_draws import aligned, of_prompts
from alignbench.stats.intervals import mean_over_prompts, spread_or_none
from alignbench.types import Array, Estimate, Evidence

MOST = 5  # prompts told
SHOWN = 3  # examples
LEVEL = 0.05


@dataclass(frozen=True)
class Shift:
    """What moved most on one prompt: the means over its draws, and their difference.

    `size` is in standard deviations of a draw of that prompt. The interval is at 1 − 0.05/`looked_at`, since the
    largest of so many were picked.
    """

    prompt: str
    quantity: str
    first: float
    other: float
    difference: Estimate  # other − first
    size: float
    looked_at: int


@dataclass(frozen=True)
class Example:
    """Two draws of one prompt and sample number; `changed` are the features that differ, as (first, other)."""

    prompt: str
    index: int
    first: str
    other: str
    changed: Mapping[str, tuple[Any, Any]]
    log_base: tuple[float, float] | None  # nats


def shifts(a: Evidence, b: Evidence) -> list[Shift]:
    """The prompts that moved most, each by the quantity that moved most on it; at most `MOST`.

    Looked at: what `common_draws.of_prompts` tells of each draw, on every prompt that has at least two draws of both.
    """
    mine, theirs = of_prompts(a), of_prompts(b)
    looked = [(c, name) for c in range(len(a.prompts)) for name in mine if name in theirs]
    found = [_shift(a, b, c, (name, mine[name], theirs[name]), len(looked)) for c, name in looked]
    ranked = sorted((s for s in found if s is not None and s.size), key=lambda s: -s.size)
    by_prompt: dict[str, Shift] = {}
    for shift in ranked:
        by_prompt.setdefault(shift.prompt, shift)
    return list(by_prompt.values())[:MOST]


def _shift(a: Evidence, b: Evidence, c: int, what: tuple[str, Array, Array], looked_at: int) -> Shift | None:
    name, mine, theirs = what
    x, y = mine[a.own.draws.prompt == c], theirs[b.own.draws.prompt == c]
    if min(x.size, y.size) < 2 or not (np.isfinite(x).all() and np.isfinite(y).all()):
        return None
    means = float(x.mean()), float(y.mean())
    spread = sqrt((float(x.var(ddof=1)) + float(y.var(ddof=1))) / 2)
    if not spread:
        return None
    level = 1 - LEVEL / looked_at
    difference = _difference(a, b, (x, y), a.own.draws.prompt == c, level)
    return Shift(a.prompts[c], name, *means, difference, abs(means[1] - means[0]) / spread, looked_at)


def _difference(a: Evidence, b: Evidence, values: tuple[Array, Array], here: Array, level: float) -> Estimate:
    """Paired by sample number where both have the same ones, each an independent draw; else without an interval."""
    x, y = values
    if not aligned(a, b) or a.own.draws.group is not None or b.own.draws.group is not None:
        value = float(y.mean()) - float(x.mean())
        return Estimate(value, n=min(x.size, y.size), note="no interval: draws cannot be paired one by one")
    return spread_or_none(mean_over_prompts(a.own.draws.prompt[here], y - x, level=level))


def examples(a: Evidence, b: Evidence) -> list[Example]:
    """The draws, one pair of a prompt, that differ in most features, then most in log a(x); at most `SHOWN`."""
    found: dict[str, tuple[tuple[int, float], Example]] = {}
    for example in _examples(a, b):
        gap = abs(example.log_base[1] - example.log_base[0]) if example.log_base else 0.0
        rank = (len(example.changed), gap if np.isfinite(gap) else 0.0)
        if example.first != example.other and (example.prompt not in found or rank > found[example.prompt][0]):
            found[example.prompt] = rank, example
    ranked = sorted(found.values(), key=lambda pair: pair[0], reverse=True)
    return [example for _, example in ranked[:SHOWN]]


def _examples(a: Evidence, b: Evidence) -> Iterator[Example]:
    x, y = a.own.draws, b.own.draws
    where = {(int(c), int(i)): row for row, (c, i) in enumerate(zip(y.prompt, y.index, strict=True))}
    logs = (a.own.log_base, b.own.log_base)
    for i, spot in enumerate(zip(x.prompt.tolist(), x.index.tolist(), strict=True)):
        if (j := where.get(spot)) is None:
            continue
        told = {name: (_word(a, name, i), _word(b, name, j)) for name in a.own.features if name in b.own.features}
        scores = None if logs[0] is None or logs[1] is None else (float(logs[0][i]), float(logs[1][j]))
        changed = {name: pair for name, pair in told.items() if pair[0] != pair[1]}
        yield Example(a.prompts[spot[0]], spot[1], x.texts[i], y.texts[j], changed, scores)


def _word(evidence: Evidence, name: str, row: int) -> Any:
    """The value of a feature for one draw; a category by its name."""
    value = np.asarray(evidence.own.features[name])[row].item()
    if name not in evidence.categories:
        return value
    return evidence.categories[name][int(value)] if value >= 0 else "none"
