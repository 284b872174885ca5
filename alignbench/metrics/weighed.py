"""Divergences of laws that keep some of a proposal's draws: rejection, quasi-rejection, SIR, filters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from alignbench.stats import divergences, filtered, quasi, resampled, selection
from alignbench.stats.divergences import Sample
from alignbench.stats.intervals import minus
from alignbench.stats.reach import within_reach
from alignbench.types import Array, Estimate, Evidence, Scored

UNREACHED = "the proposal does not reach all of p: its draws do not tell Z"
BEYOND = "the filter keeps what the base cannot say: weights P/q do not tell its share"
DENSITY = "by the density of q over AR, the chance that a proposal is kept"


def by_weights(evidence: Evidence) -> bool:
    """Whether the law is known by weights of a proposal's draws, and not by the base's draws alone."""
    law = evidence.selection
    return law is not None and (law.kind not in ("best", "first") or evidence.proposal is not None)


def weighed(evidence: Evidence, drawn: Sample, ref: Sample) -> dict[str, Estimate]:
    """What weights tell of π, from draws of q (the base's `drawn` where it is q) and, what q reaches, from `ref`."""
    assert evidence.selection is not None
    if evidence.selection.kind == "filtered":
        found = _filtered(evidence, drawn, ref)
        return found | _within(found)
    q, log_base = _of_proposal(evidence, drawn)
    if evidence.selection.kind == "first":
        found = selection.divergences(drawn.prompt, drawn.ratio, evidence.selection, drawn.group, bound=drawn.bound)
        found["kl_base"] = found["kl_base"] if ref is drawn else _kl_from_base(ref)
        found["kl_target_vs_base"] = minus(found["kl_base"])
    elif evidence.selection.kind == "quasi":
        found = _quasi(q, np.array(evidence.selection.log_beta), log_base)
    else:
        n, known = evidence.selection.n, q.bound
        found = resampled.divergences(q.prompt, q.ratio, n, group=q.group, log_base=log_base, bound=known)
        found |= _within(found)
    return found if evidence.proposal is None else _reached(evidence, ref, found)


def _of_proposal(evidence: Evidence, drawn: Sample) -> tuple[Sample, Array]:
    """Draws of q, whose `ratio` is log P − log q, and (B,) log a − log q of them."""
    scored = evidence.proposal
    if scored is None:
        return drawn, np.zeros(drawn.prompt.size)
    log_base, log_target, log_q = (np.asarray(x, float) for x in (scored.log_base, scored.log_target, scored.log_gen))
    sample = Sample(scored.draws.prompt, log_base, log_target, log_q, scored.draws.group, log_proposal=log_q)
    return sample, log_base - log_q


def _quasi(q: Sample, log_beta: Array, log_base: Array) -> dict[str, Estimate]:
    """The parts that `stats.quasi` tells, at β of each prompt."""
    found = quasi.quasi_rejection(q.prompt, q.ratio - log_beta[q.prompt], 1.0, group=q.group, log_base=log_base)
    return {part: e for part, e in found.items() if part not in ("acceptance", "tv_bound")} | _within(found)


def _filtered(evidence: Evidence, drawn: Sample, ref: Sample) -> dict[str, Estimate]:
    """The parts of q·b/AR: by weights, as SIR of one draw, and where these do not tell a KL by that density."""
    q, log_base = _of_proposal(evidence, drawn)
    found = resampled.divergences(q.prompt, q.ratio, 1, group=q.group, log_base=log_base, bound=q.bound)
    if evidence.proposal is None or evidence.proposed is None:
        return found
    kept = _kept(evidence, evidence.proposal)
    if (kept & (q.log_base == -np.inf)).any():  # P = 0, and π is not
        found = dict.fromkeys(found, Estimate.missing(BEYOND, n=kept.size))
    found = _reached(evidence, ref, found)
    rate = filtered.log_rate(*evidence.proposed.T)
    told = filtered.divergences(q, kept, ref, rate, evidence.truncates)
    lost = [part for part, e in told.items() if found[part].value is None and e.value is not None]
    return found | {part: told[part].noted(DENSITY) for part in lost}


def _kept(evidence: Evidence, scored: Scored) -> Array:
    """(B,) bool: whether draws keep the hard constraints."""
    kept = np.ones(len(scored.draws), bool)
    for name in {w.feature for w in evidence.fit.wanted if w.kind == "always"}:
        kept &= np.asarray(scored.features[name]) == 1
    return kept


def _within(found: Mapping[str, Estimate]) -> dict[str, Estimate]:
    """The parts of π given the hard constraints, which a law that keeps them is."""
    return {f"{part}_within": found[part] for part in ("kl_target", "kl_reverse")}


def _kl_from_base(ref: Sample) -> Estimate:
    """KL(p‖a) from draws of a mixture, which knows more of it than the base's draws."""
    return divergences.kl_target(replace(ref, log_gen=ref.log_base))


def _reached(evidence: Evidence, ref: Sample, found: Mapping[str, Estimate]) -> dict[str, Estimate]:
    """The parts, given what the reference draws say of what q reaches (`ref.log_gen` is log q)."""
    reached = ref.log_gen > -np.inf
    if not (ref.allowed & ~reached).any():
        most = divergences.uncovered(ref)
        note = f"provided the proposal q, which truncates, leaves out none of p: at most {most:.2g} of its mass (95 %)"
        known = (e.value is not None or e.ci_high is not None for e in found.values())
        pairs = zip(found.items(), known, strict=True)
        return {part: e.noted(note) if evidence.truncates and told else e for (part, e), told in pairs}
    nowhere = divergences.kl_target(ref)  # ∞, and how much q covers
    parts = dict.fromkeys(("kl_target", "kl_target_within", "kl_target_vs_base"), nowhere)
    assert evidence.selection is not None
    if evidence.selection.kind != "first":
        lost = Estimate.missing(UNREACHED, n=ref.prompt.size)
        return {part: e if part == "kl_base" else lost for part, e in found.items()} | parts
    parts |= within_reach(ref.prompt, ref.ratio, reached, ref.group, ref.bound)
    kept = replace(ref, log_target=np.where(reached, ref.log_target, -np.inf))
    return parts | {"kl_reverse_within": parts["kl_reverse"], "kl_base": _kl_from_base(kept)}
