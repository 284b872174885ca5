"""Run files and environment: what they may say, what wins, and that a saved job is the same job."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from alignbench.cli.run import job_of
from alignbench.errors import TaskError, UsageError
from alignbench.generators.exact.world import exact
from alignbench.run.config import OTHERS, SCALARS, from_environment, page_of, read, seeds_of, words_of
from alignbench.run.job import QUICKSTART, Job
from alignbench.scoring.evidence import silent
from alignbench.spec import Spec

FULL = """\
models: ["hf:pretrained=gpt2", {name: hf, pretrained: "a, b", dtype: float32}]
base: exact
aligners: best_of_n:n=4
tasks: [lexical_word, "exact_*"]
include_path: mine
draws: {lexical_word: 8}
limit: 3
batch_size: 7
device: cpu
gen_kwargs: {temperature: 0.7, top_k: 3}
judge: {name: exact, seed: 1e-3}
seeds: [0, 2]
output_path: out
log_samples: true
apply_chat_template: true
system_instruction: "Be brief: yes"
"""


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in [n for n in os.environ if n.startswith("ALIGNBENCH_") and n not in OTHERS]:
        monkeypatch.delenv(name)


def page(text):
    Path("run.yaml").write_text(text, encoding="utf-8")
    return Path("run.yaml")


def job(**given):
    """The job of some options, without what differs between two processes."""
    return replace(job_of(given), argv=(), progress=silent)


def test_a_file_says_what_the_command_line_says():
    said = job(config=page(FULL))
    assert said == job(
        model=["hf:pretrained=gpt2", '{name: hf, pretrained: "a, b", dtype: float32}'], base="exact",
        aligner=["best_of_n:n=4"], tasks=["lexical_word,exact_*"], include_path=["mine"], draws={"lexical_word": 8},
        limit=3, batch_size="7", device="cpu", gen_kwargs="temperature=0.7,top_k=3", judge="exact:seed=1e-3",
        seed="0,2", output_path="out", log_samples=True, apply_chat_template=True, system_instruction="Be brief: yes",
    )  # fmt: skip
    assert said.seeds == (0, 2) and said.draws == {"lexical_word": 8} and said.supplied["batch_size"] == 7


@pytest.mark.parametrize("text", [FULL, "tasks: exact_ngram\n", "seed: 3\nmodel: exact\ntasks: [a, b]\n"])
def test_a_saved_job_is_the_same_job(text):
    first = job(config=page(text))
    assert job(config=page(page_of(words_of(first)))) == first


def test_the_quickstart_can_be_saved_too():
    first = job()
    assert first.tasks == QUICKSTART["tasks"] and job(config=page(page_of(words_of(first)))) == first


def test_a_flag_that_no_file_may_hold_is_said_in_the_saved_one():
    text = page_of(words_of(job(model=["hf:pretrained=gpt2"], tasks=["a"], trust_remote_code=True)),
                   ["trust_remote_code"])  # fmt: skip
    assert text.startswith("# --trust_remote_code was given: a file cannot say it\n")
    assert "trust_remote_code" not in read(page(text))


def test_objects_cannot_be_saved():
    assert words_of(Job(tasks=("a",), models=(exact(),))) is None
    assert words_of(Job(tasks=("a",), models=(Spec("exact"),), supplied={"dtype": "float32"})) is None


def test_command_line_over_file_over_environment_over_default(monkeypatch):
    """Planted bug: merged the other way round, each of the three would be another's."""
    page("tasks: [a]\nseed: 1\nlimit: 2\n")
    for name, value in {"SEED": "5,6", "LIMIT": "7", "DRAWS": "9", "CONFIG": "run.yaml"}.items():
        monkeypatch.setenv(f"ALIGNBENCH_{name}", value)
    said = job(seed="3")
    assert (said.seeds, said.limit, said.draws, said.supplied["device"]) == ((3,), 2, 9, "auto")
    assert job().seeds == (1,)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("tasks: [a]\n\nmodle: exact\n", "run.yaml:3: unknown key 'modle'. Did you mean 'model'?"),
        ("limit: 0", "run.yaml:1: limit must be at least 1, not 0"),
        ("tasks: [a]\nseed: [0, x]", "run.yaml:2: seed: whole numbers >= 0 and below 2^63, such as 0 or [0, 1, 2]"),
        ("seed: true", "run.yaml:1: seed: whole numbers"),
        ("model: [exact, 3]", "run.yaml:1: model is a spec such as hf:pretrained=gpt2"),
        ("model: {pretrained: a}", "run.yaml:1: model: a spec in YAML is a mapping with a 'name'"),
        ("aligner:\n  - best_of_n\n  - 'best_of_n:4'", "run.yaml:3: aligner 'best_of_n': '4' is not key=value"),
        ("base: [a, b]", "run.yaml:1: base has one value, not a list"),
        ("draws: {a: 0}", "run.yaml:1: draws must be a whole number >= 1, or {TASK: N, …}"),
        ("batch_size: many", "run.yaml:1: batch_size must be auto or a whole number >= 1, not 'many'"),
        ("tasks: [3]", "run.yaml:1: tasks is a text, not 3"),
        ("log_samples: 1", "run.yaml:1: log_samples: input should be a valid boolean, not 1"),
        ("gen_kwargs: warm", "run.yaml:1: gen_kwargs: 'warm' is not key=value"),
        ("seed: 1\nseeds: [2]", "run.yaml:2: 'seeds' and 'seed' are one key: give one of them"),
        ("tasks: [a]\ntrust_remote_code: true", "run.yaml:2: trust_remote_code is not for files: give the flag"),
        ("model: {name: hf, trust_remote_code: true}", "run.yaml:1: trust_remote_code is not for files"),
        ("- tasks", "run.yaml:1: a run file"), ("tasks: [", "run.yaml:1:9: broken YAML: "),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_line(text, line):
    with pytest.raises(TaskError) as caught:
        read(page(text))
    assert str(caught.value).startswith(line) and "\n" not in str(caught.value)


