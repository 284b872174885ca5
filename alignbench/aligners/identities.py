"""What an aligner and a target are, as plain data: what draws are found by, and the names of work folders."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from typing import Any

from alignbench.errors import UsageError
from alignbench.generators.described import identity_of
from alignbench.registry import aligner as aligners
from alignbench.target import Target
from alignbench.types import Sampler


def registered(aligner: object) -> str:
    """The name under which an aligner's class is registered; its own where it is not."""
    return next((name for name, entry in aligners.items() if entry.thing is type(aligner)), type(aligner).__name__)


def recipe_identity(aligner: object, base: Sampler, target: Target | None = None) -> Mapping[str, Any] | None:
    """Plain data that the aligned generator's draws depend on; None where the base does not say its own."""
    own = identity_of(base)
    if own is None:  # else draws on one base would be found for another
        return None
    aimed = {} if target is None else of_target(target)
    return {"aligner": type(aligner).__name__, **hyper_parameters(aligner), "base": own, **aimed}


def hyper_parameters(aligner: object) -> dict[str, Any]:
    """The hyper-parameters of an aligner, if it is a dataclass."""
    return asdict(aligner) if is_dataclass(aligner) and not isinstance(aligner, type) else {}


def plain_parameters(aligner: object) -> dict[str, Any] | None:
    """The hyper-parameters of an aligner; None where it is no dataclass, or one of them is a generator."""
    if not is_dataclass(aligner) or any(isinstance(getattr(aligner, f.name), Sampler) for f in fields(aligner)):
        return None
    return hyper_parameters(aligner)


def plain_data(said: object) -> dict[str, Any] | None:
    """What an `identity` gives, as JSON would have it; raises UsageError where it is no mapping of plain data."""
    if said is None:
        return None
    if not isinstance(said, Mapping):
        raise UsageError(f"an aligner's identity must be a mapping of plain data, not a {type(said).__name__}")
    return dict(json.loads(json.dumps(dict(said))))


def of_target(target: Target) -> dict[str, Any]:
    """What a target asks, its λ, and how its features are measured."""
    fitted = [] if target.fit is None else target.fit.lam.tolist()
    measured = {name: getattr(target.measures.get(name), "identity", None) for name in target.feature_names}
    return {"target": target.identity, "lam": fitted, "features": measured}
