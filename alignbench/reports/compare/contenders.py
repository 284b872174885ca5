"""Which stored generators are compared: folders and labels, as a user types them, to their evidence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import filter as filter_names
from fnmatch import fnmatchcase
from pathlib import Path

from alignbench.errors import AlignbenchError, StoreError, UsageError, did_you_mean, unknown
from alignbench.reports.table.board import PINNED, plain_text
from alignbench.reports.table.labels import aligner_name, meant, short_labels
from alignbench.run.rows import RowKey, read_evidence
from alignbench.spec import training_of, without_step
from alignbench.store.packed import evidence_files
from alignbench.types import CEILING, Evidence

BASE = "base"


@dataclass(frozen=True)
class Measured:
    """One generator on one task: the file, its evidence, and what its rows share."""

    path: Path
    evidence: Evidence
    key: RowKey
    short: str = ""  # the aligner's label where that is long

    @property
    def is_base(self) -> bool:
        """Whether it is the base that divergences are measured from."""
        return self.evidence.is_base and not self.key.aligner

    @property
    def is_pinned(self) -> bool:
        """Whether it stands for no generator that one compares unless asked: the base, draws of p, a null model."""
        return self.is_base or self.key.generator == CEILING or aligner_name(self.key.aligner) in PINNED

    @property
    def label(self) -> str:
        """Its name as tables show it: of an aligner on the base, the aligner's alone."""
        return self._called(self.short or self.key.aligner)

    @property
    def training(self) -> str:
        """Its label with * for the training step, which checkpoints of one training share."""
        return self._called(self.short or self.key.aligner, self.key.step)

    @property
    def names(self) -> set[str]:
        """All that a user may call it."""
        plain = {self.label, self._called(self.key.aligner)}
        plain |= {BASE, f"{self.label} ({BASE})"} if self.is_base else set()
        told = {f"seed {self.key.seed}", f"{self.key.draws} draws", f"#{self.key.generator_id}"}
        return plain | {f"{name} ({remark})" for name in plain for remark in told}

    def _called(self, aligner: str, step: int | None = None) -> str:
        generator = self.key.generator
        shown = "" if aligner and generator == self.key.base else generator
        return plain_text(
            " + ".join(filter(None, (shown, aligner))) if step is None else training_of(shown, aligner, step)
        )


@dataclass(frozen=True)
class Contender:
    """One generator on all the tasks that it was measured on."""

    name: str
    found: tuple[Measured, ...]

    @property
    def tasks(self) -> list[str]:
        """Their names, in the order of the files."""
        return list(dict.fromkeys(m.key.task for m in self.found))


@dataclass(frozen=True)
class Pool:
    """The evidence below one folder, and a line for each file that cannot be read."""

    folder: Path
    found: tuple[Measured, ...]
    failures: tuple[str, ...]
    whole: bool  # an output folder; else the folder of one generator

    @property
    def labels(self) -> list[str]:
        """What is in it, each once; the base by its short name."""
        return list(dict.fromkeys(BASE if m.is_base else m.label for m in self.found))


def read_pool(folder: Path) -> Pool:
    """All evidence in an output folder or in one generator's; raises StoreError where there is none."""
    own = sorted(folder.glob("evidence_*.npz"))
    found, failures = [], []
    for path in own or evidence_files(folder):
        try:
            found.append(Measured(path, *read_evidence(path)))
        except AlignbenchError as error:
            failures.append(str(error))
    if not found and not failures:
        raise StoreError(f"{folder}: holds no evidence_*.npz; give the --output_path of a run, or a folder in it")
    return Pool(folder, tuple(_shortened(found)), tuple(failures), whole=not own)


def _shortened(found: Sequence[Measured]) -> Iterator[Measured]:
    """With the short labels that a table of their task gives them."""
    tasks = {
        task: short_labels(m.key.aligner for m in found if m.key.task == task) for task in {m.key.task for m in found}
    }
    yield from (replace(m, short=tasks[m.key.task][m.key.aligner]) for m in found)


def split(arguments: Sequence[str]) -> tuple[list[Pool], list[str]]:
    """The folders among the arguments, read, and the labels: whatever is no path.

    Raises UsageError on what looks like a path and is none.
    """
    pools, labels = [], []
    for argument in arguments:
        if Path(argument).is_dir():
            pools.append(read_pool(Path(argument)))
        elif Path(argument).exists():
            raise UsageError(f"{argument}: is a file; give the --output_path of a run, or a folder in it")
        else:
            labels.append(argument)
    if not pools:
        raise UsageError(f"'{arguments[0]}': is no folder; give the --output_path of a run, then labels of its rows")
    return pools, labels


