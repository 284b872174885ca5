"""Closeness to the task's reference texts: BLEU, chrF and ROUGE, with signatures that a paper can quote.

Text is touched once: the counts of a draw against its prompt's references are kept, and intervals are of their sums.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.metadata import version
from typing import Any

import numpy as np

from alignbench.errors import UsageError, did_you_mean
from alignbench.metrics.diversity import blocks_of, self_bleu_in
from alignbench.metrics.ngrams import ngrams, words_of
from alignbench.metrics.parameters import at_least
from alignbench.metrics.self_bleu import against
from alignbench.registry import metric
from alignbench.stats.intervals import mean_over_prompts, of_totals, on_logit_scale, spread_or_none, without_interval
from alignbench.stats.jackknife import prompts_in
from alignbench.types import Array, Draws, Estimate, Evidence

Texts = tuple[str, ...]
ROUGES = ("rouge1", "rouge2", "rougeL", "rougeLsum")
TOKENIZERS = ("13a", "char", "intl", "none", "zh")
"""Those of sacrebleu that need no further package."""


def _known(*, tokenize: str, **_: Any) -> None:
    """Raise UsageError on a tokeniser that is not there."""
    if tokenize not in TOKENIZERS:
        raise UsageError(f"argument 'tokenize': unknown tokeniser '{tokenize}'.{did_you_mean(tokenize, TOKENIZERS)}")


@metric(needs={"own", "references"}, better="higher", range=(0, 100), check=_known, opt_in=True)
def bleu(evidence: Evidence, *, tokenize: str = "13a", lowercase: bool = False) -> Estimate:
    """Corpus BLEU, 0 to 100, of all draws, each against its prompt's references: sacrebleu's, signature in the note.

    Draws are pooled; the interval is a jackknife of their counts. Source: Papineni et al., BLEU (2002); Post, A call
    for clarity in reporting BLEU scores (2018).
    """
    return _of_corpus(evidence, "BLEU", (("lowercase", lowercase), ("tokenize", tokenize)))


@metric(needs={"own", "references"}, better="higher", range=(0, 100), check=at_least(word_order=0), opt_in=True)
def chrf(evidence: Evidence, *, word_order: int = 0, lowercase: bool = False) -> Estimate:
    """Corpus chrF2, 0 to 100 (chrF2++ where `word_order` is 2), of all draws, each against its prompt's references.

    sacrebleu's, signature in the note; pooled and jackknifed as `bleu`.
    Source: Popović, chrF: character n-gram F-score for automatic MT evaluation (2015).
    """
    return _of_corpus(evidence, "CHRF", (("lowercase", lowercase), ("word_order", word_order)))


@metric(needs={"own", "references"}, better="higher", range=(0, 100), parts=ROUGES, opt_in=True)
def rouge(evidence: Evidence, *, stemmer: bool = False) -> dict[str, Estimate]:
    """ROUGE-1, -2, -L and -Lsum, 0 to 1: mean F-measure of a draw and the best of its prompt's references for it.

    rouge-score's, signature in the note; sentences of rougeLsum are lines. Mean over prompts of the mean over draws.
    Source: Lin, ROUGE (2004).
    """
    found = references_of(evidence)
    if isinstance(found, str):
        return dict.fromkeys(ROUGES, Estimate.missing(found, n=len(evidence.own.draws)))
    own = evidence.own.draws
    scores = np.array([_rouge(text, found[c], stemmer) for text, c in zip(own.texts, own.prompt, strict=True)])
    note = f"{_count(own, found)}|stem:{'yes' if stemmer else 'no'}|sents:lines|agg:mean"
    told = f"score:f1|version:{version('rouge-score')}"
    return {
        name: on_logit_scale(spread_or_none(mean_over_prompts(own.prompt, scores[:, k], own.group)))
        .noted(f"{name}|{note}|{told}")
        for k, name in enumerate(ROUGES)
    }  # fmt: skip


@metric(needs={"own", "references"}, better="", parts=("test_bleu", "self_bleu"),
        check=at_least(draws=2, words=1), opt_in=True)  # fmt: skip
def reference_self_bleu(evidence: Evidence, *, draws: int = 8, words: int = 16) -> dict[str, Estimate]:
    """Self-BLEU's two neighbours, 0 to 100: draws against all references, and the references among themselves.

    test_bleu: mean sentence BLEU of a draw against all of its prompt's references, whole texts, by words. self_bleu:
    `self_bleu` of the references, in blocks of `draws` references of `words` words, with which that of draws is to be
    compared; prompts that share their references count once. Sentence BLEU as in `self_bleu`. A generator that
    copies has high values of both, one that says what no reference says a low test_bleu.
    Source: Zhu et al., Texygen (2018).
    """
    found = references_of(evidence)
    if isinstance(found, str):
        return dict.fromkeys(("test_bleu", "self_bleu"), Estimate.missing(found, n=len(evidence.own.draws)))
    own, lists = evidence.own.draws, list(dict.fromkeys(found.values()))
    number = {references: k for k, references in enumerate(lists)}
    of_draw = np.array([number[found[c]] for c in own.prompt])
    of_list = np.repeat(np.arange(len(lists)), [len(references) for references in lists])
    texts = [text for references in lists for text in references]
    table = ngrams([words_of(t) for t in (*own.texts, *texts)], np.concatenate([of_draw, of_list]))
    scores = against(table, np.arange(table.length.size) < len(own))
    mean = on_logit_scale(spread_or_none(mean_over_prompts(own.prompt, scores, own.group)), 100.0)
    blocks = blocks_of(texts, of_list, draws, words, "references")
    return {"test_bleu": mean.noted(f"{_count(own, found)}; references as given"), "self_bleu": self_bleu_in(blocks)}


def references_of(evidence: Evidence) -> dict[int, Texts] | str:
    """Prompt with draws → its reference texts; or why there are none."""
    if not evidence.references:
        return "the task has no reference texts"
    found = {int(c): tuple(evidence.references[c]) for c in prompts_in(evidence.own.draws.prompt)}
    empty = [c for c, texts in found.items() if not texts]
    return f"no reference texts for prompt {empty[0]}" if empty else found


def _count(own: Draws, references: dict[int, Texts]) -> str:
    """`nrefs:N` of a signature; var where prompts have different numbers of references."""
    return f"nrefs:{_number(own, references)}"


def _number(own: Draws, references: dict[int, Texts]) -> int | str:
    counts = {len(references[c]) for c in prompts_in(own.prompt)}
    return counts.pop() if len(counts) == 1 else "var"


Options = tuple[tuple[str, Any], ...]


def _of_corpus(evidence: Evidence, kind: str, options: Options) -> Estimate:
    """Corpus score of one of sacrebleu's metrics, from sums of what each draw adds."""
    found, own = references_of(evidence), evidence.own.draws
    if isinstance(found, str):
        return Estimate.missing(found, n=len(own))
    scorer = _scorer(kind, options)
    rows = np.array([_counts(kind, options, t, found[c]) for t, c in zip(own.texts, own.prompt, strict=True)])

    def score(totals: Array) -> Array:
        return np.array([scorer._compute_score_from_stats(row).score for row in totals.tolist()])

    number = _number(own, found)
    scorer.num_refs = -1 if number == "var" else number
    name = scorer._compute_score_from_stats(rows[0].tolist()).name
    answer = on_logit_scale(of_totals(own.prompt, rows, score, own.group), 100.0)
    if kind == "BLEU" and answer.stderr is not None and not rows[:, 2:6].any(axis=0).all():  # matches by order
        answer = without_interval(answer, "no interval: some order of n-grams has no match but smoothing's")
    return answer.noted(f"{name}|{scorer.get_signature().format()}")


