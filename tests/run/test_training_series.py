"""`--series`: rows of a training's checkpoints, each at its step and its cost; found again without a network."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from alignbench.aligners.training import loop
from alignbench.errors import RunError
from alignbench.testing import save_network

if importlib.util.find_spec("peft") is None:
    pytest.skip("peft is an extra", allow_module_level=True)

TASK = """\
name: little
version: 1
summary: Sun always.
prompts: [rain, sun wind]
max_tokens: 3
draws: 24
features:
  sunny: {feature: contains_any, words: [sun]}
target:
  - {feature: sunny, always: true}
metrics: [satisfaction, divergence, cost]
"""
RECIPE = "sft:steps=6,adapter=lora:r=2,batch=8,lr=0.02,every=2"


@pytest.fixture
def run(command, tmp_path):
    save_network(tmp_path / "tiny", "rain sun wind", kind="llama")
    Path("little.yaml").write_text(TASK)
    words = ("run", "--model", "hf:pretrained=tiny", "--tasks", "little.yaml", "--output_path", "out")
    return lambda *more, aligner=RECIPE: command(*words, "--aligner", aligner, *more)


def table():
    rows = pd.read_csv("out/leaderboard.csv")
    rows = rows[rows.aligner.fillna("").str.startswith("sft")]
    return rows.set_index(rows.metric + "." + rows.part)


def test_each_checkpoint_is_a_row_at_its_step_and_its_cost(run, command, monkeypatch):
    assert run("--series").code == 0
    found = table().sort_values("step", kind="stable")
    steps = found.loc["divergence.kl_target"]
    assert steps.step.tolist() == [2, 4, 6]
    assert steps.aligner.tolist() == [f"{RECIPE} @ step-{k}" for k in (2, 4, 6)]
    assert found.loc["cost.training_steps"].value.tolist() == [2, 4, 6]
    trained = found.loc["cost.training_trained"].value.tolist()
    assert trained == sorted(trained) and trained[0] < trained[-1]
    peaks = found.loc["cost.training_peak_memory_mb"].value
    assert len(peaks) == 3 and peaks.nunique() == 1 and peaks.iloc[0] > 0  # that of the whole training
    assert len(set(steps.value)) == 3  # other weights each
    curve = command("compare", "out", "--series", "step")
    assert curve.code == 0 and "sft @ step-*" in curve.out
    monkeypatch.setattr(loop.Loop, "run", None)
    again = run("--series")
    assert (
        again.code == 0
        and "every draw was found on disk" in again.err
        and table().sort_values("step", kind="stable").value.equals(found.value)
    )


def test_without_it_there_is_one_row(run):
    assert run().code == 0
    assert table().loc["divergence.kl_target"].aligner == RECIPE


def test_trained_again_to_the_same_weights_it_is_the_same(run):
    """Its curve and its recipe tell seconds, which are never the same twice."""
    assert run().code == 0
    (folder,) = Path("out/aligned").glob("sft-*")
    shutil.rmtree(folder)
    again = run("--draws", 25)
    assert again.code == 0 and folder.is_dir(), again.err


def test_a_series_without_checkpoints_is_refused(run):
    said = run("--series", aligner="sft:steps=6")
    assert said.code == 2 and "--series: no aligner keeps checkpoints: give one every=N" in said.err
    assert said.err.count("\n") == 1 and not Path("out").exists()


def test_a_dry_run_counts_trainings_and_those_that_are_done(run, command):
    small = RECIPE.removesuffix(",every=2")
    Path("run.yaml").write_text(
        "{model: ['hf:pretrained=tiny'], tasks: [little.yaml], output_path: out, seed: [0, 1], aligner: [\n"
        f"rejection, 'dpg:minutes=2,adapter=lora:r=2', {{name: filtered, proposal: '{small}'}}, '{small}']}}"
    )
    asked, told = ("run", "--config", "run.yaml", "--dry_run"), "  4 trainings (dpg: 2 minutes, sft: 6 steps)"
    assert f"{told}; how long training takes is not told\n" in command(*asked).out
    assert run(aligner=small).code == 0  # with one seed
    assert f"{told}, 1 done; how long" in command(*asked).out
    assert "  1 training (sft: 6 steps), 1 done\n" in run("--dry_run", aligner=small).out
    assert "training" not in run("--dry_run", aligner="rejection").out


TOKENS = RECIPE.replace("steps=6", "tokens=2000")
EARLY = "sft:steps=60,adapter=lora:r=2,batch=8,lr=0.5,every=4,data=fixed,draws=8,patience=1"


@pytest.mark.parametrize(("recipe", "last"), [(TOKENS, None), (EARLY, 60)], ids=["tokens", "early stop"])
def test_the_last_row_says_its_step_where_only_the_training_tells(run, recipe, last, monkeypatch):
    assert run("--series", aligner=recipe).code == 0
    [path] = Path("out/aligned").glob("sft-*/recipe.json")
    steps = json.loads(path.read_text())["steps"]
    found = table().sort_values("step", kind="stable")
    rows = found.loc["divergence.kl_target"]
    assert len(rows) > 1 and rows.step.iloc[-1] == steps and (last is None or steps < last)
    assert all(f" @ step-{step:.0f}" in label for step, label in zip(rows.step, rows.aligner, strict=True))
    monkeypatch.setattr(loop.Loop, "run", None)
    again = run("--series", aligner=recipe)
    assert again.code == 0 and "every draw was found on disk" in again.err
    assert table().sort_values("step", kind="stable").value.equals(found.value)


def test_a_training_that_fails_where_only_it_tells_its_steps_is_told_once(run, monkeypatch):
    def broken(self):
        raise RunError("no number")

    monkeypatch.setattr(loop.Loop, "run", broken)
    said = run("--series", aligner=TOKENS)
    assert said.code == 1 and said.err.count("no number") == 1, said.err
    assert "sft" not in Path("out/leaderboard.csv").read_text()
