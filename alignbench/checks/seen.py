"""One estimate beside the truth, and how all that a run says of a law is seen so, in as many processes as asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from math import inf, isfinite, isinf, isnan
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

from alignbench import metrics
from alignbench.errors import UsageError
from alignbench.registry import load_plugins
from alignbench.scoring.evidence import evidence_of
from alignbench.scoring.references import References
from alignbench.stats.asked import AT_LEAST, AT_MOST, ON_CELLS
from alignbench.stats.intervals import Z95
from alignbench.types import Estimate, Evidence, Sampler

T = TypeVar("T")
R = TypeVar("R")

MEASURED = ("divergence", "satisfaction", "entropy", "win_rate")
ONE_SIDED = {AT_LEAST: (True, False), AT_MOST: (False, True), ON_CELLS: (False, False)}
"""Note → which limits speak of the exact value."""
EXACT = 1e-9
"""What summing in float64 leaves between two ways to one number."""


@dataclass(frozen=True)
class Seen:
    """One estimate beside the truth."""

    world: str
    law: str
    quantity: str
    seed: int
    exact: float
    estimate: Estimate

    @property
    def covered(self) -> bool | None:
        """Whether the interval, or the infinity, holds the exact value; None where the harness gave neither."""
        low, high = self.limits
        return None if low is None and high is None else _least(low) <= self.exact <= _most(high)

    @property
    def limits(self) -> tuple[float | None, float | None]:
        """The 95 % limits; an infinite value is its own."""
        told = self.estimate
        return (told.value, told.value) if told.value is not None and isinf(told.value) else (told.ci_low, told.ci_high)

    @property
    def constant(self) -> bool:
        """Whether the harness says that this number has no error."""
        low, high = self.limits
        return low is not None and low == high

    @property
    def distance(self) -> float | None:
        """From the estimate to the exact value in standard errors; None without an interval, or at an infinite truth.

        Of the standard error and what that side of the interval says, the larger: a share of 0 has no standard error,
        and a percentile interval may have a short side.
        """
        told, (low, high) = self.estimate, self.limits
        if told.value is None or low is None or high is None or isinf(self.exact):
            return None
        off = told.value - self.exact
        if abs(off) <= EXACT:
            return 0.0
        error = max((told.value - low if off > 0 else high - told.value) / Z95, told.stderr or 0.0)
        return abs(off) / error if isfinite(off) and error > 0 else inf


def _least(low: float | None) -> float:
    return -inf if low is None else low - EXACT


def _most(high: float | None) -> float:
    return inf if high is None else high + EXACT


def seen_of(
    references: References, label: str, law: Sampler, measured: Sequence[str] = MEASURED, **known: float
) -> Iterator[Seen]:
    """Every quantity of the metrics `measured` whose truth is known, of one law; `known`: truths that evidence lacks.

    The way is the one that a run takes. Raises UsageError where nothing is known even of the base.
    """
    bench, evidence = references.bench, evidence_of(references, label, law)
    if evidence.truth is None and law is bench.base:
        raise UsageError(f"--worlds {bench.task.name}: the truth of its base, {bench.base_name}, is not known")
    again, truth = _said_before(evidence, label), {**(evidence.truth or {}), **known}
    for quantity, estimate in _measured(evidence, measured).items():
        exact = truth.get(quantity)
        if exact is not None and not isnan(exact) and not quantity.endswith(again):
            yield Seen(bench.task.name, label, quantity, bench.seed.entropy, exact, _of_exact(estimate))


def _of_exact(estimate: Estimate) -> Estimate:
    """What an estimate says of the exact value: where cells hold several values of φ, one limit or nothing."""
    for note, (least, most) in ONE_SIDED.items():
        if note in estimate.note:
            low, high = estimate.ci_low if least else None, estimate.ci_high if most else None
            return Estimate(None, ci_low=low, ci_high=high, n=estimate.n, note=estimate.note)
    return estimate


def _said_before(evidence: Evidence, label: str) -> tuple[str, ...]:
    """Ends of quantities that say nothing new: one Ẑ serves all laws; without hard constraints, within them is all."""
    hard = any(wanted.kind == "always" for wanted in evidence.fit.wanted)
    return (*(() if hard else ("_within", "always")), *(() if label == "base" else ("log_z",)))


def _measured(evidence: Evidence, measured: Sequence[str]) -> Mapping[str, Estimate]:
    """`metric.part` → estimate."""
    return {
        f"{name}.{part}" if part else name: estimate
        for name in measured
        for part, estimate in metrics.measure(name, evidence).items()
    }


def results(
    observe: Callable[..., R], work: Sequence[tuple[Any, ...]], jobs: int, include_path: Sequence[Path] = ()
) -> Iterator[R]:
    """What `observe` makes of each piece of work, as it is done.

    In fresh processes, since torch's threads do not survive a fork; in this one where `jobs` is 1.
    """
    if jobs == 1:
        yield from (observe(*piece) for piece in work)
        return
    pool = ProcessPoolExecutor(jobs, get_context("spawn"), _begin, (tuple(include_path),))
    try:
        for done in as_completed([pool.submit(observe, *piece) for piece in work]):
            yield done.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(include_path: tuple[Path, ...]) -> None:
    """One thread for each process: two processes on two cores are else 4 times slower."""
    import os

    os.environ["OMP_NUM_THREADS"] = "1"  # before torch is loaded
    load_plugins(include_path)


def grouped(things: Iterable[T], key: Callable[[T], Any]) -> dict[Any, list[T]]:
    """Key → the things that have it, both in order of appearance."""
    found: dict[Any, list[T]] = {}
    for thing in things:
        found.setdefault(key(thing), []).append(thing)
    return found
