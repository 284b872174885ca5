"""Coverage of what `compare` and ranks say of rows that select from one pool of draws, on exact worlds.

By hand: ``python tests/bench/pooled_differences.py [seeds [world …]]``; 300 seeds take some minutes a world. The truth
is a finite sum. `tests/reports/compare/test_pooled.py` runs few seeds of it.
"""

import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from pooled_world import BETTER, CAPPED, PooledWorld, compared, rows_of_evidence, table

from alignbench.stats.ranks import ranks, tied

FAST = ("satisfaction", "perplexity", "features", "acceptance")
WORLDS = {
    "hard": ({"soft": False}, 64, (*FAST, "divergence")),
    "soft": ({"soft": True}, 192, (*FAST, "divergence")),
    "few": ({"soft": True}, 24, FAST),
}
PAIRS = [
    *(("base", x) for x in ("best_of_n:n=4", "rejection", CAPPED, "sir:n=4", "quasi_rejection")),
    ("rejection", "best_of_n:n=4"), ("rejection", CAPPED), ("rejection", "sir:n=4"),
    ("rejection", "quasi_rejection"), ("sir:n=4", "best_of_n:n=4"),
]  # fmt: skip


def counts(world, truth, seed, each, metrics):
    """Yield (what, number, of whom, covered or a width) of one seed."""
    found = {n: (e, rows_of_evidence(n, e, each, metrics)) for n, e in world.evidence(seed, each).items()}
    for first, other, number, got in compared(found, [pair for pair in PAIRS if set(pair) <= set(found)]):
        if number not in truth[first] or number not in truth[other]:
            continue
        exact, who = truth[other][number] - truth[first][number], f"{other} − {first}"
        errors = [found[n][1][number].estimate.stderr for n in (first, other)]
        known = got.ci_low is not None
        yield "interval", number, who, known
        if known and got.stderr:
            yield "difference", number, who, got.ci_low <= exact <= got.ci_high
            if None not in errors:
                yield "width", number, who, got.stderr / np.hypot(*errors)
    for name, (_, rows) in found.items():
        for number, row in rows.items():
            e = row.estimate
            if number in truth[name] and e.ci_low is not None and e.stderr:
                yield "row", number, name, e.ci_low <= truth[name][number] <= e.ci_high
    yield from placed(found, truth)


def placed(found, truth):
    """Whether ranks hold the true ones, all at once, and the truly best is among those tied with the best."""
    for number, better in BETTER.items():
        rows = [name for name in found if number in truth[name] and number in found[name][1]]
        if len(rows) < 3:
            continue
        sign = 1 if better == "lower" else -1
        exact = sign * np.array([truth[name][number] for name in rows])
        ahead = (exact[None, :] < exact[:, None] - 1e-12).sum(axis=1)
        behind = (exact[None, :] > exact[:, None] + 1e-12).sum(axis=1)
        numbers = table([found[name][1] for name in rows], number)
        known = ~np.isnan(numbers.values)
        if not known.all():
            continue
        limits = ranks(numbers)
        yield "ranks", number, "all", ((limits.low <= 1 + ahead) & (limits.high >= len(rows) - behind)).all()
        yield "best tied", number, "all", tied(numbers)[ahead == 0].all()


def main(seeds, names):
    for title in names:
        options, each, metrics = WORLDS[title]
        with tempfile.TemporaryDirectory() as folder:
            world = PooledWorld(Path(folder), **options)
        truth, told = world.truth(), defaultdict(list)
        for seed in range(seeds):
            for *what, value in counts(world, truth, seed, each, metrics):
                told[tuple(what)].append(value)
        for (what, number, who), values in sorted(told.items()):
            print(f"{title:5} {what:10} {number:26} {who:34} {np.mean(values):.3f} of {len(values)}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300, sys.argv[2:] or WORLDS)
