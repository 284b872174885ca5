"""The generators of a run: what they are called, which are loaded, and what can be told of one without its weights."""

from __future__ import annotations

import gc
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from alignbench.aligners.base import Aligner, told
from alignbench.errors import AlignbenchError, RunError, Unsupported, UsageError, brief, let_go, plain_failures
from alignbench.generators.described import described, identity_of
from alignbench.generators.hf.series import longer
from alignbench.generators.later import Later, Recalled, named, outlined
from alignbench.registry import Entry
from alignbench.registry import aligner as aligners
from alignbench.registry import generator as generators
from alignbench.run.known import Known
from alignbench.spec import Spec
from alignbench.types import Sampler, Warpable


def name_of(generator: Sampler | None, spec: Spec | Sampler | None) -> str:
    """What tables call a generator: its own name, else its spec, else its class."""
    if isinstance(spec, Spec) and spec.alias:
        return spec.alias
    if name := described(generator).name:
        return longer(name, spec.ends) if isinstance(spec, Spec) else name
    return spec.label if isinstance(spec, Spec) else type(generator).__name__


def label_of(given: Spec | Sampler) -> str:
    """What a given model is called before it is loaded: its spec, or an object's own name."""
    return given.label if isinstance(given, Spec) else name_of(given, given)


def same(a: object, b: object) -> bool:
    """Whether two givens are one object or equal specs."""
    return a is b or (isinstance(a, Spec) and isinstance(b, Spec) and a == b)


def recipe_of(given: Spec | Aligner) -> tuple[str, Aligner]:
    """The label and the aligner of a spec or of an aligner object.

    The label has the defaults that are numbers filled in, so that a table says what was run whatever they become; a
    choice that is left at its default is the plain recipe, and is not said.
    """
    recipe = given.build(aligners, "aligner") if isinstance(given, Spec) else given
    if not isinstance(recipe, Aligner):
        raise UsageError(f"aligner {brief(recipe)}: must be a spec such as best_of_n:n=4, or an object with 'align'")
    try:
        inspect.signature(recipe.align).bind(None)
    except (TypeError, ValueError):
        raise UsageError(f"aligner {type(recipe).__name__}: its align must take one argument, the setting") from None
    known = (name for name, entry in aligners.items() if entry.thing is type(recipe))
    name = given.name if isinstance(given, Spec) else next(known, type(recipe).__name__)
    label = Spec(name, told(recipe, given.arguments if isinstance(given, Spec) else {})).label
    return (given.alias or label) if isinstance(given, Spec) else label, recipe


