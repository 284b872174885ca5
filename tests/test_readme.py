"""README and docs/ say what is true: blocks run as printed, commands are understood, links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml
from handbook import (
    BESIDE,
    PAGES,
    RAW,
    README,
    REPOSITORY,
    ROOT,
    anchors,
    block,
    code_beginning,
    links,
    mentioned_commands,
    named,
    text_of,
    typed_commands,
)
from typer.testing import CliRunner

from alignbench.cli import app
from alignbench.reports.rows import read_rows
from alignbench.run import words
from alignbench.task import load_task

PICTURES = ("docs/images/tradeoff.svg", "docs/images/suite.svg")
OF_PLUG_INS = "docs/plug-ins.md"  # its commands need its plug-ins: tests/test_plug_ins.py runs these


def test_the_readme_is_short():
    assert len(text_of(README).splitlines()) <= 200


def test_the_two_commands_are_there_and_ci_runs_them():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    main, tests = (line for line in text_of(README).splitlines() if line.startswith("pip install -c constraints.txt"))
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
    text = code_beginning("yaml", "name: stormy")
    assert text in text_of(README)
    (tmp_path / "stormy.yaml").write_text(text, encoding="utf-8")
    task = load_task(tmp_path / "stormy.yaml")
    assert task.name == yaml.safe_load(text)["name"]
    assert [w.value for w in task.target.wanted()] == [1.0, 0.5, 0.5]


@pytest.mark.parametrize("beginning", ["# run.yaml, for", "# run.yaml\n", "# trained.yaml\n"])
def test_the_run_files_are_run_files(beginning, tmp_path):
    text = code_beginning("yaml", beginning)
    (tmp_path / "run.yaml").write_text(text, encoding="utf-8")
    assert words.read(tmp_path / "run.yaml").keys() == yaml.safe_load(text).keys()


def test_the_metric_is_one_of_evaluate(evaluate_here):
    body, _, last = code_beginning("python", "from alignbench.integrations.evaluate").strip().rpartition("\n")
    space: dict = {}
    exec(body, space)
    found = eval(last, space)
    assert found["distinct_1"] > 0


RUNS = [line for page in PAGES if named(page) != OF_PLUG_INS for line in typed_commands(page)
        if line.startswith("alignbench run")]  # fmt: skip


@pytest.mark.usefixtures("registries")
@pytest.mark.parametrize("line", RUNS)
def test_runs_are_understood(line, tmp_path, monkeypatch):
    (tmp_path / "parrot.py").write_text(block("plugin"), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    words = [w for w in shlex.split(line.replace("\\\n", " "), comments=True)[1:] if w != "--dry_run"]
    result = CliRunner().invoke(app, [*words, "--dry_run"])
    assert result.exit_code == 0, result.output
    assert "prompts ×" in result.output


def parsed(line: str) -> None:
    """Let the command line parse a command, and call nothing; raises a usage error where a word is wrong."""
    given = shlex.split(line.replace("\\\n", " "), comments=True)[1:]
    given = given[: next((i for i, word in enumerate(given) if word in ("|", ">", "&&", ";")), len(given))]
    group = typer.main.get_command(app)
    with group.make_context("alignbench", list(given)) as root:
        name, command, rest = group.resolve_command(root, given)
        command.make_parser(command.context_class(command, parent=root, info_name=name)).parse_args(rest)


COMMANDS = [(named(page), line) for page in (*PAGES, *BESIDE)
            for line in dict.fromkeys(typed_commands(page) + mentioned_commands(page))]  # fmt: skip


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_commands_name_options_that_exist(page, line):
    parsed(line)


@pytest.mark.parametrize("line", ["alignbench rum", "alignbench run --darws 3", "alignbench compare a b --sort x"])
def test_a_command_that_does_not_exist_is_noticed(line):
    with pytest.raises(Exception, match=r"No such (command|option)"):
        parsed(line)


def test_options_in_prose_exist():
    """Between backticks, on pages for users."""
    known = {name for command in typer.main.get_command(app).commands.values()
             for option in command.params for name in option.opts}  # fmt: skip
    for page in PAGES:
        if page.name != "contributing.md":  # its options are those of benchmarks too
            named_here = set(re.findall(r"`(--[a-z_]+)", text_of(page)))
            assert named_here <= known | {"--help"}, named(page)


def leads_somewhere(page: Path, target: str) -> bool:
    """Whether a link to a file of this repository has that file, and that heading in it."""
    place, _, anchor = target.partition("#")
    path = (page.parent / place).resolve() if place else page
    return path.exists() and (not anchor or anchor in anchors(path))


LINKS = [(named(page), target) for page in (*PAGES, *BESIDE) for target in links(page)]


@pytest.mark.parametrize(("page", "target"), LINKS)
def test_links_lead_somewhere(page, target):
    """In the README they are absolute, since it is shown where the tree is not."""
    if page == "README.md":
        assert target.startswith("https://")
    if target.startswith(REPOSITORY):
        assert leads_somewhere(README, target.removeprefix(REPOSITORY))
    elif not target.startswith("https://"):
        assert leads_somewhere(ROOT / page, target)


def test_the_readme_has_two_pictures():
    assert tuple(t.removeprefix(RAW) for t in links(README) if t.startswith(RAW)) == PICTURES
    assert all((ROOT / picture).exists() for picture in PICTURES)


@pytest.mark.parametrize("page", [p for p in PAGES if p != README], ids=named)
def test_the_readme_leads_to_every_page(page):
    assert REPOSITORY + named(page) in [target.partition("#")[0] for target in links(README)]


def test_a_link_to_nowhere_is_noticed():
    assert not leads_somewhere(README, "docs/nowhere.md")
    assert not leads_somewhere(README, "docs/tasks.md#nowhere")
