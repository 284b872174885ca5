"""A run, in the order in which it does things: look up, check, fit targets, measure base and aligners, then others.

Everything that can be told without weights is told before the first draw; what fails later fails its own row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from alignbench.errors import AlignbenchError, RunError, UsageError
from alignbench.generators.hf.series import STEP, step_of
from alignbench.generators.law import Law
from alignbench.generators.token_bytes import token_bytes
from alignbench.run import words
from alignbench.run.measured import rows_of, rows_of_p
from alignbench.run.models import Models, label_of, name_of
from alignbench.run.plan import Plan, look_up, no_base, own_base
from alignbench.run.rescore import remember
from alignbench.run.rows import Candidate, Row, frame
from alignbench.run.settings import Settings
from alignbench.run.writer import Writer
from alignbench.scoring.bench import Bench, Progress, identity_of, silent
from alignbench.scoring.references import References
from alignbench.seeds import Seed
from alignbench.store import DrawStore, check_writable, digest
from alignbench.task import Task
from alignbench.types import CEILING, PRIMARY

if TYPE_CHECKING:
    import pandas as pd

BASE, MODEL, ALIGNER, DRAWS_OF_P = range(4)
"""The rows of a task in the order in which they are listed."""


@dataclass(frozen=True, order=True)
class Place:
    """Where rows stand among those of the run: sorted by these fields, in this order."""

    task: int
    seed: int
    part: int  # BASE, MODEL, ALIGNER or DRAWS_OF_P
    number: int = 0  # as they were asked for


@dataclass
class Outcome:
    """The rows of a run, what failed, and how many draws were new."""

    rows: list[Row] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    fresh: int = 0
    primary: dict[str, str] = field(default_factory=dict)
    exit_code: int = 0
    errors: list[AlignbenchError] = field(default_factory=list)  # one for each of `failures`

    def fail(self, line: str, error: AlignbenchError) -> None:
        """Note a failure, once."""
        if line not in self.failures:
            self.failures.append(line)
            self.errors.append(error)
            self.exit_code = max(self.exit_code, error.exit_code)

    def failed(self, who: str, error: AlignbenchError) -> None:
        """Note whose failure it is."""
        self.fail(f"{who}: {error}", error)

    @contextmanager
    def failing(self, who: str) -> Iterator[None]:
        """A failure inside is noted with `who` before it, and the run goes on."""
        try:
            yield
        except AlignbenchError as error:
            self.failed(who, error)

    def frame(self) -> pd.DataFrame:
        """The tidy rows."""
        return frame(self.rows, self.primary)


@dataclass(frozen=True)
class Watch:
    """Who looks on: what was typed, who shows progress, who is told of each generator's rows as they finish."""

    argv: tuple[str, ...] = ()
    progress: Progress = silent
    on_rows: Callable[[Sequence[Row]], None] = lambda rows: None


def run(settings: Settings, watch: Watch | None = None) -> Outcome:
    """Carry out a run. Raises UsageError on what is wrong with the settings; other failures are in the outcome."""
    plan = look_up(settings)
    models = Models(settings.handed, settings.gen_kwargs, dict(plan.broken))
    return _Run(plan, models, watch or Watch()).run()


@dataclass(frozen=True)
class _Stand:
    """A task with one seed: what its generators share, and its place among the rows of the run."""

    place: Place
    references: References
    seeds: int  # of the run

    @property
    def bench(self) -> Bench:
        return self.references.bench

    def who(self, label: str) -> str:
        """Whose failure it is: the task, the seed where there are several, the generator."""
        seed = f" (seed {self.bench.seed.entropy})" if self.seeds > 1 else ""
        return f"{self.bench.task.name}{seed}: {label}"


@dataclass(frozen=True)
class Other:
    """A model beside the base, not loaded yet."""

    number: int
    given: Any
    barred: frozenset[str]  # names of the tasks that it cannot do


