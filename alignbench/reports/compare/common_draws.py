"""What two generators' evidence shares: the same prompts and sample numbers, and what each of their draws says."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from alignbench.errors import RunError
from alignbench.metrics.prompts import left_out
from alignbench.reports.compare.contenders import Pair
from alignbench.reports.table.board import plain_text
from alignbench.scoring.cut import first_draws
from alignbench.types import Array, Evidence

SHOWN = 60  # characters of a prompt in a note


def shared(pair: Pair) -> tuple[Evidence, Evidence, list[str]]:
    """The evidence of both on the prompts and sample numbers that both have, and what was left out.

    A sample number counts as had where it was asked for: a draw that its generator left out, its proposals used up,
    must not choose among the draws of the other. Raises RunError where no prompt has draws of both.
    """
    a, b = pair.first.evidence, pair.other.evidence
    notes = []
    count = min(pair.first.key.draws, pair.other.key.draws)
    if pair.first.key.draws != pair.other.key.draws:
        notes.append(f"the first {count} draws of each prompt: one has {pair.first.key.draws}, the other "
                     f"{pair.other.key.draws}")  # fmt: skip
        a, b = (e if m.key.draws == count else first_draws(e, count) for m, e in ((pair.first, a), (pair.other, b)))
    if pair.first.key.seed != pair.other.key.seed:
        notes.append(f"seeds {pair.first.key.seed} and {pair.other.key.seed}: no draws are shared, nothing cancels")
    absent = [c for c in range(len(a.prompts)) if not (_has(a, c) and _has(b, c))]
    if absent and len(absent) < len(a.prompts):
        told = ", ".join(repr(plain_text(a.prompts[c])[:SHOWN]) for c in absent)
        notes.append(f"prompts without draws of both are left out: {told}")
        a, b = left_out(a, *absent), left_out(b, *absent)
    elif absent:
        raise RunError(f"no common prompts to pair: {pair.first.path} and {pair.other.path} have draws of others")
    return a, b, notes


def _has(evidence: Evidence, prompt: int) -> bool:
    return bool((evidence.own.draws.prompt == prompt).any())


def of_each_draw(evidence: Evidence) -> Mapping[str, Array]:
    """Key of a metric that is a mean over own draws → (B,) the value of each draw."""
    wanted, values = evidence.fit.wanted, evidence.own.features
    found: dict[str, Array] = {}
    kept = [np.asarray(values[w.feature], float) > 0 for w in wanted if w.kind == "always"]
    if kept:
        found["satisfaction.always"] = np.all(kept, axis=0).astype(float)
    for w in wanted:
        if w.kind in ("moment", "reward"):
            found[f"satisfaction.{w.kind}.{w.feature}"] = np.asarray(values[w.feature], float)
    for name in set(values) - {w.feature for w in wanted}:
        found |= dict(_of_feature(evidence, name, f"features.{name}"))
    return found


def of_prompts(evidence: Evidence) -> Mapping[str, Array]:
    """What is told of prompts: `of_each_draw`, shares of categories, log a(x), and the KL(π‖a) of each draw, nats."""
    found = {key.partition(".")[2]: values for key, values in of_each_draw(evidence).items()}
    for name in dict.fromkeys(w.feature for w in evidence.fit.wanted if w.kind == "distribution"):
        found |= dict(_of_feature(evidence, name, name))
    told = {"log-prob under the base": evidence.own.log_base, "KL to the base": evidence.own.kl_base}
    return found | {name: np.asarray(x, float) for name, x in told.items() if x is not None}


def _of_feature(evidence: Evidence, name: str, key: str) -> Mapping[str, Array]:
    values = np.asarray(evidence.own.features[name])
    if name not in evidence.categories:
        return {key: values.astype(float)}
    return {f"{key}.{c}": (values == code).astype(float) for code, c in enumerate(evidence.categories[name])}


def aligned(a: Evidence, b: Evidence) -> bool:
    """Whether own draws of both are of the same prompts and sample numbers, in one order."""
    x, y = a.own.draws, b.own.draws
    return len(x) == len(y) and bool((x.prompt == y.prompt).all() and (x.index == y.index).all())
