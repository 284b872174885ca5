"""Coverage of the 95 % intervals on exact worlds: quantity × world: covered, refused, printed and wrong, width.

By hand: ``python tests/bench/interval_coverage.py [seeds]``; 2,000 seeds take some minutes.
`tests/stats/test_coverage.py` runs few seeds of it. An interval counts whether its value is printed or
withheld (a bound): gates must not be what covers.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "stats"))

from paired_world import equal_rows
from scipy.stats import norm, poisson
from stats_worlds import MILD, STEEP, World, mixed

from alignbench.reports.table.pairs import difference
from alignbench.stats import discrete, quasi, resampled, selection
from alignbench.stats import divergences as d
from alignbench.stats import overlap as o
from alignbench.stats.intervals import mean_over_prompts, normal, share
from alignbench.stats.moments import fit_lambda, tilted_moments, with_lambda_error
from alignbench.types import Selection

BEST = Selection("best", 4)
EACH = 128
WORLDS = {
    "boolean .1/.4": lambda: World(seed=11, prompts=2, shares=(0.1, 0.4), obeys=True),
    "tilted": lambda: World(seed=3, tilt=1.5),
    "hard, tilted": lambda: World(seed=2, shares=(0.4, 0.6), tilt=0.7, obeys=True),
    "Z 10 times apart": lambda: World(seed=12, prompts=2, atoms=200, shares=(0.6, 0.06), obeys=True),
    "16 prompts": lambda: World(seed=13, prompts=16, shares=(0.2, 0.1, 0.5), obeys=True),
}


class Bench:
    """A world with the truth of everything that is estimated on it."""

    def __init__(self, world):
        self.world, rng = world, np.random.default_rng(0)
        self.phi = rng.integers(0, 2, world.a.shape).astype(float)
        self.rb = None if world.a.shape[1] % 5 or (world.g == 0).any() else world.rao_blackwell()
        own = world.truth()
        best = world.truth(world.selected(BEST))
        best = {f"best-of-4 {part}": value for part, value in best.items()}
        self.truth = (
            own
            | best
            | {
                "kl_base k1": own["kl_base"],
                "acceptance": float(np.where(world.r > -np.inf, world.a, 0).sum(axis=1).mean()),
                "entropy": float(
                    -np.where(world.g > 0, world.g * np.log(np.where(world.g > 0, world.g, 1)), 0).sum(axis=1).mean()
                ),
                "E_p moment": float((world.p * self.phi).sum(axis=1).mean()),
            }
        )

    def measure(self, seed):
        """Every estimate, by name, from fresh draws."""
        world, rng = self.world, np.random.default_rng(seed)
        where_ref, where_own = world.atoms(world.a, EACH, rng), world.atoms(world.g, EACH, rng)
        ref, own = world.sample(*where_ref), world.sample(*where_own)
        k1 = own.log_gen - own.log_base
        rb = None if self.rb is None else self.rb[where_own]
        best = selection.divergences(ref.prompt, ref.ratio, BEST)
        return {
            "log_z": d.log_z_of(ref), "kl_target": d.kl_target(ref), "kl_target_within": d.kl_target_within(own, ref),
            "kl_reverse": d.kl_reverse(own, ref), "kl_reverse_within": d.kl_reverse_within(own, ref),
            "kl_base": d.kl_base(own.prompt, k1, rb), "kl_base k1": d.kl_base(own.prompt, k1),
            "tv": o.tv(own, ref), "js": o.js(own, ref), "acceptance": share(ref.prompt, ref.allowed),
            "entropy": mean_over_prompts(own.prompt, -own.log_gen),
            "E_p moment": tilted_moments(self.phi[where_ref][:, None], ref.ratio, ref.prompt, ["m"])["m"],
            **{f"best-of-4 {part}": best[part] for part in selection.PARTS},
        }  # fmt: skip


class Fitted:
    """Two prompts, a hard constraint and a boolean moment that λ̂ is fitted to; the truth is p at λ*, not at λ̂."""

    parts = ("lambda", "log_z at λ*", "kl_target at λ*", "kl_reverse at λ*", "tv at λ*", "js at λ*")

    def __init__(self):
        self.world, rng = World(seed=14, prompts=2, shares=(0.6, 0.8), obeys=True), np.random.default_rng(1)
        self.phi = rng.integers(0, 2, self.world.a.shape) - 0.7
        self.hard = self.world.r.copy()
        prompt, atom = (x.ravel() for x in np.indices(self.world.a.shape))
        logs = np.log(self.world.a[prompt, atom]) + self.hard[prompt, atom]
        self.lam = fit_lambda(self.phi[prompt, atom][:, None], logs, prompt)[0][0, 0]
        self.truth = {"lambda": self.lam} | {f"{k} at λ*": v for k, v in self.at(self.lam).truth().items()}

    def at(self, lam):
        self.world.r = self.hard + lam * self.phi
        self.world.P = self.world.a * np.exp(self.world.r)
        return self.world

    def measure(self, seed):
        world, rng = self.world, np.random.default_rng(seed)
        fit = world.atoms(world.a, 2 * EACH, rng)
        lam, error = fit_lambda(self.phi[fit][:, None], self.hard[fit], fit[0])
        where_ref, where_own = world.atoms(world.a, EACH, rng), world.atoms(world.g, EACH, rng)

        def both(shift):
            at = self.at(lam[0, 0] + shift[0, 0])
            return at.sample(*where_own), at.sample(*where_ref)

        forms = {
            "log_z": lambda own, ref: d.log_z_of(ref), "kl_target": lambda own, ref: d.kl_target(ref),
            "kl_reverse": d.kl_reverse, "js": o.js, "tv": o.tv,
        }  # fmt: skip
        return {"lambda": normal(lam[0, 0], error[0, 0] ** 2, n=4 * EACH)} | {
            f"{name} at λ*": estimate
            for name, estimate in with_lambda_error(
                lambda shift: {name: form(*both(shift)) for name, form in forms.items()}, error
            ).items()
        }


class Ranked:
    """Best-of-4 by continuous (Gaussian) scores r on two prompts; truth by quadrature over the base's distribution."""

    scales = (0.4, 0.8)

    def __init__(self):
        x = np.linspace(-9, 9, 100_001)
        a = norm.pdf(x) * (x[1] - x[0])
        pi = a * 4 * norm.cdf(x) ** 3
        laws = [(a * np.exp(s * x - s * s / 2), pi) for s in self.scales]
        exact = {"kl_target": lambda p, g: discrete.kl(p, g), "kl_reverse": lambda p, g: discrete.kl(g, p),
                 "tv": discrete.tv, "js": discrete.js}  # fmt: skip
        self.truth = {f"ranked {k}": float(np.mean([f(*both) for both in laws])) for k, f in exact.items()}

    def measure(self, seed):
        prompt = np.repeat([0, 1], EACH)
        r = np.random.default_rng(seed).normal(size=2 * EACH) * np.array(self.scales)[prompt]
        found = selection.divergences(prompt, r, BEST)
        return {name: found[name.split()[1]] for name in self.truth}


