"""The most memory that was in use: of the GPU where there is one, else of this process."""

import numpy as np
import torch

from alignbench.generators.memory import peak_memory, reset_peak


def test_a_process_s_peak_covers_what_it_holds_and_never_falls():
    """Planted bug: KiB read as bytes, a thousandth of what is held."""
    held = np.ones(8_000_000)  # 64 MB, written
    peak = peak_memory("cpu")
    assert held.nbytes < peak < 10**12
    del held
    reset_peak()
    assert peak_memory("cpu") >= peak


def test_a_gpu_s_peak_is_asked_of_the_gpu(monkeypatch):
    """And only of one that this process used: asking would else begin to use it."""
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: {None: 70, "cuda:1": 71}[device])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    assert (peak_memory(), peak_memory("cuda:1")) == (70, 71) and peak_memory("cpu") > 10**7
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    assert peak_memory("cuda:1") is None and peak_memory() > 10**7
    assert peak_memory(torch.device("cpu")) > 10**7 < peak_memory("a plug-in's own")
