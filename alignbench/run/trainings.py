"""What a run would train, told before it: how many trainings, under which budgets, and how many are done already."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from alignbench.aligners.base import Aligner
from alignbench.aligners.training.folder import is_finished
from alignbench.aligners.training.recipe import Trained
from alignbench.errors import AlignbenchError
from alignbench.registry import aligner as aligners
from alignbench.registry import generator as generators
from alignbench.run.models import Models, name_of
from alignbench.run.plan import Plan, own_base
from alignbench.scoring.bench import Bench
from alignbench.scoring.references import WORK, References
from alignbench.seeds import Seed
from alignbench.spec import Spec, parse_spec
from alignbench.store.draws import DrawStore
from alignbench.task import Task
from alignbench.types import Sampler, silent


def trainings_told(plan: Plan, task: Task, models: Models) -> Iterator[str]:
    """A line on a task's trainings with all seeds; none where nothing trains."""
    recipes: list[Trained] = []
    for recipe in plan.recipes_of(task.name):
        recipes += [one for one in trained_in(recipe.aligner) if one not in recipes]
    if not recipes:
        return
    count, done = len(recipes) * len(plan.settings.seed), _done(plan, task, models, recipes)
    budgets = ", ".join(f"{recipe.name}: {budget_of(recipe)}" for recipe in recipes)
    yield (f"  {count} training{'s' * (count != 1)} ({budgets}){f', {done} done' * bool(done)}"
           f"{'; how long training takes is not told' * (done < count)}")  # fmt: skip


def trained_in(aligner: Aligner) -> Iterator[Trained]:
    """What an aligner trains: itself, or the proposal that it picks from."""
    if isinstance(aligner, Trained):
        yield aligner
    elif isinstance(given := getattr(aligner, "proposal", None), (str, Mapping)):
        spec = parse_spec(given, "proposal")
        if spec.name in aligners:
            yield from trained_in(spec.build(aligners, "proposal"))


def budget_of(recipe: Trained) -> str:
    """`200 steps`, `10 minutes` or `50,000 tokens`."""
    return next(f"{n:,} {name}" for name in ("steps", "minutes", "tokens") if (n := getattr(recipe, name)) is not None)


def _done(plan: Plan, task: Task, models: Models, recipes: Sequence[Trained]) -> int:
    """Trainings that the output folder has finished.

    None before it has the task's λ, by which they are found.
    """
    output, given = plan.settings.output_path, own_base(task) or plan.base
    if output is None or given is None or not (output / WORK).is_dir() or not at_hand(given):
        return 0
    try:
        base, found = models.later(given, keep=True), 0
    except AlignbenchError:  # told where it is drawn from
        return 0
    for seed in plan.settings.seed:
        bench = Bench(
            task=task, given=base, base_name=name_of(None, given), draws=plan.draws_of(task), store=DrawStore(None),
            limit=plan.limit_of(task), whole=plan.sizes.get(task.name, 0), seed=Seed(seed), progress=silent,
            output=output,
        )  # fmt: skip
        references = References(bench)
        if references.known:
            settings = [replace(references.setting, who=recipe) for recipe in recipes]
            found += sum(one.folder is not None and is_finished(one.folder) for one in settings)
    return found


def at_hand(given: Spec | Sampler) -> bool:
    """Whether a generator is on this machine, as far as its factory tells."""
    if not isinstance(given, Spec):
        return True
    told = generators.find(given.name).meta.get("at_hand")
    return told is None or bool(told(**given.arguments))
