"""Delete-a-block jackknife replicates: what any metric would say had some of the draws, shared ones too, not been made.

Two generators on one task, base, λ, seed and number of draws leave out the same reference draws and the same sample
numbers of their own: what both share (Ẑ, lucky references, uniforms) moves their replicates alike, so that differences
of replicates know the error of the difference, and two intervals side by side do not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from alignbench.errors import AlignbenchError
from alignbench.metrics import measure
from alignbench.metrics.asked import settled
from alignbench.metrics.prompts import left_out, picked
from alignbench.registry import metric
from alignbench.seeds import APART
from alignbench.types import Array, CiOver, Draws, Estimate, Evidence, Scored

BLOCKS = 20
"""Blocks at most: Student's t with 19 degrees of freedom is 7 % wider than the normal, at 20 times a metric's time."""
FEWEST = 8
"""Blocks of draws below which there are no replicates: of fewer, a variance is known to a factor of 1.7 at best.

Prompts, each a block, are as many as a task has: from 2 on, as for intervals over them (Student's t, C − 1 degrees)."""


@dataclass(frozen=True)
class Measured:
    """A metric, the parameters that it was asked with, and what it said of all draws."""

    name: str
    params: Mapping[str, Any]
    numbers: Mapping[str, Estimate]


def replicates(measured: Sequence[Measured], evidence: Evidence, ci_over: CiOver) -> list[dict[str, Array]]:
    """For each metric, part → (G,) the number with block g of the draws (or of the prompts, by `ci_over`) left out.

    Block g holds the draws, own, reference and proposal's, whose sample number (or group's rank) within its prompt is
    g modulo G. A part has none where it has no value with an interval, where a replicate cannot be measured, or where
    there are fewer than `FEWEST` blocks of draws or 2 prompts; no metric has any that is shown as a detail, carries λ's
    error (``at=asked``) or declares ``replicates=False``.
    The variance of a difference d is (G − 1)/G Σ (d_g − mean)². Source: Shao and Tu, The Jackknife and Bootstrap
    (1995), §2.3; Kott, The delete-a-group jackknife (2001).
    """
    found: list[dict[str, list[float]]] = [{part: [] for part in _varying(m)} for m in measured]
    whole = [i for i, m in enumerate(measured) if found[i] and "units" not in metric[m.name].meta]
    apart = [i for i in range(len(measured)) if found[i] and i not in whole]
    for members in (whole, *([i] for i in apart)):
        for rest in _rests(evidence, ci_over, measured[members[0]]) if members else ():
            for i in members:
                again = _again(measured[i], rest)
                for part, values in found[i].items():
                    values.append(again.get(part, np.nan))
    return [{part: np.array(v) for part, v in parts.items() if v and np.isfinite(v).all()} for parts in found]


def spelled(values: Iterable[float]) -> str:
    """Replicates as words of a results table, 8 digits each: rows read from CSV tie as those in memory do."""
    return " ".join(f"{value:.8g}" for value in values)


def replicates_of(row: Mapping[str, Any]) -> Array | None:
    """(G,) the replicates of a row of a results table; None where it has none."""
    words = row.get("replicates")
    return np.array(words.split(), float) if isinstance(words, str) and words.strip() else None


def _varying(told: Measured) -> list[str]:
    """The parts that have a finite value and an interval."""
    meta = metric[told.name].meta
    carried = told.params.get("at") == "asked"  # λ's own error, of which blocks of draws at the fitted λ know nothing
    if carried or meta.get("detail", False) or not meta.get("replicates", True):
        return []
    parts = told.numbers.items()
    return [p for p, e in parts if e.value is not None and np.isfinite(e.value) and None not in (e.ci_low, e.ci_high)]


def _again(told: Measured, rest: Evidence) -> dict[str, float]:
    """The values that the metric has on the rest of the draws; none where it fails there."""
    try:
        numbers = measure(told.name, rest, **told.params)
    except AlignbenchError:
        return {}
    return {part: e.value for part, e in numbers.items() if e.value is not None}


def _rests(evidence: Evidence, ci_over: CiOver, told: Measured) -> Iterator[Evidence]:
    """The evidence without each block, one after the other; nothing where the blocks are too few."""
    units = metric[told.name].meta.get("units")
    if ci_over == "prompts_like_these":
        evidence, prompts = settled(evidence), len(evidence.prompts)
        count = min(BLOCKS, prompts)
        yield from (left_out(evidence, *range(g, prompts, count)) for g in range(count if count > 1 else 0))
    elif units is not None:
        number, count = units(evidence, **told.params)
        own = _numbered(evidence.own.draws.prompt, number, min(count, BLOCKS))
        yield from () if own is None else (_less(evidence, own, g) for g in range(min(count, BLOCKS)))
    else:
        yield from _without_blocks(settled(evidence))


def _less(evidence: Evidence, own: Array, g: int) -> Evidence:
    return replace(evidence, own=picked(evidence.own, np.flatnonzero(own != g)))


def _without_blocks(evidence: Evidence) -> Iterator[Evidence]:
    """The evidence without each block of draws of every kind."""
    count = blocks_in(evidence)
    own, ref, proposal = (
        None if s is None else block_of(s, count) for s in (evidence.own, evidence.ref, evidence.proposal)
    )
    if own is None or ref is None or (proposal is None) != (evidence.proposal is None):
        return
    proposed = None if evidence.proposed is None else number_in_prompt(evidence.proposed[:, 0]) % count
    for g in range(count):
        yield replace(
            _less(evidence, own, g), ref=picked(evidence.ref, np.flatnonzero(ref != g)),
            proposal=evidence.proposal and picked(evidence.proposal, np.flatnonzero(proposal != g)),
            proposed=None if evidence.proposed is None else evidence.proposed[proposed != g],
        )  # fmt: skip


def blocks_in(evidence: Evidence) -> int:
    """How many blocks there are: as many as each prompt has reference draws of the base, at most `BLOCKS`."""
    drawn = np.bincount(evidence.ref.draws.prompt[evidence.ref.of_base], minlength=len(evidence.prompts))
    return min(BLOCKS, int(drawn.min(initial=BLOCKS)))


def block_of(scored: Scored, count: int) -> Array | None:
    """(B,) the block of each draw, 0 … count − 1, −1 for one that is never left out; None where they are too few.

    Copies of the one continuation of a point mass stay: they have no error, and there is none without them.
    """
    draws = scored.draws
    if scored.log_gen is not None and not scored.log_gen.any():
        return np.full(len(draws), -1)
    stratum = draws.prompt if scored.component is None else draws.prompt + scored.component * (draws.prompt.max() + 1)
    number = draws.index % APART if draws.group is None else _rank_of_group(draws, stratum)
    return _numbered(stratum, number, count)


def _numbered(stratum: Array, number: Array, count: int) -> Array | None:
    """(B,) `number` modulo `count`, −1 where it is below 0; None where some stratum has under `FEWEST` blocks."""
    if count < FEWEST:
        return None
    block = np.where(number < 0, -1, number % count)
    pairs = np.unique(np.stack([stratum, block], axis=1)[block >= 0], axis=0)
    met, blocks = np.unique(pairs[:, 0], return_counts=True)
    return block if met.size and met.size == np.unique(stratum).size and blocks.min() >= FEWEST else None


def _rank_of_group(draws: Draws, stratum: Array) -> Array:
    """(B,) the rank of each draw's group among those of its stratum."""
    assert draws.group is not None
    rank = np.zeros(len(draws), int)
    for s in np.unique(stratum):
        rows = stratum == s
        rank[rows] = np.unique(draws.group[rows], return_inverse=True)[1]
    return rank


def number_in_prompt(prompt: Array) -> Array:
    """(N,) how many rows of its prompt come before each row."""
    order = np.argsort(prompt, kind="stable")
    ranked = prompt[order]
    first = np.searchsorted(ranked, ranked)
    number = np.empty(prompt.size, int)
    number[order] = np.arange(prompt.size) - first
    return number
