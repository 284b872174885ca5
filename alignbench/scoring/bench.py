"""One task on one base: how draws are had, from disk or anew, and what base, target and judge say of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from alignbench.errors import Unsupported, UsageError, plain_failures
from alignbench.generators.base import Slotted
from alignbench.generators.law import Law
from alignbench.generators.warp import PLAIN
from alignbench.scoring.trust import is_half
from alignbench.seeds import Seed
from alignbench.store import DrawRequest, DrawStore, Stored
from alignbench.target import Target
from alignbench.task import Task
from alignbench.types import Array, Distribution, Draws, Sampler, Scored, rows_of

Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""progress(what, total) is a context that gives a function to call with the number of draws just done."""


@contextmanager
def silent(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """No progress shown."""
    yield lambda count: None


@dataclass
class Bench:
    """One task on one base: draws of any generator on its prompts, and their scores."""

    task: Task
    base: Any
    base_name: str
    store: DrawStore
    draws: int  # per prompt
    seed: Seed
    progress: Progress
    limit: int | None = None  # the run's --limit, for the record: the task is already cut to it
    whole: int = 0  # prompts of the task before that cut
    judge: Any = None
    judge_name: str = ""
    fresh: int = field(default=0, init=False)  # draws that were not found on disk

    def __post_init__(self) -> None:
        for what, given in (("base", self.base_name), ("judge", self.judge_name)):
            scorer = getattr(self, what)
            if scorer is not None and not isinstance(scorer, Distribution):
                raise Unsupported(f"{what} '{given}': has no log_prob, so it cannot score draws")

    @property
    def prompts(self) -> tuple[str, ...]:
        """The task's prompts."""
        return self.task.prompts

    @property
    def base_identity(self) -> Mapping[str, Any] | None:
        """Plain data that the base's draws depend on; None where it does not say."""
        return identity_of(self.base)

    def check(self, generator: Any = None, what: str = "a KL divergence between them") -> None:
        """Raise UsageError before anything is drawn, where a prompt does not fit or tokenizers differ."""
        law = self.base if generator is None else generator
        if not isinstance(law, Law):
            return
        law.check(self.prompts, self.task.max_tokens)
        if isinstance(self.base, Law) and law.vocab.fingerprint != self.base.vocab.fingerprint:
            raise UsageError(
                f"{law.name} and {self.base.name} have different tokenizers: {what} is not "
                "defined; run them apart, or give a --base that shares the tokenizer"
            )

    def draw(self, what: str, generator: Sampler, stream: str, first: int = 0) -> Stored:
        """`draws` draws of each prompt on a stream, numbered from `first` on; `what` is shown as they are made."""
        rows = rows_of(len(self.prompts), self.draws) + np.array([0, first])
        with self.progress(f"{self.task.name}: {what}", len(rows)) as advance:
            request = DrawRequest(self.prompts, rows, self.task.max_tokens, self.seed.on(stream))
            stored = self.store.sample(generator, identity_of(generator), request, advance)
        self.fresh += stored.fresh
        for law in (*drawn_on(generator), self.base):  # memory kept for the next batch
            model = getattr(law, "model", None)
            if isinstance(model, Slotted):
                model.forget()
        return stored

    def log_base(self, draws: Draws, drawn_from_base: bool = True) -> Array | None:
        """(B,) log a of draws; free where they were drawn from the base itself, None where it cannot read them."""
        free = drawn_from_base and not is_half(self.base)
        plain = isinstance(self.base, Law) and self.base.warp == PLAIN
        if free and plain and draws.model_log_prob is not None:
            return draws.model_log_prob
        if free and draws.log_prob is not None:
            return draws.log_prob
        if isinstance(self.base, Law) and (draws.tokens is None or draws.vocab != self.base.vocab.fingerprint):
            return None
        return np.asarray(self.base.log_prob(self.prompts, draws))

    def scored(self, target: Target, draws: Draws, log_base: Array | None, **scores: Array | None) -> Scored:
        """Features of draws, and log P, log judge beside the `log_base` given; `scores` has log_gen and kl_base."""
        features = target.measure(self.prompts, draws)
        ratio = target.log_ratio(features, draws.prompt)
        log_judge = self.judge.log_prob(self.prompts, draws) if self.judge and log_base is not None else log_base
        return Scored(
            draws=draws, features=features, log_base=log_base,
            log_target=None if log_base is None else log_base + ratio,
            log_gen=scores.get("log_gen"), log_judge=log_judge, kl_base=scores.get("kl_base"),
            phi=target.moments(features) if target.needs_fit else None,
        )  # fmt: skip


def identity_of(generator: Any) -> Mapping[str, Any] | None:
    """Plain data that a generator's draws depend on; None (nothing is stored) where it does not say."""
    identity = getattr(generator, "identity", None)
    if identity is None:
        return None
    with plain_failures(f"identity() of {type(generator).__name__}", UsageError):
        found = identity()
        return None if found is None else dict(json.loads(json.dumps(found)))


def drawn_on(generator: Any) -> Iterator[Any]:
    """A generator, its proposal, if it draws from one, the proposal of that, and so on."""
    while generator is not None:
        yield generator
        generator = getattr(generator, "proposal", None)
