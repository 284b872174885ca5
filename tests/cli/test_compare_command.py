"""`alignbench compare` as a user meets it: who is compared, in which format, and which exit code CI gets."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from alignbench.files import write_atomic
from alignbench.run.rows import read_evidence
from alignbench.store.packed import pack

TASK = """\
name: little
version: 1
summary: Sun always.
prompts: [rain, sun]
max_tokens: 4
draws: 12
features:
  sunny: {feature: contains_any, words: [sun]}
  length: {feature: length_tokens}
target:
  - {feature: sunny, always: true}
metrics: [perplexity, satisfaction, divergence]
"""
RUN = ("run", "--model", "exact", "--tasks", "little.yaml", "--output_path")


@pytest.fixture
def results(command, tmp_path, tmp_path_factory):
    """An output folder: the base, its rejection sampler, and a colder law; made once and copied."""
    made = tmp_path_factory.getbasetemp() / "compared"
    (tmp_path / "little.yaml").write_text(TASK)
    if not made.is_dir():
        said = command(*RUN, "first", "--aligner", "rejection", "--aligner", "temperature:t=0.5")
        assert said.code == 0, said.err
        shutil.copytree("first", made)
    shutil.rmtree("first", ignore_errors=True)
    shutil.copytree(made, "out")
    return Path("out")


def one_line(said, line, code):
    assert said.code == code and said.out == "", said
    assert len(said.err.splitlines()) == 1 and line in said.err and "Traceback" not in said.err, said.err


def test_labels_are_compared_in_their_order(command, results):
    said = command("compare", "out", "base", "rejection:cap=256")
    assert said.code == 0 and said.err == ""
    assert "little v1 · rejection:cap=256 beside base" in said.out and "prompts that moved most" in said.out
    line = next(line for line in said.out.splitlines() if line.startswith("always ↑"))
    assert line.split()[2] == "better" and "+" in line
    turned = command("compare", "out", "rejection:cap=256", "base")
    line = next(line for line in turned.out.splitlines() if line.startswith("always ↑"))
    assert line.split()[2] == "worse" and "-0." in line


def test_what_is_compared_can_be_chosen_and_called_otherwise(command, results):
    asked = ("--tasks", "lit*", "--columns", "satisfaction,kl_base", "--rename", "rejection*=exact sampler")
    said = command("compare", "out", "base", "rejection:cap=256", *asked)
    assert said.code == 0 and "little v1 · exact sampler beside base" in said.out, said.err
    assert "always ↑" in said.out and "perplexity" not in said.out.partition("prompts that")[0]
    fewer = command("compare", "out", "base", "rejection:cap=256", *asked, "--rows", "1")
    left = [line for line in fewer.out.splitlines() if line.endswith(" more")]
    assert left == ["1 more"] and "always ↑" in fewer.out and "kl_base" not in fewer.out.partition("prompts that")[0]


def test_folders_of_one_generator_need_no_labels(command, results):
    folders = [f"out/{name}" for name in ("exact", "exact+rejection_cap=256", "exact+temperature_t=0.5")]
    said = command("compare", *folders, "--format", "json")
    told = json.loads(said.out)
    assert said.code == 0 and told["baseline"] == "exact"
    assert [c["other"] for c in told["comparisons"]] == ["rejection:cap=256", "temperature:t=0.5"]
    for folder in ("one", "two"):
        shutil.copytree("out/exact+temperature_t=0.5", f"{folder}/exact+temperature_t=0.5")
    said = command("compare", "one", "two", "--format", "md")
    assert "temperature:t=0.5 in two beside temperature:t=0.5 in one" in said.out


def test_files_are_written_where_a_folder_is_given(command, results):
    said = command("compare", "out", "base", "temperature:t=0.5", "--out", "page")
    written = ", ".join(f"page/comparison.{kind}" for kind in ("md", "html", "json", "tex"))
    assert said.code == 0 and said.out == f"wrote {written}\n"
    text = Path("page/comparison.md").read_text()
    assert text.startswith("### little v1 · temperature:t=0.5 beside base") and "Signature: alignbench" in text
    paper = Path("page/comparison.tex").read_text()
    assert r"\caption{little v1" in paper and r"\input{comparison}" in paper and "difference:" in paper
    assert "leaderboard" not in paper and "prompts that moved" not in paper
    first = json.loads(Path("page/comparison.json").read_text())["comparisons"][0]
    assert {d["key"] for d in first["differences"]} >= {"satisfaction.always", "divergence.kl_target"}


@pytest.mark.parametrize(("gates", "code", "line"), [
    (["satisfaction.always"], 3, "more than 0 beyond doubt"),
    (["satisfaction.always:0.9"], 0, "not shown to be over 0.9"),
    (["perplexity"], 0, "not shown"),
    (["satisfaction.always", "perplexity"], 3, ""),
    (["divergence.kl_reverse"], 3, "∞"),
])  # fmt: skip
def test_a_gate_stops_what_is_worse_beyond_doubt(command, results, gates, code, line):
    words = [w for gate in gates for w in ("--fail_on_regression", gate)]
    said = command("compare", "out", "rejection:cap=256", "temperature:t=0.5", *words)
    assert said.code == code and line in said.err, said.err


def test_a_gate_says_better_and_the_same_in_words(command, results):
    """Planted: "better by 0.5 (at 95 % worse by at least -0.6)" and "better by 0"."""
    gate = ("--fail_on_regression", "satisfaction.always")
    said = command("compare", "out", "base", "rejection:cap=256", *gate)
    assert said.code == 0 and "is better by 0." in said.err and "(at 95 % better by at most 0." in said.err, said.err
    shutil.copytree("out/exact", "again")
    said = command("compare", "out/exact", "again", *gate)
    assert said.code == 0 and " is the same (" in said.err and "-0" not in said.err, said.err


@pytest.mark.parametrize(("words", "line"), [
    (["satisfaction.allways"], "unknown metric 'satisfaction.allways'. Did you mean 'satisfaction.always'?"),
    (["satisfaction.always:x"], "the margin a number from 0 on"),
    (["satisfaction.always:-1"], "the margin a number from 0 on"),
    (["divergence.zeta"], "unknown metric"),
])  # fmt: skip
def test_a_gate_that_means_nothing_is_refused(command, results, words, line):
    said = command("compare", "out", "base", "temperature:t=0.5", "--fail_on_regression", *words)
    one_line(said, line, 2)


def test_a_gate_that_cannot_be_judged_is_a_failure(command, results):
    """A generator without a density has no KL; planted: silence would let the checkpoint pass."""
    command(*RUN, "out", "--aligner", "best_of_n:n=30,rank=likelihood")
    said = command("compare", "out", "base", "best_of_n:n=30,rank=likelihood", "--fail_on_regression",
                   "divergence.kl_target")  # fmt: skip
    assert said.code == 1 and "could not be compared" in said.err, said.err


@pytest.mark.parametrize(("words", "line", "code"), [
    (["out", "base", "temprature:t=0.5"], "Did you mean 'temperature:t=0.5'?", 2),
    (["out"], "compare needs two generators or more. add labels of out: draws of p, base, rejection:cap=256", 2),
    (["out", "base"], "compare needs two generators or more", 2),
    (["out", "little"], "nor a row of the folders given", 2),
    (["nowhere", "base"], "'nowhere': is no folder", 2),
    (["out/exact", "out"], "out: holds several generators. add labels of out: ", 2),
    (["little.yaml", "out"], "little.yaml: is a file", 2),
    (["empty", "out"], "empty: holds no evidence_*.npz", 1),
    (["out", "base", "temperature:t=0.5", "--format", "pdf"], "unknown format 'pdf'", 2),
    (["out", "base", "temperature:t=0.5", "--format", "md,html"], "only one format can be printed", 2),
    (["out", "--series", "step"], "no rows have a training step", 2),
    (["out", "base", "temperature:t=0.5", "--tasks", "litle"], "unknown task 'litle'. Did you mean 'little'?", 2),
    (["out", "base", "temperature:t=0.5", "--columns", "kltarget"], "Did you mean 'kl_target'?", 2),
    (["out", "base", "temperature:t=0.5", "--rename", "bas=b"], "unknown row 'bas'. Did you mean 'base'?", 2),
    (["out", "base", "temperature:t=0.5", "--rename", "*=b"], "two rows would be called 'b'", 2),
    (["out", "base", "temperature:t=0.5", "--rows", "0"], "--rows 0: give 1 or more", 2),
    (["out", "--series", "step", "--rows", "3"], "they are not for --series", 2),
    (["out", "--series", "seed"], "unknown series 'seed'", 2),
    (["out", "--series", "step", "--fail_on_regression", "perplexity"], "not for --series", 2),
])  # fmt: skip
def test_what_cannot_be_compared_is_one_line(command, results, words, line, code):
    Path("empty").mkdir()
    one_line(command("compare", *words), line, code)


def test_another_version_of_the_task_is_told(command, results):
    Path("little.yaml").write_text(TASK.replace("version: 1", "version: 2").replace("max_tokens: 4", "max_tokens: 3"))
    assert command(*RUN, "new").code == 0
    said = command("compare", "out/exact", "new/exact")
    assert said.code == 1 and "the task's hash differs (version 1 and 2, 2 and 2 prompts)" in said.err
    assert said.err.splitlines()[-1] == "alignbench: nothing could be compared"


def test_a_damaged_file_is_told_and_the_rest_compared(command, results):
    for folder in ("one", "two"):
        shutil.copytree("out/exact", folder)
    Path("two/evidence_other_0.npz").write_bytes(b"nothing")
    said = command("compare", "one", "two")
    assert said.code == 1 and "two/evidence_other_0.npz: is not readable" in said.err and "little v1" in said.out


def test_a_damaged_generator_is_not_called_unknown_nor_replaced_by_the_base(command, results):
    """Planted: `compare out base LABEL` said that the label is no row, and `compare old new` compared a base."""
    shutil.copytree("out", "new")
    for path in Path("out").glob("exact+*/evidence_*.npz"):
        path.write_bytes(path.read_bytes()[:100])
    one_line(command("compare", "out", "base", "rejection:cap=256"), "is not readable (", 1)
    one_line(command("compare", "out", "base", "rejection:cap=256"), "; and so with 1 more", 1)
    one_line(command("compare", "out", "new/exact"), "out: holds no generator that could be read; out/exact+", 1)


def trained(folder, steps):
    """Laws as if they were checkpoints of a training."""
    for step, aligner in steps.items():
        path = next(Path(folder).glob(f"exact+{aligner}*/evidence_*.npz"))
        evidence, key = read_evidence(path)
        key = replace(key, generator=f"step-{step}", aligner="", step=step)
        write_atomic(Path(folder) / f"step-{step}" / path.name, pack({"key": asdict(key), "evidence": evidence}))


def test_checkpoints_are_a_curve_over_training(command, results):
    trained("out", {20: "rejection", 100: "temperature", 3: "temperature"})
    said = command("compare", "out", "--series", "step")
    assert said.code == 0 and said.err == "", said.err
    assert "little · step-* · satisfaction.always ↑" in said.out and "divergence.kl_base ↓" in said.out
    steps = [line.split()[0] for line in said.out.splitlines() if line[:1].isdigit()]
    assert steps[:3] == ["3", "20", "100"]
    told = json.loads(command("compare", "out", "--series", "step", "--format", "json").out)
    curve = next(c for c in told["series"][0]["curves"] if c["key"] == "satisfaction.always")
    first, second, third = curve["stops"]
    assert first["from_first"] is None and second["from_first"] == second["from_previous"]
    for stop, name, other in ((third, "from_previous", second), (third, "from_first", first)):
        gap = stop["estimate"]["value"] - other["estimate"]["value"]
        assert stop[name]["difference"]["value"] == pytest.approx(gap)
    one_line(command("compare", "out/step-3", "--series", "step"), "one checkpoint alone", 2)
