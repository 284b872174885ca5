"""What a task asks, as the folder of its runs or the built-in task of its name says it: one sentence, and its features.

A folder may be a stranger's. Its features are plain data, of which only those of this package are bound, by the checks
that a task's own pass.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from alignbench.errors import AlignbenchError, StoreError, TaskError, UsageError, plain_failures
from alignbench.features import BoundFeature, bind
from alignbench.features.spans import Span, joined
from alignbench.registry import feature
from alignbench.reports.folders import read_json
from alignbench.task import builtin_folder
from alignbench.task.keys import PATTERN
from alignbench.yamlfile import read

OWN = "alignbench.features."
"""Where features lie that data from a folder may name."""
MOST = 16
"""Features of one task that are looked for."""
LONGEST = 20_000
"""Characters of what a folder says of one feature: lists of more words take long to look for."""


@lru_cache(maxsize=256)
def built_in(task: str, version: str) -> Mapping[str, Any]:
    """What the file of the built-in task of this name and version says; nothing where there is none."""
    if not re.fullmatch(PATTERN, task):
        return {}
    try:
        data = read(builtin_folder() / f"{task}.yaml").data
    except TaskError:
        return {}
    return data if str(data.get("version")) == version else {}


@dataclass
class Sought:
    """Features that can say where in a text they find what they look for."""

    features: list[BoundFeature] = field(default_factory=list)

    def marks(self, prompt: str, text: str) -> tuple[Span, ...]:
        """Where they find it: in order, none overlapping another."""
        return joined([span for one in list(self.features) for span in self._of(one, prompt, text)], len(text))

    def _of(self, one: BoundFeature, prompt: str, text: str) -> tuple[Span, ...]:
        """Nothing of a prompt that it does not know; one that takes too long is not asked again."""
        try:
            return one.spans(prompt, text)
        except UsageError:
            return ()
        except AlignbenchError:
            self.features.remove(one)
            return ()


def looked_for(folder: Path, task: str, version: str) -> Sought:
    """What the target of a task looks for in a text, by task_<name>.json in `folder` or by the built-in task.

    Nothing where neither says it.
    """
    told: Mapping[str, Any] = {}
    path = folder / f"task_{task}.json"
    if re.fullmatch(PATTERN, task) and path.is_file():
        try:
            told = read_json(path)
        except StoreError:  # the rows' reader tells it
            told = {}
    if "features" in told and str(told.get("version")) == version:
        specs = told["features"]
    else:
        specs = _of_target(built_in(task, version))
    found = map(_bound, list(specs.values())[:MOST] if isinstance(specs, Mapping) else ())
    return Sought([one for one in found if one is not None])


def _of_target(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """Name → specification of the features that a task file's target asks something of."""
    target, features = data.get("target"), data.get("features")
    if not isinstance(target, list) or not isinstance(features, Mapping):
        return {}
    names = dict.fromkeys(str(item.get("feature")) for item in target if isinstance(item, Mapping))
    return {name: features[name] for name in names if name in features}


def _bound(spec: Any) -> BoundFeature | None:
    """The feature of this package that plain data asks for; None where it is another, or its arguments are wrong."""
    name = spec.get("feature") if isinstance(spec, Mapping) else None
    if not isinstance(name, str) or name not in feature:
        return None
    entry = feature[name]
    if "spans" not in entry.meta or not entry.thing.__module__.startswith(OWN):
        return None
    try:
        with plain_failures(name, UsageError):
            return bind(spec) if len(json.dumps(spec)) <= LONGEST else None
    except AlignbenchError:
        return None
