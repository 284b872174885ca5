"""Diversity at a fixed number of draws and words: the goal is the diversity of the target's draws, not the most.

A block is `draws` draws of one prompt, each cut after its `words`-th word. How many words that is, the reference draws
say, which all rows of a table share. A shorter draw counts whole: a generator that collapsed to short texts is seen.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import islice
from math import inf

import numpy as np

from alignbench.metrics.ngrams import (
    WORD,
    NGrams,
    distinct_in,
    entropy_in_blocks,
    ngrams,
    similarities,
    vendi_score,
    words_of,
)
from alignbench.metrics.parameters import at_least
from alignbench.metrics.self_bleu import leave_one_out
from alignbench.registry import metric
from alignbench.stats.intervals import (
    mean_over_prompts,
    moved,
    normal,
    on_logit_scale,
    spread_or_none,
    without_interval,
)
from alignbench.stats.jackknife import strata
from alignbench.types import Array, Estimate, Evidence

FEWEST = 5  # blocks in all that an interval needs: from 4, their standard deviation is known to a factor of 4 at best
ORDERS = (1, 2, 3)
WORDS = (16, 8, 4, 2, 1)
"""Words a draw: the first of these that `REACH` of the reference draws have. Few steps: a draw less rarely moves it."""
REACH = 0.9


def words_in(evidence: Evidence) -> int:
    """Words that a draw is cut to where a metric is not told: as many as nearly all reference draws (else own) have."""
    return _reached(tuple(evidence.ref.draws.texts or evidence.own.draws.texts))


@lru_cache(8)
def _reached(texts: tuple[str, ...]) -> int:
    """The same; kept, since every metric and replicate of every row asks it of the same reference draws."""
    count = np.array([len(words_of(text)) for text in texts])
    return next((n for n in WORDS if np.mean(count >= n) >= REACH), WORDS[-1])


def in_blocks(evidence: Evidence, *, draws: int = 8, words: int | None = None) -> tuple[Array, int]:
    """(B,) the number within its prompt of the block that each own draw is in, −1 for none; and how many there may be.

    Draws leave a comparison by whole blocks: without one draw, all later blocks would be others.
    """
    own, number = evidence.own.draws, np.full(len(evidence.own.draws), -1)
    for rows in _in_whole_blocks(own.prompt, draws):
        number[rows] = np.arange(rows.size) // draws
    drawn = np.bincount(evidence.ref.draws.prompt[evidence.ref.of_base], minlength=len(evidence.prompts))
    return number, int(drawn.min(initial=len(own))) // draws


@metric(
    needs={"own"},
    better="",
    range=(0, 1),
    parts=("distinct_1", "distinct_2", "distinct_3"),
    check=at_least(draws=1, words=1),
    units=in_blocks,
)
def distinct(evidence: Evidence, *, draws: int = 8, words: int | None = None) -> dict[str, Estimate]:
    """Distinct-1, -2, -3: share of distinct n-grams among all that `draws` draws of `words` words have room for.

    A block of one prompt's draws, each cut after `words` words; by default 16, 8, 4, 2 or 1, the most that nine in ten
    reference draws have. A draw with fewer counts whole and fills less room.
    Source: Li et al., A diversity-promoting objective function (2016), where all draws are long enough.
    """
    blocks = _blocks(evidence, draws, words)
    return {
        f"distinct_{n}": _of_order(blocks, lambda table, n: distinct_in(table, n) / blocks.room(n), n, 1.0)
        for n in ORDERS
    }


@metric(
    needs={"own"},
    better="",
    range=(0, inf),
    parts=("1", "2", "3"),
    check=at_least(draws=1, words=1),
    opt_in=True,
    units=in_blocks,
)
def ngram_entropy(evidence: Evidence, *, draws: int = 8, words: int | None = None) -> dict[str, Estimate]:
    """Entropy in nats of the 1-, 2- and 3-grams of words in blocks of `draws` draws of one prompt, `words` words each.

    −Σ f log f of the shares f of a block's n-grams, not corrected for its size, which is fixed: at most the log of the
    number of n-grams in a block. Blocks as in `distinct`. Source: Zhang et al., Generating informative and diverse
    conversational responses via adversarial information maximization (2018), Ent-n.
    """
    blocks = _blocks(evidence, draws, words)
    return {str(n): _of_order(blocks, entropy_in_blocks, n, float(np.log(max(blocks.room(n), 1)))) for n in ORDERS}


@metric(needs={"own"}, better="", range=(0, 1), check=at_least(draws=2), opt_in=True, units=in_blocks)
def unique_share(evidence: Evidence, *, draws: int = 8) -> Estimate:
    """Share of draws whose whole text, but for white space, no other draw of its block of `draws` draws has.

    Blocks of consecutive draws of one prompt, since the share falls with the number of draws.
    """
    blocks = blocks_of(evidence.own.draws.texts, evidence.own.draws.prompt, draws)
    return over_blocks(blocks, _unique)


@metric(needs={"own"}, better="", range=(0, inf), check=at_least(draws=2, words=2), opt_in=True, units=in_blocks)
def vendi(evidence: Evidence, *, draws: int = 8, words: int | None = None) -> Estimate:
    """Vendi score, 1 to `draws`: the effective number of unlike texts in a block of `draws` draws, by words.

    The exponential of the entropy of the eigenvalues of K/`draws`; K is the mean of the cosines of counts of words and
    of pairs of words. Blocks as in `distinct`. Source: Friedman and Dieng, The Vendi score (2023).
    """
    blocks = _blocks(evidence, draws, max(words_in(evidence), 2) if words is None else words)
    return over_blocks(blocks, lambda b: vendi_score(similarities(b.table, (1, 2))), (1.0, float(draws)))


@metric(needs={"own"}, better="", range=(0, inf), check=at_least(draws=1, words=1), opt_in=True, units=in_blocks)
def compression_ratio(evidence: Evidence, *, draws: int = 8, words: int | None = None) -> Estimate:
    """Compression ratio: bytes of UTF-8 of a block's texts over their bytes after gzip's DEFLATE; low where diverse.

    Texts end after their `words`-th word and are joined by line breaks; level 9, 18 bytes of gzip's frame counted.
    Blocks as in `distinct`: the ratio grows with the number of texts.
    Source: Shaib et al., Standardizing the measurement of text diversity (2024).
    """
    return over_blocks(_blocks(evidence, draws, words), _compressed, None)


@metric(needs={"own"}, better="", range=(0, 100), check=at_least(draws=2, words=1), units=in_blocks)
def self_bleu(evidence: Evidence, *, draws: int = 8, words: int | None = None) -> Estimate:
    """Self-BLEU, 0 to 100: mean sentence BLEU of a draw against the others of its block of `draws` draws, by words.

    Blocks as in `distinct`; sacrebleu's sentence BLEU with exponential smoothing and effective order, on words; empty
    draws count as copies of each other.
    Source: Zhu et al., Texygen (2018); Post, A call for clarity in reporting BLEU scores (2018).
    """
    return self_bleu_in(_blocks(evidence, draws, words))


@dataclass(frozen=True)
class Blocks:
    """Blocks of as many texts of one prompt."""

    prompt: Array  # (K,) the prompt of each block
    texts: tuple[str, ...]  # block by block, as they are
    cut: tuple[Sequence[str], ...]  # their first words; empty where whole texts are compared
    draws: int  # texts in each block
    words: int  # that a text is cut to
    note: str  # what they are made of, and what is in none

    @cached_property
    def table(self) -> NGrams:
        """The n-grams of the cut texts, by block."""
        return ngrams(self.cut, np.repeat(np.arange(self.prompt.size), self.draws))

    def room(self, n: int) -> int:
        """The n-grams of a block of texts that are long enough."""
        return self.draws * (self.words - n + 1)

    def __iter__(self) -> Iterator[tuple[str, ...]]:
        return (self.texts[k * self.draws : (k + 1) * self.draws] for k in range(self.prompt.size))


def _blocks(evidence: Evidence, draws: int, words: int | None) -> Blocks:
    """Blocks of own draws."""
    own = evidence.own.draws
    return blocks_of(own.texts, own.prompt, draws, words_in(evidence) if words is None else words)


def blocks_of(texts: Sequence[str], prompt: Array, size: int, words: int = 0, what: str = "draws") -> Blocks:
    """Consecutive texts of a prompt, `size` a block, of `words` words; `what` they are called in the note."""
    kept = np.concatenate([np.zeros(0, int), *_in_whole_blocks(prompt, size)])
    filled = np.asarray(prompt)[kept[::size]]
    note = f"blocks of {size} {what}{f' of {words} word' if words else ''}{'s' if words > 1 else ''}"
    split = [words_of(text) for text in texts] if words else []
    if short := sum(len(found) < words for found in split):
        note += f"; {short} of {len(texts)} {what} shorter than {words} word{'s' if words > 1 else ''}"
    note = "; ".join([note, *_gaps(np.asarray(prompt), filled, len(texts) - kept.size, what)])
    cut = tuple(split[i][:words] for i in kept) if words else ()
    return Blocks(filled, tuple(texts[i] for i in kept), cut, size, words, note)


def _in_whole_blocks(prompt: Array, size: int) -> list[Array]:
    """For each prompt the rows of those of its texts that fill blocks of `size`."""
    return [rows[: rows.size // size * size] for rows, _ in strata(prompt)]


def _gaps(prompt: Array, filled: Array, rest: int, what: str) -> Iterator[str]:
    """How many texts and prompts are in no block, and the number of blocks."""
    if rest:
        yield f"{rest} of {prompt.size} {what} fill no block"
    drawn = np.unique(prompt).size
    lost = drawn - np.unique(filled).size
    if lost and filled.size:
        yield f"{lost} of {drawn} prompts have no block"
    yield f"{filled.size} block{'' if filled.size == 1 else 's'}"


def self_bleu_in(blocks: Blocks) -> Estimate:
    """Mean Self-BLEU, 0 to 100, of blocks of texts."""
    return over_blocks(blocks, lambda b: _block_means(b.table, _alike(b.table)), (0.0, 100.0))


def _alike(table: NGrams) -> Array:
    """(N,) sentence BLEU of each text against the others of its block; 100 of an empty one where another is empty.

    BLEU gives two texts that say nothing 0, and a generator that says nothing would be the most diverse.
    """
    empty = table.length == 0
    return np.where(empty & (np.bincount(table.block, empty)[table.block] > 1), 100.0, leave_one_out(table))


def _of_order(blocks: Blocks, score: Callable[[NGrams, int], Array], n: int, top: float) -> Estimate:
    """Mean `score`, 0 to `top`, of the n-grams of blocks of texts."""
    if blocks.words < n:
        return Estimate.missing(f"{blocks.words} words have no {n}-gram")
    return over_blocks(blocks, lambda b: score(b.table, n), (0.0, top))


def _block_means(table: NGrams, values: Array) -> Array:
    """(K,) means of the `values` (N,) of each block's texts; all have as many."""
    return np.asarray(np.bincount(table.block, values) / np.bincount(table.block))


