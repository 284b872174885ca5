"""Paired differences on exact worlds: coverage, width beside that of unpaired ones, ties with the best, ranks.

By hand: ``python tests/bench/paired_differences.py [seeds]``; 400 seeds take some minutes. The truth is a finite sum.
`tests/reports/table/test_pairs.py` runs few seeds of it.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from paired_world import ASKED, BETTER, PairedWorld, kl_alone, records

from alignbench.reports.table.pairs import difference, numbers
from alignbench.stats.ranks import ranks, tied

WORLDS = {
    "4 generators, 3 × 64": ({"seed": 1}, 64),
    "4 near ones, 3 × 64": ({"seed": 2, "noise": 0.1}, 64),
    "12 generators, 4 × 128": ({"seed": 3, "prompts": 4, "generators": 12}, 128),
    "4 generators, 4 × 16": ({"seed": 4, "prompts": 4}, 16),
}


def counts(world, name, seed, each):
    """Of one seed: how often differences of all pairs are covered, paired and not, their widths, ties and ranks."""
    rows, truth = records(world.evidence(seed, each), name), world.truth()[name]
    told = {"paired": [], "unpaired": [], "ratio": []}
    for i in range(len(rows)):
        for j in range(i):
            exact, got = truth[i] - truth[j], difference(rows[i], rows[j])
            if got.ci_low is None:
                continue
            error = float(np.hypot(rows[i]["stderr"], rows[j]["stderr"]))
            told["paired"].append(got.ci_low <= exact <= got.ci_high)
            told["unpaired"].append(abs(got.value - exact) <= 1.96 * error)
            told["ratio"].append(got.stderr / error)
    table = numbers(rows, BETTER[name])
    sign = 1 if BETTER[name] == "lower" else -1
    true_rank = (sign * truth).argsort().argsort() + 1
    found = ranks(table)
    return {key: np.mean(v) for key, v in told.items()} | {
        "best tied": tied(table)[true_rank.argmin()], "tied": tied(table).sum(),
        "all ranks": ((found.low <= true_rank) & (true_rank <= found.high)).all(),
        "rank width": np.mean(found.high - found.low),
    }  # fmt: skip


def main(seeds):
    for title, (options, each) in WORLDS.items():
        world = PairedWorld(**options)
        for name in ASKED:
            runs = [counts(world, name, seed, each) for seed in range(seeds)]
            means = {key: np.mean([run[key] for run in runs]) for key in runs[0]}
            print(f"{title:24} {name:11}", " ".join(f"{key} {value:.3f}" for key, value in means.items()), flush=True)


if __name__ == "__main__":
    with kl_alone():
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 400)
