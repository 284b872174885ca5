"""`alignbench leaderboard` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from alignbench.reports.rows import write_rows

LABELS = {"": 0.8, "rejection": 0.0, "top_k:k=3": 1.0, "temperature:t=0.7": 0.5}
ASSUMED = "no run folder and no built-in task says what the primary metric is; divergence.kl_target counts"
BLOCK = "before\n<!-- alignbench:start -->\n<!-- alignbench:end -->\nafter\n"


def row(task: str, aligner: str, metric: str, value: float) -> dict[str, object]:
    """One tidy row."""
    return {
        "run_id": "r1", "task": task, "task_version": 1, "task_hash": task * 2, "generator": "m", "aligner": aligner,
        "base": "m", "metric": metric.partition(".")[0], "part": metric.partition(".")[2], "value": value,
        "stderr": 0.1, "ci_low": value - 0.2, "ci_high": value + 0.2, "n": 64, "ess": None, "better": "lower",
        "note": "", "seed": 0, "draws": 16, "signature": f"alignbench|task:{task}", "seconds": 1.0,
        "measured": "2026-01-02T03:04:05+00:00", "ci_over": "prompts_given", "base_id": "ba5eba5e",
        "generator_id": "ba5eba5e" if not aligner else f"{sum(aligner.encode()):08x}", "target_id": "7a49e700",
    }  # fmt: skip


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder of published rows of two tasks."""
    for task in ("words", "people"):
        rows = [row(task, a, m, x) for a, x in LABELS.items() for m in ("divergence.kl_target", "perplexity")]
        write_rows(tmp_path / "runs" / f"{task}.csv", pd.DataFrame(rows))
    return tmp_path / "runs"


def refused(said, code, *words):
    """One line on standard error that has the words, nothing printed."""
    assert said.code == code and said.out == "" and "Traceback" not in said.err, said
    [line] = [line for line in said.err.splitlines() if ASSUMED not in line]
    assert all(word in line for word in words), line


def test_tables_and_the_suite_are_printed(command, runs):
    said = command("leaderboard", runs)
    assert said.code == 0
    assert said.err == f"alignbench: people, words: {ASSUMED}\n"
    for words in ("words · m", "people · m", "suite · base m · 2 tasks", "── base ──", "better"):
        assert words in said.out
    full = command("leaderboard", runs, "--full").out
    for words in ("words v1 · base m", "people v1 · base m", "suite · base m · 2 tasks", "1 [1, 2]", "m (base)"):
        assert words in full


def test_rows_have_names_and_a_number(command, runs):
    named = command("leaderboard", runs, "--rename", "reject*=exact sampler", "--rows", "1").out
    assert "exact sampler" in named and "rejection" not in named and "── base ──" in named
    assert "── as it was ──" in command("leaderboard", runs, "--rename", "base=as it was").out
    refused(command("leaderboard", runs, "--columns", "kltarget"), 2, "Did you mean 'kl_target'?")
    refused(command("leaderboard", runs, "--rename", "rejection"), 2, "give OLD=NEW")
    refused(command("leaderboard", runs, "--rename", "*=one"), 2, "two rows would be called 'one'")
    refused(command("leaderboard", runs, "--rename", "reject*=base"), 2, "'base' is the base's own name")
    Path("names.txt").write_text("reject*=exact sampler\n\nbase=as it was\n", encoding="utf-8")
    both = command("leaderboard", runs, "--rename", "@names.txt").out
    assert "exact sampler" in both and "── as it was ──" in both
    refused(command("leaderboard", runs, "--rename", "@no.txt"), 2, "@no.txt: cannot be read")
    refused(command("leaderboard", runs, "--rows", "0"), 2, "give 1 or more")
    assert list(Path().glob("leaderboard.*")) == []


def test_a_metric_may_be_called_as_its_column_is_headed(command, runs):
    """Planted: --sort kl_target was taken and --metrics kl_target refused."""
    said = command("leaderboard", runs, "--tasks", "words", "--metrics", "kl_target", "--format", "json")
    assert said.code == 0 and [c["key"] for c in json.loads(said.out)["tables"][0]["columns"]] == [
        "verdict", "divergence.kl_target",
    ]  # fmt: skip


def test_options_choose(command, runs):
    said = command("leaderboard", runs, "--tasks", "wo*", "--metrics", "perplexity", "--sort", "kl_target",
                   "--baseline", "top_k:k=3", "--format", "json")  # fmt: skip
    [table] = json.loads(said.out)["tables"][:1]
    assert said.code == 0 and table["task"] == "words"
    assert [c["label"] for c in table["columns"]] == ["vs base", "perplexity", "Δ"]
    assert [row["label"] for row in table["rows"] if row["mark"] == "baseline"] == ["top_k:k=3 (baseline)"]


