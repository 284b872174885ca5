"""What a training leaves: weights for `hf`, recipe.json, curve.csv, checkpoints, and the state that it goes on from."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from torch.optim import Optimizer

from alignbench.aligners.base import Aligner, Setting
from alignbench.aligners.bill import RECIPE
from alignbench.aligners.identities import registered
from alignbench.errors import StoreError, UsageError, brief
from alignbench.files import digest, dump, write_atomic
from alignbench.generators.checkpoint import STATE, load_training, load_weights, save_training, write_weights
from alignbench.generators.policy import TrainedLaw
from alignbench.types import Training

CURVE, WEIGHTS = "curve.csv", "trained.safetensors"
DAMAGED = "is not what a training writes; delete its folder to train again"
LIBRARIES = ("alignbench", "torch", "transformers", "peft", "accelerate")
TOLD = 3
"""Things in which two trainings differ that an error names."""
Curve = list[dict[str, float]]


@dataclass(frozen=True)
class Folder:
    """A training's folder; with no `path` nothing is kept."""

    path: Path | None
    aligner: str  # registered name
    identity: Mapping[str, Any] | None  # what the training depends on
    entropy: int

    @staticmethod
    def of(aligner: Aligner, setting: Setting) -> Folder:
        """That of a setting. Raises UsageError where another training's is in its place, StoreError if it cannot be."""
        identity = setting.identity_of(aligner)
        folder = Folder(setting.workdir, registered(aligner), identity, setting.seed.entropy)
        folder._refuse_another()
        return folder

    def _refuse_another(self) -> None:
        told = self._told
        if told and told.get("key") != self.key:
            raise UsageError(
                f"{self.path}: holds another training ({told.get('aligner')}: "
                f"{differing(told.get('identity'), self.identity)}): give another folder, or delete it"
            )

    @property
    def key(self) -> str:
        """16 hex digits of the identity."""
        return digest(self.identity)

    @property
    def _told(self) -> dict[str, Any]:
        """What recipe.json says; nothing where there is none."""
        if self.path is None or not (self.path / RECIPE).is_file():
            return {}
        try:
            return dict(json.loads((self.path / RECIPE).read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise StoreError(f"{self.path / RECIPE}: {DAMAGED}") from error

    @property
    def finished(self) -> bool:
        """Whether the training is done."""
        return bool(self._told.get("finished"))

    @property
    def has_state(self) -> bool:
        """Whether there is a state to go on from."""
        return self.path is not None and (self.path / STATE).is_file()

    def load(self, policy: TrainedLaw) -> None:
        """Give the policy the trained weights; raises StoreError where they are not those that were trained."""
        assert self.path is not None
        load_weights(self.path, policy.module)
        wanted, found = self._told.get("weights"), policy.digest
        if wanted != found:
            raise StoreError(f"{self.path}: its weights are not those that {RECIPE} tells ({found}, not {wanted}); "
                             "delete it to train again")  # fmt: skip

    def begin(self) -> None:
        """Say whose folder it is."""
        if self.path is not None and not self._told:
            self._write_recipe(finished=False)

    def take_back(self) -> None:
        """Undo `begin` where nothing was trained yet: what was asked wrongly is no training."""
        if self.path is None or any(self.path.glob("*.safetensors")):
            return
        (self.path / RECIPE).unlink(missing_ok=True)
        with suppress(OSError):  # draws of the base may lie there
            self.path.rmdir()

    def _write_recipe(self, **more: Any) -> None:
        assert self.path is not None
        content = {
            "aligner": self.aligner, "key": self.key, "identity": self.identity, "seed": self.entropy,
            "versions": versions(), **more,
        }  # fmt: skip
        write_atomic(self.path / RECIPE, dump(content))

    def save(self, policy: TrainedLaw, optimiser: Optimizer, step: int, extra: Mapping[str, Any], curve: Curve) -> None:
        """The state after `step` steps, and the curve so far."""
        if self.path is not None:
            write_atomic(self.path / CURVE, table(curve))  # first: lines beyond the state are dropped, not missed
            save_training(self.path, policy.module, optimiser, step=step, extra=extra)

    def resume(self, policy: TrainedLaw, optimiser: Optimizer) -> tuple[int, Mapping[str, Any], Curve]:
        """(steps done, what was kept with them, the curve so far), the policy and the optimiser set to it."""
        found = None if self.path is None else load_training(self.path, policy.module, optimiser)
        if found is None:
            return 0, {}, []
        assert self.path is not None
        step, extra = found
        return step, extra, [row for row in read(self.path / CURVE) if row["step"] <= step]

    def checkpoint(self, policy: TrainedLaw, step: int) -> None:
        """Keep the policy as it is after `step` steps."""
        if self.path is not None:
            place = self.checkpoint_at(step)
            policy.save(place)
            write_weights(place / WEIGHTS, policy.module)

    def checkpoint_at(self, step: int) -> Path:
        """Where that is."""
        assert self.path is not None
        return self.path / f"checkpoint-{step}"

    def finish(self, policy: TrainedLaw, **told: Any) -> None:
        """Write what `hf` loads, and that the training is done."""
        if self.path is not None:
            policy.save(self.path)
            self._write_recipe(finished=True, weights=policy.digest, **told)


def differing(theirs: object, ours: object) -> str:
    """The first things in which two identities differ: `lr 0.0002, not 0.0001; batch 32, not 16`."""
    one, other = flat(theirs), flat(ours)
    paths = [path for path in {**other, **one} if one.get(path) != other.get(path)]
    said = [f"{path[-1]} {_shown(one.get(path))}, not {_shown(other.get(path))}" for path in paths[:TOLD]]
    return "; ".join([*said, *([f"{len(paths) - TOLD} more"] if len(paths) > TOLD else [])])


def flat(data: object, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], object]:
    """Path → each value of nested data; of a list's items the last word is `prompts[3]`."""
    if isinstance(data, Mapping):
        parts = [flat(value, (*path, str(key))) for key, value in data.items()]
    elif isinstance(data, (list, tuple)):
        parts = [flat(value, (*path[:-1], f"{path[-1]}[{i}]")) for i, value in enumerate(data)]
    else:
        return {path: data}
    return {path: value for part in parts for path, value in part.items()}


def _shown(value: object) -> str:
    return "none" if value is None else brief(value)


def is_finished(folder: Path) -> bool:
    """Whether the training of a folder is done: one that failed has no curve to the end."""
    try:
        return bool(json.loads((folder / RECIPE).read_text(encoding="utf-8")).get("finished"))
    except (OSError, ValueError):
        return False


def checkpoints(folder: Path) -> dict[int, Path]:
    """Step → the file with what was trained until then, in the order of the steps."""
    found = {int(path.parent.name.rpartition("-")[2]): path for path in folder.glob(f"checkpoint-[0-9]*/{WEIGHTS}")}
    return dict(sorted(found.items()))


def trained_after(folder: Path, step: int | None) -> Training:
    """What a training had spent after `step` steps, by its curve; after all where it is None."""
    curve = read(folder / CURVE)
    row = next((row for row in curve if row["step"] == step), curve[-1])
    return Training(row["seconds"], *(int(row[name]) for name in ("drawn", "scored", "trained", "step")))


def versions() -> dict[str, str]:
    """The versions of what trains."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def table(curve: Sequence[Mapping[str, float]]) -> str:
    """The curve as CSV, a line a step."""
    names = list(dict.fromkeys(name for row in curve for name in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, names, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows({name: f"{value:.8g}" for name, value in row.items() if value == value} for row in curve)
    return out.getvalue()


def read(path: Path) -> Curve:
    """The curve of a file; raises StoreError where it is none."""
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            return [{name: float(text) for name, text in row.items() if text} for row in csv.DictReader(lines)]
    except (OSError, ValueError, AttributeError) as error:
        raise StoreError(f"{path}: {DAMAGED}") from error
