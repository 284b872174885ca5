"""What a run leaves behind: rows, and beside them the files of DESIGN's results layout, each written in one step."""

from __future__ import annotations

import json
import logging
import math
import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignbench import metrics
from alignbench.errors import AlignbenchError, StoreError
from alignbench.metrics.prompts import over_prompts
from alignbench.metrics.replicates import Measured, replicates, spelled
from alignbench.registry import metric as registry
from alignbench.run.provenance import hardware, kept_from, made_on, own_version, versions
from alignbench.store import digest, evidence_files, pack, unpack, write_atomic
from alignbench.types import PRIMARY, Array, CiOver, Estimate, Evidence

if TYPE_CHECKING:
    import pandas as pd

    from alignbench.scoring.evidence import Bench
    from alignbench.task import Task


_LOG = logging.getLogger(__name__)


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

    @property
    def name(self) -> str:
        """`metric.part`, or the metric alone where it has one part."""
        return f"{self.metric}.{self.part}" if self.part else self.metric


def frame(rows: Iterable[Row], primary: Mapping[str, str]) -> pd.DataFrame:
    """The tidy table of `rows` and of their means over seeds; `attrs["primary"]` says what sorts each leaderboard."""
    import pandas as pd

    from alignbench.reports.rows import COLUMNS, tidy
    from alignbench.reports.table.seeds import with_means

    columns = [*COLUMNS, "step", "replicates"]
    table = with_means(tidy(pd.DataFrame([row.flat() for row in rows], columns=columns, dtype=object)))
    table.attrs["primary"] = dict(primary)
    return table


Asked = Sequence[tuple[str, Mapping[str, Any]]] | None
"""Metrics and their parameters; None for all that are registered, but those that are opt-in."""


def measure(
    asked: Asked, key: RowKey, evidence: Evidence, failed: Callable[[AlignbenchError], None] | None = None
) -> list[Row]:
    """The rows of the metrics `asked` for; one that fails is `failed`'s to tell, else raises, and the others go on."""
    told: list[Measured] = []
    for name, params in asked if asked is not None else [(n, {}) for n, entry in registry.items() if not entry.opt_in]:
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
    return over_prompts(lambda some: metrics.measure(name, some, **params), evidence)


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


