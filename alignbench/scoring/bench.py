"""One task on one base: how draws are had, from disk or anew, and what base, target and judge say of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from alignbench.errors import Unsupported, UsageError
from alignbench.generators.described import called, check, described, drawn_on, identity_of, log_prob_of, readable
from alignbench.generators.later import Later, made, outline_of, told_of
from alignbench.seeds import Seed
from alignbench.store.draws import DrawRequest, DrawStore, Stored
from alignbench.target import Target
from alignbench.task import Task
from alignbench.types import Array, Distribution, Draws, Forgetful, Progress, Sampler, Scored, rows_of


@dataclass
class Bench:
    """One task on one base: draws of any generator on its prompts, and their scores."""

    task: Task
    given: Sampler | Later[Sampler]  # the base
    base_name: str
    store: DrawStore
    draws: int  # per prompt
    seed: Seed
    progress: Progress
    limit: int | None = None  # the run's --limit, for the record: the task is already cut to it
    whole: int = 0  # prompts of the task before that cut
    given_judge: Sampler | Later[Sampler] | None = None
    judge_name: str = ""
    output: Path | None = None  # the folder of the run
    fresh: int = field(default=0, init=False)  # draws that were not found on disk

    def __post_init__(self) -> None:
        for what, name, given in (("base", self.base_name, self.given), ("judge", self.judge_name, self.given_judge)):
            if given is not None:
                _scoring(told_of(given), what, name)

    @property
    def prompts(self) -> tuple[str, ...]:
        """The task's prompts."""
        return self.task.prompts

    @property
    def base(self) -> Distribution:
        """The base, loaded now if it was not."""
        return _scoring(made(self.given), "base", self.base_name)

    @property
    def scorer(self) -> Distribution | Later[Distribution]:
        """The base as it was given."""
        given = self.given
        if not isinstance(given, Later):
            return self.base
        outlining = None if given.outlining is None else lambda: _scoring(given.outline, "base", self.base_name)
        return Later(self.told, lambda: self.base, outlining)

    @property
    def judge(self) -> Distribution | None:
        """Who measures fluency, loaded now if it was not; None: the base."""
        return None if self.given_judge is None else _scoring(made(self.given_judge), "judge", self.judge_name)

    @property
    def told(self) -> Distribution:
        """What has the base's name, identity and tokenizer before it is loaded."""
        return _scoring(told_of(self.given), "base", self.base_name)

    @property
    def base_identity(self) -> Mapping[str, Any] | None:
        """Plain data that the base's draws depend on; None where it does not say."""
        return identity_of(self.told)

    @property
    def judge_identity(self) -> Mapping[str, Any] | None:
        """The same of the judge; None also where there is none."""
        return None if self.given_judge is None else identity_of(told_of(self.given_judge))

    @property
    def all_named(self) -> bool:
        """Whether base and judge say what they are, so that evidence can be found."""
        return self.base_identity is not None and (self.given_judge is None or self.judge_identity is not None)

    def check(self, generator: Sampler | None = None, what: str = "a KL divergence between them") -> None:
        """Raise UsageError before anything is drawn, where a prompt does not fit or tokenizers differ."""
        law = outline_of(self.given) if generator is None else generator
        check(law, self.prompts, self.task.max_tokens)
        mine, base = described(law).fingerprint, described(self.told).fingerprint
        if mine is not None and base is not None and mine != base:
            raise UsageError(
                f"{called(law)} and {called(self.told)} have different tokenizers: {what} is not "
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
        return log_prob_of(self.base, self.prompts, draws)

    def scored(self, target: Target, draws: Draws, log_base: Array | None, **scores: Array | None) -> Scored:
        """Features of draws, and log P, log judge beside the `log_base` given; `scores` has log_gen and kl_base."""
        features = target.measure(self.prompts, draws)
        ratio = target.log_ratio(features, draws.prompt)
        judge = self.judge
        log_judge = log_prob_of(judge, self.prompts, draws) if judge and log_base is not None else log_base
        return Scored(
            draws=draws, features=features, log_base=log_base,
            log_target=None if log_base is None else log_base + ratio,
            log_gen=scores.get("log_gen"), log_judge=log_judge, kl_base=scores.get("kl_base"),
            phi=target.moments(features) if target.needs_fit else None,
        )  # fmt: skip


def _scoring(generator: Sampler, what: str, name: str) -> Distribution:
    """The generator as one that scores draws; raises Unsupported where it cannot."""
    if not isinstance(generator, Distribution):
        raise Unsupported(f"{what} '{name}': has no log_prob, so it cannot score draws")
    return generator
