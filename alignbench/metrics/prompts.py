"""Intervals for prompts like these: how much a number moves when one of the task's prompts is left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np

from alignbench.metrics.asked import settled
from alignbench.stats.intervals import ROUNDING, normal, without_interval
from alignbench.types import Array, Estimate, Evidence, Scored, Selection

Numbers = Mapping[str, Estimate]
MEANT = "the interval is for prompts like these"
ALONE = "one prompt says nothing of others: no interval"
OF_THESE = "exact for the prompts given"  # begins the note of what is known without error of each prompt, but differs


def over_prompts(measure: Callable[[Evidence], Numbers], evidence: Evidence) -> dict[str, Estimate]:
    """The numbers of `measure` with intervals over prompts: jackknifed by prompt, Student's t with C − 1 degrees.

    What is missing, infinite or exact by construction stays as it is; a number that cannot be had without some prompt
    loses its interval. Source: Efron and Stein, The jackknife estimate of variance (1981).
    """
    evidence = settled(evidence)
    whole = measure(evidence)
    count = len(evidence.prompts)
    if count < 2:
        return {part: _plain(estimate, ALONE) for part, estimate in whole.items()}
    without = [measure(left_out(evidence, c)) for c in range(count)]
    missing = Estimate.missing("")
    return {part: _clustered(e, [w.get(part, missing) for w in without]) for part, e in whole.items()}


def _plain(estimate: Estimate, note: str) -> Estimate:
    return estimate if _exact(estimate) else _without_limits(estimate, note)


def _exact(estimate: Estimate) -> bool:
    """Whether it is exact by construction, whatever the prompts."""
    return estimate.stderr == 0.0 and not estimate.note.startswith(OF_THESE)


def _without_limits(estimate: Estimate, note: str) -> Estimate:
    bare = estimate.ci_low is None and estimate.ci_high is None
    return estimate if bare else without_interval(estimate, note)


def _clustered(whole: Estimate, without: list[Estimate]) -> Estimate:
    if whole.value is None or whole.stderr is None:
        return _without_limits(whole, "the bound is for the prompts given: left out")
    if _exact(whole) or all(e == whole for e in without):  # or no matter of prompts
        return whole
    values = np.array([np.nan if e.value is None else e.value for e in without], float)
    count = values.size
    if not np.isfinite(values).all():
        return without_interval(whole, "no interval: without some prompt it cannot be measured")
    variance = float(((values - values.mean()) ** 2).sum()) * (count - 1) / count
    if np.sqrt(variance) <= ROUNDING * max(1.0, abs(whole.value)):
        return without_interval(whole, "no interval: the prompts do not differ")
    found = normal(whole.value, variance, n=whole.n, df=count - 1, note=whole.note)
    return replace(found, ess=whole.ess).noted(MEANT)


def left_out(evidence: Evidence, *gone: int) -> Evidence:
    """The evidence without some prompts; those after them move up."""
    fit = evidence.fit
    per_prompt = len(fit.lam) == len(evidence.prompts) and len(fit.lam) > 1
    shorter: dict[str, Any] = {
        name: None if (x := getattr(fit, name)) is None else np.delete(x, gone, axis=0)
        for name in ("log_z", "log_z_stderr", "log_bound", *(("lam", "lam_stderr") if per_prompt else ()))
    }
    references = evidence.references
    return replace(
        evidence,
        own=_without(evidence.own, gone), ref=_without(evidence.ref, gone), fit=replace(fit, **shorter),
        prompts=[text for c, text in enumerate(evidence.prompts) if c not in gone],
        references=None if references is None else [r for c, r in enumerate(references) if c not in gone],
        proposed=_rest(evidence.proposed, gone),
        proposal=None if evidence.proposal is None else _without(evidence.proposal, gone),
        selection=_selecting(evidence.selection, gone),
    )  # fmt: skip


def picked(scored: Scored, rows: Array) -> Scored:
    """The scored draws at `rows` (integers)."""
    arrays: dict[str, Any] = {
        f.name: x[rows] for f in fields(scored) if isinstance(x := getattr(scored, f.name), np.ndarray)
    }
    features = {name: np.asarray(values)[rows] for name, values in scored.features.items()}
    return replace(scored, **arrays, draws=scored.draws.take(rows), features=features)


def _without(scored: Scored, gone: Sequence[int]) -> Scored:
    kept = picked(scored, np.flatnonzero(~np.isin(scored.draws.prompt, gone)))
    return replace(kept, draws=replace(kept.draws, prompt=_moved_up(kept.draws.prompt, gone)))


def _moved_up(prompt: Array, gone: Sequence[int]) -> Array:
    """The numbers (B,) that prompts have once those `gone` are left out."""
    return np.asarray(prompt - np.searchsorted(np.sort(gone), prompt))


def _selecting(selection: Selection | None, gone: Sequence[int]) -> Selection | None:
    if selection is None or not selection.log_beta:
        return selection
    return replace(selection, log_beta=tuple(beta for c, beta in enumerate(selection.log_beta) if c not in gone))


def _rest(proposed: Array | None, gone: Sequence[int]) -> Array | None:
    """(N, 3) without the rows of some prompts, those of later prompts moved up."""
    if proposed is None:
        return None
    rest = proposed[~np.isin(proposed[:, 0], gone)].copy()
    rest[:, 0] = _moved_up(rest[:, 0], gone)
    return np.asarray(rest)
