"""A generator without a density: what its draws show of the task's features, and how far from p it is at least."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from alignbench.stats import cells
from alignbench.stats.divergences import violations
from alignbench.stats.intervals import share
from alignbench.types import Array, Estimate, Evidence, Scored, Wanted


def black_box(evidence: Evidence, reason: str, seed: int) -> dict[str, Estimate]:
    """Lower limits of KL(p‖π), KL(π‖p) and TV from few cells of the task's features; KL(π‖p) = ∞ where π breaks p.

    Draws of p are made from those of the base by rejection, with `seed`. `reason` is why there is no density. Empty
    where the features say nothing.
    """
    own = evidence.own
    told = _limits(evidence, reason, seed)
    kept = np.ones(len(own.draws), bool)
    for wanted in evidence.fit.wanted:
        if wanted.kind == "always":
            kept &= np.asarray(own.features[wanted.feature]) == 1
    if not kept.all():
        note = violations(share(own.draws.prompt, ~kept, own.draws.group))
        told["kl_reverse"] = Estimate(np.inf, n=len(own.draws), note=note)
    return told


def _limits(evidence: Evidence, reason: str, seed: int) -> dict[str, Estimate]:
    own, ref, fitting = evidence.own, evidence.ref, _cells(evidence)
    picked = _draws_of_p(evidence, seed)
    if not fitting or not picked.size or len(own.draws) == 0:
        return {}
    everywhere = set(range(len(evidence.prompts)))
    if set(own.draws.prompt.tolist()) != everywhere or set(ref.draws.prompt[picked].tolist()) != everywhere:
        return {}
    count = int(np.prod([size for _, size in fitting.values()]))
    mine, theirs = _joint(own, fitting), _joint(ref, fitting)[picked]
    found = cells.lower_limits((own.draws.prompt, mine), (ref.draws.prompt[picked], theirs), count, own.draws.group)
    return {part: e.noted(f"of {', '.join(fitting)}").noted(reason) for part, e in found.items()}


def _draws_of_p(evidence: Evidence, seed: int) -> Array:
    """Rows of the reference draws that are draws of p: base draws, each kept with probability exp(r − bound)."""
    ref, bound = evidence.ref, evidence.fit.log_bound
    if bound is None or ref.log_target is None or ref.log_base is None:
        return np.zeros(0, int)
    coin = np.random.default_rng(seed).random(len(ref.draws))
    kept = coin < np.exp(ref.log_target - ref.log_base - bound[ref.draws.prompt])
    return np.flatnonzero(kept & ref.of_base)


def _cells(evidence: Evidence) -> Mapping[str, tuple[Wanted, int]]:
    """Feature → what is asked of it and its number of cells, while all together make at most `cells.MOST`."""
    found: dict[str, tuple[Wanted, int]] = {}
    total = 1
    for wanted in evidence.fit.wanted:
        size = len(evidence.categories[wanted.feature]) + 1 if wanted.kind == "distribution" else 2
        if wanted.feature in found or wanted.kind == "reward" or total * size > cells.MOST:
            continue
        total *= size
        found[wanted.feature] = wanted, size
    return found


def _joint(scored: Scored, fitting: Mapping[str, tuple[Wanted, int]]) -> Array:
    """(B,) int: the cell of each draw, fixed by what is asked and not by what was drawn."""
    code = np.zeros(len(scored.draws), int)
    for feature, (wanted, size) in fitting.items():
        values = np.asarray(scored.features[feature])
        mine = values.astype(int) + 1 if wanted.kind == "distribution" else values >= _least(wanted)
        code = code * size + mine
    return code


def _least(wanted: Wanted) -> float:
    """What parts a number's two cells: 1 for a hard constraint, else the wanted mean."""
    return 1.0 if wanted.kind == "always" or wanted.value is None else wanted.value
