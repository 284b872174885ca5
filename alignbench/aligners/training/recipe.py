"""What a trained aligner makes of a setting: a policy, trained once."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from alignbench.aligners.base import Setting
from alignbench.aligners.training.folder import Folder
from alignbench.aligners.training.loop import Loop
from alignbench.aligners.training.method import Method
from alignbench.aligners.training.options import Options
from alignbench.aligners.training.processes import Processes, launched
from alignbench.aligners.training.work import Work
from alignbench.errors import Unsupported, UsageError
from alignbench.generators.policy import policy_of
from alignbench.sources import sha256_file
from alignbench.target import Target
from alignbench.types import Distribution


@dataclass(frozen=True, kw_only=True)
class Trained(Options):
    """An aligner that trains: its hyper-parameters are `Options`, its file brings a `method`."""

    @property
    def ends_at(self) -> int | None:
        """The step of a training that keeps checkpoints after which it ends; None where only training tells."""
        return self.steps if self.every else None

    def remark(self, target: Target) -> str:
        """What the row says of what it aims at; "" where that is p."""
        return ""

    def method(self, work: Work) -> Method:
        """The steps of one training."""
        raise NotImplementedError

    def trained(self, work: Work, folder: Folder) -> None:
        """Train the policy, and leave in the folder what there is to leave."""
        Loop(self, self.method, work, folder).run()

    def identity(self, setting: Setting) -> Mapping[str, Any]:
        """See `Identified.identity`; with the number of processes: sums come out otherwise in other parts.

        Of a plug-in also the hash of its file.
        """
        built_in = type(self).__module__.startswith("alignbench.")
        code = {} if built_in else {"file": sha256_file(Path(inspect.getfile(type(self))))}
        return {"format": self.format, **asdict(self), "processes": launched(), **code}

    def law(self, work: Work) -> Distribution:
        """The generator that the trained policy is."""
        return work.policy

    def align(self, setting: Setting) -> Distribution:
        """See `Aligner.align`: trained now, or in an earlier run.

        Raises Unsupported where the base cannot be trained, or has no draw of p.
        """
        policy = replace(
            policy_of(setting.base, self.adapter, seed=setting.seed.entropy), said=self.remark(setting.target)
        )
        work = Work(setting, policy, Processes.here(policy.device))
        folder = Folder.of(self, setting)  # after it: what is asked wrongly leaves no folder
        if folder.finished:
            folder.load(policy)
            return self.law(work)
        try:
            self.trained(work, folder)
        except (UsageError, Unsupported):
            folder.take_back()
            raise
        return self.law(work)
