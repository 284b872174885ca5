"""The brief table: numbers as printed, and a conclusion that says nothing that is not printed."""

from __future__ import annotations

import re
from math import inf
from typing import Any

import numpy as np
import pytest
from test_verdict import CASES, Record, base, board, law, record

from alignbench.reports.formats.brief import brief_lines, one_line
from alignbench.reports.table.board import Table
from alignbench.reports.table.brief import kept
from alignbench.reports.table.brief_notes import remedy
from alignbench.reports.table.digits import percent, spelled, two_digits
from alignbench.reports.table.verdict import IF_NOTHING_LOST
from alignbench.stats.asked import AT_LEAST, AT_MOST


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [
        (0.134, 0.071, 0.338, ".13 .07–.34"), (0.69, 0.27, 1.23, ".69 .27–1.23"), (11.2, 9.0, 13.4, "11 ±2.2"),
        (0.0, 0.0, 0.0, "0"), (0.0, 0.0, 0.06, "0 0–.06"), (-0.004, -0.03, 0.02, "0 −.03–.02"), (inf, None, None, "∞"),
        (None, 0.31, None, "≥ .31"), (None, None, 0.4, "≤ .40"), (None, None, None, "—"),
        (1.45, 1.37, 1.53, "1.45 1.37–1.53"), (0.0104, 0.0085, 0.0112, ".010 .009–.011"), (129.4, None, None, "129"),
    ],
)  # fmt: skip
def test_numbers_in_two_digits(value: float | None, low: float | None, high: float | None, text: str) -> None:
    assert " ".join(spelled(value, low, high)).rstrip() == text


def test_shares_in_percent() -> None:
    assert percent(0.834, 0.72, 0.9) == ("83", "72–90") and percent(1.0, 0.9975, 1.0) == ("100", "99.8–100")
    assert percent(None, 0.2, None) == ("≥ 20", "") and percent(1.0, 1.0, 1.0) == ("100", "")
    assert [two_digits(x) for x in (0.13, 1.234, 40.0, 0.0, -0.5, inf)] == [".13", "1.2", "40", "0", "−.50", "∞"]


def more(who: str, word: float | None = None, calls: float | None = None) -> list[Record]:
    """What a row keeps of a hard constraint, and what a draw costs."""
    kept = record(who, "satisfaction", "always", word, 0.06, note="wanted word", better="higher")
    return [kept, record(who, "cost", "calls_per_draw", calls, None)]


def brief_of(*rows: list[Record]) -> Table:
    """The brief of the one table."""
    [table] = board(*rows).tables
    assert table.brief is not None
    return table.brief


def story() -> Table:
    """A table with each kind of row."""
    exact = law("rejection", half=0.0, kl_target=0.0, kl_asked=0.0, kl_collateral=0.0)
    exact += law("rejection", kl_target_vs_base=-0.83, kl_asked_vs_base=-0.83)
    lost = {"kl_target": inf, "kl_target_vs_base": inf, "kl_asked": 0.7, "kl_collateral": inf, "kl_asked_vs_base": 0.1}
    return brief_of(
        base(0.83), more("", 0.38, 39), exact, more("rejection", 1.0, 129),
        law("best_of_n", kl_target=0.13, kl_asked=0.13, kl_collateral=0, kl_target_vs_base=-0.7, kl_asked_vs_base=-0.7),
        more("best_of_n", 0.83, 158),
        law("prompt", kl_target=11.0, kl_asked=0.2, kl_collateral=10.8, kl_target_vs_base=10.2, kl_asked_vs_base=-0.6),
        more("prompt", 0.83, 39), law("top_p", **lost), [record("top_p", "divergence", "mass_kept", 0.05, 0.01)],
        more("top_p", 0.5, 39),
    )  # fmt: skip


