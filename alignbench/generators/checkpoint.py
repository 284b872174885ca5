"""Where training stands: trained weights, optimiser and step, as safetensors and JSON. Nothing of it is a pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import nn

from alignbench.errors import RunError, StoreError
from alignbench.files import write_atomic

STATE = "state.json"


def save_training(
    folder: Path, module: nn.Module, optimiser: torch.optim.Optimizer, *, step: int,
    told: Mapping[str, Any] | None = None,
) -> None:  # fmt: skip
    """Write what `load_training` needs to go on after `step` steps; `told` is plain data of the trainer's own.

    A run that is killed meanwhile finds the state before. Raises StoreError where it cannot be written, and RunError
    where the optimiser keeps what is neither a tensor nor plain data.
    """
    weights = {f"weights.{name}": p.detach() for name, p in trained(module).items()}
    known = optimiser.state_dict()
    kept: dict[str, Any] = {}
    plain: dict[str, Any] = {}
    for number, values in known["state"].items():
        for name, value in values.items():
            here = kept if isinstance(value, torch.Tensor) else plain
            here[f"optimiser.{number}.{name}"] = value
    tensors = {name: t.cpu().contiguous().clone() for name, t in {**weights, **kept}.items()}
    file = f"state-{step}.safetensors"
    content = {"step": step, "tensors": file, "groups": known["param_groups"], "plain": plain, "told": told or {}}
    try:
        said = json.dumps(content, indent=2)
    except TypeError as error:
        raise RunError(f"{type(optimiser).__name__}: keeps what is neither a tensor nor plain data: {error}") from error
    write_atomic(folder / file, save(tensors))
    write_atomic(folder / STATE, said + "\n")
    for old in folder.glob("state-*.safetensors"):
        if old.name != file:
            old.unlink(missing_ok=True)


def load_training(
    folder: Path, module: nn.Module, optimiser: torch.optim.Optimizer
) -> tuple[int, Mapping[str, Any]] | None:
    """(step, what the trainer told) of the state in `folder`, with its weights and optimiser set; None where none is.

    Raises StoreError where it is damaged or of another module or optimiser; then nothing was changed.
    """
    if not (folder / STATE).exists():
        return None
    try:
        content = json.loads((folder / STATE).read_text(encoding="utf-8"))
        tensors = load((folder / content["tensors"]).read_bytes())
        state: dict[int, dict[str, Any]] = {}
        for name, value in [*tensors.items(), *content["plain"].items()]:
            kind, number, rest = name.split(".", 2)
            if kind == "optimiser":
                state.setdefault(int(number), {})[rest] = value
        groups, step, told = content["groups"], int(content["step"]), content["told"]
    except Exception as error:  # whatever reading a damaged file raises
        raise StoreError(f"{folder}: its training state cannot be read ({error}): delete it to begin anew") from error
    held = {name.removeprefix("weights."): t.shape for name, t in tensors.items() if name.startswith("weights.")}
    strange = StoreError(f"{folder}: its training state is of other weights or another optimiser: delete it, or give "
                         "another folder")  # fmt: skip
    if held != {name: p.shape for name, p in trained(module).items()}:
        raise strange
    try:
        optimiser.load_state_dict({"state": state, "param_groups": groups})
    except (ValueError, KeyError) as error:
        raise strange from error
    with torch.no_grad():
        for name, p in trained(module).items():
            p.copy_(tensors[f"weights.{name}"])
    return step, told


def trained(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that are trained, by name."""
    return {name: p for name, p in module.named_parameters() if p.requires_grad}
