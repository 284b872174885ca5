"""What an output folder remembers of generators that nothing but making them tells: name, identity and tokenizer."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignbench.files import digest, dump, write_atomic
from alignbench.generators.described import described, identity_of
from alignbench.generators.later import Recalled
from alignbench.registry import Entry
from alignbench.run.provenance import own_version
from alignbench.sources import remembered_digest, sha256_file, sha256_folder
from alignbench.spec import Spec
from alignbench.types import Sampler


@dataclass(frozen=True)
class Known:
    """Generators by spec and by the hashes of the files that they are made of; none where there is no folder."""

    folder: Path | None

    def recall(self, spec: Spec, entry: Entry, handed: Mapping[str, Any]) -> Recalled | None:
        """What an earlier run learned of the generator that a spec stands for; None where files have changed since."""
        path = self._path(spec, entry, handed)
        with suppress(OSError, ValueError, KeyError, TypeError):
            if path is not None:
                content = json.loads(path.read_text(encoding="utf-8"))
                return Recalled(content["name"], content["identity"], content["tokens"])
        return None

    def remember(self, spec: Spec, entry: Entry, handed: Mapping[str, Any], generator: Sampler) -> Recalled | None:
        """Keep what a generator says of itself, if it says what it is."""
        path, said = self._path(spec, entry, handed), identity_of(generator)
        if path is None or said is None:
            return None
        told = described(generator)
        name = told.name or spec.label
        write_atomic(path, dump({"name": name, "identity": said, "tokens": told.fingerprint}))
        return Recalled(name, said, told.fingerprint, generator)

    def _path(self, spec: Spec, entry: Entry, handed: Mapping[str, Any]) -> Path | None:
        """The file of a spec; None where its arguments are no plain data, or there is nowhere to keep it."""
        usual = {name: p.default for name, p in entry.parameters.items() if p.default is not p.empty}
        arguments = {**usual, **{k: v for k, v in handed.items() if k in usual}, **spec.arguments}
        try:
            key = {"name": spec.name, "arguments": arguments, "files": _hashes(entry, arguments)}
            name = digest({**key, "version": own_version()})
        except (TypeError, ValueError, OSError):
            return None
        return None if self.folder is None else self.folder / f"generator_{name}.json"


def _hashes(entry: Entry, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The hash of the factory's own file, and of files and folders that arguments name."""
    found: dict[str, Any] = {"": sha256_file(Path(inspect.getfile(inspect.unwrap(entry.thing))))}
    for name, value in arguments.items():
        path = Path(value).expanduser() if isinstance(value, str) and len(value) < 4096 and "\0" not in value else None
        if path is not None and path.is_file():
            found[name] = remembered_digest(path)
        elif path is not None and value and path.is_dir():
            found[name] = sha256_folder(path)
    return found
