"""What a row is: one part of one metric of one generator on one task, and what all rows of one generator share."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignbench import metrics
from alignbench.errors import AlignbenchError, StoreError
from alignbench.files import digest
from alignbench.metrics.prompts import over_prompts
from alignbench.metrics.replicates import Measured, replicates, spelled
from alignbench.registry import metric as registry
from alignbench.store.packed import unpack
from alignbench.types import Array, CiOver, Estimate, Evidence

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Candidate:
    """Who a row is of: a generator, or an aligner on the base."""

    name: str
    aligner: str = ""
    step: int | None = None  # of a checkpoint
    shots: int = 0  # examples that each prompt comes after

    @property
    def label(self) -> str:
        """What people call it."""
        return f"{self.name} + {self.aligner}" if self.aligner else self.name


@dataclass(frozen=True)
class RowKey:
    """What all rows of one generator on one task share."""

    run_id: str
    task: str
    task_version: int
    task_hash: str
    generator: str
    generator_id: str  # 8 digits of the generator's identity; "" where it has none
    aligner: str
    base: str
    base_id: str  # 8 digits of the base's identity
    target_id: str  # 8 digits of task hash, base and fitted λ: rows of one table share it
    judge: str  # "" for the base
    seed: int
    draws: int  # per prompt
    measured: str  # when the evidence was made, ISO 8601
    signature: str
    ci_over: CiOver = "prompts_given"
    step: int | None = None  # of a checkpoint


@dataclass(frozen=True)
class Row:
    """One line of the tidy results table: one part of one metric of one generator on one task."""

    key: RowKey
    metric: str
    part: str
    estimate: Estimate
    better: str
    seconds: float | None
    exact: float | None = None
    replicates: str = ""  # the number with each block of draws left out; "" where there are none

    def flat(self) -> dict[str, Any]:
        """Column → value."""
        return {**asdict(self.key), **asdict(self.estimate), "metric": self.metric, "part": self.part,
                "better": self.better, "seconds": self.seconds, "exact": self.exact,
                "replicates": self.replicates}  # fmt: skip

    @staticmethod
    def from_flat(told: Mapping[str, Any], key: RowKey) -> Row:
        """The row that a results file tells of by `flat`; raises KeyError or ValueError where it is none."""
        numbers = {name: _number(told[name]) for name in ("value", "stderr", "ci_low", "ci_high", "ess")}
        return Row(
            key, str(told["metric"]), str(told["part"]), Estimate(**numbers, n=int(told["n"]), note=str(told["note"])),
            str(told["better"]), _number(told["seconds"]), _number(told["exact"]), str(told["replicates"]),
        )  # fmt: skip

    @property
    def name(self) -> str:
        """`metric.part`, or the metric alone where it has one part."""
        return f"{self.metric}.{self.part}" if self.part else self.metric


def _number(told: Any) -> float | None:
    return None if told is None else float(told)


def frame(rows: Iterable[Row], primary: Mapping[str, str], summaries: Mapping[str, str] | None = None) -> pd.DataFrame:
    """The tidy table of `rows` and of their means over seeds.

    `attrs["primary"]` says what sorts each leaderboard, `attrs["summaries"]` what each task asks, in a sentence.
    """
    import pandas as pd

    from alignbench.reports.rows import COLUMNS, tidy
    from alignbench.reports.table.board import sentence
    from alignbench.reports.table.seeds import with_means

    columns = [*COLUMNS, "step", "replicates"]
    table = with_means(tidy(pd.DataFrame([row.flat() for row in rows], columns=columns, dtype=object)))
    table.attrs["primary"] = dict(primary)
    told = {task: sentence(summary) for task, summary in (summaries or {}).items()}
    table.attrs["summaries"] = {task: summary for task, summary in told.items() if summary}
    return table


Asked = Sequence[tuple[str, Mapping[str, Any]]] | None
"""Metrics and their parameters; None for all that are registered, but those that are opt-in."""


def names_asked(asked: Asked) -> list[tuple[str, Mapping[str, Any]]]:
    """The metrics `asked` for, with their parameters."""
    return [(n, {}) for n, entry in registry.items() if not entry.opt_in] if asked is None else list(asked)


def measure(
    asked: Asked, key: RowKey, evidence: Evidence, failed: Callable[[AlignbenchError], None] | None = None
) -> list[Row]:
    """The rows of the metrics `asked` for; one that fails is `failed`'s to tell, else raises, and the others go on."""
    told: list[Measured] = []
    for name, params in names_asked(asked):
        try:
            told.append(Measured(name, params, _numbers(name, evidence, key.ci_over, params)))
        except AlignbenchError as error:
            if failed is None:
                raise
            failed(error)
    found = replicates(told, evidence, key.ci_over)
    return [row for one, left in zip(told, found, strict=True) for row in _rows(one, left, key, evidence)]


def _rows(told: Measured, left: Mapping[str, Array], key: RowKey, evidence: Evidence) -> Iterator[Row]:
    """The rows of one metric, each with its replicates, if it has any."""
    for part, estimate in told.numbers.items():
        full = f"{told.name}.{part}" if part else told.name
        exact = None if told.params.get("at") == "asked" else (evidence.truth or {}).get(full)  # truth is at λ̂
        noted, which = estimate.noted(_left_out(evidence)), metrics.better(told.name, part)
        yield Row(key, told.name, part, noted, which, evidence.cost.seconds, exact, spelled(left.get(part, ())))


def _numbers(name: str, evidence: Evidence, ci_over: CiOver, params: Mapping[str, Any]) -> Mapping[str, Estimate]:
    if ci_over == "prompts_given":
        return metrics.measure(name, evidence, **params)
    return metrics.within_range(name, over_prompts(lambda some: metrics.measure(name, some, **params), evidence))


def _left_out(evidence: Evidence) -> str:
    """What every number of a generator must say when some of its draws are missing."""
    cost = evidence.cost
    drawn = cost.kept + cost.exhausted
    return f"{cost.exhausted} of {drawn} draws left out: their proposals ran out" if cost.exhausted else ""


LONGEST = 120  # bytes in a folder's name; file systems take 255


def safe_name(label: str) -> str:
    """A folder name for a generator: "/" becomes "__" as in lm-eval, and what file systems dislike "_"."""
    name = re.sub(r"[^\w.=+,@-]+", "_", label.replace("/", "__")).strip("._") or "generator"
    return name if len(name.encode()) <= LONGEST else f"{_cut(name, LONGEST - 9)}-{digest(label)[:8]}"


def _cut(text: str, most: int) -> str:
    """The beginning of a text, at most `most` bytes of UTF-8."""
    return text.encode()[:most].decode(errors="ignore")


def read_evidence(path: Path) -> tuple[Evidence, RowKey]:
    """Evidence and the key of its rows; raises StoreError where the file is damaged or of another format."""
    return read_stored(path)[:2]


def read_stored(path: Path) -> tuple[Evidence, RowKey, Mapping[str, str]]:
    """The same, and the hashes of what the generator was trained to, by folder."""
    record = unpack(path)
    try:
        return record["evidence"], RowKey(**record["key"]), record.get("weights", {})
    except (KeyError, TypeError) as error:
        raise StoreError(f"{path}: was written by another version of alignbench") from error


def short(identity: Any) -> str:
    """8 hex digits that stand for an identity; "" for none."""
    return "" if identity is None else digest(identity)[:8]
