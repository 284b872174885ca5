"""Everything that is measured about one generator on a task: its draws, scored under every model, as Evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from alignbench.errors import RunError, UsageError, brief
from alignbench.generators.described import called, described, log_prob_of
from alignbench.generators.memory import reset_peak
from alignbench.scoring.bench import Bench
from alignbench.scoring.cost import cost_of
from alignbench.scoring.references import References
from alignbench.scoring.trust import rescored
from alignbench.seeds import APART
from alignbench.target.truth import exact_values
from alignbench.types import Array, Distribution, Draws, Evidence, Sampler, Scored, Selection, Stepwise, Training

WEIGHED = 1000 * APART
"""Sample numbers of the draws by which the proposal of a generator is weighed begin here."""
UNKNOWN_STEPS = {"kl_base": "the generator's next-token distributions are not known"}


def evidence_of(references: References, label: str, generator: Sampler, training: Training | None = None) -> Evidence:
    """Everything that is measured about `generator`; raises RunError when it kept no draw of some prompt.

    `training`: what it took to make the generator.
    """
    bench, ref = references.bench, references.ref
    reset_peak()
    stored = bench.draw(label, generator, "own")
    own = stored.draws if stored.draws.accepted is None else stored.draws.take(stored.draws.accepted)
    _check_kept(bench, own, stored.draws)
    with bench.progress(f"{bench.task.name}: scoring {label}", 1) as advance:
        scores = _score(references, generator, own)
        advance(1)
    proposal = _proposal(generator, bench.base)
    log_gen = scores.log_gen_ref if proposal is None else log_prob_of(proposal, bench.prompts, ref.draws)
    ref = replace(ref, log_gen=log_gen, rank=_rank(bench, generator, ref))
    return _evidence(
        references, scores.own, ref, cost=cost_of(stored, own, generator, training),
        reasons=scores.reasons, rescoring=scores.rescoring,
        selection=described(generator).selection, is_base=generator is bench.base,
        proposed=_proposed(stored.draws), proposal=_weighed(references, proposal),
        remark=described(generator).remark,
        truncates=described(generator).truncates, truth=_truth(references, generator),
    )  # fmt: skip


def evidence_of_p(references: References) -> Evidence:
    """Draws of p itself: what a perfect generator would score. Raises Unsupported where they cannot be had."""
    own = references.draws_of_p()
    reasons = {"log_gen": "draws of p itself"}
    return _evidence(references, own, references.ref, reasons=reasons, selection=Selection("first", 1))


def _evidence(references: References, own: Scored, ref: Scored, **more: Any) -> Evidence:
    bench = references.bench
    return Evidence(
        own=own, ref=ref, fit=references.fit, prompts=bench.prompts, references=bench.task.references,
        categories=dict(references.target.categories),
        judge=bench.judge_name, judge_is_base=bench.given_judge is None, base=bench.base_name,
        max_tokens=bench.task.max_tokens, **more,
    )  # fmt: skip


@dataclass(frozen=True)
class _Scores:
    """What the models say of a generator's draws, and of the reference draws under it."""

    own: Scored
    log_gen_ref: Array | None
    reasons: Mapping[str, str] = field(default_factory=dict)
    rescoring: float | None = None


def _score(references: References, generator: Sampler, own: Draws) -> _Scores:
    """Own draws scored, log π of the reference draws, and why what is missing is missing."""
    bench, target = references.bench, references.target
    if generator is bench.base:
        log_base = bench.log_base(own)
        scored = bench.scored(target, own, log_base, log_gen=log_base, kl_base=np.zeros(len(own)))
        return _Scores(scored, references.ref.log_base)
    if isinstance(generator, Stepwise) and (found := generator.beside(bench.base, bench.prompts, own)) is not None:
        again, log_base, kl_base = found
        return _trusted(references, generator, bench.scored(target, own, log_base, kl_base=kl_base), again)
    selected = described(generator).selection is not None
    log_base = bench.log_base(own, drawn_from_base=selected and _proposal(generator, bench.base) is None)
    scored = bench.scored(target, own, log_base)
    if isinstance(generator, Distribution) and log_base is not None:
        return _trusted(references, generator, scored, log_prob_of(generator, bench.prompts, own))
    unread = "the generator's tokens are not the base's, so the base cannot score them"
    no_density = unread if log_base is None else "the generator has no density (no log_prob)"
    reasons = {"log_gen": no_density, **UNKNOWN_STEPS, **({"log_base": unread} if log_base is None else {})}
    return _Scores(scored, None, reasons)


