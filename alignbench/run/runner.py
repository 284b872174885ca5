"""A run, in the order in which it does things: look up, check, fit targets, measure base and aligners, then others.

What files can tell is told before the first draw; what only weights can tell fails its own row.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from alignbench.errors import AlignbenchError, let_go
from alignbench.files import check_writable, digest
from alignbench.generators.described import identity_of
from alignbench.generators.hf.series import step_of
from alignbench.generators.later import Later, Recalled, told_of
from alignbench.run import words
from alignbench.run.known import Known
from alignbench.run.models import Models, label_of, name_of
from alignbench.run.outcome import Outcome, Place, Watch
from alignbench.run.pace import Step
from alignbench.run.plan import Plan, base_draws, look_up, no_base, own_base
from alignbench.run.rescore import remember
from alignbench.run.rows import Candidate, frame
from alignbench.run.settings import Settings
from alignbench.run.task_run import TaskRun
from alignbench.run.writer import Writer
from alignbench.scoring.bench import Bench
from alignbench.scoring.references import KNOWN, References
from alignbench.seeds import Seed
from alignbench.spec import STEP, Spec
from alignbench.store.draws import DrawStore
from alignbench.task import Task
from alignbench.types import Sampler


def run(settings: Settings, watch: Watch | None = None) -> Outcome:
    """Carry out a run. Raises UsageError on what is wrong with the settings; other failures are in the outcome."""
    plan = look_up(settings)
    folder = settings.output_path
    models = Models(settings.handed, settings.gen_kwargs, dict(plan.broken), Known(folder and folder / KNOWN))
    running = _Run(plan, models, watch or Watch(), Outcome(broken=models.broken))
    for error in plan.failures:
        running.outcome.fail(str(error), error)
    if settings.output_path:
        check_writable(settings.output_path)
        words.write(settings, settings.output_path)
    tasks = [task_run for task_run in running.task_runs() if task_run.readable()]
    others = running.others(tasks)
    running.watch.pace.steps = running.steps(tasks, others)
    tasks = running.base_and_aligners(tasks, keep=bool(others))
    running.other_models(tasks, others)
    return running.outcome


@dataclass(frozen=True)
class _Other:
    """A model beside the base, not loaded yet."""

    number: int
    given: Spec | Sampler
    cannot_do: frozenset[str]  # names of the tasks that it cannot do


@dataclass
class _Run:
    """The steps of a run, and what they share."""

    plan: Plan
    models: Models
    watch: Watch
    outcome: Outcome = field(default_factory=Outcome)

    @property
    def settings(self) -> Settings:
        return self.plan.settings

    def task_runs(self) -> Iterator[TaskRun]:
        """Each task with each seed; a base that cannot be had fails the tasks that need it, in one line."""
        lost: dict[str, tuple[AlignbenchError, list[str]]] = {}
        for number, task in enumerate(self.plan.tasks):
            given = own_base(task) or self.plan.base
            if given is None:
                raise no_base(task)
            try:
                base = self.models.later(given, keep=True)
                name = name_of(told_of(base), given)
                benches = [self._bench(task, name, base, seed) for seed in self.settings.seed]
            except AlignbenchError as error:
                lost.setdefault(label_of(given), (error, []))[1].append(task.name)
                continue
            for i, bench in enumerate(benches):
                yield TaskRun(References(bench), Place(number, i), len(benches) > 1, self.outcome, self._writer,
                              self.watch, self.models.known)  # fmt: skip
        for why, names in lost.values():
            self.outcome.fail(f"{', '.join(names)}: {why}", why)

    def _bench(self, task: Task, name: str, base: Sampler | Later[Sampler], seed: int) -> Bench:
        judge, folder = None if task.base else self.plan.judge, self.settings.output_path
        return Bench(
            task=task, given=base, base_name=name, draws=self.plan.draws_of(task),
            store=DrawStore(folder / "draws" if folder else None, drew=self.watch.pace.drew),
            limit=self.plan.limit_of(task), whole=self.plan.sizes.get(task.name, 0), seed=Seed(seed),
            progress=self.watch.progress,
            given_judge=None if judge is None else self.models.later(judge, keep=True),
            judge_name="" if judge is None else label_of(judge), output=folder,
        )  # fmt: skip

    def steps(self, tasks: Sequence[TaskRun], others: Sequence[_Other]) -> list[Step]:
        """The rows that are to be made, in the order in which they are."""
        own = [step for task_run in tasks for step in self._steps_of(task_run)]
        return own + [
            _step(task_run, name_of(self.models.outline(other.given), other.given))
            for other in others for task_run in tasks if self._able(task_run, other)
        ]  # fmt: skip

    def _steps_of(self, task_run: TaskRun) -> Iterator[Step]:
        """Those of the base, for which reference draws and those that λ is fitted on are drawn too, and of aligners."""
        task = task_run.bench.task
        yield _step(task_run, task_run.bench.base_name, base_draws(task))
        for recipe in self.plan.recipes_of(task.name):
            yield _step(task_run, recipe.label)

    @staticmethod
    def _able(task_run: TaskRun, other: _Other) -> bool:
        """Whether a model is measured on a task."""
        return not task_run.bench.task.base and task_run.bench.task.name not in other.cannot_do

    def others(self, tasks: Sequence[TaskRun]) -> list[_Other]:
        """The models beside the base; one that cannot be had, and tasks that one cannot do, are told."""
        benches = [one.bench for one in tasks if not one.bench.task.base]
        found = []
        for number, given in enumerate(self.plan.others if benches else ()):
            try:
                outline = self.models.outline(given)
            except AlignbenchError as error:
                self.outcome.failed(label_of(given), error)
            else:
                found.append(_Other(number, given, self._cannot_do(given, outline, benches)))
        return found

    def _cannot_do(self, given: Spec | Sampler, outline: Sampler | None, benches: Sequence[Bench]) -> frozenset[str]:
        """Names of the tasks whose prompts a model cannot read, or whose base it cannot be compared with."""
        if outline is None:
            return frozenset()
        name, cannot_do = name_of(outline, given), set()
        generator = outline if isinstance(outline, Recalled) else self.models.warped(given, outline)
        for bench in benches:
            try:
                bench.check(generator)
            except AlignbenchError as error:
                self.outcome.failed(f"{bench.task.name}: {name}", error)
                cannot_do.add(bench.task.name)
        return frozenset(cannot_do)

    def base_and_aligners(self, tasks: list[TaskRun], *, keep: bool) -> list[TaskRun]:
        """Measure base, aligners and draws of p of every task; the tasks that were, where other models follow.

        Takes the tasks out of the list, so that the reference draws of one that is done with are freed.
        """
        kept = []
        while tasks:
            task_run = tasks.pop(0)
            bench = task_run.bench
            remember(self.settings.output_path, bench.task)
            if not task_run.prepared():
                self.watch.pace.skip(bench.task.name, bench.seed.entropy)
                continue
            given = None if bench.task.base else self.plan.base
            base = Candidate(bench.base_name, step=None if given is None else self._step(given, bench.told))
            task_run.base(base)
            for number, recipe in enumerate(self.plan.recipes_of(bench.task.name)):
                candidate = replace(base, aligner=recipe.label, shots=getattr(recipe.aligner, "shots", 0))
                put_to_work = task_run.series if self.settings.series else task_run.aligner
                put_to_work(number, candidate, recipe.aligner)
            task_run.draws_of_p()
            if keep and not bench.task.base:
                kept.append(task_run)
            elif not any(later.place.task == task_run.place.task for later in tasks):
                self.finished(task_run.place.task)
        return kept

    def finished(self, number: int) -> None:
        """All rows of the `number`th task are there."""
        if rows := self.outcome.of_task(number):
            self.watch.on_task(frame(rows, self.outcome.primary, self.outcome.summaries))

    def other_models(self, tasks: Sequence[TaskRun], others: Sequence[_Other]) -> None:
        """Measure each other model on every task that has no base of its own."""
        names = {task_run.bench.base_name: task_run.bench.base_identity for task_run in tasks[:1]}
        for other in others:
            able = [task_run for task_run in tasks if self._able(task_run, other)]
            with self.outcome.failing(label_of(other.given)):
                if able:
                    self._other_model(able, other, names)
            for error in self.outcome.errors:  # one that the model raised would keep it in memory
                let_go(error)
        for number in dict.fromkeys(task_run.place.task for task_run in tasks):
            self.finished(number)

    def _other_model(self, tasks: Sequence[TaskRun], other: _Other, names: dict[str, Any]) -> None:
        """Measure a model, loaded once if it must be; when this returns nothing but `models` holds on to it.

        `names`: what the rows so far are called → the identities of their generators.
        """
        generator = self._warped_later(other.given)
        told = told_of(generator)
        name, identity = self.models.named(other.given, told), identity_of(told)
        if name in names and identity is not None and names[name] == identity:
            return  # the same weights again
        name = _unique_name(name, told, names)
        if name in names:
            return
        names[name] = identity
        candidate = Candidate(name, step=self._step(other.given, told))
        for task_run in tasks:
            task_run.model(other.number, candidate, generator)

    def _warped_later(self, given: Spec | Sampler) -> Sampler | Later[Sampler]:
        """A model under the run's decoding settings, loaded when it is needed."""
        models, later = self.models, self.models.later(given)
        if not models.gen_kwargs:
            return later
        if not isinstance(later, Later):
            return models.warped(given, later)
        if isinstance(outline := later.outline, Recalled):  # its settings are not known
            return models.warped(given, models.load(given))
        return Later(models.warped(given, outline), lambda: models.warped(given, models.load(given)))

    def _writer(self, references: References, candidate: Candidate) -> Writer:
        job = words.words_of(self.settings) or {"batch_size": "auto", **self.settings.handed}
        return Writer(
            self.settings.output_path, references, candidate, self.watch.argv, job,
            log_samples=self.settings.log_samples,
        )  # fmt: skip

    def _step(self, given: Spec | Sampler, model: Sampler) -> int | None:
        """The training step of a checkpoint: what a pattern stood for tells it, else a name with "step" or such."""
        if (label := label_of(given)) in self.plan.steps:
            return self.plan.steps[label]
        name = name_of(model, given)
        return step_of(name) if STEP.search(name) else None


def _step(task_run: TaskRun, label: str, times: int = 1) -> Step:
    """The step of a row for which as many draws as the task asks for are drawn so many `times`."""
    bench = task_run.bench
    most = len(bench.prompts) * bench.draws * bench.task.max_tokens
    return Step(bench.task.name, bench.seed.entropy, label, times * most, world=bool(bench.task.base))


def _unique_name(name: str, generator: Sampler, taken: Collection[str]) -> str:
    """The name, with a few digits of the generator's identity after it where another has it already.

    A user may call two models by one name, and two revisions of a hub's have one; they would be one row.
    """
    identity = identity_of(generator)
    if name not in taken:
        return name
    return f"{name}#{len(taken) if identity is None else digest(identity)[:6]}"
