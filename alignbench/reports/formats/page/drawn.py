"""Example draws as a page carries them: one block of JSON for each table, read when a generator is opened."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from markupsafe import Markup

from alignbench.features.spans import Span
from alignbench.files import jsonable
from alignbench.reports.examples import Example, Shown
from alignbench.reports.table.board import Table, plain_text
from alignbench.reports.table.lines import WHO

DANGEROUS = re.compile("[<>&\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What must not stand in a script element as it is: markup, line ends of JavaScript, what turns the writing of the
page's source around, what UTF-8 cannot say."""


def of_table(table: Table, examples: Sequence[Shown]) -> dict[int, tuple[Example, ...]]:
    """Number of a row → its draws; a mean over seeds has those of the first seed."""
    known: dict[tuple[str, str], list[Shown]] = {}
    for shown in sorted((shown for shown in examples if _is_of(table, shown)), key=lambda s: s.key.seed):
        known.setdefault((shown.key.generator, shown.key.aligner), []).append(shown)
    numbered = [(n, dict(zip(WHO, row.who, strict=True))) for n, row in enumerate(table.rows, 1) if row.who]
    found = (
        (n, next((s.draws for s in known.get((who["generator"], who["aligner"]), ()) if _is_by(who, s)), ()))
        for n, who in numbered
    )
    return {n: draws for n, draws in found if draws}


def _is_of(table: Table, shown: Shown) -> bool:
    """Whether these draws were measured beside the base of this table, and read by its judge."""
    key = shown.key
    base = plain_text(key.base_id) == table.base_id if table.base_id else plain_text(key.base) == table.base
    return base and (plain_text(key.task), plain_text(key.judge)) == (table.task, table.judge)


def _is_by(who: Mapping[str, str], shown: Shown) -> bool:
    """Whether these draws are those that a row tells of; of a mean over seeds, whichever seed it is."""
    key, mean = shown.key, not who["seed"]
    same = (who["task_hash"], who["draws"]) == (key.task_hash, str(key.draws))
    seed = mean or who["seed"] == str(key.seed)
    generator = who["generator_id"] == key.generator_id or (mean and bool(key.aligner))
    return same and seed and generator and key.target_id in (who["target_id"], *who["target_id"].split("+"))


def packed(drawn: Mapping[int, Sequence[Example]]) -> Markup:
    """The draws of a table's rows as JSON that no string in it can leave; prompts and features are named once."""
    words = _Words()
    draws = {n: [_packed(draw, words) for draw in some] for n, some in drawn.items()}
    content = {"prompts": list(words.prompts), "features": list(words.features), "draws": draws}
    return as_json(jsonable(content))


def as_json(content: Any) -> Markup:
    """Plain data as JSON that no string in it can leave, for a script element."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(DANGEROUS.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


@dataclass
class _Words:
    """Prompts and names of features in order of appearance, with their places."""

    prompts: dict[str, int] = field(default_factory=dict)
    features: dict[str, int] = field(default_factory=dict)


def _packed(draw: Example, words: _Words) -> dict[str, Any]:
    places = [words.features.setdefault(name, len(words.features)) for name in draw.features]
    marked = {"marks": _in_javascript(draw.text, draw.marks)} if draw.marks else {}
    return {
        "prompt": words.prompts.setdefault(draw.prompt, len(words.prompts)), "index": draw.index,
        "end": "cut" if draw.cut else "ended" if draw.finished else "limit",
        "tokens": draw.pieces or draw.text, "nats": _rounded(draw.nats),
        "logs": _rounded([draw.log_gen, draw.log_prob, draw.log_base, draw.log_target]),
        "features": [[place, _word(value)] for place, value in zip(places, draw.features.values(), strict=True)],
        **marked,
    }  # fmt: skip


def _in_javascript(text: str, spans: Sequence[Span]) -> list[list[int]]:
    """Spans of characters as JavaScript counts them, to which one beyond U+FFFF is two."""
    if text.isascii():
        return [list(span) for span in spans]
    at = [0, *accumulate(1 + (c > "\uffff") for c in text)]
    return [[at[begin], at[end]] for begin, end in spans]


def _rounded(values: Iterable[float | None]) -> list[float | None]:
    return [None if value is None else round(value, 2) for value in values]


def _word(value: float | str | None) -> str:
    return "—" if value is None else value if isinstance(value, str) else f"{value:.4g}"