@dataclass
class Writer:
    """The files of one generator on one task; with no output folder nothing is written."""

    output: Path | None
    bench: Bench
    generator: str
    aligner: str
    argv: Sequence[str]
    step: int | None = None
    shots: int = 0  # examples that each prompt comes after
    job: Mapping[str, Any] = field(default_factory=dict)  # the words of the whole run; {} where it has objects
    new: bool = field(default=False, init=False)  # whether this run measured anything
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex[:12], init=False)
    began: float = field(default_factory=time.time, init=False)

    @property
    def folder(self) -> Path | None:
        """`<output>/<generator>[+<aligner>]`."""
        if self.output is None:
            return None
        return self.output / safe_name(f"{self.generator}+{self.aligner}" if self.aligner else self.generator)

    def key(self, identity: Any, earlier: RowKey | None = None) -> RowKey:
        """What the rows of the generator with this `identity` share; when and by which run, from an `earlier` key."""
        task, bench = self.bench.task, self.bench
        began = datetime.fromtimestamp(self.began, UTC).isoformat()
        return RowKey(
            run_id=earlier.run_id if earlier else self.run_id, task=task.name, task_version=task.version,
            task_hash=task.hash, generator=self.generator, generator_id=short(identity), aligner=self.aligner,
            base=bench.base_name, base_id=short(bench.base_identity), target_id=bench.target_id,
            judge=bench.judge_name, seed=bench.seed.entropy, draws=bench.draws,
            measured=earlier.measured if earlier else began, ci_over=task.ci_over,
            signature=f"{self._signature()}|{kept_from(earlier.signature) if earlier else made_on()}".rstrip("|"),
            step=self.step,
        )  # fmt: skip

    def _signature(self) -> str:
        bench, task = self.bench, self.bench.task
        base = bench.base_identity or {}
        lam = bench.target.fit.lam if bench.target.fit is not None else None
        parts = {
            "task": f"{task.name}.v{task.version}#{task.hash[:8]}",
            "base": f"{bench.base_name}#{short(base)}",
            "dtype": base.get("model", {}).get("dtype", ""),
            "prompts": len(bench.prompts), "draws": bench.draws,
            "proposals": "+".join(spec.label for spec in task.proposals), "max_tokens": task.max_tokens,
            "lam": ",".join(f"{x:.4g}" for x in lam.ravel()) if lam is not None and lam.size else "",
            "judge": bench.judge_name,
            "ci_over": "" if task.ci_over == "prompts_given" else task.ci_over,
            "seed": bench.seed.entropy, "version": own_version(),
        }  # fmt: skip
        return "alignbench|" + "|".join(f"{k}:{v}" for k, v in parts.items() if v != "")

    @cached_property
    def _stamp(self) -> str:
        return datetime.fromtimestamp(self.began, UTC).strftime("%Y-%m-%dT%H-%M-%S.%f")

    def stored(self, wanted: str) -> tuple[Evidence, RowKey] | None:
        """The evidence that an earlier run stored under the same key; None where it is damaged, which is told."""
        path = self._evidence_path(wanted)
        if path is None or not path.is_file():
            return None
        try:
            return read_evidence(path)
        except StoreError as error:
            _LOG.warning("%s; measuring again from the stored draws", error)
            return None

    def store(self, wanted: str, evidence: Evidence, key: RowKey) -> None:
        """Keep the evidence, so that metrics can be recomputed for ever without a model."""
        path = self._evidence_path(wanted)
        if path is not None:
            write_atomic(path, pack({"key": asdict(key), "evidence": evidence}))

    def _evidence_path(self, wanted: str) -> Path | None:
        return self.folder / f"evidence_{self.bench.task.name}_{wanted}.npz" if self.folder else None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Record in run_<id>.json that work has begun, and how it ended."""
        self.new = True
        self._run_file("running")
        try:
            yield
        except KeyboardInterrupt:
            self._run_file("interrupted")
            raise
        except BaseException as error:
            self._run_file("failed", str(error))
            raise
        self._run_file("finished")

    def _run_file(self, status: str, error: str = "") -> None:
        if self.folder is None:
            return
        bench = self.bench
        content = {
            "run_id": self.run_id, "status": status, "error": error, "argv": list(self.argv),
            "started": datetime.fromtimestamp(self.began, UTC).isoformat(),
            "config": {
                "task": bench.task.name, "task_hash": bench.task.hash, "generator": self.generator,
                "aligner": self.aligner, "base": bench.base_name, "base_identity": bench.base_identity,
                "prompts": bench.prompts, "draws": bench.draws, "seed": bench.seed.entropy,
                "max_tokens": bench.task.max_tokens, "judge": bench.judge_name or None, "job": self.job,
            },
            "versions": versions(), "hardware": hardware(),
        }  # fmt: skip
        write_atomic(self.folder / f"run_{self.run_id}.json", dump(content))

    def finish(self, rows: Sequence[Row], evidence: Evidence) -> None:
        """Write results_<time>.json: a superset of the keys of lm-eval's results files."""
        if self.folder is None:
            return
        task, name, fit = self.bench.task, self.bench.task.name, evidence.fit
        content = {
            "results": {name: {"alias": name, **_lm_eval_numbers(rows)}},
            "group_subtasks": {name: []},
            "configs": {name: {"task": name, "metadata": {"version": task.version}, "output_type": "generate_until",
                               "repeats": self.bench.draws, "summary": task.summary}},
            "versions": {name: task.version},
            "n-shot": {name: self.shots},
            "higher_is_better": {name: {r.name: r.better == "higher" for r in rows if r.better}},
            "n-samples": {name: {"original": self.bench.whole or len(task.prompts), "effective": len(task.prompts)}},
            "config": {"model": self.generator, "aligner": self.aligner, "limit": self.bench.limit,
                       "random_seed": self.bench.seed.entropy,
                       **{key: self.job.get(key) for key in ("batch_size", "device", "gen_kwargs")}},
            "date": self.began, "model_source": "alignbench", "model_name": self.generator,
            "model_name_sanitized": safe_name(self.generator), "task_hashes": {name: task.hash},
            "total_evaluation_time_seconds": evidence.cost.seconds,
            "run_id": self.run_id, "signature": rows[0].key.signature if rows else "",
            "rows": [row.flat() for row in rows],
            "target": {"lam": fit.lam, "lam_stderr": fit.lam_stderr, "log_z": fit.log_z,
                       "log_z_stderr": fit.log_z_stderr, "heldout": {k: asdict(v) for k, v in fit.heldout.items()}},
            "rescoring_max_abs_delta": evidence.rescoring,
            "transformers_version": versions().get("transformers"), "alignbench_version": own_version(),
        }  # fmt: skip
        write_atomic(self.folder / f"results_{self._stamp}.json", dump(content))

    def samples(self, evidence: Evidence) -> None:
        """Write samples_<task>_<time>.jsonl: lm-eval's field names, with ids, log-probabilities and features.

        Nothing is written where an earlier file says the same.
        """
        if self.folder is None:
            return
        lines = "".join(json.dumps(jsonable(s), ensure_ascii=False) + "\n" for s in _samples(self.bench, evidence))
        content = lines.encode("utf-8", "backslashreplace")
        name = f"samples_{self.bench.task.name}"
        if all(path.read_bytes() != content for path in self.folder.glob(f"{name}_*.jsonl")):
            write_atomic(self.folder / f"{name}_{self._stamp}.jsonl", content)


