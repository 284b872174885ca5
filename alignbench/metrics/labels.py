"""A categorical feature of the draws against labels of the prompts: accuracy and F1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from alignbench.errors import UsageError, did_you_mean, unknown
from alignbench.registry import metric
from alignbench.stats.intervals import of_totals, on_logit_scale, share
from alignbench.types import Array, Estimate, Evidence

AVERAGES = ("macro", "micro")


def _known(*, average: str, **_: Any) -> None:
    """Raise UsageError on an average that is not there."""
    if average not in AVERAGES:
        raise UsageError(f"argument 'average': unknown average '{average}'.{did_you_mean(average, AVERAGES)}")


@metric(needs={"own"}, better="higher", range=(0, 1), opt_in=True)
def accuracy(evidence: Evidence, *, feature: str, labels: dict[str, str]) -> Estimate:
    """Share of draws whose categorical `feature` is the label of their prompt; Wilson's limits, mean over prompts.

    `labels` maps prompts to names of categories; a draw that falls in none is wrong. Raises UsageError for a feature,
    prompt or label that is not there.
    """
    found = _labelled(evidence, feature, labels, "metric 'accuracy'")
    own = evidence.own.draws
    return share(own.prompt, found.code == found.label, own.group)


@metric(needs={"own"}, better="higher", range=(0, 1), check=_known, opt_in=True)
def f1(evidence: Evidence, *, feature: str, labels: dict[str, str], average: str = "macro") -> dict[str, Estimate]:
    """F1, 0 to 1, of the categorical `feature` of draws against the labels of their prompts: "", and of each label.

    2 TP/(2 TP + FP + FN) of all draws pooled; "" is the mean over the labels that prompts have ("macro"), or that of
    their summed counts ("micro"). A draw in no category is missed by its label and found by none. Jackknifed. Raises
    UsageError as `accuracy` does. Source: Sokolova and Lapalme, A systematic analysis of performance measures (2009).
    """
    found = _labelled(evidence, feature, labels, "metric 'f1'")
    present = np.unique(found.label)
    hit, truth = (x[:, None] == present for x in (found.code, found.label))
    columns = np.concatenate([hit & truth, hit & ~truth, ~hit & truth], axis=1)
    parts = {found.names[code]: columns[:, k :: present.size] for k, code in enumerate(present.tolist())}
    return {"": _pooled(evidence, columns, average), **{name: _pooled(evidence, c) for name, c in parts.items()}}


def _pooled(evidence: Evidence, columns: Array, average: str = "macro") -> Estimate:
    own, count = evidence.own.draws, columns.shape[1] // 3
    return on_logit_scale(of_totals(own.prompt, columns, lambda totals: _f1(totals, count, average), own.group))


@dataclass(frozen=True)
class _Labelled:
    """The category of each draw, and the one that its prompt's label names."""

    code: Array  # (B,) int, −1 for none
    label: Array  # (B,) int
    names: tuple[str, ...]


def _labelled(evidence: Evidence, feature: str, labels: Mapping[str, str], where: str) -> _Labelled:
    if feature not in evidence.own.features:
        raise unknown("feature", feature, evidence.own.features, where)
    names = evidence.categories.get(feature, ())
    if not names:
        raise UsageError(f"{where}: '{feature}' is a number; labels are for a categorical feature")
    unlabelled = [prompt for prompt in evidence.prompts if prompt not in labels]
    if unlabelled:
        raise UsageError(f"{where}: no label for the prompt '{unlabelled[0]}'; give one for each prompt")
    code = {name: k for k, name in enumerate(names)}
    for prompt in evidence.prompts:
        if labels[prompt] not in code:
            raise unknown("label", labels[prompt], names, f"{where}: prompt '{prompt}'")
    of_prompt = np.array([code[labels[prompt]] for prompt in evidence.prompts], int)
    return _Labelled(np.asarray(evidence.own.features[feature]), of_prompt[evidence.own.draws.prompt], names)


def _f1(totals: Array, count: int, average: str) -> Array:
    """(R,) F1 of (R, 3 · `count`) totals: true positives, false positives and false negatives of each label."""
    counts = totals.reshape(-1, 3, count)
    if average == "micro":
        counts = counts.sum(axis=2, keepdims=True)
    hits, wrong, missed = np.moveaxis(counts, 1, 0)
    return np.asarray((2 * hits / (2 * hits + wrong + missed)).mean(axis=1))
