"""The evidence that fewer draws would have given: what belongs to the first sample numbers of each prompt."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from alignbench.metrics.prompts import picked
from alignbench.metrics.replicates import number_in_prompt
from alignbench.scoring.cost import counted
from alignbench.scoring.fits import with_log_z
from alignbench.seeds import APART
from alignbench.types import Array, Cost, Evidence, Scored


def first_draws(evidence: Evidence, count: int) -> Evidence:
    """What would have been measured with `count` draws of each prompt, no more than there are.

    Sample numbers are counted from where those of each law begin: a mixture keeps `count` draws of each, so that its
    density is the same. log Ẑ is estimated anew. What other draws decided stays: λ, and that densities are not trusted.
    """
    kept = replace(
        evidence, own=_first(evidence.own, count), ref=_first(evidence.ref, count),
        proposal=None if evidence.proposal is None else _first(evidence.proposal, count),
        proposed=_asked_first(evidence.proposed, count),
    )  # fmt: skip
    fit = kept.fit if kept.fit.log_z is None else with_log_z(kept.fit, kept.ref)
    return replace(kept, fit=fit, cost=_cost(kept), rescoring=_rescoring(kept))


def _first(scored: Scored, count: int) -> Scored:
    """The draws of each law whose sample number is below `count`."""
    return picked(scored, np.flatnonzero(scored.draws.index % APART < count))


def _asked_first(proposed: Array | None, count: int) -> Array | None:
    """The first `count` rows of each prompt of (N, 3), which has a row for each draw that was asked for, in order."""
    return None if proposed is None else proposed[number_in_prompt(proposed[:, 0]) < count]


def _cost(evidence: Evidence) -> Cost:
    """Counts of the draws that are left; all 0, where nothing was drawn for it, as for draws of p.

    Seconds are known of all draws together only, and so are tokens and calls of those that ran out of proposals.
    """
    cost, own, asked = evidence.cost, evidence.own.draws, evidence.proposed
    if not cost.kept:
        return cost
    counts, exhausted = counted(own), 0
    if asked is not None and len(asked) > len(own):
        counts, exhausted = Cost(proposals=int(asked[:, 1].sum())), len(asked) - len(own)
    return replace(
        cost, seconds=None, kept=len(own), exhausted=exhausted,
        tokens=counts.tokens, calls=counts.calls, proposals=counts.proposals,
    )  # fmt: skip


def _rescoring(evidence: Evidence) -> float | None:
    """Max |Δ| in nats between sampling and rescoring the own draws that are left, see `trust.rescored`."""
    said, again = evidence.own.draws.log_prob, evidence.own.log_gen
    if evidence.rescoring is None or said is None or again is None:
        return evidence.rescoring
    off = np.abs(again - said)
    return float(off[np.isfinite(off)].max(initial=0.0))