def test_the_story_is_told_in_words_and_rows() -> None:
    told = story()
    assert told.heading == "a · m · 2 prompts × 16 draws (thin)"
    assert told.conclusion == (
        "Exactly p: rejection, 3.3× the calls.\nbest_of_n: word 83 % (base 38 %), KL .13 (base .83), 4.1× the calls.\n"
        "At up to 1.5× the base's calls: no row is better.\n"
        "prompt: word 83 % (base 38 %), but 11 nats of collateral.\nWorse than the base: top_p."
    )
    lines = list(brief_lines(told, 100))
    assert max(map(len, lines)) <= 100 and any(line.startswith("── base ──") for line in lines)
    assert [line.split()[0] for line in lines if re.match(r"(\w+|──) .*(better|trade|worse|──)", line)][-5:] == [
        "rejection", "best_of_n", "──", "prompt", "top_p",
    ]  # fmt: skip
    assert "∞ keeps 5.0 %" in "\n".join(lines)
    assert lines[-1] == "16 draws a prompt: differences in KL from the base are known to ± .10 nats (median)."


def test_rows_that_do_not_fit_are_counted_and_the_base_is_always_there() -> None:
    rows = [law(f"x{i}", kl_target=1 + i, kl_target_vs_base=float(i), kl_asked_vs_base=0.5) for i in range(2, 20)]
    lines = list(brief_lines(brief_of(base(9.0), *rows), 100, most=4))
    assert sum(line.startswith("x") for line in lines) == 3 and any(line.startswith("──") for line in lines)
    assert "15 more: 15 worse" in lines


def test_a_name_that_is_cut_keeps_the_step_of_a_checkpoint() -> None:
    """Planted bug: `dpg:steps=200,lr=0…#83ed`, with digits of its own for each checkpoint."""
    names = [f"dpg:steps=200,lr={lr},batch=64 @ step-{s}" for lr in (0.1, 0.2) for s in (50, 150)]
    rows = [law(name, kl_target=1.0, kl_target_vs_base=-8.0, kl_asked_vs_base=-8.0) for name in (*names, "x" * 30)]
    told = [line[:26].rstrip() for line in brief_lines(brief_of(base(9.0), *rows), 100)]
    found = [line for line in told if line.startswith("dpg") and "…" in line]
    assert all(re.fullmatch(r"dpg:step?…#\w{4} @ step-1?50|dpg:ste…#\w{4} @ step-150", name) for name in found), found
    assert len(found) == len(set(found)) == 4 and len({name[name.index("#") :][:5] for name in found}) == 2
    assert "x" * 23 + "…" in told


def test_a_trade_by_truncation_alone_says_so() -> None:
    """Planted bug: "word 100 %, but 0 nats of collateral", which a reader takes for a mistake."""
    note = "π truncates; target mass it leaves uncovered ≤ 0.02"
    near = {"kl_target": 0.1, "kl_asked": 0.0, "kl_target_vs_base": -0.9, "kl_asked_vs_base": -0.9}
    far = {"kl_target": 4.0, "kl_asked": 0.1, "kl_collateral": 3.9, "kl_target_vs_base": 3.0, "kl_asked_vs_base": -0.8}
    told = brief_of(
        base(1.0), more("", 0.4, 40), law("near", note=note, **near), more("near", 1.0, 40), law("far", **far)
    )
    assert "near: word 100 % (base 40 %), KL .10 (base 1.00), if it leaves out nothing of p." in told.conclusion
    assert "far: asked gap .10 (base 1.00), but 3.9 nats of collateral." in told.conclusion
    notes = {row.label: [told.footnotes[n - 1] for n in row.cells[0].notes] for row in told.rows}
    assert notes["near"] == [IF_NOTHING_LOST] and notes["far"] == []


