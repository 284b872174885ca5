"""How CPU seconds and peak memory grow with the rows of a leaderboard, and with the draws of its cells.

    python tests/bench/leaderboard_growth.py [--tasks 1 10 100] [--draws 1000 10000]

Rows: a CSV of `tasks` × 50 generators × 5 seeds × 40 numbers is gathered and arranged into tables. Draws: the metrics
of one task of an exact world, on `draws` draws a prompt of each of its generators, from stored evidence. Each size is a
process of its own; `above` is its peak memory above that of the smallest size, in which the imports are most of it.
"""

import argparse
import csv
import json
import resource
import subprocess
import sys
import tempfile
import time
from math import log
from pathlib import Path

GENERATORS, SEEDS, METRICS = 50, 5, 40
ROWS_A_TASK = GENERATORS * SEEDS * METRICS
MIB = 2**20


def write_rows(path, tasks):
    """The CSV, a row at a time."""
    import random

    from alignbench.reports.rows import COLUMNS

    rng = random.Random(0)
    with path.open("w", newline="") as file:
        out = csv.DictWriter(file, [*COLUMNS, "replicates"], restval="")
        out.writeheader()
        for task in range(tasks):
            for g in range(GENERATORS):
                for seed in range(SEEDS):
                    out.writerows(unit(rng, f"task_{task}", g, seed))


def unit(rng, task, g, seed):
    """The rows of one generator on one task and seed."""
    shared = {
        "run_id": f"{task}{g}{seed}", "task": task, "task_version": 1, "task_hash": f"{task:0<64}", "base": "a base",
        "generator": "a base", "aligner": f"temperature:t=0.{g:02d}", "generator_id": f"{g + 0xABCDEF00:08x}",
        "base_id": "ba5eba5e", "target_id": f"{seed + 0xABCDEF00:08x}", "n": 512, "better": "lower", "seed": seed,
        "draws": 128, "signature": f"alignbench|task:{task}.v1#01234567|base:a base#ba5eba5e|draws:128|seed:{seed}",
        "measured": f"2026-01-02T03:{seed:02d}:{g:02d}+00:00", "seconds": 1.5, "ci_over": "prompts_given",
        "note": "judge: the base model itself",
    }  # fmt: skip
    for m in range(METRICS):
        value = rng.gauss(g / 10, 0.1)
        part = "kl_target" if m == 0 else f"part_{m}"
        apart = " ".join(f"{value + rng.gauss(0, 0.01):.8g}" for _ in range(20)) if m < 10 else ""
        yield shared | {"metric": "divergence" if m < 10 else "detail", "part": part, "value": value, "stderr": 0.1,
                        "ci_low": value - 0.2, "ci_high": value + 0.2, "replicates": apart}  # fmt: skip


def tables(path):
    """Seconds of gathering and of arranging."""
    from alignbench.registry import load_plugins
    from alignbench.reports.gather import gather
    from alignbench.reports.table.leaderboards import leaderboard

    load_plugins()
    began = time.process_time()
    found = gather([path])
    read = time.process_time()
    board = leaderboard(found.rows, primary=found.primary)
    return {"gather": read - began, "tables": time.process_time() - read, "of": f"{len(board)} tables"}


def stored(folder, draws):
    """Seconds of every metric on stored evidence; it is made before, in a process of its own."""
    from alignbench.registry import load_plugins
    from alignbench.run.rescore import rescore

    load_plugins()
    began = time.process_time()
    found = rescore(folder)
    return {"metrics": time.process_time() - began, "of": f"{len(found.rows)} rows"}


def child(kind, where, size):
    """One size, in a process of its own: seconds by step and peak bytes."""
    done = subprocess.run(
        [sys.executable, __file__, "--child", kind, str(where), str(size)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def show(name, sizes, found):
    """A line a size, and the exponent of each step between the smallest and the largest."""
    steps = [step for step in found[0] if step not in ("of", "peak")]
    print(f"\n{name:>10}  " + "  ".join(f"{step:>9}" for step in (*steps, "peak MiB", "above")) + "  ")
    for size, one in zip(sizes, found, strict=True):
        cells = [*(f"{one[step]:9.2f}" for step in steps), f"{one['peak'] / MIB:9.0f}",
                 f"{(one['peak'] - found[0]['peak']) / MIB:9.0f}"]  # fmt: skip
        print(f"{size:>10}  " + "  ".join(cells) + f"  {one['of']}", flush=True)
    for step in steps if len(sizes) > 1 else ():
        slope = log(found[-1][step] / found[0][step]) / log(sizes[-1] / sizes[0])
        print(f"{step}: exponent {slope:.2f}")


def main():
    if sys.argv[1:2] == ["--child"]:
        kind, where, size = sys.argv[2:]
        told = tables(Path(where)) if kind == "rows" else stored(Path(where), int(size))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        print(json.dumps(told | {"peak": peak}))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, nargs="*", default=[1, 10, 100])
    parser.add_argument("--draws", type=int, nargs="*", default=[1000, 10000])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        found = []
        for tasks in args.tasks:
            path = Path(scratch) / f"{tasks}.csv"
            write_rows(path, tasks)
            found.append(child("rows", path, tasks))
        if found:
            show("rows", [tasks * ROWS_A_TASK for tasks in args.tasks], found)
        found = []
        for draws in args.draws:
            folder = Path(scratch) / f"draws-{draws}"
            words = (
                "run",
                "--tasks",
                "exact_ngram",
                "--aligner",
                "temperature:t=0.7",
                "--draws",
                draws,
                "--output_path",
            )
            subprocess.run([sys.executable, "-m", "alignbench", *map(str, words), str(folder)],
                           stdout=subprocess.DEVNULL, check=True)  # fmt: skip
            found.append(child("draws", folder, draws))
        if found:
            show("draws", args.draws, found)


if __name__ == "__main__":
    main()
