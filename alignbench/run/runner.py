"""Task × generator → rows: what a run does, in the order in which it does it."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from alignbench.errors import AlignbenchError, RunError, Unsupported, UsageError, brief
from alignbench.generators.hf.series import STEP, step_of
from alignbench.generators.law import Law
from alignbench.generators.token_bytes import token_bytes
from alignbench.registry import generator as generators
from alignbench.run import config, results
from alignbench.run.job import Job, label_of, name_of, same
from alignbench.run.plan import Plan, look_up, no_base, own_base
from alignbench.run.results import Row, RowKey
from alignbench.scoring.evidence import Bench, identity_of
from alignbench.seeds import Seed
from alignbench.spec import Spec
from alignbench.store import DrawStore, check_writable, digest
from alignbench.task import Task
from alignbench.types import CEILING, PRIMARY, Evidence, Sampler

if TYPE_CHECKING:
    import pandas as pd

EVIDENCE = 4
"""Raised when what evidence holds, or how it is scored, changes: older files are then measured again."""


@dataclass(frozen=True)
class Candidate:
    """One row of a task: a generator, or an aligner on the base."""

    name: str
    aligner: str = ""
    given: Any = None  # the model's spec, or an object that stands for itself
    recipe: Any = None
    identity: Any = None
    step: int | None = None  # of a checkpoint
    barred: frozenset[str] = frozenset()  # tasks that it cannot do

    @property
    def label(self) -> str:
        """What people call it."""
        return f"{self.name} + {self.aligner}" if self.aligner else self.name


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

    def frame(self) -> pd.DataFrame:
        """The tidy rows."""
        return results.frame(self.rows, self.primary)


def run(job: Job) -> Outcome:
    """Carry out a job: everything that can be wrong with it is found before the first draw."""
    return _Run(look_up(job)).run()


@dataclass(frozen=True)
class _Stand:
    """A bench, and where its rows belong among those of the run."""

    place: int
    bench: Bench


@dataclass
class _Run:
    """A run under way: the base and the judge stay loaded, of the other models one at a time."""

    plan: Plan
    outcome: Outcome = field(default_factory=Outcome)
    loaded: dict[str, Any] = field(default_factory=dict)
    broken: dict[str, AlignbenchError] = field(default_factory=dict)  # label → why it cannot be loaded
    kept: set[str] = field(default_factory=set)  # labels of what stays loaded
    found: list[tuple[tuple[int, ...], list[Row]]] = field(default_factory=list)  # rows and their place

    @property
    def job(self) -> Job:
        return self.plan.job

    def run(self) -> Outcome:
        self.broken |= self.plan.broken
        for error in self.plan.failures:
            self.outcome.fail(str(error), error)
        if self.job.output_path:
            check_writable(self.job.output_path)
            config.write(self.job, self.job.output_path)
        stands = self._checked(self._stands())
        entrants = self._entrants(stands)
        stands = self._own_rows(stands, bool(entrants))
        for i, candidate in enumerate(entrants):
            for stand in stands:
                if stand.bench.task.name not in candidate.barred and not stand.bench.task.base:
                    self._row(stand, candidate, (1, i))
        self.outcome.rows = [row for _, rows in sorted(self.found, key=lambda f: f[0]) for row in rows]
        return self.outcome

    def _load(self, given: Any, keep: bool = False) -> Any:
        """The generator of a spec; an object stands for itself. One that is not to be kept goes when the next comes."""
        if not isinstance(given, Spec):
            return _sampler(given, f"a {type(given).__name__} is no generator: it")
        label = given.label
        if label in self.broken:
            raise self.broken[label]
        if label not in self.loaded:
            self._let_go()
            try:
                made = given.build(generators, "model", **self.job.supplied)
                self.loaded[label] = _sampler(made, f"generator '{given.name}' made a {type(made).__name__}, which")
            except AlignbenchError as error:
                self.broken[label] = error
                raise
        if keep:
            self.kept.add(label)
        return self.loaded[label]

    def _let_go(self) -> None:
        """Free the memory of the models that are not to be kept."""
        gone = self.loaded.keys() - self.kept
        for label in gone:
            del self.loaded[label]
        if gone:
            gc.collect()  # a network may refer to itself

    def _stands(self) -> Iterator[_Stand]:
        """A bench for each task and seed; a base that cannot be had fails the tasks that need it, in one line."""
        lost: dict[str, tuple[AlignbenchError, list[str]]] = {}
        for number, task in enumerate(self.plan.tasks):
            given = own_base(task) or self.plan.base
            if given is None:
                raise no_base(task)
            try:
                base = self._load(given, keep=True)
                benches = [self._bench(task, name_of(base, given), base, seed) for seed in self.job.seeds]
            except AlignbenchError as error:
                lost.setdefault(label_of(given), (error, []))[1].append(task.name)
                continue
            yield from (_Stand(number * len(benches) + i, bench) for i, bench in enumerate(benches))
        for why, names in lost.values():
            self.outcome.fail(f"{', '.join(names)}: {why}", why)

    def _bench(self, task: Task, name: str, base: Any, seed: int) -> Bench:
        judge = None if task.base else self.plan.judge
        return Bench(
            task=task, base=base, base_name=name, draws=self.job.draws_of(task),
            store=DrawStore(self.job.output_path / "draws" if self.job.output_path else None),
            limit=self.job.limit, whole=self.plan.sizes.get(task.name, 0), seed=Seed(seed),
            progress=self.job.progress, judge=None if judge is None else self._load(judge, keep=True),
            judge_name="" if judge is None else judge.label if isinstance(judge, Spec) else name_of(judge, judge),
        )  # fmt: skip

    def _checked(self, stands: Iterable[_Stand]) -> list[_Stand]:
        """Those on which base and judge can read the prompts; the others are told, before anything is drawn."""
        passed = []
        for stand in stands:
            try:
                stand.bench.check()
                if stand.bench.judge is not None:
                    stand.bench.check(stand.bench.judge, "judging draws of one by the other")
                passed.append(stand)
            except AlignbenchError as error:
                self.outcome.fail(f"{stand.bench.task.name}: {stand.bench.base_name}: {error}", error)
        return passed

    def _entrants(self, stands: Sequence[_Stand]) -> list[Candidate]:
        """The models beside the base, each loaded once so that what is wrong with it is known before the first draw."""
        benches = [stand.bench for stand in stands if not stand.bench.task.base]
        if not benches:
            return []
        others = [g for g in self.plan.models if self.job.gen_kwargs or not same(g, self.plan.base)]
        found = [entrant for given in others if (entrant := self._entrant(given, benches))]
        return told_apart([self._base_row(benches[0]), *found])[1:]

    def _entrant(self, given: Any, benches: Sequence[Bench]) -> Candidate | None:
        """The row of a model: its name, and the tasks that it cannot do, which are told; None where it cannot be had.

        Nothing but `loaded` may hold on to the model.
        """
        try:
            model = self._load(given)
        except AlignbenchError as error:
            self.outcome.fail(f"{label_of(given)}: {error}", error)
            return None
        generator, name, barred = self._warped(given, model), name_of(model, given), set()
        for bench in benches:
            try:
                bench.check(generator)
            except AlignbenchError as error:
                self.outcome.fail(f"{bench.task.name}: {name}: {error}", error)
                barred.add(bench.task.name)
        settings = ",".join(f"{k}={v}" for k, v in self.job.gen_kwargs.items())
        return Candidate(
            f"{name}:{settings}" if settings else name, given=given, identity=identity_of(generator),
            barred=frozenset(barred), step=self._step(given, name),
        )  # fmt: skip

    def _warped(self, given: Any, model: Any) -> Any:
        """The model under the job's decoding settings; raises Unsupported where it has none."""
        if not self.job.gen_kwargs:
            return model
        if not isinstance(model, Law):
            raise Unsupported(f"--gen_kwargs: {name_of(model, given)} has no decoding settings")
        return model.warped(**self.job.gen_kwargs)

    def _step(self, given: Any, name: str) -> int | None:
        """The training step of a checkpoint: what a pattern stood for tells it, else a name with "step" or such."""
        if (label := label_of(given)) in self.plan.steps:
            return self.plan.steps[label]
        return step_of(name) if STEP.search(name) else None

    def _base_row(self, bench: Bench) -> Candidate:
        step = None if bench.task.base else self._step(self.plan.base, bench.base_name)
        return Candidate(bench.base_name, given=bench.base, identity=identity_of(bench.base), step=step)

    def _own_rows(self, stands: list[_Stand], more: bool) -> list[_Stand]:
        """Measure the base, the aligners on it and draws of p on every bench; the benches, where `more` models follow.

        Takes the benches out of `stands`, so that the reference draws of one that is done with are freed.
        """
        kept = []
        while stands:
            stand = stands.pop(0)
            if not self._prepared(stand.bench):
                continue
            base = self._base_row(stand.bench)
            self._row(stand, base, (0,))
            for j, (label, recipe) in enumerate(dict(self.plan.recipes).items()):
                self._row(stand, replace(base, aligner=label, recipe=recipe, identity=None), (2, j))
            self._keep(stand, (3,), CEILING, partial(self._ceiling, stand.bench))
            if more:
                kept.append(stand)
        return kept

    def _prepared(self, bench: Bench) -> bool:
        """Whether λ was fitted and reference draws made; a failure, or that no draw is one of p, is told."""
        task = bench.task
        self.outcome.primary[task.name] = task.primary or PRIMARY
        results.remember(self.job.output_path, task)
        ready = bool(self._attempt(bench.base_name, bench, partial(_made_ready, bench)))
        if ready and (line := none_of_p(bench)):
            self.outcome.fail(line, RunError(line))
        return ready

    def _row(self, stand: _Stand, candidate: Candidate, place: tuple[int, ...]) -> None:
        self._keep(stand, place, candidate.label, partial(self._candidate, stand.bench, candidate))

    def _keep(self, stand: _Stand, place: tuple[int, ...], label: str, work: Callable[[], list[Row]]) -> None:
        rows = self._attempt(label, stand.bench, work)
        self.found.append(((stand.place, *place), rows))
        if rows:
            self.job.on_rows(rows)

    def _attempt(self, label: str, bench: Bench, work: Callable[[], list[Any]]) -> list[Any]:
        """What `work` returns; a failure of one row is told, and the others go on."""
        before = bench.fresh
        try:
            return work()
        except AlignbenchError as error:
            self.outcome.fail(f"{bench.task.name}{self._of_seed(bench)}: {label}: {error}", error)
            return []
        finally:
            self.outcome.fresh += bench.fresh - before

    def _of_seed(self, bench: Bench) -> str:
        """Which seed failed, where there are several."""
        return f" (seed {bench.seed.entropy})" if len(self.job.seeds) > 1 else ""

    def _candidate(self, bench: Bench, candidate: Candidate) -> list[Row]:
        writer = self._writer(bench, candidate)
        given = candidate.given
        generator = given if given is bench.base else self._warped(given, self._load(given))
        if candidate.recipe is not None:
            generator = bench.setting.aligned(candidate.recipe)
        evidence, key = self._evidence(writer, bench, candidate, generator)
        rows = self._measured(bench, candidate.label, key, evidence)
        if self.job.log_samples:
            writer.samples(evidence)
        if writer.new:
            writer.finish(rows, evidence)
        elif writer.folder is not None:
            results.restate(writer.folder, rows)
        return rows

    def _measured(self, bench: Bench, label: str, key: RowKey, evidence: Evidence) -> list[Row]:
        """The rows of the task's metrics; one that fails is told, and the others go on."""

        def failed(error: AlignbenchError) -> None:
            self.outcome.fail(f"{bench.task.name}: {label}: {error}", error)

        return results.measure(bench.task.metrics, key, evidence, failed)

    def _writer(self, bench: Bench, candidate: Candidate) -> results.Writer:
        return results.Writer(
            self.job.output_path, bench, candidate.name, candidate.aligner, self.job.argv, step=candidate.step,
            shots=getattr(candidate.recipe, "shots", 0),
            job={"batch_size": "auto", **(config.words_of(self.job) or self.job.supplied)},
        )  # fmt: skip

    def _evidence(
        self, writer: results.Writer, bench: Bench, candidate: Candidate, generator: Any
    ) -> tuple[Evidence, RowKey]:
        """The stored evidence where nothing that it depends on has changed, else measured anew and stored."""
        identity = identity_of(generator)
        wanted = _depends_on(bench, identity)
        named = [identity, identity_of(bench.base), *([identity_of(bench.judge)] if bench.judge else [])]
        found = writer.stored(wanted) if all(i is not None for i in named) else None
        if found is not None:
            key = writer.key(identity, found[1])
            if key != found[1]:  # `score` is to give the rows of this run: its ci_over, version, step
                writer.store(wanted, found[0], key)
            return found[0], key
        with writer.running():
            bench.check(generator)
            evidence = bench.measure(candidate.label, generator)
            key = writer.key(identity)
            writer.store(wanted, evidence, key)
        return evidence, key

    def _ceiling(self, bench: Bench) -> list[Row]:
        """The row of draws of p, where there are any: what the diversity and fluency of a perfect generator are."""
        try:
            evidence = bench.ceiling()
        except Unsupported:
            return []
        writer = self._writer(bench, Candidate(CEILING))
        wanted = _depends_on(bench, CEILING)
        found = writer.stored(wanted)
        key = writer.key(CEILING, found[1] if found else None)
        writer.store(wanted, evidence, key)
        rows = self._measured(bench, CEILING, key, evidence)
        if found is None:
            writer.finish(rows, evidence)
        elif writer.folder is not None:
            results.restate(writer.folder, rows)
        return rows


