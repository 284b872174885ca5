"""The bridge from `evaluate`: any of its modules as a metric of the draws' texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from alignbench.errors import RunError, SourceError, UsageError, plain_failures
from alignbench.metrics.references import references_of
from alignbench.registry import metric
from alignbench.stats.intervals import mean_over_prompts, normal, spread_or_none
from alignbench.stats.jackknife import strata
from alignbench.types import Array, Draws, Estimate, Evidence

FEWEST = 5  # groups that an interval needs: from 4, their standard deviation is known to a factor of 4 at best
Inputs = Mapping[str, list[Any]]


def _known(*, path: str | list[str], groups: int, **_: Any) -> None:
    """Raise UsageError on a file that is not there, or a number of groups that means nothing."""
    if not path:
        raise UsageError("argument 'path': give the path or the name of an evaluate module")
    for one in [path] if isinstance(path, str) else path:
        if _is_file(one) and not Path(one).expanduser().exists():
            raise UsageError(f"argument 'path': no such file or folder: {one}")
    if groups < 0 or 0 < groups < FEWEST:
        raise UsageError(f"argument 'groups': must be 0 (no interval) or at least {FEWEST}, not {groups}")


def _is_file(path: str) -> bool:
    """Whether a path is meant, not a name on the hub."""
    return path.endswith(".py") or path.startswith((".", "/", "~")) or Path(path).exists()


@metric("evaluate", needs={"own"}, better="", check=_known, opt_in=True, replicates=False, runs_code=True)
def evaluate_module(
    evidence: Evidence, *, path: str | list[str], groups: int = 20, **options: Any
) -> dict[str, Estimate]:
    """Every number that an `evaluate` module gives for own draws; parts are named after the module.

    `path`: a module's script or folder, or its name on the hub (which needs a network), or several of these;
    `options` go to its `compute`. Predictions are the draws' texts, references those of their prompts, sources the
    prompts. A number for each draw becomes its mean over prompts; texts and other lists are left out. The interval of
    other numbers leaves out one of `groups` groups of draws at a time, which computes the module as often; 0: none.
    Raises UsageError for a script that cannot be loaded or takes no texts, SourceError for a name that cannot be
    fetched. Source: Kott, The delete-a-group jackknife (2001).
    """
    found: dict[str, dict[str, Estimate]] = {}
    for one in [path] if isinstance(path, str) else path:
        module = _load(one)
        if module.name in found:
            raise UsageError(f"metric 'evaluate': two modules are called '{module.name}': rename the class of one")
        with plain_failures(f"evaluate module '{module.name}'", RunError):
            found[module.name] = _measured(module, evidence, groups, options)
    return {_part(name, key, parts): e for name, parts in found.items() for key, e in parts.items()}


def _part(name: str, key: str, parts: Mapping[str, Estimate]) -> str:
    """The module's name where it gives one number, else that and the number's."""
    return name if len(parts) == 1 else f"{name}.{key}"


def _load(path: str) -> Any:
    """The module at a local path, or of a name; without a network only the former."""
    from evaluate import load  # here, since it takes seconds

    if _is_file(path):
        with plain_failures(f"evaluate module '{path}': loading", UsageError):
            return load(str(Path(path).expanduser()), keep_in_memory=True)
    try:
        return load(path, keep_in_memory=True)
    except Exception as error:
        raise SourceError(
            f"evaluate module '{path}' is no local file and could not be fetched ({type(error).__name__}); without a "
            "network, give the path of its script (./NAME.py) or folder"
        ) from error


def _measured(module: Any, evidence: Evidence, groups: int, options: Mapping[str, Any]) -> dict[str, Estimate]:
    own, inputs = evidence.own.draws, _inputs(module, evidence)
    if isinstance(inputs, str):
        return {"": Estimate.missing(inputs, n=len(own))}
    answer = module.compute(**inputs, **options)
    whole, each = dict(_numbers(answer)), dict(_lists(answer, len(own)))
    if not whole and not each:
        return {"": Estimate.missing("the module gives no number", n=len(own))}
    group = _groups(own, groups)
    without = [_without(module, inputs, options, np.flatnonzero(group != g)) for g in range(group.max() + 1) if whole]
    parts = {key: _jackknifed(value, [w.get(key, np.nan) for w in without], len(own)) for key, value in whole.items()}
    return parts | {key: spread_or_none(mean_over_prompts(own.prompt, x, own.group)) for key, x in each.items()}


def _inputs(module: Any, evidence: Evidence) -> Inputs | str:
    """What the module asks for, a list of B each; or why it is not there."""
    own, names = evidence.own.draws, list(module._feature_names())
    columns: dict[str, list[Any]] = {}
    for name in names:
        if name in ("predictions", "data"):
            columns[name] = list(own.texts)
        elif name == "sources":
            columns[name] = [evidence.prompts[c] for c in own.prompt]
        elif name != "references":
            raise UsageError(
                f"evaluate module '{module.name}' asks for '{name}': there are predictions, references and sources"
            )
    kinds = {str(getattr(f.get(name), "dtype", "string")) for f in _forms(module) for name in columns}
    if kinds != {"string"}:
        raise UsageError(f"evaluate module '{module.name}' takes {', '.join(sorted(kinds))}, not texts")
    if "references" in names:
        found = references_of(evidence)
        if isinstance(found, str):
            return found
        several = [c for c, texts in found.items() if len(texts) > 1]
        if several and not _takes_several(module):
            return f"takes one reference a draw, and prompt {several[0]} has {len(found[several[0]])}"
        columns["references"] = [list(found[c]) if _takes_several(module) else found[c][0] for c in own.prompt]
    return columns


def _forms(module: Any) -> list[Mapping[str, Any]]:
    """The forms of input that the module takes: name → type."""
    return list(module.features) if isinstance(module.features, list) else [module.features]


def _takes_several(module: Any) -> bool:
    return any(str(getattr(form["references"], "dtype", "list")) != "string" for form in _forms(module))


def _numbers(answer: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for key, value in answer.items():
        if isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool):
            yield str(key), float(value)


def _lists(answer: Mapping[str, Any], draws: int) -> Iterator[tuple[str, Array]]:
    """What has a number for each draw."""
    for key, value in answer.items():
        if isinstance(value, (list, tuple, np.ndarray)) and len(value) == draws:
            numbers = np.asarray(value)
            if numbers.shape == (draws,) and numbers.dtype.kind in "fiu":
                yield str(key), numbers.astype(float)


def _groups(own: Draws, most: int) -> Array:
    """(B,) group 0 … of each draw, dealt out prompt by prompt, dependent draws to one; all −1 where `most` is 0."""
    answer, units = np.full(len(own), -1), 0
    for rows, unit in strata(own.prompt, own.group):
        answer[rows] = (units + unit) % most if most else -1
        units += int(unit.max()) + 1
    return answer


def _without(module: Any, inputs: Inputs, options: Mapping[str, Any], rows: Array) -> dict[str, float]:
    some = {name: [column[i] for i in rows] for name, column in inputs.items()}
    return dict(_numbers(module.compute(**some, **options)))


def _jackknifed(value: float, without: list[float], n: int) -> Estimate:
    """The number with the interval of a jackknife that leaves out a group at a time, Student's t."""
    count = len(without)
    if not count:
        return Estimate(value, n=n, note="no interval: 'groups' is 0")
    if count < FEWEST:
        return Estimate(value, n=n, note=f"no interval: fewer than {FEWEST} groups of draws")
    if not np.isfinite(without).all():
        return Estimate(value, n=n, note="no interval: without some draws it cannot be had")
    off = np.asarray(without) - np.mean(without)  # not `value`: a sum over draws, as a count, is smaller without any
    found = normal(value, float((off**2).sum()) * (count - 1) / count, n=n, df=count - 1)
    return spread_or_none(found).noted(f"{count} groups of draws left out in turn")