def _trusted(references: References, generator: Distribution, scored: Scored, again: Array) -> _Scores:
    """The scores of a generator with a density, unless rescoring (`again`) contradicts what sampling said."""
    own, half = scored.draws, described(generator).half
    gap, refused = rescored(own, again, half)
    if refused:
        return _Scores(replace(scored, kl_base=None), None, {"log_gen": refused}, gap)
    # a token at the very edge of a nucleus may be rescored as cut: there the record of sampling stands
    said = again if own.log_prob is None else own.log_prob
    log_gen = np.where(np.isfinite(again), again, said) if half else said
    log_gen_ref = log_prob_of(generator, references.bench.prompts, references.ref.draws)
    reasons = {} if scored.kl_base is not None else dict(UNKNOWN_STEPS)
    return _Scores(replace(scored, log_gen=log_gen), log_gen_ref, reasons, gap)


def _check_kept(bench: Bench, own: Draws, drawn: Draws) -> None:
    kept = np.bincount(own.prompt, minlength=len(bench.prompts))
    if (kept == 0).any():
        worst = bench.prompts[int(kept.argmin())]
        spent = 0 if drawn.proposals is None else int(drawn.proposals.max())
        raise RunError(
            f"every one of {bench.draws} draws of prompt {brief(worst)} used up its {spent} "
            "proposals; raise the cap (of sir: n) or ask for less"
        )


def _rank(bench: Bench, generator: Sampler, ref: Scored) -> Array | None:
    """What `generator` ranks the reference draws by; None where that is log P − log a, or it does not rank."""
    rank = described(generator).rank
    return None if rank is None else np.asarray(rank(bench.prompts, ref.draws), dtype=float)


def _proposal(generator: Sampler, base: Distribution) -> Distribution | None:
    """What `generator` selects from; None where that is the base, or it does not select."""
    proposal, selects = described(generator).proposal, described(generator).selection is not None
    if not selects or proposal is None or proposal is base:
        return None
    if not isinstance(proposal, Distribution):
        raise RunError(f"{called(proposal)}: has no log_prob, by which the draws that are kept of it are weighed")
    return proposal


def _weighed(references: References, proposal: Distribution | None) -> Scored | None:
    """Fresh draws of what a generator selects from, scored under it, base and target; None: the base."""
    if proposal is None:
        return None
    bench = references.bench
    draws = bench.draw("draws of its proposal", proposal, "ref", first=WEIGHED).draws
    log_q = draws.log_prob if draws.log_prob is not None else log_prob_of(proposal, bench.prompts, draws)
    log_base = bench.log_base(draws, drawn_from_base=False)
    return bench.scored(references.target, draws, log_base, log_gen=np.asarray(log_q, dtype=float))


def _truth(references: References, generator: Sampler) -> Mapping[str, float] | None:
    """Exact values; None where the world is too large to be listed."""
    bench = references.bench
    try:
        return exact_values(bench.base, generator, references.target, bench.prompts, bench.task.max_tokens)
    except UsageError:
        return None


def _proposed(drawn: Draws) -> Array | None:
    """(N, 3) prompt, proposals and acceptance of every draw that was asked for; None where nothing is rejected."""
    if drawn.proposals is None or drawn.accepted is None:
        return None
    return np.stack([drawn.prompt, drawn.proposals, drawn.accepted], axis=1)
