"""Control codes: likelihood of base draws behind a code of what they are, then draws behind the codes that p wants."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from alignbench.aligners.base import Setting, whole
from alignbench.aligners.training.ahead import BaseDraws
from alignbench.aligners.training.batch import Batch, Known
from alignbench.aligners.training.cells import codes_of, edges_of
from alignbench.aligners.training.losses import likelihood
from alignbench.aligners.training.method import Method
from alignbench.aligners.training.options import unlabelled
from alignbench.aligners.training.recipe import Trained
from alignbench.aligners.training.work import Work
from alignbench.errors import UsageError
from alignbench.files import digest
from alignbench.generators.base import Model, Vocab
from alignbench.generators.policy import TrainedLaw
from alignbench.registry import aligner
from alignbench.seeds import CODES, Seed
from alignbench.types import Array, Draws, Training


@aligner("control_code", target_driven=True, density="exact")
@dataclass(frozen=True, kw_only=True)
class ControlCode(Trained):
    """Likelihood of base draws behind a code of their asked features; then draws behind a code ~ p_φ(·|prompt).

    A code is a text before the prompt, by `form` "[word: yes] ", one for each cell of what is asked: whether a hard
    constraint is kept, the category, the bin of a number (CTRL, Keskar et al. 2019; Quark, Lu et al. 2022, without its
    KL term). p_φ comes from `pool` base draws of a prompt. The density is Σ_code p_φ(code)·π(x|code): that of p where
    π(x|code) = a(x|φ).
    """

    pool: int = unlabelled(256)
    form: str = unlabelled("[{code}] ")

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("control_code:pool", self.pool)
        if self.form and "{code}" not in str(self.form):  # with none at all it learns the base
            raise UsageError(f"control_code:form={self.form}: must hold {{code}}, which stands for what a draw is")

    def identity(self, setting: Setting) -> Mapping[str, Any]:
        """See `Trained.identity`; with the cells that codes name."""
        return {**super().identity(setting), "cells": edges_of(setting.target)}

    def codes(self, work: Work, draws: Draws) -> list[str]:
        """(B,) the text that stands before the prompt of each draw."""
        return [self.form.replace("{code}", code) for code in codes_of(work.target, work.prompts, draws)]

    def method(self, work: Work) -> Method:
        """See `Trained.method`."""
        return Coded(work, self)

    def law(self, work: Work) -> CodedLaw:
        """See `Trained.law`; p_φ is of the prompts that are measured."""
        return CodedLaw(work.policy, *code_shares(self, measured(work)))


def measured(work: Work) -> Work:
    """The same on the prompts that are measured: base draws of the stream `train` tell p_φ of those."""
    return replace(work, setting=replace(work.setting, train=()), spent=Training(), counted=set())


class Coded(Method):
    """Steps on base draws, each behind its code."""

    draws_own = False

    def __init__(self, work: Work, recipe: ControlCode) -> None:
        super().__init__(work, recipe.batch)
        self.recipe, self.base = recipe, BaseDraws(work)
        if work.setting.train:  # else the draws that train tell p_φ too
            others = measured(work)
            code_shares(recipe, others)
            work.spent = work.spent + others.spent

    def batches(self, step: int) -> Mapping[str, Batch]:
        """See `Method.batches`."""
        batch = self.base.batch(self.work.rows(step, self.batch))
        codes = self.recipe.codes(self.work, batch.draws)
        texts = [f"{code}{self.work.prompts[c]}" for code, c in zip(codes, batch.draws.prompt, strict=True)]
        prompts = tuple(dict.fromkeys(texts))
        place = np.array([prompts.index(text) for text in texts], int)
        return {"loss": replace(batch, prompts=prompts, draws=replace(batch.draws, prompt=place))}

    def loss(self, term: str, by_token: torch.Tensor, known: Known) -> torch.Tensor:
        """See `Method.loss`."""
        return likelihood(by_token.sum(1), known.weight)

    @cached_property
    def law(self) -> CodedLaw:
        """The policy behind codes."""
        return CodedLaw(self.work.policy, *code_shares(self.recipe, self.work))

    def watched(self, step: int) -> Batch | None:
        """See `Method.watched`."""
        return self.watched_draws(step, self.law)


def code_shares(recipe: ControlCode, work: Work) -> tuple[tuple[str, ...], tuple[tuple[float, ...], ...]]:
    """The codes, and p_φ of each for every prompt (C, K): the share of P/a among base draws."""
    pool = work.pool(recipe.pool)
    log_z = work.log_z(pool)
    codes = recipe.codes(work, pool.draws)
    names, place = np.unique(codes, return_inverse=True)
    table = np.zeros((len(work.prompts), len(names)))
    np.add.at(table, (pool.draws.prompt, place), np.exp(pool.log_ratio - log_z[pool.draws.prompt]))
    wanted = np.flatnonzero(table.sum(0) > 0)
    table = table[:, wanted] / table.sum(1, keepdims=True)
    return tuple(map(str, names[wanted])), tuple(tuple(row) for row in table.tolist())


@dataclass(frozen=True)
class CodedLaw:
    """A policy behind a code that is drawn from p_φ: its density is the mixture over codes."""

    policy: TrainedLaw
    codes: tuple[str, ...]
    shares: tuple[tuple[float, ...], ...]  # (C, K)

    @property
    def name(self) -> str:
        """The policy's name."""
        return self.policy.name

    @property
    def vocab(self) -> Vocab:
        """The policy's."""
        return self.policy.vocab

    @property
    def model(self) -> Model:
        """What it stands on, see `described`."""
        return self.policy.model

    @property
    def truncates(self) -> bool:
        """Whether the policy does."""
        return self.policy.truncates

    @property
    def remark(self) -> str:
        """See `Evidence.remark`."""
        return self.policy.remark

    def identity(self) -> Mapping[str, Any]:
        """Policy, codes and their shares."""
        return {"policy": self.policy.identity(), "codes": list(self.codes), "shares": digest(self.shares)}

    def check(self, prompts: Sequence[str], max_tokens: int) -> None:
        """See `Checked.check`."""
        self.policy.check([f"{code}{prompt}" for code in self.codes for prompt in prompts], max_tokens)

    def sample(self, prompts: Sequence[str], rows: Array, *, max_tokens: int, seed: Seed) -> Iterator[Draws]:
        """See `Sampler.sample`: a code by a coin of the row, then the policy's draw behind it."""
        rows, size = np.asarray(rows).reshape(-1, 2), len(self.codes)
        coded = [f"{code}{prompt}" for prompt in prompts for code in self.codes]
        picked = np.array([self._code(prompts[c], c, i, seed) for c, i in rows], int)
        asked = np.stack([rows[:, 0] * size + picked, rows[:, 1]], axis=1)
        for draws in self.policy.sample(coded, asked, max_tokens=max_tokens, seed=seed):
            said = replace(draws, prompt=draws.prompt // size, token_log_prob=None, model_log_prob=None)
            if size == 1:
                yield said
            else:  # the other codes' densities are calls of the model too
                yield replace(said, log_prob=self.log_prob(prompts, said), calls=draws.length * (size + 1))

    def _code(self, prompt: str, c: int, index: int, seed: Seed) -> int:
        coin = seed.salted(CODES).rng(prompt, int(index)).random()
        edges = np.cumsum(self.shares[c])
        return int(min(np.searchsorted(edges, coin * edges[-1], side="right"), len(self.codes) - 1))

    def log_prob(self, prompts: Sequence[str], draws: Draws) -> Array:
        """(B,) nats: log Σ_code p_φ(code)·π(x|code, prompt)."""
        found = np.full((len(draws), len(self.codes)), -np.inf)
        for k, code in enumerate(self.codes):
            share = np.array(self.shares)[draws.prompt, k]
            rows = np.flatnonzero(share > 0)
            if rows.size:
                coded = [f"{code}{prompt}" for prompt in prompts]
                found[rows, k] = np.log(share[rows]) + self.policy.log_prob(coded, draws.take(rows))
        return np.asarray(np.logaddexp.reduce(found, axis=1))
