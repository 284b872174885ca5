"""How a run runs: the way from the command to the sampler is short, weights are loaded once, rows are in order."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from models import tiny_gpt2 as save_gpt2

from alignbench.generators.hf import factory
from alignbench.generators.law import Law
from alignbench.run.outcome import ALIGNER, BASE, DRAWS_OF_P, MODEL, Place
from alignbench.run.runner import run
from alignbench.run.settings import Settings
from alignbench.spec import Spec

TASK = """\
name: little
version: 1
summary: Wind in a tenth.
prompts: [rain, sun wind]
max_tokens: 3
draws: 30
features:
  windy: {feature: contains_any, words: [wind]}
target:
  - {feature: windy, moment: 0.1}
metrics: [perplexity]
"""
MOST_FRAMES, MOST_MODULES = 12, 8


@pytest.fixture(autouse=True)
def task(tmp_path, monkeypatch, registries):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "little.yaml").write_text(TASK)
    (tmp_path / "other.yaml").write_text(TASK.replace("little", "other"))


@pytest.fixture
def loads(monkeypatch):
    """The folders whose weights were loaded, in order."""
    found, right = [], factory._network
    monkeypatch.setattr(factory, "_network", lambda folder, **more: found.append(folder) or right(folder, **more))
    return found


@pytest.fixture
def checkpoints(tmp_path):
    for step in (1, 2, 3):
        save_gpt2(tmp_path / "ckpts" / f"step-{step}", seed=step)
    return Spec("hf", {"pretrained": "ckpts/step-*"})


def test_from_the_command_to_the_sampler_it_is_a_short_way(command, monkeypatch):
    """Of every draw that a run makes: to fit λ, to test it, as a reference, of the base, of an aligner."""
    right, ways = Law.sample, []

    def sample(self, *given, **more):
        frame, way = sys._getframe(1), ["generators/law.py:sample"]
        while not way[-1].endswith("cli/run.py:run"):
            way.append(f"{Path(frame.f_code.co_filename)}:{frame.f_code.co_name}")
            frame = frame.f_back
        ways.append(way)
        return right(self, *given, **more)

    monkeypatch.setattr(Law, "sample", sample)
    said = command("run", "--model", "exact", "--tasks", "little.yaml", "--aligner", "temperature:t=0.5",
                   "--output_path", "out")  # fmt: skip
    assert said.code == 0 and len(ways) == 5  # fit, heldout, ref, the base, the aligner
    for way in ways:
        assert len(way) <= MOST_FRAMES, "\n".join(way)
        assert len({place.rpartition(":")[0] for place in way}) <= MOST_MODULES, "\n".join(way)


def test_each_model_is_loaded_once_a_run(checkpoints, loads):
    """Planted bug: a model loaded once to be checked and once more to be measured, or once for each task or seed."""
    outcome = run(Settings(model=checkpoints, tasks=["little.yaml", "other.yaml"], seed=[0, 1]))
    assert outcome.failures == [] and loads == [f"ckpts/step-{step}" for step in (1, 2, 3)]


def test_what_files_tell_is_told_before_any_other_weights_are_loaded(tmp_path, loads, monkeypatch):
    for name, more in {"base": {}, "other": {"vocab": 20}, "short": {"window": 3}, "good": {"seed": 5}}.items():
        save_gpt2(tmp_path / name, **more)
    drawn, right = [], Law.sample
    monkeypatch.setattr(Law, "sample", lambda self, *a, **k: drawn.append(len(loads)) or right(self, *a, **k))
    models = [Spec("hf", {"pretrained": f"./{name}"}) for name in ("base", "other", "short", "nowhere", "good")]
    outcome = run(Settings(model=models, tasks="little.yaml"))
    tokens, window, absent = outcome.failures
    assert "other and base have different tokenizers" in tokens and "context window of 3" in window
    assert "./nowhere: no such folder" in absent and outcome.exit_code == 2
    assert loads == ["base", "good"] and drawn[0] == 1 and {row.key.generator for row in outcome.rows} > {"good"}


def test_what_only_weights_tell_fails_its_own_row(tmp_path, loads):
    for name in ("base", "bare", "good"):
        save_gpt2(tmp_path / name, seed=len(name))
    (tmp_path / "bare" / "model.safetensors").write_bytes(b"cut short")
    outcome = run(Settings(model=[Spec("hf", {"pretrained": f"./{n}"}) for n in ("base", "bare", "good")],
                           tasks="little.yaml"))  # fmt: skip
    [line] = outcome.failures
    assert line.startswith("hf:pretrained=./bare: ./bare: cannot be loaded as a language model: ")
    assert {row.key.generator for row in outcome.rows} == {"base", "good", "draws of p"}


def test_folders_of_one_name_are_told_apart_by_the_end_of_their_paths(tmp_path):
    for number, folder in enumerate(("one/a/final", "one/b/final", "two/a/final"), 1):
        save_gpt2(tmp_path / folder, seed=number)
    folders = ("one/a/final", "two/a/final", "one/b/final", "one/../one/b/final")
    outcome = run(Settings(model=[Spec("hf", {"pretrained": f"./{name}"}) for name in folders], tasks="little.yaml"))
    names = list(dict.fromkeys(row.key.generator for row in outcome.rows))
    assert names == ["one/a/final", "two/a/final", "b/final", "draws of p"], "the same weights again are no row"


def test_a_model_whose_name_another_has_gets_digits_of_its_identity(tmp_path):
    """A name that a user gives to one may be that of another."""
    for number, folder in enumerate(("first", "second"), 1):
        save_gpt2(tmp_path / folder, seed=number)
    models = [Spec("hf", {"pretrained": "./first"}), Spec("hf", {"pretrained": "./second"}, alias="first")]
    outcome = run(Settings(model=models, tasks="little.yaml"))
    names = list(dict.fromkeys(row.key.generator for row in outcome.rows))
    assert names[0] == "first" and names[1].startswith("first#") and len(names[1]) == len("first#") + 6


def test_places_are_sorted_by_task_seed_part_and_number():
    first = [Place(0, 0, part, number) for part in (BASE, MODEL, ALIGNER, DRAWS_OF_P) for number in (0, 1)]
    order = [*first, Place(0, 1, BASE), Place(1, 0, BASE)]
    assert sorted([*order[4:], *order[:4]]) == order


def test_rows_are_in_order_whatever_was_measured_first(checkpoints, tmp_path):
    outcome = run(Settings(model=["exact", "exact:seed=8"], aligner=["rejection", "temperature:t=0.5"],
                           tasks=["little.yaml", "other.yaml"], seed=[1, 0]))  # fmt: skip
    seen = list(dict.fromkeys((r.key.task, r.key.seed, r.key.generator, r.key.aligner) for r in outcome.rows))
    per_seed = len(seen) // 4
    assert [one[:2] for one in seen[::per_seed]] == [("little", 1), ("little", 0), ("other", 1), ("other", 0)]
    generators = [generator for _, _, generator, _ in seen[:per_seed]]
    assert [aligner for *_, aligner in seen[:per_seed]] == ["", "", "rejection:cap=256", "temperature:t=0.5", ""]
    assert generators[0] == "exact" != generators[1] and generators[-1] == "draws of p"
