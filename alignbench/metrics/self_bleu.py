"""Self-BLEU in time linear in the number of texts: every text against all others of its block, as sacrebleu scores it.

Leaving a text out of the references changes an n-gram's largest count only where it is that text's own, and then to
the second largest: two numbers an n-gram stand for all N leave-one-out sets of references.
"""

from __future__ import annotations

import numpy as np

from alignbench.metrics.ngrams import NGrams
from alignbench.types import Array

ORDERS = (1, 2, 3, 4)


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


def against(table: NGrams, own: Array) -> Array:
    """(M,) sentence BLEU, 0 to 100, of each text that is `own` (N,) bool against all of its block that are not.

    Scored as in `leave_one_out`; each block with an own text must have one that is not.
    """
    correct = np.stack([_among(table, own, n) for n in ORDERS])
    total = np.stack([table.each(n)[own] for n in ORDERS])
    nearest = _nearest((table.block[own], table.length[own]), (table.block[~own], table.length[~own]))
    return brevity(table.length[own], nearest) * precision(correct, total)


def _among(table: NGrams, own: Array, n: int) -> Array:
    """(M,) n-grams of each own text that the others of its block have, each counted as often as in one at most."""
    grams, texts = table.grams[n - 1], table.length.size
    cell, count = np.unique(grams * texts + table.text(n), return_counts=True)
    gram, text = np.divmod(cell, max(texts, 1))
    mine, most = own[text], np.zeros(grams.max(initial=-1) + 1, int)
    np.maximum.at(most, gram[~mine], count[~mine])
    return np.bincount(text[mine], np.minimum(count, most[gram])[mine], texts)[own]


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


def _nearest(own: tuple[Array, Array], others: tuple[Array, Array]) -> Array:
    """(M,) the length of `others` nearest to each own one in its block, the shorter of two as near.

    Both are (block, length); each own block has others.
    """
    order = np.lexsort((others[1], others[0]))
    block, length = others[0][order], others[1][order].astype(float)
    wide = int(max(own[1].max(initial=0), others[1].max(initial=0))) + 1
    at = np.searchsorted(block * wide + length, own[0] * wide + own[1])
    sides = []
    for side in (at - 1, at):  # of texts sorted by length within blocks, the last that is shorter and the next
        row = np.clip(side, 0, length.size - 1)
        sides.append(np.where((row == side) & (block[row] == own[0]), length[row], np.inf))
    return np.asarray(np.where(np.abs(own[1] - sides[0]) <= np.abs(sides[1] - own[1]), *sides))


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
