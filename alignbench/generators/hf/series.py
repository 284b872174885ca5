"""A series of checkpoints: a glob of local folders as one spec each, in the order of their training steps."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from glob import has_magic
from pathlib import Path
from typing import TypeGuard

from alignbench.errors import UsageError
from alignbench.spec import STEP, Spec

_LOG = logging.getLogger(__name__)

MARKS = {"pretrained": "config.json", "peft": "adapter_config.json"}
"""Arguments that may be a glob, and the file by which a folder is what they ask for."""
SHOWN = 5  # names in a message
TRAILING = re.compile(r"[-_](\d+)/?(?:-int8)?$")


def expand(spec: Spec) -> list[Spec]:
    """One spec for each checkpoint that a glob in `pretrained` or `peft` matches, by training step; else the spec.

    A GGUF file is a checkpoint too. Where both arguments are globs, every pair. Raises UsageError where none matches.
    """
    found = [spec]
    for key in MARKS:
        given = spec.arguments.get(key)
        if _is_glob(given):
            paths = _checkpoints(key, given)
            found = [Spec(s.name, {**s.arguments, key: str(path)}) for s in found for path in paths]
    return found


def step_in(series: Spec, one: Spec) -> int | None:
    """The training step of one checkpoint of a series, told by the arguments that are patterns in `series` alone.

    Of two patterns that of `peft`, which was trained last, if it tells one. Folders above a pattern tell nothing.
    """
    patterns = {key: given for key in MARKS if _is_glob(given := series.arguments.get(key))}
    steps = [step_of(_matched(pattern, one.arguments[key])) for key, pattern in patterns.items()]
    return next((step for step in reversed(steps) if step is not None), None)


def told_apart(specs: Sequence[Spec]) -> list[Spec]:
    """The same; folders of one name each with the shortest end of its path that no other has: words/checkpoint-10."""
    folders = [{key: path for key in MARKS if (path := _folder(spec.arguments.get(key)))} for spec in specs]
    ends = _shortest_ends({path for mine in folders for path in mine.values()})
    return [
        replace(spec, ends={key: ends[path] for key, path in mine.items() if "/" in ends[path]})
        for spec, mine in zip(specs, folders, strict=True)
    ]


def _folder(given: object) -> Path | None:
    """The folder, or GGUF file, that an argument names; None where it names none."""
    path = Path(given).expanduser() if isinstance(given, str) and not given.startswith(("pypi:", "hf:")) else None
    return path.resolve() if path is not None and path.exists() else None


def _shortest_ends(paths: Collection[Path]) -> dict[Path, str]:
    """Path → the fewest of its last parts that no other path ends with."""
    ends = {path: ["/".join(path.parts[-n:]) for n in range(1, len(path.parts))] or [str(path)] for path in paths}
    count = Counter(end for mine in ends.values() for end in mine)
    return {path: next((end for end in mine if count[end] == 1), mine[-1]) for path, mine in ends.items()}


def longer(name: str, ends: Mapping[str, str]) -> str:
    """The name of a model (`folder`, `folder+adapter`) with as much of each path as `told_apart` found to tell it."""
    model, plus, adapter = name.partition("+")
    return _with_end(model, ends.get("pretrained")) + plus + _with_end(adapter, ends.get("peft"))


def _with_end(name: str, end: str | None) -> str:
    short = (end or "").rpartition("/")[2].removesuffix(".gguf")
    rest = name.removeprefix(short)
    return name if not end or rest == name else end.removesuffix(".gguf") + rest


def _matched(pattern: str, path: str) -> str:
    """The part of a path that a pattern was for: from its first folder with a wildcard on."""
    above = next(i for i, part in enumerate(Path(pattern).expanduser().parts) if has_magic(part))
    return str(Path(*Path(path).parts[above:])).removesuffix(".gguf")


def _is_glob(given: object) -> TypeGuard[str]:
    """A pattern of local paths: neither a path that exists nor a pinned source, whose "?sha256=" is no pattern."""
    if not isinstance(given, str) or given.startswith(("pypi:", "hf:")):
        return False
    return has_magic(given) and not Path(given).expanduser().exists()


def step_of(name: str) -> int | None:
    """The training step that a checkpoint's name or path tells: step-300, checkpoint_300, global_step300, iter300.

    The last such number, else a bare number at the end after - or _; None where there is neither (step-300k too).
    """
    steps = STEP.findall(name) or TRAILING.findall(name)
    return int(steps[-1]) if steps else None


def _checkpoints(key: str, pattern: str) -> list[Path]:
    wanted = Path(pattern).expanduser()
    matches = sorted(_matches(wanted), key=_order)
    if not matches:
        raise UsageError(f"{key}={pattern}: matches nothing{_nearest(wanted)}")
    kept = [path for path in matches if _loadable(key, path)]
    others = [path.name for path in matches if path not in kept]
    if not kept:
        raise UsageError(f"{key}={pattern}: none of what it matches has a {MARKS[key]}: {_listed(others)}")
    if others:
        _LOG.warning(f"{key}={pattern}: left out, no {MARKS[key]} there: {_listed(others)}")
    return kept


def _matches(pattern: Path) -> list[Path]:
    root = Path(pattern.anchor)
    return [root] if pattern == root else list(root.glob(str(pattern.relative_to(root))))


def _loadable(key: str, path: Path) -> bool:
    return (path / MARKS[key]).is_file() or (key == "pretrained" and path.suffix == ".gguf" and path.is_file())


def _order(path: Path) -> tuple[object, ...]:
    """Folder by folder; within one by step, those without a step last; numbers inside names count as numbers."""
    step = step_of(path.name)
    return (_natural(str(path.parent)), step is None, step or 0, _natural(path.name))


def _natural(text: str) -> list[tuple[int, str]]:
    return [(int(number or -1), other) for number, other in re.findall(r"(\d+)|(\D+)", text)]


def _nearest(pattern: Path) -> str:
    """The tail of an error: the folders that stand where the pattern first matches nothing, the likest first."""
    parent, folder = next((p, found[0]) for p in pattern.parents if (found := sorted(_matches(p))))
    wanted = pattern.parts[len(parent.parts)]
    names = sorted((p.name for p in folder.iterdir() if p.is_dir()), key=_natural) if folder.is_dir() else []
    close = get_close_matches(wanted, names, n=SHOWN, cutoff=0.4)
    there = f"the folders there: {_listed(close or names)}" if names else "it has no folders"
    return f" ('{wanted}' in '{folder}'; {there})"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
