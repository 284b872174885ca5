"""Divergence: how far the generator is from the target, and how far it went from the base."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from alignbench.errors import UsageError, did_you_mean
from alignbench.metrics import asked
from alignbench.metrics.black_box import black_box
from alignbench.metrics.parameters import at_least
from alignbench.metrics.prompts import OF_THESE
from alignbench.metrics.weighed import by_weights, weighed
from alignbench.registry import metric
from alignbench.stats import divergences, overlap, selection
from alignbench.stats.discrete import TOP
from alignbench.stats.divergences import Sample
from alignbench.stats.intervals import (
    mean_over_prompts,
    minus,
    spread_or_none,
    told_by_enough,
    without_rounding,
)
from alignbench.stats.moments import with_lambda_error
from alignbench.stats.weights import is_boolean
from alignbench.types import Array, Estimate, Evidence, Scored, Selection

Parts = Mapping[str, Estimate]
PARTS = (
    "kl_target",
    *asked.PARTS,
    "kl_target_within",
    "kl_reverse",
    "kl_reverse_within",
    "tv",
    "js",
    "kl_base",
    "kl_base_rb",
    "kl_base_k1",
    "log_z",
    "mass_kept",
)
OF_DENSITY = tuple(part for part in PARTS if part != "log_z" and part not in asked.PARTS)
WHOLE = "π leaves out nothing that the base can say"
BASE_ITSELF = Estimate(0.0, 0.0, 0.0, 0.0, note="the base itself")
GIVEN = Estimate(0.0, 0.0, 0.0, 0.0, note="exact by construction: the base given the hard constraints is p")
UNSEEN = "the target tilts, but log P − log a is the same for all base draws of a prompt that it allows"
NEVER_BROKEN = "∞ if π breaks a hard constraint, as no reference draw does (share ≤ {:.2g})"
FROM_COUNTS = "no density: what each token adds is not known"


CARRIED = "p as asked for: λ's own error is carried"
AT = ("fitted", "asked")


def _known(*, at: str = "fitted", seed: int = 0) -> None:
    """Raise UsageError on a parameter that means nothing."""
    if at not in AT:
        raise UsageError(f"argument 'at': must be {' or '.join(AT)}, not '{at}'.{did_you_mean(at, AT)}")
    at_least(seed=0)(seed=seed)


@metric(
    needs={"ref"},
    better={"kl_": "lower", "tv": "lower", "js": "lower", "log_z": "", "mass_kept": "higher"},
    range={**{part: (0, top) for part, top in TOP.items()}, "mass_kept": (0, 1)},
    parts=PARTS,
    check=_known,
)
def divergence(evidence: Evidence, *, at: str = "fitted", seed: int = 0) -> dict[str, Estimate]:
    """How far π is from the target p and the base a, in nats (tv: 0 to 1), mean over prompts; log_z: what p keeps of a.

    kl_target = KL(p‖π), kl_reverse = KL(π‖p), kl_base = KL(π‖a); "_within": π given the hard constraints in place of
    π. `at`: p at the "fitted" λ, or as "asked" for, at the λ that infinitely many draws would give: λ's own error then
    widens the intervals. A generator without a density has lower limits, by draws of p that `seed` picks. Numbers that
    would not be true are refused: ∞, a bound, or a reason.
    """
    absent = _unreferenced(evidence)
    if absent:
        return dict.fromkeys(PARTS, Estimate.missing(absent))
    if at == "asked" and evidence.fit.lam.size:
        found = _asked(evidence, seed)
    else:
        note = _lam_note(evidence)
        parts = _at(evidence, seed).items()
        found = {part: e.noted(note) if _says(e) and _of_p(evidence, part) else e for part, e in parts}
    settled = {part: without_rounding(e) for part, e in found.items()}
    return {part: e.noted(evidence.remark) if _says(e) and part != "log_z" else e for part, e in settled.items()}


def _says(estimate: Estimate) -> bool:
    """Whether there is a number, be it a bound."""
    return (estimate.value, estimate.ci_low, estimate.ci_high) != (None, None, None)


def _of_p(evidence: Evidence, part: str) -> bool:
    """Whether a part depends on p: KL(π‖a) does where π itself is made from p."""
    return _picks_by_p(evidence) or not part.startswith("kl_base")


def _picks_by_p(evidence: Evidence) -> bool:
    """Whether π selects draws by p, and not by hard constraints alone or a rank that knows nothing of λ."""
    law = evidence.selection
    return law is not None and law.kind != "filtered" and evidence.ref.rank is None


def _asked(evidence: Evidence, seed: int) -> dict[str, Estimate]:
    """All parts for p at the λ that infinitely many draws would give, λ's own error carried."""
    evidence = asked.settled(evidence)
    here = _at(evidence, seed)
    found = with_lambda_error(lambda shift: _at(_shifted(evidence, shift), seed), evidence.fit.lam_stderr)
    by_lam = _picks_by_p(evidence)  # π itself picks by the fitted λ: it stays, p moves
    for part, estimate in here.items():
        if part == "log_z" or not _of_p(evidence, part):
            continue
        if by_lam and not part.startswith("kl_base"):
            found[part] = Estimate.missing("π picks by the fitted λ: how far that is from p as asked for is not known")
        elif by_lam:
            found[part] = estimate
        elif estimate.value is None and _says(estimate):
            found[part] = Estimate.missing("a bound by draws of p at the fitted λ, not of p as asked for")
    wider = {part for part, e in found.items() if (e.stderr or 0.0) > (here[part].stderr or 0.0)}
    return {part: e.noted(CARRIED) if part in wider else e for part, e in found.items()}


