"""What a run may take and which cells will stay empty, told before it from a few draws of the base.

The task's own pipeline runs on these draws, drawn again and again until there are as many as the run would draw: what
its gates refuse there, they will most likely refuse then.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import isfinite

import numpy as np

from alignbench.errors import AlignbenchError
from alignbench.generators.described import log_prob_of
from alignbench.metrics import measure
from alignbench.run.models import Models
from alignbench.run.pace import spelled
from alignbench.run.plan import Plan, Recipe, base_draws, look_up, rows_told
from alignbench.run.settings import Settings
from alignbench.run.trainings import at_hand, trainings_told
from alignbench.scoring.bench import Bench
from alignbench.scoring.evidence import evidence_of
from alignbench.scoring.references import References
from alignbench.seeds import Seed
from alignbench.spec import parse_spec
from alignbench.store.draws import DrawStore
from alignbench.task import Task
from alignbench.types import Array, Distribution, Draws, collect, rows_of, silent

SHOWN = 3
"""Reasons for empty cells of a task."""
DRAWS, PROMPTS = 32, 8
"""Draws in all, of at most so many prompts."""
FORETOLD = ("kl_target", "kl_asked", "kl_collateral", "tv", "js", "log_z")
"""Parts of the divergence that are worth foretelling."""


@dataclass(frozen=True)
class Pilot:
    """A few draws of the base: a law that draws from them again, of prompt c those of prompt c modulo their number."""

    draws: Draws  # sorted by prompt
    log_base: Array  # (B,) nats
    prompts: int  # that were drawn for
    seconds: float  # that the draws took
    scoring: float  # seconds that a draw's score took

    name = "pilot"
    truncates = False

    @property
    def speed(self) -> float:
        """Tokens a second."""
        return float(self.draws.length.sum()) / self.seconds

    def sample(self, prompts: Sequence[str], rows: Array, *, max_tokens: int, seed: Seed) -> Iterator[Draws]:
        """See `Sampler.sample`."""
        each = len(self.draws) // self.prompts
        picked = [
            (c % self.prompts) * each + int(seed.rng(prompts[c], int(i)).integers(each))
            for c, i in zip(rows[:, 0].tolist(), rows[:, 1].tolist(), strict=True)
        ]
        yield replace(
            self.draws.take(np.array(picked)), prompt=rows[:, 0], index=rows[:, 1], log_prob=self.log_base[picked],
            model_log_prob=None,
        )  # fmt: skip

    def log_prob(self, prompts: Sequence[str], draws: Draws) -> Array:
        """See `Distribution.log_prob`."""
        assert draws.log_prob is not None  # all are its own
        return draws.log_prob


def dry_run(settings: Settings, *, measured: bool = True) -> Iterator[str]:
    """What would be drawn, a line for each row, then how long it may take and what will be empty.

    Every name and argument is checked. Times and cells are told where the base is on this machine, from a few draws.
    """
    plan = look_up(settings)
    models, total, unknown = Models(settings.handed, {}, dict(plan.broken)), 0.0, False
    measured = measured and not (plan.broken or plan.failures)
    for task in plan.tasks:
        yield from rows_told(plan, task)
        yield from trainings_told(plan, task, models)
        pilot = _pilot(plan, task, models) if measured else None
        unknown |= pilot is None
        if pilot is not None:
            kept, reasons = missing(plan, task, pilot)
            seconds = seconds_of(plan, task, pilot, kept)
            total += seconds
            yield f"  about {spelled(seconds)}, by {len(pilot.draws)} draws at {pilot.speed:,.0f} tokens a second"
            yield from (f"  foretold of the base: {reason}" for reason in reasons[:SHOWN])
    if len(settings.seed) > 1:
        yield f"all of it for each of {len(settings.seed)} seeds: {', '.join(map(str, settings.seed))}"
    if total:
        total *= len(settings.seed)
        yield f"in all about {spelled(total)}, were nothing found on disk and all rows as fast as the base"
    if measured and unknown:
        yield "times of what is not on this machine yet are not told"
    for error in (*plan.broken.values(), *plan.failures):
        raise error


def _pilot(plan: Plan, task: Task, models: Models) -> Pilot | None:
    """Draws of the task's base; None where it is not at hand."""
    given = parse_spec(task.base, "base") if task.base else plan.base
    if given is None or not at_hand(given):
        return None
    base = models.load(given, keep=not task.base)
    return pilot_of(base, task, Seed(plan.settings.seed[0], "train")) if isinstance(base, Distribution) else None


