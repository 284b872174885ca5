"""Pages cannot drift: what they list and print is made from the code, and their diffs apply to it.

`ALIGNBENCH_REGENERATE=1 pytest tests/test_docs.py` writes the generated parts anew.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest
from handbook import README, ROOT, between, page_with, text_of
from typer.testing import CliRunner

from alignbench.cli import app
from alignbench.cli.leaderboard import renames
from alignbench.registry import KINDS, load_plugins
from alignbench.reports.charts.drawing import draw
from alignbench.reports.charts.picture import Size
from alignbench.reports.charts.suite import suite
from alignbench.reports.charts.svg import standalone
from alignbench.reports.charts.two_parts import rows_of, two_parts
from alignbench.reports.gather import gather
from alignbench.reports.table.board import Arrangement
from alignbench.reports.table.leaderboards import arranged
from alignbench.task import all_tasks, headline, load_task

CONTRIBUTING = ROOT / "docs" / "contributing.md"
FENCE = "```"


def without_times(text):
    """What does not depend on the machine."""
    return re.sub(r"^(?:  about |  foretold |in all about |times of what ).*\n", "", text, flags=re.M)


def told(*words: str) -> str:
    """A command and what it prints, 100 columns wide."""
    result = CliRunner().invoke(app, list(words), env={"COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1"})
    assert result.exit_code == 0, result.output
    lines = [line.rstrip() for line in result.stdout.strip("\n").splitlines()]
    return "\n".join([f"{FENCE}text", f"$ alignbench {' '.join(words)}", *lines, FENCE])


def tasks() -> str:
    """The built-in tasks, a line each."""
    rows = [f"| `{name}` | {headline(path)[1]} |" for name, path in all_tasks().items()]
    return "\n".join(["| task | what it asks |", "|---|---|", *rows])


def names() -> str:
    """What is registered, by kind."""
    load_plugins()
    own = {kind: [n for n, e in KINDS[kind].items() if e.thing.__module__.startswith("alignbench.")] for kind in KINDS}
    return "\n".join(f"- **{kind}**: {', '.join(f'`{n}`' for n in found)}" for kind, found in own.items())


def aligners() -> str:
    """The built-in aligners, a line each."""
    load_plugins()
    entries = [e for e in KINDS["aligners"].values() if e.thing.__module__.startswith("alignbench.")]
    bar = r"\|"  # else it would be the edge of a cell
    rows = [f"| `{e.name}` | {e.summary.rstrip('.').replace('|', bar)} | {e.declared} |" for e in entries]
    return "\n".join(["| aligner | its law | density |", "|---|---|---|", *rows])


PARTS = {
    "tasks": tasks,
    "aligners": aligners,
    "names": names,
    "run-help": lambda: told("run", "--help"),
    "dry-run": lambda: without_times(told("run", "--dry_run")),
    "validate": lambda: told("validate", "lexical_word", "gender_balance"),
}


@pytest.mark.usefixtures("registries")
@pytest.mark.parametrize("name", PARTS)
def test_generated_parts_are_current(name):
    page, place, current = page_with(name), between(name), PARTS[name]() + "\n"
    if os.environ.get("ALIGNBENCH_REGENERATE"):
        page.write_text(place.sub(lambda found: found[1] + current + found[3], text_of(page)), encoding="utf-8")
    else:
        assert place.search(text_of(page))[2] == current


def test_every_task_says_why_it_is_here_and_what_a_good_generator_does():
    for name, path in all_tasks().items():
        text = path.read_text(encoding="utf-8")
        if not name.startswith("exact_"):
            assert re.search(r"^# Why it is here: ", text, re.MULTILINE), name
            assert re.search(r"^# A good generator", text, re.MULTILINE), name


def test_the_quickstarts_table_is_of_the_task_as_it_is_now():
    """Its numbers took minutes to draw; that they are of this very task is in their signature."""
    signature = re.search(r"\|task:(\w+)\.v(\d+)#(\w{8})\|.*\|prompts:(\d+)\|", text_of(README))
    name, version, digest, prompts = signature.groups()
    task = load_task(all_tasks()[name]).limited(int(prompts))
    assert (str(task.version), task.hash[:8]) == (version, digest)


def diffs() -> list[str]:
    """The diffs in docs/contributing.md."""
    return re.findall(r"```diff\n(.*?)```", text_of(CONTRIBUTING), re.DOTALL)


def test_what_contributing_adds_is_one_file_each_and_works(tmp_path):
    """The diffs applied to a copy: the task with the new feature and metric runs in a world that can be listed."""
    for folder in ("alignbench", "tasks"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    assert len(diffs()) == 3
    for number, diff in enumerate(diffs()):
        assert diff.count("\n+++ b/") == 1
        (tmp_path / f"{number}.diff").write_text(diff, encoding="utf-8")
        subprocess.run(["git", "apply", f"{number}.diff"], cwd=tmp_path, check=True)
    name = re.search(r"\+\+\+ b/tasks/(\w+)\.yaml", "".join(diffs()))[1]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "alignbench", "run", "--tasks", name, "--draws", "32", "--output_path", "out"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = (tmp_path / "out" / "leaderboard.csv").read_text(encoding="utf-8")
    added = re.findall(r"^\+def (\w+)\(", "".join(diffs()), re.MULTILINE)
    assert len(added) == 2
    assert all(word in rows for word in added)


def pictures() -> dict[str, str]:
    """The pictures of the README, drawn from the published rows."""
    folder = ROOT / "leaderboards" / "reference"
    found, names = gather([folder]), renames([f"@{folder / 'names.txt'}"])
    board = arranged(found.rows, Arrangement(found.primary, rename=names))
    table = next(table for table in board.tables if table.task == "lexical_word")
    assert table.brief is not None
    parts = two_parts(rows_of(table.brief), "lexical_word: what was asked, and what was changed besides")
    grid = suite(board.suite[0])
    return {
        "tradeoff": standalone(draw(parts, Size(480, 330, 11, alone=True))),
        "suite": standalone(draw(grid, Size(820, 330, 11, alone=True))),
    }


def test_the_pictures_of_the_readme_are_of_the_published_rows():
    for name, picture in pictures().items():
        path = ROOT / "docs" / "images" / f"{name}.svg"
        if os.environ.get("ALIGNBENCH_REGENERATE"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(picture, encoding="utf-8")
        assert path.read_text(encoding="utf-8") == picture, "ALIGNBENCH_REGENERATE=1 pytest tests/test_docs.py"
