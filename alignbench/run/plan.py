"""A job looked up: its tasks loaded, its series expanded, every name and argument checked; no model is loaded."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from alignbench.errors import AlignbenchError, UsageError, unknown
from alignbench.generators.hf.series import expand, step_in
from alignbench.registry import generator as generators
from alignbench.registry import load_plugins
from alignbench.run.job import Job, name_of, recipe_of, same
from alignbench.spec import Spec, no_code, parse_spec
from alignbench.task import Task, load_task, task_files

_LOG = logging.getLogger(__name__)


@dataclass
class Plan:
    """What a job comes to, and what of it cannot be had."""

    job: Job
    recipes: list[tuple[str, Any]]  # label and aligner
    models: list[Any] = field(default_factory=list)  # the job's, each checkpoint of a series by itself
    base: Any = None  # of the tasks that bring none
    judge: Any = None
    tasks: list[Task] = field(default_factory=list)  # under --limit
    sizes: dict[str, int] = field(default_factory=dict)  # prompts of each task before --limit
    steps: dict[str, int | None] = field(default_factory=dict)  # label of a checkpoint that a pattern stood for → step
    broken: dict[str, AlignbenchError] = field(default_factory=dict)  # label of a pattern → why it stands for nothing
    failures: list[AlignbenchError] = field(default_factory=list)  # of tasks that cannot be loaded

    def checkpoints(self, given: Any) -> list[Any]:
        """Every checkpoint of a series as a model of its own; a pattern that matches nothing is told."""
        if not isinstance(given, Spec):
            return [given]
        try:
            found = expand(given)
        except UsageError as error:
            self.broken[given.label] = error
            return [given]
        self.steps |= {one.label: step_in(given, one) for one in found if one != given}
        return found

    def only(self, given: Any, word: str) -> Any:
        """The one model that a base or judge is. Raises UsageError on a pattern of several."""
        found = self.checkpoints(given)
        if len(found) > 1:
            raise UsageError(f"--{word} {given.label}: a series of checkpoints; name one of them")
        return found[0]


def look_up(job: Job) -> Plan:
    """The plan of a job; raises UsageError on a name that nobody registered."""
    load_plugins(job.include_path)
    plan = Plan(job, [recipe_of(given) for given in job.aligners])
    for spec in (*job.models, job.base, job.judge):
        if isinstance(spec, Spec):
            no_code(spec, f"model '{spec.name}'")
            generators.find(spec.name).check(spec.arguments, f"model '{spec.name}'", tuple(job.supplied))
    for given in job.models:
        plan.models += [one for one in plan.checkpoints(given) if not any(same(one, other) for other in plan.models)]
    plan.base = plan.only(job.base, "base") or (plan.models[0] if plan.models else None)
    plan.judge = plan.only(job.judge, "judge")
    tasks = {(task.name, task.hash): task for task in _tasks(plan)}  # each once, however often it is named
    plan.tasks = list(tasks.values())
    plan.sizes = {task.name: len(task.prompts) for task in plan.tasks}
    _refuse_unused(plan)
    if job.limit is not None:
        plan.tasks = [task.limited(job.limit) for task in plan.tasks]
    return plan


def plan(job: Job) -> list[str]:
    """What a job would draw, a line for each row, with every name and argument checked; no model is loaded."""
    lines, found = [], look_up(job)
    for task in found.tasks:
        draws = job.draws_of(task)
        most = len(task.prompts) * draws * task.max_tokens
        lines.append(f"{task.name} v{task.version}: {len(task.prompts)} prompts × {draws} draws × at most "
                     f"{task.max_tokens} tokens = {most:,} tokens for each generator")  # fmt: skip
        base = parse_spec(task.base, "base") if task.base else found.base
        if base is None:
            raise no_base(task)
        fitted = ", as many again twice to fit and test λ" if task.target.needs_fit else ""
        lines.append(f"  {name_of(None, base)} (base), and as many reference draws{fitted}")
        for model in () if task.base else found.models:
            if job.gen_kwargs or model != base:
                settings = ",".join(f"{k}={v}" for k, v in job.gen_kwargs.items())
                lines.append(f"  {name_of(None, model)}" + (f":{settings}" if settings else ""))
        lines += [f"  {name_of(None, base)} + {label}" for label, _ in found.recipes]
        if task.base and job.models:
            lines.append("  (the task brings its own base: --model is left out here)")
    if len(job.seeds) > 1:
        lines.append(f"all of it for each of {len(job.seeds)} seeds: {', '.join(map(str, job.seeds))}")
    for error in (*found.broken.values(), *found.failures):
        raise error
    return lines


def _tasks(plan: Plan) -> Iterator[Task]:
    """The tasks that can be loaded; the others are told, but for files that do not exist."""
    for path in [p for words in plan.job.tasks for p in task_files(words, plan.job.include_path)]:
        try:
            task = load_task(path)
            own_base(task)
            yield task
        except AlignbenchError as error:
            if not path.is_file():
                raise
            plan.failures.append(error)


def _refuse_unused(plan: Plan) -> None:
    """Raise UsageError on options that nothing here takes, and say which models go unused."""
    job = plan.job
    specs = [s for s in (*job.models, job.base, job.judge) if isinstance(s, Spec)]
    taken = {name for s in specs for name in generators.find(s.name).parameters} | {"batch_size", "device"}
    for name in job.supplied:
        if specs and name not in taken:
            raise UsageError(f"--{name}: none of {', '.join(s.name for s in specs)} takes it")
    sized = job.draws if isinstance(job.draws, Mapping) else {}
    strange = [name for name in sized if name not in plan.sizes]
    if strange and not plan.failures:  # else it may be the name of a task that cannot be loaded
        raise unknown("task", strange[0], plan.sizes, "draws")
    own = bool(plan.tasks) and all(task.base for task in plan.tasks)
    if own and (job.gen_kwargs or job.judge or job.base):
        raise UsageError("--base, --gen_kwargs and --judge have no effect: each of these tasks brings its own base")
    if own and job.models:
        _LOG.warning("--model is not used: each of these tasks brings its own base")


def own_base(task: Task) -> Spec | None:
    """The spec of the base that a task brings, its name and arguments checked; None for most tasks."""
    if not task.base:
        return None
    where = f"task '{task.name}': base"
    spec = no_code(parse_spec(task.base, where), where)
    generators.find(spec.name, where).check(spec.arguments, where)
    return spec


def no_base(task: Task) -> UsageError:
    """What to say of a task that needs a model where none is given."""
    return UsageError(f"task '{task.name}' brings no base of its own: give --model")
