"""Random worlds: is what is printed true, whatever is asked of whatever base? Families of quantities, tested together.

A family is one quantity of one kind of target (at one size, at all sizes, or of the base alone) or of one kind of law.
Numbers of one world share draws: of each family a world counts once, by one of its numbers drawn at random, so that the
number of worlds whose number is wrong is binomial.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import inf
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from scipy.stats import binom

from alignbench.aligners.selection.filtered import FilteredSampler
from alignbench.aligners.selection.quasi_rejection import QuasiRejectionSampler
from alignbench.aligners.selection.rejection import RejectionSampler
from alignbench.checks.seen import EXACT, MEASURED, Seen, grouped, results, seen_of
from alignbench.checks.worlds import KINDS, REJECTING, kind_of, world
from alignbench.errors import AlignbenchError, unknown
from alignbench.generators.base import Autoregressive
from alignbench.generators.exact import enumerate_draws
from alignbench.registry import load_plugins
from alignbench.scoring.bench import Bench
from alignbench.scoring.references import References
from alignbench.seeds import Seed
from alignbench.spec import Spec
from alignbench.store.draws import DrawStore
from alignbench.types import Progress, Sampler, silent

WRONG = 0.05
"""Share of all runs of a family, at most, that print something wrong: refusing is allowed, being lucky is not."""
COVERED = 0.93
"""Share of the intervals printed, at least, that cover, where `ENOUGH` of the runs print one."""
ENOUGH = 0.5
METRICS = (*MEASURED, "moment_error", "acceptance")
UNCOVERED = ("uncovered ≤", "(share ≤")
"""In the note of a finite number that says how likely it is ∞: it may be wrong as often as an interval."""
ALPHA = 0.001
"""Chance that a healthy harness fails, over all families (Bonferroni)."""
Told = Literal["interval", "bound", "sure", "infinite", "nothing"]
"""What is printed: an interval; one limit; a number said to be exact; anything of what is ∞ in truth; or nothing that
could be wrong. Of the third and the fourth chance excuses nothing, so that they are not tested by family."""


class Outcome(NamedTuple):
    """What one number told, and whether it was right; `fault` says what no chance excuses."""

    law: str
    quantity: str
    told: Told
    right: bool
    fault: str = ""


@dataclass(frozen=True)
class Trial:
    """All numbers of one world; `left` has laws that it could not have, and why."""

    number: int
    kind: str
    size: str
    outcomes: tuple[Outcome, ...] = ()
    left: tuple[tuple[str, str], ...] = ()
    crashes: tuple[tuple[str, str], ...] = ()
    seen: tuple[Seen, ...] = ()  # where it is run alone
    told: tuple[str, ...] = ()  # what the world is, then too

    @cached_property
    def place(self) -> float:
        """Uniform on [0, 1): which of its numbers stands for the world in a family."""
        return float(np.random.default_rng([self.number, 1]).random())


def outcome(law: str, seen: Seen) -> Outcome:
    """One estimate beside the truth."""
    quantity, (low, high), value = _family_name(seen.quantity), seen.limits, seen.estimate.value
    if seen.exact == inf:
        right = high in (None, inf)
        if not right and any(said in seen.estimate.note for said in UNCOVERED):
            return Outcome(law, quantity, "interval", False)
        return Outcome(law, quantity, "infinite", right, "" if right else "finite where the truth is ∞")
    if seen.covered is None:
        wrong = value is not None and abs(value - seen.exact) > EXACT
        bare = "a value without limits and without a note is wrong" if wrong and not seen.estimate.note else ""
        return Outcome(law, quantity, "nothing", not wrong, bare)
    if seen.constant:
        said = "∞ where the truth is finite" if value == inf else "said to be exact, and wrong"
        return Outcome(law, quantity, "sure", seen.covered, "" if seen.covered else said)
    return Outcome(law, quantity, "bound" if None in (low, high) else "interval", seen.covered)


def _family_name(quantity: str) -> str:
    """A quantity without the feature and the category that it is of: they are random."""
    return ".".join(quantity.split(".")[: 1 if quantity.startswith("moment_error") else 2])


# --- running ----------------------------------------------------------------------------------------------------------


def observe(number: int, alone: bool = False) -> Trial:
    """All that the harness prints of one world, beside the truth."""
    made = world(number)
    bench = Bench(made.task, made.base, made.base.name, DrawStore(None), made.task.draws, Seed(number), silent)
    references, trial = References(bench), Trial(number, made.kind, made.size)
    try:
        references.prepare()
    except Exception as error:
        return _without(trial, "all laws", error)
    for kind, spec in (("base", None), *made.laws):
        trial = _with(trial, references, kind, made.model if kind == "model" else spec)
    trial = replace(trial, outcomes=trial.outcomes + tuple(_refused(trial)))
    return replace(trial, told=(str(made),)) if alone else replace(trial, seen=())


def _with(trial: Trial, references: References, kind: str, asked: Spec | Sampler | None) -> Trial:
    """The trial with the numbers of one law more, or with the reason why it could not be had."""
    bench = references.bench
    try:
        law = references.setting.built(asked, kind) if isinstance(asked, Spec) else asked or bench.base
        label = asked.label if isinstance(asked, Spec) else kind
        found = tuple(seen_of(references, label, law, METRICS, **acceptance(references, law)))
    except Exception as error:
        return _without(trial, kind, error)
    told = tuple(outcome(kind, s) for s in found)
    return replace(trial, outcomes=trial.outcomes + told, seen=trial.seen + found)


def _without(trial: Trial, kind: str, error: Exception) -> Trial:
    """The trial without what an error ended: left out for a reason that was said, or a bug, which ends no other world.

    A bug inside a plug-in's code has become an error of the harness's own, with the bug as its cause.
    """
    bug = error.__cause__ if isinstance(error, AlignbenchError) else error
    if bug is None or isinstance(bug, AlignbenchError):
        return replace(trial, left=(*trial.left, (kind, str(error))))
    return replace(trial, crashes=(*trial.crashes, (kind, f"{type(bug).__name__}: {bug}")))


def _refused(trial: Trial) -> Iterator[Outcome]:
    """What a law that could not be had leaves out: nothing told, of the quantities that the base has.

    Left out of the count, a sampler that rejects would be tested where it was lucky alone.
    """
    known = dict.fromkeys(said.quantity for said in trial.outcomes if said.law == "base")
    for kind, _ in trial.left:
        yield from (Outcome(kind, quantity, "nothing", True) for quantity in known if quantity != "divergence.log_z")
        if kind in REJECTING:
            yield Outcome(kind, "acceptance.rate", "nothing", True)


def acceptance(references: References, law: Sampler) -> dict[str, float]:
    """acceptance.rate → E_q[min(1, P/(βq))], mean over prompts, of what rejects draws of q; nothing of other laws.

    That of a filter is q(b = 1), which is its limit for β → 0.
    """
    if not isinstance(law, RejectionSampler | QuasiRejectionSampler | FilteredSampler):
        return {}
    bench, base, q = references.bench, references.bench.base, law.proposal
    assert isinstance(base, Autoregressive)
    every = enumerate_draws(base, bench.prompts, max_tokens=bench.task.max_tokens)
    assert every.log_prob is not None
    log_q = q.log_prob(bench.prompts, every)
    ratio = every.log_prob + references.target.log_ratio_of(bench.prompts, every)
    weight = np.subtract(ratio, log_q, out=np.full(len(every), -np.inf), where=log_q > -np.inf)
    if isinstance(law, FilteredSampler):
        weight[weight > -np.inf] = 0.0
    else:
        weight -= np.array(law.bound if isinstance(law, RejectionSampler) else law.log_beta)[every.prompt]
    return {"acceptance.rate": float(np.exp(log_q + np.minimum(weight, 0.0)).sum()) / len(bench.prompts)}


def check(numbers: Sequence[int], *, progress: Progress, jobs: int = 1, include_path: Sequence[Path] = ()) -> Report:
    """Run the worlds of these numbers, in `jobs` processes."""
    load_plugins(include_path)
    tally, alone = Tally(), len(numbers) == 1
    with progress("fuzz", len(numbers)) as advance:
        for trial in results(observe, [(number, alone) for number in numbers], jobs, include_path):
            tally.add(trial)
            advance(1)
    return Report(tally)


def numbers_of(count: int, first: int = 0, kinds: Sequence[str] = ()) -> list[int]:
    """The numbers of so many worlds from `first` on, of these kinds of target alone (default: all).

    Raises UnknownName for a kind that there is not.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise unknown("kind of target", kind, KINDS, "--kinds")
    wanted = (number for number in itertools.count(first) if not kinds or kind_of(number) in kinds)
    return list(itertools.islice(wanted, count))


