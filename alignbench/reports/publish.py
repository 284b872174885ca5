"""Rows that may be published: signed, of enough draws, without what tells of the machine; a CSV file for each task.

And beside it a file of example draws of its rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd

from alignbench.files import write_atomic
from alignbench.reports.draws import LINE, MOST, SUFFIX, draws_bytes, read_draws, row_of
from alignbench.reports.faults import few
from alignbench.reports.folders import UNIT, keys
from alignbench.reports.rows import WORDS, parts_of, read_rows, write_rows
from alignbench.reports.shown import Example, Shown
from alignbench.run.rows import safe_name

ASKED = 64
"""Draws that are asked of a published cell."""
TOO_FEW = f"{ASKED} are asked of a published cell"
OF_DRAWS = ("length", "perplexity", "bits_per_byte", "win_rate")
"""Metrics whose `n` is the number of draws of the generator."""
LEFT_OUT = re.compile(r"(\d+) of \d+ draws left out: their proposals ran out")
LOCAL = re.compile(
    r"""(?<![\w/.<])/(?!/)(?:[\w.+~-]+/)+          # /data/models/x, but not http://…, he/she/they or </b>
      | (?<![\w/.<])/(?:home|Users|root|tmp|mnt)\b
      | (?<![\w~])~\w*/                            # ~/x, ~me/x
      | (?<!\w)\.\.?/                              # ./x, ../x
      | (?<!\w)[A-Za-z]:[\\/](?!/)                 # C:\x
      | \bfile:/
      | [\w.+-]+@[\w-]+\.\w                        # a person's address
    """,
    re.VERBOSE,
)
"""What no published text may hold: paths of a machine, with the user names in them, and addresses."""


def accepted(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The rows that may leave this machine, and a line for each generator on a task whose rows may not."""
    kept, refused = [], []
    for _, unit in rows.groupby(list(UNIT), sort=False, dropna=False):
        if why := next(_faults(unit), ""):
            refused.append(f"{_name(unit)}: not exported: {why}")
        else:
            kept.append(unit)
    return (pd.concat(kept, ignore_index=True) if kept else rows.iloc[:0]), refused


def name_of(row: Mapping[Any, Any] | pd.Series) -> str:
    """What people call the generator of a row."""
    return f"{row['generator']} + {row['aligner']}" if row["aligner"] else str(row["generator"])


def _name(unit: pd.DataFrame) -> str:
    return f"{unit['task'].iloc[0]}: {name_of(unit.iloc[0])}"


def _faults(unit: pd.DataFrame) -> Iterator[str]:
    """What forbids to publish the rows of one generator on a task."""
    for column in (name for name in WORDS if name in unit):
        for text in unit[column].unique():
            if found := LOCAL.search(text):
                yield f"its {column} tells of this machine or a person: {found[0].strip()!r}; give the model a name"
    for signature in unit["signature"].unique():
        told = parts_of(signature)
        for name, wanted in _signed(unit.iloc[0]).items():
            if name not in told:
                yield f"its signature lacks {name}: it was made by an earlier version, or by hand; run it again"
            elif wanted not in ("", told[name]):
                yield f"its signature says {name}:{told[name]}, its row {wanted}"


def _signed(row: pd.Series) -> dict[str, str]:
    """What a row's signature must have, and say of it; "" for anything."""
    return {"task": f"{row['task']}.v{row['task_version']}#{row['task_hash'][:8]}",
            "base": f"{row['base']}#{row['base_id']}", "prompts": "", "draws": str(row["draws"]), "max_tokens": "",
            "seed": str(row["seed"]), "version": ""}  # fmt: skip


def drawn(unit: pd.DataFrame) -> int:
    """How many draws of a generator its numbers on a task are from."""
    signed = parts_of(unit["signature"].iloc[0])
    lost = [int(found[1]) for note in unit["note"].unique() if (found := LEFT_OUT.search(note))]
    counted = unit["metric"].isin(OF_DRAWS) & unit["value"].notna() & (unit["ci_over"] != "prompts_like_these")
    known = [int(n) for n in unit.loc[counted, "n"].dropna()]
    return min([int(signed["prompts"]) * int(signed["draws"]) - max(lost, default=0), *known])