class Quasi:
    """Quasi-rejection from Poisson(10) towards Poisson(11), times 3: β = 3."""

    def __init__(self):
        x = np.arange(60)
        self.q, self.w = poisson.pmf(x, 10), poisson.pmf(x, 11) / poisson.pmf(x, 10)
        self.truth = {f"quasi {k}": v for k, v in zip(quasi.PARTS, quasi.exact(self.w, 1.0, self.q), strict=True)}

    def measure(self, seed):
        x = np.random.default_rng(seed).choice(60, 8 * EACH, p=self.q / self.q.sum())
        found = quasi.quasi_rejection(np.zeros(8 * EACH, int), np.log(3 * self.w[x]), 3.0)
        return {f"quasi {k}": v for k, v in found.items()}


class Resampled:
    """One of 8 draws by its weight: two prompts, 10 and 30 % of whose draws have none, else r is uniform."""

    prompts = ((0.1, 2.0), (0.3, 3.0))

    def __init__(self):
        laws, x = [], (np.arange(2000) + 0.5) / 2000
        for lost, top in self.prompts:
            a, r = np.append(np.full(2000, (1 - lost) / 2000), lost), np.append(top * x, -np.inf)
            laws.append((a, discrete.normalised(np.log(a) + r), resampled.law(a, r, 8)))
        exact = {"kl_target": lambda a, p, pi: discrete.kl(p, pi), "kl_reverse": lambda a, p, pi: discrete.kl(pi, p),
                 "tv": lambda a, p, pi: discrete.tv(p, pi), "js": lambda a, p, pi: discrete.js(p, pi),
                 "kl_base": lambda a, p, pi: discrete.kl(pi, a)}  # fmt: skip
        self.truth = {f"SIR of 8 {k}": float(np.mean([f(*law) for law in laws])) for k, f in exact.items()}

    def measure(self, seed):
        rng, prompt = np.random.default_rng(seed), np.repeat([0, 1], EACH)
        lost, top = np.array(self.prompts)[prompt].T
        r = np.where(rng.random(2 * EACH) < lost, -np.inf, top * rng.random(2 * EACH))
        found = {f"SIR of 8 {k}": v for k, v in resampled.divergences(prompt, r, 8).items()}
        return {name: v for name, v in found.items() if name in self.truth}


