"""Copies of a model on several devices: here two copies on one CPU, which is all that their logic needs."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from alignbench.errors import UsageError
from alignbench.generators import replicas
from alignbench.generators.hf.factory import hf
from alignbench.generators.law import compare
from alignbench.generators.replicas import at_once, merged, replicated, shares
from alignbench.seeds import Seed
from alignbench.testing import check
from alignbench.types import collect, rows_of

PROMPTS = ("rain", "the nurse said that", "she said")
ROWS = rows_of(3, 11)


@pytest.fixture
def laws(tiny_llama):
    """One model, and the same with two copies beside it."""
    alone, three = (hf(pretrained=str(tiny_llama), batch_size=4) for _ in range(2))
    replicated(three.model, [torch.device("cpu")] * 2)
    return alone, three


def drawn(law, rows=ROWS):
    return collect(law.sample(PROMPTS, rows, max_tokens=6, seed=Seed(1)))


def test_copies_share_the_work_and_change_no_draw(laws, monkeypatch):
    alone, three = laws
    threads = set()
    right = type(alone.model).decoder

    def watched(self, rows, width):
        threads.add((threading.get_ident(), id(self.network)))
        return right(self, rows, width)

    monkeypatch.setattr(type(alone.model), "decoder", watched)
    one, shared = drawn(alone), drawn(three)
    assert len({network for _, network in threads}) == 4 and len({thread for thread, _ in threads}) == 4
    np.testing.assert_array_equal(one.tokens, shared.tokens)
    np.testing.assert_allclose(one.log_prob, shared.log_prob, atol=1e-5)
    np.testing.assert_allclose(alone.log_prob(PROMPTS, one), three.log_prob(PROMPTS, one), atol=1e-5)
    warped = three.warped(top_k=3)
    again = compare(alone.warped(top_k=3), alone, PROMPTS, one)
    np.testing.assert_allclose(again, compare(warped, three, PROMPTS, one), atol=1e-5)


def test_every_law_holds_over_copies(laws):
    assert check(laws[1], PROMPTS[:2], max_tokens=2)


def test_fewer_draws_than_copies(laws):
    alone, three = laws
    np.testing.assert_array_equal(drawn(alone, ROWS[:1]).tokens, drawn(three, ROWS[:1]).tokens)
    assert three.log_prob(PROMPTS, drawn(alone).take(np.arange(0))).shape == (0,)


def test_copies_are_of_one_identity(laws):
    assert laws[0].identity() == laws[1].identity()


def test_a_failure_in_a_thread_is_raised_by_the_caller(laws, monkeypatch):
    second = laws[1].model.replicas[0].network
    right = replicas.replicas_of

    def broken(*args, **kwargs):
        raise ValueError("this copy is broken")

    monkeypatch.setattr(second, "forward", broken)
    monkeypatch.setattr(second.base_model, "forward", broken)
    assert len(right(laws[1].model)) == 3
    with pytest.raises(ValueError, match="this copy is broken"):
        drawn(laws[1])


def test_shares_are_dealt_out_whole():
    hands = shares(10, 3)
    assert sorted(np.concatenate(hands).tolist()) == list(range(10))
    assert [len(h) for h in hands] == [4, 3, 3]
    assert [h.tolist() for h in shares(1, 3)] == [[0]] and shares(0, 3) == []


def test_merged_stops_its_threads_when_the_caller_does():
    before = threading.active_count()
    endless = [iter(int, 1), iter(int, 1)]
    stream = merged(endless)
    assert next(stream) == 0
    stream.close()
    assert threading.active_count() == before


def test_at_once_keeps_the_order():
    assert at_once([lambda k=k: k for k in range(5)]) == list(range(5))
    assert at_once([]) == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (0, "data_parallel_size=0: must be a whole number >= 1"),
        (True, "data_parallel_size=True: must be"),
        (2, "data_parallel_size=2: needs 2 GPUs from device 'cpu' on; there are 0"),
    ],
)
def test_refused_sizes(tiny_llama, given, message):
    with pytest.raises(UsageError) as caught:
        hf(pretrained=str(tiny_llama), device="cpu", data_parallel_size=given)
    assert str(caught.value).startswith(message)
