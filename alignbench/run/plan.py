"""Settings looked up: tasks loaded, series expanded, every name and argument checked; no model is loaded."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import NamedTuple

from alignbench.aligners.base import Aligner
from alignbench.errors import AlignbenchError, UsageError, did_you_mean, unknown
from alignbench.generators.hf.series import expand, step_in, told_apart
from alignbench.registry import generator as generators
from alignbench.registry import load_plugins
from alignbench.run.models import label_of, name_of, recipe_of, same
from alignbench.run.settings import Settings
from alignbench.spec import Spec, parse_spec
from alignbench.task import Task, load_task, task_files
from alignbench.types import Sampler

_LOG = logging.getLogger(__name__)


class Recipe(NamedTuple):
    """An aligner, what its rows are called, and the tasks that it is run on, by names or patterns; all where none."""

    label: str
    aligner: Aligner
    only: tuple[str, ...] = ()

    def fits(self, task: str) -> bool:
        """Whether it is run on the task of this name."""
        return not self.only or any(fnmatchcase(task, pattern) for pattern in self.only)


@dataclass
class Plan:
    """What settings come to, and what of it cannot be had."""

    settings: Settings
    recipes: list[Recipe]
    models: list[Spec | Sampler] = field(default_factory=list)  # those asked for, each checkpoint of a series by itself
    base: Spec | Sampler | None = None  # of the tasks that bring none
    judge: Spec | Sampler | None = None
    tasks: list[Task] = field(default_factory=list)  # under --limit
    sizes: dict[str, int] = field(default_factory=dict)  # prompts of each task before --limit
    steps: dict[str, int | None] = field(default_factory=dict)  # label of a checkpoint that a pattern stood for → step
    broken: dict[str, AlignbenchError] = field(default_factory=dict)  # label of a pattern → why it stands for nothing
    failures: list[AlignbenchError] = field(default_factory=list)  # of tasks that cannot be loaded

    def draws_of(self, task: Task) -> int:
        """Draws per prompt of a task."""
        draws = self.settings.draws
        return (draws.get(task.name) if isinstance(draws, Mapping) else draws) or task.draws

    def limit_of(self, task: Task) -> int | None:
        """Prompts of a task at most; None for all."""
        limit = self.settings.limit
        return limit.get(task.name) if isinstance(limit, Mapping) else limit

    def recipes_of(self, task: str) -> list[Recipe]:
        """The aligners that are run on a task, each once."""
        return list({r.label: r for r in self.recipes if r.fits(task)}.values())

    @property
    def others(self) -> list[Spec | Sampler]:
        """The models beside the base, which itself is one under decoding settings."""
        return [given for given in self.models if self.settings.gen_kwargs or not same(given, self.base)]

    def checkpoints(self, given: Spec | Sampler) -> Sequence[Spec | Sampler]:
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

    def only(self, given: Spec | Sampler | None, word: str) -> Spec | Sampler | None:
        """The one model that a base or judge is, if any. Raises UsageError on a pattern of several."""
        found = [None] if given is None else self.checkpoints(given)
        if given is not None and len(found) > 1:
            raise UsageError(f"--{word} {label_of(given)}: a series of checkpoints; name one of them")
        return found[0]


def look_up(settings: Settings) -> Plan:
    """The plan of settings; raises UsageError on a name that nobody registered."""
    load_plugins(settings.include_path)
    plan = Plan(settings, [_recipe(given) for given in settings.aligner])
    _check_arguments(settings)
    for given in settings.model:
        plan.models += [one for one in plan.checkpoints(given) if not any(same(one, other) for other in plan.models)]
    plan.base = plan.only(settings.base, "base") or (plan.models[0] if plan.models else None)
    plan.judge = plan.only(settings.judge, "judge")
    _tell_apart(plan)
    tasks = {(task.name, task.hash): task for task in _tasks(plan)}  # each once, however often it is named
    plan.tasks = list(tasks.values())
    _check_rows(plan)
    plan.sizes = {task.name: len(task.prompts) for task in plan.tasks}
    _refuse_unused(plan)
    plan.tasks = [task if (most := plan.limit_of(task)) is None else task.limited(most) for task in plan.tasks]
    return plan


def _tell_apart(plan: Plan) -> None:
    """Say more of the paths of models that would have one name."""
    specs = [given for given in (plan.base, *plan.models) if isinstance(given, Spec)]
    told = {spec.label: spec for spec in told_apart(specs)}
    plan.models = [told[given.label] if isinstance(given, Spec) else given for given in plan.models]
    plan.base = told[plan.base.label] if isinstance(plan.base, Spec) else plan.base


def _recipe(given: Spec | Aligner) -> Recipe:
    return Recipe(*recipe_of(given), given.only if isinstance(given, Spec) else ())


def _check_rows(plan: Plan) -> None:
    """Raise UsageError where `tasks=` names none of the run's, or two different aligners have one name."""
    names = [task.name for task in plan.tasks]
    for recipe in plan.recipes:
        for pattern in recipe.only:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise unknown("task", pattern, names, f"aligner '{recipe.label}': tasks=")
    for name in names:
        fits = [recipe for recipe in plan.recipes if recipe.fits(name)]
        twice = (a.label for a in fits for b in fits if a.label == b.label and a.aligner != b.aligner)
        if label := next(twice, None):
            raise UsageError(f"task '{name}': two aligners are called '{label}'; give each a name= of its own")
    for given in (*plan.settings.model, plan.settings.base, plan.settings.judge):
        if isinstance(given, Spec) and given.only:
            raise UsageError(f"model '{given.name}': tasks= is for aligners; name the tasks with --tasks")


