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

from alignbench.reports.compare import compared as told_by_compare
from alignbench.stats.ranks import ranks, tied

METRICS = ("satisfaction", "perplexity", "features", "acceptance")
NOT_P = ("base", "best_of_n:n=4", "quasi_rejection")  # whose KL(p‖π) is not 0 by construction, nor a bound
WORLDS = {
    "hard": (False, 64, (), METRICS), "soft": (True, 192, (), METRICS), "few": (True, 24, (), METRICS),
    "hard kl": (False, 64, NOT_P[:2], ("divergence",)), "soft kl": (True, 192, NOT_P, ("divergence",)),
}  # fmt: skip
"""Whether the target tilts, draws a prompt, which rows (none: all), and which metrics; divergences take long."""
PAIRS = [
    *(("base", x) for x in ("best_of_n:n=4", "rejection", CAPPED, "sir:n=4", "quasi_rejection")),
    ("rejection", "best_of_n:n=4"), ("rejection", CAPPED), ("rejection", "sir:n=4"),
    ("rejection", "quasi_rejection"), ("sir:n=4", "best_of_n:n=4"),
]  # fmt: skip


def counts(world, truth, seed, each, names, metrics):
    """Yield (what, number, of whom, covered or a width) of one seed."""
    evidence = world.evidence(seed, each, names)
    found = {name: (e, rows_of_evidence(name, e, each, metrics)) for name, e in evidence.items()}
    for first, other, number, got in compared(found, [pair for pair in PAIRS if set(pair) <= set(found)]):
        if any(number not in truth[n] or number not in found[n][1] for n in (first, other)):
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
        yield "best tied", number, "all", tied(numbers)[ahead == 0].mean()


def main(seeds, names):
    told_by_compare.permuted = told_by_compare.sign_flips = lambda *given: 1.0  # p-values take long and are not asked
    for title in names:
        soft, *asked = WORLDS[title]
        with tempfile.TemporaryDirectory() as folder:
            world = PooledWorld(Path(folder), soft=soft)
        truth, told = world.truth(), defaultdict(list)
        for seed in range(seeds):
            for *what, value in counts(world, truth, seed, *asked):
                told[tuple(what)].append(value)
            if seed + 1 in (seeds, *range(0, seeds, 100)):
                show(title, seed + 1, told)


def show(title, seeds, told):
    for (what, number, who), values in sorted(told.items()):
        print(f"{title:7} {seeds:4} {what:10} {number:26} {who:34} {np.mean(values):.3f} of {len(values)}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300, sys.argv[2:] or WORLDS)
