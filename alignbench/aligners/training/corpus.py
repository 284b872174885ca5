"""Texts that people wrote, as draws to learn from: the corpus of a task."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from alignbench.aligners.training.batch import Batch
from alignbench.aligners.training.work import Work
from alignbench.errors import UsageError
from alignbench.types import Array, Draws


def corpus_batch(work: Work, rows: Array) -> Batch:
    """This process's share of the corpus at rows (prompt c, number n): text n·C + c, behind prompt c; again after all.

    A text is said by the tokenizer's own ids and an EOS; one longer than `max_tokens` is cut there, without an EOS. It
    has no weight but 1: what p says of it has no part in it. Raises UsageError where the task has no corpus.
    """
    texts = work.setting.corpus
    if not texts:
        raise UsageError("data=corpus: the task has no corpus: give its YAML a 'corpus', or take data=fresh")
    mine = work.mine(rows)
    number = (mine[:, 1] * len(work.prompts) + mine[:, 0]) % len(texts)
    nothing = np.zeros(len(mine))
    draws = written(work, mine, [f" {texts[n].strip()}" for n in number])
    draws = replace(draws, texts=tuple(texts[n] for n in number))
    return Batch(draws, work.prompts, nothing, nothing + np.nan)


def written(work: Work, rows: Array, texts: list[str]) -> Draws:
    """Texts as draws at rows (prompt, number): their own ids and an EOS, or cut at `max_tokens` without one."""
    eos = sorted(work.policy.vocab.eos)
    said = [[*work.policy.spell(text), *eos[:1]][: work.setting.max_tokens] for text in texts]
    tokens = np.full((len(said), max(map(len, said), default=1)), -1)
    for row, ids in zip(tokens, said, strict=True):
        row[: len(ids)] = ids
    length = np.array([len(ids) for ids in said], int)
    finished = np.array([ids[-1] in work.policy.vocab.eos for ids in said], bool)
    return Draws(
        prompt=rows[:, 0], index=rows[:, 1], texts=tuple(texts), tokens=tokens, length=length, finished=finished,
        log_prob=None, token_log_prob=None, model_log_prob=None, vocab=work.policy.vocab.fingerprint,
    )  # fmt: skip
