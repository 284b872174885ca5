"""Small worlds of atoms in which every divergence is a finite sum: the truth that the estimators must find."""

from __future__ import annotations

import numpy as np

from alignbench.stats import discrete
from alignbench.stats.divergences import Sample
from alignbench.stats.mixture import log_proposal
from alignbench.stats.selection import FORMS, selected
from alignbench.types import Selection


class World:
    """C prompts × K atoms: base a, unnormalised target P = a · exp(r), generator g."""

    def __init__(self, seed=0, prompts=3, atoms=30, *, shares=None, tilt=0.0, noise=0.6, obeys=False):
        """`shares`: what a hard constraint keeps of a, by prompt; `obeys`: g keeps the constraint too."""
        rng = np.random.default_rng(seed)
        self.a = rng.dirichlet(np.ones(atoms), size=prompts)
        self.r = tilt * rng.integers(0, 2, (prompts, atoms)).astype(float)
        for c in range(prompts if shares else 0):
            order = rng.permutation(atoms)
            kept = max(1, int(np.searchsorted(np.cumsum(self.a[c][order]), shares[c % len(shares)])))
            self.r[c, order[kept:]] = -np.inf
        self.P = self.a * np.exp(self.r)
        logs = np.log(self.a) + noise * rng.normal(size=self.a.shape)
        self.g = discrete.normalised(np.where(obeys & (self.r == -np.inf), -np.inf, logs))

    @property
    def z(self):
        return self.P.sum(axis=1)

    @property
    def p(self):
        return self.P / self.z[:, None]

    def inside(self, law):
        kept = np.where(self.r > -np.inf, law, 0.0)
        return kept / kept.sum(axis=1, keepdims=True)

    def truth(self, law=None):
        """Every divergence of `law` (default: the generator), mean over prompts."""
        law = self.g if law is None else law
        exact = {
            "kl_target": discrete.kl(self.p, law),
            "kl_target_vs_base": discrete.kl(self.p, law) - discrete.kl(self.p, self.a),
            "kl_target_within": discrete.kl(self.p, self.inside(law)),
            "kl_reverse": discrete.kl(law, self.p),
            "kl_reverse_within": discrete.kl(self.inside(law), self.p),
            "kl_base": discrete.kl(law, self.a),
            "tv": discrete.tv(self.p, law),
            "js": discrete.js(self.p, law),
            "log_z": np.log(self.z),
        }
        assert set(FORMS) <= set(exact)
        return {name: float(np.mean(value)) for name, value in exact.items()}

    def rao_blackwell(self, steps=5):
        """(C, K) Σ_t KL(g(·|x_<t)‖a(·|x_<t)) of an atom read as two tokens, `steps` first ones."""
        a, g = (law.reshape(len(law), steps, -1) for law in (self.a, self.g))
        first = discrete.kl(g.sum(axis=2), a.sum(axis=2))[:, None]
        then = discrete.kl(g / g.sum(axis=2, keepdims=True), a / a.sum(axis=2, keepdims=True))
        return np.repeat(first + then, a.shape[2], axis=1)

    def selected(self, selection: Selection):
        return np.stack([selected(a, r, selection) for a, r in zip(self.a, self.r, strict=True)])

    def atoms(self, law, each, rng):
        """(prompt, atom) of `each` draws a prompt."""
        return np.repeat(np.arange(len(law)), each), np.concatenate([rng.choice(q.size, each, p=q) for q in law])

    def draw(self, law, each, rng):
        return self.sample(*self.atoms(law, each, rng))

    def sample(self, prompt, atom):
        """What base, target and generator say of atoms."""
        with np.errstate(divide="ignore"):
            logs = (np.log(x)[prompt, atom] for x in (self.a, self.P, self.g))
            return Sample(prompt, *logs, bound=self.r.max(axis=1)[prompt])


def covered(estimate, truth):
    return estimate.ci_low - 1e-9 <= truth <= estimate.ci_high + 1e-9


def close(estimate, truth, errors=4.0):
    return abs(estimate.value - truth) <= errors * estimate.stderr + 1e-9


def mixed(parts, log_densities):
    """One Sample of the draws of several laws, the base's first, as the harness makes of a task's proposals."""
    component = np.repeat(np.arange(len(parts)), [np.size(p.prompt) for p in parts])
    joined = {
        f: np.concatenate([getattr(p, f) for p in parts]) for f in ("prompt", "log_base", "log_target", "log_gen")
    }
    proposal = log_proposal(joined["prompt"], component, np.concatenate(log_densities))
    of_base = np.bincount(joined["prompt"], component == 0) / np.bincount(joined["prompt"])
    bound = np.concatenate([p.bound for p in parts]) - np.log(of_base)[joined["prompt"]]
    return Sample(**joined, log_proposal=proposal, component=component, bound=bound)


class Counts:
    """A reward of k/β for k words; base and generator say k words with these probabilities, in every prompt."""

    def __init__(self, base, beta, gen=None):
        self.base, self.r = np.array(base) / np.sum(base), np.arange(len(base)) / beta
        self.gen = self.base if gen is None else np.array(gen) / np.sum(gen)
        self.p = discrete.normalised(np.log(self.base) + self.r)
        self.log_z = float(np.log(self.base @ np.exp(self.r)))

    def sample(self, seed, each, prompts=1):
        k = np.random.default_rng(seed).choice(self.base.size, each * prompts, p=self.base)
        logs = np.log(self.base[k])
        return Sample(np.repeat(np.arange(prompts), each), logs, logs + self.r[k], np.log(self.gen[k]))


STEEP = Counts([0.6, 0.3, 0.099, 0.0008, 0.0001], 0.3)  # p has half of its mass on what 300 draws see in 3 % of runs
MILD = Counts(0.3 ** np.arange(9) / np.cumprod([1.0, *range(1, 9)]), 2.0, 0.4 ** np.arange(9.0))
