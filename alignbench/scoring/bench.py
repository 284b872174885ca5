"""One task on one base: how draws are had, from disk or anew, and what base, target and judge say of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from alignbench.errors import Unsupported, UsageError
from alignbench.generators.described import called, check, described, drawn_on, identity_of, readable
from alignbench.seeds import Seed
from alignbench.store import DrawRequest, DrawStore, Stored
from alignbench.target import Target
from alignbench.task import Task
from alignbench.types import Array, Distribution, Draws, Forgetful, Sampler, Scored, rows_of

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
        check(law, self.prompts, self.task.max_tokens)
        mine, base = described(law).fingerprint, described(self.base).fingerprint
        if mine is not None and base is not None and mine != base:
            raise UsageError(
                f"{called(law)} and {called(self.base)} have different tokenizers: {what} is not "
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
            if isinstance(law, Forgetful):
                law.forget()
        return stored

    def log_base(self, draws: Draws, drawn_from_base: bool = True) -> Array | None:
        """(B,) log a of draws; free where they were drawn from the base itself, None where it cannot read them."""
        base = described(self.base)
        free = drawn_from_base and not base.half
        if free and base.plain and draws.model_log_prob is not None:
            return draws.model_log_prob
        if free and draws.log_prob is not None:
            return draws.log_prob
        if not readable(self.base, draws):
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
