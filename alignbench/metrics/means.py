"""Means of features: what own draws are like in what the task measures besides what its target asks."""

from __future__ import annotations

import numpy as np

from alignbench.metrics.satisfaction import TWO_VALUED
from alignbench.registry import metric
from alignbench.stats.intervals import mean_over_prompts, share, spread_or_none
from alignbench.types import Array, Draws, Estimate, Evidence


@metric(needs={"own"}, better="")
def features(evidence: Evidence) -> dict[str, Estimate]:
    """Mean of each feature that the target does not ask for, and the share of draws in each of its categories.

    Parts: <feature>, or <feature>.<category>, the share among all draws. Prompts weigh equally.
    """
    asked = {wanted.feature for wanted in evidence.fit.wanted}
    parts: dict[str, Estimate] = {}
    for name, values in evidence.own.features.items():
        if name in asked:
            continue
        for code, category in enumerate(evidence.categories.get(name, ())):
            parts[f"{name}.{category}"] = _mean(evidence.own.draws, np.asarray(values) == code)
        if name not in evidence.categories:
            parts[name] = _mean(evidence.own.draws, np.asarray(values, float))
    return parts or {"": Estimate.missing("the task has no feature that its target does not ask for")}


def _mean(draws: Draws, values: Array) -> Estimate:
    """Wilson's interval for a feature of 0 and 1, else the delta interval."""
    if not np.isin(values, (0, 1)).all():
        return spread_or_none(mean_over_prompts(draws.prompt, values, draws.group))
    answer = share(draws.prompt, values > 0, draws.group)
    return answer.noted(TWO_VALUED) if answer.value in (0.0, 1.0) else answer
