"""Entropy: how much the generator leaves open, in nats."""

from __future__ import annotations

import numpy as np

from alignbench.registry import metric
from alignbench.stats.intervals import mean_over_prompts, ratio_over_prompts, spread_or_none, told_by_enough
from alignbench.types import Estimate, Evidence

PARTS = ("sequence", "per_token")


@metric(needs={"own", "log_gen"}, better="", parts=PARTS, detail=True)
def entropy(evidence: Evidence) -> dict[str, Estimate]:
    """Entropy of π in nats: −E_π log π of a whole continuation (EOS counted), and that over the mean number of tokens.

    Means over prompts with equal weights. Neither way is better as such: the goal is the entropy of p.
    """
    own = evidence.own.draws
    nats = -np.asarray(evidence.own.log_gen, float)
    found = {
        "sequence": spread_or_none(mean_over_prompts(own.prompt, nats, own.group)),
        "per_token": ratio_over_prompts(own.prompt, nats, np.asarray(own.length, float), own.group),
    }
    return {part: told_by_enough(estimate, own.prompt, own.group) for part, estimate in found.items()}
