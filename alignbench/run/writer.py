"""The files that one generator on one task leaves: DESIGN's results layout, each written in one step."""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignbench.errors import StoreError
from alignbench.files import dump, jsonable, write_atomic
from alignbench.run.provenance import hardware, kept_from, made_on, own_version, versions
from alignbench.run.rows import Candidate, Row, RowKey, read_stored, safe_name, short
from alignbench.store.packed import pack
from alignbench.types import Evidence

if TYPE_CHECKING:
    from alignbench.scoring.bench import Bench
    from alignbench.scoring.references import References

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """Evidence that an earlier run stored."""

    wanted: str  # by which it is found
    evidence: Evidence
    key: RowKey
    weights: Mapping[str, str]  # the hashes of what the generator was trained to, by folder


@dataclass
class Writer:
    """The files of one generator on one task; with no output folder nothing is written."""

    output: Path | None
    references: References
    candidate: Candidate
    argv: Sequence[str]
    job: Mapping[str, Any] = field(default_factory=dict)  # the words of the whole run
    log_samples: bool = False
    new: bool = field(default=False, init=False)  # whether this run measured anything
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex[:12], init=False)
    began: float = field(default_factory=time.time, init=False)

    @property
    def bench(self) -> Bench:
        """The task on its base."""
        return self.references.bench

    @property
    def folder(self) -> Path | None:
        """`<output>/<generator>[+<aligner>]`."""
        name, aligner = self.candidate.name, self.candidate.aligner
        return None if self.output is None else self.output / safe_name(f"{name}+{aligner}" if aligner else name)

    def key(self, identity: Any) -> RowKey:
        """What the rows of a generator share that is measured now and has this `identity`."""
        return self._key(short(identity), None)

    def key_again(self, earlier: RowKey) -> RowKey:
        """What they share where the evidence is an earlier run's: what it is, when and by which run it was measured."""
        return self._key(earlier.generator_id, earlier)

    def _key(self, generator_id: str, earlier: RowKey | None) -> RowKey:
        task, bench = self.bench.task, self.bench
        began = datetime.fromtimestamp(self.began, UTC).isoformat()
        return RowKey(
            run_id=earlier.run_id if earlier else self.run_id, task=task.name, task_version=task.version,
            task_hash=task.hash, generator=self.candidate.name, generator_id=generator_id,
            aligner=self.candidate.aligner,
            base=bench.base_name, base_id=short(bench.base_identity), target_id=self.references.target_id,
            judge=bench.judge_name, seed=bench.seed.entropy, draws=bench.draws,
            measured=earlier.measured if earlier else began, ci_over=task.ci_over,
            signature=f"{self._signature()}|{kept_from(earlier.signature) if earlier else made_on()}".rstrip("|"),
            step=self.candidate.step,
        )  # fmt: skip

    def _signature(self) -> str:
        bench, task = self.bench, self.bench.task
        base = bench.base_identity or {}
        fit = self.references.target.fit
        lam = None if fit is None else fit.lam
        parts = {
            "task": f"{task.name}.v{task.version}#{task.hash[:8]}",
            "base": f"{bench.base_name}#{short(base)}",
            "dtype": model.get("dtype", "") if isinstance(model := base.get("model"), Mapping) else "",
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

    def stored(self, wanted: str) -> Found | None:
        """The evidence that an earlier run stored under the same key; None where it is damaged, which is told."""
        path = self._evidence_path(wanted)
        if path is None or not path.is_file():
            return None
        try:
            return Found(wanted, *read_stored(path))
        except StoreError as error:
            _LOG.warning("%s; measuring again from the stored draws", error)
            return None

    def store(self, wanted: str, evidence: Evidence, key: RowKey, weights: Mapping[str, str]) -> None:
        """Keep the evidence, so that metrics can be recomputed for ever without a model."""
        path = self._evidence_path(wanted)
        if path is not None:
            trained = {"weights": dict(weights)} if weights else {}
            write_atomic(path, pack({"key": asdict(key), "evidence": evidence, **trained}))

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
                "task": bench.task.name, "task_hash": bench.task.hash, "generator": self.candidate.name,
                "aligner": self.candidate.aligner, "base": bench.base_name, "base_identity": bench.base_identity,
                "prompts": bench.prompts, "draws": bench.draws, "seed": bench.seed.entropy,
                "max_tokens": bench.task.max_tokens, "judge": bench.judge_name or None, "job": self.job,
            },
            "versions": versions(), "hardware": hardware(),
        }  # fmt: skip
        write_atomic(self.folder / f"run_{self.run_id}.json", dump(content))

    def finish(self, rows: Sequence[Row], evidence: Evidence, code: str) -> None:
        """Write results_<time>.json: a superset of the keys of lm-eval's results files. `code` made the rows."""
        if self.folder is None:
            return
        task, name, fit = self.bench.task, self.bench.task.name, evidence.fit
        content = {
            "results": {name: {"alias": name, **_lm_eval_numbers(rows)}},
            "group_subtasks": {name: []},
            "configs": {name: {"task": name, "metadata": {"version": task.version}, "output_type": "generate_until",
                               "repeats": self.bench.draws, "summary": task.summary}},
            "versions": {name: task.version},
            "n-shot": {name: self.candidate.shots},
            "higher_is_better": {name: {r.name: r.better == "higher" for r in rows if r.better}},
            "n-samples": {name: {"original": self.bench.whole or len(task.prompts), "effective": len(task.prompts)}},
            "config": {"model": self.candidate.name, "aligner": self.candidate.aligner, "limit": self.bench.limit,
                       "random_seed": self.bench.seed.entropy,
                       **{key: self.job.get(key) for key in ("batch_size", "device", "gen_kwargs")}},
            "date": self.began, "model_source": "alignbench", "model_name": self.candidate.name,
            "model_name_sanitized": safe_name(self.candidate.name), "task_hashes": {name: task.hash},
            "total_evaluation_time_seconds": evidence.cost.seconds,
            "run_id": self.run_id, "signature": rows[0].key.signature if rows else "",
            "rows": [row.flat() for row in rows], "made_by": code,
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


def rows_told(folder: Path | None, key: RowKey, code: str) -> list[Row]:
    """The rows of this key that the latest results file has from this very `code`; [] where there are none."""
    latest = {} if folder is None else _latest(folder, key)
    if latest.get("made_by") != code:
        return []
    try:
        told = [row for row in latest["rows"] if {name: row[name] for name in asdict(key)} == jsonable(asdict(key))]
        return [Row.from_flat(row, key) for row in told] if len(told) == len(latest["rows"]) else []
    except (KeyError, TypeError, ValueError):
        return []


def restate(folder: Path, rows: Sequence[Row], code: str) -> None:
    """Write results_<time>.json anew where `rows`, made again from stored evidence, are not what the latest one says.

    So that the rows of an output folder are those of its latest run or `score`, whichever tasks that was of; `code` is
    what made them.
    """
    if not rows:
        return
    latest, told = _latest(folder, rows[0].key), jsonable([row.flat() for row in rows])
    if latest.get("rows") == told and latest.get("made_by", "") == code:
        return
    now, task = datetime.now(UTC), rows[0].key.task
    content = {
        **latest, "results": {task: {"alias": task, **_lm_eval_numbers(rows)}}, "date": now.timestamp(),
        "task_hashes": {task: rows[0].key.task_hash}, "run_id": rows[0].key.run_id,
        "signature": rows[0].key.signature, "rows": told, "made_by": code, "alignbench_version": own_version(),
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
