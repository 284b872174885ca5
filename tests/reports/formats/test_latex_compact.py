"""The table of a paper: one float for several tasks, which compiles, whatever its words are, and fits on a page."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from itertools import cycle
from math import inf
from pathlib import Path

import pandas as pd
import pytest
from chart_rows import frame, row
from hostile_words import ATTACKS

from alignbench.reports.formats import latex_compact, tex
from alignbench.reports.formats.latex_compact import compact, number
from alignbench.reports.table.board import Cell, Table
from alignbench.reports.table.leaderboards import leaderboard

IDS = {
    "base_id": "ba5e", "target_id": "7a49", "draws": 32, "judge": "", "measured": "2026", "run_id": "r",
    "signature": "alignbench|prompts:4|draws:32|seed:0|version:0.1.0",
}  # fmt: skip
LONG = "constrained:any_of=[mountains, moments, women]"
ROWS = {"base": 0.9, "best_of_n:n=4": 0.2, "rejection:cap=256": 0.0, LONG: 0.6, "temperature:t=0.7": 12.0}
LIMITS = {"ci_low": -0.1, "ci_high": 0.25}  # about a value
DIGIT = re.compile("[0-9A-Za-z]")


def task(name: str, ask: str = "satisfaction.always", **more: object) -> list[dict[str, object]]:
    """A task with a base, four rows with limits, one that leaves out most of p, and draws of p."""
    found = []
    for who, kl in ROWS.items():
        ends = {key: kl + x * (kl > 0) for key, x in LIMITS.items()}
        found += [row(who, key, kl, 0.1, **ends) for key in ("divergence.kl_asked", "divergence.kl_target")]
        found += [row(who, "divergence.kl_collateral", 0.0, 0.0)]
        found += [row(who, "divergence.kl_target_vs_base", kl - 0.9, 0.05)] if who != "base" else []
        found += [row(who, ask, 0.83, 0.1, ci_low=0.72, ci_high=0.9), row(who, "perplexity", 24.6, 1.0)]
        found += [row(who, "cost.calls_per_draw", 39.0, 0.0)]
    found += [row("greedy", "divergence.kl_target", inf), row("greedy", "divergence.mass_kept", 0.08)]
    found += [row("ceiling", "perplexity", 19.0, 1.0)]
    return [{**r, **IDS, "task": name, "task_hash": name, "generator_id": str(r["aligner"]), **more} for r in found]


@pytest.fixture(scope="module")
def tables() -> Sequence[Table]:
    return leaderboard(frame(task("words"), task("people", "satisfaction.moment.she"))).tables


def documents(text: str) -> Iterator[tuple[str, str]]:
    """The document that the first lines of the file recommend, in two columns and in one."""
    lines = [line.removeprefix("%   ") for line in latex_compact.PREAMBLE.splitlines() if line.startswith("%   ")]
    for columns in ("twocolumn", "onecolumn"):
        yield columns, "\n".join(lines).replace("twocolumn", columns).replace(r"\input{leaderboard}", text)


def compiled(text: str, folder: Path) -> Iterator[tuple[str, Path]]:
    """What LaTeX says of both documents, and their pages."""
    if not shutil.which("pdflatex"):
        pytest.skip("needs pdflatex, of texlive-latex-base, and booktabs.sty, of texlive-latex-recommended")
    for name, document in documents(text):
        (folder / f"{name}.tex").write_text(document, encoding="utf-8")
        command = ["pdflatex", "-no-shell-escape", "-interaction=nonstopmode", "-halt-on-error", f"{name}.tex"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
        assert done.returncode == 0, done.stdout[-2000:]
        yield done.stdout, folder / f"{name}.pdf"


def too_wide(said: str) -> list[float]:
    """Points by which boxes are wider than the text, of those that an eye sees."""
    found = [float(x) for x in re.findall(r"Overfull \\hbox \(([\d.]+)pt", said)]
    return [x for x in found if x > 5]


def pages(said: str) -> int:
    found = re.search(r"\((\d+) pages?,", said)
    assert found, said[-500:]
    return int(found[1])


def letters(text: str) -> str:
    return "".join(DIGIT.findall(text))


def test_one_float_for_all_tasks(tables: Sequence[Table]) -> None:
    text = compact(tables)
    assert text.count(r"\begin{table*}") == text.count(r"\caption[") == 1 and r"\cite" not in text
    [top, *tasks] = text.split(r"\midrule")
    assert [re.findall(r"\\textbf\{(\w+)", part)[0] for part in tasks] == ["words", "people"]
    assert r"satisfied: she $\cdot$ ppl of p 19" in tasks[1] and "all kept \\%, want 100" in tasks[0]
    for words in (r"the base m,", "better", "95 \\%", "alignbench\\textbar", "draws a prompt: differences"):
        assert words in top
    assert r"\textit{words}:" not in top or r"\textit{people}:" in top  # a note of all tasks is said once
    base, best, cold = (next(x for x in tasks[0].splitlines() if x.startswith(w)) for w in ("\\textit{b", "best", "te"))
    assert r"\textit{base} &  & $.90^{+.25}_{-.10}$ & $0" in base and r"\textbf{better} & $.20^{+.25}_{-.10}$" in best
    assert r"\textit{worse}" in cold and r"$83^{+7}_{-11}$" in best and r"$\infty$ (8.0\,\%)" in tasks[0]


@pytest.mark.parametrize(("cell", "factor", "said"), [
    (Cell(".13", ".07–.34", 0.13, 0.07, 0.34), 1, "$.13^{+.21}_{-.06}$"),
    (Cell("11", "±2.2", 11, 8.8, 13.2), 1, r"$11 \pm 2.2$"),
    (Cell("60", "47–71", 0.595, 0.472, 0.71), 100, r"$60 \pm 12$"),
    (Cell("100", "98–100", 1.0, 0.98, 1.0), 100, "$100^{+0}_{-2}$"),
    (Cell("≥ .3", low=0.3), 1, r"$\geq .3$"),
    (Cell("≥ .36 ≤ 1.2", "", None, 0.36, 1.2), 1, "$[.36, 1.2]$"),
    (Cell(".50", "≥ .10", 0.5, 0.1, inf), 1, "$.50_{-.40}$"),
    (Cell("0", "", 0.0, 0.0, 0.0), 1, "$0$"), (Cell("∞", "", inf), 1, r"$\infty$"),
    (Cell("2.5e+07", "", 2.5e7), 1, r"$2.5{\times}10^{7}$"),
    (Cell("−.20", "−.40–−.10", -0.2, -0.4, -0.1), 1, "$-.20^{+.10}_{-.20}$"),
    (Cell("0", "0–.12", 0.0004, 0.0, 0.12), 1, "$0^{+.12}_{-0}$"),  # planted: "$0$", as if it were exact
    (Cell(), 1, "---"), (Cell("50% & x"), 1, r"50\% \& x"),
])  # fmt: skip
def test_numbers_have_both_limits(cell: Cell, factor: float, said: str) -> None:
    assert number(cell, factor) == said


def test_it_fits_on_a_page_and_names_every_row(tables: Sequence[Table], tmp_path: Path) -> None:
    for said, page in compiled(compact(tables), tmp_path):
        assert pages(said) == 1 and too_wide(said) == [] and "too large" not in said
        if shutil.which("pdftotext"):
            shown = letters(subprocess.run(["pdftotext", "-layout", page, "-"], capture_output=True, text=True).stdout)
            names = [
                name for block in tables for name in latex_compact.short_names(block.brief.rows if block.brief else [])
            ]
            assert [name for name in names if letters(name) not in shown and "draws of p" not in name] == []


def test_many_tasks_go_on_in_whole_tasks(tmp_path: Path) -> None:
    many = leaderboard(frame(*(task(f"task{i:02}") for i in range(12)))).tables
    text = compact(many)
    floats = text.split(r"\begin{table*}")[1:]
    assert len(floats) > 1 and all("(continued)" in part and "addtocounter" in part for part in floats[1:])
    assert sum(part.count(r"\textbf{task") for part in floats) == 12
    assert [part.count("alignbench") for part in floats] == [*([0] * (len(floats) - 1)), 1]
    for said, _ in compiled(text, tmp_path):
        assert pages(said) == len(floats) and too_wide(said) == [] and "too large" not in said


def test_a_task_of_many_rows_is_told_in_parts_or_in_few(tables: Sequence[Table]) -> None:
    rows = frame(task("words"), *(task("words", aligner=f"top_k:k={k}", generator_id=f"k{k}")[5:9] for k in range(50)))
    many = leaderboard(rows).tables
    assert "(continued)" not in compact(many) and r"more: " in compact(many)
    assert compact(many, 100).count(r"\begin{table*}") > 1 and " (continued)" in compact(many, 100)
    few = compact(tables, 2)
    assert few.count("more: ") == 2 and "temperature" not in few and few.count(r"\textit{base}") == 2


def test_a_world_whose_truth_is_known_is_a_line_of_the_caption() -> None:
    known = [{**r, "exact": 0.2} for r in task("world")]
    both = compact(leaderboard(frame(task("words"), known)).tables)
    assert r"\textbf{world" not in both and re.search(r"world .*\d+ of \d+ intervals hold the truth\.", both)
    assert r"\textbf{world" in compact(leaderboard(frame(known)).tables)


def test_a_table_without_verdicts_is_a_comment(tables: Sequence[Table]) -> None:
    mixed = leaderboard(frame(task("old"), task("old", task_hash="2", task_version="2")), allow_mixed=True).tables
    assert compact([]) == "% No table has verdicts to show in brief: \n"
    assert (
        compact(mixed).startswith("% No table has verdicts to show in brief: old") and compact(mixed).count("\n") == 1
    )
    text = compact([*tables, *mixed])
    assert [line for line in text.splitlines() if line.startswith("% Left out")] != []
    assert "old" not in text.partition(r"\begin{table*}")[2]


def hostile() -> Sequence[Table]:
    """Tables whose every word means harm."""
    words, notes, found = iter(ATTACKS), cycle(ATTACKS), list[dict[str, object]]()
    for _ in range(len(ATTACKS) // (len(ROWS) + 1)):
        name = next(words)
        who = {label: next(words) for label in ROWS} | {"": ""}
        for made in task(name, task_version=name, base=f"b{name}"):
            generator = f"b{name}" if made["generator"] == "m" else "draws of p"
            free = {"note": next(notes), "generator": generator}
            found.append(made | free | {"aligner": who.get(str(made["aligner"]), "greedy")})
    return leaderboard(pd.DataFrame(found, dtype=object)).tables


def test_words_that_mean_harm_are_only_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted bug: a letter that is not escaped."""
    made = hostile()
    for said, _ in compiled(compact(made), tmp_path):
        assert too_wide(said) == []
    assert {path.suffix for path in tmp_path.iterdir()} == {".tex", ".pdf", ".log", ".aux"}
    own = {c for c in compact(made) if c > tex.LAST or c in tex.MISSING or (c < " " and c != "\n")}
    assert own == set()
    monkeypatch.setattr(tex, "SPECIAL", {**tex.SPECIAL, "&": "&"})
    with pytest.raises(AssertionError):
        list(compiled(compact(made), tmp_path))
