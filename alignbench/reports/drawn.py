"""Example draws as a page carries them: one block of JSON for each table, read when a generator is opened."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from alignbench.reports.board import Table, plain_text
from alignbench.reports.examples import Example, Shown
from alignbench.results import jsonable

DANGEROUS = re.compile("[<>&\u2028\u2029\ud800-\udfff\x7f-\x9f]")
"""What must not stand in a script element as it is: markup, line ends of JavaScript, what UTF-8 cannot say."""


def of_table(table: Table, examples: Sequence[Shown]) -> dict[int, tuple[Example, ...]]:
    """Number of a row → its draws, of the first seed; none of rows that bear the same names as another."""
    known: dict[tuple[str, str], tuple[Example, ...]] = {}
    for shown in sorted(examples, key=lambda s: s.key.seed):
        if _is_of(table, shown):
            known.setdefault((plain_text(shown.key.generator), plain_text(shown.key.aligner)), shown.draws)
    names = [(row.generator, row.aligner) for row in table.rows]
    return {n: known[name] for n, name in enumerate(names, 1) if name in known and names.count(name) == 1}


def _is_of(table: Table, shown: Shown) -> bool:
    """Whether these draws were measured for this table; over seeds, a table has several targets."""
    key = shown.key
    base = key.base_id == table.base_id if table.base_id else plain_text(key.base) == table.base
    same = (key.task, key.task_hash, key.judge) == (table.task, table.task_hash, table.judge)
    return same and base and key.target_id in table.target_id.split("+")


def packed(drawn: Mapping[int, Sequence[Example]]) -> Markup:
    """The draws of a table's rows as JSON that no string in it can leave; prompts and features are named once."""
    words = _Words()
    draws = {n: [_packed(draw, words) for draw in some] for n, some in drawn.items()}
    content = {"prompts": list(words.prompts), "features": list(words.features), "draws": draws}
    text = json.dumps(jsonable(content), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(DANGEROUS.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


@dataclass
class _Words:
    """Prompts and names of features in order of appearance, with their places."""

    prompts: dict[str, int] = field(default_factory=dict)
    features: dict[str, int] = field(default_factory=dict)


def _packed(draw: Example, words: _Words) -> dict[str, Any]:
    places = [words.features.setdefault(name, len(words.features)) for name in draw.features]
    return {
        "prompt": words.prompts.setdefault(draw.prompt, len(words.prompts)), "index": draw.index,
        "end": "cut" if draw.cut else "ended" if draw.finished else "limit",
        "tokens": draw.pieces or draw.text, "nats": _rounded(draw.nats),
        "logs": _rounded([draw.log_gen, draw.log_prob, draw.log_base, draw.log_target]),
        "features": [[place, _word(value)] for place, value in zip(places, draw.features.values(), strict=True)],
    }  # fmt: skip


def _rounded(values: Iterable[float | None]) -> list[float | None]:
    return [None if value is None else round(value, 2) for value in values]


def _word(value: float | str | None) -> str:
    return "—" if value is None else value if isinstance(value, str) else f"{value:.4g}"
