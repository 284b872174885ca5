"""MAUVE over features of words: how much the texts of two laws overlap when they are put in clusters."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from alignbench.errors import UsageError, did_you_mean
from alignbench.metrics.ngrams import words_of
from alignbench.metrics.parameters import at_least
from alignbench.registry import metric
from alignbench.stats.frontier import SCALING, Binned, of_one_law
from alignbench.stats.frontier import mauve as mauve_of
from alignbench.stats.jackknife import prompts_in, strata
from alignbench.stats.moments import self_normalised
from alignbench.stats.weights import SHARES, p_draws, refusal
from alignbench.types import Array, Draws, Estimate, Evidence

AGAINST = ("p", "references")
FEWEST = 50
"""Texts of either law, below which there are fewer than 5 clusters of 10."""
MOST = 500
"""Clusters at most, the paper's number for 5,000 texts."""
HASHED, DIMENSIONS = 2**16, 32
TURNS = 20
"""Of k-means at most: 300 in place of 20 moved the score of 4,000 texts by 0.0002, a 20th of its standard error."""


def _known(*, against: str, scaling: float, seeds: int, clusters: int | None) -> None:
    """Raise UsageError on a parameter that means nothing."""
    if against not in AGAINST:
        wrong = did_you_mean(against, AGAINST)
        raise UsageError(f"argument 'against': must be {' or '.join(AGAINST)}, not '{against}'.{wrong}")
    if not 0 < scaling < np.inf:
        raise UsageError(f"argument 'scaling': must be above 0, not {scaling:g}")
    at_least(seeds=1, clusters=2)(seeds=seeds, **({} if clusters is None else {"clusters": clusters}))


