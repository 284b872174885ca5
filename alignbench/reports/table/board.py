"""What a leaderboard is made of: tables of rows, rows of cells. Every format renders these and knows nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import pairwise
from unicodedata import category

import pandas as pd

from alignbench.reports.table.numbers import MISSING

ARROWS = {"higher": "↑", "lower": "↓", "near": "→ p"}
"""Which way is better: more, less, or nearer to the number of draws of p."""
LONGEST = 2000  # characters of a name, a note or a signature that a table shows
SENTENCE = 600  # of what a task asks
PINNED = ("baseline", "constant", "copy", "ceiling")
"""Marks of rows that are shown below the others, in this order, and neither ranked nor bold."""
BASE = "base"
"""Mark of the base's row, which stands and is ranked among the others."""


@dataclass(frozen=True)
class Column:
    """One column: a part of a metric, or what stands beside it: its exact value, its difference to the baseline."""

    key: str
    label: str
    better: str = ""
    exact: bool = False
    delta: bool = False
    notes: tuple[int, ...] = ()
    below: str = ""  # a second line of the heading: the unit, or the goal
    words: bool = False  # whether its cells are words, not numbers

    @property
    def aside(self) -> bool:
        """Whether it belongs to the column before it."""
        return self.exact or self.delta

    @property
    def heading(self) -> str:
        """The label, and an arrow towards better."""
        return " ".join(filter(None, (self.label, "" if self.aside else ARROWS.get(self.better, ""))))


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


NO_RANK = Cell("")


@dataclass(frozen=True)
class Row:
    """What one generator reached, or one number of several: a cell for each column."""

    label: str  # short, and no other row's of the table
    cells: tuple[Cell, ...]
    generator: str = ""
    aligner: str = ""  # in full, as a user would type it
    mark: str = ""  # one of PINNED, BASE, or nothing
    is_base: bool = False  # of the table, whatever its mark
    rank: Cell = NO_RANK  # by the primary metric, with its 95 % limits; empty where pinned
    front: bool = False  # on the Pareto front
    notes: tuple[int, ...] = ()  # of the label: what it says in short
    kept: float | None = None  # share of p's mass that its law can say, where it truncates
    full: str = ""  # the label with nothing cut: what names the generator in other tables too
    who: tuple[str, ...] = ()  # what tells the rows that it is of from others: see `lines.WHO`


@dataclass(frozen=True)
class Table:
    """Rows and columns with what is said above and below them; every format renders it, whatever its rows are.

    Of a leaderboard: all generators on one task (one hash of it) with one target, beside one base, read by one judge.
    """

    heading: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    subtitle: str = ""  # what tells it from other tables of its heading
    conclusion: str = ""  # what it means, a sentence a line
    footnotes: tuple[str, ...] = ()
    legend: tuple[str, ...] = ()  # what its ranks, bold numbers and marks mean, a line each
    signature: str = ""
    named: str = ""  # what the labels of its rows are
    rank_notes: tuple[int, ...] = ()  # of the heading of the ranks
    truth: str = ""  # of a world whose truth is known: how many intervals hold it
    task: str = ""
    version: str = ""
    task_hash: str = ""
    target_id: str = ""
    base: str = ""
    base_id: str = ""
    judge: str = ""  # "" for the base
    brief: Table | None = None  # the same in a dozen columns with two digits a number

    @property
    def in_words(self) -> bool:
        """Whether its cells are words, which may be folded, not numbers, which may not."""
        return all(column.words for column in self.columns)

    @property
    def ranked(self) -> bool:
        """Whether it has a column of ranks."""
        return any(row.rank.point for row in self.rows)

    @property
    def findings(self) -> list[str]:
        """The sentences of its conclusion, or of its brief table's."""
        return (self.conclusion or (self.brief.conclusion if self.brief is not None else "")).splitlines()

    @property
    def ranking(self) -> int:
        """How many rows stand before the pinned ones at the end, which are set apart."""
        return next((i for i in range(len(self.rows), 0, -1) if self.rows[i - 1].mark not in PINNED), 0)

    @property
    def title(self) -> str:
        """Heading and subtitle: no two tables of a leaderboard have the same."""
        return " · ".join(filter(None, (self.heading, self.subtitle)))


@dataclass(frozen=True)
class Arrangement:
    """What was asked of a leaderboard beside its columns: see `leaderboards.leaderboard`."""

    primary: Mapping[str, str | None] = field(default_factory=dict)
    baseline: str = ""
    allow_mixed: bool = False
    rename: Mapping[str, str] = field(default_factory=dict)  # a row's label, or a pattern → what it is called
    summaries: Mapping[str, str] = field(default_factory=dict)  # task → what it asks, in a `sentence`


@dataclass(frozen=True)
class Leaderboard:
    """One table for each task hash, target, base and judge, and the tidy rows that they are a view of.

    `suite` has a table for each base and judge of several tasks: verdicts counted over tasks, and those of each.
    """

    tables: tuple[Table, ...]
    rows: pd.DataFrame = field(repr=False)
    suite: tuple[Table, ...] = ()
    asked: Arrangement = field(default_factory=Arrangement, repr=False)

    @property
    def shown(self) -> tuple[Table, ...]:
        """What a format shows: the suites, then the tables."""
        return (*self.suite, *self.tables)

    def __iter__(self) -> Iterator[Table]:
        return iter(self.tables)

    def __len__(self) -> int:
        return len(self.tables)


def units(table: Table) -> list[list[int]]:
    """The columns of a table, each with those beside it that belong to it, which no format may part."""
    starts = [i for i, column in enumerate(table.columns) if not column.aside]
    return [list(range(i, j)) for i, j in pairwise([*starts, len(table.columns)])]


def plain_text(text: str) -> str:
    """`text` on one line, without characters that are not seen: those command a terminal or turn the writing around.

    Of more than `LONGEST` characters it is the beginning, and 8 digits of the whole's SHA-256.
    """
    line = " ".join(text.split())
    if not line.isprintable():
        line = "".join("\N{REPLACEMENT CHARACTER}" if _is_unseen(c) else c for c in line)
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 11]}… #{sha256(line.encode()).hexdigest()[:8]}"


def sentence(text: object) -> str:
    """What a task asks, as plain text of at most `SENTENCE` characters; "" for what is no text."""
    line = plain_text(text) if isinstance(text, str) else ""
    return line if len(line) <= SENTENCE else f"{line[: SENTENCE - 1]}…"


def _is_unseen(character: str) -> bool:
    """Whether it is a control or format character or a lone surrogate; joiners belong to emoji and to Persian."""
    return category(character) in ("Cc", "Cf", "Cs") and character not in "\u200c\u200d"