def contenders(arguments: Sequence[str]) -> tuple[list[Contender], list[str]]:
    """The generators that `arguments` mean, in their order, and a line for each file that cannot be read.

    A folder that holds evidence is one generator. An output folder is where labels are looked up, or, without any
    labels, the one generator in it beside the base. Raises UsageError where that leaves fewer than two.
    """
    pools, labels = split(arguments)
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise UsageError(f"'{twice[0]}': is there twice; a row does not differ from itself")
    by_folder = {str(pool.folder): pool for pool in pools}
    wholes = [pool for pool in pools if pool.whole]
    found: list[Contender] = []
    for argument in arguments:
        pool = None if argument in labels else by_folder[str(Path(argument))]
        if pool is None:
            found.append(_by_label(argument, wholes))
        elif not pool.whole or not labels:
            found.append(_alone(pool, len(arguments)))
    if len(found) < 2:
        raise UsageError(f"compare needs two generators or more. {_listed(wholes)}")
    return _told_apart(found), [line for pool in pools for line in pool.failures]


def of_tasks(found: Sequence[Contender], patterns: Sequence[str]) -> list[Contender]:
    """The same on the tasks of these names or patterns alone, all where there are none; raises UnknownName."""
    known = list(dict.fromkeys(task for c in found for task in c.tasks))
    if lost := [pattern for pattern in patterns if not filter_names(known, pattern)]:
        raise unknown("task", lost[0], known, "--tasks")
    kept = {task for pattern in patterns or ["*"] for task in filter_names(known, pattern)}
    return [replace(c, found=tuple(m for m in c.found if m.key.task in kept)) for c in found]


def renamed(found: Sequence[Contender], names: Mapping[str, str]) -> list[Contender]:
    """The same, called what `names` (label or pattern → name) says; raises UnknownName, and UsageError on one twice."""
    labels = [c.name for c in found]
    if lost := [old for old in names if not (filter_names(labels, old) or meant(old, labels))]:
        raise unknown("row", lost[0], labels, "--rename")

    def called(label: str) -> str:
        fits = (new for old, new in names.items() if fnmatchcase(label, old) or meant(old, [label]))
        return plain_text(next(fits, label))

    told = [replace(c, name=called(c.name)) for c in found]
    if twice := next((c.name for c in told if names and [d.name for d in told].count(c.name) > 1), None):
        raise UsageError(f"--rename: two rows would be called '{twice}'; give each a name of its own")
    return told


def _by_label(label: str, pools: Sequence[Pool]) -> Contender:
    """The rows of a label; an aligner's name alone will do where one row has it."""
    everything = [m for pool in pools for m in pool.found]
    exact = [m for m in everything if label in m.names]
    found = exact or [m for m in everything if meant(label, m.names)]
    labels = list(dict.fromkeys(m.label for m in found))
    if not found:
        known = {name for pool in pools for name in pool.labels}
        if damaged := [line for pool in pools for line in pool.failures]:
            raise StoreError(f"'{label}': is no row of what could be read; {_damage(damaged)}")
        raise UsageError(f"'{label}': is no folder, nor a row of the folders given.{did_you_mean(label, known)}")
    if len(labels) > 1 and label != BASE:
        raise UsageError(f"'{label}': stands for several rows; give one of: {'; '.join(labels)}")
    return Contender(plain_text(label) if exact else labels[0], tuple(found))


def _alone(pool: Pool, arguments: int) -> Contender:
    """The one generator of a folder: all there is in one of a generator, else what is there beside the base."""
    others = [m for m in pool.found if pool.whole and not m.is_pinned]
    if pool.failures and not others and pool.whole:  # the base may not pass for the generator that was damaged
        raise StoreError(f"{pool.folder}: holds no generator that could be read; {_damage(pool.failures)}")
    chosen = others or [m for m in pool.found if m.is_base or not pool.whole]
    if not chosen:
        raise StoreError(next(iter(pool.failures), f"{pool.folder}: holds neither a generator nor the base"))
    names = list(dict.fromkeys(m.label for m in chosen))
    if len(names) > 1:
        asked = "compare needs two generators or more" if arguments == 1 else f"{pool.folder}: holds several generators"
        raise UsageError(f"{asked}. {_listed([pool])}")
    return Contender(names[0], tuple(chosen))


