"""The lines of a table: which rows are of one generator, how it is called, which are pinned, and their order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from math import inf, isfinite, isinf
from typing import Any

import pandas as pd

from alignbench.errors import UsageError
from alignbench.reports.table.board import BASE, PINNED, plain_text
from alignbench.reports.table.cells import number
from alignbench.reports.table.labels import aligner_name, meant, short_labels
from alignbench.reports.table.seeds import newest, whose
from alignbench.types import CEILING

WHO = ("generator", "aligner", "generator_id", "seed", "draws", "task_hash", "target_id")
"""What tells the rows of a table apart; the last two differ only where versions of a task are mixed."""
SEED, DRAWS, HASH = (WHO.index(name) for name in ("seed", "draws", "task_hash"))
REMARKS = {SEED: "seed {}", DRAWS: "{} draws", 2: "#{}", HASH: "task #{}", 6: "λ differs: target #{}"}
"""Position in `WHO` → what a label says where names alone do not tell rows apart, in this order."""

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Line:
    """The rows of one generator, by column."""

    generator: str
    aligner: str
    name: str
    mark: str  # one of PINNED, or nothing
    records: Mapping[str, Record]
    who: tuple[str, ...]  # the values of WHO
    whole: str  # the name with nothing cut
    remarks: tuple[str, ...] = ()  # what it is, and what tells it from others of its name
    is_base: bool = False  # of the table, whatever its mark

    @property
    def label(self) -> str:
        """The name, and the remarks in brackets."""
        return _with(self.name, self.remarks)

    @property
    def full(self) -> str:
        """The label with nothing cut."""
        return _with(self.whole, self.remarks)

    @property
    def lost(self) -> tuple[float, float]:
        """What orders laws that are infinitely far from p: their TV, then how much of p they leave out.

        The asked gap must not: a law that says one satisfying sentence for ever would be first.
        """
        tv, kept = self.value("divergence.tv"), self.value("divergence.mass_kept")
        return 1.0 if tv is None else tv, 0.0 if kept is None else 1 - kept

    @property
    def calls(self) -> float:
        """Model calls for a draw that is kept; ∞ where they are not known."""
        value = self.value("cost.calls_per_draw")
        return inf if value is None else value

    def value(self, key: str) -> float | None:
        """The number of a column; None where there is none."""
        return number(self.records[key]["value"]) if key in self.records else None


def lines_of(group: Sequence[Record]) -> list[Line]:
    """The rows by generator, its digits, aligner, seed and draws; where one was measured again, the newest counts.

    A mean over seeds stands for the rows that it is of, and of one generator's with other numbers of draws those with
    the most: a table does not rank a generator against itself.
    """
    found: dict[tuple[str, ...], list[Record]] = {}
    means = {(record["task_hash"], whose(record)) for record in group if _is_mean(record)}
    for record in group:
        if (record["task_hash"], whose(record)) in means and not _is_mean(record):
            continue
        who = tuple("" if pd.isna(record[name]) else str(record[name]) for name in WHO)
        found.setdefault(who, []).append(record)
    found = _with_most_draws(_one_name(found))
    names = short_labels(who[1] for who in found)
    lines = [_line(who, newest(records), names[who[1]]) for who, records in found.items()]
    mixed = len({line.who[HASH] for line in lines}) > 1
    sizes = len({line.who[DRAWS] for line in lines if line.who[DRAWS]}) > 1
    always = [i for i, said in {SEED: bool(means), DRAWS: sizes, HASH: mixed}.items() if said]
    return [line for same in _by_name(lines).values() for line in _told_apart(same, always)]


def _one_name(found: Mapping[tuple[str, ...], list[Record]]) -> dict[tuple[str, ...], list[Record]]:
    """The same, of one folder's weights under two names (`step-10`, and `words/step-10` beside others) the newest."""
    kept: dict[tuple[str, ...], list[Record]] = {}
    for who, records in found.items():
        twin = next((other for other in kept if who[1:] == other[1:] and _ends(who[0], other[0]) and who[2]), None)
        if twin is None:
            kept[who] = records
        elif _when(records) >= _when(kept[twin]):
            del kept[twin]
            kept[who] = records
    return kept


def _ends(name: str, other: str) -> bool:
    """Whether one of two different names is the end of the other's path."""
    return name.endswith(f"/{other}") or other.endswith(f"/{name}")


def _when(records: Sequence[Record]) -> str:
    return max(str(record.get("measured", "")) for record in records)


def fewer_draws(group: Sequence[Record]) -> int:
    """How many rows a table leaves out because their generators have rows of more draws."""
    whose_rows = {tuple("" if pd.isna(record[name]) else str(record[name]) for name in WHO) for record in group}
    return len(whose_rows) - len(_with_most_draws({who: [] for who in whose_rows}))


def _with_most_draws(found: Mapping[tuple[str, ...], list[Record]]) -> dict[tuple[str, ...], list[Record]]:
    """Of what differs in the number of draws alone, that with the most."""
    most: dict[tuple[str, ...], tuple[str, ...]] = {}
    for who in found:
        same = (*who[:DRAWS], *who[DRAWS + 1 :])
        if same not in most or _count(who) > _count(most[same]):
            most[same] = who
    return {who: records for who, records in found.items() if who in most.values()}