@metric(needs={"own"}, better="higher", range=(0, 1), check=_known, opt_in=True, replicates=False)
def mauve(
    evidence: Evidence, *, against: str = "p", scaling: float = SCALING, seeds: int = 3, clusters: int | None = None
) -> Estimate:
    """MAUVE, 0 to 1 (1: one law), of own draws against draws of "p", or the task's "references", by features of words.

    Not comparable with published values, which stand on a language model's embeddings: these features are hashed
    counts of words and pairs of words, tf-idf, 32 singular vectors. k-means puts the continuations of all prompts,
    which weigh equally, in `clusters` (default: a tenth of the smaller set, 2 to 500); the mean of `seeds` of them.
    Draws of p are reference draws by their weights, λ as fitted. The note tells what finite samples of one law score.
    Source: Pillutla et al., MAUVE (2021); Pimentel, Meister and Cotterell, On the usefulness of embeddings, clusters
    and strings for text generator evaluation (2023).
    """
    own = evidence.own.draws
    theirs = _of_p(evidence) if against == "p" else _references(evidence)
    if isinstance(theirs, str):
        return Estimate.missing(theirs, n=len(own))
    texts, other = theirs
    mine = _unbinned(own.prompt, np.ones(len(own)), own.group)
    fewest = min(mine.worth.sum(), other.worth.sum())
    if fewest < FEWEST:
        return Estimate.missing(f"{fewest:.3g} texts in the smaller set, {FEWEST} are needed", n=len(own))
    count = clusters or int(np.clip(fewest // 10, 2, MOST))
    bucket = _clusters([*own.texts, *texts], np.concatenate([mine.share, other.share]), count, seeds)
    mine, other = replace(mine, bucket=bucket[: len(own)]), replace(other, bucket=bucket[len(own) :])
    low, high = of_one_law(other, mine, scaling)
    return mauve_of(other, mine, scaling).noted(
        f"by features of words, not comparable with published values; {bucket.max() + 1} clusters; score and interval "
        f"are for sets of these sizes, which score {low:.3g} to {high:.3g} where both are of one law"
    )


Texts = tuple[Sequence[str], Binned]


def _unbinned(prompt: Array, weight: Array, group: Array | None = None) -> Binned:
    """Draws without buckets yet, each unit worth one draw."""
    worth = np.array([unit.max() + 1 for _, unit in strata(prompt, group)], float)
    return Binned(np.asarray(prompt), np.zeros((len(prompt), 1), int), weight, worth, group)


def _of_p(evidence: Evidence) -> Texts | str:
    """The reference draws weighed as draws of p; or why they cannot stand for p."""
    ref = evidence.ref
    law = ref.log_base if ref.log_proposal is None else ref.log_proposal
    if ref.log_target is None or law is None:
        return evidence.reasons.get("log_base") or "draws were not scored under base and target"
    prompt, r = np.asarray(ref.draws.prompt), np.asarray(ref.log_target, float) - np.asarray(law, float)
    if prompts_in(prompt).tolist() != prompts_in(evidence.own.draws.prompt).tolist():
        return "own draws and draws of the base are of different prompts"
    if _among(evidence.own.draws, ref.draws):
        return "own draws are themselves reference draws, by which p is known: the other rows' notes say what p scores"
    if refused := refusal(prompt, r, SHARES):
        return refused
    weight = self_normalised(r, prompt)[0] * np.bincount(prompt)[prompt]
    plain = _unbinned(prompt, weight, ref.draws.group)
    return ref.draws.texts, replace(plain, worth=p_draws(prompt, r), component=ref.component)


def _among(own: Draws, ref: Draws) -> bool:
    """Whether all own draws are reference draws, as in the row of draws of p: same prompt, sample number and text."""
    seen = set(zip(ref.prompt.tolist(), ref.index.tolist(), ref.texts, strict=True))
    return seen.issuperset(zip(own.prompt.tolist(), own.index.tolist(), own.texts, strict=True))


def _references(evidence: Evidence) -> Texts | str:
    """The task's reference texts; or why there are none to compare with."""
    if not evidence.references:
        return "the task has no reference texts"
    drawn = prompts_in(evidence.own.draws.prompt)
    lost = [c for c in drawn if not evidence.references[c]]
    if lost:
        return f"no reference texts for prompt {lost[0]}"
    count = Counter(tuple(evidence.references[c]) for c in drawn)
    if len(set(count.values())) > 1:
        return "some prompts share their references and others do not: give all the same, or each its own"
    texts = [text for references in count for text in references]
    prompt = np.repeat(np.arange(len(count)), list(map(len, count)))  # a list that prompts share was drawn once
    return texts, _unbinned(prompt, np.ones(prompt.size))


def _clusters(texts: Sequence[str], share: Array, count: int, seeds: int) -> Array:
    """(n, seeds) cluster of each text by k-means on texts that weigh `share` (n,), from each seed.

    Texts of the same words are one point; those without weight are in cluster 0, which no mass goes to.
    """
    number: dict[str, int] = {}
    rows = np.flatnonzero(share > 0)
    point = np.array([number.setdefault(" ".join(words_of(texts[i])), len(number)) for i in rows.tolist()])
    answer = np.zeros((len(texts), seeds), int)
    if len(number) > 1:
        places, weight = _features(list(number)), np.bincount(point, share[rows])
        for seed in range(seeds):
            answer[rows, seed] = _k_means(places, weight, min(count, len(number)), seed)[point]
    return answer


def _features(lines: Sequence[str]) -> Array:
    """(P, ≤ 32) features of lines of words: hashed counts of words and pairs, tf-idf, singular vectors."""
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
    from sklearn.utils.extmath import randomized_svd

    hashed = HashingVectorizer(
        tokenizer=str.split, token_pattern=None, lowercase=False, ngram_range=(1, 2), n_features=HASHED, norm=None,
        alternate_sign=False,
    ).transform(lines)  # fmt: skip
    weighed = TfidfTransformer(sublinear_tf=True).fit_transform(hashed)
    left, size, _ = randomized_svd(weighed, min(DIMENSIONS, len(lines)), random_state=0)
    return np.asarray(left * size)


def _k_means(places: Array, weight: Array, count: int, seed: int) -> Array:
    """(P,) cluster 0 … count − 1 of each place; fewer where places coincide."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct places than clusters: the rest are empty
        means = KMeans(count, n_init=1, max_iter=TURNS, random_state=seed).fit(places, sample_weight=weight)
    return np.asarray(means.labels_)
