"""The README says what is true: its plug-in runs as printed, and CI runs its commands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from alignbench.cli import app
from alignbench.reports.rows import read_rows
from alignbench.run import words
from alignbench.task import load_task

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(name):
    found = re.search(rf"<!-- {name}:start -->\n```\w*\n(.*?)```\n<!-- {name}:end -->", README, re.DOTALL)
    return found.group(1)


def test_the_two_commands_are_there_and_ci_runs_them():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    main, tests = (line for line in README.splitlines() if line.startswith("pip install -c constraints.txt"))
    assert main == "pip install -c constraints.txt . && alignbench run"
    assert tests == 'pip install -c constraints.txt -e ".[test]" && pytest'
    assert f"\n{tests}\n" in script
    assert "\nalignbench run " in script


@pytest.mark.usefixtures("registries")
def test_the_plug_in_is_short_and_runs_as_printed(tmp_path, tiny_gpt2, monkeypatch):
    text = block("plugin")
    assert len(text.splitlines()) < 25
    (tmp_path / "parrot.py").write_text(text, encoding="utf-8")
    (tmp_path / "rain.yaml").write_text(
        "name: rain\nversion: 1\nsummary: Rain.\nprompts: [the nurse said]\nmax_tokens: 4\n"
        "features: {rain: {feature: contains_any, words: [rained, rain]}}\ntarget: [{feature: rain, always: true}]\n"
    )
    monkeypatch.chdir(tmp_path)
    command = ["run", "--base", f"hf:pretrained={tiny_gpt2}", "--model", "parrot", "--include_path", ".",
               "--tasks", "rain", "--draws", "40", "--output_path", "out"]  # fmt: skip
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    rows = read_rows(tmp_path / "out" / "leaderboard.csv")
    parrot = rows[rows.generator == "parrot"]
    parrot = parrot.set_index(parrot.metric + "." + parrot.part)
    always = parrot.loc["satisfaction.always"]
    assert always.ci_low < 1 / 3 < always.ci_high
    assert parrot.isna().loc["divergence.kl_target"].value
    assert "tokens are not the base's" in parrot.loc["divergence.kl_target"].note
    again = CliRunner().invoke(app, command)
    assert "nothing was drawn" in again.output + again.stderr


def test_the_task_in_the_readme_is_a_task(tmp_path):
    text = re.search(r"```yaml\n(name: stormy.*?)```", README, re.DOTALL).group(1)
    (tmp_path / "stormy.yaml").write_text(text, encoding="utf-8")
    task = load_task(tmp_path / "stormy.yaml")
    assert task.name == yaml.safe_load(text)["name"]
    assert [w.value for w in task.target.wanted()] == [1.0, 0.5, 0.5]


def test_the_run_file_in_the_readme_is_one(tmp_path):
    text = re.search(r"```yaml\n(# run.yaml.*?)```", README, re.DOTALL).group(1)
    (tmp_path / "run.yaml").write_text(text, encoding="utf-8")
    assert words.read(tmp_path / "run.yaml").keys() == yaml.safe_load(text).keys()


def test_the_metric_in_the_readme_is_one_of_evaluate(evaluate_here):
    code = re.search(r"```python\n(from alignbench.integrations.evaluate.*?)```", README, re.DOTALL).group(1)
    body, _, last = code.strip().rpartition("\n")
    space: dict = {}
    exec(body, space)
    found = eval(last, space)
    assert found["distinct_1"] > 0


@pytest.mark.usefixtures("registries")
@pytest.mark.parametrize("line", re.findall(r"^alignbench run (?:.*\\\n)*.*$", README, re.MULTILINE))
def test_the_commands_in_the_readme_are_understood(line, tmp_path, monkeypatch):
    import shlex

    (tmp_path / "parrot.py").write_text(block("plugin"), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    words = [w for w in shlex.split(line.replace("\\\n", " "), comments=True)[1:] if w != "--dry_run"]
    result = CliRunner().invoke(app, [*words, "--dry_run"])
    assert result.exit_code == 0, result.output
    assert "prompts ×" in result.output
