"""DPG: KL(p‖π) by importance-weighted draws (Parshakova et al. 2019; Khalifa et al. 2021; Korbak et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from alignbench.aligners.base import Setting, whole
from alignbench.aligners.training.ahead import BaseDraws, OwnDraws
from alignbench.aligners.training.batch import Batch, Known
from alignbench.aligners.training.cells import edges_of
from alignbench.aligners.training.losses import divergence, likelihood, matching, matching_by_token
from alignbench.aligners.training.method import Method
from alignbench.aligners.training.options import a_share, unlabelled
from alignbench.aligners.training.prefixes import Prefixes
from alignbench.aligners.training.recipe import Trained
from alignbench.aligners.training.work import Work
from alignbench.errors import UsageError
from alignbench.generators.law import law_of
from alignbench.generators.policy import TrainedLaw
from alignbench.registry import aligner
from alignbench.target import Target
from alignbench.types import Array


@dataclass(frozen=True, kw_only=True)
class Matches(Trained):
    """What aligners that weigh draws of the policy by p have in common.

    A step's draws are of the policy as it was at most `renew` − 1 steps before, weighed by its density then.
    """

    renew: int = unlabelled(4)

    def __post_init__(self) -> None:
        super().__post_init__()
        whole(f"{self.name}:renew", self.renew)


@dataclass(frozen=True, kw_only=True)
class Pooled(Matches):
    """Those that take Z_c of each prompt from base draws: the mean of P/a over `pool` of the stream `train`."""

    pool: int = unlabelled(256)

    def __post_init__(self) -> None:
        super().__post_init__()
        whole(f"{self.name}:pool", self.pool)


@aligner("dpg", target_driven=True, density="exact")
@dataclass(frozen=True, kw_only=True)
class DPG(Pooled):
    """Descends KL(p‖π): gradient −E_q[(P/(Z_c q) − π/q) ∇log π] (Parshakova et al. 2019).

    `baseline` false leaves out π/q, whose part has mean 0; with it the variance vanishes at p (GDC++, Korbak et al.
    2022). "prefix": for each token what the asked features of its prefix foretell, see `prefixes`; there `trace` < 1
    trades variance for bias, see `matching_by_token`. `replay`: the share of each step's draws that are base draws of
    the stream `train` (q = a) instead.
    """

    baseline: bool | str = unlabelled(True)
    replay: float = unlabelled(0.0)
    trace: float = unlabelled(1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        a_share(f"{self.name}:replay", self.replay)
        a_share(f"{self.name}:trace", self.trace)
        if self.trace != 1 and self.baseline != "prefix":
            raise UsageError(f"{self.name}:trace={self.trace}: needs baseline=prefix, whose values it goes by")
        if self.baseline not in (True, False, "prefix"):
            raise UsageError(f"{self.name}:baseline={self.baseline}: must be true, false or prefix")

    def remark(self, target: Target) -> str:
        """See `Trained.remark`."""
        return "" if self.trace == 1 else "trace < 1: its optimum is p only as far as its prefixes' values are right"

    def identity(self, setting: Setting) -> Mapping[str, Any]:
        """See `Trained.identity`; with the cells that prefixes are told apart by."""
        cells = {"cells": edges_of(setting.target)} if self.baseline == "prefix" else {}
        return {**super().identity(setting), **cells}

    def method(self, work: Work) -> Method:
        """See `Trained.method`."""
        if self.baseline == "prefix":
            return ByPrefix(work, self, replay=self.replay, trace=self.trace)
        return Matching(work, self, baseline=bool(self.baseline), replay=self.replay)


class Matching(Method):
    """Draws of the policy, or of the base where they are replayed, weighed by p over the law that drew them."""

    def __init__(
        self, work: Work, recipe: Matches, *, baseline: bool = True, replay: float = 0.0, floor: float = -np.inf
    ) -> None:
        super().__init__(work, recipe.batch)
        self.recipe, self.baseline, self.floor = recipe, baseline, floor
        self.log_z = self.first_log_z()
        self.replayed = round(recipe.batch * replay)
        self.draws_own = self.replayed < recipe.batch
        self.own = OwnDraws(work, recipe.batch - self.replayed, recipe.renew, recipe.steps, floor)
        self.base = BaseDraws(work)

    def first_log_z(self) -> Array:
        """(C,) log Ẑ of each prompt, of p_ε where that is aimed at."""
        assert isinstance(self.recipe, Pooled)
        return self.work.log_z(self.work.pool(self.recipe.pool, self.floor))

    @property
    def proposal(self) -> TrainedLaw:
        """What the next own draws are of."""
        return self.work.policy

    def batches(self, step: int) -> Mapping[str, Batch]:
        """See `Method.batches`."""
        parts = [self.own.batch(step, self.proposal)] if self.replayed < self.batch else []
        if self.replayed:
            parts.append(self.base.batch(self.work.rows(step, self.replayed)))
            if parts[0].log_proposal is None:
                parts[0] = replace(parts[0], log_proposal=self.work.log_q(self.proposal, parts[0].draws))
        return {"loss": Batch.concat(parts)}

    def loss(self, term: str, by_token: torch.Tensor, known: Known) -> torch.Tensor:
        """See `Method.loss`."""
        log_pi = by_token.sum(1)
        return likelihood(log_pi, known.weight * self.weights(log_pi, known))

    def weights(self, log_pi: torch.Tensor, known: Known) -> torch.Tensor:
        """(B,) what each draw's log π counts."""
        return matching(log_pi, known.log_p(self.log_z), known.log_q(log_pi), baseline=self.baseline)

    def after(self, step: int, values: Mapping[str, tuple[Batch, Array]]) -> dict[str, float]:
        """See `Method.after`: the step's estimate of KL(p‖π), or of what else is descended."""
        batch, log_pi = values["loss"]
        log_q = log_pi if batch.log_proposal is None else batch.log_proposal
        with np.errstate(over="ignore"):
            found = self.divergence(batch.log_p(self.log_z) - log_pi)
            return {"objective": float((np.exp(log_pi - log_q) * found).mean())}

    def divergence(self, log_u: Array) -> Array:
        """(B,) what the mean over draws of π is the divergence, nats, from log p − log π."""
        return divergence("kl", log_u)

    def resumable(self, step: int) -> bool:
        """Between two draws for several steps: what is drawn ahead is not kept."""
        return not self.own.held


