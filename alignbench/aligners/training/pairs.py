"""Pairs of base draws of one prompt, of which one is preferred: what learns from preferences learns from."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from alignbench.aligners.training.ahead import BLOCK, BaseDraws
from alignbench.aligners.training.batch import Batch, Known
from alignbench.aligners.training.corpus import written
from alignbench.aligners.training.work import Work
from alignbench.errors import UsageError, did_you_mean
from alignbench.generators.described import log_prob_of
from alignbench.seeds import PAIRS
from alignbench.types import Array

LABELS = ("bradley_terry", "argmax")


@dataclass
class PairDraws(BaseDraws):
    """Base draws 2i and 2i + 1 of a prompt as a pair: `weight` is 1 of the chosen one, −1 of the rejected, 0 of ties.

    `labels` "bradley_terry": the first is chosen with σ(β·(r₁ − r₂)), r = log P − log a (Bradley and Terry 1952), by a
    coin for each pair; "argmax": the one of the larger r, and of two alike none.
    """

    labels: str = "bradley_terry"
    beta: float = 1.0

    def block(self, number: int) -> Batch:
        """See `BaseDraws.block`; its numbers are a multiple of 2, so that no pair is in two."""
        found = super().block(number)
        if found.weight is not None:
            return found
        assert BLOCK % 2 == 0
        prompt, index = found.draws.prompt, found.draws.index
        order = np.lexsort((index, prompt))
        pair = order.reshape(-1, 2)
        reward = found.log_ratio[pair]
        if self.labels == "argmax":
            sign = np.sign(reward[:, 0] - reward[:, 1])
        else:
            coin = np.array([self._coin(int(prompt[first]), int(index[first]) // 2) for first, _ in pair])
            sign = np.where(coin < sigmoid(self.beta * (reward[:, 0] - reward[:, 1])), 1.0, -1.0)
        weight, group = np.zeros(len(found)), np.zeros(len(found), np.int64)
        weight[pair] = np.stack([sign, -sign], axis=1)
        group[pair] = prompt[pair] + len(self.work.prompts) * (index[pair] // 2)
        self.blocks[number] = replace(found, weight=weight, group=group)
        return self.blocks[number]

    def _coin(self, prompt: int, number: int) -> float:
        """Uniform on [0, 1), of a pair of a prompt."""
        rendered = self.work.policy.render(self.work.prompts[prompt])
        return float(self.work.setting.seed.salted(PAIRS).rng(rendered, number).random())


def preference_batch(work: Work, step: int, draws: int) -> Batch:
    """This process's share of a step's draws: the task's preferences in turn, and again after all.

    Both texts of one are said by the tokenizer's own ids and an EOS; one longer than `max_tokens` is cut there. Raises
    UsageError where the task has none.
    """
    told = work.setting.preferences
    if not told:
        raise UsageError("data=preferences: the task has none: give its YAML 'preferences', or leave data out")
    prompts = tuple(dict.fromkeys(prompt for prompt, _, _ in told))
    place = {prompt: c for c, prompt in enumerate(prompts)}
    n = work.mine(np.arange(step * draws, (step + 1) * draws))
    mine = [told[pair % len(told)] for pair in n // 2]
    rows = np.array([(place[prompt], pair) for (prompt, _, _), pair in zip(mine, n // 2, strict=True)])
    found = written(work, rows.reshape(-1, 2), [one[1 + k % 2] for one, k in zip(mine, n, strict=True)])
    log_base = log_prob_of(work.setting.base, prompts, found)
    work.book(scored=int(found.length.sum()))
    return Batch(found, prompts, np.zeros(len(n)), log_base, weight=1.0 - 2 * (n % 2), group=n // 2)


def sigmoid(x: Array) -> Array:
    """1/(1 + e^−x), written so that nothing overflows."""
    return np.asarray(np.exp(-np.logaddexp(0.0, -x)))


def check_labels(name: str, labels: object) -> None:
    """Raise UsageError unless pairs can be labelled so."""
    if labels not in LABELS:
        raise UsageError(f"{name}:labels={labels}: unknown.{did_you_mean(str(labels), LABELS)}")


def paired(values: torch.Tensor, known: Known) -> torch.Tensor:
    """(N, 2) numbers of draws (B,) by pair, the chosen draw's first; pairs without a preference are left out."""
    assert known.group is not None
    order = torch.argsort(4 * known.group - known.weight.long(), stable=True)  # by pair, then the chosen one first
    pair = order.reshape(-1, 2)
    return values[pair[known.weight[pair[:, 0]] != 0]]
