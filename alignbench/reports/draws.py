"""The file of example draws beside published rows, <task>.draws.jsonl: one draw a line, each with a digest.

    {"task", …, "measured"}     which row it is of, see `FIELDS`
    {"prompt", "index", "text", "finished", "features"}     see `Example`; "cut": true of a text that was shortened
    {"logs"}                    nats under generator, law that drew it, base and target; null where not known
    {"lengths", "nats"}         of each token: its characters of the text, and hundredths of nats; absent if not known
    {"marks"}                   [begin, end] of what the target asks for; absent where there is none
    {"digest"}                  of all the others, by which an edited line is known

Such a file may be a stranger's: it is checked as strictly as rows are, and lines that cannot be true are left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from hashlib import sha256
from itertools import accumulate, pairwise
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from alignbench.errors import StoreError
from alignbench.features.spans import joined
from alignbench.files import jsonable
from alignbench.reports.faults import few
from alignbench.reports.folders import UNIT
from alignbench.reports.rows import DIGEST, EDITED
from alignbench.reports.shown import Example, Shown, shortened
from alignbench.reports.table.board import plain_text
from alignbench.run.rows import RowKey
from alignbench.yamlfile import Strict

SUFFIX = ".draws.jsonl"
FIELDS = (*UNIT, "task_version", "measured")
"""What a line has of the key of its row."""
MOST = 3
"""Draws of a row that are published."""
LINE = 2_000
"""Characters of a line, more or less: three draws of 25 rows of ten tasks are below 1.5 MB."""
PROMPT = 600
"""Characters of a prompt, of which else the beginning is shown."""
LARGEST_LINE, LARGEST_FILE = 64_000, 16_000_000
"""Bytes of what is read."""

MOST_LINES = 20_000

Number = float | Literal["inf", "-inf"] | None
Count = Annotated[int, Field(ge=0, lt=2**63)]


class _Line(Strict):
    """A line of the file, but for its digest."""

    task: str
    task_hash: str
    target_id: str
    base: str
    base_id: str
    judge: str
    generator: str
    generator_id: str
    aligner: str
    seed: Count
    draws: Count
    task_version: Count
    measured: str
    prompt: str
    index: Count
    text: str
    finished: bool
    features: dict[str, float | str | None]
    logs: list[Number]
    cut: bool = False
    lengths: list[Count] = Field(default_factory=list)
    nats: list[Annotated[int, Field(gt=-(2**53), lt=2**53)] | Literal["inf", "-inf"]] = Field(default_factory=list)
    marks: list[list[Count]] = Field(default_factory=list)

    def fault(self) -> str:
        """What cannot be true; "" for nothing."""
        if len(self.logs) != 4:
            return "'logs' are not four numbers"
        if len(self.lengths) != len(self.nats):
            return "'lengths' and 'nats' are not of the same tokens"
        if self.lengths and sum(self.lengths) != len(self.text):
            return "'lengths' do not add up to the text"
        spans = [(m[0], m[1]) for m in self.marks if len(m) == 2]
        if len(spans) != len(self.marks) or list(joined(spans, len(self.text))) != spans:
            return "'marks' are no places of the text in order"
        return ""

    def key(self) -> RowKey:
        """Which row it is of."""
        return RowKey(run_id="", signature="", **{name: getattr(self, name) for name in FIELDS})

    def example(self) -> Example:
        """The draw."""
        ends = [0, *accumulate(self.lengths)]
        gen, law, base, target = (None if x is None else float(x) for x in self.logs)
        return Example(
            self.prompt, self.index, self.text, self.finished, self.features, law, base, target, gen,
            tuple(self.text[begin:end] for begin, end in pairwise(ends)), tuple(float(x) / 100 for x in self.nats),
            self.cut, tuple((begin, end) for begin, end in self.marks),
        )  # fmt: skip


def row_of(key: RowKey) -> tuple[str, ...]:
    """Which measurement a row is of, as text: `UNIT`, and when."""
    return tuple(str(getattr(key, name)) for name in (*UNIT, "measured"))


def read_draws(path: Path) -> tuple[list[Shown], list[str]]:
    """The draws in a file, and lines that name it and what of it is left out; raises StoreError if it is none."""
    try:
        if not path.is_file():
            raise StoreError(f"{path}: cannot be read as draws: it is no file")
        if (size := path.stat().st_size) > LARGEST_FILE:
            raise StoreError(f"{path}: cannot be read as draws: it has {size:,} bytes, more than {LARGEST_FILE:,}")
        with path.open("rb") as file:
            lines = file.read(LARGEST_FILE).split(b"\n")
    except OSError as error:
        raise StoreError(f"{path}: cannot be read as draws: {error.strerror or error}") from error
    if len(lines) > MOST_LINES:
        raise StoreError(f"{path}: cannot be read as draws: it has more than {MOST_LINES:,} lines")
    found: dict[tuple[str, ...], Shown] = {}
    told: list[str] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            read = _read(line)
        except StoreError as error:
            told.append(f"{path}: line {number}: {error}; the draw is left out")
            continue
        key = read.key()
        before = found.get(row_of(key), Shown(key, ()))
        found[row_of(key)] = replace(before, draws=(*before.draws, read.example())[:MOST])
    return list(found.values()), few(told, f"{path}: %d more draws are left out")


def _read(line: bytes) -> _Line:
    """A line; raises StoreError."""
    if len(line) > LARGEST_LINE:
        raise StoreError(f"has {len(line):,} bytes, more than {LARGEST_LINE:,}")
    try:
        content = json.loads(line.decode("utf-8"), parse_constant=_refused)
        digest = content.pop(DIGEST, "") if isinstance(content, dict) else ""
        read = _Line.model_validate(content)
        edited = digest != _digest(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = plain_text(str((first["loc"] or ("it",))[0]))[:40]
        raise StoreError(f"'{where}': {first['msg'][:100].lower()}") from error
    except (ValueError, RecursionError) as error:
        raise StoreError(f"is no JSON: {' '.join(str(error).split())[:100]}") from error
    if fault := EDITED if edited else read.fault():
        raise StoreError(fault)
    return read


def _refused(word: str) -> float:
    raise ValueError(f"{word} is no number of JSON")


def draws_bytes(shown: Iterable[Shown]) -> bytes:
    """The draws as a file, sorted; equal draws give equal bytes."""
    lines = sorted((line for one in shown for line in _lines(one)), key=_place)
    return "".join(f"{_spelled({**line, DIGEST: _digest(line)})}\n" for line in lines).encode()


def _lines(shown: Shown) -> Iterator[dict[str, Any]]:
    key = {name: getattr(shown.key, name) for name in FIELDS}
    for draw in shown.draws[:MOST]:
        sizes = [jsonable(key | _told(size)) for size in _sizes(draw)]
        yield next((line for line in sizes if _fits(line)), sizes[-1])


def _sizes(draw: Example) -> Iterator[Example]:
    """The draw, then without its tokens, then shortened."""
    long = draw.prompt if len(draw.prompt) <= PROMPT else f"{draw.prompt[: PROMPT - 1]}…"
    yield replace(draw, prompt=long)
    yield replace(draw, prompt=long, pieces=(), nats=())
    yield replace(shortened(draw), prompt=long, pieces=(), nats=())


def _fits(line: Mapping[str, Any]) -> bool:
    return len(json.dumps(line, ensure_ascii=False, separators=(",", ":"))) <= LINE


def _told(draw: Example) -> dict[str, Any]:
    logs = (draw.log_gen, draw.log_prob, draw.log_base, draw.log_target)
    optional = {
        "cut": draw.cut, "lengths": [len(piece) for piece in draw.pieces], "nats": [_hundredths(x) for x in draw.nats],
        "marks": [list(span) for span in draw.marks],
    }  # fmt: skip
    return {
        "prompt": _paired(draw.prompt), "index": draw.index, "text": _paired(draw.text), "finished": draw.finished,
        "features": {name: _short(value) for name, value in draw.features.items()},
        "logs": [None if x is None else round(x, 2) for x in logs],
    } | {name: value for name, value in optional.items() if value}  # fmt: skip


def _paired(text: str) -> str:
    """Without lone surrogates, of which JSON would make one character of two."""
    return re.sub("[\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", text)


def _hundredths(nats: float) -> int | float:
    return round(100 * nats) if isfinite(nats) else nats


def _short(value: float | str | None) -> float | str | None:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _place(line: Mapping[str, Any]) -> tuple[Any, ...]:
    return (*(line[name] for name in (*UNIT, "measured")), line["index"], line["prompt"], line["text"])


def _digest(line: Mapping[str, Any]) -> str:
    """10 hex digits after an "x", as rows have them."""
    return "x" + sha256(_spelled(line, sort_keys=True).encode()).hexdigest()[:10]


def _spelled(line: Mapping[str, Any], *, sort_keys: bool = False) -> str:
    """In ASCII: nothing in it ends a line or turns the writing round."""
    return json.dumps(line, ensure_ascii=True, allow_nan=False, separators=(",", ":"), sort_keys=sort_keys)
