"""Where training stands: trained weights, optimiser and step, as safetensors and JSON. Nothing of it is a pickle."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import nn

from alignbench.errors import RunError, StoreError, UsageError
from alignbench.files import write_atomic
from alignbench.generators.gradient import trainable_parameters

STATE = "state.json"


def save_training(
    folder: str | Path, module: nn.Module, optimiser: torch.optim.Optimizer, *, step: int,
    extra: Mapping[str, Any] | None = None,
) -> None:  # fmt: skip
    """Write what `load_training` needs to go on after `step` steps; `extra` is plain data of the trainer's own.

    A run that is killed meanwhile finds the state before. Raises StoreError where it cannot be written, RunError where
    the optimiser keeps what is neither a tensor nor plain data, and UsageError where `extra` is no plain data.
    """
    known = optimiser.state_dict()
    tensors = {f"weights.{name}": p.detach() for name, p in trainable_parameters(module).items()}
    plain: dict[str, Any] = {}
    for number, values in known["state"].items():
        for name, value in values.items():
            kept = tensors if isinstance(value, torch.Tensor) else plain
            kept[f"optimiser.{number}.{name}"] = value
    file = f"state-{step}.safetensors"
    content = {
        "step": step,
        "tensors": file,
        **_kind(module, optimiser),
        "groups": known["param_groups"],
        "plain": plain,
    }
    if not _is_plain(content):
        raise RunError(f"{type(optimiser).__name__}: keeps what is neither a tensor nor plain data, and is not saved")
    if not _is_plain(extra):
        raise UsageError(f"save_training: extra={extra!r}: must be plain data: numbers, texts, lists and mappings")
    write_atomic(Path(folder, file), save({name: t.cpu().contiguous().clone() for name, t in tensors.items()}))
    write_atomic(Path(folder, STATE), json.dumps({**content, "extra": extra or {}}, indent=2) + "\n")
    for old in Path(folder).glob("state-*.safetensors"):
        if old.name != file:
            old.unlink(missing_ok=True)


def load_training(
    folder: str | Path, module: nn.Module, optimiser: torch.optim.Optimizer
) -> tuple[int, Mapping[str, Any]] | None:
    """(step, `extra`) of the state in `folder`, with its weights and optimiser set; None where there is none.

    Raises StoreError where it is damaged, or of another module or optimiser; then nothing was changed.
    """
    if not Path(folder, STATE).exists():
        return None
    try:
        content = json.loads(Path(folder, STATE).read_text(encoding="utf-8"))
        tensors = load(Path(folder, content["tensors"]).read_bytes())
        state: dict[int, dict[str, Any]] = {}
        for name, value in [*tensors.items(), *content["plain"].items()]:
            kind, number, rest = name.split(".", 2)
            if kind == "optimiser":
                state.setdefault(int(number), {})[rest] = value
        kind_of = {name: content[name] for name in _kind(module, optimiser)}
        groups, step, extra = content["groups"], int(content["step"]), content["extra"]
    except Exception as error:  # whatever reading a damaged file raises
        raise StoreError(f"{folder}: its training state cannot be read ({error}): delete it to begin anew") from error
    weights = trainable_parameters(module)
    other = StoreError(f"{folder}: its training state is of other weights or another optimiser: delete it, or give "
                       "another folder")  # fmt: skip
    held = {name.removeprefix("weights."): t.shape for name, t in tensors.items() if name.startswith("weights.")}
    if kind_of != _kind(module, optimiser) or held != {name: p.shape for name, p in weights.items()}:
        raise other
    try:
        optimiser.load_state_dict({"state": state, "param_groups": groups})
    except (ValueError, KeyError) as error:
        raise other from error
    with torch.no_grad():
        for name, p in weights.items():
            p.copy_(tensors[f"weights.{name}"])
    return step, extra


def write_weights(path: Path, module: nn.Module) -> None:
    """Write the trained weights alone."""
    write_atomic(path, save({name: p.detach().cpu().contiguous() for name, p in trainable_parameters(module).items()}))


def set_weights(path: Path, module: nn.Module) -> None:
    """Set the trained weights to those that `write_weights` wrote; raises StoreError where they do not fit."""
    _set(path.parent, _read(path.parent, path), module)


def load_weights(folder: str | Path, module: nn.Module) -> None:
    """Set the trained weights to those of the state in `folder`; raises StoreError where there is none that fits."""
    try:
        name = json.loads(Path(folder, STATE).read_text(encoding="utf-8"))["tensors"]
    except Exception as error:  # whatever reading a damaged file raises
        raise _damaged(folder, error) from error
    tensors = _read(folder, Path(folder, name))
    _set(folder, {name.removeprefix("weights."): t for name, t in tensors.items()}, module)


def _read(folder: str | Path, path: Path) -> dict[str, torch.Tensor]:
    try:
        return load(path.read_bytes())
    except Exception as error:  # whatever reading a damaged file raises
        raise _damaged(folder, error) from error


@torch.no_grad()
def _set(folder: str | Path, tensors: Mapping[str, torch.Tensor], module: nn.Module) -> None:
    weights = trainable_parameters(module)
    if any(name not in tensors or tensors[name].shape != p.shape for name, p in weights.items()):
        raise StoreError(f"{folder}: its training state is of other weights: delete it, or give another folder")
    for name, p in weights.items():
        p.copy_(tensors[name])


def _damaged(folder: str | Path, error: Exception) -> StoreError:
    return StoreError(f"{folder}: its training state cannot be read ({error}): delete it to begin anew")


def _kind(module: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, str | Sequence[str]]:
    """The optimiser's class, and the names of its parameters in its own order: its state is kept by number."""
    names = {id(p): name for name, p in module.named_parameters()}
    order = [names.get(id(p), "") for group in optimiser.param_groups for p in group["params"]]
    return {"optimiser": type(optimiser).__name__, "parameters": order}


def _is_plain(data: object) -> bool:
    try:
        json.dumps(data)
    except (TypeError, ValueError):
        return False
    return True


def weights_digest(named: Iterable[tuple[str, torch.Tensor]], begin: str = "") -> str:
    """16 hex digits of weights as they are now, by name, after a text."""
    found = sha256(begin.encode())
    for name, p in sorted(named, key=lambda one: one[0]):
        found.update(f"{name} {p.dtype} {tuple(p.shape)}\0".encode())
        found.update(p.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()[:16]
