"""Diversity at a fixed number of draws and words: the goal is the diversity of the target's draws, not the most."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from alignbench.metrics.ngrams import NGrams, distinct_share, ngrams, words_of
from alignbench.metrics.parameters import at_least
from alignbench.metrics.self_bleu import leave_one_out
from alignbench.registry import metric
from alignbench.stats.intervals import mean_over_prompts, normal, on_logit_scale, spread_or_none, without_interval
from alignbench.stats.jackknife import strata
from alignbench.types import Array, Estimate, Evidence

FEWEST = 5  # blocks in all that an interval needs: from 4, their standard deviation is known to a factor of 4 at best


@metric(
    needs={"own"},
    better="",
    parts=("distinct_1", "distinct_2", "distinct_3"),
    check=at_least(draws=1, words=1),
)
def distinct(evidence: Evidence, *, draws: int = 8, words: int = 16) -> dict[str, Estimate]:
    """Distinct-1, -2, -3: share of distinct n-grams in blocks of `draws` draws of one prompt, `words` words each.

    Draws with fewer words are left out. Source: Li et al., A diversity-promoting objective function (2016).
    """
    blocks = _blocks(evidence, draws, words)
    return {
        f"distinct_{n}": _over_blocks(blocks, partial(distinct_share, n=n))
        if words >= n
        else Estimate.missing(f"{words} words have no {n}-gram")
        for n in (1, 2, 3)
    }


@metric(needs={"own"}, better="", check=at_least(draws=2, words=1))
def self_bleu(evidence: Evidence, *, draws: int = 8, words: int = 16) -> Estimate:
    """Self-BLEU, 0 to 100: mean sentence BLEU of a draw against the others of its block of `draws` draws, by words.

    Blocks as in `distinct`; sacrebleu's sentence BLEU with exponential smoothing and effective order, on words.
    Source: Zhu et al., Texygen (2018); Post, A call for clarity in reporting BLEU scores (2018).
    """
    return _over_blocks(_blocks(evidence, draws, words), _mean_self_bleu, top=100.0)


@dataclass(frozen=True)
class Blocks:
    """Blocks of as many draws of one prompt, cut to as many words."""

    prompt: Array  # (K,) the prompt of each block
    table: NGrams  # of the texts in blocks, by block
    note: str  # what they are made of, and what is in none


def _blocks(evidence: Evidence, draws: int, words: int) -> Blocks:
    """Consecutive draws that are long enough, `draws` a block, cut to `words` words."""
    texts = [words_of(text) for text in evidence.own.draws.texts]
    long = np.array([len(t) for t in texts]) >= words
    rows = [rows[long[rows]] for rows, _ in strata(evidence.own.draws.prompt)]
    kept = np.concatenate([np.zeros(0, int), *(r[: r.size // draws * draws] for r in rows)])
    prompt = evidence.own.draws.prompt[kept[::draws]]
    table = ngrams([texts[i][:words] for i in kept], np.repeat(np.arange(prompt.size), draws))
    return Blocks(prompt, table, "; ".join(_notes(evidence, long, prompt, draws, words)))


def _mean_self_bleu(table: NGrams) -> Array:
    """(K,) mean Self-BLEU of each block; all have as many texts."""
    return np.asarray(np.bincount(table.block, leave_one_out(table)) / np.bincount(table.block))


def _over_blocks(blocks: Blocks, score: Callable[[NGrams], Array], top: float = 1.0) -> Estimate:
    """Mean over prompts of the mean `score` (0 to `top`) of their blocks, with blocks as units."""
    count = blocks.prompt.size
    if count < 2:
        return Estimate.missing(f"{blocks.note}: at least 2 are needed", n=count)
    answer = spread_or_none(_mean(blocks.prompt, score(blocks.table)), "no interval: the blocks do not differ")
    if answer.stderr is not None and count < FEWEST:
        answer = without_interval(replace(answer, note=""), f"no interval: fewer than {FEWEST} blocks")
    return replace(on_logit_scale(answer, top), note=blocks.note).noted(answer.note)


def _notes(evidence: Evidence, long: Array, prompt: Array, draws: int, words: int) -> Iterator[str]:
    """What the blocks are made of, and how many draws and prompts are in none; the number of blocks comes last."""
    yield f"blocks of {draws} draws of {words} words"
    short, rest = int((~long).sum()), int(long.sum()) - draws * prompt.size
    if short:
        yield f"{short} of {long.size} draws shorter than {words} words left out"
    if rest:
        yield f"{rest} of {long.size} draws fill no block"
    drawn = np.unique(evidence.own.draws.prompt).size
    lost = drawn - np.unique(prompt).size
    if lost and prompt.size:
        yield f"{lost} of {drawn} prompts have no block"
    yield f"{prompt.size} block{'' if prompt.size == 1 else 's'}"


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
