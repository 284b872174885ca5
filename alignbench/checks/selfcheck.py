"""Does the harness tell the truth? Estimates against exact values in worlds that can be listed, over many seeds.

The way is the one that a run takes (`Bench`, evidence, metrics); only the worlds are small. A cell is one quantity of
one law in one world; its runs over the seeds are independent, so that the number of intervals that cover is binomial.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy.stats import binom, norm, t

from alignbench.checks.seen import EXACT, Seen, grouped, results, seen_of
from alignbench.errors import UsageError
from alignbench.registry import aligner as aligners
from alignbench.registry import generator as generators
from alignbench.registry import load_plugins
from alignbench.scoring.bench import Bench
from alignbench.scoring.references import References
from alignbench.seeds import Seed
from alignbench.spec import parse_spec
from alignbench.store.draws import DrawStore
from alignbench.task import Task, find_tasks
from alignbench.types import Array, Progress, Sampler, silent

WORLDS = ("exact_rare", "exact_proposals", "exact_shares", "exact_reward")
"""A hard constraint whose Z differs tenfold between prompts, a rare one with proposals, fitted shares,
and rewards in a hidden Markov world."""
LAWS = ("temperature:t=0.7", "best_of_n:n=4", "rejection", "top_p:p=0.8")
"""Aligners beside the base: a law of full support, a selection without a density, exact draws of p, a truncation."""
SEEDS = 20
"""Runs of each world: some 50 s on two cores in all."""
BAND = (0.93, 0.97)
"""What the coverage of a 95 % interval may truly be."""
ALPHA = 0.001
"""Chance that a healthy harness fails a selfcheck, over all its cells (Bonferroni)."""
WIDE = 0.5, 0.1
"""Mean squared distance from the truth, in standard errors, that the intervals of all quantities together and of each
must keep to: 1 where they are right, 0.44 where they are 1.5 times too wide; near 0 a divergence has 0.2."""


@dataclass(frozen=True)
class Cell:
    """One quantity of one law in one world, over the seeds."""

    runs: tuple[Seen, ...]

    @property
    def first(self) -> Seen:
        """The run of the first seed."""
        return self.runs[0]

    @cached_property
    def told(self) -> int:
        """Runs in which the harness gave an interval or an infinity."""
        return sum(s.covered is not None for s in self.runs)

    @cached_property
    def covered(self) -> int:
        """Runs whose interval holds the exact value."""
        return sum(bool(s.covered) for s in self.runs)

    @cached_property
    def farthest(self) -> float:
        """The largest distance of an estimate from the truth, in standard errors."""
        return max((s.distance for s in self.runs if s.distance is not None), default=0.0)

    @cached_property
    def bare(self) -> int:
        """Runs whose value is wrong and has no interval."""
        bare = [s.estimate for s in self.runs if s.covered is None and s.estimate.value is not None]
        return sum(abs((e.value or 0.0) - self.first.exact) > EXACT for e in bare)

    @property
    def constant(self) -> bool:
        """Whether the harness always says that this number has no error: then it must be exact."""
        return self.told > 0 and all(s.constant for s in self.runs if s.covered is not None)


@dataclass(frozen=True)
class Report:
    """All cells of a selfcheck, and what they must keep to."""

    cells: tuple[Cell, ...]
    seeds: int

    @cached_property
    def tested(self) -> tuple[Cell, ...]:
        """Cells with an interval whose coverage is a matter of chance."""
        return tuple(c for c in self.cells if c.told and not c.constant)

    @cached_property
    def alpha(self) -> float:
        """The level of one test: a tested cell has three, for its two limits and its distance, a pool of cells two."""
        return ALPHA / max(3 * len(self.tested) + 2 * (len(self.by_quantity()) + 1), 1)

    def limits(self, runs: int) -> tuple[int, int]:
        """The fewest and the most of `runs` intervals that may cover: exact binomial limits at the ends of `BAND`.

        Source: Clopper and Pearson, The use of confidence or fiducial limits (1934).
        """
        low = int(binom.ppf(self.alpha, runs, BAND[0]))
        high = int(binom.isf(self.alpha, runs, BAND[1]))
        return low, min(high, runs)

    @cached_property
    def most_distant(self) -> float:
        """The most standard errors that an estimate may lie from the truth: a normal's, over all runs of a cell."""
        return float(norm.isf(self.alpha / (2 * self.seeds)))

    def faults(self, cell: Cell) -> str:
        """What is wrong with a cell; empty where nothing is."""
        if cell.constant and cell.covered < cell.told:
            return f"said to be exact, and wrong in {cell.told - cell.covered} of {cell.told} runs"
        low, high = self.limits(cell.told)
        if not cell.constant and not low <= cell.covered <= high:
            return f"{cell.covered} of {cell.told} intervals cover, between {low} and {high} may"
        if 2 * cell.bare > len(cell.runs):
            return f"a value without an interval is wrong in {cell.bare} of {len(cell.runs)} runs"
        if cell.farthest > self.most_distant:
            return f"an estimate is {cell.farthest:.1f} standard errors away, at most {self.most_distant:.1f} may be"
        return ""

    def pooled_fault(self, cells: Sequence[Cell], widest: float = WIDE[1]) -> str:
        """What is wrong with cells together, which sees a bias or a width that no cell shows alone; else empty.

        Runs of one world and seed share draws: their means are the independent units of a one-sided Student's t test.
        """
        told = [s for c in cells if not c.constant for s in c.runs if s.covered is not None]
        if not told:
            return "" if any(c.told for c in cells) else "refused in every run"
        covered = _unit_means((s, float(bool(s.covered))) for s in told)
        if covered.size > 2 and self._below(covered, BAND[0]):
            return f"{covered.mean():.1%} of the intervals cover, {BAND[0]:.0%} should"
        squared = _unit_means((s, s.distance**2) for s in told if s.distance)
        if squared.size > 2 and self._below(squared, widest):
            return f"intervals are {1 / max(float(squared.mean()), 1e-12) ** 0.5:.2g} times as wide as their errors"
        return ""

    def _below(self, values: Array, limit: float) -> bool:
        """Whether the mean of independent values is below a limit, at the level of one test."""
        error = float(values.std(ddof=1)) / values.size**0.5
        return bool(values.mean() + t.isf(self.alpha, values.size - 1) * error < limit)

    @cached_property
    def pooled_faults(self) -> dict[str, str]:
        """Quantity, or "all", → what is wrong with its cells together."""
        found = {name: self.pooled_fault(cells) for name, cells in self.by_quantity().items()}
        found["all"] = self.pooled_fault(self.cells, WIDE[0])
        return {name: fault for name, fault in found.items() if fault}

    @property
    def failures(self) -> list[str]:
        """One line for each cell, and for each pool of cells, that fails."""
        named = ((c.first, self.faults(c)) for c in self.cells)
        alone = [f"{s.world}: {s.law}: {s.quantity}: {fault}" for s, fault in named if fault]
        return alone + [f"{name} in all worlds and laws: {fault}" for name, fault in self.pooled_faults.items()]

    def by_quantity(self) -> dict[str, list[Cell]]:
        """Quantity → its cells, in all worlds."""
        return grouped(self.cells, lambda cell: cell.first.quantity)

    def by_world(self) -> dict[str, list[Cell]]:
        """World → its cells."""
        return grouped(self.cells, lambda cell: cell.first.world)


