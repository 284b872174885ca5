"""Metrics: `Evidence` in, one `Estimate` or a mapping part → `Estimate` out.

Lives here: one file per family of metrics, and `measure`, which asks a metric only what the evidence can answer.

    distance weighed black_box          how far π is from p and from a: by densities, weights, or features alone
    satisfaction means winning labels   what the target asks, what else the task measures, wins over the base, accuracy
    fluency entropy length cost         perplexity under a judge, entropy, lengths, tokens and calls
    diversity self_bleu mauve           many texts at once; `ngrams` is the table that the first two count
    references evaluate_module          closeness to texts of people; any module of `evaluate` (its way back is in
                                        `alignbench/integrations/`)
    fitted                              the target itself
    prompts replicates parameters       for any metric: intervals over prompts, jackknife replicates, checks

May import: floors 0 and 1 (`stats`, `types`, `errors`, `registry`), numpy, scipy and, inside a function, scikit-learn,
sacrebleu, rouge-score and evaluate; never torch, pandas, a feature or an aligner. A metric is pure: it reruns for ever
from stored draws.

To add one: a function ``(evidence, *, …)`` with ``@metric(needs={"log_gen"}, better="lower")`` in a file of its own,
imported below (a plug-in's file is found by `--include_path`). `needs` names entries of `CAPABILITIES`; `better` is
"lower", "higher" or "", or a mapping from parts (or the beginnings of parts) to these; `parts` names the parts of a
metric with several, so that each can say why it is missing; `check` is called with the parameters before anything is
sampled and raises UsageError; `range` is (lowest, highest), or a mapping like `better`: limits keep to it, those of
means over prompts and seeds too;
`opt_in=True` keeps a metric out of tasks that do not name it, `detail=True` out of leaderboards that do not;
`replicates=False` keeps one that is slow or not smooth from being measured again without each block of draws, and
`units` says which draws leave together, see `replicates.py`; `runs_code=True` says that its arguments name code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from alignbench.errors import RunError, brief, plain_failures
from alignbench.registry import metric
from alignbench.stats.intervals import inside
from alignbench.types import Estimate, Evidence

CAPABILITIES: Mapping[str, Callable[[Evidence], bool]] = {
    "own": lambda e: len(e.own.draws) > 0,
    "ref": lambda e: len(e.ref.draws) > 0,
    "log_base": lambda e: e.own.log_base is not None and e.ref.log_base is not None,
    "log_target": lambda e: e.own.log_target is not None and e.ref.log_target is not None,
    "log_gen": lambda e: e.own.log_gen is not None and e.ref.log_gen is not None,
    "log_judge": lambda e: e.own.log_judge is not None,
    "kl_base": lambda e: e.own.kl_base is not None,
    "proposals": lambda e: e.proposed is not None,
    "references": lambda e: bool(e.references),
}
REASONS: Mapping[str, str] = {
    "own": "no draws of the generator",
    "ref": "no draws of the base",
    "log_base": "draws were not scored under the base",
    "log_target": "draws were not scored under the target",
    "log_gen": "the generator has no density",
    "log_judge": "draws were not scored under a judge",
    "kl_base": "the generator gives no next-token probabilities",
    "proposals": "the generator rejects nothing",
    "references": "the task has no reference texts",
}


def lacking(evidence: Evidence, *needs: str) -> str:
    """Why the evidence cannot answer a question that `needs` these `CAPABILITIES`; empty when it can."""
    for name in sorted(needs, key=list(CAPABILITIES).index):
        if not CAPABILITIES[name](evidence):
            return evidence.reasons.get(name) or REASONS[name]
    return ""


def measure(name: str, evidence: Evidence, **params: Any) -> dict[str, Estimate]:
    """The metric `name` by part ("" for a metric of one number); what cannot be measured says why.

    Raises UnknownName for a name that nobody registered, UsageError for an argument that the metric does not take, and
    RunError where the metric itself fails.
    """
    entry = metric.find(name)
    entry.check(params, where=f"metric '{name}'")
    reason = lacking(evidence, *(n for n in entry.meta.get("needs", ()) if n in CAPABILITIES))
    if reason:
        return dict.fromkeys(entry.meta.get("parts", ("",)), Estimate.missing(reason))
    with plain_failures(f"metric '{name}'", RunError):
        answer = entry.thing(evidence, **params)
    parts = {"": answer} if isinstance(answer, Estimate) else answer
    if not isinstance(parts, Mapping) or not all(isinstance(e, Estimate) for e in parts.values()):
        raise RunError(f"metric '{name}' gave {brief(answer)}, not an Estimate or a mapping from parts to Estimates")
    return within_range(name, parts)


def within_range(name: str, parts: Mapping[str, Estimate]) -> dict[str, Estimate]:
    """The parts of the metric `name`, with limits inside the `range` that it declares."""
    spans = {part: range_of(name, part) for part in parts}
    return {str(part): e if (span := spans[part]) is None else inside(e, span) for part, e in parts.items()}


def better(name: str, part: str = "") -> str:
    """Which way is better, "lower" or "higher", for a part of the metric `name`; "" where neither is."""
    return str(_of_part(metric.find(name).meta.get("better", ""), part) or "")


def range_of(name: str, part: str = "") -> tuple[float, float] | None:
    """What a part of the metric `name` cannot lie outside; None where nothing is declared, or nobody registered it."""
    return _of_part(metric[name].meta.get("range"), part) if name in metric else None


def _of_part(declared: Any, part: str) -> Any:
    """What is declared of a part: the same for all, or by the longest beginning of its name."""
    if not isinstance(declared, Mapping):
        return declared
    fitting = [key for key in declared if key == part or (key and part.startswith(key))]
    return declared[max(fitting, key=len)] if fitting else None


from alignbench.metrics import (  # noqa: E402
    cost,
    distance,
    diversity,
    entropy,
    evaluate_module,
    fitted,
    fluency,
    labels,
    length,
    mauve,
    means,
    references,
    satisfaction,
    winning,
)

__all__ = [
    "CAPABILITIES",
    "REASONS",
    "better",
    "cost",
    "distance",
    "diversity",
    "entropy",
    "evaluate_module",
    "fitted",
    "fluency",
    "labels",
    "lacking",
    "length",
    "mauve",
    "means",
    "measure",
    "range_of",
    "references",
    "satisfaction",
    "winning",
    "within_range",
]
