"""Cost: what it took to get the draws."""

from __future__ import annotations

from dataclasses import asdict
from math import inf

import numpy as np

from alignbench.registry import metric
from alignbench.stats.intervals import Z95, mean_over_prompts, mover, spread_or_none, until
from alignbench.stats.jackknife import strata
from alignbench.types import Cost, Estimate, Evidence

ONCE = "measured once: no interval"
PROCESS = "the process's high-water mark so far"  # it never falls: an earlier generator may have set it
TRAINING = ("seconds", "drawn", "scored", "trained", "steps", "peak_memory_mb")


@metric(
    needs={"own", "proposals"},
    better={"rate": "higher", "proposals_per_draw": "lower"},
    range={"rate": (0, 1), "proposals_per_draw": (0, inf)},
    parts=("rate", "proposals_per_draw"),
)
def acceptance(evidence: Evidence) -> dict[str, Estimate]:
    """Draws kept per proposal (rate, mean over prompts) and proposals per kept draw.

    Proposals until a draw is kept are negative binomial: exact limits for each prompt, combined by MOVER.
    """
    assert evidence.proposed is not None
    prompt, proposals, kept = evidence.proposed.T
    rows_of = [rows for rows, _ in strata(prompt)]
    table = [until(float(kept[i].sum()), float(proposals[i].sum()), bool(kept[i].all())) for i in rows_of]
    values, lows, highs = np.array(table).T
    low, high = mover(values, lows, highs)
    rate = Estimate(float(values.mean()), (high - low) / 2 / Z95, low, high, n=len(prompt))
    own = evidence.own.draws
    per_draw = mean_over_prompts(own.prompt, np.asarray(own.proposals, float), own.group)
    return {"rate": rate, "proposals_per_draw": spread_or_none(per_draw)}


@metric(
    range=(0, inf),
    better={
        "tokens_per_second": "higher",
        "proposals_per_draw": "lower",
        "seconds": "lower",
        "peak_memory_mb": "lower",
        "tokens_per_draw": "lower",
        "calls_per_draw": "lower",
        **{f"training_{name}": "lower" for name in TRAINING},
    },
)
def cost(evidence: Evidence) -> dict[str, Estimate]:
    """Wall seconds, tokens per second and per kept draw, model calls and proposals per kept draw, peak memory in MB.

    A model call is one next-token distribution of one row: decoding a token is one, scoring a draw of T tokens under
    another model T. A MB is 10⁶ bytes. Of a generator that was trained also what was booked of that: seconds, tokens
    drawn, scored and trained on, steps, peak memory; none of it is in the other parts.
    """
    spent = evidence.cost
    seconds, kept = spent.seconds, spent.kept
    each = {
        "tokens_per_draw": _once(spent.tokens / kept if kept and spent.tokens else None, "no draw was counted"),
        "calls_per_draw": _once(spent.calls / kept if kept and spent.calls else None, "no call was counted"),
        "proposals_per_draw": _once(spent.proposals / kept if kept and spent.proposals else None, "no proposals"),
    }
    besides = f"not counted: {spent.uncounted}" if spent.uncounted else ""
    return {
        "seconds": _once(seconds, "no draw was timed"),
        "tokens_per_second": _once(spent.tokens / seconds if seconds else None, "no draw was timed"),
        **{part: e.noted(besides) for part, e in each.items()},
        "peak_memory_mb": _peak(spent.peak_bytes, spent.device),
        **{f"training_{name}": estimate for name, estimate in _trained(spent).items()},
    }


def _trained(spent: Cost) -> dict[str, Estimate]:
    """What was booked of training, by the names in `TRAINING`."""
    if spent.training is None:
        return {}
    booked = asdict(spent.training)
    peak = booked.pop("peak_bytes")
    found = {name: _once(value, "") for name, value in booked.items() if value}
    return found | ({"peak_memory_mb": _peak(peak, spent.device)} if peak else {})


def _peak(peak_bytes: int | None, device: str) -> Estimate:
    """A high-water mark in MB."""
    if peak_bytes is None:
        return Estimate.missing("not measured")
    found = _once(peak_bytes / 1e6, "")
    return found if device.startswith("cuda") else found.noted(PROCESS)


def _once(value: float | None, absent: str) -> Estimate:
    return Estimate.missing(absent) if value is None else Estimate(float(value), n=1, note=ONCE)