@dataclass
class _Run:
    """A run under way."""

    plan: Plan
    models: Models
    watch: Watch
    outcome: Outcome = field(default_factory=Outcome)
    placed: list[tuple[Place, list[Row]]] = field(default_factory=list)

    @property
    def settings(self) -> Settings:
        return self.plan.settings

    def run(self) -> Outcome:
        for error in self.plan.failures:
            self.outcome.fail(str(error), error)
        if self.settings.output_path:
            check_writable(self.settings.output_path)
            words.write(self.settings, self.settings.output_path)
        stands = [stand for stand in self._stands() if self._readable(stand)]
        others = self._others(stands)
        stands = self._base_and_aligners(stands, keep=bool(others))
        self._other_models(stands, others)
        self.outcome.rows = [row for _, rows in sorted(self.placed, key=lambda found: found[0]) for row in rows]
        return self.outcome

    def _stands(self) -> Iterator[_Stand]:
        """Each task with each seed; a base that cannot be had fails the tasks that need it, in one line."""
        lost: dict[str, tuple[AlignbenchError, list[str]]] = {}
        for number, task in enumerate(self.plan.tasks):
            given = own_base(task) or self.plan.base
            if given is None:
                raise no_base(task)
            try:
                base = self.models.load(given, keep=True)
                benches = [self._bench(task, name_of(base, given), base, seed) for seed in self.settings.seed]
            except AlignbenchError as error:
                lost.setdefault(label_of(given), (error, []))[1].append(task.name)
                continue
            for i, bench in enumerate(benches):
                yield _Stand(Place(number, i, BASE), References(bench), len(benches))
        for why, names in lost.values():
            self.outcome.fail(f"{', '.join(names)}: {why}", why)

    def _bench(self, task: Task, name: str, base: Any, seed: int) -> Bench:
        judge, folder = None if task.base else self.plan.judge, self.settings.output_path
        return Bench(
            task=task, base=base, base_name=name, draws=self.plan.draws_of(task),
            store=DrawStore(folder / "draws" if folder else None),
            limit=self.settings.limit, whole=self.plan.sizes.get(task.name, 0), seed=Seed(seed),
            progress=self.watch.progress, judge=None if judge is None else self.models.load(judge, keep=True),
            judge_name="" if judge is None else label_of(judge),
        )  # fmt: skip

    def _readable(self, stand: _Stand) -> bool:
        """Whether base and judge can read the prompts; a failure is told before anything is drawn."""
        bench = stand.bench
        with self.outcome.failing(f"{bench.task.name}: {bench.base_name}"):
            bench.check()
            if bench.judge is not None:
                bench.check(bench.judge, "judging draws of one by the other")
            return True
        return False

    def _others(self, stands: Sequence[_Stand]) -> list[Other]:
        """The models beside the base; one that cannot be had, and tasks that one cannot do, are told."""
        benches = [stand.bench for stand in stands if not stand.bench.task.base]
        found = []
        for number, given in enumerate(self.plan.others if benches else ()):
            try:
                outline = self.models.outline(given)
            except AlignbenchError as error:
                self.outcome.failed(label_of(given), error)
            else:
                found.append(Other(number, given, self._barred(given, outline, benches)))
        return found

    def _barred(self, given: Any, outline: Any, benches: Sequence[Bench]) -> frozenset[str]:
        """Names of the tasks whose prompts a model cannot read, or whose base it cannot be compared with."""
        if outline is None:
            return frozenset()
        generator, name, barred = self.models.warped(given, outline), name_of(outline, given), set()
        for bench in benches:
            try:
                bench.check(generator)
            except AlignbenchError as error:
                self.outcome.failed(f"{bench.task.name}: {name}", error)
                barred.add(bench.task.name)
        return frozenset(barred)

    def _base_and_aligners(self, stands: list[_Stand], *, keep: bool) -> list[_Stand]:
        """Measure base, aligners and draws of p of every task; what was measured on, where other models follow.

        Takes the stands out of the list, so that the reference draws of one that is done with are freed.
        """
        kept = []
        while stands:
            stand = stands.pop(0)
            if not self._prepared(stand):
                continue
            bench = stand.bench
            base = Candidate(bench.base_name, step=None if bench.task.base else self._step(self.plan.base, bench.base))
            self._row(stand, stand.place, base, bench.base)
            for number, (label, recipe) in enumerate(dict(self.plan.recipes).items()):
                place = replace(stand.place, part=ALIGNER, number=number)
                self._aligned(stand, place, replace(base, aligner=label, shots=getattr(recipe, "shots", 0)), recipe)
            self._draws_of_p(stand, replace(stand.place, part=DRAWS_OF_P))
            if keep:
                kept.append(stand)
        return kept

    def _prepared(self, stand: _Stand) -> bool:
        """Whether λ was fitted and reference draws made; a failure, or that no draw is one of p, is told."""
        bench, task = stand.bench, stand.bench.task
        self.outcome.primary[task.name] = task.primary or PRIMARY
        remember(self.settings.output_path, task)
        with self._counted(bench), self.outcome.failing(stand.who(bench.base_name)):
            _keep_vocab(bench)
            _ = stand.references.target  # fitted first, so that a moment that cannot be reached is told at once
            if line := stand.references.none_of_p:
                self.outcome.fail(line, RunError(line))
            return True
        return False

    def _other_models(self, stands: Sequence[_Stand], others: Sequence[Other]) -> None:
        """Measure each other model on every task that has no base of its own."""
        stands = [stand for stand in stands if not stand.bench.task.base]
        names = {stand.bench.base_name for stand in stands[:1]}
        for other in others:
            able = [stand for stand in stands if stand.bench.task.name not in other.barred]
            with self.outcome.failing(label_of(other.given)):
                if able:
                    self._other_model(able, other, names)

    def _other_model(self, stands: Sequence[_Stand], other: Other, names: set[str]) -> None:
        """Load a model, once, and measure it; when this returns nothing but `models` holds on to it."""
        model = self.models.load(other.given)
        generator = self.models.warped(other.given, model)
        name = _told_apart(self.models.named(other.given, model), generator, names)
        if name in names:
            return
        names.add(name)
        candidate = Candidate(name, step=self._step(other.given, model))
        for stand in stands:
            self._row(stand, replace(stand.place, part=MODEL, number=other.number), candidate, generator)

    def _row(self, stand: _Stand, place: Place, candidate: Candidate, generator: Any) -> None:
        """The rows of a generator."""
        with self._placing(stand, place, candidate) as rows:
            rows += rows_of(self._writer(stand, candidate), generator, self._failed(stand, candidate))

    def _aligned(self, stand: _Stand, place: Place, candidate: Candidate, recipe: Any) -> None:
        """The rows of an aligner on the base."""
        with self._placing(stand, place, candidate) as rows:
            generator = stand.references.setting.aligned(recipe)
            rows += rows_of(self._writer(stand, candidate), generator, self._failed(stand, candidate))

    def _draws_of_p(self, stand: _Stand, place: Place) -> None:
        """The rows of draws of p."""
        candidate = Candidate(CEILING)
        with self._placing(stand, place, candidate) as rows:
            rows += rows_of_p(self._writer(stand, candidate), self._failed(stand, candidate))

    @contextmanager
    def _placing(self, stand: _Stand, place: Place, candidate: Candidate) -> Iterator[list[Row]]:
        """A list for the rows of a candidate, which stand at `place` and are told; a failure is its own."""
        rows: list[Row] = []
        with self._counted(stand.bench), self.outcome.failing(stand.who(candidate.label)):
            yield rows
        self.placed.append((place, rows))
        if rows:
            self.watch.on_rows(rows)

    @contextmanager
    def _counted(self, bench: Bench) -> Iterator[None]:
        """Draws that are made inside are counted as new."""
        before = bench.fresh
        try:
            yield
        finally:
            self.outcome.fresh += bench.fresh - before

    def _failed(self, stand: _Stand, candidate: Candidate) -> Callable[[AlignbenchError], None]:
        """What is told of a metric that fails."""
        return partial(self.outcome.failed, f"{stand.bench.task.name}: {candidate.label}")

    def _writer(self, stand: _Stand, candidate: Candidate) -> Writer:
        return Writer(
            self.settings.output_path, stand.references, candidate, self.watch.argv,
            {"batch_size": "auto", **(words.words_of(self.settings) or self.settings.handed)},
            log_samples=self.settings.log_samples,
        )  # fmt: skip

    def _step(self, given: Any, model: Any) -> int | None:
        """The training step of a checkpoint: what a pattern stood for tells it, else a name with "step" or such."""
        if (label := label_of(given)) in self.plan.steps:
            return self.plan.steps[label]
        name = name_of(model, given)
        return step_of(name) if STEP.search(name) else None


def _told_apart(name: str, generator: Any, taken: set[str]) -> str:
    """The name, with a few digits of the generator's identity after it where another has it already.

    Two checkpoints may both lie in a folder called `final`; were they one name, they would be one row.
    """
    identity = identity_of(generator)
    if name not in taken:
        return name
    return f"{name}#{len(taken) if identity is None else digest(identity)[:6]}"


def _keep_vocab(bench: Bench) -> None:
    """Store what each token spells, where the tokenizer says it: reports show draws by token."""
    law = bench.base
    if isinstance(law, Law):
        with suppress(UsageError):
            bench.store.keep_vocab(law.vocab.fingerprint, lambda: token_bytes(law.model))
