"""Cost: what it took to get the draws."""

from __future__ import annotations

import numpy as np

from alignbench.registry import metric
from alignbench.stats.intervals import mean_over_prompts, normal
from alignbench.stats.jackknife import jackknife, strata, unit_sums
from alignbench.types import Array, Estimate, Evidence

ONCE = "measured once: no interval"


@metric(
    needs={"own", "proposals"},
    better={"rate": "higher", "proposals_per_draw": "lower"},
    parts=("rate", "proposals_per_draw"),
)
def acceptance(evidence: Evidence) -> dict[str, Estimate]:
    """Draws kept per proposal (rate, mean over prompts of kept over proposed) and proposals per kept draw."""
    assert evidence.proposed is not None
    prompt, proposals, kept = evidence.proposed.T
    columns = np.stack([kept, proposals], axis=1).astype(float)
    pairs = [jackknife(unit_sums(columns[rows], unit), _first_over_second) for rows, unit in strata(prompt)]
    values, variances = np.array(pairs).T
    out = evidence.cost.exhausted
    note = f"{out} draws left out: their proposals ran out" if out else ""
    rate = normal(float(values.mean()), float(variances.sum()) / values.size**2, n=len(prompt), note=note)
    own = evidence.own.draws
    per_draw = mean_over_prompts(own.prompt, np.asarray(own.proposals, float), own.group).noted(note)
    return {"rate": rate, "proposals_per_draw": per_draw}


@metric(
    better={
        "tokens_per_second": "higher",
        "proposals_per_draw": "lower",
        "seconds": "lower",
        "peak_memory_mb": "lower",
        "tokens_per_draw": "lower",
    }
)
def cost(evidence: Evidence) -> dict[str, Estimate]:
    """Wall seconds, decoded tokens per second and per kept draw, proposals per kept draw, peak memory in MB (10⁶)."""
    spent = evidence.cost
    seconds, kept = spent.seconds, spent.kept
    return {
        "seconds": _once(seconds, "no draw was timed: all were already stored"),
        "tokens_per_second": _once(spent.tokens / seconds if seconds else None, "no draw was timed"),
        "tokens_per_draw": _once(spent.tokens / kept if kept and spent.tokens else None, "no draw was counted"),
        "proposals_per_draw": _once(spent.proposals / kept if kept and spent.proposals else None, "no proposals"),
        "peak_memory_mb": _once(None if spent.peak_bytes is None else spent.peak_bytes / 1e6, "not measured"),
    }


def _once(value: float | None, absent: str) -> Estimate:
    return Estimate.missing(absent) if value is None else Estimate(float(value), n=1, note=ONCE)


def _first_over_second(sums: Array) -> Array:
    return np.asarray(sums[..., 0] / sums[..., 1])
