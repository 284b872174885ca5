"""What a page shows of draws: a few of each generator on a task, with what features and models say of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from alignbench.features.spans import Span, joined
from alignbench.run.rows import RowKey

CUT = 400
"""Characters of a text where it is too long to be shown whole."""


@dataclass(frozen=True)
class Example:
    """One draw: what was said after which prompt, and what features and models say of it.

    Numbers are nats of the whole draw, None where they are not known: `log_prob` under the law that drew it, then under
    base, target (unnormalised) and the generator. `pieces` are the text by token, joined where one is a part of a
    character, "" for an end-of-sequence token; `nats` are the log-probabilities of the pieces under the law that drew
    them. Both are empty where the tokens' texts or log-probabilities are not known. `marks` are where in the text the
    features of the task's target find what they look for: (begin, end) of characters, in order, none overlapping.
    """

    prompt: str
    index: int
    text: str
    finished: bool
    features: Mapping[str, float | str | None]
    log_prob: float | None
    log_base: float | None
    log_target: float | None
    log_gen: float | None
    pieces: tuple[str, ...] = ()
    nats: tuple[float, ...] = ()
    cut: bool = False  # whether the text was shortened to fit a page
    marks: tuple[Span, ...] = ()

    @property
    def size(self) -> int:
        """Bytes as compact JSON, roughly."""
        return len(json.dumps(asdict(self), separators=(",", ":"))) - 12 * len(self.nats)  # a page rounds them


@dataclass(frozen=True)
class Shown:
    """The examples of one generator on one task; `key` says which, as its rows do."""

    key: RowKey
    draws: tuple[Example, ...]


def unit_of(key: RowKey) -> tuple[object, ...]:
    """What was measured as one, whenever and by whichever run."""
    return (key.task_hash, key.target_id, key.base_id, key.judge, key.generator, key.generator_id, key.aligner,
            key.seed, key.draws)  # fmt: skip


def shortened(draw: Example) -> Example:
    """The beginning of a long draw, without its tokens."""
    if len(draw.text) <= CUT:
        return draw
    return replace(draw, text=draw.text[:CUT], cut=True, pieces=(), nats=(), marks=joined(draw.marks, CUT))