def _at(evidence: Evidence, seed: int) -> dict[str, Estimate]:
    """All parts with P as it stands in the evidence."""
    ref = _sample(evidence, evidence.ref)
    parts = {"log_z": divergences.log_z_of(ref), **_parts(evidence, ref, seed)}
    parts |= asked.split(evidence, ref, parts, seed)
    unseen = _tilts(evidence) and is_boolean(ref.prompt, ref.ratio)
    if _never_broken(evidence, ref) and _is_number(parts["kl_reverse"]):
        parts["kl_reverse"] = parts["kl_reverse"].noted(NEVER_BROKEN.format(min(3 / ref.prompt.size, 1)))
    own_alone = () if _picks_by_p(evidence) else ("kl_base", "kl_base_rb", "kl_base_k1")
    parts.setdefault("mass_kept", Estimate.missing("known of laws with a density alone"))
    return {part: _unknown(parts[part]) if unseen and part not in own_alone else parts[part] for part in PARTS}


def _never_broken(evidence: Evidence, ref: Sample) -> bool:
    """Whether the target has a hard constraint that no reference draw breaks, so that π may break it unseen."""
    return any(wanted.kind == "always" for wanted in evidence.fit.wanted) and bool(ref.allowed.all())


def _is_number(estimate: Estimate) -> bool:
    """Whether it is a finite number that may be wrong: what is 0 by construction is none."""
    exact = estimate.stderr == 0 and not estimate.note.startswith(selection.WITHIN)
    return estimate.value is not None and bool(np.isfinite(estimate.value)) and not exact


def _shifted(evidence: Evidence, shift: Array) -> Evidence:
    """The evidence with P at λ + `shift` (1 or C, K)."""
    proposal = None if evidence.proposal is None else _tilted(evidence.proposal, shift)
    return replace(evidence, own=_tilted(evidence.own, shift), ref=_tilted(evidence.ref, shift), proposal=proposal)


def _tilted(scored: Scored, shift: Array) -> Scored:
    if scored.log_target is None or scored.phi is None:
        return scored
    rows = shift if len(shift) == 1 else shift[scored.draws.prompt]
    return replace(scored, log_target=scored.log_target + (rows * scored.phi).sum(axis=1))


