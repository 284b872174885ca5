"""Win rate: how often the generator beats the base by what the target rewards."""

from __future__ import annotations

import numpy as np

from alignbench.registry import metric
from alignbench.stats import wins
from alignbench.types import Array, Estimate, Evidence


@metric(needs={"own", "ref", "log_base", "log_target"}, better="", range=(0, 1), detail=True)
def win_rate(evidence: Evidence) -> Estimate:
    """Probability that a draw of π has a larger log P − log a than one of the base, ties counted half; ½ for the base.

    Mean over prompts. Neither way is better as such: the goal is the win rate of p. Best-of-n by log P − log a has it
    in closed form, at most n/(n + 1).
    """
    own, ref = evidence.own, evidence.ref
    unsaid = float(np.mean(np.asarray(own.log_base, float) == -np.inf))
    if unsaid:
        return Estimate.missing(f"{unsaid:.3g} of own draws are what the base cannot say: they have no log P − log a")
    prompt, r = ref.draws.prompt[ref.of_base], _ratio(ref.log_target, ref.log_base)[ref.of_base]
    if evidence.is_base:
        return Estimate(0.5, 0.0, 0.5, 0.5, n=len(own.draws), note="the base itself")
    law = evidence.selection
    if law is not None and law.kind == "best" and ref.rank is None:
        return wins.of_best(prompt, r, law.n, None if ref.draws.group is None else ref.draws.group[ref.of_base])
    return wins.win_rate((own.draws.prompt, _ratio(own.log_target, own.log_base)), (prompt, r), own.draws.group)


def _ratio(log_target: Array | None, log_base: Array | None) -> Array:
    return np.asarray(np.asarray(log_target, float) - np.asarray(log_base, float))
