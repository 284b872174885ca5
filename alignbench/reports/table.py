"""Tidy rows arranged into leaderboards: which rows share a table, their order, their columns and their footnotes."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from math import isinf, isnan
from typing import Any

import pandas as pd

from alignbench.errors import unknown
from alignbench.registry import metric
from alignbench.reports.numbers import MISSING, plain, spell
from alignbench.reports.rows import tidy
from alignbench.reports.seeds import joined_targets, key_of, newest, whose, with_means
from alignbench.types import CEILING, PRIMARY

COMPACT = (
    "satisfaction.always", "satisfaction.share.*", "satisfaction.moment.*", "satisfaction.reward.*", "moment_error",
    "divergence.kl_target", "divergence.kl_reverse", "divergence.kl_base", "divergence.tv",
    "perplexity", "distinct.distinct_2", "self_bleu", "features.*",
)  # fmt: skip
"""What a leaderboard shows unless asked, after the primary metric."""
COST = ("acceptance.rate", "cost.tokens_per_second", "cost.proposals_per_draw", "cost.calls_per_draw")
"""What it shows last."""
SHORT = ("divergence", "satisfaction", "features", "cost")
"""Metrics whose parts are known by their own names."""
ARROWS = {"higher": "↑", "lower": "↓"}
NORMAL_95 = 1.959963984540054
RESIDUE = 1e-12  # what summing in float64 leaves of an exact 0
TURNS = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
WHO = ("generator", "aligner", "generator_id", "seed", "draws")
"""What tells the rows of a table apart."""
SEED = WHO.index("seed")
REMARKS = {SEED: "seed {}", 4: "{} draws", 2: "#{}"}
"""Position in `WHO` → what a label says where names alone do not tell rows apart, in this order."""

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """One column: a part of a metric, or the exact value that stands beside an estimate."""

    key: str
    label: str
    better: str = ""
    exact: bool = False
    notes: tuple[int, ...] = ()

    @property
    def heading(self) -> str:
        """The label, and an arrow towards better."""
        return " ".join(filter(None, (self.label, "" if self.exact else ARROWS.get(self.better, ""))))


@dataclass(frozen=True)
class Cell:
    """A number with its 95 % limits, and how it is printed; `notes` are footnotes of the table, counted from 1."""

    point: str = MISSING
    spread: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    notes: tuple[int, ...] = ()
    best: bool = False  # the best of its column, or not to be told from it by paired differences

    @property
    def text(self) -> str:
        """Point and spread as one."""
        return f"{self.point} {self.spread}".rstrip()


@dataclass(frozen=True)
class Row:
    """What one generator reached, a cell for each column."""

    generator: str
    aligner: str
    label: str
    mark: str  # "base", "ceiling" or nothing
    cells: tuple[Cell, ...]
    rank: Cell = field(default_factory=Cell)  # by the primary metric, with its 95 % limits; empty where pinned
    front: bool = False  # on the Pareto front


@dataclass(frozen=True)
class Table:
    """All generators on one task (one hash of it) with one target, beside one base and read by one judge."""

    task: str
    version: str
    task_hash: str
    target_id: str
    base: str
    base_id: str
    judge: str  # "" for the base
    remark: str  # what tells it from the other tables of its task, after the base's name
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    footnotes: tuple[str, ...]
    signature: str

    @property
    def heading(self) -> str:
        """Task and version."""
        return f"{self.task} v{self.version}" if self.version else self.task

    @property
    def subtitle(self) -> str:
        """The base, and what tells the table from the others of its task."""
        return f"base {self.base}{self.remark}"

    @property
    def title(self) -> str:
        """Heading and subtitle: no two tables of a leaderboard have the same."""
        return f"{self.heading} · {self.subtitle}"


@dataclass(frozen=True)
class Leaderboard:
    """One table for each task hash, target, base and judge, and the tidy rows that they are a view of."""

    tables: tuple[Table, ...]
    rows: pd.DataFrame = field(repr=False)

    def __iter__(self) -> Iterator[Table]:
        return iter(self.tables)

    def __len__(self) -> int:
        return len(self.tables)

    def __str__(self) -> str:
        from alignbench.reports.markdown import to_markdown

        return to_markdown(self)


def leaderboard(
    rows: pd.DataFrame, *, metrics: Sequence[str] | None = None, primary: Mapping[str, str | None] | None = None
) -> Leaderboard:
    """Leaderboards of tidy `rows`: rows of different task hash, target, base or judge never share a table.

    `metrics` picks columns by metric or `metric.part`; `primary` maps a task to the column that it is sorted by
    (default: what `rows.attrs` say under "primary", else divergence.kl_target). Raises UnknownName where `metrics` has
    a name that no row bears.
    """
    told = rows.attrs.get("primary")
    first = primary if primary is not None else told if isinstance(told, Mapping) else {}
    rows = with_means(tidy(rows))
    _check_metrics(metrics or (), rows)
    groups = _grouped(rows)
    remarks = _remarks([(setting, group["base"].iloc[0]) for setting, group in groups.items()])
    tables = [
        _table(_records(group), metrics, first.get(setting.task) or PRIMARY, remark)
        for (setting, group), remark in zip(groups.items(), remarks, strict=True)
    ]
    return Leaderboard(tuple(tables), rows)


@dataclass(frozen=True)
class _Setting:
    """What all rows of a table have in common."""

    task: str
    task_hash: str
    target_id: str
    base: str  # its digits, or its name where older rows have none
    judge: str
    known: bool  # whether `base` is digits

    @classmethod
    def of(cls, record: Record) -> _Setting:
        base = record["base_id"] or record["base"]
        return cls(record["task"], record["task_hash"], record["target_id"], base, record["judge"],
                   bool(record["base_id"]))  # fmt: skip


def _grouped(rows: pd.DataFrame) -> dict[_Setting, pd.DataFrame]:
    """The rows of each table, in order of appearance; dicts, which take much more memory, are made of one at a time."""
    named = rows["base_id"] != ""
    targets = rows["target_id"].map(joined_targets(list(rows["target_id"].unique())))
    bases = rows["base_id"].where(named, rows["base"])
    keys = [rows["task"], rows["task_hash"], targets, bases, rows["judge"], named]
    found = rows.assign(target_id=targets).groupby(keys, sort=False)
    return {_Setting.of(_records(group.head(1))[0]): group for _, group in found}


def _records(rows: pd.DataFrame) -> list[Record]:
    return [{str(k): v for k, v in r.items()} for r in rows.to_dict("records")]


def _remarks(tables: Sequence[tuple[_Setting, str]]) -> list[str]:
    """For each table, given as (setting, name of the base), what tells it from the others of its task."""
    return [_remark(s, name, [t for t in tables if t[0].task == s.task]) for s, name in tables]


def _remark(setting: _Setting, name: str, all_of_task: Sequence[tuple[_Setting, str]]) -> str:
    namesakes = {s.base for s, n in all_of_task if n == name}
    alike = {s.target_id for s, _ in all_of_task if (s.task_hash, s.base) == (setting.task_hash, setting.base)}
    differs = {
        f"#{setting.base if setting.known else 'unknown'}": len(namesakes) > 1,
        f"· task #{_digits(setting, all_of_task)}": len({s.task_hash for s, _ in all_of_task}) > 1,
        f"· judge {setting.judge or 'the base'}": len({s.judge for s, _ in all_of_task}) > 1,
        f"· λ differs: target #{setting.target_id or 'unknown'}": len(alike) > 1,
    }
    return "".join(f" {plain_text(text)}" for text, said in differs.items() if said)


def _digits(setting: _Setting, all_of_task: Sequence[tuple[_Setting, str]]) -> str:
    """The first 8 digits of the task's hash, or all where these do not tell it from another."""
    short = setting.task_hash[:8]
    return setting.task_hash if len({s.task_hash for s, _ in all_of_task if s.task_hash[:8] == short}) > 1 else short