def _lam_note(evidence: Evidence) -> str:
    """That p itself was fitted, and how surely, which no interval of a divergence from p at that λ includes."""
    fit = evidence.fit
    if not fit.lam.size or len(fit.lam) > 1:
        return "p has a fitted λ for each prompt" if fit.lam.size else ""
    shown = (f"{lam:.3g} ± {1.96 * error:.2g}" for lam, error in zip(fit.lam[0], fit.lam_stderr[0], strict=True))
    return f"p is taken at the fitted λ = {', '.join(shown)}"


def _tilts(evidence: Evidence) -> bool:
    """Whether the target asks for more than hard constraints, so that its weights are not all one."""
    return any(wanted.kind != "always" for wanted in evidence.fit.wanted)


def _unknown(estimate: Estimate) -> Estimate:
    """Nothing, where draws that are all of one weight tell no tilt; what is exact, ∞ or missing stays."""
    exact = estimate.stderr == 0 and not estimate.note.startswith(selection.WITHIN)
    settled = exact or estimate.value == np.inf or not _says(estimate)
    return estimate if settled else Estimate.missing(UNSEEN, n=estimate.n)


def _parts(evidence: Evidence, ref: Sample, seed: int) -> Parts:
    drawn = _of_base(evidence, ref)
    if evidence.selection is not None and by_weights(evidence):
        unlike = dict.fromkeys(("kl_base_rb", "kl_base_k1"), Estimate.missing(FROM_COUNTS))
        return {**unlike, **_with_limits(evidence, weighed(evidence, drawn, ref), seed)}
    if evidence.selection is not None:
        rank = evidence.ref.rank
        found = _selected(drawn, evidence.selection, None if rank is None else rank[evidence.ref.of_base])
        if ref is not drawn and evidence.selection.kind == "first":  # π = p, and the mixture knows more of KL(p‖a)
            from_base = divergences.kl_target(replace(ref, log_gen=ref.log_base))
            found = {**found, "kl_base": from_base, "kl_target_vs_base": minus(from_base)}
        return found
    if evidence.is_base:
        still = dict.fromkeys(("kl_base", "kl_base_rb", "kl_base_k1"), BASE_ITSELF)
        if not _tilts(evidence):
            still |= dict.fromkeys(("kl_target_within", "kl_reverse_within"), GIVEN)
        if ref is drawn and not selection.uncountable(ref.prompt, ref.ratio):
            return {**_selected(ref, Selection("best", 1)), **still}
        return {**_measured(evidence, ref, seed), **still}
    return _measured(evidence, ref, seed)


def _with_limits(evidence: Evidence, found: Parts, seed: int) -> Parts:
    """The parts, and where weights tell nothing of one, what features do."""
    silent = [part for part, e in found.items() if not _says(e)]
    told = black_box(evidence, "", seed) if silent else {}
    return {**found, **{part: told[part].noted(found[part].note) for part in silent if part in told}}


def _of_base(evidence: Evidence, ref: Sample) -> Sample:
    """The reference draws of the base alone, which closed forms count; all of them where the task has no proposals."""
    if evidence.ref.component is None:
        return ref
    drawn = replace(ref.take(evidence.ref.of_base), log_proposal=None, component=None)
    most = evidence.fit.log_bound
    return drawn if most is None else replace(drawn, bound=most[drawn.prompt])


def _selected(ref: Sample, law: Selection, rank: Array | None = None) -> Parts:
    counts = dict.fromkeys(("kl_base_rb", "kl_base_k1"), Estimate.missing(FROM_COUNTS))
    return {**selection.divergences(ref.prompt, ref.ratio, law, ref.group, rank, ref.bound), **counts}


