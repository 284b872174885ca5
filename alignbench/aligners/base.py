"""What an aligner is: a recipe, with its hyper-parameters, that turns a base and a target into a generator."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from alignbench.aligners.bill import Bill, made_in
from alignbench.aligners.identities import of_target, plain_data, plain_parameters, registered
from alignbench.errors import RunError, UsageError, plain_failures
from alignbench.files import check_writable, digest, write_atomic
from alignbench.generators.described import called, described, identity_of
from alignbench.generators.later import Later, Recalled, RecalledScorer, made, named, outline_of, outlined, told_of
from alignbench.generators.pool import NoPool, Pool
from alignbench.registry import Registry
from alignbench.registry import aligner as aligners
from alignbench.registry import generator as generators
from alignbench.seeds import Seed
from alignbench.sources import sha256_file
from alignbench.spec import Spec, parse_spec
from alignbench.target import Target
from alignbench.types import Array, Distribution, Draws, Progress, Sampler, Training, silent

Named = str | Mapping[str, Any]
"""An aligner or a generator as a user names it: `top_p:p=0.9`, `{name: prompt, text: …}`."""


Report = Callable[[int, Mapping[str, float]], None]
"""report(step, numbers): what a training comes to after so many steps."""


def unheard(step: int, numbers: Mapping[str, float]) -> None:
    """Nobody is told."""


@runtime_checkable
class Aligner(Protocol):
    """A frozen dataclass of hyper-parameters; `identity`, see `Identified`, is its other method."""

    def align(self, setting: Setting) -> Sampler:
        """The generator that it makes of the setting's base; may train, and then writes only below `workdir`."""
        ...


@runtime_checkable
class Identified(Protocol):
    """An aligner that tells before any work what its generator depends on."""

    def identity(self, setting: Setting) -> Mapping[str, Any] | None:
        """Plain data: its own hyper-parameters, and what else there is beside the setting; None: it cannot be told."""
        ...


PICKING = 2
"""The `format` of aligners that pick among draws; version 0.1 numbered what they tried i·n."""


class Immediate:
    """An aligner whose `align` neither draws nor trains: what its generator depends on is asked of the generator.

    So its `align` must do with an outline of the base, see `generators.later`.
    """

    format: ClassVar[int] = 1
    """Raised when draws of its generator change."""

    def align(self, setting: Setting) -> Sampler:
        """See `Aligner.align`."""
        raise NotImplementedError

    def identity(self, setting: Setting) -> Mapping[str, Any] | None:
        """All that its generator's draws depend on."""
        return identity_of(setting.outlined.aligned(self))


