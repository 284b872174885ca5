"""What an aligner is: a recipe, with its hyper-parameters, that turns a base and a target into a generator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any, Protocol, runtime_checkable

from alignbench.errors import RunError, UsageError, plain_failures
from alignbench.generators.described import identity_of
from alignbench.generators.pool import NoPool, Pool
from alignbench.registry import Registry
from alignbench.registry import aligner as aligners
from alignbench.registry import generator as generators
from alignbench.seeds import Seed
from alignbench.spec import Spec, parse_spec
from alignbench.target import Target
from alignbench.types import Sampler

Named = str | Mapping[str, Any]
"""An aligner or a generator as a user names it: `top_p:p=0.9`, `{name: prompt, text: …}`."""


@runtime_checkable
class Aligner(Protocol):
    """A frozen dataclass of hyper-parameters with one method."""

    def align(self, setting: Setting) -> Sampler:
        """The generator that it makes of the setting's base."""
        ...


@dataclass(frozen=True)
class Setting:
    """All that an aligner is put to work on: its draws, its training and what it looks up are on the stream `train`."""

    base: Any
    target: Target
    prompts: Sequence[str]
    max_tokens: int
    seed: Seed  # of the stream `train`
    train: Sequence[str] = ()  # the task's training prompts, if it has any
    pool: Pool = field(default_factory=NoPool, compare=False)  # where draws that others may have made are had

    @property
    def train_prompts(self) -> Sequence[str]:
        """The prompts to train on: the task's own where it has no others, or the target no λ for others."""
        return self.prompts if self.target.per_prompt or not self.train else self.train

    def built(self, spec: Spec, where: str) -> Any:
        """The generator that a spec stands for: that of an aligner on the base, or one of its own."""
        thing = spec.build(kind_of(spec), where)
        if spec.name not in aligners:
            return thing
        with plain_failures(f"{where}: align", RunError):
            return thing.align(self)


def kind_of(spec: Spec) -> Registry:
    """Where the name of a spec is registered: among the aligners, else among the generators, or nowhere."""
    return aligners if spec.name in aligners or spec.name not in generators else generators


def checked(given: Named, where: str) -> Spec:
    """The spec of an aligner or a generator, its name and arguments checked; raises UsageError, which names `where`."""
    spec = parse_spec(given, where)
    if spec.name in aligners:
        spec.build(aligners, where)  # a recipe refuses what is wrong with it when it is made
    else:
        kind_of(spec).find(spec.name, where).check(spec.arguments, f"{where} '{spec.name}'")
    return spec


def whole(name: str, value: Any) -> None:
    """Raise UsageError unless the hyper-parameter `name` is a whole number >= 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(f"{name}={value}: must be a whole number >= 1")


def told(recipe: Any, given: Mapping[str, Any]) -> Mapping[str, Any]:
    """The arguments of a recipe that its label says: numbers, and choices that are not the default.

    Those `given`, where the recipe is no dataclass.
    """
    if not is_dataclass(recipe) or isinstance(recipe, type):
        return given
    left = {f.name for f in fields(recipe) if getattr(recipe, f.name) == f.default and not _is_number(f.default)}
    return {name: value for name, value in asdict(recipe).items() if name not in left}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def recipe_identity(aligner: Any, base: Any, target: Target | None = None) -> Mapping[str, Any] | None:
    """Plain data that the aligned generator's draws depend on; None where the base does not say its own."""
    own = identity_of(base)
    if own is None:  # else draws on one base would be found for another
        return None
    mine = asdict(aligner) if is_dataclass(aligner) and not isinstance(aligner, type) else {}
    parts: dict[str, Any] = {"aligner": type(aligner).__name__, **mine, "base": own}
    if target is not None:
        fitted = [] if target.fit is None else target.fit.lam.tolist()
        measured = {name: getattr(target.measures.get(name), "identity", None) for name in target.feature_names}
        parts |= {"target": target.identity, "lam": fitted, "features": measured}
    return parts
