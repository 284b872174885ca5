"""One task with one seed under way: its target is fitted, and the rows of each generator are made and placed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial

from alignbench.aligners.base import Aligner, Immediate
from alignbench.aligners.training.at_step import AtStep, steps_kept, steps_of
from alignbench.aligners.training.recipe import Trained
from alignbench.errors import RunError, UsageError
from alignbench.generators.described import described
from alignbench.generators.later import Later, outline_of, told_of
from alignbench.run.known import Known
from alignbench.run.measured import Failed, rows_of_generator, rows_of_p
from alignbench.run.outcome import ALIGNER, DRAWS_OF_P, MODEL, Outcome, Place, Watch
from alignbench.run.rows import Candidate, Row
from alignbench.run.subjects import Aligned, Given
from alignbench.run.writer import Writer
from alignbench.scoring.bench import Bench
from alignbench.scoring.references import References
from alignbench.spec import at_step
from alignbench.store.vocab import keep_vocab
from alignbench.types import CEILING, PRIMARY, Sampler, Spelled


@dataclass
class TaskRun:
    """What the generators of one task with one seed share, and where their rows go."""

    references: References
    place: Place  # of the base's rows
    several: bool  # seeds
    outcome: Outcome
    writer: Callable[[References, Candidate], Writer]
    watch: Watch
    known: Known

    @property
    def bench(self) -> Bench:
        """The task on its base."""
        return self.references.bench

    def readable(self) -> bool:
        """Whether base and judge can read the prompts; a failure is told before anything is drawn.

        The base could, where reference draws were made before.
        """
        bench = self.bench
        with self.outcome.failing(f"{bench.task.name}: {bench.base_name}"):
            if not self.references.known:
                bench.check()
            if bench.given_judge is not None:
                judge = told_of(bench.given_judge) if self.references.known else outline_of(bench.given_judge)
                bench.check(judge, "judging draws of one by the other")
            return True
        return False

    def prepared(self) -> bool:
        """Whether λ was fitted and reference draws made; a failure, or that no draw is one of p, is told."""
        bench, task = self.bench, self.bench.task
        self.outcome.primary[task.name] = task.primary or PRIMARY
        self.outcome.summaries[task.name] = task.summary
        self._begin(bench.base_name)
        with self._counted(), self.outcome.failing(self._who(bench.base_name)):
            _keep_vocab(bench)
            self.references.prepare()
            if line := self.references.none_of_p:
                self.outcome.fail(line, RunError(line))
            return True
        return False

    def base(self, candidate: Candidate) -> None:
        """The rows of the base itself."""
        self._row(self.place, candidate, self.bench.given)

    def model(self, number: int, candidate: Candidate, generator: Sampler | Later[Sampler]) -> None:
        """The rows of another model, the `number`th."""
        self._row(replace(self.place, part=MODEL, number=number), candidate, generator)

    def aligner(self, number: int, candidate: Candidate, recipe: Aligner) -> None:
        """The rows of an aligner on the base, the `number`th."""
        with self._placing(replace(self.place, part=ALIGNER, number=number), candidate) as rows:
            made = self._aligned(candidate, recipe)
            if made.identity is None and self.bench.all_named and not isinstance(recipe, Immediate):
                self.outcome.tell(f"{candidate.aligner}: the aligner does not say what its generator depends on (no "
                                  "identity): its rows are measured in every run")  # fmt: skip
            rows += rows_of_generator(self.writer(self.references, candidate), made, self._failed(candidate))

    def _aligned(self, candidate: Candidate, recipe: Aligner) -> Aligned:
        """What an aligner makes of the base, its training watched."""
        told = partial(self.watch.on_step, self._who(candidate.aligner))
        return Aligned(recipe, replace(self.references.setting, report=told), self.known)

    def series(self, number: int, candidate: Candidate, recipe: Aligner) -> None:
        """The rows of an aligner, and of its checkpoints once it is trained; each says its step."""
        if not isinstance(recipe, Trained) or not recipe.every:
            self.aligner(number, candidate, recipe)
            return
        whole = recipe.ends_at
        if whole is None and self.bench.output is not None:  # only the training tells, and the row's name says it
            if not self._trained(candidate, recipe):
                return
            whole = steps_of(recipe, self.references.setting)
        self.aligner(number, candidate if whole is None else after(candidate, whole), recipe)
        for step in steps_kept(recipe, self.references.setting):
            self.aligner(number, after(candidate, step), AtStep(recipe, step))

    def _trained(self, candidate: Candidate, recipe: Trained) -> bool:
        """Whether an aligner is trained, now or in an earlier run; a failure is told."""
        if steps_of(recipe, self.references.setting) is not None:
            return True
        self._begin(candidate.aligner)
        with self._counted(), self.outcome.failing(self._who(candidate.label)):
            self._aligned(candidate, recipe).make()
            return True
        return False

    def draws_of_p(self) -> None:
        """The rows of draws of p, which any generator could at best be like."""
        candidate = Candidate(CEILING)
        with self._placing(replace(self.place, part=DRAWS_OF_P), candidate) as rows:
            rows += rows_of_p(self.writer(self.references, candidate), self._failed(candidate))

    def _row(self, place: Place, candidate: Candidate, generator: Sampler | Later[Sampler]) -> None:
        with self._placing(place, candidate) as rows:
            given = Given(generator)
            rows += rows_of_generator(self.writer(self.references, candidate), given, self._failed(candidate))

    @contextmanager
    def _placing(self, place: Place, candidate: Candidate) -> Iterator[list[Row]]:
        """A list for the rows of a candidate, which are put in their `place` and told; a failure is its own."""
        rows: list[Row] = []
        self._begin(candidate.aligner or candidate.label)
        with self._counted(), self.outcome.failing(self._who(candidate.label)):
            yield rows
        self.watch.pace.end()
        self.outcome.placed.append((place, rows))
        if rows:
            self.watch.on_rows(rows)

    def _begin(self, label: str) -> None:
        """The row of this label is under way."""
        self.watch.pace.begin(self.bench.task.name, self.bench.seed.entropy, label)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Draws that are made inside are counted as new."""
        before = self.bench.fresh
        try:
            yield
        finally:
            self.outcome.fresh += self.bench.fresh - before

    def _who(self, label: str) -> str:
        """Whose failure it is: the task, the seed where there are several, the generator."""
        seed = f" (seed {self.bench.seed.entropy})" if self.several else ""
        return f"{self.bench.task.name}{seed}: {label}"

    def _failed(self, candidate: Candidate) -> Failed:
        """What is told of a metric that fails."""
        return partial(self.outcome.failed, f"{self.bench.task.name}: {candidate.label}")


def after(candidate: Candidate, step: int) -> Candidate:
    """The candidate of an aligner after so many steps of its training."""
    return replace(candidate, aligner=at_step(candidate.aligner, step), step=step)


def _keep_vocab(bench: Bench) -> None:
    """Store what each token spells, where the tokenizer says it: reports show draws by token."""
    base, fingerprint = bench.told, described(bench.told).fingerprint
    if fingerprint is not None and isinstance(base, Spelled):
        with suppress(UsageError):
            keep_vocab(bench.store.folder, fingerprint, base.token_bytes)
