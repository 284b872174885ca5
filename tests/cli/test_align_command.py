"""`alignbench align` as a user meets it: what it leaves, that `hf` loads it, that it goes on, and what it refuses."""

from __future__ import annotations

import csv
import importlib.util
import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from alignbench.aligners.training import folder, loop
from alignbench.generators.hf.factory import hf
from alignbench.testing import save_network
from alignbench.types import rows_of

if importlib.util.find_spec("peft") is None:
    pytest.skip("peft is an extra", allow_module_level=True)

TASK = """\
name: little
version: 1
summary: Sun always.
prompts: [rain, sun wind]
max_tokens: 3
draws: 16
features:
  sunny: {feature: contains_any, words: [sun]}
target:
  - {feature: sunny, always: true}
metrics: [satisfaction, divergence, cost]
"""
DPG = "dpg:steps=6,adapter=lora:r=2,pool=20,batch=8,lr=0.01"


@pytest.fixture
def align(command, tmp_path):
    """The command on a tiny network, with more words."""
    save_network(tmp_path / "tiny", "rain sun wind", kind="llama")
    Path("little.yaml").write_text(TASK)

    def run(*words, aligner=DPG, out="ckpt"):
        return command("align", "--model", "hf:pretrained=tiny", "--tasks", "little.yaml", "--aligner", aligner,
                       "--out", out, *words)  # fmt: skip

    return run


def lines(path):
    with Path(path).open(newline="") as text:
        return list(csv.DictReader(text))


def test_it_leaves_what_hf_loads_its_recipe_and_its_curve(align, command):
    assert align("--every", "3").code == 0
    told = json.loads(Path("ckpt/recipe.json").read_text())
    assert told["finished"] and told["steps"] == 6 and told["aligner"] == "dpg"
    assert told["identity"]["own"]["batch"] == 8 and told["identity"]["prompts"] == ["rain", "sun wind"]
    assert told["versions"].keys() >= {"torch", "peft"} and len(told["weights"]) == 16
    curve = lines("ckpt/curve.csv")
    assert [row["step"] for row in curve] == list("123456")
    assert {"objective", "kl_base", "always", "grad_norm", "lr", "drawn", "trained", "seconds"} <= curve[0].keys()
    cost = json.loads(Path("ckpt/cost.json").read_text())
    assert cost["steps"] == 6 and cost["trained"] == int(curve[-1]["trained"]) and cost["drawn"] > 0
    base, law = hf(pretrained="tiny"), hf(pretrained="tiny", peft="ckpt")
    draws = next(law.sample(["rain"], rows_of(1, 8), max_tokens=3, seed=_seed()))
    assert abs(law.log_prob(["rain"], draws) - base.log_prob(["rain"], draws)).max() > 1e-4
    words = ("--model", "hf:pretrained=tiny", "--model", "hf:pretrained=tiny,peft=ckpt/checkpoint-*")
    assert command("run", *words, "--tasks", "little.yaml", "--output_path", "out").code == 0
    steps = {row["step"] for row in lines("out/leaderboard.csv") if "checkpoint" in row["generator"]}
    assert {float(step) for step in steps} == {3.0, 6.0}


def _seed():
    from alignbench.seeds import Seed

    return Seed(0)


def test_again_there_is_nothing_to_do_and_with_other_words_another_training(align):
    first = align()
    assert first.code == 0 and "step 6" in first.err
    before = Path("ckpt/adapter_model.safetensors").read_bytes()
    again = align()
    assert again.code == 0 and "nothing to do" in again.err
    assert Path("ckpt/adapter_model.safetensors").read_bytes() == before
    other = align(aligner=DPG.replace("lr=0.01", "lr=0.02"))
    assert (
        other.code == 2
        and "holds another training (dpg: lr 0.01, not 0.02)" in other.err
        and other.err.count("\n") == 1
    )
    assert Path("ckpt/adapter_model.safetensors").read_bytes() == before


def untimed(rows):
    """The rows without what a clock says, and memory."""
    return [{key: value for key, value in row.items() if key not in ("seconds", "peak_bytes")} for row in rows]


@pytest.mark.parametrize("state", [1, 4])
def test_killed_it_goes_on_to_the_same_weights(state, align, monkeypatch):
    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)
    recipe = DPG + ",renew=1"
    assert align(aligner=recipe, out="whole").code == 0
    right = folder.save_training

    def killed(path, module, optimiser, *, step, extra):
        right(path, module, optimiser, step=step, extra=extra)
        if step == state:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(folder, "save_training", killed)
        stopped = align(aligner=recipe)
    assert stopped.code == 130 and "goes on from the last state" in stopped.err
    assert align(aligner=recipe).code == 0
    whole, mine = (load_file(f"{name}/adapter_model.safetensors") for name in ("whole", "ckpt"))
    assert whole.keys() == mine.keys() and all((whole[k] == mine[k]).all() for k in whole)
    assert untimed(lines("whole/curve.csv")) == untimed(lines("ckpt/curve.csv"))
    costs = [json.loads(Path(f"{name}/cost.json").read_text()) for name in ("whole", "ckpt")]
    assert untimed(costs[:1]) == untimed(costs[1:])


