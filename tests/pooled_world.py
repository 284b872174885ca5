"""Exact tasks whose rows select from one pool of base draws, with the exact value of what is compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from task_on_base import TaskOnBase

from alignbench.aligners.selection.best_of_n import BestOfN
from alignbench.aligners.selection.quasi_rejection import QuasiRejection
from alignbench.aligners.selection.rejection import Rejection
from alignbench.aligners.selection.sir import SIR
from alignbench.errors import RunError
from alignbench.generators.exact.world import enumerate_draws, exact
from alignbench.metrics.replicates import replicates_of, spelled
from alignbench.registry import load_plugins
from alignbench.reports.compare.compared import differences
from alignbench.reports.table.pairs import numbers
from alignbench.run.rows import Row, RowKey, measure
from alignbench.seeds import Seed
from alignbench.stats import discrete, resampled, selection
from alignbench.stats.ranks import Numbers
from alignbench.store.draws import DrawStore
from alignbench.task import load_task
from alignbench.types import Array, Estimate, Evidence, Selection, silent

load_plugins()

LENGTH = 3
TASK = """
name: pooled
version: 1
summary: Rows that select from one pool.
prompts: [rain, sun wind, wind]
max_tokens: 3
features:
  bright: {feature: contains_any, words: [sun]}
  windy: {feature: contains_any, words: [wind]}
  words: {feature: length_words}
  rainy: {feature: contains_any, words: [rain]}
target:
  - {feature: bright, always: true}
"""
REWARD = "  - {feature: windy, reward: true, beta: 1.0}\n"
BETA = 1.5
CAPPED = "rejection, capped"
BETTER = {"satisfaction.always": "higher", "satisfaction.reward.windy": "higher", "perplexity": "lower",
          "features.rainy": "higher", "features.words": "higher", "divergence.kl_target": "lower",
          "acceptance.rate": "higher", "win_rate": "higher"}  # fmt: skip
"""What is compared, and which way ranks go."""
Names = Sequence[str]


class PooledWorld:
    """A hard or a soft target on three words, and the rows that are measured on it."""

    def __init__(self, folder: Path, *, soft: bool, cap: int = 2) -> None:
        path = folder / "pooled.yaml"
        path.write_text(TASK + (REWARD if soft else ""))
        self.task, self.soft = load_task(path), soft
        self.base = exact(words="sun rain wind", seed=3, batch_size=4096)
        self.recipes: dict[str, Any] = {
            "base": None, "best_of_n:n=4": BestOfN(4), "rejection": Rejection(),
            CAPPED: Rejection(cap), "sir:n=4": SIR(4),
            "quasi_rejection": QuasiRejection(beta=BETA if soft else 1.0, cap=3),
        }  # fmt: skip

    def evidence(self, seed: int, each: int, rows: Names = ()) -> dict[str, Evidence]:
        """Row → its evidence; all rows share one pool of the base's draws."""
        bench = TaskOnBase(task=self.task, base=self.base, base_name="exact", store=DrawStore(None), draws=each,
                           seed=Seed(seed), progress=silent)  # fmt: skip
        found = {}
        for name in rows or self.recipes:
            recipe = self.recipes[name]
            generator = bench.base if recipe is None else recipe.align(bench.setting)
            with suppress(RunError):  # a row that kept no draw of some prompt is none
                found[name] = replace(bench.measure(name, generator), truth=None)
        return found

    def truth(self) -> dict[str, dict[str, float]]:
        """Row → what its numbers are, by listing every continuation."""
        every = enumerate_draws(self.base, self.task.prompts, max_tokens=LENGTH)
        target = replace(self.task.target, measures=self.task.features).fitted(
            {}, np.zeros(0, int), {}, np.zeros(0, int), self.task.prompts
        )
        features = {name: f(self.task.prompts, every) for name, f in self.task.features.items()}
        ratio = target.log_ratio(features, every.prompt)
        found: dict[str, list[dict[str, float]]] = {name: [] for name in self.recipes}
        for c in range(len(self.task.prompts)):
            here = every.prompt == c
            a, r = np.exp(every.log_prob[here]), ratio[here]
            said = {name: np.asarray(v, float)[here] for name, v in features.items()}
            for name, pi in self._laws(a, r).items():
                rate = {"acceptance.rate": self._rate(name, a, r)} if "rejection" in name else {}
                found[name].append(_numbers(a, r, pi, said, every.length[here]) | rate)
        return {name: _means(parts) for name, parts in found.items()}

    def _laws(self, a: Array, r: Array) -> dict[str, Array]:
        p, boolean = discrete.normalised(np.log(a) + r), not self.soft
        resampled_law = p if boolean else resampled.law(a, r, 4)
        quasi = discrete.normalised(np.log(a) + np.minimum(r, np.log(BETA)))
        return {"base": a, "best_of_n:n=4": selection.selected(a, r, Selection("best", 4)), "rejection": p,
                CAPPED: p, "sir:n=4": resampled_law, "quasi_rejection": p if boolean else quasi}  # fmt: skip

    def _rate(self, name: str, a: Array, r: Array) -> float:
        """The chance that a proposal is accepted."""
        top = 1.0 if self.soft else 0.0  # windy is 0 or 1 and β is 1
        if name == "quasi_rejection":
            top = np.log(BETA) if self.soft else 0.0
        return float(a @ np.exp(np.minimum(r - top, 0.0)))


def _numbers(a: Array, r: Array, pi: Array, said: Mapping[str, Array], length: Array) -> dict[str, float]:
    told = {"satisfaction.always": pi @ (said["bright"] > 0), "features.rainy": pi @ said["rainy"],
            "features.windy": pi @ said["windy"], "satisfaction.reward.windy": pi @ said["windy"],
            "features.words": pi @ said["words"], "nats": -(pi @ np.log(a)), "tokens": pi @ length,
            "divergence.kl_target": discrete.kl(discrete.normalised(np.log(a) + r), pi)}  # fmt: skip
    return {name: float(value) for name, value in told.items()}


def _means(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means over prompts; of a perplexity, those of nats and of tokens."""
    found = {name: float(np.mean([p[name] for p in parts])) for name in parts[0]}
    return found | {"perplexity": float(np.exp(found.pop("nats") / found.pop("tokens")))}


def rows_of_evidence(name: str, evidence: Evidence, each: int, metrics: Names) -> dict[str, Row]:
    """`metric.part` → the row of a results table."""
    key = RowKey("r", "pooled", 1, "t", name, name, "", "exact", "b", "p", "", 0, each, "", "")
    return {row.name: row for row in measure([(m, {}) for m in metrics], key, evidence)}


def compared(
    found: Mapping[str, tuple[Evidence, Mapping[str, Row]]], pairs: Sequence[tuple[str, str]] | None = None
) -> Iterator[tuple[str, str, str, Estimate]]:
    """(first, other, number, other − first) of all pairs of rows, as `compare` prints it."""
    names = list(found)
    for first, other in pairs or [(x, y) for i, x in enumerate(names) for y in names[i + 1 :]]:
        for told in differences(found[first], found[other], "prompts_given"):
            yield first, other, told.key, told.difference


def table(rows: Sequence[Mapping[str, Row]], number: str) -> Numbers:
    """What rows reached by one number, for ranks."""
    return numbers([r[number].flat() if number in r else None for r in rows], BETTER[number])


def rolled(row: Row) -> Row:
    """Planted: the row leaves out other sample numbers than those it is compared with."""
    left = replicates_of(row.flat())
    return row if left is None else replace(row, replicates=spelled(np.roll(left, 1)))
