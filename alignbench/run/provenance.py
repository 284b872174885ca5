"""What numbers rest on: versions and the machine, as records and as parts of a signature."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from alignbench.files import digest, jsonable
from alignbench.metrics import replicates
from alignbench.registry import Entry, metric


def own_version() -> str:
    """This package's version."""
    try:
        return version("alignbench")
    except PackageNotFoundError:
        return "unknown"


@cache
def versions() -> Mapping[str, str]:
    """Versions of what the numbers rest on."""
    found = {"python": platform.python_version()}
    told = ("alignbench", "torch", "transformers", "tokenizers", "numpy", "scipy", "arviz-stats", "scikit-learn",
            "evaluate", "sacrebleu", "rouge-score", "peft", "llguidance", "outlines-core")  # fmt: skip
    for name in told:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


MADE_ON = ("torch", "transformers", "machine")
"""Parts of a signature that say where the evidence was made; they stay when its rows are made anew elsewhere."""


def made_on() -> str:
    """The versions that decide a draw and the machine that it was measured on, as parts of a signature."""
    found, where = versions(), hardware()
    gpus = [re.sub(r"[|:;\s]+", "-", name) for name in where["gpus"]]
    machine = f"{len(gpus)}x{gpus[0]}" if gpus else f"{where['machine']}-{where['cpus']}cpu"
    parts = {name: found.get(name, "") for name in MADE_ON[:-1]} | {MADE_ON[-1]: machine}
    return "|".join(f"{name}:{told}" for name, told in parts.items() if told)


PACKAGE = Path(__file__).parents[1]


def made_by(asked: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """What stands for the code that measures these metrics, and its libraries; "" where some of it is a plug-in's."""
    entries = [metric[name] for name, _ in asked if name in metric]
    if len(entries) < len(asked) or any(e.runs_code or _is_plug_in(e) for e in entries):
        return ""
    return digest(
        jsonable({"code": code(), "libraries": versions(), "asked": list(asked), "blocks": replicates.BLOCKS})
    )


def _is_plug_in(entry: Entry) -> bool:
    return not entry.thing.__module__.startswith("alignbench.")


@cache
def code() -> str:
    """The hash of this package's own files, which a developer changes without a new version."""
    return digest([sha256(path.read_bytes()).hexdigest() for path in sorted(PACKAGE.rglob("*.py"))])


def kept_from(signature: str) -> str:
    """Those parts of an earlier signature; "" where it has none."""
    return "|".join(part for part in signature.split("|") if part.partition(":")[0] in MADE_ON)


def hardware() -> dict[str, Any]:
    """The machine, in a few words; no host name and no path."""
    import os

    torch: Any = sys.modules.get("torch")
    gpus = []
    if torch is not None and torch.cuda.is_available():
        gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {"system": platform.system(), "machine": platform.machine(), "cpus": os.cpu_count(), "gpus": gpus,
            "threads": torch.get_num_threads() if torch is not None else None}  # fmt: skip