def _unit_means(values: Iterable[tuple[Seen, float]]) -> Array:
    """(U,) mean of the values of each world and seed."""
    units = grouped(values, lambda pair: (pair[0].world, pair[0].seed))
    return np.array([np.mean([value for _, value in pairs]) for pairs in units.values()])


def find_worlds(names: Sequence[str] = WORLDS, include_path: Sequence[Path] = ()) -> tuple[Task, ...]:
    """The tasks of these names; raises UsageError where one brings no base of its own."""
    load_plugins(include_path)
    found = tuple({task.name: task for name in names for task in find_tasks(name, include_path)}.values())
    if not found:
        raise UsageError("--worlds names no world; the default is " + ",".join(WORLDS))
    for task in found:
        if task.base is None:
            raise UsageError(f"--worlds {task.name}: a world brings an exact 'base' of its own")
    return found


def check(
    worlds: Sequence[Task], seeds: int, *, progress: Progress, jobs: int = 1, include_path: Sequence[Path] = ()
) -> Report:
    """Run every world with the seeds 0 … seeds − 1, in `jobs` processes."""
    work = [(task, seed) for seed in range(seeds) for task in worlds]
    seen: list[Seen] = []
    with progress("selfcheck", len(work)) as advance:
        for found in results(observe, work, jobs, include_path):
            seen += found
            advance(1)
    cells = grouped(sorted(seen, key=lambda s: s.seed), lambda s: (s.world, s.law, s.quantity))
    order = {task.name: place for place, task in enumerate(worlds)}
    return Report(tuple(Cell(tuple(runs)) for runs in sorted(cells.values(), key=lambda r: order[r[0].world])), seeds)


def observe(task: Task, seed: int) -> list[Seen]:
    """Every quantity with a truth, of the base and of each of `LAWS`, in one world with one seed."""
    base = parse_spec(task.base or "", task.name).build(generators, "base")
    references = References(Bench(task, base, base.name, DrawStore(None), task.draws, Seed(seed), silent))
    return [s for label, law in _laws(references) for s in seen_of(references, label, law)]


def _laws(references: References) -> Iterator[tuple[str, Sampler]]:
    """The base, then each of `LAWS` on it."""
    yield "base", references.bench.base
    for text in LAWS:
        recipe = parse_spec(text, "selfcheck").build(aligners, "aligner")
        yield text, references.setting.aligned(recipe)
