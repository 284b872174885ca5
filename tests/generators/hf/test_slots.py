"""CUDA graphs without CUDA: stand-ins that, as the real ones do, know only the tensors that they were captured with."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from models import tiny_gpt2, tiny_llama

from alignbench.generators import sampling
from alignbench.generators.budget import Budget
from alignbench.generators.hf import slots
from alignbench.generators.hf.factory import hf
from alignbench.generators.law import Law
from alignbench.seeds import Seed
from alignbench.types import collect, rows_of

WORDS = ("rain", "sun", "wind", "snow", "she", "he")
PROMPTS = ("rain", "sun wind rain snow she", "wind sun " * 10)


class Device:
    """What of a GPU the graphs use: `_write` is wrapped, so that a capture knows what it would have launched."""

    def __init__(self, monkeypatch, fails=None, times=10**6):
        self.under_capture = None
        self.captures, self.replays, self.widths = 0, 0, []
        self.fails, self.times = fails, times  # the error of the first `times` captures
        for name, stand_in in {
            "CUDAGraph": lambda: Graph(self), "Stream": lambda device: self, "stream": self.nothing,
            "current_stream": lambda device: self, "graph_pool_handle": lambda: "pool", "graph": self.capture,
            "device": self.nothing,
        }.items():  # fmt: skip
            monkeypatch.setattr(torch.cuda, name, stand_in)
        monkeypatch.setattr(slots, "CAPTURED", ("cpu",))
        right = slots.Graphs._write

        def write(graphs, width):
            self.widths.append(width)
            self.under_capture.launch = lambda: right(graphs, width)
            graphs.logits.fill_(torch.nan)  # a capture computes nothing

        monkeypatch.setattr(slots.Graphs, "_write", write)

    def wait_stream(self, other):
        pass

    @contextmanager
    def nothing(self, stream):
        yield

    @contextmanager
    def capture(self, graph, pool, stream, capture_error_mode):
        assert stream is self, "the stream of this device, not torch's own of the first"
        self.captures += 1
        if self.fails and self.captures <= self.times:
            raise self.fails
        self.under_capture = graph
        try:
            yield
        finally:
            self.under_capture = None


class Graph:
    def __init__(self, device):
        self.device = device

    @torch.inference_mode()
    def replay(self):
        self.device.replays += 1
        self.launch()


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def law(request, tmp_path_factory):
    save = {"gpt2": tiny_gpt2, "llama": tiny_llama}[request.param]
    made = hf(pretrained=str(save(tmp_path_factory.mktemp("slots") / "tiny", WORDS)), batch_size=8)
    assert made.model.trial.works
    return made


@pytest.fixture
def narrow(monkeypatch):
    """Widths of a multiple of 8: several graphs for rows of 30 tokens."""
    monkeypatch.setattr(slots, "STRIDE", 8)


def asked(law):
    law.model.forget()  # a decoder from before has no graphs, or those of another device
    return collect(law.sample(PROMPTS, rows_of(3, 20), max_tokens=9, seed=Seed(2)))


def same(one, other):
    return one.texts == other.texts and np.allclose(one.token_log_prob, other.token_log_prob, atol=1e-4)


def test_graphs_draw_what_steps_draw(law, narrow, monkeypatch):
    plain = asked(law)
    device = Device(monkeypatch)
    assert same(asked(law), plain)
    assert device.replays > 20
    assert 3 <= device.captures < device.replays / 4, "captured once for each width, then replayed"


def test_widths_are_rounded_up_and_end_with_the_slot(law, narrow, monkeypatch):
    device = Device(monkeypatch)
    asked(law)
    ends = {1 + 9, 5 + 9, 20 + 9}  # waves are of rows of like length; a slot is no wider than its rows
    assert all(width % 8 == 0 or width in ends for width in device.widths)
    assert {8, 24} <= set(device.widths)


def test_a_network_with_the_real_stride_has_one_graph_for_short_rows(law, monkeypatch):
    device = Device(monkeypatch)
    collect(law.sample(PROMPTS[:1], rows_of(1, 40), max_tokens=9, seed=Seed(2)))
    assert device.captures == 1
    assert device.widths == [10]


def test_the_batch_keeps_its_shape_while_graphs_are_made_for_it(law, monkeypatch):
    Device(monkeypatch)
    decoder = law.model.decoder(8, 20)
    assert [decoder.shape(rows) for rows in (1, 3, 8)] == [8, 8, 8]
    assert decoder.unwatched == 8
    monkeypatch.setattr(slots, "CAPTURED", ())
    assert law.model.decoder(8, 20).shape(3) == 3


def test_planted_inputs_that_are_not_copied(law, narrow, monkeypatch):
    """A graph reads where it was told to at its capture: the first step's ids and positions for ever."""
    plain = asked(law)
    Device(monkeypatch)
    right = slots.Graphs.__call__

    def uncopied(self, ids, at, width):
        if width in self.made and self.works:
            self.made[width].replay()
            return self.logits
        return right(self, ids, at, width)

    monkeypatch.setattr(slots.Graphs, "__call__", uncopied)
    assert not same(asked(law), plain)