# --- counting ---------------------------------------------------------------------------------------------------------


class Family(NamedTuple):
    """What is tested together; "" for all kinds, laws or sizes."""

    quantity: str
    kind: str = ""
    law: str = ""
    size: str = ""

    def __str__(self) -> str:
        parts = (f"{self.kind} targets" * bool(self.kind), self.size, self.law and f"of {self.law}")
        return ", ".join(filter(None, (self.quantity, *parts)))


@dataclass(frozen=True)
class Count:
    """Runs of a family, or its worlds: how many told what, and of these how many were right."""

    told: Mapping[tuple[Told, bool], int]

    def of(self, *kinds: Told, right: bool | None = None) -> int:
        """Runs that told one of these; only those that were, or were not, right."""
        return sum(n for (told, was), n in self.told.items() if told in kinds and right in (None, was))

    @property
    def runs(self) -> int:
        """All that are a matter of chance."""
        return self.of("interval", "bound", "nothing")

    @property
    def printed(self) -> int:
        """Runs with an interval of two sides."""
        return self.of("interval")

    @property
    def covered(self) -> int:
        """Of these, those whose interval holds the truth."""
        return self.of("interval", right=True)

    @property
    def wrong(self) -> int:
        """Runs whose interval, or bound, does not hold the truth."""
        return self.of("interval", "bound", right=False)


