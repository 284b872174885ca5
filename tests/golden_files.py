"""Golden files: what was found is compared with what is stored, words exactly and numbers to 1e-9.

ALIGNBENCH_REGENERATE=1 rewrites a golden file from what was found; read the difference.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parent / "golden"
NUMBERS = ("value", "stderr", "ci_low", "ci_high", "ess", "seconds", "exact", "seed_sd")
"""Columns of a results table that hold floats; every other column is compared as text, but `replicates`."""
NEAR = 1e-9
ROUNDED = 2e-7
"""`replicates` are written with 8 digits, and the last may be rounded the other way."""
Row = dict[str, str]


def check_json(path: Path, found: Any) -> None:
    """Fail with the places where plain data differ from those stored at `path`."""
    found = json.loads(json.dumps(found))
    if os.environ.get("ALIGNBENCH_REGENERATE"):
        path.write_text(json.dumps(found, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
    wrong = list(differences(found, json.loads(path.read_text(encoding="utf-8"))))
    assert not wrong, "\n".join(wrong[:20])


def differences(found: Any, stored: Any, where: str = "") -> Iterator[str]:
    """Where two trees of plain data differ: 1 is not 1.0, since a hash of the JSON tells them apart."""
    if type(found) is not type(stored):
        yield f"{where}: {found!r}, not {stored!r}"
    elif isinstance(found, dict):
        for key in sorted({*found, *stored}):
            if key not in found or key not in stored:
                yield f"{where}/{key}: {'is new' if key in found else 'is gone'}"
            else:
                yield from differences(found[key], stored[key], f"{where}/{key}")
    elif isinstance(found, list):
        if len(found) != len(stored):
            yield f"{where}: {len(found)} items, not {len(stored)}"
        for i, (one, other) in enumerate(zip(found, stored, strict=False)):
            yield from differences(one, other, f"{where}/{i}")
    elif not (math.isclose(found, stored, rel_tol=NEAR, abs_tol=NEAR) if isinstance(found, float) else found == stored):
        yield f"{where}: {found!r}, not {stored!r}"


def read_csv(text: str) -> tuple[list[str], list[Row]]:
    """The names of the columns and the rows, all as text."""
    reader = csv.DictReader(io.StringIO(text))
    rows = list(reader)
    return list(reader.fieldnames or ()), rows


def check_csv(path: Path, columns: Sequence[str], rows: Sequence[Row]) -> None:
    """Fail unless a results table has the columns and the rows stored at `path`, both in their order."""
    if os.environ.get("ALIGNBENCH_REGENERATE"):
        out = io.StringIO()
        writer = csv.DictWriter(out, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        path.write_text(out.getvalue(), encoding="utf-8")
    names, stored = read_csv(path.read_text(encoding="utf-8"))
    assert list(columns) == names
    assert len(rows) == len(stored)
    wrong = [
        f"row {i}, {name}: {found[name]!r}, not {golden[name]!r}"
        for i, (found, golden) in enumerate(zip(rows, stored, strict=True), start=1)
        for name in columns
        if not _same(name, found[name], golden[name])
    ]
    assert not wrong, "\n".join(wrong[:20])


def _same(column: str, found: str, stored: str) -> bool:
    if found == stored or column not in (*NUMBERS, "replicates"):
        return found == stored
    pairs = list(zip(found.split(), stored.split(), strict=False))
    if not pairs or len(found.split()) != len(stored.split()):
        return False
    near = ROUNDED if column == "replicates" else NEAR
    try:
        return all(math.isclose(float(a), float(b), rel_tol=near, abs_tol=near) for a, b in pairs)
    except ValueError:  # a masked cell and a number
        return False
