"""What an output folder remembers of generators that nothing but making them tells: name, identity and tokenizer."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from alignbench.aligners.base import Aligner, Immediate, Setting, plain_parameters
from alignbench.errors import AlignbenchError
from alignbench.files import digest, dump, write_atomic
from alignbench.generators.later import Later, Recalled
from alignbench.registry import Entry
from alignbench.registry import generator as generators
from alignbench.run.provenance import versions
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
        path, found = self._path(spec, entry, handed), Recalled.of(generator, spec.label, generator)
        if path is None or found.said is None:
            return None
        write_atomic(path, dump({"name": found.name, "identity": found.said, "tokens": found.tokens}))
        return found

    def identity_of(self, aligner: Aligner, setting: Setting) -> Mapping[str, Any] | None:
        """What an aligner's generator depends on, see `Setting.identity_of`; remembered where asking takes an outline.

        By what the setting's base, target and prompts are; not where a hyper-parameter names a file or a generator,
        which may change.
        """
        given = setting.given
        if self.folder is None or not isinstance(given, Later) or not isinstance(aligner, Immediate):
            return setting.identity_of(aligner)
        plain = plain_parameters(aligner)
        if plain is None or not _stands_alone(plain):
            return setting.identity_of(aligner)
        base = given.told if isinstance(given.told, Recalled) else Recalled.of(given.told)
        asked = replace(setting, given=base).identity_of(aligner)
        path = self.folder / f"aligner_{digest({'asked': asked, 'made_by': _versions()})}.json"
        with suppress(OSError, ValueError, KeyError, TypeError):
            return dict(json.loads(path.read_text(encoding="utf-8"))["identity"])
        said = setting.identity_of(aligner)
        if said is not None:
            write_atomic(path, dump({"identity": said}))
        return said

    def _path(self, spec: Spec, entry: Entry, handed: Mapping[str, Any]) -> Path | None:
        """The file of a spec; None where its arguments are no plain data, or there is nowhere to keep it."""
        usual = {name: p.default for name, p in entry.parameters.items() if p.default is not p.empty}
        arguments = {**usual, **{k: v for k, v in handed.items() if k in usual}, **spec.arguments}
        if self.folder is None:
            return None
        try:
            files = _hashes(entry, arguments)
            key = {"name": spec.name, "arguments": arguments, "files": files, "made_by": _versions()}
            return None if files is None else self.folder / f"generator_{digest(key)}.json"
        except (TypeError, ValueError, OSError, AlignbenchError):  # what is wrong is told when it is made
            return None


def _versions() -> dict[str, str]:
    """This package, and the libraries that decide what a generator says of itself."""
    return {name: versions().get(name, "") for name in ("alignbench", "torch", "transformers", "tokenizers")}


def _stands_alone(value: object) -> bool:
    """Whether no text in a hyper-parameter names a generator, or a file or folder that is there."""
    if isinstance(value, Mapping):
        return all(map(_stands_alone, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(_stands_alone, value))
    if not isinstance(value, str) or not value:
        return True
    is_path = "\0" not in value and len(value) < LONGEST and Path(value).expanduser().exists()
    return not is_path and not any(name in value for name in generators)


LONGEST = 255  # bytes of a file's name


def _hashes(entry: Entry, arguments: Mapping[str, Any]) -> dict[str, Any] | None:
    """The hash of the factory's own file, and of files and folders that arguments name; None where they do not tell.

    A factory that is registered with `files`, a function of its arguments, says itself what it is made of.
    """
    if "files" in entry.meta:
        said = entry.meta["files"](**arguments)
        return None if said is None else dict(said)
    found: dict[str, Any] = {"": sha256_file(Path(inspect.getfile(inspect.unwrap(entry.thing))))}
    for name, value in arguments.items():
        path = Path(value).expanduser() if isinstance(value, str) and len(value) < 4096 and "\0" not in value else None
        if path is not None and path.is_file():
            found[name] = remembered_digest(path)
        elif path is not None and value and path.is_dir():
            found[name] = sha256_folder(path)
    return found