class ByPrefix(Matching):
    """As `Matching`, with a baseline for each token by what its prefix foretells."""

    recipe: Pooled

    def __init__(self, work: Work, recipe: Pooled, *, replay: float = 0.0, trace: float = 1.0) -> None:
        self.trace = trace
        self.prefixes = Prefixes(work.target, work.policy, work.prompts)
        super().__init__(work, recipe, replay=replay)

    def first_log_z(self) -> Array:
        """See `Matching.first_log_z`; the same base draws are the first that the baseline knows."""
        pool = self.work.pool(self.recipe.pool)
        found = self.work.log_z(pool)
        weight = np.exp(pool.log_ratio - found[pool.draws.prompt])
        self.prefixes.learn(zip(self.prefixes.values(pool.draws)[1], weight.tolist(), strict=True))
        return found

    def batches(self, step: int) -> Mapping[str, Batch]:
        """See `Method.batches`."""
        batch = super().batches(step)["loss"]
        base, draws = law_of(self.work.setting.base, self.recipe.name), batch.draws
        assert batch.own is not None and draws.token_log_prob is not None
        by_token, own = np.array(draws.token_log_prob), np.flatnonzero(batch.own)
        if own.size:
            by_token[own] = base.token_log_prob(self.work.prompts, draws.take(own))
            self.work.book(scored=int(draws.length[own].sum()))
        values, self.places = self.prefixes.values(draws, np.where(self._new(batch), np.nan, self._weight(batch)))
        return {"loss": replace(batch, values=values, base_by_token=by_token)}

    def _weight(self, batch: Batch) -> Array:
        """(B,) p/a."""
        return np.asarray(np.exp(batch.log_ratio - self.log_z[batch.draws.prompt]))

    def _new(self, batch: Batch) -> Array:
        """(B,) bool: draws that the baseline has not learned from."""
        assert batch.own is not None
        return np.asarray(batch.own | (batch.draws.index >= self.recipe.pool))

    def loss(self, term: str, by_token: torch.Tensor, known: Known) -> torch.Tensor:
        """See `Method.loss`."""
        assert known.values is not None and known.log_base_by_token is not None
        now = by_token.detach()
        log_q = now if known.log_q_by_token is None else known.log_q_by_token
        before = (known.log_base_by_token - log_q).cumsum(1).roll(1, 1)
        before[:, 0] = 0
        wanted = (known.log_p(self.log_z) - known.log_q(now.sum(1))).exp()
        weight = matching_by_token(wanted, (before + now - log_q).exp(), known.values, known.inside, trace=self.trace)
        return -(weight * by_token * known.inside).sum(1).mean()

    def after(self, step: int, values: Mapping[str, tuple[Batch, Array]]) -> dict[str, float]:
        """See `Matching.after`; the base's draws of the step are known from now on."""
        batch, _ = values["loss"]
        assert batch.own is not None
        places = self.places if self.work.processes.count == 1 else self.prefixes.values(batch.draws)[1]
        weight = self._weight(batch)
        fresh = np.flatnonzero(self._new(batch) & ~batch.own)
        self.prefixes.learn((places[i], float(weight[i])) for i in fresh)
        return super().after(step, values)

    def state(self) -> dict[str, Any]:
        """See `Method.state`."""
        return {"prefixes": self.prefixes.kept()}

    def resume(self, step: int, state: Mapping[str, Any]) -> None:
        """See `Method.resume`."""
        self.prefixes.resume(state["prefixes"])
