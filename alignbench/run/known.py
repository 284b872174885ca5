"""What an output folder remembers of generators that nothing but making them tells: name, identity and tokenizer."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from alignbench.aligners.base import Aligner, Immediate, Setting
from alignbench.aligners.identities import plain_parameters
from alignbench.errors import AlignbenchError
from alignbench.files import digest, write_atomic
from alignbench.generators.later import Later, Recalled, RecalledScorer, asked_of
from alignbench.registry import Entry
from alignbench.run.provenance import code, versions
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
                kind = RecalledScorer if content["scores"] else Recalled
                return kind(content["name"], content["identity"], content["tokens"])
        return None

    def remember(self, spec: Spec, entry: Entry, handed: Mapping[str, Any], generator: Sampler) -> Recalled | None:
        """Keep what a generator says of itself, if it says what it is."""
        path, found = self._path(spec, entry, handed), Recalled.of(generator, spec.label, generator)
        if path is None or found.said is None:
            return None
        content = {"name": found.name, "identity": found.said, "tokens": found.tokens}
        write_atomic(path, json.dumps({**content, "scores": isinstance(found, RecalledScorer)}))
        return found

    def identity_of(self, aligner: Aligner, setting: Setting) -> Mapping[str, Any] | None:
        """What an aligner's generator depends on, see `Setting.identity_of`; remembered where asking takes a while."""
        path = self._path_of(aligner, setting)
        with suppress(OSError, ValueError, KeyError, TypeError):
            if path is not None:
                return dict(json.loads(path.read_text(encoding="utf-8"))["identity"])
        said = setting.identity_of(aligner)
        self.remember_identity(aligner, setting, said)
        return said

    def remember_identity(self, aligner: Aligner, setting: Setting, said: Mapping[str, Any] | None) -> None:
        """Keep what an aligner's generator depends on."""
        path = self._path_of(aligner, setting)
        if path is not None and said is not None:
            write_atomic(path, json.dumps({"identity": said}))

    def _path_of(self, aligner: Aligner, setting: Setting) -> Path | None:
        """The file of an aligner in a setting.

        None for one of a plug-in, whose code may change, for one that names files or other aligners, for whatever they
        say now, and where asking takes no time.
        """
        if self.folder is None or not isinstance(setting.given, Later) or not _stands_alone(aligner):
            return None
        asked = setting.recipe(aligner, plain_parameters(aligner))
        key = {"asked": asked, "made_by": code(), "libraries": dict(versions())}
        return None if asked is None else self.folder / f"aligner_{digest(key)}.json"

    def _path(self, spec: Spec, entry: Entry, handed: Mapping[str, Any]) -> Path | None:
        """The file of a spec; None where its arguments are no plain data, or there is nowhere to keep it."""
        if self.folder is None or (entry.meta.keys() & {"outline", "identity"} and "files" not in entry.meta):
            return None  # its factory tells
        usual = {name: p.default for name, p in entry.parameters.items() if p.default is not p.empty}
        arguments = {**usual, **{k: v for k, v in handed.items() if k in entry.parameters}, **spec.arguments}
        try:
            files = _hashes(entry, arguments)
            key = {"name": spec.name, "arguments": arguments, "files": files, "made_by": code(),
                   "libraries": dict(versions())}  # fmt: skip
            return None if files is None else self.folder / f"generator_{digest(key)}.json"
        except (TypeError, ValueError, OSError, AlignbenchError):  # what is wrong is told when it is made
            return None


def _stands_alone(aligner: Aligner) -> bool:
    """Whether a built-in aligner has no hyper-parameters but numbers and defaults."""
    if not isinstance(aligner, Immediate) or not type(aligner).__module__.startswith("alignbench."):
        return False
    given = [(getattr(aligner, f.name), f.default) for f in fields(aligner)] if is_dataclass(aligner) else [("", None)]
    return all(value is None or isinstance(value, (int, float)) or value == usual for value, usual in given)


def _hashes(entry: Entry, arguments: Mapping[str, Any]) -> dict[str, Any] | None:
    """The hash of the factory's own file, and of files and folders that arguments name; None where they do not tell.

    A factory that is registered with `files`, a function of its arguments, says itself what it is made of.
    """
    if "files" in entry.meta:
        said = asked_of(entry, "files", arguments)
        return None if said is None else dict(said)
    files = {"": sha256_file(Path(inspect.getfile(inspect.unwrap(entry.thing))))}
    for path in set(_paths(list(arguments.values()))):
        files[str(path)] = remembered_digest(path) if path.is_file() else sha256_folder(path)
    return files


def _paths(value: object) -> Iterator[Path]:
    """The files and folders that texts in a value name."""
    if isinstance(value, Mapping):
        yield from _paths(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _paths(item)
    elif isinstance(value, str) and value and "\0" not in value:
        with suppress(OSError):  # a text that is too long for a name
            if (path := Path(value).expanduser()).exists():
                yield path