class Rare:
    """A target that keeps 1 % of the base, seen by half base draws and half draws of a generator near it."""

    def __init__(self):
        self.world = World(seed=15, prompts=2, atoms=200, shares=(0.01, 0.02))
        self.near = discrete.normalised(np.log(self.world.p + 0.5 * self.world.a))
        self.world.g = discrete.normalised(np.log(self.world.p + 0.2 * self.world.a))
        truth = self.world.truth()
        self.truth = {f"mixture {k}": truth[k] for k in ("log_z", "kl_target", "kl_reverse_within", "tv", "js")}

    def measure(self, seed):
        world, rng = self.world, np.random.default_rng(seed)
        places = [world.atoms(law, EACH, rng) for law in (world.a, self.near)]
        logs = [np.log(np.stack([world.a[at], self.near[at]], axis=1)) for at in places]
        ref, own = mixed([world.sample(*at) for at in places], logs), world.draw(world.g, EACH, rng)
        return {
            "mixture log_z": d.log_z_of(ref), "mixture kl_target": d.kl_target(ref), "mixture tv": o.tv(own, ref),
            "mixture kl_reverse_within": d.kl_reverse_within(own, ref), "mixture js": o.js(own, ref),
        }  # fmt: skip


class Rewards:
    """Rewards on an unbounded count: mild, and so steep that p sits on counts that 300 draws hardly see."""

    def __init__(self):
        self.worlds, self.truth = {"mild": (MILD, 2), "steep": (STEEP, 1)}, {}
        for name, (world, _) in self.worlds.items():
            laws = {"kl_target": world.gen, "kl_target of base": world.base}
            self.truth |= {f"{name} counts {part}": float(discrete.kl(world.p, law)) for part, law in laws.items()}
            self.truth[f"{name} counts log_z"] = world.log_z

    def measure(self, seed):
        found = {}
        for name, (world, prompts) in self.worlds.items():
            ref = world.sample(seed, 300, prompts)
            of_base = selection.divergences(ref.prompt, ref.ratio, Selection("best", 1))["kl_target"]
            parts = {"log_z": d.log_z_of(ref), "kl_target": d.kl_target(ref), "kl_target of base": of_base}
            found |= {f"{name} counts {part}": e for part, e in parts.items()}
        return found


