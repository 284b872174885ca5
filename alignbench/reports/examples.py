"""Example draws of each generator, from the evidence that runs left: the same prompts and sample numbers for all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from math import isnan
from pathlib import Path

import numpy as np

from alignbench.errors import StoreError
from alignbench.reports.asked import Sought, looked_for
from alignbench.reports.draws import SUFFIX, read_draws
from alignbench.reports.folders import is_generator, is_output
from alignbench.reports.shown import CUT, Example, Shown, shortened, unit_of
from alignbench.run.rows import read_evidence
from alignbench.store.vocab import read_vocab
from alignbench.types import Array, Draws, Evidence

__all__ = ["CUT", "Example", "Shown", "examples", "of_file"]

BUDGET = 2_000_000
"""Bytes of JSON that all examples of a page may take."""
MOST = 6
"""Draws of one generator on one task."""
NONE_OF_THEM = "none"
"""What a categorical feature says of a draw in none of its categories."""


def examples(paths: Sequence[Path], *, budget: int = BUDGET, most: int = MOST) -> tuple[list[Shown], list[str]]:
    """Example draws of all generators in `paths` (see `gather`), and a line for each file that cannot be read.

    Of folders of published rows, and of a published CSV file, the draws that were published beside them. Of each
    generator the first sample numbers, spread over its prompts: at most `most` draws, and fewer, without
    tokens or shortened where else the examples were larger than `budget` bytes. Of one measured twice the newest.
    """
    latest: dict[tuple[object, ...], Shown] = {}
    failures: list[str] = []
    for shown in _all(paths, most, failures):  # of the same measurement the evidence, which comes last, tells more
        who = unit_of(shown.key)
        if who not in latest or latest[who].key.measured <= shown.key.measured:
            latest[who] = shown
    return _within(list(latest.values()), budget, most), list(dict.fromkeys(failures))


def _all(paths: Sequence[Path], most: int, failures: list[str]) -> Iterator[Shown]:
    for path in _published_files(paths):
        try:
            found, told = read_draws(path)
        except StoreError as error:
            failures.append(str(error))
            continue
        failures += told
        yield from found
    for path in _evidence_files(paths):
        try:
            yield of_file(path, most)
        except StoreError as error:
            failures.append(str(error))


def _published_files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in dict.fromkeys(paths):
        if path.is_dir():
            yield from () if is_output(path) or is_generator(path) else sorted(path.glob(f"*{SUFFIX}"))
        elif (beside := path.with_suffix(SUFFIX)).exists():
            yield beside


def _evidence_files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in dict.fromkeys(paths):
        if path.is_dir():
            yield from sorted(path.glob("evidence_*.npz" if is_generator(path) and not is_output(path) else
                                        "*/evidence_*.npz"))  # fmt: skip


def of_file(path: Path, most: int = MOST) -> Shown:
    """The examples of one evidence file; raises StoreError where it is damaged."""
    evidence, key = read_evidence(path)
    draws = evidence.own.draws
    tokens = _tokens(path.parents[1] / "draws", draws.vocab)
    sought = looked_for(path.parents[1], key.task, str(key.task_version))
    where = chosen(draws, len(evidence.prompts), most)
    return Shown(key, tuple(_example(evidence, i, tokens, sought) for i in where))


@lru_cache(maxsize=4)
def _tokens(folder: Path, fingerprint: str) -> tuple[bytes, ...] | None:
    return read_vocab(folder, fingerprint)


def chosen(draws: Draws, prompts: int, most: int) -> list[int]:
    """Positions of at most `most` draws: of prompts evenly spread, the first sample numbers of each in turn."""
    spread = np.unique(np.linspace(0, prompts - 1, min(most, prompts)).round().astype(int))
    order = np.lexsort((draws.index, draws.prompt))
    of_prompt = [order[draws.prompt[order] == prompt].tolist() for prompt in spread]
    turns = max(map(len, of_prompt), default=0)
    return [some[turn] for turn in range(turns) for some in of_prompt if turn < len(some)][:most]


def _example(evidence: Evidence, i: int, tokens: Sequence[bytes] | None, sought: Sought) -> Example:
    own, draws = evidence.own, evidence.own.draws
    pieces, nats = by_token(draws, i, tokens)
    prompt = evidence.prompts[int(draws.prompt[i])]
    return Example(
        prompt=prompt, index=int(draws.index[i]), text=draws.texts[i],
        finished=bool(draws.finished[i]),
        features={name: _feature(values[i], evidence.categories.get(name)) for name, values in own.features.items()},
        log_prob=_at(draws.log_prob, i), log_base=_at(own.log_base, i), log_target=_at(own.log_target, i),
        log_gen=_at(own.log_gen, i), pieces=pieces, nats=nats,
        marks=sought.marks(prompt, draws.texts[i]),
    )  # fmt: skip


def _at(values: Array | None, i: int) -> float | None:
    return None if values is None or isnan(values[i]) else float(values[i])


def _feature(value: float, categories: Sequence[str] | None) -> float | str | None:
    """A number, or the category that its code stands for."""
    if categories is None:
        return None if isnan(value) else float(value)
    return categories[int(value)] if 0 <= int(value) < len(categories) else NONE_OF_THEM


def by_token(draws: Draws, i: int, tokens: Sequence[bytes] | None) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """The pieces of a draw's text and the nats of each; both empty where they are not known.

    Where the tokens do not add up to the text, since the tokenizer cleans up what it decodes, it is one piece.
    """
    if tokens is None or draws.tokens is None or draws.token_log_prob is None:
        return (), ()
    length = int(draws.length[i])
    nats = [float(x) for x in draws.token_log_prob[i, :length]]
    pieces, sums = _joined([tokens[t] for t in draws.tokens[i, :length]], nats)
    text = draws.texts[i]
    if pieces and "".join(pieces) != text == "".join(pieces).removeprefix(" "):  # a text does not begin with a space
        pieces[0] = pieces[0].removeprefix(" ")
    return (tuple(pieces), tuple(sums)) if "".join(pieces) == text else ((text,), (float(sum(nats)),))


def _joined(parts: Sequence[bytes], nats: Sequence[float]) -> tuple[list[str], list[float]]:
    """Whole characters and the nats of their tokens; bytes that never become one are joined to what follows."""
    pieces: list[str] = []
    sums: list[float] = []
    left, total = b"", 0.0
    for k, (part, one) in enumerate(zip(parts, nats, strict=True), start=1):
        left, total = left + part, total + one
        try:
            pieces.append(left.decode("utf-8", "replace" if k == len(parts) else "strict"))
        except UnicodeDecodeError:
            continue
        sums.append(total)
        left, total = b"", 0.0
    return pieces, sums


def _within(found: Sequence[Shown], budget: int, most: int) -> list[Shown]:
    """As many draws of each as fit, at least one: first fewer of them, then without tokens, then short ones."""
    for count in range(most, 0, -1):
        shown = [replace(one, draws=one.draws[:count]) for one in found]
        if _size(shown) <= budget:
            return shown
    plain = [replace(one, draws=tuple(replace(draw, pieces=(), nats=()) for draw in one.draws)) for one in shown]
    if _size(plain) <= budget:
        return plain
    return [replace(one, draws=tuple(map(shortened, one.draws))) for one in plain]


def _size(shown: Sequence[Shown]) -> int:
    return sum(draw.size for one in shown for draw in one.draws)