def _damage(failures: Sequence[str]) -> str:
    """The tail of an error about what is damaged: the first file, and how many there are besides."""
    return failures[0] + (f"; and so with {len(failures) - 1} more" if len(failures) > 1 else "")


def _listed(pools: Sequence[Pool]) -> str:
    """The tail of an error: what may be named after a folder."""
    return "; ".join(f"add labels of {pool.folder}: {', '.join(pool.labels)}" for pool in pools)


def _told_apart(found: Sequence[Contender]) -> list[Contender]:
    """Contenders of one name, with the folder that each comes from."""
    names = [c.name for c in found]
    return [c if names.count(c.name) == 1 else replace(c, name=f"{c.name} in {_place(c)}") for c in found]


def _place(contender: Contender) -> str:
    return plain_text(str(contender.found[0].path.parent.parent))


@dataclass(frozen=True)
class Pair:
    """Two generators on one task that may be compared."""

    first: Measured
    other: Measured


SETTING = {
    "task_hash": "the task's hash differs",
    "base_id": "the base differs",
    "target_id": "the fitted target (λ) differs",
    "judge": "the judge differs",
    "ci_over": "what intervals are over differs",
}
"""Field of a row's key → what to say where two that are to be compared do not share it."""


def pairs(first: Contender, other: Contender) -> tuple[list[Pair], list[str]]:
    """One pair for each task of both, and a line for each task that has none, with the reason.

    Of several measurements those of one seed and number of draws are taken, the lowest seed and the newest first.
    """
    found, skipped = [], []
    for task in dict.fromkeys([*first.tasks, *other.tasks]):
        mine, theirs = ([m for m in c.found if m.key.task == task] for c in (first, other))
        if not mine or not theirs:
            skipped.append(f"{task}: skipped, {(other if mine else first).name} was not measured on it")
            continue
        fitting = [Pair(a, b) for a in mine for b in theirs if not _differences(a, b)]
        if fitting:
            found.append(min(_newest_first(fitting), key=_nearness))
        else:
            skipped.append(_mismatch(task, mine[-1], theirs[-1], first.name, other.name))
    return found, skipped


def _newest_first(fitting: Sequence[Pair]) -> list[Pair]:
    return sorted(fitting, key=lambda pair: (pair.first.key.measured, pair.other.key.measured), reverse=True)


def _nearness(pair: Pair) -> tuple[bool, bool, int]:
    a, b = pair.first.key, pair.other.key
    return a.seed != b.seed, a.draws != b.draws, a.seed


def _differences(a: Measured, b: Measured) -> list[str]:
    return [said for name, said in SETTING.items() if getattr(a.key, name) != getattr(b.key, name)]


def _mismatch(task: str, a: Measured, b: Measured, first: str, other: str) -> str:
    versions = f" (version {a.key.task_version} and {b.key.task_version}, {len(a.evidence.prompts)} and "
    told = f"{versions}{len(b.evidence.prompts)} prompts)" if a.key.task_hash != b.key.task_hash else ""
    common = set(a.evidence.prompts) & set(b.evidence.prompts)
    reason = _differences(a, b)[0] + told if common else "no common prompts to pair"
    return f"{task}: skipped, {first} and {other} cannot be compared: {reason}"


def steps(found: Sequence[Measured]) -> Iterator[tuple[str, list[Measured]]]:
    """Series of checkpoints among the measured, each with its name, ordered by training step; newest of each step.

    The base is step 0 of an aligner's.
    """
    families: dict[tuple[str, ...], dict[int, Measured]] = {}
    bases: dict[tuple[str, ...], Measured] = {}
    on_base: set[tuple[str, ...]] = set()
    for m in sorted(found, key=lambda m: m.key.measured):
        shared = (m.key.task, *(str(getattr(m.key, name)) for name in (*SETTING, "seed", "draws")))
        if m.is_base:
            bases[shared] = m
        if m.key.step is not None:
            who = (m.training, *shared)
            families.setdefault(who, {})[m.key.step] = m
            on_base |= {who} if without_step(m.key.aligner)[1] is not None else set()
    for who, series in families.items():
        start = {0: bases[who[1:]]} if who in on_base and who[1:] in bases else {}
        yield who[0], [one for _, one in sorted({**start, **series}.items())]