def pilot_of(base: Distribution, task: Task, seed: Seed) -> Pilot:
    """Draws of the base on the task's first prompts, on the stream that nothing is measured on."""
    prompts = task.prompts[:PROMPTS]
    rows = rows_of(len(prompts), max(DRAWS // len(prompts), 1))
    for batch in base.sample(prompts, rows[:1], max_tokens=2, seed=seed):  # what only the first step takes
        del batch
    began = time.perf_counter()
    draws = collect(base.sample(prompts, rows, max_tokens=task.max_tokens, seed=seed)).sorted()
    drawn = time.perf_counter()
    log_base = log_prob_of(base, prompts, draws)
    scoring = (time.perf_counter() - drawn) / len(draws)
    return Pilot(draws, np.asarray(log_base, float), len(prompts), drawn - began, scoring)


def seconds_of(plan: Plan, task: Task, pilot: Pilot, kept: float) -> float:
    """Seconds that a task may take: every law as fast as the base, a share of `kept` of its draws being draws of p.

    Those that select share one pool with the base's own row: the one that tries most often draws for all of them, and
    nothing of it is scored. The others draw for themselves, and score their own and the reference draws.
    """
    others = 0 if task.base else len(plan.others)
    tries = [_tries(recipe, kept) for recipe in plan.recipes_of(task.name)]
    apart = others + sum(count is None for count in tries)
    times = base_draws(task) + apart + max((count for count in tries if count is not None), default=1) - 1
    draws = len(task.prompts) * plan.draws_of(task)
    return draws * (times * pilot.seconds / len(pilot.draws) + 2 * apart * pilot.scoring)


def _tries(recipe: Recipe, kept: float) -> float | None:
    """Base draws for each that a selecting law gives: n, or those until one is kept; None of one that draws itself."""
    n, cap, shots = (getattr(recipe.aligner, name, None) for name in ("n", "cap", "shots"))
    if isinstance(cap, int) and not shots:  # the cap of few_shot is for its examples
        return min(1 / kept, cap) if kept else cap
    return n if isinstance(n, int) else None


def missing(plan: Plan, task: Task, pilot: Pilot) -> tuple[float, list[str]]:
    """The share of draws that are kept of p, and a line for each reason for which cells of the base will be empty.

    Proposals, which a pilot of the base cannot stand for, are left out: with them less may be empty.
    """
    bench = Bench(
        task=replace(task, proposals=()), given=pilot, base_name="base", store=DrawStore(None),
        draws=plan.draws_of(task), seed=Seed(0), progress=silent,
    )  # fmt: skip
    references = References(bench)
    try:
        references.prepare()
        evidence = evidence_of(references, "base", pilot)
        numbers = measure("divergence", evidence)
    except AlignbenchError as error:
        return 1.0, [str(error)]
    why: dict[str, list[str]] = {}
    for part in FORETOLD:
        told = numbers.get(part)
        if told is not None and (told.value, told.ci_low, told.ci_high) == (None, None, None):
            why.setdefault(told.note, []).append(part)
    if references.none_of_p:
        return 0.0, [references.none_of_p]
    kept = float(np.exp(references.fit.log_z).mean()) if references.fit.log_z is not None else 1.0
    bound = references.target.log_bound(len(task.prompts))
    share = kept / float(np.exp(bound).mean()) if bound is not None else kept
    return share if isfinite(share) else 1.0, [f"{', '.join(parts)}: — ({note})" for note, parts in why.items()]
