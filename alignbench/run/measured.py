"""The rows of one generator on one task: stored evidence, else evidence measured now; then its metrics and files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from alignbench.errors import AlignbenchError
from alignbench.files import digest
from alignbench.generators.described import identity_of
from alignbench.run.provenance import made_by
from alignbench.run.rows import Row, RowKey, measure, names_asked
from alignbench.run.subjects import Subject
from alignbench.run.writer import Found, Writer, restate, rows_told
from alignbench.scoring.evidence import evidence_of, evidence_of_p
from alignbench.scoring.references import depends_on
from alignbench.types import CEILING, Evidence

Failed = Callable[[AlignbenchError], None]
"""What is told of a metric that fails; the others go on."""


def rows_of_generator(writer: Writer, subject: Subject, failed: Failed) -> list[Row]:
    """The rows of a generator, whose files `writer` writes; `failed` is told of metrics that fail."""
    evidence, key = _evidence(writer, subject)
    if writer.log_samples:
        writer.samples(evidence)
    return _rows(writer, evidence, key, failed)


def _evidence(writer: Writer, subject: Subject) -> tuple[Evidence, RowKey]:
    """The stored evidence where nothing that it depends on has changed, else measured anew and stored."""
    identity = subject.identity
    found = _found(writer, identity)
    if found is not None and not subject.unlike(found.weights):
        return _again(writer, found, found.weights)
    generator = subject.make()
    told = identity_of(generator)
    if identity is None:
        identity = subject.told(generator)
        found = _found(writer, identity)
    if found is not None and told is not None and found.key.generator_id == writer.key(told).generator_id:
        return _again(writer, found, subject.weights)
    with writer.running():
        writer.bench.check(generator)
        evidence = evidence_of(writer.references, writer.candidate.label, generator, subject.training)
        key = writer.key(told)
        writer.store(_wanted(writer, identity), evidence, key, subject.weights)
    return evidence, key


def _wanted(writer: Writer, identity: Any) -> str:
    """The name of the evidence about a generator of this identity."""
    return digest(depends_on(writer.references, identity))


def _found(writer: Writer, identity: Any) -> Found | None:
    """The stored evidence about a generator of this identity."""
    return writer.stored(_wanted(writer, identity)) if identity is not None and writer.bench.all_named else None


def _again(writer: Writer, found: Found, weights: Mapping[str, str]) -> tuple[Evidence, RowKey]:
    """Stored evidence, its key written anew where it changed: `score` is to give the rows of this run."""
    key = writer.key_again(found.key)
    if key != found.key or dict(weights) != dict(found.weights):
        writer.store(found.wanted, found.evidence, key, weights)
    return found.evidence, key


def rows_of_p(writer: Writer, failed: Failed) -> list[Row]:
    """The rows of draws of p: what a perfect generator would score; none where such draws cannot be had."""
    if writer.references.without_p:
        return []
    found = _found(writer, CEILING)
    if found is not None:
        evidence, key = _again(writer, found, {})
    else:
        writer.new, evidence, key = True, evidence_of_p(writer.references), writer.key(CEILING)
        writer.store(_wanted(writer, CEILING), evidence, key, {})
    return _rows(writer, evidence, key, failed)


def _rows(writer: Writer, evidence: Evidence, key: RowKey, failed: Failed) -> list[Row]:
    """The rows that this very code made of this evidence before, else made now and written."""
    asked = names_asked(writer.bench.task.metrics)
    code = made_by(asked)
    if code and not writer.new and (rows := rows_told(writer.folder, key, code)):
        return rows
    lost: list[AlignbenchError] = []
    rows = measure(asked, key, evidence, lost.append)
    for error in lost:
        failed(error)
    code = "" if lost else code  # what failed is to be told again
    if writer.new:
        writer.finish(rows, evidence, code)
    elif writer.folder is not None:
        restate(writer.folder, rows, code)
    return rows
