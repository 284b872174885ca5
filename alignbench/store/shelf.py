"""All draws of one key: parts on disk, each a batch with the prompts it belongs to, the latest read in memory too."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from alignbench.files import digest, write_atomic
from alignbench.seeds import ATTEMPT
from alignbench.store.packed import pack, unpack
from alignbench.store.places import Places, Row
from alignbench.types import Array, Draws

Spell = Callable[[Sequence[str], Draws], tuple[str, ...]]
"""(prompts, draws) → the texts of draws, from their ids."""


@dataclass(frozen=True)
class Part:
    """A batch of draws: its prompts, and the seconds that it took."""

    prompts: Sequence[str]
    draws: Draws  # `prompt` counts in `prompts`
    seconds: float
    spelled: bool = True  # whether it has the texts; else they are to be made from the ids

    @property
    def rows(self) -> list[Row]:
        """The prompt and the sample number of each draw."""
        return [(self.prompts[c], int(i)) for c, i in zip(self.draws.prompt, self.draws.index, strict=True)]

    @property
    def bytes(self) -> int:
        """About how much memory it takes."""
        arrays = (getattr(self.draws, f.name) for f in fields(Draws))
        return sum(a.nbytes for a in arrays if isinstance(a, np.ndarray)) + sum(map(len, self.draws.texts))


@dataclass
class Memory:
    """Parts that were used last, as many as fit into `limit` bytes."""

    limit: int
    used: int = 0
    parts: OrderedDict[object, tuple[Part, Callable[[], None]]] = field(default_factory=OrderedDict)

    def keep(self, key: object, part: Part, dropped: Callable[[], None]) -> None:
        """Hold on to a part; `dropped` is called when it has to go."""
        self.parts[key] = part, dropped
        self.used += part.bytes
        while self.used > self.limit:
            old, forgotten = self.parts.popitem(last=False)[1]
            self.used -= old.bytes
            forgotten()

    def find(self, key: object) -> Part | None:
        """The part of this key, if it is still held."""
        if key not in self.parts:
            return None
        self.parts.move_to_end(key)
        return self.parts[key][0]


@dataclass
class Shelf:
    """The draws of one key. First draws are kept as they are, further attempts as ids where `spell` makes their texts.

    `folder` None: in memory alone, as long as it has room.
    """

    folder: Path | None
    key: Mapping[str, Any]
    memory: Memory
    places: Places = field(default_factory=Places)
    names: list[object] = field(default_factory=list)  # of parts: a file, or a mark where there is no folder
    known: set[str] = field(default_factory=set)  # patterns of files that were looked at

    def find(self, prompts: Sequence[str], rows: Array, spell: Spell | None) -> list[tuple[Draws, float]]:
        """The kept draws among `rows`, each once, with their share of the seconds that their part took.

        Those whose texts are to be made from ids are there for who can `spell` them.
        """
        self._look("part-*.npz")
        if (rows[:, 1] >= ATTEMPT).any():
            self._look("attempts-*.npz")
        number = {text: c for c, text in enumerate(prompts)}
        used = np.unique(rows[:, 0])
        at = np.concatenate([self.places.find(prompts[c], rows[rows[:, 0] == c, 1]) for c in used])
        at, found = np.unique(at[at[:, 0] >= 0], axis=0), []
        for one in np.unique(at[:, 0]):
            part, where = self._part(int(one)), at[at[:, 0] == one, 1]
            if not part.spelled and spell is None:
                continue
            here = np.array([number.get(text, -1) for text in part.prompts])[part.draws.prompt[where]]
            draws = replace(part.draws.take(where), prompt=here)
            if not part.spelled and spell is not None:
                draws = replace(draws, texts=spell(prompts, draws))
            found.append((draws, part.seconds * len(where) / len(part.draws)))
        return found

    def keep(self, prompts: Sequence[str], batch: Draws, seconds: float, spell: Spell | None) -> None:
        """Keep a batch: its first draws, and its further attempts, as parts of their own."""
        further = batch.index >= ATTEMPT
        for kind, mask in (("part", ~further), ("attempts", further)):
            if mask.any():
                some = batch if mask.all() else batch.take(mask)
                slim = kind == "attempts" and spell is not None and some.tokens is not None
                if slim:
                    some = replace(some, texts=("",) * len(some), token_log_prob=None)
                used, local = np.unique(some.prompt, return_inverse=True)
                part = Part(
                    tuple(prompts[c] for c in used), replace(some, prompt=local), seconds * len(some) / len(batch),
                    spelled=not slim,
                )  # fmt: skip
                self._add(self._write(kind, part), part)

    def _write(self, kind: str, part: Part) -> object:
        """The name of a part, which is a file where there is a folder."""
        if self.folder is None:
            return object()
        if not (self.folder / "key.json").exists():
            write_atomic(self.folder / "key.json", json.dumps(self.key, indent=1, sort_keys=True, ensure_ascii=False))
        path = self.folder / f"{kind}-{digest([list(row) for row in part.rows])}.npz"
        record = {"prompts": part.prompts, "seconds": part.seconds, "draws": part.draws}
        write_atomic(path, pack(record if part.spelled else {**record, "spelled": False}))
        return path

    def _look(self, pattern: str) -> None:
        """Learn which draws are in the folder's files of this name, once."""
        if self.folder is not None and pattern not in self.known:
            self.known.add(pattern)
            for path in sorted(self.folder.glob(pattern)):
                self._add(path, _read(path))

    def _add(self, name: object, part: Part) -> None:
        number = len(self.names)
        self.names.append(name)
        self.places.add(part.rows, number)
        self.memory.keep((id(self), number), part, partial(self._dropped, number))

    def _part(self, number: int) -> Part:
        found = self.memory.find((id(self), number))
        if found is None:
            name = self.names[number]
            assert isinstance(name, Path)
            found = _read(name)
            self.memory.keep((id(self), number), found, partial(self._dropped, number))
        return found

    def _dropped(self, number: int) -> None:
        """Forget where draws were that were in memory alone."""
        if self.folder is None:
            self.places.forget(number)


def _read(path: Path) -> Part:
    record = unpack(path)
    return Part(record["prompts"], record["draws"], record["seconds"], record.get("spelled", True))