class Strangers:
    """A target that keeps 0.4 % of the base, and proposals that know nothing of it: the base at temperature 2.5."""

    sizes = (300, 600, 1500)

    def __init__(self):
        self.world = World(seed=16, prompts=2, atoms=600, shares=(0.004,))
        self.other = discrete.normalised(np.log(self.world.a) / 2.5)
        self.world.g = discrete.normalised(np.log(self.world.p + 0.2 * self.world.a))
        truth = self.world.truth()
        self.truth = {f"strangers {k} at {n}": truth[k] for k in ("log_z", "kl_target") for n in self.sizes}

    def measure(self, seed):
        found, rng = {}, np.random.default_rng(seed)
        for n in self.sizes:
            places = [self.world.atoms(law, n // 2, rng) for law in (self.world.a, self.other)]
            logs = [np.log(np.stack([self.world.a[at], self.other[at]], axis=1)) for at in places]
            ref = mixed([self.world.sample(*at) for at in places], logs)
            found |= {f"strangers log_z at {n}": d.log_z_of(ref), f"strangers kl_target at {n}": d.kl_target(ref)}
        return found


class FewPrompts:
    """Two generators that are equal over all prompts, beside each other on 2, 3 and 4 of them: paired, and not."""

    def __init__(self):
        self.truth = {f"difference over {c} prompts{how}": 0.0 for c in (2, 3, 4) for how in ("", ", unpaired")}

    def measure(self, seed):
        found = {}
        for c in (2, 3, 4):
            first, second = equal_rows(2, c, np.random.default_rng((seed, c)))
            found[f"difference over {c} prompts"] = difference(first, second)
            found[f"difference over {c} prompts, unpaired"] = difference(first, second | {"replicates": ""})
        return found


class Weights:
    """Quasi-rejection by three weights, where KL(π‖p) turns in the share of the largest."""

    w, q, beta = np.array([1.0, 1.19, 3.34]), np.array([0.108, 0.415, 0.477]), 1.28

    def __init__(self):
        self.truth = {
            f"3 weights {k}": v for k, v in zip(quasi.PARTS, quasi.exact(self.w, self.beta, self.q), strict=True)
        }

    def measure(self, seed):
        r = np.log(self.w[np.random.default_rng(seed).choice(3, 2 * EACH, p=self.q)])
        found = quasi.quasi_rejection(np.zeros(r.size, int), r, self.beta)
        return {f"3 weights {k}": v for k, v in found.items()}


class Cells:
    """Closed forms of five cells: the base near the gate of 50, and best-of-4 by ranks of which the lowest is rare."""

    def __init__(self):
        self.truth, gate, rank = {}, [0.661, 0.268, 0.033, 0.026, 0.012], [0.005, 0.2, 0.3, 0.3, 0.195]
        self.laws = {
            "near gate": (np.array(gate), 0.53 * np.arange(5), 3, Selection("best", 1)),
            "rare rank": (np.array(rank), np.log([2.0, 1, 1.35, 1.22, 1.1]), 2, BEST),
        }
        for name, (base, r, _, law) in self.laws.items():
            p, pi = discrete.normalised(np.log(base) + r), selection.selected(base, np.arange(5), law)
            on = selection.Laws(base, p, pi, pi)
            self.truth |= {f"{name} {part}": float(form(on)) for part, form in selection.FORMS.items()}

    def measure(self, seed):
        found = {}
        for name, (base, r, prompts, law) in self.laws.items():
            atom = np.random.default_rng(seed).choice(5, EACH * prompts, p=base)
            prompt = np.repeat(np.arange(prompts), EACH)
            parts = selection.divergences(prompt, r[atom], law, None, atom if name == "rare rank" else None)
            found |= {f"{name} {part}": e for part, e in parts.items()}
        return found


class Near:
    """A law 5 % from p, whose TV and JS plain limits take below 0; and 32 own draws in all of eight prompts."""

    def __init__(self):
        self.world = World(seed=6, prompts=2, tilt=0.5)
        noise = np.random.default_rng(0).normal(size=self.world.p.shape)
        self.world.g = discrete.normalised(np.log(self.world.p) + 0.05 * noise)
        self.few = World(seed=6, prompts=8, noise=1.2)
        self.rb, near = self.few.rao_blackwell(), self.world.truth()
        self.truth = {"near p tv": near["tv"], "near p js": near["js"], "32 draws kl_base": self.few.truth()["kl_base"]}

    def measure(self, seed):
        rng = np.random.default_rng(seed)
        ref, own = self.world.draw(self.world.a, EACH, rng), self.world.draw(self.world.g, EACH, rng)
        where = self.few.atoms(self.few.g, 4, rng)
        few = self.few.sample(*where)
        kl_base = d.kl_base(few.prompt, few.log_gen - few.log_base, self.rb[where])
        return {"near p tv": o.tv(own, ref), "near p js": o.js(own, ref), "32 draws kl_base": kl_base}


class Tally:
    """Counts of what covered, what was printed, and how wide it was."""

    def __init__(self):
        self.seeds = self.printed = self.intervals = self.covered = self.covered_printed = 0
        self.width = 0.0

    def add(self, estimate, truth):
        self.seeds += 1
        low, high = estimate.ci_low, estimate.ci_high
        if low is None and high is None:
            return
        low, high = -np.inf if low is None else low, np.inf if high is None else high
        held = low - 1e-9 <= truth <= high + 1e-9
        self.intervals += 1
        self.covered += held
        if estimate.value is not None and np.isfinite(estimate.value):
            self.printed += 1
            self.covered_printed += held
            self.width += high - low

    def __str__(self):
        if not self.intervals:
            return "refused"
        width = f"{self.width / self.printed:.3g}" if self.printed else "—"
        refused, wrong = 1 - self.printed / self.seeds, (self.printed - self.covered_printed) / self.seeds
        return f"{100 * self.covered / self.intervals:.1f} {100 * refused:.0f} {100 * wrong:.1f} {width}"


OTHERS = {
    "counts": Rewards, "strangers": Strangers,
    "λ fitted": Fitted, "continuous": Ranked, "Poisson": Quasi, "resampled": Resampled, "rare": Rare,
    "few prompts": FewPrompts, "three weights": Weights, "cells": Cells, "near p": Near,
}  # fmt: skip


def tabulate(worlds, seeds):
    """{world: {quantity: Tally}}; quantities that are exact by construction or infinite are left out."""
    answer = {}
    for name in worlds:
        bench, tallies = (OTHERS[name]() if name in OTHERS else Bench(WORLDS[name]())), {}
        for seed in range(seeds):
            for part, estimate in bench.measure(seed).items():
                if np.isfinite(bench.truth[part]) and "by construction" not in estimate.note:
                    tallies.setdefault(part, Tally()).add(estimate, bench.truth[part])
        answer[name] = tallies
    return answer


def main():
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    names = sys.argv[2:] or [*WORLDS, *OTHERS]
    table = tabulate(names, seeds)
    print(f"{seeds} seeds, {EACH} draws a prompt; each cell: covered %, refused %, printed and wrong %, mean width")
    print("| quantity | " + " | ".join(names) + " |")
    print("|---" * (len(names) + 1) + "|")
    for part in dict.fromkeys(part for tallies in table.values() for part in tallies):
        print(f"| {part} | " + " | ".join(str(table[n].get(part, "·")) for n in names) + " |")


if __name__ == "__main__":
    main()
