"""What all generators of a task on a base share: the target with its fitted λ, and the reference draws."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from alignbench.aligners.base import Setting
from alignbench.errors import RunError, Unsupported, brief
from alignbench.files import digest
from alignbench.generators.described import identity_of, log_prob_of
from alignbench.registry import aligner as aligners
from alignbench.scoring.bench import Bench
from alignbench.scoring.fits import FitFile, KnownFit, with_log_z
from alignbench.seeds import ACCEPT, APART
from alignbench.stats.mixture import joined_groups, log_proposal
from alignbench.target import Target
from alignbench.types import Array, Distribution, Draws, Fit, Scored

EVIDENCE = 4
"""Raised when what evidence holds, or how it is scored, changes: older files are then measured again."""
FITS = 1
"""Raised when λ or log Ẑ come out otherwise from the same draws."""
KNOWN, WORK = "known", "aligned"
"""Folders below a run's: what is known before anything is loaded, and what aligners made."""


@dataclass
class References:
    """Target and reference draws of a bench, each made when it is first asked for."""

    bench: Bench

    @cached_property
    def _file(self) -> FitFile:
        """Where what is fitted is kept; nowhere, where the base does not say what it is."""
        bench, output = self.bench, self.bench.output
        known = None if output is None or bench.base_identity is None else output / KNOWN
        return FitFile(known, bench.task.name, {**_common(bench), "format": FITS})

    @property
    def known(self) -> bool:
        """Whether an earlier run fitted the target and made the reference draws."""
        return self._known is not None

    @cached_property
    def _known(self) -> KnownFit | None:
        """What an earlier run fitted; of a number that is binned, only what has its bins."""
        found, binned = self._file.read(), self.bench.task.target.binned
        return None if found is None or set(binned) - found.fit.bins.keys() else found

    @cached_property
    def target(self) -> Target:
        """The task's target: λ fitted and asked numbers binned on the stream `fit`, λ tested on `heldout`."""
        task = self.bench.task
        target = replace(task.target, measures=task.features)
        if self._known is not None:
            return replace(target, fit=replace(self._known.fit, log_z=None, log_z_stderr=None))
        nothing: tuple[dict[str, Array], Array] = {}, np.zeros(0, dtype=int)
        fit = self._measured("fit") if target.needs_fit or target.binned else nothing
        heldout = self._measured("heldout") if target.needs_fit else nothing
        return target.fitted(*fit, *heldout, self.bench.prompts)

    def _measured(self, stream: str) -> tuple[dict[str, Array], Array]:
        """Features of fresh base draws of a stream, and which prompt each is of."""
        bench = self.bench
        draws = bench.draw(f"{stream} draws of the base", bench.base, stream).draws
        return {name: measure(bench.prompts, draws) for name, measure in bench.task.features.items()}, draws.prompt

    def prepare(self) -> None:
        """Fit λ, then make the reference draws, unless it is known: what cannot be reached is told at once."""
        if self._known is None:
            self.bench.check(self.bench.base)  # what was only remembered of it could not
        _ = self.target
        if self._known is None:
            _ = self.ref

    @property
    def setting(self) -> Setting:
        """What aligners are put to work on."""
        bench, task = self.bench, self.bench.task
        return Setting(
            bench.scorer, self.target, bench.prompts, task.max_tokens, bench.seed.on("train"), task.train, bench.store,
            work=bench.output and bench.output / WORK, progress=bench.progress, corpus=task.corpus,
            preferences=task.preferences,
        )  # fmt: skip

    @cached_property
    def target_id(self) -> str:
        """8 hex digits of what p is: task, base and the fitted λ."""
        lam = self.target.fit.lam.tolist() if self.target.fit is not None else []
        return digest({"task": self.bench.task.hash, "base": self.bench.base_identity, "lam": lam})[:8]

    @cached_property
    def ref(self) -> Scored:
        """The reference draws, scored under base and target."""
        bench = self.bench
        draws = bench.draw("reference draws of the base", bench.base, "ref").draws
        log_base = bench.log_base(draws)
        if log_base is None:
            raise RunError(f"{bench.base_name}: its own draws are not ids of its vocabulary, so it cannot score them")
        return self._mixed(draws, log_base) if bench.task.proposals else bench.scored(self.target, draws, log_base)

    def _mixed(self, draws: Draws, log_base: Array) -> Scored:
        """Draws of the base and as many of each of the task's proposals, weighed by their mixture."""
        bench, laws, parts = self.bench, self._proposals(), [draws]
        for j, (label, law) in enumerate(laws.items(), start=1):
            parts.append(bench.draw(f"reference draws of {label}", law, "ref", first=j * APART).draws)
        joined = replace(Draws.concat(parts), group=joined_groups([p.group for p in parts], [len(p) for p in parts]))
        others = joined.take(np.arange(len(draws), len(joined)))
        log_base = np.concatenate([log_base, log_prob_of(bench.base, bench.prompts, others)])
        logs = [log_base, *(log_prob_of(law, bench.prompts, joined) for law in laws.values())]
        component = np.repeat(np.arange(len(parts)), [len(p) for p in parts])
        return replace(
            bench.scored(self.target, joined, log_base), component=component,
            log_proposal=log_proposal(joined.prompt, component, np.stack(logs, axis=1)),
        )  # fmt: skip

    def _proposals(self) -> dict[str, Distribution]:
        """Label → the generator of each of the task's proposals; raises Unsupported for one without a density."""
        found, task = {}, self.bench.task
        for spec in task.proposals:
            where = f"task '{task.name}': proposal '{spec.label}'"
            law = self.setting.built(spec, where)
            if not isinstance(law, Distribution):
                raise Unsupported(f"{where}: has no log_prob, which the mixture of reference draws needs")
            self.bench.check(law)
            found[spec.label] = law
        return found

    @cached_property
    def fit(self) -> Fit:
        """λ and log Ẑ of each prompt, with their errors."""
        if self._known is not None:
            return self._known.fit
        assert self.target.fit is not None
        fit = with_log_z(self.target.fit, self.ref)
        self._file.write(KnownFit(fit, self.without_p))
        return fit

    @cached_property
    def without_p(self) -> str:
        """Why no draws of p can be had from the reference draws; "" where they can."""
        if self._known is not None:
            return self._known.without_p
        try:
            self.draws_of_p()
        except Unsupported as error:
            return str(error)
        return ""

    @property
    def none_of_p(self) -> str:
        """What to say where no reference draw of any prompt is a draw of p; "" where one is."""
        prompts, log_z = self.bench.prompts, self.fit.log_z
        if log_z is None or (log_z > -np.inf).any():
            return ""
        drawn = len(prompts) * self.bench.draws * (1 + len(self.bench.task.proposals))
        some = ", ".join(map(brief, prompts[:3])) + (", …" if len(prompts) > 3 else "")
        return (
            f"{self.bench.task.name}: none of the {drawn} reference draws is a draw of p, for any of its "
            f"{len(prompts)} prompts ({some}): divergences are bounds or missing; raise --draws, or give the task "
            "'proposals' that reach p"
        )

    def draws_of_p(self) -> Scored:
        """Draws of p itself, from the reference draws by rejection.

        Raises Unsupported where log P − log a has no known bound or a prompt has no such draw.
        """
        bench, ref = self.bench, self.ref
        bound = self.target.log_bound(len(bench.prompts))
        if bound is None:
            raise Unsupported("draws of p: log P − log a has no known bound")
        ratio, seed = self.target.log_ratio(ref.features, ref.draws.prompt), bench.seed.on("ref").salted(ACCEPT)
        rows = zip(ref.draws.prompt, ref.draws.index, strict=True)
        coin = np.array([seed.rng(bench.prompts[c], i).random() for c, i in rows])
        kept = np.flatnonzero((coin < np.exp(ratio - bound[ref.draws.prompt])) & ref.of_base)  # not the proposals'
        if len(np.unique(ref.draws.prompt[kept])) < len(bench.prompts):
            raise Unsupported("draws of p: none among the reference draws of some prompt")
        assert ref.log_base is not None
        return bench.scored(self.target, ref.draws.take(kept), ref.log_base[kept])