@pytest.mark.parametrize(
    ("option", "given", "hint"),
    [
        ("--metrics", "perplexitty", "'perplexity'"), ("--format", "htlm", "'html'"),
        ("--sort", "perplex", "'perplexity'"),
        ("--baseline", "top_k:k=4", "'top_k:k=3'"),
    ],
)  # fmt: skip
def test_a_wrong_name_is_one_line(command, runs, option, given, hint):
    refused(command("leaderboard", runs, option, given), 2, given, f"Did you mean {hint}?")


def test_what_does_not_go_together(command, runs):
    refused(command("leaderboard", runs, "--check"), 2, "--out", "--readme")
    refused(command("leaderboard", runs, "--format", "md,html"), 2, "--out")


def test_a_paper_gets_one_table_for_all_tasks(command, runs):
    said = command("leaderboard", runs, "--format", "latex", "--style", "compact", "--rows", "2")
    assert said.code == 0 and said.out.count(r"\begin{table*}") == 1 and said.out.count(r"2 more: ") == 2
    assert r"\begin{table*}" not in command("leaderboard", runs, "--format", "latex", "--style", "full").out
    options = ("leaderboard", runs, "--out", "there", "--format", "latex", "--style", "compact")
    assert command(*options).code == 0 and command(*options, "--check").code == 0
    assert r"\begin{table*}" in Path("there/leaderboard.tex").read_text(encoding="utf-8")


def test_a_style_that_cannot_be_had_is_one_line(command, runs):
    compact = ("--style", "compact")
    refused(command("leaderboard", runs, "--style", "compakt"), 2, "'compakt'", "Did you mean 'compact'?")
    for formats in ((), ("--format", "md"), ("--format", "md,latex", "--out", "there")):
        refused(command("leaderboard", runs, *compact, *formats), 2, "give --format latex")
    refused(command("leaderboard", runs, *compact, "--format", "latex", "--full"), 2, "leave --full and --columns out")


def test_a_paper_without_verdicts_is_told_what_to_do(command, runs):
    newer = pd.DataFrame([{**row("words", a, "perplexity", x), "task_version": 2, "task_hash": "2"}
                          for a, x in LABELS.items()])  # fmt: skip
    write_rows(runs / "newer.csv", newer)
    options = ("--tasks", "words", "--allow_mixed", "--format", "latex", "--style", "compact")
    said = command("leaderboard", runs, *options)
    assert said.code == 1 and said.out.startswith("% No table has verdicts") and len(said.out.splitlines()) == 1
    assert "--style full shows every number" in said.err


def test_what_is_missing_is_told_and_the_rest_is_made(command, runs):
    refused(command("leaderboard", runs / "nowhere"), 1, "nowhere", "does not exist")
    refused(command("leaderboard", runs, "--tasks", "word"), 1, "Did you mean 'words'?")
    said = command("leaderboard", runs, "gone", "--tasks", "words,nope", "--out", "there")
    assert said.code == 1 and "words · m" in said.out and Path("there/leaderboard.tex").is_file()
    assert len(said.err.splitlines()) == 3 and ASSUMED in said.err


def test_what_commands_a_terminal_is_escaped_in_what_is_said(command, runs):
    (runs / "a\x1b[2Jb\n.csv").write_text("")
    said = command("leaderboard", runs, "--tasks", "w\u202e")
    assert said.code == 1 and "\x1b" not in said.err and "\u202e" not in said.err
    assert "a\\x1b[2Jb\\n.csv: cannot be read" in said.err and "'w\\u202e'" in said.err


def test_written_files_agree_with_their_rows_until_one_is_edited(command, runs):
    options = ("leaderboard", runs, "--out", "there", "--format", "md,csv,latex")
    assert command(*options).code == 0
    assert sorted(p.name for p in Path("there").iterdir()) == [f"leaderboard.{e}" for e in ("csv", "md", "tex")]
    assert command(*options, "--check").code == 0
    page = Path("there/leaderboard.md")
    page.write_text(page.read_text(encoding="utf-8").replace("0.80", "0.30", 1), encoding="utf-8")
    before = page.read_bytes()
    refused(command(*options, "--check"), 1, "leaderboard.md: line 25", "0.30", "0.80")
    Path("there/leaderboard.tex").unlink()
    said = command(*options, "--check")
    assert said.code == 1 and len(said.err.splitlines()) == 3 and page.read_bytes() == before
    assert not Path("there/leaderboard.tex").exists()


def test_a_readme_keeps_what_is_around_its_tables(command, runs):
    Path("README.md").write_text(BLOCK)
    options = ("leaderboard", runs, "--readme", "README.md")
    refused(command(*options, "--check"), 1, "README.md: line 3")
    assert command(*options).code == 0 and command(*options, "--check").code == 0
    text = Path("README.md").read_text(encoding="utf-8")
    assert text.startswith("before\n") and text.endswith("after\n") and "suite" in text
    Path("README.md").write_text("no marks")
    refused(command(*options), 2, "README.md", "alignbench:start")


def test_a_single_format_is_printed_alone(command, runs):
    said = command("leaderboard", runs, "--tasks", "words", "--format", "csv")
    assert said.code == 0 and said.out.startswith("run_id,task,") and len(said.out.splitlines()) == 9
