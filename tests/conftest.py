"""One thread, no network and a cache of its own for every test; tiny models that are made once a session."""

from __future__ import annotations

import os
from typing import NamedTuple

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is loaded: two processes on two cores are else 4 times slower
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import pytest_socket
from models import tiny_gpt2 as save_gpt2
from models import tiny_llama as save_llama


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """One thread, and nothing said of what bfloat16 would gain on this CPU."""
    import gc

    import torch

    from alignbench.generators.hf import precision

    gc.freeze()  # half a million objects of libraries, which every full collection would walk
    gc.set_threshold(50_000, 20, 50)

    torch.set_num_threads(1)
    precision.multiplies_bfloat16 = lambda: False


@pytest.fixture(scope="session", autouse=True)
def shipped_blocks():
    """How many jackknife replicates users have; tests have the fewest there may be, each another run of all metrics."""
    from alignbench.metrics import replicates

    shipped, replicates.BLOCKS = replicates.BLOCKS, replicates.FEWEST
    return shipped


@pytest.fixture(scope="session", autouse=True)
def _fewer_frequencies():
    """A third of the draws that users have for frequencies, which every test of a law compares."""
    from alignbench.testing import laws

    laws.MANY = 600


@pytest.fixture(scope="module")
def uniforms_once():
    """A draw's uniforms are made once for all tests of a file: they are a function of its row."""
    from functools import lru_cache

    from alignbench.seeds import Seed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Seed, "uniforms", lru_cache(2**17)(Seed.uniforms))
        yield


@pytest.fixture
def as_shipped(monkeypatch, shipped_blocks):
    """As many replicates as users have."""
    monkeypatch.setattr("alignbench.metrics.replicates.BLOCKS", shipped_blocks)


@pytest.fixture(autouse=True)
def _alone(request, monkeypatch, tmp_path_factory):
    """No sockets and an empty cache, except where a test is marked slow."""
    if request.node.get_closest_marker("slow"):
        yield
        return
    monkeypatch.setenv("ALIGNBENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    pytest_socket.disable_socket(allow_unix_socket=True)
    yield
    pytest_socket.enable_socket()


@pytest.fixture(scope="session")
def tiny_gpt2(tmp_path_factory):
    """A folder with a random GPT-2 over 32 tokens."""
    return save_gpt2(tmp_path_factory.mktemp("models") / "tiny-gpt2")


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory):
    """A folder with a random Llama over 32 tokens."""
    return save_llama(tmp_path_factory.mktemp("models") / "tiny-llama")


@pytest.fixture
def registries(monkeypatch):
    """What a test registers is gone after it."""
    import sys

    from alignbench.registry import KINDS, load_plugins

    load_plugins()
    for registry in KINDS.values():
        monkeypatch.setattr(registry, "entries", dict(registry.entries))
    before = set(sys.modules)
    yield KINDS
    for name in set(sys.modules) - before:
        if name.startswith("alignbench_plugin_"):
            del sys.modules[name]


class Said(NamedTuple):
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str


@pytest.fixture
def command(monkeypatch, capsys, registries, tmp_path):
    """Run the command line in this process, in an empty folder, as the script does: exit code, output, errors."""
    from alignbench.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")

    def run(*words: object) -> Said:
        monkeypatch.setattr("sys.argv", ["alignbench", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        return Said(int(ended.value.code or 0), *capsys.readouterr())

    return run


@pytest.fixture
def evaluate_here(monkeypatch, tmp_path):
    """The library `evaluate` without a network, with its caches in the test's folder; loaded scripts are forgotten."""
    import sys

    import evaluate

    monkeypatch.setattr(evaluate.config, "HF_EVALUATE_OFFLINE", True)
    monkeypatch.setattr(evaluate.config, "HF_MODULES_CACHE", tmp_path / "modules")
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", tmp_path / "metrics")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "modules"), *sys.path])  # before what a user's own cache holds

    def forget():
        for name in [n for n in sys.modules if n.partition(".")[0] == "evaluate_modules"]:
            del sys.modules[name]

    forget()
    yield evaluate
    forget()