@pytest.mark.parametrize("which", [0, 1], ids=["ids", "positions"])
def test_planted_one_input_that_is_not_copied(law, narrow, which, monkeypatch):
    plain = asked(law)
    Device(monkeypatch)
    right = slots.Graphs.__call__

    def half_copied(self, ids, at, width):
        if self.inputs is not None:
            given = [ids, at]
            given[which] = self.inputs[which]
            ids, at = given
        return right(self, ids, at, width)

    monkeypatch.setattr(slots.Graphs, "__call__", half_copied)
    assert not same(asked(law), plain)


def test_planted_width_not_rounded_to_cover_the_row(law, narrow, monkeypatch):
    plain = asked(law)
    Device(monkeypatch)
    right = slots.Graphs.__call__
    monkeypatch.setattr(slots.Graphs, "__call__", lambda self, ids, at, width: right(self, ids, at, max(1, width - 8)))
    assert not same(asked(law), plain)


def test_logits_are_overwritten_by_the_next_step(law, monkeypatch):
    """What `Decoder.step` promises, "until the next step", is all that graphs keep: one tensor for each width."""
    Device(monkeypatch)
    law.model.forget()
    decoder = law.model.decoder(2, 20)
    both = torch.arange(2)
    with torch.inference_mode():
        decoder.prefill(PROMPTS[:2])
        decoder.fill(both, both)
        first = decoder.step(torch.tensor([1, 2]))
        kept = first[:].clone()
        second = decoder.step(torch.tensor([3, 4]))
    assert first[:].data_ptr() == second[:].data_ptr()
    assert not torch.allclose(first[:], kept)


def test_planted_draw_after_the_next_step(law, monkeypatch):
    """So a loop that steps on before it draws is wrong with graphs, though right without."""
    plain = asked(law)
    right, late = sampling._Batch._draw, slots.Slots.step
    Device(monkeypatch)
    assert same(asked(law), plain)

    def ahead(self, logits, places):
        if places is self.every:
            late(self.decoder, torch.zeros_like(self.last))
            self.decoder.at, self.decoder.reach = self.decoder.at - 1, self.decoder.reach - 1
        right(self, logits, places)

    monkeypatch.setattr(sampling._Batch, "_draw", ahead)
    assert not same(asked(law), plain)


@pytest.mark.parametrize("error", [RuntimeError("operation not permitted\nwhen capturing"), AssertionError()])
def test_a_step_that_cannot_be_captured_is_run_as_it_is_and_said_once(law, error, monkeypatch, caplog):
    plain = asked(law)
    device = Device(monkeypatch, fails=error)
    rows = rows_of(1, 40)
    with caplog.at_level(logging.WARNING):
        found = collect(law.sample(PROMPTS[:1], rows, max_tokens=9, seed=Seed(2)))
    assert found.texts[:20] == plain.texts[:20]
    assert device.captures == 1
    assert device.replays == 0
    [said] = caplog.messages
    assert said.endswith("): decoding runs kernel by kernel")
    assert "\n" not in said


def test_memory_that_runs_out_in_a_capture_is_no_failed_capture(law, monkeypatch, caplog):
    """It halves the batch, as everywhere, and the next batch has graphs again."""
    caplog.set_level("WARNING", logger="alignbench")  # a command that ran before it in this process shows INFO
    plain = asked(law)
    device = Device(monkeypatch, fails=torch.OutOfMemoryError("CUDA out of memory"), times=1)
    mine = Law(replace(law.model, budget=Budget()))
    assert same(asked(mine), plain)
    assert device.captures > 1
    assert device.replays > 20
    assert mine.model.decoder(8, 10).slots == 4
    assert not caplog.messages