def test_what_is_nearer_is_kept_before_what_is_worse() -> None:
    """A trade far from p stands below many rows that are worse, and is what a reader wants."""
    rows = [law(f"x{i}", kl_target=10.0 + i, kl_target_vs_base=1.0 + i, kl_asked_vs_base=0.5) for i in range(20)]
    trade = law("trade", kl_target=90.0, kl_asked=0.1, kl_target_vs_base=81.0, kl_asked_vs_base=-0.9)
    told = brief_of(base(9.0), *rows, trade)
    assert [row.label for row in kept(told.rows, 3)] == ["base", "x0", "trade"]


def test_cells_of_several_values_are_limits() -> None:
    gap = [record("x", "divergence", "kl_asked", 0.2, note=AT_LEAST)]
    rest = [record("x", "divergence", "kl_collateral", 0.3, note=AT_MOST)]
    told = brief_of(base(), [*CASES["unclear"], *gap, *rest])
    [x] = [row for row in told.rows if row.label == "x"]
    assert [cell.text for cell in x.cells[1:3]] == ["≥ .10", "≤ .40"]
    assert any(note.startswith("≥, ≤") for note in told.legend)


def test_a_world_whose_truth_is_known_is_one_line() -> None:
    rows = [law("x", kl_target=1.0, kl_target_vs_base=0.0)[0] | {"exact": 1.05}, *law("y", kl_target=1.0)]
    rows[1] |= {"exact": 2.0}
    told = brief_of(base(), rows)
    assert one_line(told) == "a · m · 2 prompts × 16 draws (thin): 1 of 2 intervals hold the truth"


def test_rows_of_other_numbers_of_draws_are_said_to_be_so() -> None:
    more_draws = [row | {"draws": 64} for row in law("x", kl_target=0.5, kl_target_vs_base=-0.5, kl_asked_vs_base=-0.5)]
    told = brief_of(base(), more_draws)
    assert told.heading.endswith("× 16–64 draws") and told.legend[-1].startswith("16–64 draws a prompt: differences")


def test_limits_of_joined_cells_are_not_held_against_the_truth() -> None:
    one = record("x", "divergence", "kl_asked", 0.2, 0.1, note=AT_LEAST, exact=0.9)
    told = brief_of(base(), [law("x", kl_target=1.0)[0] | {"exact": 1.05}, one])
    assert one_line(told).endswith("1 of 1 intervals hold the truth")


def test_the_best_of_the_cheap_is_told_beside_a_best_that_is_not() -> None:
    """Planted: the second best, whatever it costs."""

    def nearer(name: str, kl: float, calls: float) -> list[Record]:
        parts = {"kl_target": kl, "kl_asked": kl, "kl_target_vs_base": kl - 1, "kl_asked_vs_base": kl - 1}
        return [*law(name, half=0.01, **parts), *more(name, 0.9, calls)]

    told = brief_of(base(1.0), more("", 0.4, 40), nearer("a", 0.1, 200), nearer("b", 0.3, 100), nearer("c", 0.5, 50))
    assert "At up to 1.5× the base's calls: c, KL .50" in told.conclusion
    dear = brief_of(base(1.0), more("", 0.4, 40), nearer("a", 0.1, 200), nearer("b", 0.3, 100))
    assert "At up to 1.5× the base's calls: no row is better." in dear.conclusion
    alone = brief_of(base(1.0), more("", 0.4, 40), nearer("a", 0.1, 60), nearer("b", 0.3, 100))
    assert alone.conclusion.startswith("a: ") and "At up to 1.5×" not in alone.conclusion  # it is cheap: said already