def test_a_whole_model_is_a_model(align):
    assert align(aligner="sft:steps=2,adapter=full,batch=8").code == 0
    assert hf(pretrained="ckpt").name == "ckpt"


REFUSED = {
    "aligner trains nothing": ({"aligner": "top_p:p=0.9"}, "aligner 'top_p:p=0.9' trains nothing"),
    "unknown aligner": ({"aligner": "f_dgp:steps=2"}, "Did you mean 'f_dpg'"),
    "two budgets": ({"aligner": "dpg:steps=2,minutes=1"}, "steps and minutes are all budgets"),
    "no batch": ({"aligner": "dpg:batch=0"}, "dpg:batch=0: must be a whole number >= 1"),
    "no adapter": ({"aligner": "dpg:adapter=lore"}, "alignbench: dpg:adapter=lore: "),
    "every twice": ({"words": ("--every", "2"), "aligner": "dpg:every=3"}, "--every and every="),
    "two aligners": ({"words": ("--aligner", "sft:steps=2")}, "align trains one aligner: --aligner was given 2 times"),
    "two --tasks": ({"words": ("--tasks", "lexical_word")}, "align trains on one task: --tasks was given 2 times"),
    "two --model": ({"words": ("--model", "exact")}, "align trains one model: --model was given 2 times"),
    "two seeds": ({"words": ("--seed", "3,5")}, "--seed names 2: 3, 5"),
    "a black box": ({"words": ("--model", "exact:words=rain sun wind")}, "has no weights that can be trained"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name, align, command):
    given, said = REFUSED[name]
    words = given.get("words", ())
    if name == "a black box":
        found = command("align", *words, "--tasks", "little.yaml", "--aligner", DPG, "--out", "ckpt")
    else:
        found = align(*words, aligner=given.get("aligner", DPG))
    assert found.code in (1, 2) and said in found.err and found.err.strip().count("\n") == 0, found.err


def test_two_tasks_are_named(align, command):
    Path("two.yaml").write_text(TASK.replace("name: little", "name: two"))
    found = command("align", "--model", "hf:pretrained=tiny", "--tasks", "little.yaml,two.yaml", "--aligner", DPG,
                    "--out", "ckpt")  # fmt: skip
    assert found.code == 2 and "--tasks names 2: little, two\n" in found.err


def test_with_the_options_of_a_run_it_is_the_same_training(align, command):
    """λ is fitted on --draws; --gen_kwargs are of the models of a run, not of the base that an aligner is put on."""
    Path("little.yaml").write_text(TASK.replace("always: true", "moment: 0.5"))
    words = ("--draws", "40", "--limit", "1", "--seed", "3")
    assert align(*words).code == 0
    more = ("--gen_kwargs", "temperature=0.7", "--aligner", DPG, "--output_path", "out")
    assert command("run", "--model", "hf:pretrained=tiny", "--tasks", "little.yaml", *words, *more).code == 0
    [path] = Path("out/aligned").glob("dpg-*/recipe.json")
    mine, theirs = (json.loads(Path(file).read_text()) for file in ("ckpt/recipe.json", path))
    assert mine["key"] == theirs["key"] and mine["weights"] == theirs["weights"] and mine["identity"]["lam"]
    assert align("--limit", "1", "--seed", "3", out="other").code == 0
    assert json.loads(Path("other/recipe.json").read_text())["identity"]["lam"] != mine["identity"]["lam"]


def test_interrupted_before_any_state_it_begins_again(align, monkeypatch):
    def interrupted(self, step):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop.Loop, "_gradient", interrupted)
    stopped = align()
    assert stopped.code == 130 and "begins again: no state was saved yet" in stopped.err


def test_a_folder_with_other_files_is_left_alone(align):
    Path("ckpt").mkdir()
    Path("ckpt/thesis.txt").write_text("mine")
    found = align()
    assert found.code == 2 and "holds no training, and has other files (thesis.txt" in found.err
    assert [path.name for path in Path("ckpt").iterdir()] == ["thesis.txt"]


def test_weights_that_are_not_those_of_the_recipe_are_told(align):
    assert align().code == 0
    told = json.loads(Path("ckpt/recipe.json").read_text())
    Path("ckpt/recipe.json").write_text(json.dumps({**told, "weights": "0" * 16}))
    found = align()
    assert found.code == 1 and "its weights are not those that recipe.json tells" in found.err
    shutil.rmtree("ckpt")
    assert align().code == 0
