"""Words and n-grams of many texts at once, as numbers: what the measures of diversity count."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from scipy.sparse import csr_array
from scipy.special import xlogy

from alignbench.types import Array

WORD = re.compile(r"\w+(?:['’]\w+)*")


def words_of(text: str) -> list[str]:
    """Lower-cased runs of Unicode letters, digits and underscores; an apostrophe inside a word belongs to it."""
    return WORD.findall(text.lower())


@dataclass(frozen=True)
class NGrams:
    """The n-grams of N texts for n = 1, 2, …: equal numbers are equal n-grams of one block of texts.

    N-grams of different blocks have different numbers, so that what is counted by n-gram is counted by block.
    """

    block: Array  # (N,) int 0, 1, …: the block of each text
    length: Array  # (N,) words of each text
    grams: tuple[Array, ...]  # for each n: (M_n,) int 0, 1, …, place by place, text by text

    def text(self, n: int) -> Array:
        """(M_n,) which text each n-gram stands in."""
        return np.repeat(np.arange(self.length.size), self.each(n))

    def each(self, n: int) -> Array:
        """(N,) how many n-grams each text has."""
        return np.asarray(np.maximum(self.length - n + 1, 0))


def ngrams(texts: Sequence[Sequence[str]], block: Array | None = None, longest: int = 4) -> NGrams:
    """The table of n-grams of `texts` in words, n = 1 … `longest`; `block` (N,) int: the block of each, else one.

    An n-gram's number is made from that of its first n − 1 words and its last word: sorting integers is all the work.
    """
    length = np.fromiter(map(len, texts), int, len(texts))
    blocks = np.zeros(length.size, int) if block is None else np.asarray(block, int)
    word = _pairs(np.repeat(blocks, length), _numbered(chain.from_iterable(texts), int(length.sum())))
    left = np.repeat(np.cumsum(length), length) - np.arange(word.size)  # words from here to the end of the text
    begun, found = word, [word]
    for n in range(2, longest + 1):
        here = np.flatnonzero(left >= n)
        longer = _pairs(begun[here], word[here + n - 1])
        found.append(longer)
        begun = np.zeros_like(word)
        begun[here] = longer
    return NGrams(blocks, length, tuple(found))


def _numbered(words: Iterable[str], count: int) -> Array:
    """(count,) int 0, 1, …: equal numbers are equal words."""
    known: dict[str, int] = {}
    return np.fromiter((known.setdefault(word, len(known)) for word in words), int, count)


def _pairs(first: Array, second: Array) -> Array:
    """(M,) int 0, 1, …: equal numbers are equal pairs. Both are below 2³¹, so that a pair fits in 63 bits."""
    return np.unique(first * (second.max(initial=0) + 1) + second, return_inverse=True)[1]


def distinct_in(table: NGrams, n: int) -> Array:
    """(K,) how many distinct n-grams each block 0 … K − 1 has."""
    block = np.zeros(table.grams[n - 1].max(initial=-1) + 1, int)
    block[table.grams[n - 1]] = table.block[table.text(n)]
    return np.asarray(np.bincount(block, minlength=int(table.block.max(initial=-1)) + 1))


def entropy_in_blocks(table: NGrams, n: int) -> Array:
    """(K,) entropy in nats of the shares of each block's n-grams; 0 where it has none."""
    every = np.bincount(table.block, table.each(n))
    grams = table.grams[n - 1]
    block = np.zeros(grams.max(initial=-1) + 1, int)
    block[grams] = table.block[table.text(n)]
    share = np.bincount(grams) / every[block]
    return np.asarray(np.bincount(block, -share * np.log(share), every.size))


def similarities(table: NGrams, orders: Sequence[int]) -> Array:
    """(K, D, D) mean over `orders` of the cosines of the counts of n-grams of each two of a block's D texts.

    The texts stand block by block, all blocks have as many. Texts without an n-gram of an order are alike in it.
    """
    count, size = int(table.block[-1]) + 1, int((table.block == 0).sum())
    total = np.zeros((count, size, size))
    for n in orders:
        text, grams = table.text(n), table.grams[n - 1]
        empty = np.flatnonzero(table.each(n) == 0)  # as if their one n-gram were that of all such texts
        text, grams = np.append(text, empty), np.append(grams, np.full(empty.size, grams.max(initial=-1) + 1))
        counts = csr_array((np.ones(grams.size), (text, grams)))
        counts.sum_duplicates()
        length = np.sqrt(counts.multiply(counts).sum(axis=1))
        dots = (counts @ counts.T).tocoo()
        row, col = dots.coords
        same = table.block[row] == table.block[col]  # texts of different blocks share no n-gram but that
        row, col, cosine = row[same], col[same], (dots.data / (length[row] * length[col]))[same]
        total[table.block[row], row % size, col % size] += cosine
    return np.asarray(total / len(orders))


def vendi_score(kernel: Array) -> Array:
    """(K,) the exponential of the entropy of the eigenvalues of kernel/D, for (K, D, D) kernels with diagonal 1.

    Source: Friedman and Dieng, The Vendi score: a diversity evaluation metric for machine learning (2023), eq. 1.
    """
    share = np.maximum(np.linalg.eigvalsh(kernel / kernel.shape[-1]), 0.0)  # below 0 by rounding alone
    return np.asarray(np.exp(-xlogy(share, share).sum(axis=-1)))