@dataclass
class Models:
    """The generators of a run by what the user gave: base and judge stay loaded, of the others one at a time."""

    handed: Mapping[str, Any]  # what every factory is given, where it takes it
    gen_kwargs: Mapping[str, Any]  # decoding settings of the models, not of the base
    broken: dict[str, AlignbenchError] = field(default_factory=dict)  # label → why it cannot be had
    known: Known = field(default_factory=lambda: Known(None))
    loaded: dict[str, Sampler] = field(default_factory=dict)
    told: dict[str, Sampler] = field(default_factory=dict)  # see `Later.told`
    outlines: dict[str, Sampler | None] = field(default_factory=dict)  # None where only loading tells
    kept: set[str] = field(default_factory=set)  # labels of what stays loaded

    def load(self, given: Spec | Sampler, *, keep: bool = False) -> Sampler:
        """The generator of a spec, loaded once; an object stands for itself.

        One that is not to be kept goes when the next comes. Raises what its factory raised, each time.
        """
        if not isinstance(given, Spec):
            return _sampler(given, f"a {type(given).__name__} is no generator: it")
        label = given.label
        if label in self.broken:
            raise self.broken[label]
        if label not in self.loaded:
            self._let_go()
            try:
                with plain_failures(f"the generator '{given.name}'", RunError):
                    made = given.build(generators, "model", **self.handed)
                self.loaded[label] = _sampler(made, f"generator '{given.name}' made a {type(made).__name__}, which")
                self._refuse_other(given, self.loaded[label])
            except AlignbenchError as error:
                self.broken[label] = error
                let_go(error)  # a network that was refused is in memory while it holds on to it
                raise
        if keep:
            self.kept.add(label)
        return self.loaded[label]

    def _refuse_other(self, given: Spec, generator: Sampler) -> None:
        """Raise RunError where a generator is not what was told of it: its rows would stand among another's."""
        told = self.told.get(given.label)
        if isinstance(told, Recalled) and identity_of(told) != identity_of(generator):
            raise RunError(
                f"{given.label}: its identity is not the one that was told before it was made; its factory's 'identity'"
                " must give it, and files that decide must be arguments"
            )

    def outline(self, given: Spec | Sampler) -> Sampler | None:
        """What can be checked of a generator without loading its weights; None where only they can tell.

        One that is loaded, and an object, is its own outline.
        """
        if not isinstance(given, Spec) or given.label in self.loaded:
            return self.load(given)
        return self.known.recall(given, generators.find(given.name), self.handed) or self._outline(given)

    def later(self, given: Spec | Sampler, *, keep: bool = False) -> Sampler | Later[Sampler]:
        """The generator of a spec, loaded when it is needed; now, where nothing else tells what it is."""
        if not isinstance(given, Spec):
            return self.load(given)
        entry, make = generators.find(given.name), partial(self.load, given, keep=keep)
        told = self.told[given.label] if given.label in self.told else self._told(given, entry)
        if told is None:
            generator = self.load(given, keep=keep)
            told = self.known.remember(given, entry, self.handed, generator)
            if told is None or not keep:  # it would hold on to the generator
                return generator
        self.told[given.label] = told
        slow = isinstance(told, Recalled) and "outline" in entry.meta
        return Later(told, make, partial(self._outlined, given, keep=keep) if slow else None)

    def _told(self, given: Spec, entry: Entry) -> Sampler | None:
        """What says what a generator is before it is loaded; None where it must be."""
        if given.label not in self.broken and (recalled := self.known.recall(given, entry, self.handed)) is not None:
            return recalled
        outline = named(self._outline(given))
        if outline is not None:
            self.known.remember(given, entry, self.handed, outline)
        return outline

    def _outlined(self, given: Spec, *, keep: bool) -> Sampler:
        """The outline of a generator; the generator itself, where it has none."""
        return self._outline(given) or self.load(given, keep=keep)

    def _outline(self, given: Spec) -> Sampler | None:
        """What the factory says of the generator before it is loaded; None where it says nothing."""
        if given.label in self.outlines:
            return self.outlines[given.label]
        if given.label in self.broken:
            raise self.broken[given.label]
        try:
            found = outlined(generators.find(given.name), {**self.handed, **given.arguments}, given.label)
        except AlignbenchError as error:
            self.broken[given.label] = error
            raise
        self.outlines[given.label] = found
        return found

    def warped(self, given: Spec | Sampler, model: Sampler) -> Sampler:
        """The model under the run's decoding settings; raises Unsupported where it has none."""
        if not self.gen_kwargs:
            return model
        if not isinstance(model, Warpable):
            raise Unsupported(f"--gen_kwargs: {name_of(model, given)} has no decoding settings")
        return model.warped(**self.gen_kwargs)

    def named(self, given: Spec | Sampler, model: Sampler) -> str:
        """What tables call a model under the run's decoding settings."""
        settings = ",".join(f"{key}={value}" for key, value in self.gen_kwargs.items())
        return f"{name_of(model, given)}:{settings}" if settings else name_of(model, given)

    def _let_go(self) -> None:
        """Free the memory of the models that are not to be kept."""
        gone = self.loaded.keys() - self.kept
        for label in gone:
            del self.loaded[label]
        if gone:
            gc.collect()  # a network may refer to itself


def _sampler(thing: object, who: str) -> Sampler:
    if not isinstance(thing, Sampler):
        raise Unsupported(f"{who} has no method 'sample'")
    return thing
