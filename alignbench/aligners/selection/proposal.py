"""What aligners that weigh draws have in common: a proposal q, and log P − log q of its draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import Field, dataclass, field, replace
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from alignbench.aligners.base import Aligner, Named, Setting, checked
from alignbench.aligners.identities import recipe_identity
from alignbench.errors import RunError, Unsupported, UsageError
from alignbench.generators.described import check, described, identity_of, log_prob_of
from alignbench.generators.masked.steered import masks
from alignbench.generators.pool import NoPool, Pool
from alignbench.seeds import Seed
from alignbench.target import Target
from alignbench.types import Array, Distribution, Draws, Sampler


class Weighed(NamedTuple):
    """Draws of a proposal with what they weigh and what they cost."""

    draws: Draws
    log_weight: Array  # (B,) nats: log P − log q, −inf where P = 0
    spent: Array  # (B,) tokens decoded
    calls: Array  # (B,) model calls: tokens decoded and tokens scored


@dataclass(frozen=True)
class Proposal:
    """A generator q, and what its draws weigh: P/q; the draws are had from a pool."""

    law: Distribution
    base: Distribution
    target: Target
    pool: Pool = field(default_factory=NoPool, compare=False)

    @property
    def is_base(self) -> bool:
        """Whether q is the base, so that log P − log a weighs its draws."""
        return self.law is self.base

    def log_bound(self, n_prompts: int) -> Array | None:
        """(C,) nats: the largest log P − log q that a draw can have, by prompt; None where none is known.

        That of log P − log a serves where q masks tokens of the base and renormalises: there log a ≤ log q.
        """
        return self.target.log_bound(n_prompts) if self.is_base or masks(self.law, self.base) else None

    def draw(self, prompts: Sequence[str], rows: Array, *, max_tokens: int, seed: Seed) -> Weighed:
        """The draws at `rows`, in this order, weighed; what P rules out is not scored.

        Raises RunError where q denies its own draw.
        """
        draws = self.pool.draws(self.law, prompts, rows, max_tokens=max_tokens, seed=seed)
        spent = draws.length if draws.spent is None else draws.spent
        calls = spent if draws.calls is None else draws.calls
        log_weight = self.target.log_ratio_of(prompts, draws)
        allowed = np.flatnonzero(log_weight > -np.inf)
        if self.is_base or not allowed.size:
            return Weighed(draws, log_weight, spent, calls)
        kept = draws.take(allowed)
        log_q = log_prob_of(self.law, prompts, kept) if kept.log_prob is None else kept.log_prob
        if not np.isfinite(log_q).all():
            raise RunError("the proposal's log_prob calls a draw of its own impossible")
        log_weight[allowed] += log_prob_of(self.base, prompts, kept) - log_q
        scored = np.zeros(len(draws), int)
        scored[allowed] = kept.length * (2 if kept.log_prob is None else 1)
        return Weighed(draws, log_weight, spent, calls + scored)


def check_proposal(given: object, where: str) -> None:
    """Raise UsageError unless `given` is None, names an aligner or a generator, or is a generator."""
    if isinstance(given, (str, Mapping)):
        checked(given, where)
    elif given is not None and not isinstance(given, Sampler):
        raise UsageError(f"{where}: must name an aligner or a generator, not {given!r}")


def proposal_of(given: Named | Sampler | None, setting: Setting, who: str) -> Proposal:
    """The proposal that a hyper-parameter names, the base where it is None.

    Raises Unsupported for one without log_prob, UsageError for one whose tokens are not the base's.
    """
    base = setting.base
    if given is None:
        return Proposal(base, base, setting.target, setting.pool)
    where = f"{who}: proposal"
    law = setting.built(checked(given, where), where) if isinstance(given, (str, Mapping)) else given
    if not isinstance(law, Distribution):
        raise Unsupported(f"{where} {_named(given)} has no log_prob, by which its draws are weighed")
    if described(base).fingerprint != described(law).fingerprint:
        raise UsageError(f"{where} {_named(given)} has other tokens than the base, which cannot score its draws")
    check(law, setting.prompts, setting.max_tokens)
    return Proposal(law, base, setting.target, setting.pool)


def _named(given: Named | Sampler) -> str:
    return f"'{given}'" if isinstance(given, (str, Mapping)) else type(given).__name__


class Selecting(Aligner, Protocol):
    """An aligner that keeps some of a proposal's draws: a dataclass with a hyper-parameter that names the proposal."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]
    format: ClassVar[int]

    @property
    def proposal(self) -> Named | None:
        """The proposal; None: the base."""
        ...


@dataclass(frozen=True)
class Weighing:
    """What samplers that keep some of a proposal's draws, by their weights, say of themselves."""

    aligner: Selecting
    weighed: Proposal

    @property
    def base(self) -> Distribution:
        """The base of the target."""
        return self.weighed.base

    @property
    def proposal(self) -> Distribution:
        """What it selects from."""
        return self.weighed.law

    @property
    def truncates(self) -> bool:
        """Whether the proposal may lack what the base can say."""
        return not self.weighed.is_base and described(self.proposal).truncates

    def identity(self) -> Mapping[str, Any] | None:
        """All that a draw depends on besides prompt, length and seed; None where the proposal does not say."""
        plain = replace(self.aligner, proposal=None)  # which may be a generator, and a model is no plain data
        found = recipe_identity(plain, self.base, self.weighed.target)
        if found is None:
            return None
        found = {**found, "format": self.aligner.format}
        if self.weighed.is_base:
            return found
        own = identity_of(self.proposal)
        return None if own is None else {**found, "proposal": own}
