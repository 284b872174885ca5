"""The asked gap and the collateral of KL(p‖π): in which cells of the asked features draws fall, and what these tell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from alignbench.metrics.black_box import black_box
from alignbench.metrics.weighed import DENSITY
from alignbench.stats import asked
from alignbench.stats.divergences import Sample, kl_target_vs_base, uncovered_note
from alignbench.stats.filtered import log_rate
from alignbench.stats.intervals import minus, moved, total
from alignbench.stats.partition import Celled, celled, is_coarse
from alignbench.stats.weights import TIE
from alignbench.types import Array, Estimate, Evidence, Scored

PARTS = ("kl_asked", "kl_collateral", "kl_target_vs_base", "kl_asked_vs_base")
BY_WHAT_IS_ASKED = Estimate(
    0.0, 0.0, 0.0, 0.0, note="exact by construction: π keeps base draws by what is asked alone, as p does"
)
IS_P = Estimate(0.0, 0.0, 0.0, 0.0, note="exact by construction: KL(p‖π) is 0")
THE_BASE = Estimate(0.0, 0.0, 0.0, 0.0, note="the base itself")
ONE = "π has one continuation of each prompt, and p has others in what is asked"
Four = tuple[Estimate, Estimate, Estimate, Estimate]
FEW = 10  # values of a number that no bins were made of


def split(evidence: Evidence, ref: Sample, found: Mapping[str, Estimate], seed: int) -> dict[str, Estimate]:
    """`PARTS`, given the other parts of the divergence: KL(p‖π) as kl_asked + kl_collateral, and what the base lacks.

    `ref` are all reference draws. Of laws that pick base draws by what is asked alone the collateral is 0.
    """
    whole, versus = found["kl_target"], _versus(evidence, ref, found)
    if unknown := _unknown(evidence):
        return dict(zip(PARTS, (unknown, unknown, versus, unknown), strict=True))
    alone = _by_what_is_asked(evidence)
    if whole.value is not None and (alone or whole.value == whole.stderr == 0):
        told = (whole, BY_WHAT_IS_ASKED if alone else IS_P, versus, versus)
    elif lost := set(range(len(evidence.prompts))) - set(evidence.own.draws.prompt.tolist()):
        missing = Estimate.missing(f"no own draws for prompt {min(lost)}")
        told = (missing, missing, versus, missing)
    elif _point_mass(evidence):
        told = (*_of_one(evidence, ref, whole), versus, Estimate.missing(ONE))
    else:
        told = _measured(evidence, ref, whole, versus)
        told = (told[0], BY_WHAT_IS_ASKED, told[2], told[3]) if alone else told
    parts = dict(zip(PARTS, told, strict=True))
    if parts["kl_asked"].value is None and parts["kl_asked"].ci_low is None:
        limit = black_box(evidence, parts["kl_asked"].note, seed).get("kl_target")
        if limit is not None and limit.value is None and limit.ci_low:
            parts["kl_asked"] = limit
    return parts


def _unknown(evidence: Evidence) -> Estimate | None:
    """Why cells cannot be told: nothing is asked, or draws have no features; None where they can."""
    asked_about = {w.feature for w in evidence.fit.wanted}
    if not asked_about:
        return Estimate.missing("the target asks nothing")
    if lost := sorted(asked_about - (evidence.ref.features.keys() & evidence.own.features.keys())):
        return Estimate.missing(f"the feature {lost[0]} of the draws is not known")
    return None


def settled(evidence: Evidence) -> Evidence:
    """The evidence with the cells of its draws fixed, so that without some of them the rest stay where they are."""
    scored = evidence.ref.log_base is not None and evidence.ref.log_target is not None
    drawn = set(range(len(evidence.prompts))) == set(evidence.own.draws.prompt.tolist())
    if not scored or not drawn or evidence.is_base or _unknown(evidence):
        return evidence
    cells = _celled(evidence, _sample(evidence.ref))
    if cells.refused:
        return evidence
    own, ref = replace(evidence.own, cell=cells.own_cell), replace(evidence.ref, cell=cells.ref_cell)
    return replace(evidence, own=own, ref=ref)


def _by_what_is_asked(evidence: Evidence) -> bool:
    """Whether π keeps base draws by log P − log a alone, a function of what is asked; the base itself keeps all."""
    kept = evidence.selection is not None and evidence.proposal is None and evidence.ref.rank is None
    return evidence.is_base or kept


def _versus(evidence: Evidence, ref: Sample, found: Mapping[str, Estimate]) -> Estimate:
    """KL(p‖π) − KL(p‖a), by the closed form where there is one."""
    if evidence.is_base:
        return THE_BASE
    if "kl_target_vs_base" in found:
        return found["kl_target_vs_base"]
    if evidence.own.log_gen is None or evidence.ref.log_gen is None:
        return Estimate.missing(evidence.reasons.get("log_gen") or "the generator has no density")
    return kl_target_vs_base(ref, evidence.truncates)


def _measured(evidence: Evidence, ref: Sample, whole: Estimate, versus: Estimate) -> Four:
    cells = _celled(evidence, ref)
    known = evidence.selection is None and evidence.ref.log_gen is not None and evidence.own.log_gen is not None
    told = asked.parts(cells, whole, ref.excess if known else None)
    if evidence.selection is not None and evidence.selection.kind == "filtered" and not cells.one:
        told = told._replace(collateral=_rest_of_filter(evidence, cells, whole, told.asked))
    if evidence.truncates:
        finite = [e.value is not None and bool(np.isfinite(e.value)) for e in told]
        told = asked.Parts(
            *(e.noted(uncovered_note(ref)) if is_finite else e for e, is_finite in zip(told, finite, strict=True))
        )
    return told.asked, told.collateral, versus, told.asked_vs_base


def _rest_of_filter(evidence: Evidence, cells: Celled, whole: Estimate, gap: Estimate) -> Estimate:
    """The collateral of a filter, `gap` being what was asked: the rest of KL(p‖π), as that was told.

    By weights: draws of q, which share nothing with those of the asked gap. By density: the same reference draws, and
    the error of log AR besides.
    """
    if evidence.proposed is None or whole.value is None or not np.isfinite(whole.value) or gap.value is None:
        return asked.parts(cells, whole, None).collateral
    if DENSITY not in whole.note:
        rest = total([whole, minus(gap)])
        return replace(rest, note=asked.AT_MOST if cells.coarse else "")
    rest = asked.parts(cells, whole, cells.ref.excess).collateral
    return total([rest, moved(log_rate(*evidence.proposed.T), 0.0)])


def _point_mass(evidence: Evidence) -> bool:
    """Whether π is known to have one continuation of each prompt."""
    return evidence.own.log_gen is not None and not evidence.own.log_gen.any()


def _of_one(evidence: Evidence, ref: Sample, whole: Estimate) -> tuple[Estimate, Estimate]:
    """The parts of a point mass: ∞ asked where p has something else of what is asked, else 0."""
    theirs, mine, _ = _codes(evidence)
    prompt = np.asarray(evidence.own.draws.prompt)
    own = {int(c): mine[prompt == c][0] for c in np.unique(prompt)}
    others = ref.allowed & (theirs != np.array([own[int(c)] for c in ref.prompt]))
    if others.any():
        return Estimate(np.inf, n=prompt.size, note=ONE), Estimate.missing("∞ − ∞: what is asked may be all")
    if any(wanted.kind != "always" for wanted in evidence.fit.wanted):
        seen = Estimate.missing("all draws of p that were seen are as the one of π in what is asked", n=prompt.size)
        return seen, seen
    zero = Estimate(0.0, 0.0, 0.0, 0.0, n=prompt.size, note="exact: π keeps all that is asked")
    return zero, whole


def _celled(evidence: Evidence, ref: Sample) -> Celled:
    """The cells of reference and own draws: those settled before, else the finest that both fill."""
    own, group = evidence.own, evidence.own.draws.group
    theirs, mine, coarse = _codes(evidence)
    if own.cell is not None and evidence.ref.cell is not None:
        cells = Celled(ref, evidence.ref.cell, own.draws.prompt, own.cell, group)
        return replace(cells, coarse=is_coarse(cells, theirs, mine) or coarse)
    return celled(ref, theirs, own.draws.prompt, mine, group, coarse)


def _codes(evidence: Evidence) -> tuple[Array, Array, bool]:
    """(B,) and (M,) the joint value of the asked features of reference and own draws, and whether it holds several."""
    theirs, mine, coarse = np.zeros(len(evidence.ref.draws), int), np.zeros(len(evidence.own.draws), int), False
    for of_ref, of_own, several in _each(evidence):
        count = int(max(of_ref.max(initial=0), of_own.max(initial=0))) + 1
        theirs, mine, coarse = theirs * count + of_ref, mine * count + of_own, coarse or several
    return theirs, mine, coarse


def _each(evidence: Evidence) -> Iterator[tuple[Array, Array, bool]]:
    """For each thing asked: the cell of every reference and own draw, and whether some cell holds several values."""
    for name in dict.fromkeys(w.feature for w in evidence.fit.wanted):
        kinds = {w.kind for w in evidence.fit.wanted if w.feature == name}
        ref, own = _values(evidence.ref, name), _values(evidence.own, name)
        if "distribution" in kinds:
            known = evidence.categories[name]
            listed = {known.index(w.category) for w in evidence.fit.wanted if w.feature == name}
            of_ref, of_own = (np.where(np.isin(x, [*listed]), x + 1, 0).astype(int) for x in (ref, own))
            yield of_ref, of_own, False
        if "always" in kinds:
            yield (ref == 1).astype(int), (own == 1).astype(int), False
        if kinds & {"moment", "reward"}:
            edges = evidence.fit.bins.get(name)
            if edges is None:
                told = np.unique(ref)
                edges = (told[1:] + told[:-1]) / 2 if told.size <= FEW else np.zeros(0)
            of_ref, of_own = np.searchsorted(edges, ref, side="right"), np.searchsorted(edges, own, side="right")
            yield of_ref, of_own, _holds_several(np.append(of_ref, of_own), np.append(ref, own))


def _holds_several(cell: Array, values: Array) -> bool:
    """Whether draws of one cell have different values."""
    order = np.lexsort((values, cell))
    same = np.diff(cell[order]) == 0
    return bool((same & (np.diff(values[order]) > TIE)).any())


def _values(scored: Scored, name: str) -> Array:
    return np.asarray(scored.features[name], float)


def _sample(scored: Scored) -> Sample:
    """The reference draws without π, which cells do not depend on."""
    base = np.asarray(scored.log_base, float)
    return Sample(
        np.asarray(scored.draws.prompt), base, np.asarray(scored.log_target, float), base, scored.draws.group,
        scored.log_proposal, scored.component,
    )  # fmt: skip
