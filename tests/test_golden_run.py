"""The rows of a small run, as version 0.1 makes them: columns, words and numbers.

ALIGNBENCH_REGENERATE=1 pytest tests/test_golden_run.py rewrites tests/golden/run.csv; read the difference.
"""

from __future__ import annotations

import re

from golden_files import GOLDEN, check_csv, read_csv

WORDS = (
    "run --tasks exact_ngram,exact_reward --aligner rejection --aligner top_k:k=3 --aligner best_of_n:n=2 "
    "--aligner constant --draws 64 --seed 0,1 --output_path out"
)
EACH_RUN = ("run_id", "measured", "seconds", "digest")
"""Columns that differ from run to run; the digest is one of the whole row."""
MACHINE = re.compile(r"(?<=\|)(version|torch|transformers|machine):[^|]*")
"""Parts of a signature that say by what and on what it was measured."""
STOPWATCH = ("seconds", "tokens_per_second", "peak_memory_mb")
"""Parts of the metric `cost` that are measured on the machine; the others count tokens, calls and proposals."""
MEASURED = ("value", "stderr", "ci_low", "ci_high", "note", "seed_sd", "replicates")
"""Their columns; a mean over seeds says in its note whether the seeds differ."""
OF_LAMBDA = ("target_id", "generator_id")
"""Where λ is fitted its last bits depend on the machine, and so do these; which rows share one does not."""
FITTED = ("exact_ngram",)
MASK = "…"


def masked(rows):
    """The rows without what depends on the run or the machine; what is empty stays so."""
    known = {}
    for row in rows:
        row |= {name: MASK for name in EACH_RUN if row[name]}
        row["signature"] = MACHINE.sub(rf"\1:{MASK}", row["signature"])
        if row["metric"] == "cost" and row["part"] in STOPWATCH:
            row |= dict.fromkeys(MEASURED, MASK)
        if row["task"] in FITTED:
            row |= {name: f"id {known.setdefault(row[name], len(known))}" for name in OF_LAMBDA if row[name]}
    return rows


def test_the_rows_of_a_run(command, tmp_path):
    assert command(*WORDS.split()).code == 0
    columns, rows = read_csv((tmp_path / "out" / "leaderboard.csv").read_text(encoding="utf-8"))
    check_csv(GOLDEN / "run.csv", columns, masked(rows))