def _check_metrics(metrics: Sequence[str], rows: pd.DataFrame) -> None:
    records = _records(rows[["metric", "part"]].drop_duplicates())
    keys = {key_of(r) for r in records}
    known = keys | {r["metric"] for r in records}
    for name in metrics:
        if not _chosen(list(keys), _patterns([name])):
            raise unknown("metric", name, known)


def _patterns(metrics: Sequence[str]) -> list[str]:
    """A name stands for its own column and for those of its parts."""
    return [pattern for name in metrics for pattern in (name, f"{name}.*")]


@dataclass
class _Line:
    """The rows of one generator, by column."""

    generator: str
    aligner: str
    label: str
    mark: str
    records: dict[str, Record]
    who: tuple[str, ...]  # the values of WHO


@dataclass
class _Footnotes:
    """Notes in order of appearance, each once."""

    notes: list[str] = field(default_factory=list)

    def number(self, parts: Sequence[str]) -> tuple[int, ...]:
        """The number of the note that `parts` make up, given out where it is new; none where nothing is said."""
        note = "; ".join(parts)
        if note and note not in self.notes:
            self.notes.append(note)
        return (self.notes.index(note) + 1,) if note else ()


def _table(group: Sequence[Record], metrics: Sequence[str] | None, primary: str, remark: str) -> Table:
    asked = [name for name in dict.fromkeys(r["metric"] for r in group) if _is_shown_whole(name)]
    patterns = (primary, *COMPACT, *_patterns(asked), *COST) if metrics is None else _patterns(metrics)
    keys = _chosen(list(dict.fromkeys(key_of(r) for r in group)), patterns)
    if metrics is None:
        said = {primary, *(key_of(r) for r in group if _says_something(r) or r["metric"] in asked)}
        keys = [key for key in keys if key in said]
    better = {key_of(r): r["better"] for r in reversed(group) if r["better"]}
    lines = _sorted(_lines(group), primary, better.get(primary, "lower"))
    footnotes = _Footnotes()
    shared = {key: _shared_notes(lines, key) for key in keys}
    columns = [Column(key, _label(key), better.get(key, ""), notes=footnotes.number(shared[key])) for key in keys]
    columns = [part for column in columns for part in _with_exact(column, lines)]
    rows = [
        Row(plain_text(line.generator), plain_text(line.aligner), line.label, line.mark,
            tuple(_cell(line.records.get(c.key), c, shared[c.key], footnotes) for c in columns))
        for line in lines
    ]  # fmt: skip
    told = ("task", "task_hash", "target_id", "base", "base_id", "judge")
    about = {name: plain_text(group[0][name]) for name in told}
    shown = [r["signature"] for line in lines for key, r in line.records.items() if key in keys]
    return Table(
        **about, version=plain_text(group[0]["task_version"]), remark=remark, columns=tuple(columns), rows=tuple(rows),
        footnotes=tuple(footnotes.notes), signature=plain_text(common_signature(shown)),
    )  # fmt: skip