def random_table(seed: int) -> tuple[Table, dict[str, dict[str, float]]]:
    """A brief of random rows, and what is printed of each."""
    rng = np.random.default_rng(seed)
    kl = float(rng.uniform(0.01, 2))
    rows, known = [base(kl), more("", float(rng.uniform()), 40.0)], dict[str, dict[str, float]]()
    for i in range(int(rng.integers(1, 9))):
        name, share, calls = f"law{i}", float(rng.uniform()), float(rng.choice([40, 80, 200]))
        asked, rest = (float(max(0, x)) for x in rng.normal(0.5, 0.7, 2))
        whole = inf if rng.random() < 0.2 else asked + rest
        half = float(rng.uniform(0.02, 0.5))
        parts = {"kl_target": whole, "kl_asked": asked, "kl_collateral": whole - asked,
                 "kl_target_vs_base": whole - kl, "kl_asked_vs_base": asked - kl}  # fmt: skip
        rows[2:2] = [law(name, half=half, **parts), more(name, share, calls)]  # in no order
        known[name] = {"word": share, "calls": calls, "kl": whole, "rest": whole - asked}
    known["base"] = {"kl": kl, "word": rows[1][0]["value"], "calls": 40.0}
    return brief_of(*rows), known


def claims(text: str) -> list[tuple[str, Any]]:
    """Every claim of a conclusion, read back: (kind, what)."""
    found: list[tuple[str, Any]] = []
    for name, kl, of_base in re.findall(r"(law\d+)[^.]*?KL ([\d.<]+) \(base ([\d.]+)\)", text):
        found.append(("nearer", (name, kl, of_base)))
    found += [("share", pair) for pair in re.findall(r"(law\d+)(?: \([^)]*\))?: word (\d+) % \(base (\d+) %\)", text)]
    found += [("times", pair) for pair in re.findall(r"(law\d+)[^.]*?KL [^,]*, ([\d.]+)× the calls", text)]
    found += [("collateral", pair) for pair in re.findall(r"(law\d+): [^.]*but ([\d.]+) nats of collateral", text)]
    for names in re.findall(r"Worse than the base: ([^.]*)\.", text):
        found += [("worse", name) for name in re.findall(r"law\d+", names)]
    return found


@pytest.mark.parametrize("seed", range(40))
def test_every_claim_is_what_the_table_prints(seed: int) -> None:
    told, known = random_table(seed)
    printed = {row.label: dict(zip((c.label for c in told.columns), row.cells, strict=True)) for row in told.rows}
    verdict = {name: cells["vs base"].point for name, cells in printed.items()}
    point = {name: cells["= KL(p‖π)"].point for name, cells in printed.items()}
    found = claims(told.conclusion)
    for kind, what in found:
        if kind == "worse":
            assert verdict[what] == "worse"
            continue
        name, *numbers = what
        mine, of_base = known[name], known["base"]
        if kind == "nearer":
            assert verdict[name] == "better" and numbers[1] == point["base"]
            assert numbers[0] == point[name] or (numbers[0], point[name]) == ("<.01", "0")
        elif kind == "share":
            assert verdict[name] in ("better", "trade")
            assert numbers == [f"{100 * mine['word']:.0f}", f"{100 * of_base['word']:.0f}"]
        elif kind == "times":
            assert numbers == [two_digits(mine["calls"] / of_base["calls"])]
        else:
            assert verdict[name] == "trade" and numbers == [two_digits(mine["rest"])]
    better = [name for name, word in verdict.items() if word == "better"]
    assert bool(better) == any(kind == "nearer" for kind, _ in found)
    assert bool(better) != ("No row is shown nearer" in told.conclusion)
    worse = [name for name, word in verdict.items() if word == "worse"]
    assert [what for kind, what in found if kind == "worse"] == worse[:4]


def test_a_cell_without_a_number_says_how_many_draws_would_do() -> None:
    """By what its gate wants, a quarter more, in powers of 2."""
    told = remedy("4.2 draws of the target among 64 reference draws, 10 are needed", "16")
    assert told == " --draws 64 would do; stored draws are kept."
    assert remedy("0 draws of the target among 64 reference draws, 10 are needed", "16").startswith(" More --draws")
    ranked = "ranked best-of-4 over 3 scores needs 128 base draws a prompt, not 48"
    assert remedy(ranked, "48") == " --draws 128 would do; stored draws are kept."
    assert remedy("no density: what each token adds is not known", "16") == ""
