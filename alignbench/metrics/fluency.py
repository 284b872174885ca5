"""Fluency: how probable own draws are under a judge."""

from __future__ import annotations

from math import inf

import numpy as np

from alignbench.registry import metric
from alignbench.stats.intervals import ratio_over_prompts
from alignbench.types import Array, Estimate, Evidence


@metric(needs={"own", "log_judge"}, better="lower", range=(0, inf))
def perplexity(evidence: Evidence) -> Estimate:
    """Perplexity of own draws under the judge: exp(−Σ log_judge / Σ tokens), EOS counted; prompts weigh equally.

    A token that the judge finds impossible makes it infinite. The interval is that of the logarithm, transformed.
    """
    rate = _nats_per(evidence, evidence.own.draws.length)
    if rate.value is None or rate.stderr is None:
        return rate if rate.value is None else Estimate(float(np.exp(rate.value)), n=rate.n, note=rate.note)
    value = float(np.exp(rate.value))
    low, high = (None if x is None else float(np.exp(x)) for x in (rate.ci_low, rate.ci_high))
    return Estimate(value, value * rate.stderr, low, high, n=rate.n, note=rate.note)


@metric(needs={"own", "log_judge"}, better="lower", range=(0, inf), detail=True)
def bits_per_byte(evidence: Evidence) -> Estimate:
    """Bits per UTF-8 byte of own draws' texts under the judge: −Σ log_judge / (ln 2 · Σ bytes), EOS charged.

    Comparable across tokenizers, as perplexity is not.
    """
    sizes = np.array([len(text.encode()) for text in evidence.own.draws.texts], float)
    return _nats_per(evidence, sizes * np.log(2))


def _nats_per(evidence: Evidence, size: Array) -> Estimate:
    own, log_judge = evidence.own.draws, np.asarray(evidence.own.log_judge, float)
    named = "judge: the base" if evidence.judge_is_base else f"judge: {evidence.judge}"
    if np.any(log_judge == -np.inf):
        share = float(np.mean(log_judge == -np.inf))
        return Estimate(np.inf, n=len(own), note=f"{share:.3g} of the draws are impossible for the judge; {named}")
    return ratio_over_prompts(own.prompt, -log_judge, np.asarray(size, float), own.group, named)