@dataclass
class Tally:
    """What the trials told, as counts."""

    runs: Counter[tuple[Family, Told, bool]] = field(default_factory=Counter)
    worlds: Counter[tuple[Family, Told, bool]] = field(default_factory=Counter)
    trials: Counter[tuple[str, str]] = field(default_factory=Counter)  # (kind, size)
    wrong: dict[Family, int] = field(default_factory=dict)  # the lowest number of a world that is wrong
    faults: dict[tuple[str, str, str], list[int]] = field(default_factory=dict)  # (what, quantity, law) → worlds
    left: Counter[str] = field(default_factory=Counter)  # law → worlds that could not have it
    seen: tuple[Seen, ...] = ()
    told: tuple[str, ...] = ()

    def add(self, trial: Trial) -> None:
        """Count what a world told."""
        self.trials[trial.kind, trial.size] += 1
        self.seen, self.told = self.seen + trial.seen, self.told + trial.told
        self.left.update(law for law, _ in trial.left)
        for law, what in trial.crashes:
            self.faults.setdefault((f"raised {what}", "", law), []).append(trial.number)
        for said in trial.outcomes:
            if said.fault:
                self.faults.setdefault((said.fault, said.quantity, said.law), []).append(trial.number)
        for family, told in grouped(_families(trial), lambda pair: pair[0]).items():
            self._add(family, [said for _, said in told], trial)

    def _add(self, family: Family, told: Sequence[Outcome], trial: Trial) -> None:
        self.runs.update((family, said.told, said.right) for said in told)
        chancy = [said for said in told if said.told not in ("sure", "infinite")]
        if chancy:
            picked = chancy[int(trial.place * len(chancy))]
            self.worlds[family, picked.told, picked.right] += 1
            if picked.told != "nothing" and not picked.right:
                self.wrong[family] = min(trial.number, self.wrong.get(family, trial.number))


def _families(trial: Trial) -> Iterator[tuple[Family, Outcome]]:
    """Each outcome with each family that it is in."""
    for said in trial.outcomes:
        yield Family(said.quantity, trial.kind, size=trial.size), said
        yield Family(said.quantity, trial.kind), said
        yield Family(said.quantity, law=said.law), said
        if said.law == "base":  # every world has it, and many a number is its alone
            yield Family(said.quantity, trial.kind, "base"), said
        yield Family(said.quantity), said  # for the tables alone


@dataclass(frozen=True)
class Report:
    """All families of a fuzz, and what they must keep to."""

    tally: Tally

    @cached_property
    def runs(self) -> dict[Family, Count]:
        """Family → all of its runs."""
        return _counts(self.tally.runs)

    @cached_property
    def worlds(self) -> dict[Family, Count]:
        """Family → its worlds, each by one of its runs."""
        return _counts(self.tally.worlds)

    @cached_property
    def tested(self) -> list[Family]:
        """The families that are tested, which those over all kinds and laws are not."""
        return sorted(family for family in self.worlds if family.kind or family.law)

    @cached_property
    def alpha(self) -> float:
        """The level of one test: a family has two."""
        return ALPHA / max(2 * len(self.tested), 1)

    def fault(self, family: Family) -> str:
        """What is wrong with a family; empty where nothing is. One-sided exact binomial tests over worlds."""
        worlds = self.worlds[family]
        most = int(binom.isf(self.alpha, worlds.runs, WRONG))
        if worlds.wrong > most and worlds.printed < worlds.runs:
            return f"printed and wrong in {worlds.wrong} of {worlds.runs} worlds, at most {most} may be"
        fewest = int(binom.ppf(self.alpha, worlds.printed, COVERED))
        if worlds.printed >= ENOUGH * worlds.runs and worlds.covered < fewest:
            return f"{worlds.covered} of {worlds.printed} intervals cover, at least {fewest} must"
        return ""

    @cached_property
    def faults(self) -> dict[Family, str]:
        """Family that fails → why."""
        return {family: fault for family in self.tested if (fault := self.fault(family))}

    @cached_property
    def failures(self) -> list[str]:
        """One line for each family that fails, and for each thing that no chance excuses."""
        lines = [f"{family}: {fault}; see {again(self.tally.wrong[family])}" for family, fault in self.faults.items()]
        for (what, quantity, law), numbers in sorted(self.tally.faults.items()):
            name = " of ".join(filter(None, (quantity, law)))
            lines.append(f"{name}: {what}, in {len(numbers)} numbers; see {again(min(numbers))}")
        return lines


def again(number: int) -> str:
    """The command that shows one world."""
    return f"alignbench selfcheck --fuzz 1 --seed {number}"


def _counts(counted: Counter[tuple[Family, Told, bool]]) -> dict[Family, Count]:
    found: dict[Family, dict[tuple[Told, bool], int]] = {}
    for (family, told, right), count in counted.items():
        found.setdefault(family, {})[told, right] = count
    return {family: Count(told) for family, told in found.items()}
