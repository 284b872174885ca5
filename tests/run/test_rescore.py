"""Rows again from a folder that may be a stranger's: nothing that it names is run unasked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

EVIL = "open('pwned', 'w').close()\n"
TASK = """\
name: little
version: 1
summary: Sun always.
prompts: [rain, sun]
max_tokens: 4
draws: 24
features:
  sunny: {feature: contains_any, words: [sun]}
target:
  - {feature: sunny, always: true}
metrics: [satisfaction]
"""


@pytest.fixture
def folder(command, evaluate_here, tmp_path):
    """The output of two runs whose task's remembered metrics name a script that somebody put there."""
    (tmp_path / "little.yaml").write_text(TASK)
    (tmp_path / "evil.py").write_text(EVIL)
    words = ("run", "--model", "exact", "--tasks", "little.yaml", "--output_path", "out", "--aligner", "rejection")
    assert command(*words).code == 0
    path = tmp_path / "out" / "task_little.json"
    told = json.loads(path.read_text())
    path.write_text(json.dumps({**told, "metrics": [["evaluate", {"path": "./evil.py"}], *told["metrics"]]}))
    return tmp_path / "out"


def test_score_runs_no_script_that_the_folder_names(command, folder):
    """Planted: a results folder from elsewhere, whose task_little.json has a metric with a script of its own."""
    said = command("score", "out")
    assert not Path("pwned").exists() and said.code == 1 and "Traceback" not in said.err
    [line] = said.err.splitlines()
    assert line == ("alignbench: out/task_little.json: the metric 'evaluate' is left out: it runs code that this file "
                    "names; --trust_remote_code runs it")  # fmt: skip
    assert "── base ──" in said.out, "the other metrics are there"


def test_score_runs_it_where_it_is_trusted(command, folder):
    command("score", "out", "--trust_remote_code")
    assert Path("pwned").exists()


def test_compare_runs_it_where_it_is_trusted(command, folder):
    command("compare", "out", "base", "rejection:cap=256", "--trust_remote_code")
    assert Path("pwned").exists()


def test_compare_runs_no_script_that_the_folder_names(command, folder):
    said = command("compare", "out", "base", "rejection:cap=256")
    assert not Path("pwned").exists() and "Traceback" not in said.err
    assert "the metric 'evaluate' is left out" in said.err and "always" in said.out


@pytest.mark.parametrize("text", ["[", "[]", '{"metrics": ["perplexity", 3], "primary": ""}', '{"metrics": 5}'])
def test_a_memory_that_cannot_be_read_is_told(command, folder, text):
    (folder / "task_little.json").write_text(text)
    said = command("score", "out")
    assert said.code == 1 and "── base ──" in said.out and not Path("pwned").exists()
    assert (
        said.err == "alignbench: out/task_little.json: is not what a run writes: all metrics that apply are measured\n"
    )