def _unique(blocks: Blocks) -> Array:
    """(K,) share of the texts of each block that are there once."""
    return np.array([_once([" ".join(text.split()) for text in texts]) for texts in blocks])


def _once(texts: Sequence[str]) -> float:
    return sum(texts.count(text) == 1 for text in texts) / len(texts)


def _compressed(blocks: Blocks) -> Array:
    """(K,) bytes of each block over its bytes after gzip."""
    raw = ["\n".join(_first(t, blocks.words) for t in texts).encode("utf-8", "surrogatepass") for texts in blocks]
    return np.array([len(one) / len(zlib.compress(one, 9, 31)) for one in raw])


def _first(text: str, words: int) -> str:
    """The text up to the end of its `words`-th word, or of its last one."""
    return text[: max((found.end() for found in islice(WORD.finditer(text), words)), default=0)]


def over_blocks(
    blocks: Blocks, score: Callable[[Blocks], Array], limits: tuple[float, float] | None = (0.0, 1.0)
) -> Estimate:
    """Mean over prompts of the mean `score` of their blocks, which lies within `limits`, with blocks as units."""
    count = blocks.prompt.size
    if count < 2:
        return Estimate.missing(f"{blocks.note}: at least 2 are needed", n=count)
    answer = spread_or_none(_mean(blocks.prompt, score(blocks)), "no interval: the blocks do not differ")
    if answer.stderr is not None and count < FEWEST:
        answer = without_interval(replace(answer, note=""), f"no interval: fewer than {FEWEST} blocks")
    return replace(answer if limits is None else _within(answer, *limits), note=blocks.note).noted(answer.note)


def _within(answer: Estimate, low: float, high: float) -> Estimate:
    """The same with limits between `low` and `high`, symmetric on the logit scale."""
    value = float(answer.value or 0.0)
    return moved(on_logit_scale(moved(answer, value - low), high - low), value)


def _mean(prompt: Array, values: Array) -> Estimate:
    """Mean over prompts; the variance of a block is pooled where some prompt has one block only."""
    groups = [values[rows] for rows, _ in strata(prompt)]
    sizes = np.array([g.size for g in groups])
    df = int((sizes - 1).sum())
    if sizes.min() >= 2 or df == 0:
        return mean_over_prompts(prompt, values)
    pooled = sum(float(((g - g.mean()) ** 2).sum()) for g in groups) / df
    mean = float(np.mean([g.mean() for g in groups]))
    note = "some prompt has one block: variance pooled over prompts"
    return normal(mean, pooled * float((1 / sizes).sum()) / sizes.size**2, n=values.size, df=df, note=note)
