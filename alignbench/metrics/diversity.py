"""Diversity at a fixed number of draws and words: the goal is the diversity of the target's draws, not the most."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache

import numpy as np
from sacrebleu.metrics.bleu import BLEU
from scipy.special import expit, logit

from alignbench.metrics.parameters import at_least
from alignbench.registry import metric
from alignbench.stats.intervals import mean_over_prompts, normal, spread_or_none, without_interval
from alignbench.stats.jackknife import strata
from alignbench.types import Array, Estimate, Evidence

WORD = re.compile(r"\w+(?:['’]\w+)*")
Block = list[list[str]]
FEWEST = 5  # blocks in all that an interval needs: from 4, their standard deviation is known to a factor of 4 at best


def words_of(text: str) -> list[str]:
    """Lower-cased runs of Unicode letters, digits and underscores; an apostrophe inside a word belongs to it."""
    return WORD.findall(text.lower())


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
    return {
        f"distinct_{n}": _over_blocks(evidence, draws, words, _distinct(n))
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
    return _over_blocks(evidence, draws, words, _self_bleu, top=100.0)


def _distinct(n: int) -> Callable[[Block], float]:
    def share(block: Block) -> float:
        grams = [tuple(draw[i : i + n]) for draw in block for i in range(len(draw) - n + 1)]
        return len(set(grams)) / len(grams)

    return share


@cache
def _bleu() -> BLEU:
    return BLEU(tokenize="none", smooth_method="exp", effective_order=True)


def _self_bleu(block: Block) -> float:
    lines = [" ".join(draw) for draw in block]
    others = [lines[:i] + lines[i + 1 :] for i in range(len(lines))]
    return float(np.mean([_bleu().sentence_score(a, b).score for a, b in zip(lines, others, strict=True)]))


def _over_blocks(
    evidence: Evidence, draws: int, words: int, score: Callable[[Block], float], top: float = 1.0
) -> Estimate:
    """Mean over prompts of the mean `score` (0 to `top`) of their blocks, with blocks as units."""
    texts = [words_of(text) for text in evidence.own.draws.texts]
    prompt, blocks = _blocks(evidence, texts, draws, words)
    note = "; ".join(_notes(evidence, np.array([len(t) for t in texts]) >= words, prompt, draws, words))
    if len(blocks) < 2:
        return Estimate.missing(f"{note}: at least 2 are needed", n=len(blocks))
    answer = spread_or_none(
        _mean(prompt, np.array([score(b) for b in blocks])), "no interval: the blocks do not differ"
    )
    if answer.stderr is not None and len(blocks) < FEWEST:
        answer = without_interval(replace(answer, note=""), f"no interval: fewer than {FEWEST} blocks")
    return replace(_inside(answer, top), note=note).noted(answer.note)


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


def _inside(answer: Estimate, top: float) -> Estimate:
    """Limits that are symmetric on the logit scale and so stay between 0 and `top`."""
    if answer.value is None or answer.ci_high is None:
        return answer
    share = float(np.clip(answer.value / top, 1e-9, 1 - 1e-9))
    half = (answer.ci_high - answer.value) / top / (share * (1 - share))
    low, high = (top * float(expit(logit(share) + side * half)) for side in (-1, 1))
    return replace(answer, ci_low=min(low, answer.value), ci_high=max(high, answer.value))


def _blocks(evidence: Evidence, texts: Sequence[list[str]], draws: int, words: int) -> tuple[Array, list[Block]]:
    """(N,) the prompt of each block, and the blocks: consecutive draws that are long enough, cut to `words` words."""
    prompt, blocks = [], []
    for rows, _ in strata(evidence.own.draws.prompt):
        long = [texts[i][:words] for i in rows if len(texts[i]) >= words]
        for start in range(0, len(long) - draws + 1, draws):
            blocks.append(long[start : start + draws])
            prompt.append(int(evidence.own.draws.prompt[rows[0]]))
    return np.array(prompt, int), blocks


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
