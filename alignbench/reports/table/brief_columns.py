"""The columns of a brief table, and its cells: the two parts of KL(p‖π), what was asked, length, fluency, cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf, isinf

from alignbench.reports.table.board import Cell, Column
from alignbench.reports.table.cells import notes_of
from alignbench.reports.table.digits import percent, spelled, two_digits
from alignbench.reports.table.lines import Line
from alignbench.reports.table.numbers import MISSING
from alignbench.reports.table.pairs import number
from alignbench.reports.table.standing import goal_of
from alignbench.reports.table.verdict import ASKED, KL
from alignbench.stats.asked import AT_LEAST, AT_MOST

COLLATERAL, KEPT = "divergence.kl_collateral", "divergence.mass_kept"
PERPLEXITY, LENGTH, CALLS, TRAINING = (
    "perplexity", "length.tokens", "cost.calls_per_draw", "cost.training_seconds",
)  # fmt: skip


@dataclass(frozen=True)
class Shown:
    """A column, and how its numbers are printed."""

    column: Column
    percent: bool = False
    plain: bool = False  # without limits, which only a page has room for

    @property
    def key(self) -> str:
        """The key of its records."""
        return self.column.key

    def cell(self, line: Line) -> Cell:
        """The cell of a line."""
        found = cell_of(line, self.key, self.percent)
        if not self.plain:
            return found
        return Cell() if found.value is None else replace(found, point=two_digits(found.value), spread="")


def cell_of(line: Line, key: str, in_percent: bool = False) -> Cell:
    """A record as printed; `≥` and `≤` where cells hold several values, what a law keeps of p where it is ∞ away."""
    record = line.records.get(key)
    if record is None:
        return Cell()
    value, low, high = (number(record.get(name)) for name in ("value", "ci_low", "ci_high"))
    if (limit := limit_alone(Cell("", "", value, low, high), str(record.get("note", "")))) is not None:
        return limit
    point, spread = (percent if in_percent else spelled)(value, low, high)
    if value == inf and key == KL and (kept := line.value(KEPT)) is not None:
        spread = f"keeps {two_digits(100 * kept)} %"
    return Cell(point, spread, value, low, high)


def limit_alone(cell: Cell, note: str) -> Cell | None:
    """The one limit that is known of a number, where its note says that cells hold several values; else None."""
    if cell.value is None or isinf(cell.value):
        return None
    if AT_LEAST in note:
        least = max(cell.low or 0.0, 0.0)
        return Cell(f"≥ {two_digits(least)}", low=least)
    if AT_MOST in note:
        return Cell() if cell.high is None else Cell(f"≤ {two_digits(cell.high)}", high=cell.high)
    return None


def gap_of(line: Line) -> str:
    """The asked gap of a line without its limits, unless these are all that is known."""
    return cell_of(line, ASKED).point


def shown_columns(lines: Sequence[Line]) -> list[Shown]:
    """The columns that some row has a number for."""
    asked = [shown for line in lines for shown in asked_columns(line)]
    parts = {ASKED: "asked gap", COLLATERAL: "+ collateral", KL: "= KL(p‖π)"}
    there = [key for key in parts if any(_says(line, key) for line in lines)]
    heads = {key: name if len(there) == len(parts) else name.strip("+= ") for key, name in parts.items()}
    found = [
        *(_shown(key, heads[key], "nats a draw ↓, 0 = p" if key == there[0] else "") for key in there),
        _shown(LENGTH, "length", "tokens", plain=True),
        *{shown.key: _towards(lines, shown) for shown in asked}.values(),
        _shown(PERPLEXITY, "ppl", _goal(lines, PERPLEXITY), plain=True),
        _shown(CALLS, "calls", "a draw", plain=True),
        _shown(TRAINING, "training", "seconds", plain=True),
    ]  # fmt: skip
    return [shown for shown in found if any(_says(line, shown.key) for line in lines)]


def _shown(key: str, label: str, below: str, *, percent: bool = False, plain: bool = False) -> Shown:
    return Shown(Column(key, label, below=below), percent, plain)


def asked_columns(line: Line) -> list[Shown]:
    """The columns of what the target asks: shares in percent, means as they are."""
    found = []
    for key, record in line.records.items():
        kind, _, name = key.removeprefix("satisfaction.").partition(".")
        if not key.startswith("satisfaction.") or kind not in ("always", "share", "moment", "reward"):
            continue
        want = next((n.removeprefix("wanted ") for n in notes_of(record) if n.startswith("wanted ")), "")
        if kind == "always":
            name = want if want and " and " not in want else "all kept"
            found.append(_shown(key, f"{name} %", "want 100", percent=True))
        elif kind == "share":
            found.append(_shown(key, f"{name.partition('.')[2]} %", _want(want, 100), percent=True))
        else:
            found.append(_shown(key, name, _want(want, 1)))
    shares = [shown for shown in found if shown.percent and shown.column.below != "want 100"]
    return [shown for shown in found if len(shares) != 2 or shown is not shares[1]]  # the other's complement


def _want(want: str, factor: float) -> str:
    try:
        return f"want {two_digits(factor * float(want))}"
    except ValueError:
        return ""


def _towards(lines: Sequence[Line], shown: Shown) -> Shown:
    """The column of what was asked, with p's own number in its heading where none was wanted."""
    if shown.column.below:
        return shown
    return replace(shown, column=replace(shown.column, below=_goal(lines, shown.key)))


def _goal(lines: Sequence[Line], key: str) -> str:
    goal = goal_of(lines, key)
    return "" if goal is None else f"p {two_digits(goal)}"


def _says(line: Line, key: str) -> bool:
    record = line.records.get(key)
    return record is not None and any(number(record.get(x)) is not None for x in ("value", "ci_low", "ci_high"))


def point_of(line: Line, key: str) -> str:
    """A number as the table prints it, without its limits; `<.01` where one that is not exact rounds to 0."""
    value, record = line.value(key), line.records.get(key, {})
    point = cell_of(line, key).point if value is not None else MISSING
    return "<.01" if point == "0" and (number(record.get("stderr")) or 0) > 0 and (value or 0) > 0 else point
