"""λ, log Ẑ and their errors on disk, by task, base and seed: a run that has them needs no draw to know its target."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from alignbench.errors import StoreError
from alignbench.files import digest, write_atomic
from alignbench.stats.normaliser import log_z_by_prompt
from alignbench.store.packed import pack, unpack
from alignbench.types import Fit, Scored

_LOG = logging.getLogger(__name__)


def with_log_z(fit: Fit, ref: Scored) -> Fit:
    """The fit with log Ẑ of each prompt and its standard error, nats, from reference draws."""
    law = ref.log_base if ref.log_proposal is None else ref.log_proposal
    assert ref.log_target is not None and law is not None
    log_z, error = log_z_by_prompt(ref.draws.prompt, ref.log_target - law, ref.draws.group, ref.component)
    return replace(fit, log_z=log_z, log_z_stderr=error)


@dataclass(frozen=True)
class KnownFit:
    """What was fitted for a target, and why no draws of p can be had from its reference draws; "" where they can."""

    fit: Fit  # with log Ẑ
    without_p: str


@dataclass(frozen=True)
class FitFile:
    """The file of one task on one base with one seed; nothing is kept where `folder` is None."""

    folder: Path | None
    task: str
    depends_on: Mapping[str, Any]

    @property
    def path(self) -> Path | None:
        """`<folder>/fit_<task>_<digest>.npz`."""
        return None if self.folder is None else self.folder / f"fit_{self.task}_{digest(self.depends_on)}.npz"

    def read(self) -> KnownFit | None:
        """What an earlier run fitted; None where it is not there, or damaged, which is told."""
        if self.path is None or not self.path.is_file():
            return None
        try:
            record = unpack(self.path)
            return KnownFit(record["fit"], record["without_p"])
        except StoreError as error:
            _LOG.warning("%s; fitting again from the stored draws", error)
        except (KeyError, TypeError):
            _LOG.warning("%s: is not what a run writes; fitting again from the stored draws", self.path)
        return None

    def write(self, known: KnownFit) -> None:
        """Keep it."""
        if self.path is not None:
            write_atomic(self.path, pack({"fit": known.fit, "without_p": known.without_p}))