@lru_cache
def _scorer(kind: str, options: Options) -> Any:
    """One of sacrebleu's metrics."""
    from sacrebleu import metrics

    return getattr(metrics, kind)(**dict(options))


@lru_cache(2**12)
def _known_references(kind: str, options: Options, references: Texts) -> dict[str, Any]:
    """What sacrebleu counts in a prompt's references."""
    scorer = _scorer(kind, options)
    return dict(scorer._extract_reference_info([scorer._preprocess_segment(text) for text in references]))


@lru_cache(2**16)
def _counts(kind: str, options: Options, text: str, references: Texts) -> tuple[int, ...]:
    """What a draw adds to the sums of a corpus; kept, since intervals over prompts ask again and again."""
    scorer = _scorer(kind, options)
    known = _known_references(kind, options, references)
    return tuple(scorer._compute_segment_statistics(scorer._preprocess_segment(text), known))


@lru_cache(2**16)
def _rouge(text: str, references: Texts, stemmer: bool) -> tuple[float, ...]:
    """F-measures of a draw by `ROUGES`, for each against the reference that is best for it; kept as `_counts`."""
    best = _rouge_scorer(stemmer).score_multi(references, text)
    return tuple(float(best[name].fmeasure) for name in ROUGES)


@lru_cache
def _rouge_scorer(stemmer: bool) -> Any:
    from rouge_score.rouge_scorer import RougeScorer  # here, since it loads nltk

    return RougeScorer(ROUGES, use_stemmer=stemmer)
