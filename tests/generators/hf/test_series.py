"""A glob of checkpoints is one spec each, in the order of their steps."""

from __future__ import annotations

import logging

import pytest

from alignbench.errors import UsageError
from alignbench.generators.hf.series import expand, step_in, step_of
from alignbench.spec import Spec


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder, which is the home folder too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def made(folder, *names, mark="config.json"):
    for name in names:
        (folder / name).mkdir(parents=True)
        if mark:
            (folder / name / mark).write_text("{}")


def series(pattern, key="pretrained", **more):
    return [spec.arguments[key] for spec in expand(Spec("hf", {key: pattern, **more}))]


def refused(pattern, key="pretrained"):
    with pytest.raises(UsageError) as caught:
        series(pattern, key)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_checkpoints_come_by_step_and_not_by_letter(here):
    made(here / "ckpts", "step-1000", "step-200", "step-30")
    assert series("ckpts/step-*") == ["ckpts/step-30", "ckpts/step-200", "ckpts/step-1000"]


def test_every_other_argument_stays(here):
    made(here, "step-1", "step-2")
    given = Spec("hf", {"dtype": "float32", "pretrained": "step-*", "batch_size": 4})
    assert expand(given) == [
        Spec("hf", {"dtype": "float32", "pretrained": f"step-{i}", "batch_size": 4}) for i in (1, 2)
    ]


def test_folder_by_folder_and_what_has_no_step_last(here):
    made(here, "b/checkpoint-2", "a10/checkpoint-3", "a9/checkpoint-20", "a9/checkpoint-final", "a9/checkpoint-5")
    assert series("*/checkpoint-*") == [
        "a9/checkpoint-5", "a9/checkpoint-20", "a9/checkpoint-final", "a10/checkpoint-3", "b/checkpoint-2",
    ]  # fmt: skip


def test_home_and_gguf_files(here):
    made(here, "ckpts/step-2")
    (here / "ckpts/step-1.gguf").touch()
    assert series("~/ckpts/step-*") == [str(here / "ckpts/step-1.gguf"), str(here / "ckpts/step-2")]


def test_adapters_are_a_series_and_two_globs_are_every_pair(here):
    made(here, "a/step-10", "a/step-9", mark="adapter_config.json")
    made(here, "m1", "m2")
    assert series("a/step-*", "peft", pretrained="gpt2") == ["a/step-9", "a/step-10"]
    pairs = expand(Spec("hf", {"pretrained": "m*", "peft": "a/*"}))
    assert [tuple(spec.arguments.values()) for spec in pairs] == [
        ("m1", "a/step-9"), ("m1", "a/step-10"), ("m2", "a/step-9"), ("m2", "a/step-10"),
    ]  # fmt: skip


@pytest.mark.parametrize("arguments", [{}, {"pretrained": "gpt2"}, {"pretrained": 7}, {"pretrained": "run[1]"},
                                       {"pretrained": f"pypi:llm==1.0#llm/tiny.gguf?sha256={'0' * 64}"}])  # fmt: skip
def test_what_is_no_glob_is_left_alone(here, arguments):
    made(here, "run[1]")
    assert expand(Spec("hf", arguments)) == [Spec("hf", arguments)]


def test_what_is_no_checkpoint_is_left_out_and_said(here, caplog):
    made(here, "step-1")
    made(here, "step-2", mark="adapter_config.json")
    (here / "step-3.log").touch()
    with caplog.at_level(logging.WARNING):
        assert series("step-*") == ["step-1"]
    assert caplog.messages == ["pretrained=step-*: left out, no config.json there: step-2, step-3.log"]


def test_a_glob_without_a_match_is_one_line(here):
    made(here / "ckpts", "step-10", "step-9", "other")
    assert refused("ckpts/stp-*") == (
        "pretrained=ckpts/stp-*: matches nothing ('stp-*' in 'ckpts'; the folders there: step-9, step-10)"
    )
    assert refused("ckpt/step-*") == (
        "pretrained=ckpt/step-*: matches nothing ('ckpt' in '.'; the folders there: ckpts)"
    )
    assert refused("ckpts/*/x-*", "peft").startswith("peft=ckpts/*/x-*: matches nothing ('x-*' in 'ckpts/")
    assert refused("ckpts/other/step-*").endswith("matches nothing ('step-*' in 'ckpts/other'; it has no folders)")
    assert refused("/no-such-place/*").startswith(
        "pretrained=/no-such-place/*: matches nothing ('no-such-place' in '/'"
    )


def test_a_glob_of_anything_but_checkpoints_is_one_line(here):
    made(here, *(f"step-{i}" for i in range(7)), mark="adapter_config.json")
    assert refused("step-*") == (
        "pretrained=step-*: none of what it matches has a config.json: "
        "step-0, step-1, step-2, step-3, step-4 and 2 more"
    )


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("step-300", 300), ("step_000300", 300), ("checkpoint-300", 300), ("global_step300", 300), ("iter_300", 300),
        ("ckpt300", 300), ("Step=300", 300), ("model-300", 300), ("ckpts/step-300/model", 300), ("run-1/step-300", 300),
        ("stage1-step300-tokens5B", 300), ("step-2/checkpoint-300", 300), ("step-300.gguf", 300), ("epoch_3", 3),
        ("model", None), ("gpt2", None), ("step-300k", None), ("step-0.5", None), ("llama-7b", None), ("", None),
        ("footstep-3", 3), ("model-300-int8", 300), ("step-300-int8", 300), ("tiny+adapter-3", 3),
    ],
)  # fmt: skip
def test_steps(name, step):
    assert step_of(name) == step


@pytest.mark.parametrize(
    ("pattern", "paths", "steps"),
    [
        ("ckpts/step-*", ["ckpts/step-3"], [3]),
        ("step-7/c*", ["step-7/c1", "step-7/c-5"], [None, 5]),  # what stands above the pattern is no step of it
        ("./step-*/model", ["step-7/model"], [7]),
        ("~/step-7/*/*.gguf", ["{home}/step-7/iter2/model-900.gguf", "{home}/step-7/a/model-900.gguf"], [2, 900]),
        ("run[1]/step-*", ["run1/step-8"], [8]),
    ],
)
def test_the_step_of_one_of_a_series_is_in_what_the_pattern_stood_for(here, pattern, paths, steps):
    """Planted bug: were the step that of the last number anywhere, the adapter's 500 would be every step."""
    given = {"pretrained": pattern, "peft": "./checkpoint-500"}
    found = [Spec("hf", {**given, "pretrained": path.format(home=here)}) for path in paths]
    assert [step_in(Spec("hf", given), one) for one in found] == steps


def test_of_two_patterns_the_adapters_step_is_told_and_else_the_models(here):
    given = Spec("hf", {"peft": "a/*", "pretrained": "m/*"})
    pairs = [("m/step-1", "a/step-2"), ("m/step-1", "a/last"), ("m/first", "a/last")]
    assert [step_in(given, Spec("hf", {"peft": a, "pretrained": m})) for m, a in pairs] == [2, 1, None]
