"""The command line as a user meets it: what works, and the one line that a mistake gets."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from models import tiny_gpt2 as save_gpt2

from alignbench.cli import progress as cli_progress
from alignbench.generators.law import Law
from alignbench.scoring.bench import Bench

TASK = """\
name: little
version: 1
summary: Sun always.
prompts: [rain, sun]
max_tokens: 4
draws: 24
features:
  sunny: {feature: contains_any, words: [sun]}
  length: {feature: length_tokens}
target:
  - {feature: sunny, always: true}
metrics: [perplexity, satisfaction, divergence, acceptance]
"""
BASIC = ("run", "--model", "exact", "--tasks", "little.yaml", "--output_path", "out")
BOTH = (*BASIC, "--aligner", "rejection", "--aligner", "best_of_n:n=3")
VARYING = ["digest", "run_id", "seconds", "measured"]  # what may differ between two runs of one thing


@pytest.fixture(autouse=True)
def task(tmp_path):
    path = tmp_path / "little.yaml"
    path.write_text(TASK)
    return path


def table(folder="out"):
    """The rows that a run wrote, without what is measured anew each time."""
    rows = pd.read_csv(Path(folder) / "leaderboard.csv")
    order = ["task", "generator", "aligner", "metric", "part"]
    return rows[rows.metric != "cost"].drop(columns=VARYING).sort_values(order).reset_index(drop=True)


def same(a, b):
    pd.testing.assert_frame_equal(a, b, rtol=0, atol=0)


def files(folder="out"):
    return sorted(str(p.relative_to(folder)) for p in Path(folder).rglob("*") if p.is_file())


def refused(said, line, code=2):
    """One line on standard error, nothing on standard output, no traceback, the right exit code."""
    assert said.code == code, said
    assert said.out == "" and "Traceback" not in said.err
    lines = said.err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("alignbench: "), said.err
    assert line in lines[0], said.err
    assert "None" not in lines[0] and len(lines[0]) < 600


# --- what works -------------------------------------------------------------------------------------------------------


def test_a_run_prints_and_writes_a_leaderboard(command):
    said = command(*BOTH)
    assert said.code == 0 and said.err == ""
    assert "little · exact · 2 prompts" in said.out and "rejection:cap=256" in said.out and "── base ──" in said.out
    names = files()
    assert {f"leaderboard.{e}" for e in ("csv", "md", "html", "tex", "json")} <= set(names)
    for folder in ("exact", "exact+rejection_cap=256", "exact+best_of_n_n=3"):
        kinds = [n.split("/")[1].split("_")[0] for n in names if n.startswith(f"{folder}/")]
        assert sorted(kinds) == ["evidence", "results", "run"]
    rows = table()
    assert set(rows.aligner.fillna("")) == {"", "rejection:cap=256", "best_of_n:n=3"}
    assert not [n for n in names if n.endswith((".tmp", ".pkl")) or "/." in n]


def test_the_same_command_again_draws_nothing_and_says_so(command, monkeypatch):
    command(*BOTH)
    before, listed = table(), files()
    monkeypatch.setattr(Law, "sample", _never)
    said = command(*BOTH)
    assert said.code == 0 and "nothing was drawn: every draw was found on disk" in said.err
    same(table(), before)
    assert files() == listed


def _never(*args, **more):
    raise AssertionError("a draw was made")


def test_dry_run_says_what_would_be_drawn_and_keeps_nothing(command):
    said = command(*BOTH, "--dry_run")
    assert said.code == 0 and said.err == "" and not Path("out").exists()
    first, *rows = (line for line in said.out.splitlines() if not re.search("about|foretold", line))
    took, whole = (line for line in said.out.splitlines() if "about" in line)
    assert first == "little v1: 2 prompts × 24 draws × at most 4 tokens = 192 tokens for each generator"
    assert [line.strip() for line in rows] == [
        "exact (base), and as many reference draws", "exact + rejection:cap=256", "exact + best_of_n:n=3",
    ]  # fmt: skip
    assert re.fullmatch(r"  about 0:0\d, by 32 draws at [\d,]+ tokens a second", took), took
    assert whole.startswith("in all about 0:0")


def test_dry_run_foretells_what_a_run_then_finds(command, task):
    """With few draws: the cells that are — of the base are those that were foretold; with many none is."""
    said = command(*BASIC, "--draws", 3, "--dry_run")
    lines = [line for line in said.out.splitlines() if line.startswith("  foretold of the base: ")]
    assert any("js: — (" in line and "draws of the target" in line and "needed" in line for line in lines), lines
    assert command(*BASIC, "--draws", 3).code == 0
    of_base = table().query("metric == 'divergence' and aligner.isna()")
    empty = of_base[of_base[["value", "ci_low", "ci_high"]].isna().all(axis=1)]
    foretold = {part for line in lines for part in line.partition("base: ")[2].partition(":")[0].split(", ")}
    assert foretold <= set(empty.part)
    assert "foretold" not in command(*BASIC, "--draws", 200, "--dry_run").out


def test_dry_run_misses_a_base_as_the_run_does(command):
    said = command("run", "--tasks", "lexical_word", "--dry_run")
    assert said.code == 2 and "task 'lexical_word' brings no base of its own: give --model" in said.err


@pytest.mark.parametrize(
    "wrong",
    [("--aligner", "bestofn"), ("--tasks", "litle"), ("--model", "exct"), ("--base", "hf:pretrained=./not/there")],
)
def test_dry_run_finds_mistakes(command, wrong):
    assert command(*BASIC, *wrong, "--dry_run").code == 2


def test_dry_run_of_a_task_with_proposals_is_of_the_base_alone(command):
    said = command("run", "--tasks", "exact_proposals", "--dry_run")
    assert said.code == 0 and "in all about" in said.out and "Pilot" not in said.out


def test_a_wrong_name_told_late_loses_no_table(command):
    said = command(*BASIC, "--rename", "nope=x")
    assert said.code == 2 and "unknown row 'nope'" in said.err and "── base ──" in said.out and "wrote out" in said.out


def test_limit_and_draws(command):
    assert command(*BASIC, "--limit", 1, "--draws", 7, "--log_samples").code == 0
    sample = next(Path("out/exact").glob("samples_little_*.jsonl"))
    docs = [json.loads(line) for line in sample.read_text().splitlines()]
    assert [(d["doc_id"], d["index"]) for d in docs] == [(0, i) for i in range(7)]
    numbers = json.loads(next(Path("out/exact").glob("results_*.json")).read_text())
    assert numbers["n-samples"]["little"]["effective"] == 1 and numbers["config"]["limit"] == 1


LM_EVAL = {"doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics", "doc_hash",
           "prompt_hash", "target_hash"}  # lm-eval 0.4's samples_*.jsonl  # fmt: skip
OURS = {
    "index",
    "token_ids",
    "finished",
    "features",
    "log_prob",
    "log_base",
    "log_target",
    "log_gen",
    "log_judge",
    "kl_base",
}


def test_samples_have_lm_evals_fields_and_ours(command):
    command(*BOTH, "--log_samples")
    for path in Path("out").glob("*/samples_little_*.jsonl"):
        for line in path.read_text().splitlines():
            doc = json.loads(line, parse_constant=_never)
            assert doc.keys() == LM_EVAL | OURS
            assert doc["resps"] == [doc["filtered_resps"]] and doc["doc"]["prompt"] in ("rain", "sun")
            assert doc["features"]["sunny"] == float("sun" in doc["filtered_resps"][0].split())
            assert doc["features"]["length"] == len(doc["token_ids"])
            assert doc["log_target"] == (doc["log_base"] if doc["features"]["sunny"] else "-inf")
    assert len(list(Path("out").glob("*/samples_*"))) == 3


def test_samples_asked_for_later_are_written(command):
    """The draws are there; only --log_samples is new."""
    command(*BASIC)
    assert command(*BASIC, "--log_samples").code == 0
    command(*BASIC, "--log_samples")
    assert len(list(Path("out").glob("exact/samples_*"))) == 1


def test_json_files_are_strict(command):
    command(*BOTH)
    for path in [*Path("out").rglob("*.json")]:
        json.loads(path.read_text(), parse_constant=_never)


def test_hyphens_are_underscores(command):
    said = command("run", "--model", "exact", "--tasks", "little.yaml", "--output-path", "out", "--log-samples",
                   "--batch-size", "7", "--dry-run")  # fmt: skip
    assert said.code == 0 and "little v1" in said.out


@pytest.mark.parametrize("size", [1, 7, 64])
def test_batch_size_changes_no_row(command, size):
    command(*BOTH)
    command(*(w if w != "out" else "other" for w in BOTH), "--batch_size", size)
    same(table("other"), table())


def test_batch_size_changes_no_row_of_a_real_network(command, tiny_gpt2):
    """Log-probabilities agree within 1e-4 nats across batch shapes; draws exactly."""
    tables = []
    for size in (1, 7, 64):
        words = (
            "run",
            "--model",
            "hf",
            "--model_args",
            f"pretrained={tiny_gpt2}",
            "--tasks",
            "little.yaml",
            "--draws",
            8,
        )
        said = command(
            *words, "--output_path", f"o{size}", "--batch_size", size, "--log_samples", "--gen_kwargs", "top_k=9"
        )
        assert said.code == 0, said.err
        tables.append(table(f"o{size}"))
    words = [found.pop("replicates").fillna("") for found in tables]
    for other, said in zip(tables[1:], words[1:], strict=True):
        pd.testing.assert_frame_equal(other, tables[0], atol=1e-3, rtol=1e-3)
        for some, first in zip(said, words[0], strict=True):
            np.testing.assert_allclose([*map(float, some.split())], [*map(float, first.split())], atol=1e-3, rtol=1e-3)
    texts = [[json.loads(line)["resps"] for path in sorted(Path(f"o{size}").glob("*/samples*")) for line in
              path.read_text().splitlines()] for size in (1, 7, 64)]  # fmt: skip
    assert texts[0] == texts[1] == texts[2]


def test_score_recomputes_the_same_rows_without_a_model(command, monkeypatch):
    command(*BOTH)
    before = table()
    for file in Path("out").glob("leaderboard.*"):
        file.unlink()
    monkeypatch.setattr(Law, "sample", _never)
    monkeypatch.setattr(Law, "log_prob", _never)
    said = command("score", "out")
    assert said.code == 0 and "── base ──" in said.out
    same(table(), before)


def test_score_loads_no_model_library(command, tmp_path):
    command(*BASIC)
    script = (
        "import sys\nfrom alignbench.cli import main\nsys.argv = ['alignbench', 'score', 'out']\ntry:\n    main()\n"
        "except SystemExit as end:\n    sys.exit(end.code or ('transformers' in sys.modules) * 7)"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True).returncode == 0


def test_score_sees_an_edited_metric(command, registries, monkeypatch):
    from alignbench import Estimate

    command(*BASIC)
    entry = registries["metrics"]["perplexity"]
    monkeypatch.setattr("alignbench.registry.metric.entries", dict(registries["metrics"].entries))
    registries["metrics"].entries["perplexity"] = type(entry)("perplexity", lambda evidence: Estimate(42.0), entry.meta)
    assert command("score", "out").code == 0
    rows = table()
    assert (rows[rows.metric == "perplexity"].value == 42.0).all() and len(rows[rows.metric == "divergence"])


def test_score_of_two_runs_keeps_both(command):
    command(*BASIC)
    command(*BASIC, "--aligner", "temperature:t=0.5")
    command("score", "out")
    assert set(table().aligner.fillna("")) == {"", "temperature:t=0.5"}


def test_a_failing_aligner_does_not_lose_the_others(command):
    said = command(*BASIC, "--aligner", "prompt:text=zebra", "--aligner", "best_of_n:n=3")
    assert said.code == 2 and "Traceback" not in said.err and len(said.err.splitlines()) == 1
    assert "little: exact + prompt:text=zebra: prompt 'zebra rain': the world has no word 'zebra'" in said.err
    assert "best_of_n:n=3" in said.out and "best_of_n:n=3" in set(table().aligner)


def test_a_cap_that_keeps_nothing_of_a_prompt_is_a_failure_of_that_row_alone(command, task):
    task.write_text(TASK.replace("words: [sun]", "words: [zebra]"))
    said = command(*BASIC, "--aligner", "rejection:cap=3")
    assert said.code == 1 and "little: exact + rejection:cap=3: little: " not in said.err
    assert (
        "every one of 24 draws of prompt 'rain' used up its 3 proposals; raise the cap (of sir: n) or ask for less"
        in said.err
    )
    assert "── base ──" in said.out and "nan" not in said.out.lower()


def test_ls_and_validate_and_version(command, task):
    for what, name in (("tasks", "lexical_word"), ("aligners", "best_of_n"), ("generators", "exact"),
                       ("features", "contains_any"), ("metrics", "divergence")):  # fmt: skip
        said = command("ls", what)
        assert said.code == 0 and name in said.out and said.err == ""
    assert "little" in command("ls", "tasks", "--include_path", ".").out
    said = command("ls", "aligners").out
    assert "steps=200" in said and "steps=None" not in said and "n=16" in said
    said = command("validate", "little.yaml", "lexical_*")
    assert (
        said.code == 0 and "little v1: ok, 2 prompts × 24 draws, 4 tokens, #" in said.out and "lexical_word" in said.out
    )
    assert command("--version").out.startswith("alignbench 0.")
    assert command("ls", "taks").code == 2 and "Did you mean 'tasks'?" in command("ls", "taks").err


def test_validate_goes_on_after_a_broken_task(command):
    Path("broken.yaml").write_text("name: [\n")
    said = command("validate", "broken.yaml", "little.yaml", "litle")
    assert said.code == 2 and "little v1: ok" in said.out and len(said.err.splitlines()) == 2
    assert said.err.startswith("alignbench: broken.yaml:2:1: broken YAML: ")


def test_a_run_file_and_the_file_that_a_run_leaves(command):
    """The second run is of the file that the first wrote: the same rows, and nothing is drawn."""
    Path("run.yaml").write_text("model: exact\naligner: rejection\ntasks: little.yaml\nseed: [0, 1]\nbatch_size: 7\n")
    said = command("run", "--config", "run.yaml", "--output_path", "out")
    assert said.code == 0, said.err
    assert "seed 0" not in said.out and "|seeds:0,1|" in command("leaderboard", "out", "--full").out
    [saved] = Path("out").glob("config_*.yaml")
    before = table()
    again = command("run", "--config", saved)
    assert again.code == 0 and "nothing was drawn" in again.err and list(Path("out").glob("config_*.yaml")) == [saved]
    same(table(), before)
    of_run = json.loads(next(Path("out/exact").glob("run_*.json")).read_text())["config"]["job"]
    assert of_run["seed"] == [0, 1] and of_run["model"] == [{"name": "exact"}]
    assert json.loads(next(Path("out/exact").glob("results_*.json")).read_text())["config"]["batch_size"] == 7


def test_a_leaderboard_of_several_seeds_is_scored_again_alike(command):
    command(*BASIC)
    assert command(*BASIC, "--seed", "0,1,2").code == 0
    before = table()
    assert set(before.seeds.dropna()) == {3} and command("score", "out").code == 0
    order = ["task", "generator", "metric", "part", "seed"]
    same(*(t.sort_values(order).reset_index(drop=True) for t in (table(), before)))


def test_the_environment_is_read_and_a_misspelt_variable_is_told(command, monkeypatch):
    monkeypatch.setenv("ALIGNBENCH_DRAWS", "5")
    monkeypatch.setenv("ALIGNBENCH_DEVCIE", "cpu")
    said = command(*BASIC, "--dry_run")
    assert said.code == 0 and "2 prompts × 5 draws" in said.out
    assert "alignbench: ALIGNBENCH_DEVCIE is not read. Did you mean 'ALIGNBENCH_DEVICE'?" in said.err


def test_a_glob_without_a_match_beside_a_good_model(command):
    said = command(*BASIC, "--model", "hf:pretrained=ckpts/step-*")
    assert said.code == 2 and len(said.err.splitlines()) == 1 and "── base ──" in said.out
    assert "ckpts/step-*: matches nothing" in said.err


# --- what bad input gets ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--tasks", "lexical_wrd"), "unknown task 'lexical_wrd'. Did you mean 'lexical_word'?"),
        (("--tasks", "litle.yaml"), "litle.yaml: cannot be read: No such file or directory"),
        (("--aligner", "best_of_m"), "unknown aligner 'best_of_m'. Did you mean 'best_of_n'?"),
        (("--aligner", "best_of_n:m=3"), "unknown argument 'm'. Known: n, proposal, rank."),
        (("--aligner", "best_of_n:n=0"), "best_of_n:n=0: must be a whole number >= 1"),
        (("--aligner", "best_of_n:16"), "--aligner 'best_of_n': '16' is not key=value"),
        (("--aligner", "prompt"), "'prompt' needs the argument 'text'"),
        (("--aligner", "temperature:t=hot"), "argument 't': input should be a valid number"),
        (("--aligner", "{name: prompt, text: ["), "--aligner: not valid YAML"),
        (("--model", "exat"), "unknown generator 'exat'. Did you mean 'exact'?"),
        (("--model", "exact:ordr=2"), "unknown argument 'ordr'. Did you mean 'order'?"),
        (("--model", "hf"), "'hf' needs the argument 'pretrained'"),
        (("--base", "exat"), "unknown generator 'exat'. Did you mean 'exact'?"),
        (("--judge", "exat"), "unknown generator 'exat'. Did you mean 'exact'?"),
        (("--judge", "exact:ordr=2"), "unknown argument 'ordr'. Did you mean 'order'?"),
        (("--gen_kwargs", "temprature=2"), "--gen_kwargs: unknown argument 'temprature'. Did you mean 'temperature'?"),
        (("--gen_kwargs", "temperature=0"), "temperature=0: must be above 0"),
        (("--gen_kwargs", "top_p=2"), "top_p=2: must be in (0, 1]"),
        (("--seed", "9" * 20), "must be a whole number >= 0 and below 2^63"),
        (("--seed", "0,x"), "--seed 0,x: must be a whole number >= 0"),
        (("--config", "nowhere.yaml"), "nowhere.yaml: cannot be read: No such file or directory"),
        (("--include_path", "nowhere"), "nowhere: no such file or folder"),
        (("--batch_size", "many"), "--batch_size many: must be auto or a whole number >= 1"),
        (("--batch_size", "0"), "--batch_size 0: must be auto or a whole number >= 1"),
    ],
)  # fmt: skip
def test_a_mistake_gets_one_line_and_exit_2(command, words, line):
    given = list(BASIC)
    for flag in ("--tasks", "--model"):
        if words[0] == flag:
            at = given.index(flag)
            del given[at : at + 2]
    said = command(*given, *words)
    refused(said, line)
    assert not list(Path().glob("out/draws/*"))


def test_an_unknown_metric_in_a_task(command, task):
    task.write_text(TASK.replace("perplexity", "perplexty"))
    refused(command(*BASIC), "little.yaml:12: unknown metric 'perplexty'. Did you mean 'perplexity'?")


def test_an_unknown_option_gets_the_nearest(command):
    said = command(*BASIC, "--aligners", "rejection")
    assert said.code == 2 and "--aligner" in said.err and "Traceback" not in said.err
    said = command("rum")
    assert said.code == 2 and "'run'" in said.err.replace('"', "'")


@pytest.mark.parametrize(
    ("words", "part"),
    [(("--draws", "0"), "draws"), (("--limit", "0"), "limit"), (("--seed", "-1"), "seed"), (("--draws", "x"), "draws")],
)
def test_numbers_out_of_range(command, words, part):
    said = command(*BASIC, *words)
    assert said.code == 2 and part in said.err and "Traceback" not in said.err


def test_no_task_and_no_model(command):
    refused(command("run", "--model", "exact"), "no --tasks given; `alignbench ls tasks` lists them")
    refused(command("run", "--tasks", "little.yaml"), "task 'little' brings no base of its own: give --model")
    refused(command("run", "--model_args", "order=2", "--tasks", "little.yaml"), "--model_args without --model")
    refused(
        command(*BASIC, "--model", "exact", "--model_args", "order=2"), "2 --model but 1 --model_args: give one for"
    )


def test_a_folder_without_a_model(command, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{}")
    words = ("run", "--model", "hf", "--tasks", "little.yaml", "--output_path", "out", "--model_args")
    refused(command(*words, "pretrained=./empty"), "./empty: no model in this folder (config.json is missing)")
    refused(command(*words, "pretrained=./nowhere"), "./nowhere: no such folder")
    refused(command(*words, "pretrained=x.gguf"), "x.gguf: no such file")
    refused(command(*words, "pretrained=./broken"), "./broken: cannot be loaded as a language model: ")
    refused(command(*words, "pretrained=./empty,dtype=float31"), "dtype 'float31'. Did you mean 'float32'?")
    refused(command(*words, "pretrained=./empty", "--device", "gpu"), "device 'gpu'")


def test_pickled_weights_are_not_loaded(command, tmp_path):
    import torch

    folder = save_gpt2(tmp_path / "pickled")
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    words = ("run", "--model", "hf", "--model_args", f"pretrained={folder}", "--tasks", "little.yaml")
    refused(command(*words), "its weights are a pickle (pytorch_model.bin); ")


def test_broken_yaml_has_its_line(command, task):
    task.write_text(TASK.replace("draws: 24", "draws: [24"))
    refused(command(*BASIC), "little.yaml:7:9: broken YAML: ")
    task.write_text(TASK.replace("max_tokens: 4", "max_tokens: 0"))
    refused(command(*BASIC), "little.yaml:5: max_tokens must be at least 1, not 0")
    task.write_text(TASK.replace("draws: 24", "drws: 24"))
    refused(command(*BASIC), "little.yaml:6: unknown key 'drws'. Did you mean 'draws'?")


def test_a_prompt_longer_than_the_window_is_found_before_sampling(command, task, tmp_path, monkeypatch):
    monkeypatch.setattr(Law, "sample", _never)
    folder = save_gpt2(tmp_path / "short", window=8)
    task.write_text(TASK.replace("[rain, sun]", "[rain, sun sun sun sun sun sun]"))
    said = command("run", "--model", "hf", "--model_args", f"pretrained={folder}", "--tasks", "little.yaml",
                   "--output_path", "out")  # fmt: skip
    refused(said, "prompt 'sun sun sun sun sun sun' has 6 tokens; with max_tokens 4 that is more than the model's "
            "context window of 8")  # fmt: skip


def test_two_tokenizers_are_refused_and_the_base_goes_on(command, tiny_gpt2, tmp_path):
    other = save_gpt2(tmp_path / "other", vocab=20)
    words = ("--model", "hf", "--model_args", f"pretrained={tiny_gpt2}", "--model_args", f"pretrained={other}")
    said = command("run", *words, "--tasks", "little.yaml", "--output_path", "out")
    assert said.code == 2 and len(said.err.splitlines()) == 1
    assert "have different tokenizers: a KL divergence between them is not defined" in said.err
    assert set(table().generator) <= {"tiny-gpt2", "draws of p"}


def test_two_models_of_one_tokenizer_are_two_rows(command, tiny_gpt2, tiny_llama):
    words = ("--model", "hf", "--model_args", f"pretrained={tiny_gpt2}", "--model_args", f"pretrained={tiny_llama}")
    said = command("run", *words, "--tasks", "little.yaml", "--output_path", "out")
    assert said.code == 0, said.err
    assert set(table().generator) >= {"tiny-gpt2", "tiny-llama"}


@pytest.mark.parametrize("place", ["taken", "taken/deep/er", "taken/."])
def test_an_output_path_that_cannot_be_written_is_found_before_sampling(command, place, monkeypatch):
    monkeypatch.setattr(Law, "sample", _never)
    Path("taken").write_text("a file in its place")
    said = command(*(w if w != "out" else place for w in BASIC))
    refused(said, "cannot be written: ", code=1)
    assert "taken" in said.err and Path("taken").read_text() == "a file in its place"


@pytest.mark.parametrize("damage", [b"", b"garbage", b"PK\x03\x04"])
def test_a_damaged_evidence_file_is_one_line(command, damage):
    command(*BASIC)
    path = next(Path("out/exact").glob("evidence_*.npz"))
    path.write_bytes(damage)
    said = command("score", "out")  # the other rows are shown
    assert said.code == 1 and f"{path}: is not readable (" in said.err and "draws of p" in said.out
    said = command(*BASIC)  # the draws are there: the evidence is made again
    assert said.code == 0 and "nothing was drawn" in said.err
    assert command("score", "out").code == 0


def test_score_of_nothing(command, tmp_path):
    (tmp_path / "empty").mkdir()
    refused(command("score", "empty"), "empty: holds no results", code=1)
    refused(command("score", "nowhere"), "nowhere: holds no results", code=1)


def test_nothing_in_a_task_is_executed(command, task):
    task.write_text(TASK.replace("Sun always.", "!!python/object/apply:os.system ['touch pwned']"))
    refused(command(*BASIC), "little.yaml:3:10: broken YAML: could not determine a constructor")
    assert not Path("pwned").exists()


# --- plug-ins ---------------------------------------------------------------------------------------------------------

PLUGIN = """\
import numpy as np
from alignbench import Draws, generator

