"""Divergence: how far the generator is from the target, and how far it went from the base."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from alignbench.registry import metric
from alignbench.stats import divergences, selection
from alignbench.stats.divergences import Sample
from alignbench.stats.intervals import mean_over_prompts, spread_or_none, without_interval
from alignbench.stats.normaliser import log_z
from alignbench.stats.weights import is_boolean
from alignbench.types import Array, Estimate, Evidence, Scored, Selection

Parts = Mapping[str, Estimate]
PARTS = (
    "kl_target",
    "kl_target_within",
    "kl_reverse",
    "kl_reverse_within",
    "tv",
    "js",
    "kl_base",
    "kl_base_rb",
    "kl_base_k1",
    "log_z",
)
BASE_ITSELF = Estimate(0.0, 0.0, 0.0, 0.0, note="the base itself")
UNSEEN = "no interval: the target tilts, but log P − log a is the same for all base draws of a prompt that it allows"
FROM_COUNTS = "closed form: no density, no per-token divergences"


@metric(
    needs={"ref", "log_base", "log_target"},
    better={"kl_": "lower", "tv": "lower", "js": "lower", "log_z": ""},
    parts=PARTS,
)
def divergence(evidence: Evidence) -> dict[str, Estimate]:
    """How far π is from the target p and the base a, in nats (tv: 0 to 1), mean over prompts; log_z: what p keeps of a.

    kl_target = KL(p‖π), kl_reverse = KL(π‖p), kl_base = KL(π‖a); "_within": π given the hard constraints in place of
    π. Numbers that would not be true are refused: ∞, a bound, or a reason.
    """
    ref = _sample(evidence, evidence.ref)
    absent = _unreferenced(evidence, ref)
    if absent:
        return dict.fromkeys(PARTS, Estimate.missing(absent))
    parts = {"log_z": log_z(ref.prompt, ref.ratio, ref.group), **_parts(evidence, ref)}
    unseen = _tilts(evidence) and is_boolean(ref.prompt, ref.ratio)
    own_alone = () if evidence.selection is not None else ("kl_base", "kl_base_rb", "kl_base_k1")
    return {part: _blurred(parts[part]) if unseen and part not in own_alone else parts[part] for part in PARTS}


def _tilts(evidence: Evidence) -> bool:
    """Whether the target asks for more than hard constraints, so that its weights are not all one."""
    return any(wanted.kind != "always" for wanted in evidence.fit.wanted)


def _blurred(estimate: Estimate) -> Estimate:
    """Without the limits that hold for hard constraints only; what is exact by construction, or ∞, stays."""
    if estimate.stderr == 0 or (estimate.ci_low is None and estimate.ci_high is None):
        return estimate
    return without_interval(estimate, UNSEEN)


def _parts(evidence: Evidence, ref: Sample) -> Parts:
    if evidence.selection is not None:
        return _selected(ref, evidence.selection)
    if evidence.is_base:
        still = dict.fromkeys(("kl_base", "kl_base_rb", "kl_base_k1"), BASE_ITSELF)
        if not selection.uncountable(ref.prompt, ref.ratio):
            return {**_selected(ref, Selection("best", 1)), **still}
        return {**_measured(evidence, ref), **still}
    return _measured(evidence, ref)


def _selected(ref: Sample, law: Selection) -> Parts:
    counts = dict.fromkeys(("kl_base_rb", "kl_base_k1"), Estimate.missing(FROM_COUNTS))
    return {**selection.divergences(ref.prompt, ref.ratio, law, ref.group), **counts}


def _measured(evidence: Evidence, ref: Sample) -> Parts:
    """All parts of a generator with a density."""
    own = _sample(evidence, evidence.own)
    reason = _undrawn(evidence, own)
    if reason:
        return dict.fromkeys(PARTS[:-1], Estimate.missing(reason))
    return {
        "kl_target": divergences.kl_target(ref, evidence.truncates),
        "kl_target_within": divergences.kl_target_within(own, ref, evidence.truncates),
        "kl_reverse": divergences.kl_reverse(own, ref),
        "kl_reverse_within": divergences.kl_reverse_within(own, ref),
        "tv": divergences.tv(own, ref),
        "js": divergences.js(own, ref),
        **_from_base(evidence, own),
    }


def _from_base(evidence: Evidence, own: Sample) -> Parts:
    k1, rb = own.log_gen - own.log_base, evidence.own.kl_base
    no_rb = evidence.reasons.get("kl_base") or "the generator gives no next-token probabilities"
    return {
        "kl_base": divergences.kl_base(own.prompt, k1, rb, own.group),
        "kl_base_k1": _mean(own, k1),
        "kl_base_rb": Estimate.missing(no_rb) if rb is None else _mean(own, rb),
    }


def _mean(own: Sample, values: Array) -> Estimate:
    return spread_or_none(mean_over_prompts(own.prompt, values, own.group))


def _sample(evidence: Evidence, scored: Scored) -> Sample:
    """The arrays that `stats` asks for; a generator without density stands in with the base's, and is never asked."""
    base = np.asarray(scored.log_base, float)
    gen = base if evidence.is_base or scored.log_gen is None else np.asarray(scored.log_gen, float)
    return Sample(np.asarray(scored.draws.prompt), base, np.asarray(scored.log_target, float), gen, scored.draws.group)


def _unreferenced(evidence: Evidence, ref: Sample) -> str:
    """Why nothing can be said: a prompt without draws of the base."""
    lost = set(range(len(evidence.prompts))) - set(np.unique(ref.prompt).tolist())
    return f"no draws of the base for prompt {min(lost)}" if lost else ""


def _undrawn(evidence: Evidence, own: Sample) -> str:
    """Why a density cannot be used: there is none, or a prompt has no own draws."""
    if not evidence.is_base and (evidence.own.log_gen is None or evidence.ref.log_gen is None):
        return evidence.reasons.get("log_gen") or "the generator has no density"
    lost = set(range(len(evidence.prompts))) - set(np.unique(own.prompt).tolist())
    return f"no own draws for prompt {min(lost)}" if lost else ""
