"""How many rows go side by side: what memory allows, what running out of it teaches, and the shapes that are used."""

from __future__ import annotations

import math

import pytest
import torch
from models import tiny_llama

from alignbench.generators import budget as budget_module
from alignbench.generators.budget import Budget, bucket, free_memory, ran_out
from alignbench.generators.hf import causal as transformer
from alignbench.generators.hf.factory import hf
from alignbench.generators.hf.slots import Slots, Trial
from alignbench.generators.sampling import Stepwise

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("limit", "each", "most", "rows"),
    [
        (1000, 10, 64, 64),  # the batch size bounds it
        (1000, 10, 256, 100),  # memory bounds it
        (1009, 10, 256, 100),
        (5, 10, 64, 1),  # one row is always tried
        (0, 10, 64, 1),
        (1000, 0, 64, 64),  # nothing is known of a row
    ],
)
def test_rows_are_what_memory_holds_and_the_batch_size_allows(limit, each, most, rows):
    assert Budget(limit).rows(each, most, CPU) == rows


def test_halving_halves_again_and_again_down_to_one_row():
    budget, found = Budget(1e6), []
    while (rows := budget.rows(1000, 100, CPU)) > 1:
        found.append(rows)
        budget.halve(rows, 1000)
    assert found == [100, 50, 25, 12, 6, 3]
    assert budget.rows(1000, 100, CPU) == 1


def test_a_lesson_is_in_bytes_so_that_shorter_rows_may_be_more():
    budget = Budget(math.inf)
    budget.halve(8, 1000)
    assert [budget.rows(each, 64, CPU) for each in (1000, 500, 2000, 10_000)] == [4, 8, 2, 1]


def test_free_memory_is_read_once_and_a_share_of_it_taken(monkeypatch):
    """What our own batches take must not make the next one smaller."""
    asked = []
    monkeypatch.setattr(budget_module, "free_memory", lambda device: asked.append(device) or 1000)
    budget = Budget()
    assert [budget.rows(10, 64, CPU) for _ in range(3)] == [50, 50, 50]
    assert asked == [CPU]
    assert Budget().rows(10, 100, torch.device("cuda")) == 80
    assert Budget().rows(10, 100, torch.device("mps")) == 50, "a device that is not in the table"
    assert free_memory(CPU) > 0


@pytest.mark.parametrize(
    ("error", "memory"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"), False),
        (RuntimeError(), False),
        (ValueError("out of memory"), False),
        (OSError("Cannot allocate memory"), False),
        (KeyboardInterrupt(), False),
    ],
)
def test_which_errors_say_that_memory_ran_out(error, memory):
    assert ran_out(error) is memory


def test_buckets_are_the_listed_shapes():
    shapes = [1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024]
    for rows in range(1, 1025):
        assert bucket(rows) == next(shape for shape in shapes if shape >= rows)


# --- what a model makes of it


@pytest.fixture
def model(tmp_path):
    return hf(pretrained=str(tiny_llama(tmp_path / "llama", 8)), batch_size=256).model


@pytest.mark.parametrize(
    ("wanted", "slots"), [(1, 1), (255, 255), (256, 256), (257, 129), (300, 150), (513, 171), (1024, 256)]
)
def test_rows_are_cut_into_batches_of_equal_size(model, wanted, slots):
    assert model.decoder(wanted, 20).slots == slots


@pytest.mark.parametrize(("wanted", "slots"), [(1, 1), (9, 16), (255, 256), (257, 192), (300, 192), (1024, 256)])
def test_half_precision_takes_its_shapes_from_the_short_list(model, wanted, slots):
    model.network.to(torch.bfloat16)
    decoder = model.decoder(wanted, 20)
    assert decoder.slots == slots
    assert [decoder.shape(rows) for rows in (1, 3, 33)] == [min(slots, rows) for rows in (1, 4, 48)]


def test_full_precision_shrinks_to_any_number_of_rows(model):
    assert [model.decoder(100, 20).shape(rows) for rows in (1, 3, 33)] == [1, 3, 33]


def test_wider_rows_take_more_memory_and_go_in_smaller_batches(model):
    """2 layers × keys and values × 1 head of 8 × 4 bytes a position, its prompt's again; 4 copies of 8 logits."""
    assert model.trial.position_bytes == 2 * 2 * 8 * 4
    model.budget.limit = 100 * (2 * 20 * 128 + 16 * 8)
    assert model.decoder(100, 20).slots == 100
    assert model.decoder(100, 40).slots == 50  # 51 fit, in two batches of 50
    model.too_many(50, 40)
    assert model.decoder(100, 40).slots == 25


@pytest.mark.parametrize("trial", [Trial(False), Trial(True, window=19, position_bytes=128)])
def test_a_network_run_as_transformers_runs_it_keeps_to_the_budget_too(model, trial):
    model.trial = trial
    decoder = model.decoder(300, 20)
    assert isinstance(decoder, Stepwise)
    assert decoder.slots == 256
    model.too_many(256, 20)
    assert model.decoder(300, 20).slots == 128


def test_laws_over_one_model_share_a_lesson(model):
    from alignbench.generators.law import Law

    one, other = Law(model), Law(model).warped(temperature=0.5)
    one.model.too_many(10, 20)
    assert other.model.decoder(10, 20).slots == 5
    assert isinstance(other.model.decoder(10, 20), Slots)


def test_scoring_takes_fewer_draws_after_long_prompts(model):
    model.budget.limit = 100 * (2 * 20 * 128 + 16 * 8)
    assert model.together(10, 10) == 100
    assert model.together(30, 10) == 50
    assert model.together(0, 2) > 800


def test_scoring_beyond_the_window_takes_what_whole_logits_allow(model, monkeypatch):
    monkeypatch.setattr(transformer, "CHUNK_BYTES", 16 * 10 * 8 * 3)
    model.trial = Trial(True, window=19, position_bytes=128)
    assert model.together(9, 10) > 3
    assert model.together(10, 10) == 3
