"""A world of atoms whose generators share reference draws and uniforms, with the exact value of what is compared."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np

from alignbench import metrics
from alignbench.metrics import distance
from alignbench.metrics.replicates import Measured, replicates, spelled
from alignbench.registry import metric
from alignbench.run.rows import RowKey, measure
from alignbench.stats import discrete, divergences
from alignbench.types import Draws, Estimate, Evidence, Fit, Scored, Wanted

ALONE = "kl_target_alone"
ASKED = {"kl_target": (ALONE, ""), "always": ("satisfaction", "always"), "perplexity": ("perplexity", "")}
BETTER = {"kl_target": "lower", "always": "higher", "perplexity": "lower"}


@contextmanager
def kl_alone():
    """KL(p‖π) as `divergence` has it, without the other parts: a tenth of the time."""

    @metric(ALONE, better="lower")
    def alone(evidence: Evidence) -> Estimate:
        return divergences.kl_target(distance._sample(evidence, evidence.ref))

    try:
        yield
    finally:
        del metric.entries[ALONE]


class PairedWorld:
    """C prompts × K atoms: base a, of which the target keeps a part and tilts it, and m generators near the base."""

    def __init__(self, seed=0, *, prompts=3, atoms=30, generators=4, tilt=0.5, noise=0.3):
        rng = np.random.default_rng(seed)
        self.a = rng.dirichlet(np.ones(atoms), size=prompts)
        self.allowed = rng.random((prompts, atoms)) < 0.6
        self.P = self.a * self.allowed * np.exp(tilt * rng.random((prompts, atoms)))
        self.length = rng.integers(2, 9, (prompts, atoms))
        toward = np.linspace(0, 1, generators)[:, None, None] * 0.5 * self.allowed
        self.laws = discrete.normalised(np.log(self.a) + toward + noise * rng.normal(size=(generators, 1, atoms)))

    @property
    def p(self):
        return self.P / self.P.sum(axis=1, keepdims=True)

    def truth(self):
        """What each generator's numbers are, by name: (m,)."""
        nats, tokens = ((self.laws * each).sum(axis=2).mean(axis=1) for each in (-np.log(self.a), self.length))
        return {
            "kl_target": np.array([discrete.kl(self.p, law).mean() for law in self.laws]),
            "always": (self.laws * self.allowed).sum(axis=2).mean(axis=1),
            "perplexity": np.exp(nats / tokens),
        }

    def evidence(self, seed, each=64):
        """The evidence of each generator: shared reference draws, and one uniform for draw i of a prompt for all."""
        rng = np.random.default_rng((seed, 77))
        prompts = len(self.a)
        reference, own = rng.random((2, prompts, each))
        ref = _atoms(self.a, reference)
        return [self._evidence(law, _atoms(law, own), ref) for law in self.laws]

    def _evidence(self, law, own, ref):
        fit = Fit((Wanted("kept", "always"),), np.zeros((1, 0)), np.zeros((1, 0)))
        names = [f"prompt {c}" for c in range(len(self.a))]
        return Evidence(own=self._scored(law, own), ref=self._scored(law, ref), fit=fit, prompts=names, base="b")

    def _scored(self, law, atom):
        where = np.indices(atom.shape)[0].ravel(), atom.ravel()
        rows = np.stack([where[0], np.tile(np.arange(atom.shape[1]), len(atom))], axis=1)
        draws = Draws.from_texts(rows, [f"atom {k}" for k in where[1]])
        object.__setattr__(draws, "length", self.length[where])
        with np.errstate(divide="ignore"):
            base, target, gen = (np.log(x)[where] for x in (self.a, self.P, law))
        return Scored(draws, {"kept": self.allowed[where].astype(float)}, base, target, gen, base)


def _atoms(law, uniforms):
    """(C, n) the atom at each uniform."""
    return np.stack([np.searchsorted(np.cumsum(q), u).clip(max=q.size - 1) for q, u in zip(law, uniforms, strict=True)])


def records(evidences, name, ci_over="prompts_given", **more):
    """The row of each generator for the number `name` of `ASKED`."""
    return [_record(e, *ASKED[name], ci_over) | more for e in evidences]


def equal_rows(generators, prompts, rng):
    """Rows of generators that are equal over all prompts, as evaluation on a few prompts gives them for others."""
    x = rng.normal(size=(generators, prompts))  # each prompt's mean
    key = RowKey("r", "t", 1, "t", "g", "", "", "b", "b", "t", "", 0, 1, "", f"prompts:{prompts}", "prompts_like_these")
    draws = Draws.from_texts(np.stack([np.arange(prompts), np.zeros(prompts, int)], axis=1), ["text"] * prompts)
    fit, names = Fit((), np.zeros((1, 0)), np.zeros((1, 0))), [f"prompt {c}" for c in range(prompts)]
    of_each = (Scored(draws, {"x": values}, *[None] * 4) for values in x)
    evidences = [Evidence(own=own, ref=own, fit=fit, prompts=names) for own in of_each]
    return [measure([("features", {})], key, e)[0].flat() for e in evidences]


def _record(evidence, name, part, ci_over):
    told = Measured(name, {}, metrics.measure(name, evidence))
    found = told.numbers[part]
    left = replicates([told], evidence, ci_over)[0].get(part, ())
    return {
        "task_hash": "t", "base_id": "b", "judge": "", "target_id": "t", "seed": 0, "draws": 64, "ci_over": ci_over,
        "value": found.value, "stderr": found.stderr, "ci_low": found.ci_low, "ci_high": found.ci_high, "n": found.n,
        "replicates": spelled(left),
    }  # fmt: skip
