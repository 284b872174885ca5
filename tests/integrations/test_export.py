"""`alignbench export`: from a run to files for others, and the hub's evaluation results."""

from __future__ import annotations

import json

import huggingface_hub
import pytest
import yaml
from published_rows import table, unit

from alignbench.integrations import hub
from alignbench.integrations.eval_results import pages
from alignbench.reports.rows import read_rows, write_rows

PRIMARY = {"words": "divergence.kl_target"}


def test_evaluation_results_are_what_the_hub_reads():
    other = unit("greedy", seed=1, measured="2026-03-01T00:00:00+00:00", target_id="7a49e701")
    texts, absent = pages(table(unit(), unit("greedy"), other, unit(generator="draws of p")), "me/stories", PRIMARY)
    assert absent == [] and list(texts) == [
        "SmolLM2/.eval_results/me__stories.yaml", "SmolLM2_+_greedy/.eval_results/me__stories.yaml"
    ]  # fmt: skip
    base, greedy = (huggingface_hub.parse_eval_result_entries(yaml.safe_load(text)) for text in texts.values())
    (entry,) = base
    assert (entry.dataset_id, entry.task_id, entry.value) == ("me/stories", "words", 1 / 3)
    assert entry.notes.startswith(
        "divergence.kl_target [0.10, 0.70] (95 %), lower is better; alignbench|task:words.v1#"
    )
    assert len(greedy) == 1 and "; aligner greedy; mean of 2 seeds (0, 1)" in greedy[0].notes
    assert set(yaml.safe_load(next(iter(texts.values())))[0]) == {"dataset", "value", "date", "notes"}


def test_infinity_and_nothing_make_no_entry():
    texts, absent = pages(table(unit("a"), unit("b")), "me/x", {"words": "divergence.kl_reverse"})
    assert texts == {} and absent[0] == "words: SmolLM2 + a: divergence.kl_reverse has no finite value: no entry"
    assert len(pages(table(unit()), "me/x", {"words": "divergence.tv"})[1]) == 1
    assert len(pages(table(unit()), "me/x", {"words": "mauve"})[1]) == 1


@pytest.fixture
def rows(tmp_path):
    write_rows(tmp_path / "in.csv", table(unit(), unit("greedy"), unit("hf:/home/me/x"), unit("sir:n=4", draws=8)))
    return tmp_path / "in.csv"


def test_csv(command, rows, tmp_path):
    done = command("export", rows, "--out", "reference")
    assert done.code == 1 and done.out == "wrote reference/words.csv\n"
    refused, few = sorted(done.err.splitlines(), key=lambda line: "64" in line)
    assert "hf:/home/me/x: not exported: its aligner tells of this machine" in refused
    assert "sir:n=4: 32 draws, 64 are asked of a published cell" in few
    written = read_rows(tmp_path / "reference" / "words.csv")
    assert sorted(set(written["aligner"])) == ["", "greedy", "sir:n=4"]
    again = command("export", "reference", "--out", "reference")
    assert (again.code, again.err) == (0, "")


def test_other_formats(command, rows, tmp_path):
    done = command("export", rows, "--format", "eee", "--organization", "Lab", "--out", "e")
    files = sorted((tmp_path / "e").rglob("*.json"))
    assert done.code == 1 and len(files) == 3
    named = {json.loads(path.read_text())["source_metadata"]["source_organization_name"] for path in files}
    assert named == {"Lab"}
    assert command("export", rows, "--format", "eval_results", "--dataset", "a/b", "--out", "e").code == 1
    assert len(list((tmp_path / "e").glob("*/.eval_results/a__b.yaml"))) == 3


def test_upload_is_listed_first_and_has_no_draws_unless_asked(command, tmp_path, monkeypatch):
    sent = []
    monkeypatch.setattr(hub, "check_token", lambda: None)
    monkeypatch.setattr(hub, "upload", lambda *given: sent.append(given) or "https://hub/commit")
    folder = tmp_path / "run" / "SmolLM2"
    folder.mkdir(parents=True)
    write_rows(tmp_path / "run" / "leaderboard.csv", table(unit()))
    (tmp_path / "run" / "task_words.json").write_text('{"primary": "divergence.kl_target"}')
    asked = ("export", "run", "--out", "out", "--push_to_hub", "me/results")
    assert command(*asked, "--with_samples").code == 1 and sent.pop()  # there are none
    (folder / "samples_words_1.jsonl").write_text("{}\n")
    dry = command(*asked, "--dry_run")
    size = (tmp_path / "out" / "words.csv").stat().st_size
    assert dry.code == 0 and sent == []
    assert dry.out.endswith(f"would upload to the data set me/results:\n  words.csv ({size:,} bytes)\n")
    assert command(*asked).out.endswith("https://hub/commit\n")
    assert command(*asked, "--with_samples").code == 0
    assert [[p.name for p in files] for _, _, files in sent] == [["words.csv"], ["words.csv", "samples_words_1.jsonl"]]


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (("--format", "eve"), "--format: unknown format 'eve'. Did you mean 'eee'?"),
        (("--format", "eee"), "--format eee needs --organization"),
        (("--format", "eval_results"), "--format eval_results needs --dataset"),
        (("--dataset", "a/b"), "--dataset goes with --format eval_results"),
        (("--push_to_hub", "results"), "--push_to_hub results: must be ORG/NAME"),
        (("--dry_run",), "--dry_run is about the upload"),
        (("--format", "eval_results", "--dataset", "a/b", "--push_to_hub", "a/b"), "go to the models' repositories"),
    ],
)
def test_mistakes(command, words, wrong):
    done = command("export", "nowhere", "--out", "out", *words)
    assert done.code == 2 and wrong in done.err and done.err.count("\n") == 1


def test_a_folder_that_is_not_there(command):
    done = command("export", "nowhere", "--out", "out")
    assert done.code == 1 and "nowhere: does not exist" in done.err and "wrote" not in done.out
