"""What an aligner is: a recipe, with its hyper-parameters, that turns a base and a target into a generator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from alignbench.errors import Unsupported, UsageError
from alignbench.generators.law import Law
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

    def align(
        self, base: Any, target: Target, prompts: Sequence[str], *, max_tokens: int, seed: Seed,
        workdir: Path | None = None,
    ) -> Sampler:  # fmt: skip
        """The aligned generator; training uses the stream `train` and writes only below `workdir`."""
        ...


@runtime_checkable
class Nesting(Protocol):
    """An aligner that puts others to work, on all that it was itself given; one that inherits this has `align` too."""

    def within(self, setting: Setting) -> Sampler:
        """As `align`, with the training prompts too."""
        ...

    def align(
        self, base: Any, target: Target, prompts: Sequence[str], *, max_tokens: int, seed: Seed,
        workdir: Path | None = None,
    ) -> Sampler:  # fmt: skip
        """See `Aligner.align`."""
        return self.within(Setting(base, target, prompts, max_tokens, seed))


@dataclass(frozen=True)
class Setting:
    """What an aligner is put to work on; `seed` is of the stream `train`, and so are the prompts `train`, if any."""

    base: Any
    target: Target
    prompts: Sequence[str]
    max_tokens: int
    seed: Seed
    train: Sequence[str] = ()

    def aligned(self, recipe: Any) -> Any:
        """The generator that a recipe makes of the base."""
        if isinstance(recipe, Nesting):
            return recipe.within(self)
        prompts = self._seen if _trains(recipe) else self.prompts
        return recipe.align(self.base, self.target, prompts, max_tokens=self.max_tokens, seed=self.seed)

    @property
    def _seen(self) -> Sequence[str]:
        """The prompts to train on: the task's own where it has no others, or the target no λ for others."""
        return self.prompts if self.target.per_prompt or not self.train else self.train

    def built(self, spec: Spec, where: str) -> Any:
        """The generator that a spec stands for: that of an aligner on the base, or one of its own."""
        thing = spec.build(kind_of(spec), where)
        return self.aligned(thing) if spec.name in aligners else thing


def _trains(recipe: Any) -> bool:
    """Whether an aligner is declared to be one that trains."""
    return any(entry.thing is type(recipe) and entry.meta.get("trains", False) for entry in aligners.values())


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


def need_law(base: Any, aligner: str) -> Law:
    """`base` as a law whose decoding settings can change; raises Unsupported for a black box."""
    if not isinstance(base, Law):
        raise Unsupported(
            f"aligner '{aligner}' changes next-token probabilities, and {type(base).__name__} has none to change "
            "(a point mass, as of greedy and beam, can only be the last step of a chain)"
        )
    return base


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


def identity_of(aligner: Any, base: Any, target: Target | None = None) -> Mapping[str, Any]:
    """Plain data that the aligned generator's draws depend on."""
    mine = asdict(aligner) if is_dataclass(aligner) and not isinstance(aligner, type) else {}
    parts: dict[str, Any] = {"aligner": type(aligner).__name__, **mine, "base": base.identity()}
    if target is not None:
        fitted = [] if target.fit is None else target.fit.lam.tolist()
        measured = {name: getattr(target.measures.get(name), "identity", None) for name in target.feature_names}
        parts |= {"target": target.identity, "lam": fitted, "features": measured}
    return parts