def _measured(evidence: Evidence, ref: Sample, seed: int) -> Parts:
    """All parts of a generator with a density; of another, what its features tell."""
    if not evidence.is_base and (evidence.own.log_gen is None or evidence.ref.log_gen is None):
        reason = evidence.reasons.get("log_gen") or "the generator has no density"
        return dict.fromkeys(OF_DENSITY, Estimate.missing(reason)) | black_box(evidence, reason, seed)
    own = _sample(evidence, evidence.own)
    if not own.log_gen.any():  # probability 1 each: what own draws tell has no error, however dependent they are
        own = replace(own, group=None)
    lost = set(range(len(evidence.prompts))) - set(np.unique(own.prompt).tolist())
    if lost:
        return dict.fromkeys(OF_DENSITY, Estimate.missing(f"no own draws for prompt {min(lost)}"))
    return {
        "kl_target": divergences.kl_target(ref, evidence.truncates),
        "kl_target_within": divergences.kl_target_within(own, ref, evidence.truncates),
        "kl_reverse": divergences.kl_reverse(own, ref),
        "kl_reverse_within": divergences.kl_reverse_within(own, ref),
        "tv": overlap.tv(own, ref),
        "js": overlap.js(own, ref),
        "mass_kept": divergences.mass_kept(ref) if _leaves_out(evidence, ref) else Estimate.missing(WHOLE),
        **_from_base(evidence, own),
    }


def _leaves_out(evidence: Evidence, ref: Sample) -> bool:
    """Whether π truncates, or is seen to have no mass where p has some."""
    return evidence.truncates or bool((ref.excess == np.inf).any())


def _from_base(evidence: Evidence, own: Sample) -> Parts:
    k1, rb = own.log_gen - own.log_base, evidence.own.kl_base
    if not own.log_gen.any() and np.isfinite(k1).all():
        value, note = mean_over_prompts(own.prompt, k1).value, f"{OF_THESE}: −log a of the one continuation of each"
        known = Estimate(value, 0.0, value, value, n=k1.size, note=note)
        return dict.fromkeys(("kl_base", "kl_base_k1", "kl_base_rb"), known)
    no_rb = evidence.reasons.get("kl_base") or "the generator gives no next-token probabilities"
    return {
        "kl_base": divergences.kl_base(own.prompt, k1, rb, own.group),
        "kl_base_k1": _mean(own, k1),
        "kl_base_rb": Estimate.missing(no_rb) if rb is None else _mean(own, rb),
    }


def _mean(own: Sample, values: Array) -> Estimate:
    return told_by_enough(spread_or_none(mean_over_prompts(own.prompt, values, own.group)), own.prompt, own.group)


def _sample(evidence: Evidence, scored: Scored) -> Sample:
    """The arrays that `stats` asks for; a generator without density stands in with the base's, and is never asked."""
    base = np.asarray(scored.log_base, float)
    gen = base if evidence.is_base or scored.log_gen is None else np.asarray(scored.log_gen, float)
    return Sample(
        np.asarray(scored.draws.prompt), base, np.asarray(scored.log_target, float), gen, scored.draws.group,
        scored.log_proposal, scored.component, _bound(evidence, scored),
    )  # fmt: skip


def _bound(evidence: Evidence, scored: Scored) -> Array | None:
    """(B,) nats: the most that log P − log of the law that drew them can be, where it is known.

    A mixture of which the base has a share c is at least c · a.
    """
    if evidence.fit.log_bound is None:
        return None
    prompt = np.asarray(scored.draws.prompt)
    if scored.component is None:
        return np.asarray(evidence.fit.log_bound[prompt])
    of_base = np.bincount(prompt, scored.component == 0) / np.maximum(np.bincount(prompt), 1)
    return np.asarray(np.asarray(evidence.fit.log_bound)[prompt] - np.log(of_base[prompt]))


def _unreferenced(evidence: Evidence) -> str:
    """Why nothing can be said: reference draws without scores, or a prompt without draws of the base."""
    ref = evidence.ref
    if ref.log_base is None or ref.log_target is None:
        return evidence.reasons.get("log_base") or "draws were not scored under base and target"
    lost = set(range(len(evidence.prompts))) - set(np.unique(ref.draws.prompt).tolist())
    return f"no draws of the base for prompt {min(lost)}" if lost else ""