def rows_told(plan: Plan, task: Task) -> Iterator[str]:
    """What would be drawn of one task, a line for each row."""
    draws = plan.draws_of(task)
    most = len(task.prompts) * draws * task.max_tokens
    yield (f"{task.name} v{task.version}: {len(task.prompts)} prompts × {draws} draws × at most "
           f"{task.max_tokens} tokens = {most:,} tokens for each generator")  # fmt: skip
    base = parse_spec(task.base, "base") if task.base else plan.base
    if base is None:
        raise no_base(task)
    fitted = ", as many again twice to fit and test λ" if task.target.needs_fit else ""
    yield f"  {name_of(None, base)} (base), and as many reference draws{fitted}"
    settings = ",".join(f"{k}={v}" for k, v in plan.settings.gen_kwargs.items())
    for model in () if task.base else plan.others:
        yield f"  {name_of(None, model)}" + (f":{settings}" if settings else "")
    yield from (f"  {name_of(None, base)} + {recipe.label}" for recipe in plan.recipes_of(task.name))
    if task.base and plan.settings.model:
        yield "  (the task brings its own base: --model is left out here)"


def base_draws(task: Task) -> int:
    """How many times a task's draws are drawn before any aligner: own, reference, to fit and test λ, of proposals."""
    fitting = 2 if task.target.needs_fit else 1 if task.target.binned else 0
    return 2 + fitting + len(task.proposals)


def _check_arguments(settings: Settings) -> None:
    """Raise UsageError where a model is given an argument that does not exist."""
    for spec in _specs(settings):
        if spec.name not in generators and not did_you_mean(spec.name, generators).startswith(" Did"):
            hint = f"For a model of the hub or of a folder: --model hf:pretrained={spec.name}"
            raise UsageError(f"{unknown('generator', spec.name, generators)} {hint}")
        generators.find(spec.name).check(spec.arguments, f"model '{spec.name}'", tuple(settings.handed))


def _specs(settings: Settings) -> list[Spec]:
    """The models, base and judge that are not objects."""
    return [given for given in (*settings.model, settings.base, settings.judge) if isinstance(given, Spec)]


def _tasks(plan: Plan) -> Iterator[Task]:
    """The tasks that can be loaded; the others are told, but for files that do not exist."""
    folders = plan.settings.include_path
    for path in [path for words in plan.settings.tasks for path in task_files(words, folders)]:
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
    settings, specs = plan.settings, _specs(plan.settings)
    taken = {name for s in specs for name in generators.find(s.name).parameters} | {"batch_size", "device"}
    for name in settings.handed:
        if specs and name not in taken and not (name == "trust_remote_code" and settings.include_path):
            raise UsageError(f"--{name}: none of {', '.join(s.name for s in specs)} takes it")
    for option, sized in (("draws", settings.draws), ("limit", settings.limit)):
        strange = [name for name in (sized if isinstance(sized, Mapping) else ()) if name not in plan.sizes]
        if strange and not plan.failures:  # else it may be the name of a task that cannot be loaded
            raise unknown("task", strange[0], plan.sizes, option)
    if settings.series and not any(getattr(recipe.aligner, "every", None) for recipe in plan.recipes):
        raise UsageError("--series: no aligner keeps checkpoints: give one every=N, as dpg:steps=200,every=50")
    own = bool(plan.tasks) and all(task.base for task in plan.tasks)
    if own and (settings.gen_kwargs or settings.judge or settings.base):
        raise UsageError("--base, --gen_kwargs and --judge have no effect: each of these tasks brings its own base")
    if own and settings.model:
        _LOG.warning("--model is not used: each of these tasks brings its own base")


def own_base(task: Task) -> Spec | None:
    """The spec of the base that a task brings, its name and arguments checked; None for most tasks."""
    if not task.base:
        return None
    where = f"task '{task.name}': base"
    spec = parse_spec(task.base, where)
    generators.find(spec.name, where).check(spec.arguments, where)
    return spec


def no_base(task: Task) -> UsageError:
    """What to say of a task that needs a model where none is given."""
    return UsageError(f"task '{task.name}' brings no base of its own: give --model")
