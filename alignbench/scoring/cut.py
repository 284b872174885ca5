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
        proposed=_first_rows(evidence.proposed, count), spent=_first_rows(evidence.spent, count),
    )  # fmt: skip
    fit = kept.fit if kept.fit.log_z is None else with_log_z(kept.fit, kept.ref)
    return replace(kept, fit=fit, cost=_cost(kept), rescoring=_rescoring(kept))


def _first(scored: Scored, count: int) -> Scored:
    """The draws of each law whose sample number is below `count`."""
    return picked(scored, np.flatnonzero(scored.draws.index % APART < count))


def _first_rows(asked: Array | None, count: int) -> Array | None:
    """The first `count` rows of each prompt (column 0) of a table with a row for each draw that was asked for."""
    return None if asked is None else asked[number_in_prompt(asked[:, 0]) < count]


def _cost(evidence: Evidence) -> Cost:
    """Counts of what is left, none where it was not counted draw by draw; seconds are not known of a part."""
    cost, spent = evidence.cost, evidence.spent
    counts = Cost() if spent is None else counted(spent, len(evidence.own.draws))
    return replace(
        counts, peak_bytes=cost.peak_bytes, device=cost.device, uncounted=cost.uncounted, training=cost.training
    )


def _rescoring(evidence: Evidence) -> float | None:
    """Max |Δ| in nats between sampling and rescoring the own draws that are left, see `trust.rescored`."""
    said, again = evidence.own.draws.log_prob, evidence.own.log_gen
    if evidence.rescoring is None or said is None or again is None:
        return evidence.rescoring
    off = np.abs(again - said)
    return float(off[np.isfinite(off)].max(initial=0.0))
