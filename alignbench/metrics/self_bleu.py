"""Self-BLEU in time linear in the number of texts: every text against all others of its block, as sacrebleu scores it.

Leaving a text out of the references changes an n-gram's largest count only where it is that text's own, and then to
the second largest: two numbers an n-gram stand for all N leave-one-out sets of references.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from alignbench.metrics.ngrams import NGrams, ngrams
from alignbench.types import Array

ORDERS = (1, 2, 3, 4)


def self_bleu_of(texts: Sequence[Sequence[str]]) -> Array:
    """(N,) sentence BLEU, 0 to 100, of each text in words against all the others; see `leave_one_out`."""
    return leave_one_out(ngrams(texts, longest=ORDERS[-1]))


def leave_one_out(table: NGrams) -> Array:
    """(N,) sentence BLEU, 0 to 100, of each text against all others of its block, n-grams up to 4 words.

    As sacrebleu's ``BLEU(tokenize="none", smooth_method="exp", effective_order=True).sentence_score``. Raises
    ValueError where a text is alone in its block. Source: Papineni et al., BLEU (2002); Chen and Cherry, A systematic
    comparison of smoothing techniques for sentence-level BLEU (2014), method 3; Post, A call for clarity in reporting
    BLEU scores (2018); Zhu et al., Texygen (2018).
    """
    if table.length.size and np.bincount(table.block)[table.block].min() < 2:
        raise ValueError("Self-BLEU needs at least 2 texts in a block")
    correct = np.stack([matched(table, n) for n in ORDERS])
    total = np.stack([table.each(n) for n in ORDERS])
    return brevity(table.length, closest(table.block, table.length)) * precision(correct, total)


def matched(table: NGrams, n: int) -> Array:
    """(N,) n-grams of each text that the others of its block have, each counted as often as in one other at most."""
    grams, texts = table.grams[n - 1], table.length.size
    cell, count = np.unique(grams * texts + table.text(n), return_counts=True)  # sorted by n-gram, then text
    gram, text = np.divmod(cell, max(texts, 1))
    return np.bincount(text, np.minimum(count, _most_elsewhere(gram, count)), texts)


def _most_elsewhere(gram: Array, count: Array) -> Array:
    """(M,) largest count of the same n-gram in another text, 0 if none; `gram` (M,) is sorted, a text a row.

    A row that has the largest count alone gets the second largest.
    """
    if not gram.size:
        return count
    starts = np.flatnonzero(np.diff(gram, prepend=-1))
    largest = np.maximum.reduceat(count, starts)[gram]
    top = np.flatnonzero(count == largest)
    top = top[np.diff(gram[top], prepend=-1) > 0]  # the first of those with the largest
    rest = count.copy()
    rest[top] = 0
    elsewhere = largest
    elsewhere[top] = np.maximum.reduceat(rest, starts)
    return elsewhere


def closest(block: Array, length: Array) -> Array:
    """(N,) the length nearest to each text's own among the others of its block, the shorter of two as near.

    Sorted by length, it is a neighbour's. Each block has at least 2 texts.
    """
    order = np.lexsort((length, block))
    where, ranked = block[order], length[order].astype(float)
    same = where[1:] == where[:-1]
    step = np.where(same, np.diff(ranked), np.inf)
    below, above = np.append(np.inf, step), np.append(step, np.inf)
    answer = np.empty_like(ranked)
    answer[order] = np.where(below <= above, ranked - below, ranked + above)
    return answer


def brevity(length: Array, reference: Array) -> Array:
    """(N,) brevity penalty, 0 to 1: exp(1 − reference/length) where shorter than the reference, 0 where empty."""
    ratio = np.divide(reference, length, out=np.full(length.shape, np.inf), where=length > 0)
    return np.asarray(np.exp(np.minimum(1 - ratio, 0.0)))


def precision(correct: Array, total: Array) -> Array:
    """(N,) geometric mean, 0 to 100, of the n-gram precisions correct/total (4, N), over the orders that a text has.

    The i-th precision of 0 counts as 2⁻ⁱ/total (exponential smoothing); without any match the score is 0.
    """
    there, missed = total > 0, (total > 0) & (correct == 0)
    kept = np.where(missed, 0.5 ** np.cumsum(missed, axis=0), correct)
    logs = np.log(kept / np.where(there, total, 1), out=np.zeros(kept.shape), where=there)
    mean = logs.sum(axis=0) / np.maximum(there.sum(axis=0), 1)
    return np.where(correct.any(axis=0), 100 * np.exp(mean), 0.0)
