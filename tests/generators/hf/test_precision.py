"""The dtype when nobody says: what the hardware is measured to like, decided once."""

from __future__ import annotations

import logging

import pytest
import torch

from alignbench.generators.hf import precision
from alignbench.generators.hf.factory import hf


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """The real decision, over a speed-up that the test sets; the list counts measurements."""
    import importlib

    fresh = importlib.reload(precision)
    monkeypatch.setenv("ALIGNBENCH_CACHE", str(tmp_path / "cache"))
    taken = []

    def set_to(value):
        fresh.cpu_likes_bfloat16.cache_clear()
        monkeypatch.setattr(fresh, "_speedup", lambda: taken.append(value) or value)
        return fresh

    yield set_to, taken
    importlib.reload(precision)
    precision.cpu_likes_bfloat16 = lambda: False


@pytest.mark.parametrize(("speedup", "dtype"), [(0.25, torch.float32), (1.4, torch.float32), (3.1, torch.bfloat16)])
def test_a_cpu_gets_what_it_is_faster_in(measured, speedup, dtype):
    set_to, _ = measured
    assert set_to(speedup).best_dtype(torch.device("cpu")) == dtype


def test_the_decision_is_made_once_and_remembered(measured):
    """A busy machine must not change a base's identity from one run to the next."""
    set_to, taken = measured
    assert set_to(3.0).cpu_likes_bfloat16()
    assert set_to(0.5).cpu_likes_bfloat16(), "found in the cache folder, not measured again"
    assert taken == [3.0]


def test_a_cache_that_cannot_be_written_is_no_failure(measured, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ALIGNBENCH_CACHE", str(tmp_path / "file" / "below"))
    assert measured[0](2.0).cpu_likes_bfloat16()


def test_a_spoiled_memory_is_measured_anew(measured, tmp_path):
    set_to, taken = measured
    set_to(2.0).cpu_likes_bfloat16()
    [kept] = (tmp_path / "cache").glob("bfloat16_speedup_*.txt")
    kept.write_text("fast")
    assert not set_to(1.0).cpu_likes_bfloat16()
    assert taken == [2.0, 1.0]


def test_the_measurement_is_a_ratio_of_seconds():
    assert 0.01 < precision._speedup(rows=8, size=64) < 100


def test_gpus_and_others(monkeypatch):
    assert precision.best_dtype(torch.device("mps")) == torch.float32
    for has, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, has=has: has)
        assert precision.best_dtype(torch.device("cuda")) == dtype


def test_a_model_takes_it_and_says_so(tiny_llama, monkeypatch, caplog):
    monkeypatch.setattr(precision, "cpu_likes_bfloat16", lambda: True)
    with caplog.at_level(logging.INFO, "alignbench"):
        law = hf(pretrained=str(tiny_llama), device="cpu")
    assert law.model.network.dtype == torch.bfloat16 and law.identity()["model"]["dtype"] == "bfloat16"
    assert "dtype=auto: bfloat16, which is faster here" in caplog.text
    assert hf(pretrained=str(tiny_llama), device="cpu", dtype="float32").model.network.dtype == torch.float32
