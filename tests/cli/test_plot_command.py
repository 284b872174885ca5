"""`alignbench plot` as a user meets it: which files it writes, what it says is missing, and the line for a mistake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from chart_rows import WORDS, frame, of, row

from alignbench.reports.rows import write_rows


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A folder with the rows of two tasks, of which the second has no sweep."""
    import pandas as pd

    other = pd.DataFrame(of("base", 0.2, 0.0) + of("greedy", 0.4, 3.0)).assign(task="names", task_hash="beef")
    write_rows(tmp_path / "published" / "rows.csv", pd.concat([WORDS, other]))
    return tmp_path / "published"


def test_a_picture_for_each_task_in_each_format(command, published) -> None:
    said = command("plot", "tradeoff", published, "--out", "plots", "--format", "svg,json")
    names = sorted(path.name for path in Path("plots").iterdir())
    assert names == ["tradeoff_names.json", "tradeoff_names.svg", "tradeoff_words.json", "tradeoff_words.svg"]
    assert said.code == 0 and "plots/tradeoff_words.svg" in said.out
    assert "left out sir:n=4: divergence.kl_base: — (no density: what each token adds is not known)" in said.err


def test_one_file_one_task_other_axes_and_some_generators(command, published) -> None:
    said = command("plot", "tradeoff", published, "--tasks", "wor*", "--x", "kl_base", "--y", "always",
                   "--generators", "base", "--generators", "best*", "--out", "one.svg")  # fmt: skip
    text = Path("one.svg").read_text(encoding="utf-8")
    assert said.code == 0 and "best_of_n:n=8" in text and "greedy" not in text
    said = command("plot", "tradeoff", published, "--out", "one.svg")
    assert said.code == 2 and "is one file, and there are 2 pictures" in said.err


def test_columns_rows_and_names_are_those_of_tables(command, published) -> None:
    said = command("plot", "divergences", published, "--tasks", "words", "--columns", "kl_base", "--rows", "3",
                   "--rename", "best_of_n:n=8=best of eight", "--out", "one.json")  # fmt: skip
    text = Path("one.json").read_text(encoding="utf-8")
    assert said.code == 0 and "KL(π‖a)" in text and "KL(p‖π)" not in text, said.err
    whole = command("plot", "divergences", published, "--tasks", "words", "--rename", "best_of_n:n=8=best of eight",
                    "--out", "all.json")  # fmt: skip
    assert whole.code == 0 and "best of eight" in Path("all.json").read_text(encoding="utf-8")
    assert len(text) < len(Path("all.json").read_text(encoding="utf-8"))


def test_what_is_missing_is_said_and_the_rest_is_drawn(command, published) -> None:
    said = command("plot", "sweep", published, "nowhere", "--format", "json")
    assert said.code == 1 and Path("sweep_words_best_of_n_n.json").exists()
    assert "sweep of names v1 · base m: no two rows differ in one number" in said.err
    assert "nowhere: does not exist" in said.err
    said = command(
        "plot", "moments", published, "--tasks", "names,wrods", "--generators", "greedly", "--format", "json"
    )
    assert said.code == 1 and "unknown task 'wrods'. Did you mean 'words'?" in said.err
    assert "unknown generator 'greedly'. Did you mean 'greedy'?" in said.err


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    """A folder with rows of two tasks that have the two parts of KL(p‖π)."""
    import pandas as pd

    told = {"base": (0.5, 0.0, 0.5), "best_of_n:n=8": (0.1, 0.05, 0.15), "greedy": (0.2, 4.0, 4.2)}
    parts = ("divergence.kl_asked", "divergence.kl_collateral", "divergence.kl_target")
    rows = frame([row(who, key, v, 0.02) for who, its in told.items() for key, v in zip(parts, its, strict=True)])
    write_rows(tmp_path / "measured" / "rows.csv", pd.concat([rows, rows.assign(task="names", task_hash="beef")]))
    return tmp_path / "measured"


def test_a_trade_off_is_of_the_two_parts_unless_axes_are_given(command, measured) -> None:
    """Verdicts are those of the rows: greedy is worse, and not on the front, best_of_n is better."""
    said = command("plot", "tradeoff", measured, "--tasks", "words", "--out", "two.json")
    chart = json.loads(Path("two.json").read_text(encoding="utf-8"))
    looks = {p["row"]["label"]: (p["look"], p["front"]) for p in chart["points"]}
    assert said.code == 0 and chart["chart"] == "TwoParts" and (chart["limit"], chart["kl"]) == (0.75, 0.5)
    assert looks == {"base": ("base", True), "best_of_n:n=8": ("better", True), "greedy": ("worse", False)}
    command("plot", "tradeoff", measured, "--tasks", "words", "--x", "kl_asked", "--y", "kl_target", "--out", "x.json")
    chart = json.loads(Path("x.json").read_text(encoding="utf-8"))
    assert chart["chart"] == "Scatter" and chart["x"]["key"] == "divergence.kl_asked"
    assert {p["label"]: p["verdict"] for p in chart["points"]}["best_of_n:n=8"] == "better"


def test_a_suite_is_one_picture_of_several_tasks(command, measured) -> None:
    said = command("plot", "suite", measured, "--out", "suite.svg")
    assert said.code == 0 and "names" in Path("suite.svg").read_text(encoding="utf-8"), said.err
    said = command("plot", "suite", measured, "--generators", "greedy", "--out", "one.json")
    [only] = json.loads(Path("one.json").read_text(encoding="utf-8"))["rows"]
    assert (only["label"], [o["verdict"] for o in only["outcomes"]]) == ("greedy", ["worse", "worse"])
    said = command("plot", "suite", measured, "--tasks", "words", "--out", "none.svg")
    assert said.code == 1 and "suite: fewer than two tasks have a verdict" in said.err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["trade_off"], "unknown plot 'trade_off'. Did you mean 'tradeoff'?"),
        (["series", "--y", "kl_bass"], "--y: unknown metric 'kl_bass'. Did you mean 'kl_base'?"),
        (["divergences", "--columns", "kl_bass"], "--columns: unknown metric 'kl_bass'. Did you mean 'kl_base'?"),
        (["tradeoff", "--columns", "kl_base"], "--columns: a trade-off has --x and --y"),
        (["suite", "--columns", "kl_base"], "--columns: a suite has verdicts and asked gaps"),
        (["suites"], "unknown plot 'suites'. Did you mean 'suite'?"),
        (["divergences", "--rows", "0"], "--rows 0: give 1 or more"),
        (["divergences", "--rename", "bset_of_n=x"], "--rename: unknown row 'bset_of_n'"),
        (["moments", "--x", "kl_base"], "--x with moments: it is for tradeoff"),
        (["tradeoff", "--format", "pgn"], "--format: unknown format 'pgn'. Did you mean 'png'?"),
        (["tradeoff", "--out", "figure.jpg"], "--out figure.jpg: unknown format 'jpg'."),
        (["tradeoff", "--out", "a.png", "--format", "svg"], "--out a.png is a file: leave out --format"),
    ],
)
def test_mistakes_get_one_line(command, published, words, line) -> None:
    said = command("plot", words[0], published, *words[1:])
    assert said.code == 2 and line in said.err and len(said.err.splitlines()) == 1
