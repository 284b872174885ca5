"""Files written in one step, keys of what they depend on, and strict JSON."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from alignbench.errors import StoreError


def digest(data: Any) -> str:
    """16 hex digits that stand for plain data: the key of whatever depends on all of it and nothing else."""
    return sha256(json.dumps(data, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a file so that a reader sees all of it or none; raises StoreError."""
    data = content.encode() if isinstance(content, str) else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, scratch = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            Path(scratch).chmod(0o644)
            os.replace(scratch, path)  # noqa: PTH105 (atomic on every system)
        finally:
            Path(scratch).unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror or error}") from error


def check_writable(folder: Path) -> None:
    """Raise StoreError unless files can be made in `folder` (made if missing); called before anything is drawn."""
    if folder.exists() and not folder.is_dir():
        raise StoreError(f"{folder}: cannot be written: it is a file, not a folder")
    probe = folder / f".probe-{os.getpid()}"
    write_atomic(probe, "")
    probe.unlink()


def dump(content: Any) -> str:
    """Strict JSON: infinities as "inf" and "-inf", missing numbers as null."""
    return json.dumps(jsonable(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def jsonable(value: Any) -> Any:
    """`value` with only what strict JSON knows."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None if math.isnan(value) else str(value)
    if isinstance(value, Mapping):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(v) for v in value]
    if isinstance(value, (str, int, bool)) or value is None:
        return value
    if hasattr(value, "tolist"):
        return jsonable(value.tolist())
    return str(value)
