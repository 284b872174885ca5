"""Draws and evidence on disk: append-only parts, found again by what they depend on, written in one step, no pickle."""

from __future__ import annotations

import gzip
import io
import json
import math
import os
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from alignbench import types
from alignbench.errors import RunError, StoreError, plain_failures
from alignbench.seeds import Seed
from alignbench.types import Array, Draws, Sampler

FORMAT = 1
VOCAB = "vocab-{}.json.gz"


def digest(data: Any) -> str:
    """16 hex digits that stand for plain data: the key of whatever depends on all of it and nothing else."""
    return sha256(json.dumps(data, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a file so that a reader sees all of it or none; raises StoreError."""
    data = content.encode() if isinstance(content, str) else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, scratch = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            Path(scratch).chmod(0o644)
            os.replace(scratch, path)  # noqa: PTH105 (atomic on every system)
        finally:
            Path(scratch).unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror or error}") from error


def check_writable(folder: Path) -> None:
    """Raise StoreError unless files can be made in `folder` (made if missing); called before anything is drawn."""
    if folder.exists() and not folder.is_dir():
        raise StoreError(f"{folder}: cannot be written: it is a file, not a folder")
    probe = folder / f".probe-{os.getpid()}"
    write_atomic(probe, "")
    probe.unlink()


@dataclass
class DrawStore:
    """The draws of an output folder. `folder` None keeps nothing: every request is drawn anew."""

    folder: Path | None

    def sample(
        self,
        generator: Sampler,
        identity: Mapping[str, Any] | None,
        request: DrawRequest,
        advance: Callable[[int], None],
    ) -> Stored:
        """The wanted rows, from disk where they are there, else drawn; each batch is on disk before the next begins.

        `advance` is told the number of draws that have become available.
        """
        folder = self._folder_of(identity, request)
        found = folder.read(request) if folder else _Found([], [])
        missing = found.missing(request.rows)
        advance(len(request.rows) - len(missing))
        parts, seconds = found.parts, found.seconds
        began = time.perf_counter()
        for batch in request.draw(generator, missing):
            took, began = time.perf_counter() - began, time.perf_counter()
            if folder:
                folder.write(request.prompts, batch, took)
            parts.append(batch)
            seconds.append(took)
            advance(len(batch))
        return Stored(Draws.concat(parts).sorted(), float(sum(seconds)), len(missing))

    def keep_vocab(self, fingerprint: str, tokens: Callable[[], Sequence[bytes]]) -> None:
        """Write which bytes each token of a vocabulary is, unless that is known; draws hold ids alone."""
        if self.folder is not None and not (path := self.folder / VOCAB.format(fingerprint)).exists():
            names = [token.decode("utf-8", "surrogateescape") for token in tokens()]
            write_atomic(path, gzip.compress(json.dumps(names).encode(), mtime=0))

    def _folder_of(self, identity: Mapping[str, Any] | None, request: DrawRequest) -> _DrawFolder | None:
        if self.folder is None or identity is None:
            return None
        key = {
            "identity": identity,
            "max_tokens": request.max_tokens,
            "seed": request.seed.entropy,
            "stream": request.seed.stream,
            "format": FORMAT,
        }
        return _DrawFolder(self.folder / digest(key), key)


@dataclass(frozen=True)
class DrawRequest:
    """The draws that are wanted: `rows` (R, 2) = (prompt, index) of these prompts, on this seed."""

    prompts: Sequence[str]
    rows: Array
    max_tokens: int
    seed: Seed

    def draw(self, generator: Sampler, rows: Array) -> Iterator[Draws]:
        """Fresh draws of `rows`, batch by batch; raises RunError where the generator fails or gives other rows."""
        if not len(rows):
            return
        left = set(map(tuple, rows.tolist()))
        with plain_failures("the generator", RunError):
            for batch in generator.sample(self.prompts, rows, max_tokens=self.max_tokens, seed=self.seed):
                _check_batch(batch, left)
                yield batch
        if left:
            raise RunError(f"the generator gave {len(rows) - len(left)} of the {len(rows)} draws asked of it")


def _check_batch(batch: Any, left: set[tuple[int, ...]]) -> None:
    """Take a batch's rows out of those that are `left`; raise RunError where it is no batch of them."""
    if not isinstance(batch, Draws):
        raise RunError(f"the generator gave a {type(batch).__name__}, not Draws")
    arrays = {f.name: value for f in fields(batch) if isinstance(value := getattr(batch, f.name), np.ndarray)}
    for name, value in arrays.items():
        if len(value) != len(batch):
            raise RunError(f"the generator gave {len(batch)} texts and {len(value)} of {name}")
    for row in zip(batch.prompt.tolist(), batch.index.tolist(), strict=True):
        if row not in left:
            raise RunError(f"the generator gave draw {row[1]} of prompt {row[0]}, which was not asked or given before")
        left.remove(row)


@dataclass(frozen=True)
class Stored:
    """What a request for draws brought: the draws, the seconds they took whenever they were drawn, how many are new."""

    draws: Draws
    seconds: float
    fresh: int


@dataclass
class _Found:
    parts: list[Draws]
    seconds: list[float]

    def missing(self, rows: Array) -> Array:
        have = {(int(c), int(i)) for p in self.parts for c, i in zip(p.prompt, p.index, strict=True)}
        return np.array([r for r in rows.tolist() if tuple(r) not in have], dtype=int).reshape(-1, 2)


@dataclass(frozen=True)
class _DrawFolder:
    """All draws of one key: a folder of parts, each a batch with the prompts it belongs to."""

    folder: Path
    key: Mapping[str, Any]

    def write(self, prompts: Sequence[str], batch: Draws, seconds: float) -> None:
        if not (self.folder / "key.json").exists():
            write_atomic(self.folder / "key.json", json.dumps(self.key, indent=1, sort_keys=True, ensure_ascii=False))
        used, local = np.unique(batch.prompt, return_inverse=True)
        record = {"prompts": [prompts[i] for i in used], "seconds": seconds, "draws": replace(batch, prompt=local)}
        name = digest([[prompts[c], int(i)] for c, i in zip(batch.prompt, batch.index, strict=True)])
        write_atomic(self.folder / f"part-{name}.npz", pack(record))

    def read(self, request: DrawRequest) -> _Found:
        """The stored draws among `rows`, each once, with their share of the seconds that their part took."""
        place = {text: i for i, text in enumerate(request.prompts)}
        left = {(int(c), int(i)) for c, i in request.rows}
        found = _Found([], [])
        for path in sorted(self.folder.glob("part-*.npz")):
            record = unpack(path)
            draws: Draws = record["draws"]
            here = np.array([place.get(p, -1) for p in record["prompts"]])[draws.prompt]
            ids = list(zip(here.tolist(), draws.index.tolist(), strict=True))
            take = [k for k, row in enumerate(ids) if row in left]
            left.difference_update(ids)
            if take:
                found.parts.append(replace(draws.take(np.array(take)), prompt=here[take]))
                found.seconds.append(record["seconds"] * len(take) / len(draws))
        return found


def read_vocab(folder: Path, fingerprint: str) -> tuple[bytes, ...] | None:
    """The bytes of each token that `DrawStore.keep_vocab` wrote into `folder`; None where it did not.

    Raises StoreError where the file is damaged.
    """
    path = folder / VOCAB.format(fingerprint)
    if not path.exists():
        return None
    try:
        names = json.loads(gzip.decompress(path.read_bytes()))
        return tuple(name.encode("utf-8", "surrogateescape") for name in names)
    except (OSError, EOFError, ValueError, AttributeError, zlib.error) as error:
        told = " ".join(str(error).split())
        raise StoreError(
            f"{path}: is not readable ({told}); delete it, and the `alignbench run` that wrote it makes it anew"
        ) from error


def pack(record: Any) -> bytes:
    """A record of plain data, arrays and the dataclasses of `alignbench.types` as the bytes of an .npz file."""
    arrays: dict[str, Array] = {}
    tree = json.dumps(_flatten(record, arrays), ensure_ascii=False)
    arrays["tree"] = np.frombuffer(tree.encode("utf-8", "surrogatepass"), dtype=np.uint8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def unpack(path: Path) -> Any:
    """The record in a file that `pack` made; raises StoreError where it cannot be read."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        tree = json.loads(arrays.pop("tree").tobytes().decode("utf-8", "surrogatepass"))
        return _rebuild(tree, arrays)
    except Exception as error:  # a flipped bit can surface as any of a dozen kinds (zlib, struct, zipfile, …)
        told = " ".join(str(error).split()) or type(error).__name__
        raise StoreError(
            f"{path}: is not readable ({told}); delete it, and the `alignbench run` that wrote it makes it anew"
        ) from error


def _flatten(value: Any, arrays: dict[str, Array]) -> Any:
    if isinstance(value, np.ndarray):
        arrays[f"a{len(arrays)}"] = value
        return {"array": f"a{len(arrays) - 1}"}
    if is_dataclass(value) and not isinstance(value, type):
        held = {f.name: _flatten(getattr(value, f.name), arrays) for f in fields(value)}
        return {"type": type(value).__name__, "fields": held}
    if isinstance(value, Mapping):
        return {"dict": {str(k): _flatten(v, arrays) for k, v in value.items()}}
    if isinstance(value, (list, tuple)):
        return [_flatten(v, arrays) for v in value]
    return value.item() if isinstance(value, np.generic) else value


KNOWN = {t.__name__: t for t in (types.Draws, types.Estimate, types.Selection, types.Wanted, types.Fit, types.Cost,
                                 types.Scored, types.Evidence)}  # fmt: skip


def _rebuild(value: Any, arrays: Mapping[str, Array]) -> Any:
    if isinstance(value, list):
        return tuple(_rebuild(v, arrays) for v in value)
    if not isinstance(value, dict):
        return value
    if "array" in value:
        return arrays[value["array"]]
    if "type" in value:
        return KNOWN[value["type"]](**{k: _rebuild(v, arrays) for k, v in value["fields"].items()})
    return {k: _rebuild(v, arrays) for k, v in value["dict"].items()}


def evidence_files(folder: Path) -> Iterator[Path]:
    """The evidence files below an output folder."""
    yield from sorted(folder.glob("*/evidence_*.npz"))


def dump(content: Any) -> str:
    """Strict JSON: infinities as "inf" and "-inf", missing numbers as null."""
    return json.dumps(jsonable(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def jsonable(value: Any) -> Any:
    """`value` with only what strict JSON knows."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None if math.isnan(value) else str(value)
    if isinstance(value, Mapping):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(v) for v in value]
    if isinstance(value, (str, int, bool)) or value is None:
        return value
    if hasattr(value, "tolist"):
        return jsonable(value.tolist())
    return str(value)
