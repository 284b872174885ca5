"""Records of plain data, arrays and the dataclasses of `types` as bytes of an .npz file, without a pickle."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alignbench import types
from alignbench.errors import StoreError
from alignbench.types import Array


def pack(record: Any) -> bytes:
    """A record of plain data, arrays and the dataclasses of `alignbench.types` as the bytes of an .npz file."""
    arrays: dict[str, Array] = {}
    tree = json.dumps(_flatten(record, arrays), ensure_ascii=False)
    arrays["tree"] = np.frombuffer(tree.encode("utf-8", "surrogatepass"), dtype=np.uint8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def unpack(path: Path) -> Any:
    """The record in a file that `pack` made; raises StoreError where it cannot be read."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        tree = json.loads(arrays.pop("tree").tobytes().decode("utf-8", "surrogatepass"))
        return _rebuild(tree, arrays)
    except Exception as error:  # a flipped bit can surface as any of a dozen kinds (zlib, struct, zipfile, …)
        told = " ".join(str(error).split()) or type(error).__name__
        raise StoreError(
            f"{path}: is not readable ({told}); delete it, and the `alignbench run` that wrote it makes it anew"
        ) from error


def _flatten(value: Any, arrays: dict[str, Array]) -> Any:
    if isinstance(value, np.ndarray):
        arrays[f"a{len(arrays)}"] = value
        return {"array": f"a{len(arrays) - 1}"}
    if is_dataclass(value) and not isinstance(value, type):
        held = {f.name: _flatten(getattr(value, f.name), arrays) for f in fields(value)}
        return {"type": type(value).__name__, "fields": held}
    if isinstance(value, Mapping):
        return {"dict": {str(k): _flatten(v, arrays) for k, v in value.items()}}
    if isinstance(value, (list, tuple)):
        return [_flatten(v, arrays) for v in value]
    return value.item() if isinstance(value, np.generic) else value


KNOWN = {t.__name__: t for t in (types.Draws, types.Estimate, types.Selection, types.Wanted, types.Fit, types.Cost,
                                 types.Training, types.Scored, types.Evidence)}  # fmt: skip


def _rebuild(value: Any, arrays: Mapping[str, Array]) -> Any:
    if isinstance(value, list):
        return tuple(_rebuild(v, arrays) for v in value)
    if not isinstance(value, dict):
        return value
    if "array" in value:
        return arrays[value["array"]]
    if "type" in value:
        return KNOWN[value["type"]](**{k: _rebuild(v, arrays) for k, v in value["fields"].items()})
    return {k: _rebuild(v, arrays) for k, v in value["dict"].items()}


def evidence_files(folder: Path) -> Iterator[Path]:
    """The evidence files below an output folder."""
    yield from sorted(folder.glob("*/evidence_*.npz"))