def _is_shown_whole(name: str) -> bool:
    """Whether a leaderboard shows a metric of which `COMPACT` and `COST` pick no parts, between the two."""
    picked = {pattern.partition(".")[0] for pattern in (*COMPACT, *COST)}
    return name not in picked and not (name in metric and metric[name].meta.get("detail", False))


def _chosen(keys: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """The keys that fit `patterns`, in the order of the patterns."""
    return list(dict.fromkeys(key for pattern in patterns for key in keys if fnmatchcase(key, pattern)))


def _says_something(record: Record) -> bool:
    """Whether a cell has a number or a bound; a column without any is left out unless it is asked for."""
    return any(_number(record[name]) is not None for name in ("value", "ci_low", "ci_high", "exact"))


def _label(key: str) -> str:
    """What heads the column: the part alone where it says enough."""
    metric, _, part = key.partition(".")
    return plain_text(part if part and (metric in SHORT or part.startswith(metric)) else key)


def _with_exact(column: Column, lines: Sequence[_Line]) -> list[Column]:
    known = any(_number(line.records[column.key]["exact"]) is not None for line in lines if column.key in line.records)
    return [column, Column(column.key, "exact", column.better, exact=True)] if known else [column]


def _lines(group: Sequence[Record]) -> list[_Line]:
    """The rows by generator, its digits, aligner, seed and draws; where one was measured again, the newest counts.

    A mean over seeds stands for the rows that it is of.
    """
    found: dict[tuple[str, ...], list[Record]] = {}
    means = {whose(record) for record in group if _is_mean(record)}
    for record in group:
        if whose(record) in means and not _is_mean(record):
            continue
        who = tuple("" if pd.isna(record[name]) else str(record[name]) for name in WHO)
        found.setdefault(who, []).append(record)
    lines = [_line(who, newest(records)) for who, records in found.items()]
    for name in dict.fromkeys(line.label for line in lines):
        same = [line for line in lines if line.label == name]
        for line, remark in zip(same, _differences([line.who for line in same], bool(means)), strict=True):
            remarks = ", ".join(filter(None, (line.mark, *remark)))
            line.label = f"{name} ({remarks})" if remarks else name
    return lines


def _line(who: tuple[str, ...], records: dict[str, Record]) -> _Line:
    """The row of one generator; an aligner on the table's base goes by its own name."""
    generator, aligner, own, *_ = who
    about = next(iter(records.values()))
    is_base = generator == about["base"] and not (own and about["base_id"] and own != about["base_id"])
    mark = "ceiling" if generator == CEILING else "base" if is_base and not aligner else ""
    name = " + ".join(filter(None, ("" if aligner and generator == about["base"] else generator, aligner)))
    return _Line(generator, aligner, plain_text(name), mark, records, who)


def _is_mean(record: Record) -> bool:
    return not pd.isna(record.get("seeds"))


def _differences(rows: Sequence[tuple[str, ...]], means: bool) -> list[list[str]]:
    """For each of some rows of one name, the fewest remarks (seed, draws, digits) that tell them apart.

    Beside `means` over seeds, a row of one seed always says which.
    """
    chosen = [SEED] if means else []
    for i in REMARKS:
        if len({tuple(who[j] for j in (*chosen, i)) for who in rows}) > len(
            {tuple(who[j] for j in chosen) for who in rows}
        ):
            chosen.append(i)
    return [[REMARKS[i].format(plain_text(who[i])) for i in chosen if who[i]] for who in rows]


def _sorted(lines: Sequence[_Line], primary: str, better: str) -> list[_Line]:
    """By the primary column, best first: numbers, then infinity, then what was not measured; the ceiling last."""
    sign = -1.0 if better == "higher" else 1.0

    def place(line: _Line) -> tuple[bool, int, float]:
        value = _number(line.records[primary]["value"]) if primary in line.records else None
        if value is None:
            return line.mark == "ceiling", 2, 0.0
        return line.mark == "ceiling", int(isinf(value)), 0.0 if isinf(value) else sign * value

    return sorted(lines, key=place)


def _shared_notes(lines: Sequence[_Line], key: str) -> tuple[str, ...]:
    """The parts of notes that all measured cells of a column have: they belong to its head."""
    measured = [line.records[key] for line in lines if key in line.records]
    notes = [_notes(r) for r in measured if _number(r["value"]) is not None]
    return tuple(n for n in notes[0] if all(n in other for other in notes)) if len(notes) > 1 else ()


def _notes(record: Record) -> list[str]:
    """The parts of a note, which `Estimate.noted` joins by semicolons."""
    return list(filter(None, (plain_text(note) for note in str(record["note"]).split("; "))))


def _cell(record: Record | None, column: Column, shared: Sequence[str], footnotes: _Footnotes) -> Cell:
    if column.exact:
        exact = None if record is None else _number(record["exact"])
        return Cell("") if exact is None else Cell(plain(exact if abs(exact) > RESIDUE else 0.0), value=exact)
    if record is None:
        return Cell(notes=footnotes.number(["not reported"]))
    value, low, high = (_number(record[name]) for name in ("value", "ci_low", "ci_high"))
    if low is None and high is None:
        low, high = _from_stderr(value, _number(record["stderr"]))
    notes = [note for note in _notes(record) if note not in shared]
    if not notes and not shared and (reason := _unexplained(value, low, high)):
        notes = [reason]
    return Cell(*spell(value, low, high), value, low, high, footnotes.number(notes))


def _from_stderr(value: float | None, stderr: float | None) -> tuple[float | None, float | None]:
    if value is None or stderr is None or isinf(value):
        return None, None
    return value - NORMAL_95 * stderr, value + NORMAL_95 * stderr


def _unexplained(value: float | None, low: float | None, high: float | None) -> str:
    """What to say of a cell that has no error bar and no note of its own."""
    if value is None:
        return "not measured; no reason was given" if low is None and high is None else "a bound at 95 %"
    return "no interval was given" if low is None and high is None else ""


def _number(value: float | None) -> float | None:
    return None if value is None or isnan(value) else float(value)


def common_signature(signatures: Sequence[str]) -> str:
    """The parts `key:value` that all of the pipe-separated `signatures` have, in the order of the first."""
    parts = [dict.fromkeys(s.split("|")) for s in dict.fromkeys(signatures)]
    return "|".join(part for part in parts[0] if part and all(part in other for other in parts)) if parts else ""


def plain_text(text: str) -> str:
    """`text` on one line, without characters that command a terminal or turn the direction of writing."""
    return "".join("\N{REPLACEMENT CHARACTER}" if _is_command(c) else c for c in " ".join(text.split()))


def _is_command(character: str) -> bool:
    if unicodedata.category(character) in ("Cc", "Cs"):  # control characters, lone surrogates
        return True
    return unicodedata.bidirectional(character) in TURNS or character in "\u200e\u200f\u061c"