def restate(folder: Path, rows: Sequence[Row]) -> None:
    """Write results_<time>.json anew where `rows`, made again from stored evidence, are not what the latest one says.

    So that the rows of an output folder are those of its latest run or `score`, whichever tasks that was of.
    """
    if not rows:
        return
    latest, told = _latest(folder, rows[0].key), jsonable([row.flat() for row in rows])
    if latest.get("rows") == told:
        return
    now, task = datetime.now(UTC), rows[0].key.task
    content = {
        **latest, "results": {task: {"alias": task, **_lm_eval_numbers(rows)}}, "date": now.timestamp(),
        "task_hashes": {task: rows[0].key.task_hash}, "run_id": rows[0].key.run_id,
        "signature": rows[0].key.signature, "rows": told, "alignbench_version": own_version(),
    }  # fmt: skip
    write_atomic(folder / f"results_{now.strftime('%Y-%m-%dT%H-%M-%S.%f')}.json", dump(content))


def _latest(folder: Path, key: RowKey) -> dict[str, Any]:
    """The latest results_<time>.json with rows of the same measurement; {} where there is none that can be read."""
    for path in sorted(folder.glob("results_*.json"), reverse=True):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            first = content["rows"][0]
        except (OSError, ValueError, LookupError, TypeError):
            continue
        if isinstance(first, dict) and all(first.get(k) == v for k, v in asdict(key).items() if k in SAME):
            return dict(content)
    return {}


SAME = ("run_id", "task", "task_hash", "target_id", "base_id", "judge", "generator_id", "seed", "draws", "measured")
"""What rows of one measurement share."""


def _lm_eval_numbers(rows: Sequence[Row]) -> dict[str, Any]:
    """`name,none` and `name_stderr,none`, as lm-eval calls a number without a filter; None where not measured."""
    found: dict[str, Any] = {}
    for row in rows:
        found[f"{row.name},none"] = row.estimate.value
        found[f"{row.name}_stderr,none"] = "N/A" if row.estimate.stderr is None else row.estimate.stderr
    return found