def test_every_option_of_one_value_can_come_from_the_environment():
    found, strays = from_environment({
        "ALIGNBENCH_DEVICE": "cpu", "ALIGNBENCH_LOG_SAMPLES": "true", "ALIGNBENCH_DRAWS": "8", "ALIGNBENCH_SEED": "",
        "ALIGNBENCH_SYSTEM_INSTRUCTION": "12", "HOME": "x", **dict.fromkeys(OTHERS, "x"),
    })  # fmt: skip
    assert found == {"device": "cpu", "log_samples": True, "draws": 8, "system_instruction": "12"} and not strays
    assert {"device", "batch_size", "draws", "output_path", "seed", "config"} <= set(SCALARS)


def test_a_variable_that_is_no_option_is_told():
    found, [line] = from_environment({"ALIGNBENCH_DEVCIE": "cpu"})
    assert not found and line.startswith("ALIGNBENCH_DEVCIE is not read. Did you mean 'ALIGNBENCH_DEVICE'?")
    for other in ("ALIGNBENCH_MODEL", "ALIGNBENCH_TRUST_REMOTE_CODE"):
        assert from_environment({other: "true"})[1][0].startswith(f"{other} is not read.")


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [("LIMIT", "0", "ALIGNBENCH_LIMIT=0: must be a whole number >= 1"),
     ("DRAWS", "x", "ALIGNBENCH_DRAWS=x: must be a whole number >= 1"),
     ("LOG_SAMPLES", "2", "ALIGNBENCH_LOG_SAMPLES=2: must be true or false")],
)  # fmt: skip
def test_a_wrong_value_in_a_variable(name, text, line):
    with pytest.raises(UsageError, match=line):
        from_environment({f"ALIGNBENCH_{name}": text})


def test_seeds_as_typed():
    assert seeds_of("0, 1,2") == [0, 1, 2]
    for wrong in ("0,x", "", "0,", "-1", "1.5", str(2**63)):
        with pytest.raises(UsageError, match=f"--seed {wrong}: must be a whole number >= 0 and below 2"):
            seeds_of(wrong)
    with pytest.raises(UsageError, match="--seed: 1 is there twice"):
        Job(tasks=("a",), seed=(1, 1))
    with pytest.raises(UsageError, match="--seed: none is given"):
        Job(tasks=("a",), seed=())
    assert Job(tasks=("a",), models=(Spec("exact"),), seed=4).seeds == (4,)
