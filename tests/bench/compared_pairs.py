"""How often `alignbench compare` is right in a world of atoms: python tests/bench/compared_pairs.py [RUNS].

Two equal laws: the share of p-values <= 0.05 and their largest distance from uniform. Two laws that differ: how often
the 95 % interval of the paired difference covers the exact one.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from paired_world import PairedWorld, _atoms

from alignbench.registry import load_plugins
from alignbench.reports.compare.compared import differences
from alignbench.run.rows import RowKey, measure

KEY = RowKey("r", "t", 1, "h", "g", "i", "", "b", "b", "t", "", 0, 64, "", "")
NAMES = {"kl_target": "divergence.kl_target", "always": "satisfaction.always", "perplexity": "perplexity"}


def compared(a, b):
    """Name → difference of b less a."""
    asked = [(name, {}) for name in ("divergence", "satisfaction", "perplexity")]
    rows = [{row.name: row for row in measure(asked, KEY, e)} for e in (a, b)]
    found = {d.key: d for d in differences((a, rows[0]), (b, rows[1]), "prompts_given")}
    return {name: found[key] for name, key in NAMES.items()}


def main(runs):
    load_plugins()
    world = PairedWorld(generators=2)
    truth = world.truth()
    p, covered = ({name: [] for name in NAMES} for _ in range(2))
    for seed in range(runs):
        first, other = world.evidence(seed)
        rng = np.random.default_rng((seed, 5))
        ref = _atoms(world.a, np.random.default_rng((seed, 77)).random((2, 3, 64))[0])
        again = world._evidence(world.laws[0], _atoms(world.laws[0], rng.random((3, 64))), ref)
        for name, d in compared(first, again).items():
            p[name].append(1.0 if d.p_value is None else d.p_value)
        for name, d in compared(first, other).items():
            exact = truth[name][1] - truth[name][0]
            covered[name].append(d.difference.ci_low <= exact <= d.difference.ci_high)
    for name in NAMES:
        ordered = np.sort(p[name])
        gap = np.abs(ordered - np.arange(1, runs + 1) / runs).max()
        print(f"{name}: p <= 0.05 in {np.mean(ordered <= 0.05):.1%}, farthest from uniform {gap:.3f}; "
              f"covered {np.mean(covered[name]):.1%} of {runs}")  # fmt: skip


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300)
