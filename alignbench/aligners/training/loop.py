"""The loop: draws, loss, gradient, step; until the budget is spent. Killed at any step, it goes on from its folder."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from alignbench.aligners.training.batch import Batch
from alignbench.aligners.training.budget import Budget
from alignbench.aligners.training.folder import Curve, Folder
from alignbench.aligners.training.method import Method, kl_to_base
from alignbench.aligners.training.options import Options
from alignbench.aligners.training.passes import Passes
from alignbench.aligners.training.stopping import Stopping
from alignbench.aligners.training.work import Work
from alignbench.errors import RunError
from alignbench.generators.memory import peak_memory, reset_peak
from alignbench.types import Array, Training

_LOG = logging.getLogger(__name__)

PERCENT = 100
"""What progress counts in where the budget is none of steps."""
SAVE_EVERY = 30.0
"""Seconds between two saved states: what a killed run does again."""


@dataclass
class Loop:
    """One training of a policy."""

    recipe: Options
    made: Callable[[Work], Method]  # the method of the recipe, at work
    work: Work
    folder: Folder
    curve: Curve = field(default_factory=list)

    def run(self) -> None:
        """Train until the budget is spent, from where the folder stands, and write what it came to.

        Raises RunError where a loss or a gradient is no number, or memory runs out; the last state stays.
        """
        reset_peak()
        self.begin()
        if not self.step:
            self.stopping.look(0, self.work.policy, self.passes)  # the base may be the best of all
        self._steps()
        self._finish()

    def begin(self) -> None:
        """Stand where the folder stands."""
        work, recipe = self.work, self.recipe
        began = time.monotonic()
        self.others = Training() if self.folder.path else work.setting.booked  # without folders all share a bill
        if work.processes.first:
            self.folder.begin()
        self.optimiser = torch.optim.AdamW(work.policy.parameters, lr=recipe.lr, weight_decay=0.0)
        step, extra, self.curve = self.folder.resume(work.policy, self.optimiser)
        self.method = self.made(work)
        if step:
            self._take_up(step, extra)
        else:
            self.stopping = Stopping(recipe, self.method, self.folder)
        self.budget = Budget(recipe, began - float(extra.get("seconds", 0.0)))
        self.passes = Passes(work, recipe, self.method.module)
        self.step, self.spent = step, self._spent()

    def _take_up(self, step: int, extra: Mapping[str, Any]) -> None:
        """Go on after `step` steps."""
        self.work.spent = Training(**extra["spent"]) if self.work.processes.first else Training()
        self.work.seen = dict(extra["seen"])
        self.work.counted = {i for begin, end in extra["counted"] for i in range(begin, end)}
        self.method.resume(step, extra["method"])
        self.stopping = Stopping(self.recipe, self.method, self.folder, **extra["stopping"])
        _LOG.info(f"{self.recipe.name}: goes on after step {step}")

    def _steps(self) -> None:
        total, shown, saved = self.recipe.steps or PERCENT, 0, time.monotonic()
        with self.work.setting.progress(f"training {self.recipe.name}", total) as advance:
            while not self.budget.spent(self.step, self.spent) and not self.stopping.stopped:
                self.one()
                done = int(total * self.budget.share(self.step, self.spent))
                advance(done - shown)
                shown = done
                if self.method.resumable(self.step) and self._due(saved):
                    self._save()
                    saved = time.monotonic()
                if self.recipe.every and self.step % self.recipe.every == 0 and self.work.processes.first:
                    self.folder.checkpoint(self.work.policy, self.step)

    def _due(self, saved: float) -> bool:
        return time.monotonic() - saved >= SAVE_EVERY

    def _spent(self) -> Training:
        """What all processes spent so far; its seconds are the first's."""
        hands = self.work.processes.gathered((self.work.spent, self.budget.seconds))
        return replace(sum((spent for spent, _ in hands), Training()), seconds=hands[0][1])

    def one(self) -> None:
        """One step, and its line of the curve."""
        step = self.step
        rate = self.budget.rate(step, self.spent)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        watched = self.method.watched(step)
        numbers = {"step": float(step + 1), "lr": rate} | self._gradient(step)
        if watched is not None:
            numbers["kl_base"] = kl_to_base(watched, _log_prob(watched))
        norm = torch.nn.utils.clip_grad_norm_(self.work.policy.parameters, self.recipe.clip)
        if not math.isfinite(float(norm)):
            raise self._no_number("its gradient", step)
        self.optimiser.step()
        numbers |= self.stopping.look(step + 1, self.work.policy, self.passes)
        self.spent = self._spent()
        numbers |= {"grad_norm": float(norm), **self.work.seen}
        numbers |= {name: float(getattr(self.spent, name)) for name in ("seconds", "drawn", "scored", "trained")}
        self.curve.append(numbers)
        left = self.budget.left(step + 1, self.spent)
        self.work.setting.report(step + 1, {**numbers, "left": left})
        self.step += 1

    def _gradient(self, step: int) -> dict[str, float]:
        """The gradient of the step's loss, summed over terms, draws and processes; numbers for the curve."""
        parts, parameters = self.method.batches(step), self.work.policy.parameters
        numbers: dict[str, float] = {"objective": 0.0}
        values: dict[str, tuple[Batch, Array]] = {}
        total: list[torch.Tensor | None] = [None] * len(parameters)
        for term, batch in parts.items():
            self.optimiser.zero_grad(set_to_none=True)
            found = self.passes.back(batch, partial(self.method.loss, term))
            if not math.isfinite(found.loss):
                raise self._no_number(f"its {term}", step)
            self.work.processes.summed(parameters)
            if len(parts) > 1:
                numbers |= {term: found.loss, f"grad_norm_{term}": _norm([p.grad for p in parameters])}
            total = [_sum(old, p.grad) for old, p in zip(total, parameters, strict=True)]
            numbers["objective"] += found.loss
            values[term] = found.batch, found.log_pi
        for p, gradient in zip(parameters, total, strict=True):
            p.grad = gradient
        for batch, log_pi in values.values():
            own = np.zeros(0, int) if batch.own is None else np.flatnonzero(batch.own)
            if own.size:
                numbers["kl_base"] = kl_to_base(batch.take(own), log_pi[own])
        return numbers | self.method.after(step, values)

    def _no_number(self, what: str, step: int) -> RunError:
        where = ""
        if step and self.folder.path is not None:
            where = f"; the weights after step {step} are kept in {self.folder.checkpoint_at(step)}"
            if self.work.processes.first:
                self.folder.checkpoint(self.work.policy, step)
        return RunError(f"{self.recipe.name}: {what} is no number (NaN or infinite) in step {step + 1}: lower lr"
                        f"={self.recipe.lr:g}, or train in float32{where}")  # fmt: skip

    def _save(self) -> None:
        """The state now; what the steps since the last one cost is booked."""
        if not self.work.processes.first:
            return
        peak = peak_memory(self.work.policy.device) or 0
        spent = replace(self.spent, seconds=self.budget.seconds, steps=self.step, peak_bytes=peak)
        extra = {"counted": ranges(self.work.counted), "seconds": spent.seconds, "spent": asdict(spent),
                 "seen": self.work.seen, "method": self.method.state(),
                 "stopping": self.stopping.state()}  # fmt: skip
        self.folder.save(self.work.policy, self.optimiser, self.step, extra, self.curve)
        booked = self.work.setting.booked  # less than was spent, where a process was killed before this line
        since = {f.name: getattr(spent, f.name) - getattr(booked, f.name) for f in fields(Training)}
        since = {name: value + getattr(self.others, name) for name, value in since.items()}
        self.work.setting.book(**since | {"peak_bytes": peak})  # of which the larger counts

    def _finish(self) -> None:
        """The last state, the weights, and that it is done."""
        self.stopping.restore(self.work.policy)
        self._save()
        if self.work.processes.first:
            self.folder.finish(self.work.policy, steps=self.step, seconds=round(self.budget.seconds, 1),
                               processes=self.work.processes.count, **self.stopping.told)  # fmt: skip


def ranges(numbers: Collection[int]) -> list[list[int]]:
    """Whole numbers as [first, one beyond the last] of each run of them."""
    n = np.array(sorted(numbers), int)
    cuts = np.flatnonzero(np.diff(n) > 1) + 1
    return [[int(run[0]), int(run[-1]) + 1] for run in np.split(n, cuts) if len(run)]


def _sum(one: torch.Tensor | None, other: torch.Tensor | None) -> torch.Tensor | None:
    return other if one is None else one if other is None else one + other


def _norm(gradients: Sequence[torch.Tensor | None]) -> float:
    return math.sqrt(sum(float(g.double().square().sum()) for g in gradients if g is not None))


def _log_prob(batch: Batch) -> Array:
    assert batch.draws.log_prob is not None
    return np.asarray(batch.draws.log_prob)
