"""The dtype when nobody says: float32 on every CPU, so that one checkpoint is one base on every machine."""

from __future__ import annotations

import logging

import pytest
import torch

from alignbench.generators.hf import precision
from alignbench.generators.hf.factory import hf


@pytest.fixture(autouse=True)
def _said_nothing():
    precision._say.cache_clear()


@pytest.mark.parametrize("has", [True, False])
def test_every_cpu_gets_float32_and_is_told_what_it_could_have(monkeypatch, caplog, tiny_llama, has):
    """Planted bug: bfloat16 where the CPU is measured faster in it made two bases of one checkpoint."""
    monkeypatch.setattr(precision, "multiplies_bfloat16", lambda: has)
    with caplog.at_level(logging.INFO, "alignbench"):
        laws = [hf(pretrained=str(tiny_llama), device="cpu") for _ in range(3)]
    assert {law.identity()["model"]["dtype"] for law in laws} == {"float32"}
    assert caplog.text.count("which this CPU multiplies in hardware") == has, "once, where there is something to gain"


def test_the_choice_does_not_look_at_a_clock(monkeypatch):
    monkeypatch.setattr("time.perf_counter", lambda: pytest.fail("a stopwatch"))
    assert precision.default_dtype(torch.device("cpu")) == torch.float32


def test_gpus_and_others(monkeypatch):
    assert precision.default_dtype(torch.device("mps")) == torch.float32
    for has, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, has=has: has)
        assert precision.default_dtype(torch.device("cuda")) == dtype


def test_a_cpu_of_which_torch_knows_nothing_has_nothing_to_gain(monkeypatch):
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert not precision.multiplies_bfloat16()


def test_who_asks_for_a_dtype_gets_it(tiny_llama):
    assert hf(pretrained=str(tiny_llama), device="cpu", dtype="bfloat16").model.network.dtype == torch.bfloat16