def _samples(bench: Bench, evidence: Evidence) -> Iterator[dict[str, Any]]:
    own, draws = evidence.own, evidence.own.draws
    for i in range(len(draws)):
        prompt, text = bench.prompts[int(draws.prompt[i])], draws.texts[i]
        length = int(draws.length[i])
        scores = {name: getattr(own, name) for name in ("log_base", "log_target", "log_gen", "log_judge", "kl_base")}
        yield {
            "doc_id": int(draws.prompt[i]), "doc": {"prompt": prompt}, "target": "", "arguments": [[prompt, {}]],
            "resps": [[text]], "filtered_resps": [text], "filter": "none", "metrics": [],
            "doc_hash": _sha(json.dumps({"prompt": prompt}, ensure_ascii=False)), "prompt_hash": _sha(prompt),
            "target_hash": _sha(""), "index": int(draws.index[i]),
            "token_ids": None if draws.tokens is None else draws.tokens[i, :length].tolist(),
            "finished": bool(draws.finished[i]),
            "features": {name: values[i].item() for name, values in own.features.items()},
            "log_prob": None if draws.log_prob is None else float(draws.log_prob[i]),
            **{name: None if values is None else float(values[i]) for name, values in scores.items()},
        }  # fmt: skip


def _sha(text: str) -> str:
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def read_evidence(path: Path) -> tuple[Evidence, RowKey]:
    """Evidence and the key of its rows; raises StoreError where the file is damaged or of another format."""
    record = unpack(path)
    try:
        return record["evidence"], RowKey(**record["key"])
    except (KeyError, TypeError) as error:
        raise StoreError(f"{path}: was written by another version of alignbench") from error


def remember(output: Path | None, task: Task) -> None:
    """Write task_<name>.json: the metrics that the latest run asked for, so that `score` asks for the same."""
    if output is not None:
        content = {"version": task.version, "metrics": task.metrics, "primary": task.primary or PRIMARY}
        write_atomic(output / f"task_{task.name}.json", dump(content))


def remembered(folder: Path, name: str) -> tuple[Asked, str]:
    """The metrics and the primary metric that the latest run of a task asked for; all of them where none says."""
    try:
        content = json.loads((folder / f"task_{name}.json").read_text(encoding="utf-8"))
        asked = content["metrics"]
        return None if asked is None else [(metric, params) for metric, params in asked], str(content["primary"])
    except (OSError, ValueError, KeyError, TypeError):
        return None, PRIMARY


@dataclass
class Rescored:
    """Rows recomputed from stored evidence, each task's primary metric, and the files that could not be used."""

    rows: list[Row] = field(default_factory=list)
    primary: dict[str, str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def fail(self, error: AlignbenchError) -> None:
        """Note a failure, once."""
        if str(error) not in self.failures:
            self.failures.append(str(error))


def rescore(folder: Path) -> Rescored:
    """Every metric recomputed from the evidence in an output folder; no model is needed.

    A damaged file, and a metric that fails, is told and left out. Raises StoreError where there is no evidence at all.
    """
    found = Rescored()
    for path in evidence_files(folder):
        try:
            evidence, key = read_evidence(path)
            asked, found.primary[key.task] = remembered(folder, key.task)
            rows = measure(asked, key, evidence, found.fail)
            restate(path.parent, rows)
            found.rows += rows
        except AlignbenchError as error:
            found.fail(error)
    if not found.rows and not found.failures:
        raise StoreError(f"{folder}: holds no results (no */evidence_*.npz); give the --output_path of a run")
    return found


def short(identity: Any) -> str:
    """8 hex digits that stand for an identity; "" for none."""
    return "" if identity is None else digest(identity)[:8]


def dump(content: Any) -> str:
    """Strict JSON: infinities as "inf" and "-inf", missing numbers as null."""
    return json.dumps(jsonable(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def jsonable(value: Any) -> Any:
    """`value` with only what strict JSON knows."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None if math.isnan(value) else str(value)
    if isinstance(value, Mapping):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(v) for v in value]
    if isinstance(value, (str, int, bool)) or value is None:
        return value
    if hasattr(value, "tolist"):
        return jsonable(value.tolist())
    return str(value)