class Coin:
    name = "coin"
    def identity(self):
        return {"coin": 1}
    def sample(self, prompts, rows, *, max_tokens, seed):
        heads = np.array([seed.rng(prompts[c], i).random() < 0.5 for c, i in rows])
        yield Draws(prompt=rows[:, 0], index=rows[:, 1], texts=tuple(" sun" if h else " fog" for h in heads),
                    tokens=None, length=np.full(len(rows), 2), finished=np.ones(len(rows), bool), log_prob=None,
                    token_log_prob=None, model_log_prob=None)

@generator
def coin(*, batch_size="auto", device="auto", dtype="auto"):
    "A coin."
    return Coin()
"""

DENSITY = """\
from alignbench import generator
from alignbench.generators.exact.world import exact

class Twin:
    name = "twin"
    def __init__(self): self.law = exact(seed=5)
    def identity(self): return {"twin": 1}
    def sample(self, *args, **more): return self.law.sample(*args, **more)
    def log_prob(self, prompts, draws): return self.law.log_prob(prompts, draws)

@generator
def twin():
    "Has a density, and nothing else."
    return Twin()
"""


def value(rows, generator, metric, part):
    found = rows[(rows.generator == generator) & (rows.metric == metric) & (rows.part == part)]
    assert len(found) == 1, (generator, metric, part)
    return found.iloc[0]


def test_a_black_box_plug_in_has_dashes_with_reasons_and_bounds(command):
    Path("mine.py").write_text(PLUGIN)
    said = command(*BASIC, "--model", "coin", "--include_path", ".")
    assert said.code == 0, said.err
    assert "coin" in command("ls", "generators", "--include_path", ".").out
    mine = table()[table().generator == "coin"]
    kl = mine[mine.metric == "divergence"]
    of_p = ["kl_target", "kl_reverse", "tv", "log_z", "kl_asked", "kl_asked_vs_base"]  # by features, or of the base
    rest = kl[~kl.part.isin(of_p)]
    assert rest.value.isna().all() and rest.ci_low.isna().all() and rest.ci_high.isna().all() and len(rest)
    assert all("tokens are not the base's" in note for note in rest.note)
    bound = value(table(), "coin", "divergence", "kl_target")
    assert np.isnan(bound.value) and bound.ci_low > 0 and "lower limit by 2 cells" in bound.note
    assert value(table(), "coin", "divergence", "kl_reverse").value == np.inf
    assert value(table(), "coin", "satisfaction", "always").value == pytest.approx(0.5, abs=0.3)
    assert "nothing was drawn" in command(*BASIC, "--model", "coin", "--include_path", ".").err


def test_a_plug_in_with_a_density_gets_its_divergences(command):
    Path("mine.py").write_text(DENSITY)
    said = command(*BASIC, "--model", "twin", "--include_path", "mine.py", "--draws", 400)
    assert said.code == 0, said.err
    row = value(table(), "twin", "divergence", "kl_base")
    assert row.exact > 0.1 and abs(row.value - row.exact) < 4 * row.stderr
    row = value(table(), "twin", "divergence", "kl_target")
    assert abs(row.value - row.exact) < 4 * row.stderr


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("yield Draws(", "raise ValueError('no luck')\n        yield Draws(", "no luck"),
        ("yield Draws(", "return iter(())\n        yield Draws(", "coin"),
        ("return Coin()", "return 3", "coin"),
        ("tuple(\" sun\" if h else \" fog\" for h in heads)", "()", "coin"),
        ("rows[:, 1]", "rows[:, 1] + 1", "coin"),
        ("yield Draws(", "rows = rows[1:]\n        heads = heads[1:]\n        yield Draws(", "coin"),
    ],
)  # fmt: skip
def test_a_plug_in_that_misbehaves_is_one_line(command, old, new, line):
    assert old in PLUGIN
    Path("mine.py").write_text(PLUGIN.replace(old, new))
    said = command(*BASIC, "--model", "coin", "--include_path", ".")
    assert said.code != 0 and "Traceback" not in said.err and line in said.err and len(said.err.splitlines()) == 1


# --- Ctrl-C -----------------------------------------------------------------------------------------------------------


def test_an_interruption_keeps_the_draws_and_the_same_command_goes_on(command, monkeypatch):
    words = (*BOTH, "--batch_size", "10")
    command(*(w if w != "out" else "whole" for w in words))
    sample, done = Law.sample, []

    def stops(self, *args, **more):
        for batch in sample(self, *args, **more):
            if len(done) == 7:
                raise KeyboardInterrupt
            done.append(len(batch))
            yield batch

    monkeypatch.setattr(Law, "sample", stops)
    said = command(*words)
    assert (
        said.code == 130 and "interrupted; the draws so far are in out: the same command goes on from there" in said.err
    )
    assert "Traceback" not in said.err
    assert [json.loads(p.read_text())["status"] for p in Path("out").glob("*/run_*.json")] == ["interrupted"]
    monkeypatch.setattr(Law, "sample", sample)
    fresh = []
    monkeypatch.setattr(Bench, "draw", _counting(Bench.draw, fresh))
    assert command(*words).code == 0
    assert fresh[0] == 0 and sum(fresh) > 0  # the reference draws were found, the rest drawn
    same(table(), table("whole"))


def _counting(draw, fresh):
    def counted(self, *args, **more):
        stored = draw(self, *args, **more)
        fresh.append(stored.fresh)
        return stored

    return counted


ONE_BY_ONE = """\
    def sample(self, prompts, rows, **more):
        import time
        for k in range(len(rows)):
            time.sleep(0.02)
            yield from self.one(prompts, rows[k : k + 1], **more)
    def one(self, prompts, rows, *,"""
SLOW = PLUGIN.replace("    def sample(self, prompts, rows, *,", ONE_BY_ONE)


def test_a_real_interrupt_signal(tmp_path):
    (tmp_path / "mine.py").write_text(SLOW)
    words = [sys.executable, "-m", "alignbench", *BASIC, "--model", "coin", "--include_path", "."]
    running = subprocess.Popen(  # a shell's background job would ignore the signal, and so would its children
        words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "COLUMNS": "160"}, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    deadline = time.monotonic() + 40
    while not _parts_of(tmp_path, "coin") and time.monotonic() < deadline and running.poll() is None:
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=30)
    assert running.returncode == 130, err
    assert err.strip().splitlines()[-1].startswith("alignbench: interrupted; the draws so far are in out"), err
    assert "Traceback" not in err
    kept = _parts_of(tmp_path, "coin")
    assert 0 < len(kept) < 48
    again = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "coin" in again.stdout and set(kept) < set(_parts_of(tmp_path, "coin"))


def _parts_of(folder, name):
    keys = [k for k in folder.glob("out/draws/*/key.json") if name in k.read_text()]
    return [p for k in keys for p in k.parent.glob("part-*.npz")]


def test_exit_codes_of_the_script(tmp_path):
    def code(*words):
        done = subprocess.run(
            [sys.executable, "-m", "alignbench", *words], cwd=tmp_path, capture_output=True, text=True
        )
        assert "Traceback" not in done.stderr
        return done.returncode

    assert [code("--help"), code("run", "--tasks", "nope"), code("score", "nowhere")] == [0, 2, 1]


# --- what a folder of several runs may not mix up


def test_a_task_may_not_ask_to_run_a_repository_s_code(command, task, tmp_path):
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / "config.json").write_text("{}")
    task.write_text(TASK + "base: {name: hf, pretrained: evil, trust_remote_code: true}\n")
    refused(command(*BASIC), "trust_remote_code is not an argument; give the flag --trust_remote_code")
    words = ["run", "--model", "hf", "--model_args", "pretrained=evil,trust_remote_code=no", "--tasks", "little.yaml"]
    refused(command(*words), "trust_remote_code is not an argument")


def test_score_uses_the_metrics_of_the_latest_run_for_every_row(command, task):
    plain = TASK.partition("metrics:")[0]
    task.write_text(plain + "metrics: [{metric: distinct, draws: 4, words: 1}, divergence]\n")
    assert command(*BASIC).code == 0
    task.write_text(plain + "metrics: [{metric: distinct, draws: 2, words: 1}]\n")
    said = command(*BASIC)
    assert "nothing was drawn" in said.err
    notes = {n for n in _rows("out").note if "blocks of" in n}
    assert command("score", "out").code == 0
    again = _rows("out")
    assert {n for n in again.note if "blocks of" in n} == notes
    assert not any("blocks of 4" in n for n in again.note) and set(again.metric) == {"distinct"}


def test_tables_never_mix_two_bases_of_one_name(command):
    for seed in (1, 2):
        words = ["run", "--base", f"exact:seed={seed}", "--model", f"exact:seed={seed}", "--tasks", "little.yaml"]
        assert command(*words, "--output_path", "out").code == 0
    assert command("score", "out").code == 0
    rows = _rows("out")
    assert rows.base_id.nunique() == rows.target_id.nunique() == 2
    assert Path("out/leaderboard.md").read_text().count("### little v1") == 2


def _rows(folder):
    from pathlib import Path

    from alignbench.reports.rows import read_rows

    return read_rows(Path(folder) / "leaderboard.csv")


@pytest.mark.parametrize(("what", "key"), [("run", "seed"), ("task", "prompts")])
def test_schema_prints_a_json_schema(command, what, key):
    said = command("schema", what)
    found = json.loads(said.out)
    assert said.code == 0 and key in found["properties"] and found["additionalProperties"] is False
    assert all(told.get("description") for told in found["properties"].values())


def test_schema_of_something_else(command):
    refused(command("schema", "tsk"), "unknown kind of file 'tsk'. Did you mean 'task'?")


def test_rows_have_names_and_aligners_tasks(command, task):
    """`name=` is what a row is called, `tasks=` where an aligner is run; the run file that is left says both."""
    Path("other.yaml").write_text(TASK.replace("name: little", "name: other"))
    said = command(*BASIC, "--tasks", "other.yaml", "--aligner", "best_of_n:n=3,name=best", "--aligner",
                   "rejection:tasks=oth*", "--model_args", "name=world")  # fmt: skip
    assert said.code == 0, said.err
    rows = pd.read_csv("out/leaderboard.csv", keep_default_na=False)
    found = set(zip(rows.task, rows.generator, rows.aligner, strict=True)) - {
        ("little", "draws of p", ""),
        ("other", "draws of p", ""),
    }
    assert found == {(t, "world", a) for t, a in [("little", ""), ("little", "best"), ("other", ""), ("other", "best"),
                                                  ("other", "rejection:cap=256")]}  # fmt: skip
    [saved] = Path("out").glob("config_*.yaml")
    again = command("run", "--config", saved)
    assert again.code == 0 and "nothing was drawn" in again.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--aligner", "rejection:tasks=litle"], "Did you mean 'little'?"),
        (["--aligner", "rejection:name=a", "--aligner", "best_of_n:n=2,name=a"], "two aligners are called 'a'"),
        (["--aligner", "rejection:name="], "is what its row is called"),
        (["--model_args", "tasks=little"], "tasks= is for aligners"),
    ],
)
def test_names_and_tasks_that_mean_nothing(command, words, said):
    refused(command(*BASIC, *words), said)


def test_a_task_is_shown_to_copy(command, task):
    assert command("show", "little.yaml").out == TASK
    refused(command("show", "exact"), "stands for 5 tasks")
    refused(command("show", "exact_ngrm"), "Did you mean 'exact_ngram'?")
    assert command("validate", "quick").out.count(": ok") == 3


def test_a_model_that_is_no_generator_is_one_of_the_hub(command):
    refused(command("run", "--model", "gpt2", "--tasks", "little.yaml"), "--model hf:pretrained=gpt2")


def test_without_a_terminal_long_work_says_how_far_it_is(capsys, monkeypatch):
    clock = iter([0.0, 10.0, 31.0, 40.0, 62.0])
    monkeypatch.setattr(cli_progress.time, "monotonic", lambda: next(clock))
    with cli_progress.progress("little: best_of_n", 400) as advance:
        for _ in range(4):
            advance(50)
    told = [f"alignbench: little: best_of_n: {said} left" for said in ("100 of 400, 1:33", "200 of 400, 1:02")]
    assert capsys.readouterr().err.splitlines() == told