def of_enough_draws(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The rows, with a note in place of the numbers of a generator that has fewer than `ASKED` draws on a task.

    And a line for each of those.
    """
    units, told = [], []
    for _, unit in rows.groupby(list(UNIT), sort=False, dropna=False):
        count = drawn(unit)
        if count < ASKED and not unit["note"].str.endswith(TOO_FEW).all():
            unit = _blank(unit, f"{count} draws, {TOO_FEW}")
            told.append(f"{_name(unit)}: {count} draws, {TOO_FEW}: it has a note in place of numbers")
        units.append(unit)
    return pd.concat(units, ignore_index=True), told


def _blank(unit: pd.DataFrame, note: str) -> pd.DataFrame:
    empty = dict.fromkeys(("value", "stderr", "ci_low", "ci_high", "ess", "exact"), float("nan"))
    words = {"replicates": ""} if "replicates" in unit else {}
    return unit.assign(**empty, **words, note=note)


def merged(old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """Both, in a fixed order; of a generator on a task that is in both, the newer measurement; of one time, the new."""
    both = pd.concat([old.assign(_turn=0), new.assign(_turn=1)], ignore_index=True)
    for column in ("measured", "_turn"):
        both = both[both[column] == both.groupby(list(UNIT), dropna=False)[column].transform("max")]
    kept = both.drop(columns="_turn").drop_duplicates([*UNIT, "metric", "part"], keep="last")
    return kept.sort_values([*UNIT, "metric", "part"], kind="stable", ignore_index=True)


def publish(rows: pd.DataFrame, folder: Path) -> list[Path]:
    """Write rows into <folder>/<task>.csv beside those that are there; raises StoreError where a file is damaged."""
    pages = {folder / f"{safe_name(str(task))}.csv": new for task, new in rows.groupby("task")}
    whole = {path: merged(read_rows(path) if path.is_file() else new.iloc[:0], new) for path, new in pages.items()}
    for path, table in whole.items():
        write_rows(path, table)
    return list(whole)


def publish_draws(shown: Sequence[Shown], rows: pd.DataFrame, folder: Path) -> tuple[list[Path], list[str]]:
    """Write <folder>/<task>.draws.jsonl for the tasks of `rows`, once these are published there.

    At most `MOST` draws of each row that is in `rows`, beside those that are there of others in <task>.csv: draws of a
    measurement that a newer one has replaced go with it. The files, and a line for whatever is left out: a draw whose
    texts tell of this machine or of a person, a line that was edited.
    """
    asked = keys(rows, (*UNIT, "measured"))
    written, told = [], list[str]()
    for task in sorted(rows["task"].unique()):
        path = folder / f"{safe_name(str(task))}{SUFFIX}"
        there = keys(read_rows(folder / f"{safe_name(str(task))}.csv"), (*UNIT, "measured"))
        found = {row_of(one.key): one for one in _there(path, told)}
        found |= {row_of(one.key): _harmless(one, told) for one in shown if row_of(one.key) in asked}
        content = draws_bytes(one for who, one in found.items() if who in there)
        if content or path.exists():
            write_atomic(path, content)
            written.append(path)
    return written, few(told, "%d more lines about draws")


def _there(path: Path, told: list[str]) -> Sequence[Shown]:
    if not path.exists():
        return ()
    found, faults = read_draws(path)
    told += faults
    return found


def _harmless(shown: Shown, told: list[str]) -> Shown:
    """Without the draws that must not be published."""
    draws = []
    for draw in shown.draws[:MOST]:
        if found := next((hit for text in _texts(draw) if (hit := LOCAL.search(text))), None):
            who = f"{shown.key.task}: {name_of(asdict(shown.key))}"
            what = f"it tells of this machine or a person: {found[0].strip()!r}"
            told.append(f"{who}: draw {draw.index} is not exported: {what}")
        else:
            draws.append(draw)
    return replace(shown, draws=tuple(draws))


def _texts(draw: Example) -> Iterator[str]:
    """What of a draw could be published: no line is longer."""
    categories = (value for value in draw.features.values() if isinstance(value, str))
    yield from (text[:LINE] for text in (draw.prompt, draw.text, *draw.features, *categories))