def depends_on(references: References, identity: Any) -> dict[str, Any]:
    """All that the evidence about a generator of this `identity` depends on, as plain data."""
    bench = references.bench
    return {**_common(bench), "generator": identity, "format": EVIDENCE, "judge": bench.judge_identity}


def _proposals_told(bench: Bench) -> dict[str, Any]:
    """Label → what a task's proposal depends on, but where its label tells all: built in, with numbers alone."""
    task, found = bench.task, dict[str, Any]()
    for spec in task.proposals:
        known = spec.name in aligners and aligners[spec.name].thing.__module__.startswith("alignbench.")
        if not known or not all(isinstance(value, (int, float)) for value in spec.arguments.values()):
            target = replace(task.target, measures=task.features)
            setting = Setting(bench.scorer, target, bench.prompts, task.max_tokens, bench.seed.on("train"), task.train)
            where = f"task '{task.name}': proposal '{spec.label}'"
            found[spec.label] = identity_of(setting.outlined.built(spec, where))
    return found


def _common(bench: Bench) -> dict[str, Any]:
    """What target and reference draws depend on."""
    told = _proposals_told(bench)
    return {
        "task": bench.task.hash, "prompts": bench.prompts, "draws": bench.draws, "seed": bench.seed.entropy,
        "base": bench.base_identity, "proposals": [spec.label for spec in bench.task.proposals],
        **({"told": told} if told else {}),
    }  # fmt: skip
