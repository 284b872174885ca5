"""n-gram entropy, unique share, Vendi and compression in blocks: exact values, planted bugs, coverage."""

import gzip
import math
from itertools import product

import numpy as np
import pytest
from evidences import of_texts
from scipy.stats import entropy

from alignbench import metrics
from alignbench.errors import UsageError
from alignbench.metrics.ngrams import entropy_in_blocks, ngrams, similarities, vendi_score
from alignbench.registry import metric


def corpus(seed, texts=24, words=6, letters="abcdef"):
    rng = np.random.default_rng(seed)
    return [list(rng.choice(list(letters), words)) for _ in range(texts)]


def grams_of(texts, n):
    return [tuple(t[i : i + n]) for t in texts for i in range(len(t) - n + 1)]


def test_entropy_is_that_of_the_counts():
    texts, block = corpus(0), np.repeat(np.arange(6), 4)
    for n in (1, 2, 3):
        exact = [
            entropy(np.unique(["·".join(g) for g in grams_of(texts[k : k + 4], n)], return_counts=True)[1])
            for k in range(0, 24, 4)
        ]
        assert entropy_in_blocks(ngrams(texts, block), n) == pytest.approx(exact)
        assert entropy_in_blocks(ngrams(texts), n)[0] > max(exact)  # planted: all blocks as one


def test_entropy_of_equal_and_of_unlike_texts_in_nats():
    unlike = [" ".join(f"w{i}{j}" for j in range(4)) for i in range(12)]
    answer = metrics.measure("ngram_entropy", of_texts(unlike), draws=2, words=4)
    assert [answer[n].value for n in "123"] == pytest.approx([math.log(8), math.log(6), math.log(4)])
    same = metrics.measure("ngram_entropy", of_texts(["a a a a"] * 12), draws=2, words=4)
    assert same["1"].value == 0 and "do not differ" in same["1"].note
    assert metrics.measure("ngram_entropy", of_texts(unlike), draws=2, words=2)["3"].note == "2 words have no 3-gram"


def peer_vendi(texts, orders=(1, 2)):
    """Word by word: eigenvalues of the mean cosine kernel."""
    kernel = np.zeros((len(texts), len(texts)))
    for n in orders:
        bags = [grams_of([t], n) for t in texts]
        names = sorted({g for bag in bags for g in bag})
        counts = np.array([[bag.count(g) for g in names] for bag in bags], float)
        counts /= np.linalg.norm(counts, axis=1, keepdims=True)
        kernel += counts @ counts.T / len(orders)
    return math.exp(entropy(np.clip(np.linalg.eigvalsh(kernel / len(texts)), 0, None)))


def test_vendi_is_that_of_the_kernel():
    texts, block = corpus(1), np.repeat(np.arange(6), 4)
    found = vendi_score(similarities(ngrams(texts, block), (1, 2)))
    assert found == pytest.approx([peer_vendi(texts[k : k + 4]) for k in range(0, 24, 4)])
    assert found != pytest.approx([peer_vendi(texts[k : k + 4], (1,)) for k in range(0, 24, 4)])  # planted


def test_vendi_counts_unlike_texts():
    unlike = [" ".join(f"w{i}{j}" for j in range(4)) for i in range(12)]
    value = metrics.measure("vendi", of_texts(unlike), draws=4, words=4)[""].value
    assert value == pytest.approx(4)
    twice = [text for text in unlike for _ in range(2)]
    assert metrics.measure("vendi", of_texts(twice), draws=4, words=4)[""].value == pytest.approx(2)
    assert metrics.measure("vendi", of_texts(["a b c"] * 24), draws=4, words=3)[""].value == pytest.approx(1)
    mixed = metrics.measure("vendi", of_texts([*unlike, *unlike[:8], *unlike[:2] * 2]), draws=4, words=4)[""]
    assert 1 < mixed.ci_low < mixed.value < mixed.ci_high < 4


def test_unique_share_counts_texts_that_are_there_once():
    texts = ["a  b", "a b", "c", "d", "e", "f", "g", "h"]
    answer = metrics.measure("unique_share", of_texts(texts), draws=4)[""]
    assert answer.value == pytest.approx((2 / 4 + 1) / 2)  # planted: distinct over all would be 3/4 in the first block
    assert answer.note.startswith("blocks of 4 draws; 2 blocks")
    assert metrics.measure("unique_share", of_texts(texts), draws=3)[""].note.split("; ")[1] == (
        "2 of 8 draws fill no block"
    )


def test_unique_share_covers():
    exact = np.mean([sum(x.count(t) == 1 for t in x) / 3 for x in product("abcd", repeat=3)])
    held = 0
    for seed in range(200):
        texts = list(np.random.default_rng(seed).choice(list("abcd"), 60))
        answer = metrics.measure("unique_share", of_texts(texts, np.arange(60) // 30), draws=3)[""]
        held += answer.ci_low <= exact <= answer.ci_high
    assert held >= 0.91 * 200


def test_vendi_covers():
    """Of 100 blocks: the one in 9 whose texts are equal is all the spread, and 20 blocks often have none."""
    exact = np.mean([peer_vendi([[a, b], [c, d]]) for a, b, c, d in product("abc", repeat=4)])
    held = 0
    for seed in range(150):
        texts = [" ".join(x) for x in np.random.default_rng(seed).choice(list("abc"), (200, 2))]
        answer = metrics.measure("vendi", of_texts(texts, np.arange(200) // 100), draws=2, words=2)[""]
        held += answer.ci_low <= exact <= answer.ci_high
    assert held >= 0.9 * 150


def test_compression_is_gzips_on_texts_of_as_many_words():
    texts = [f"The {w}, the cat!  And more of it" for w in ("red", "blue", "green", "black")] * 2
    cut = [text.partition("!")[0] for text in texts]
    exact = [len(x) / len(gzip.compress(x, 9)) for x in ("\n".join(cut[k : k + 4]).encode() for k in (0, 4))]
    answer = metrics.measure("compression_ratio", of_texts(texts), draws=4, words=4)[""]
    assert answer.value == pytest.approx(np.mean(exact))
    copies = metrics.measure("compression_ratio", of_texts(["the red cat sat on it"] * 16), draws=8, words=6)[""]
    assert copies.value > answer.value and copies.value > 1


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("ngram_entropy", {"draws": 0}), ("unique_share", {"draws": 1}), ("vendi", {"words": 1}),
     ("compression_ratio", {"words": 0})],
)  # fmt: skip
def test_impossible_parameters(name, wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        metric.find(name).check(wrong)
    assert metric.find(name).opt_in and not metrics.better(name)
