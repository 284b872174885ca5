"""Leave-one-out Self-BLEU: sacrebleu's own values, whatever the texts, and bugs that the comparison catches."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics.bleu import BLEU

from alignbench.metrics import self_bleu
from alignbench.metrics.ngrams import ngrams
from alignbench.metrics.self_bleu import leave_one_out

PEER = BLEU(tokenize="none", smooth_method="exp", effective_order=True, force=True)
CLOSE = 1e-9


def self_bleu_of(texts):
    return leave_one_out(ngrams(texts))


def peer(texts):
    lines = [" ".join(text) for text in texts]
    return np.array([PEER.sentence_score(x, lines[:i] + lines[i + 1 :]).score for i, x in enumerate(lines)])


def error(texts):
    return np.abs(self_bleu_of(texts) - peer(texts)).max()


def corpora(letters):
    text = st.lists(st.sampled_from(letters), max_size=12)
    return st.lists(text, min_size=2, max_size=9)


@settings(max_examples=300, deadline=None)
@given(corpora("ab") | corpora("abcdef"), st.integers(0, 3))
def test_it_is_sacrebleus_value(texts, copies):
    assert error(texts + texts[:1] * copies) < CLOSE


def random_corpus(seed):
    rng = np.random.default_rng(seed)
    return [list(rng.choice(list("abcde"), rng.integers(0, 15))) for _ in range(rng.integers(2, 12))]


@pytest.mark.parametrize(
    "texts",
    [
        ["a", "a"], ["", ""], ["", "a"], ["", "a", "a b c"], ["a b", "c d"], ["a", "b", "a b"],
        ["a b c", "a b c", "a b c"], ["a a a a a", "a", "a a"], ["a b c d", "a b c d e f", "a b"],
        ["a b c d e", "a b c", "a b c d e f g"],  # references of 3 and 7 words are as near to 5: the shorter counts
        ["a b c d e", "e d c b a"],  # no match but of single words: three precisions smoothed
    ],
)  # fmt: skip
def test_corners(texts):
    assert error([text.split() for text in texts]) < CLOSE


def test_long_texts_of_a_large_vocabulary():
    words = np.random.default_rng(0).zipf(1.3, (60, 40)).astype(str)
    assert error(words.tolist()) < CLOSE


def largest_always(gram, count):
    most = np.zeros(gram.max(initial=-1) + 1, int)
    np.maximum.at(most, gram, count)
    return most[gram]


def never_itself(gram, count):
    most = largest_always(gram, count)
    return np.where(count == most, 0, most)


BUGS = {
    "largest count always": ("_most_elsewhere", largest_always),
    "no second place": ("_most_elsewhere", never_itself),
    "mean reference": ("closest", lambda block, length: (length.sum() - length) / (length.size - 1)),
    "shortest reference": ("closest", lambda block, length: np.full(length.size, float(length.min()))),
    "itself a reference": ("closest", lambda block, length: length),
    "no brevity": ("brevity", lambda length, reference: np.ones(length.size)),
}


@pytest.mark.parametrize("bug", BUGS)
def test_planted_bugs_are_caught(monkeypatch, bug):
    assert max(error(random_corpus(seed)) for seed in range(20)) < CLOSE
    monkeypatch.setattr(self_bleu, *BUGS[bug])
    assert max(error(random_corpus(seed)) for seed in range(20)) > 1


def test_the_longer_of_two_references_as_near_is_caught(monkeypatch):
    texts = [text.split() for text in ("a b c d e", "a b c", "a b c d e f g")]
    right = self_bleu.closest
    assert right(np.zeros(3, int), np.array([5, 3, 7])).tolist() == [3, 5, 5]
    monkeypatch.setattr(self_bleu, "closest", lambda block, length: np.where(length == 5, 7, right(block, length)))
    assert error(texts) > 1


def test_blocks_are_scored_each_for_itself_in_any_order():
    corpora = [random_corpus(seed) for seed in range(8)]
    texts = [text for corpus in corpora for text in corpus]
    block = np.repeat(np.arange(8), [len(c) for c in corpora])
    order = np.random.default_rng(0).permutation(block.size)
    found = np.empty(block.size)
    found[order] = leave_one_out(ngrams([texts[i] for i in order], block[order]))
    assert np.abs(found - np.concatenate([peer(c) for c in corpora])).max() < CLOSE
    assert np.abs(found - self_bleu_of(texts)).max() > 1  # planted: one block of all


def test_a_text_alone_has_no_self_bleu():
    with pytest.raises(ValueError, match="at least 2 texts in a block"):
        self_bleu_of([["a"]])
    with pytest.raises(ValueError, match="at least 2"):
        leave_one_out(ngrams([["a"], ["a"], ["a"]], np.array([0, 1, 1])))
    assert self_bleu_of([]).size == 0