def _count(who: tuple[str, ...]) -> float:
    return float(who[DRAWS] or 0)


def pinned(lines: Sequence[Line], baseline: str) -> list[Line]:
    """The same with the row called `baseline` marked so; raises UsageError where the name stands for several."""
    found = (
        [line for line in lines if line.label == baseline]
        or [line for line in lines if baseline in _names(line)]
        or [line for line in lines if meant(baseline, _names(line))]
    )
    if len(found) > 1:
        raise UsageError(
            f"--baseline: '{baseline}' stands for several rows; give one of: {'; '.join(x.label for x in found)}"
        )
    return [replace(x, mark="baseline", remarks=(*x.remarks, "baseline")) if x in found else x for x in lines]


def renamed(lines: Sequence[Line], names: Mapping[str, str]) -> list[Line]:
    """The same, with rows called what `names` (label or pattern → name) says; raises UsageError where two would be one.

    The first that fits a row counts.
    """
    found = [_renamed(line, names) for line in lines]
    labels = [line.label for line in found]
    if names and any(line.label == BASE and not line.is_base for line in found):
        raise UsageError(f"--rename: '{BASE}' is the base's own name; give the row another")
    if twice := next((label for label in labels if names and labels.count(label) > 1), None):
        raise UsageError(f"--rename: two rows would be called '{twice}'; give each a name of its own")
    return found


def fits(line: Line, name: str) -> bool:
    """Whether a label or pattern means this row."""
    return any(fnmatchcase(mine, name) for mine in _names(line)) or bool(meant(name, _names(line)))


def _renamed(line: Line, names: Mapping[str, str]) -> Line:
    new = next((new for old, new in names.items() if fits(line, old)), None)
    return line if new is None else replace(line, name=plain_text(new), whole=plain_text(new), remarks=())


def _names(line: Line) -> set[str]:
    """What a user may call a row."""
    return {line.label, line.full, line.name, line.whole, line.mark} - {""}


def in_order(lines: Sequence[Line], primary: str, better: str) -> list[Line]:
    """By the primary column, best first: numbers, infinity, what was not measured; then the pinned rows.

    A bound stands where its worse end does; one without that end comes with what was not measured. Of rows that are
    infinitely far the one that has lost less of p comes first. Ties go to fewer model calls, then by name.
    """
    sign = -1.0 if better == "higher" else 1.0

    def place(line: Line) -> tuple[int, int, tuple[float, float]]:
        value, pin = line.value(primary), PINNED.index(line.mark) if line.mark in PINNED else -1
        if value is None:
            ends = [number(line.records.get(primary, {}).get(end)) for end in ("ci_low", "ci_high")]
            worst = ends[1] if sign > 0 else ends[0]
            if worst is not None and isfinite(worst):
                return pin, 0, (sign * worst, 1.0)
            return pin, 3, (next((sign * end for end in ends if end is not None), inf), 0.0)
        if isinf(value):
            return pin, 2, line.lost
        return pin, 0, (sign * value, 0.0)

    return sorted(lines, key=lambda line: (*place(line), line.calls, line.label))


def _line(who: tuple[str, ...], records: dict[str, Record], short: str) -> Line:
    """The row of one generator; an aligner on the table's base goes by its own name."""
    generator, aligner, own, *_ = who
    about = next(iter(records.values()))
    is_base = generator == about["base"] and not (own and about["base_id"] and own != about["base_id"])
    named = aligner_name(aligner)
    mark = (
        "ceiling" if generator == CEILING else "base" if is_base and not aligner
        else named if named in ("constant", "copy") else ""
    )  # fmt: skip
    model = "" if aligner and generator == about["base"] else generator
    name, whole = (plain_text(" + ".join(filter(None, (model, said)))) for said in (short, aligner))
    return Line(generator, aligner, name, mark, records, who, whole, is_base=is_base and not aligner)


def _with(name: str, remarks: Sequence[str]) -> str:
    return f"{name} ({', '.join(remarks)})" if remarks else name


def _by_name(lines: Sequence[Line]) -> dict[str, list[Line]]:
    found: dict[str, list[Line]] = {}
    for line in lines:
        found.setdefault(line.name, []).append(line)
    return found


def _told_apart(same: Sequence[Line], always: Sequence[int]) -> list[Line]:
    """Lines of one name, with what they are (an aligner's name says it) and what tells them apart."""
    remarks = _differences([line.who for line in same], always)
    return [
        replace(line, remarks=(*filter(None, ("" if line.aligner else line.mark,)), *told))
        for line, told in zip(same, remarks, strict=True)
    ]


def _is_mean(record: Record) -> bool:
    return not pd.isna(record.get("seeds"))


def _differences(rows: Sequence[tuple[str, ...]], always: Sequence[int]) -> list[list[str]]:
    """For each of some rows of one name, the fewest remarks that tell them apart, and those that are `always` made."""
    chosen = list(always)
    for i in REMARKS:
        if len({tuple(who[j] for j in (*chosen, i)) for who in rows}) > len(
            {tuple(who[j] for j in chosen) for who in rows}
        ):
            chosen.append(i)
    return [[REMARKS[i].format(plain_text(_digits(i, who[i]))) for i in chosen if who[i]] for who in rows]


def _digits(position: int, word: str) -> str:
    """A task's hash by its first 8 digits."""
    return word[:8] if position == HASH else word
