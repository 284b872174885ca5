"""A task on a base with all that tests ask of it in one object: bench, references and evidence."""

from __future__ import annotations

from dataclasses import fields

from alignbench.scoring import evidence
from alignbench.scoring.bench import Bench
from alignbench.scoring.references import References


class TaskOnBase(References):
    """References that are made, asked and measured on as their bench is."""

    def __init__(self, task, base, *args, judge=None, **more):
        super().__init__(Bench(task, base, *args, given_judge=judge, **more))

    def __getattr__(self, name):
        return getattr(self.bench, name)

    def anew(self, **changes):
        """The same with some fields of the bench changed, and nothing fitted or drawn yet."""
        had = {f.name: getattr(self.bench, f.name) for f in fields(Bench) if f.init}
        renamed = {"given": "base", "given_judge": "judge"}
        return TaskOnBase(**{renamed.get(name, name): value for name, value in had.items()} | changes)

    def measure(self, label, generator):
        return evidence.evidence_of(self, label, generator)

    def ceiling(self):
        return evidence.evidence_of_p(self)
