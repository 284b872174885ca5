"""What the work of an aligner cost, kept in its folder: a run that finds the work done finds the bill too."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from alignbench.errors import StoreError
from alignbench.files import dump, write_atomic
from alignbench.sources import sha256_folder
from alignbench.types import Training

FILE, RECIPE = "cost.json", "recipe.json"
LATER = {"peak_bytes": 0}
"""What files of older versions lack, and what it is there."""


def made_in(folder: Path) -> str:
    """The hash of what an aligner made in its folder: of the weights alone, where a training says it.

    Its other files tell seconds too, which are never the same twice.
    """
    try:
        told = json.loads((folder / RECIPE).read_text(encoding="utf-8"))
        return str(told["weights"])
    except (OSError, ValueError, LookupError, TypeError):
        return sha256_folder(folder, leave=(FILE,))


@dataclass
class Bill:
    """The training of the aligners of one setting, by the folder of each; None for those that have none."""

    booked: dict[Path | None, Training] = field(default_factory=dict)
    folders: set[Path] = field(default_factory=set)  # of all the aligners that were put to work

    @property
    def weights(self) -> dict[str, str]:
        """Name of a folder → the hash of what was made in it."""
        return {folder.name: made_in(folder) for folder in self.folders if folder.is_dir()}

    @property
    def total(self) -> Training | None:
        """All of it; None where nothing was booked."""
        return sum(self.booked.values(), Training()) if self.booked else None

    def open(self, folder: Path | None) -> None:
        """Take in what earlier runs booked in a folder; raises StoreError where it cannot be read."""
        if folder is None:
            return
        self.folders.add(folder)
        path = folder / FILE
        if folder in self.booked or not path.is_file():
            return
        try:
            content = {**LATER, **json.loads(path.read_text(encoding="utf-8"))}
            numbers = {f.name: content[f.name] for f in fields(Training)}
            self.booked[folder] = Training() + Training(**numbers)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{path}: is not what a run writes; delete its folder to train again") from error

    def of(self, folder: Path | None) -> Training:
        """What is booked for a folder."""
        self.open(folder)
        return self.booked.get(folder, Training())

    def restate(self, spent: Training) -> None:
        """What counts is this alone: of a training that is looked at before its end."""
        self.booked = {None: spent}

    @contextmanager
    def timed(self, folder: Path | None) -> Iterator[None]:
        """Work on what is in a folder: its seconds are booked where something was, and no seconds were."""
        self.open(folder)
        before, began = self.booked.get(folder, Training()), time.perf_counter()
        yield
        now = self.booked.get(folder, Training())
        if now != before and now.seconds == before.seconds:
            self.add(folder, Training(seconds=time.perf_counter() - began))

    def add(self, folder: Path | None, spent: Training) -> None:
        """Book some more, on disk too where there is a folder."""
        self.open(folder)
        self.booked[folder] = self.booked.get(folder, Training()) + spent
        if folder is not None:
            write_atomic(folder / FILE, dump(asdict(self.booked[folder])))