@dataclass(frozen=True)
class Setting:
    """All that an aligner is put to work on: its draws, its training and what it looks up are on the stream `train`."""

    given: Distribution | Later[Distribution]  # the base
    target: Target
    prompts: Sequence[str]
    max_tokens: int
    seed: Seed  # of the stream `train`
    train: Sequence[str] = ()  # the task's training prompts, if it has any
    pool: Pool = field(default_factory=NoPool, compare=False)  # where draws that others may have made are had
    work: Path | None = field(default=None, compare=False)  # the folder in which each aligner has one of its own
    progress: Progress = field(default=silent, compare=False)
    report: Report = field(default=unheard, compare=False)  # told of each step of a training
    bill: Bill = field(default_factory=Bill, compare=False)  # see `book`
    who: Aligner | None = None  # the aligner whose setting it is
    out: Path | None = field(default=None, compare=False)  # its folder, where that is not one of `work`
    corpus: Sequence[str] = ()  # texts to learn from, if the task has any
    preferences: Sequence[tuple[str, str, str]] = ()  # (prompt, chosen, rejected) to learn from, if the task has any
    outline: bool = False  # whether the base is an outline, that only tells what it is

    @property
    def base(self) -> Distribution:
        """The base, loaded now if it was not."""
        return made(self.given)

    @property
    def outlined(self) -> Setting:
        """The same on the base's outline."""
        return replace(self, given=outline_of(self.given), outline=True)

    @property
    def train_prompts(self) -> Sequence[str]:
        """The prompts to train on: the task's own where it has no others, or the target no λ for others."""
        return self.prompts if self.target.per_prompt or not self.train else self.train

    def on(self, base: Distribution) -> Setting:
        """The same on another base."""
        return replace(self, given=base)

    def base_draws(self, rows: Array, salt: int = 0, prompts: Sequence[str] | None = None) -> Draws:
        """The base's draws at `rows` (R, 2) = (prompt, index) of the stream `train`, in this order, each made once.

        Rows count in `prompts`, by default `train_prompts`. Draws for different uses, such as those that train and
        those that validate, are kept apart by a `salt`, from `seeds.PLUGIN` on, or by their sample numbers.
        """
        asked, seed, rows = prompts or self.train_prompts, self.seed.salted(salt), np.asarray(rows)
        if rows.ndim != 2 or rows.shape[1] != 2 or not np.issubdtype(rows.dtype, np.integer):
            raise UsageError(f"base_draws: rows must be whole numbers (R, 2) = (prompt, index), not {rows.shape}")
        if not len(rows) or len(np.unique(rows, axis=0)) < len(rows):
            raise UsageError(f"base_draws: {len(rows)} rows: one at least, and each once")
        if (rows < 0).any() or (rows[:, 0] >= len(asked)).any():
            raise UsageError(f"base_draws: row {rows[rows[:, 0].argmax()].tolist()}: there are {len(asked)} prompts")
        return self.pool.draws(self.base, asked, rows, max_tokens=self.max_tokens, seed=seed)

    @property
    def workdir(self) -> Path | None:
        """The aligner's own folder, made when it is first asked for; None where nothing is kept.

        All that lies there is of the same aligner on the same base, target, prompts, length and seed. Raises StoreError
        where it cannot be written.
        """
        if (folder := self.folder) is not None:
            check_writable(folder)
        return folder

    @property
    def folder(self) -> Path | None:
        """The path of `workdir`, which may not be there yet."""
        if self.out is not None:
            return self.out
        if self.work is None or self.who is None:
            return None
        said = self.identity_of(self.who)
        return None if said is None else self.work / f"{registered(self.who)}-{digest(said)}"

    def book(self, **spent: float) -> None:
        """Add to what the work cost: tokens `drawn`, `scored` and `trained` on, `steps`, and `seconds`; see `Training`.

        The seconds that `align` took are added where none are booked. Of `peak_bytes`, see `peak_memory`, the largest
        is kept.

        It is kept in `workdir`, and is the `Cost.training` of the row.
        """
        self.bill.add(self.folder, Training(**spent))  # type: ignore[arg-type]

    @property
    def booked(self) -> Training:
        """What the aligner's work cost so far."""
        return self.bill.of(self.folder)

    def identity_of(self, aligner: Aligner) -> Mapping[str, Any] | None:
        """What an aligner's generator depends on, told before any work; None where aligner or base does not say."""
        if not isinstance(aligner, Identified):
            return None
        if not isinstance(aligner, Immediate):
            with plain_failures(f"identity of {registered(aligner)}", UsageError):
                return self.recipe(aligner, plain_data(aligner.identity(self)))
        base = outline_of(self.given)
        if not isinstance(base, Recalled):
            return aligner.identity(self)
        return self.recipe(aligner, plain_parameters(aligner)) if base.aligned else None

    def recipe(self, aligner: Aligner, own: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """All that what an aligner makes here depends on, its `own` part given; None where that or the base's is."""
        base = identity_of(told_of(self.given))
        return None if own is None or base is None else {
            "aligner": registered(aligner), "format": code_of(aligner), "own": own, "base": base,
            **of_target(self.target), "prompts": list(self.prompts), "train": list(self.train),
            **({"corpus": digest(list(self.corpus))} if self.corpus else {}),
            **({"preferences": digest([list(one) for one in self.preferences])} if self.preferences else {}),
            "max_tokens": self.max_tokens, "seed": self.seed.entropy,
        }  # fmt: skip

    def aligned(self, aligner: Aligner, out: Path | None = None) -> Sampler:
        """The generator of an aligner here; on an outline, where it cannot be had without work, its outline.

        What it makes is kept in `out`, by default in a folder of its own below `work`.
        """
        here = replace(self, who=aligner, out=out)
        if self.outline and (isinstance(self.given, Recalled) or not isinstance(aligner, Immediate)):
            base = told_of(self.given)
            name = f"{called(base)} + {registered(aligner)}"
            return RecalledScorer(name, self.identity_of(aligner), described(base).fingerprint, aligned=True)
        folder = None if isinstance(aligner, Immediate) else here.folder
        with self.bill.timed(folder):
            generator = aligner.align(here)
        if not isinstance(generator, Sampler):
            raise RunError(f"align of {registered(aligner)} gave a {type(generator).__name__}, which has no 'sample'")
        if folder is not None and out is None:
            _check_weights(aligner, folder, generator)
        return generator

    def built(self, given: Spec | Named, where: str) -> Sampler:
        """The generator that a spec stands for: that of an aligner on the base, or one of its own.

        `given` is a spec as a user names it, `where` what errors begin with.
        """
        spec = given if isinstance(given, Spec) else checked(given, where)
        if spec.name in aligners:
            with plain_failures(f"{where}: align", RunError):
                return self.aligned(spec.build(aligners, where))
        if self.outline and spec.name in generators:
            found = named(outlined(generators[spec.name], spec.arguments, spec.label))
            if found is not None:
                return found
        made: Sampler = spec.build(kind_of(spec), where)
        return made


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


def whole(name: str, value: object, least: int = 1) -> None:
    """Raise UsageError unless the hyper-parameter `name` is a whole number >= `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UsageError(f"{name}={value}: must be a whole number >= {least}")


def told(recipe: Aligner, given: Mapping[str, Any]) -> Mapping[str, Any]:
    """The arguments of a recipe that its label says: numbers, and choices that are not the default.

    Those `given`, where the recipe is no dataclass.
    """
    if not is_dataclass(recipe) or isinstance(recipe, type):
        return given
    left = {f.name for f in fields(recipe) if getattr(recipe, f.name) == f.default and not _is_told(f)}
    return {name: value for name, value in asdict(recipe).items() if name not in left}


def _is_told(f: Field[Any]) -> bool:
    """Whether a label says a hyper-parameter at its default: a number, unless the field is declared `told=False`."""
    return bool(f.metadata.get("told", True)) and is_number(f.default)


def is_number(value: object) -> bool:
    """Whether a hyper-parameter is a number, and no truth value."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def code_of(aligner: Aligner) -> int | str:
    """What stands for how an aligner works: its `format`, of a plug-in that is `Immediate` the hash of its file."""
    if not isinstance(aligner, Immediate):
        return 1  # its identity tells
    built_in = type(aligner).__module__.startswith("alignbench.")
    return aligner.format if built_in else sha256_file(Path(inspect.getfile(type(aligner))))


def _check_weights(aligner: Aligner, folder: Path, generator: Sampler) -> None:
    """Raise RunError where a generator says the same of other weights than before: their draws would be mixed."""
    said = identity_of(generator)
    if said is None or not folder.is_dir():
        return
    told, weights = folder.parent / f"weights_{digest([folder.name, said])}.txt", made_in(folder)
    if not told.exists():
        write_atomic(told, weights)
    elif told.read_text(encoding="utf-8") != weights:
        raise RunError(
            f"{registered(aligner)}: its generator's identity is that of other weights: it must tell them, such as by "
            f"a hash of what lies in {folder.name}"
        )