def _made_ready(bench: Bench) -> list[Any]:
    """The target and the reference draws; reports will show draws by token, where the tokenizer says their bytes."""
    law = bench.base
    if isinstance(law, Law):
        with suppress(UsageError):
            bench.store.keep_vocab(law.vocab.fingerprint, lambda: token_bytes(law.model))
    return [bench.target, bench.ref]


def none_of_p(bench: Bench) -> str:
    """What to say of a task in which no reference draw of any prompt is a draw of p; "" where one is."""
    ref = bench.ref
    if ref.log_target is None or np.isfinite(ref.log_target).any():
        return ""
    some = ", ".join(map(brief, bench.prompts[:3])) + (", …" if len(bench.prompts) > 3 else "")
    return (
        f"{bench.task.name}: none of the {len(ref.draws)} reference draws is a draw of p, for any of its "
        f"{len(bench.prompts)} prompts ({some}): divergences are bounds or missing; raise --draws, or give the task "
        "'proposals' that reach p"
    )


def _sampler(thing: Any, who: str) -> Any:
    if not isinstance(thing, Sampler):
        raise Unsupported(f"{who} has no method 'sample'")
    return thing


def told_apart(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates, no two with one label: a namesake of an earlier one gets a few digits of its identity.

    Two checkpoints may both lie in a folder called `final`; were they one name, they would be one row.
    """
    kept: dict[str, Candidate] = {}
    for candidate in candidates:
        mark = len(kept) if candidate.identity is None else digest(candidate.identity)[:6]
        named = candidate if candidate.label not in kept else replace(candidate, name=f"{candidate.name}#{mark}")
        kept.setdefault(named.label, named)
    return list(kept.values())


def _depends_on(bench: Bench, identity: Any) -> str:
    """The key of all that evidence depends on."""
    return digest({
        "task": bench.task.hash, "prompts": bench.prompts, "draws": bench.draws, "seed": bench.seed.entropy,
        "base": identity_of(bench.base), "generator": identity, "format": EVIDENCE,
        "proposals": [spec.label for spec in bench.task.proposals],
        "judge": identity_of(bench.judge) if bench.judge else None,
    })  # fmt: skip
