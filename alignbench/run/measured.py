"""The rows of one generator on one task: stored evidence, else evidence measured now; then its metrics and files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from alignbench.errors import AlignbenchError, Unsupported
from alignbench.files import digest
from alignbench.generators.described import identity_of
from alignbench.run.rows import Row, RowKey, measure
from alignbench.run.writer import Writer, restate
from alignbench.scoring.evidence import evidence_of, evidence_of_p
from alignbench.scoring.references import depends_on
from alignbench.types import CEILING, Evidence

Failed = Callable[[AlignbenchError], None]
"""What is told of a metric that fails; the others go on."""


def rows_of_generator(writer: Writer, generator: Any, failed: Failed) -> list[Row]:
    """The rows of `generator`, whose files `writer` writes; `failed` is told of metrics that fail."""
    evidence, key = _evidence(writer, generator, identity_of(generator))
    rows = measure(writer.bench.task.metrics, key, evidence, failed)
    if writer.log_samples:
        writer.samples(evidence)
    _finish(writer, rows, evidence)
    return rows


def _evidence(writer: Writer, generator: Any, identity: Any) -> tuple[Evidence, RowKey]:
    """The stored evidence where nothing that it depends on has changed, else measured anew and stored."""
    references, bench = writer.references, writer.bench
    wanted = digest(depends_on(references, identity))
    named = [identity, bench.base_identity, *([identity_of(bench.judge)] if bench.judge else [])]
    found = writer.stored(wanted) if all(known is not None for known in named) else None
    if found is not None:
        evidence, earlier = found
        key = writer.key(identity, earlier)
        if key != earlier:  # `score` is to give the rows of this run: its ci_over, version, step
            writer.store(wanted, evidence, key)
        return evidence, key
    with writer.running():
        bench.check(generator)
        evidence = evidence_of(references, writer.candidate.label, generator)
        key = writer.key(identity)
        writer.store(wanted, evidence, key)
    return evidence, key


def rows_of_p(writer: Writer, failed: Failed) -> list[Row]:
    """The rows of draws of p: what a perfect generator would score; none where such draws cannot be had."""
    try:
        evidence = evidence_of_p(writer.references)
    except Unsupported:
        return []
    wanted = digest(depends_on(writer.references, CEILING))
    found = writer.stored(wanted)
    writer.new = found is None
    key = writer.key(CEILING, found[1] if found else None)
    writer.store(wanted, evidence, key)
    rows = measure(writer.bench.task.metrics, key, evidence, failed)
    _finish(writer, rows, evidence)
    return rows


def _finish(writer: Writer, rows: list[Row], evidence: Evidence) -> None:
    """Write the results file: of a new measurement, or where the rows are not what the latest file says."""
    if writer.new:
        writer.finish(rows, evidence)
    elif writer.folder is not None:
        restate(writer.folder, rows)
