"""An output folder that version 0.1 left: every later version reads it, and goes on from it.

tests/golden/results_v0_1/results is what two runs wrote (leaderboard.html, .json and .tex are left out: nothing reads
them), beside it the two tasks. They are never made anew. ALIGNBENCH_REGENERATE=1 pytest
tests/test_golden_results.py rewrites only leaderboard.csv, score.csv and comparison.json, which say what commands make
of the folder; read the difference.
"""

from __future__ import annotations

import json
import shutil

import pytest
from golden_files import GOLDEN, check_csv, check_json, read_csv

HERE = GOLDEN / "results_v0_1"
STORED = HERE / "results"


@pytest.fixture
def folder(command, tmp_path, as_shipped):
    """A copy of the folder and its tasks as the working folder."""
    shutil.copytree(STORED, tmp_path / "results")
    for task in HERE.glob("*.yaml"):
        shutil.copy(task, tmp_path)
    return tmp_path / "results"


def check_table(name, path):
    """Compare a results table with the golden one; the digest of a row is one of all its digits."""
    columns, rows = read_csv(path.read_text(encoding="utf-8"))
    check_csv(HERE / name, columns, [{**row, "digest": "…"} for row in rows])


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_the_folder_is_whole():
    """What a .gitignore or a packer of files may leave out."""
    stored = files(STORED)
    for pattern, count in {"draws/*/key.json": 13, "*/evidence_*.npz": 9, "*/results_*.json": 9, "*/run_*.json": 6,
                           "*/samples_*.jsonl": 2, "config_*.yaml": 2, "task_*.json": 2}.items():  # fmt: skip
        assert len(list(STORED.glob(pattern))) == count, pattern
    assert {"leaderboard.csv", "leaderboard.md"} <= stored


def test_leaderboard(command, folder):
    assert command("leaderboard", "results", "--out", "merged", "--format", "csv").code == 0
    check_table("leaderboard.csv", folder.parent / "merged" / "leaderboard.csv")


def test_score(command, folder):
    assert command("score", "results").code == 0
    check_table("score.csv", folder / "leaderboard.csv")


def test_compare(command, folder):
    said = command("compare", "results", "base", "rejection:cap=256", "temperature:t=2", "--format", "json")
    assert said.code == 0
    check_json(HERE / "comparison.json", json.loads(said.out))


@pytest.mark.parametrize("config", sorted(path.name for path in STORED.glob("config_*.yaml")))
def test_a_run_started_again_draws_and_measures_nothing(command, folder, config):
    """No new draws, no evidence under another key, no other run file; rows may differ in their last digits.

    But for rejection, which numbers its proposals otherwise since, and what version 0.1 did not keep, such as λ.
    """
    before, rejects = files(folder), "rejection" in (STORED / config).read_text(encoding="utf-8")
    said = command("run", "--config", f"results/{config}")
    assert (said.code, said.out.count("wrote ")) == (0, 1)
    assert ("nothing was drawn: every draw was found on disk" in said.err) == (not rejects)
    new = {path for path in files(folder) - before if "/results_" not in path and not path.startswith("leaderboard.")}
    if rejects:
        assert any("+rejection" in path for path in new) and any("/attempts-" in path for path in new)
        new = {path for path in new if "+rejection" not in path and not path.startswith("draws/")}
    assert all(path.startswith("known/") for path in new)
