"""Coverage of asked gap and collateral: world × draws a prompt: printed, of these covered; limits, of these held.

By hand: ``python tests/bench/asked_gap.py [seeds [processes]]``; 2,000 seeds take half an hour of one core. The worlds
are those of `tests/stats/test_asked_gap.py`, and one whose prompts keep shares of 0.08 and 0.8: the truth is a sum.
Where cells are joined, the asked gap is told at least and the collateral at most, and so they are judged.
"""

import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "stats"))

from test_asked_gap import QUANTITIES, WORLDS, apart, world

from alignbench.stats.asked import AT_LEAST, AT_MOST, ON_CELLS

SIZES = (32, 64, 128, 256, 512, 1024)


def here(name, size):
    """A world with as many draws of base and of π a prompt."""
    return replace(apart() if name == "shares ten times apart" else world(name), sizes=(size, size))


def judged(estimate, truth):
    """Whether an estimate is of all cells (1), a limit (2) or nothing (0), and whether it holds the truth."""
    low, high = estimate.ci_low, estimate.ci_high
    if (low is None and high is None) or ON_CELLS in estimate.note:
        return 0, False
    if AT_LEAST in estimate.note:
        return 2, low is None or low <= truth
    if AT_MOST in estimate.note:
        return 2, high is None or truth <= high
    return (1 if estimate.value is not None else 2), (low is None or low <= truth) and (high is None or truth <= high)


def row(name, size, seeds):
    """Quantity → how often an interval is printed and holds, and how often a limit is."""
    told = [here(name, size).told(seed)[0] for seed in range(seeds)]
    found = {}
    for quantity, truth in here(name, size).truth.items():
        kinds = np.array([judged(one[quantity], truth) for one in told])
        found[quantity] = [x for k in (1, 2) for x in _shares(kinds, k)]
    return found


def _shares(kinds, kind):
    mine = kinds[kinds[:, 0] == kind, 1]
    return 100 * mine.size / len(kinds), 100 * mine.mean() if mine.size else np.nan


def main(seeds=2000, processes=1):
    cases = [(name, size) for name in (*WORLDS, "shares ten times apart") for size in SIZES]
    print(f"{seeds} seeds; interval printed % / covered % · limit printed % / held %")
    print("| world | draws a prompt | " + " | ".join(QUANTITIES) + " |\n|---|---|" + "---|" * len(QUANTITIES))
    with ProcessPoolExecutor(processes) as pool:
        for case, found in zip(cases, pool.map(partial(_of, seeds=seeds), cases), strict=True):
            cells = ("{:.0f} / {:.1f} · {:.0f} / {:.1f}".format(*one) for one in found.values())
            print("| {} | {} | {} |".format(*case, " | ".join(cells)), flush=True)


def _of(case, seeds):
    return row(*case, seeds)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
