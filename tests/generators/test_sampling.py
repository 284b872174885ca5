"""The sampling loop: whatever shares a batch, whenever memory runs out, each wanted row comes once and as it was."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from itertools import zip_longest

import numpy as np
import pytest
import torch
from models import tiny_gpt2, tiny_llama
from test_laws import SETTINGS

from alignbench.errors import RunError
from alignbench.generators import sampling
from alignbench.generators.budget import Budget
from alignbench.generators.exact.world import exact
from alignbench.generators.hf import slots
from alignbench.generators.hf.causal import HFModel
from alignbench.generators.hf.factory import hf
from alignbench.generators.law import Law
from alignbench.seeds import Seed
from alignbench.types import collect, rows_of

WORDS = ("rain", "sun", "wind", "snow", "she", "he")
PROMPTS = ("rain", "sun wind rain snow she he " * 6, "she he", "rain", "wind sun " * 10, "he")
"""1 to 36 tokens, so that rows go in waves; the first and the fourth are one text."""
STEPS = 6
EACH = 6
WORLDS = ("exact", "gpt2", "llama", "gpt2 plain", "llama plain")
BY_SLOTS = ("gpt2", "llama")
REAL = WORLDS[1:]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sampling")
    kinds = {"gpt2": tiny_gpt2(folder / "gpt2", WORDS), "llama": tiny_llama(folder / "llama", WORDS)}
    return {name: hf(pretrained=str(path)) for name, path in kinds.items()}


@pytest.fixture
def world(request, made):
    """A law of its own for each test: what it learns of memory is forgotten after it."""
    return fresh(made, request.param)


def fresh(made, name):
    if name == "exact":
        return exact(words=WORDS, order=3, seed=4, batch_size=16)
    kind, *plain = name.split()
    model = replace(made[kind].model, batch_size=16, budget=Budget())
    if plain:
        model.trial = slots.Trial(False)
    else:
        assert model.trial.works
    return Law(model)


def over(*names):
    return pytest.mark.parametrize("world", names, indirect=True)


def parts_of(law, rows=None, prompts=PROMPTS, max_tokens=STEPS):
    rows = rows_of(len(prompts), EACH) if rows is None else rows
    return law.sample(prompts, rows, max_tokens=max_tokens, seed=Seed(7))


def asked(law, *args, **more):
    return collect(parts_of(law, *args, **more))


def with_batch(law, rows):
    object.__setattr__(law.model, "batch_size", rows)
    return law


def same(one, other):
    """Draw for draw: rows, ids, texts exactly; log-probabilities within what batch shapes do."""
    for name in ("prompt", "index", "tokens", "length", "finished", "texts"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    for name in ("log_prob", "token_log_prob", "model_log_prob"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=1e-4, err_msg=name)


def keys(parts):
    return [(int(c), int(i)) for part in parts for c, i in zip(part.prompt, part.index, strict=True)]


# --- running out of memory

OOM = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
ON_CPU = RuntimeError("[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory")


class Memory:
    """Decoding steps of more than `fits` rows fail, from the `begin`-th step on, `times` times at most."""

    def __init__(self, monkeypatch, fits, *, error=OOM, begin=3, times=10**6):
        self.fits, self.error, self.begin, self.times = fits, error, begin, times
        self.steps: list[int] = []
        self.failed = 0
        for kind in (slots.Slots, sampling.Stepwise):
            monkeypatch.setattr(kind, "step", self.watched(kind.step))

    def watched(self, right):
        def step(decoder, ids):
            self.steps.append(len(ids))
            if len(ids) > self.fits and len(self.steps) >= self.begin and self.failed < self.times:
                self.failed += 1
                raise type(self.error)(*self.error.args)  # its own traceback, which holds what it passed
            return right(decoder, ids)

        return step


@over(*WORLDS)
@pytest.mark.parametrize(("fits", "times"), [(8, 1), (1, 10**6)], ids=["once", "down to one row"])
def test_running_out_of_memory_half_way_loses_nothing(world, fits, times, monkeypatch):
    undisturbed = asked(world)
    memory = Memory(monkeypatch, fits, times=times)
    parts = list(parts_of(world))
    assert memory.failed >= 1
    assert memory.failed == 1 or times > 1
    assert sorted(keys(parts)) == [tuple(row) for row in rows_of(len(PROMPTS), EACH).tolist()]
    same(collect(parts), undisturbed)


@over("exact", "llama")
@pytest.mark.parametrize("error", [ON_CPU, MemoryError()], ids=["torch", "python"])
def test_a_cpu_says_it_in_other_words(world, error, monkeypatch):
    undisturbed = asked(world)
    memory = Memory(monkeypatch, 4, error=error)
    same(asked(world), undisturbed)
    assert memory.failed


@over("exact", "gpt2", "llama plain")
@pytest.mark.parametrize("begin", [1, 2, 5, 9, 13])
def test_nothing_is_lost_whenever_it_happens(world, begin, monkeypatch):
    undisturbed = asked(world)
    memory = Memory(monkeypatch, 4, begin=begin)
    same(asked(world), undisturbed)
    assert memory.failed


@over(*REAL)
def test_prompts_that_do_not_fit_together_are_run_in_smaller_batches(world, monkeypatch):
    prompts = [" ".join(WORDS[i % 6] for i in (k, k * k, k // 6)) for k in range(24)]
    undisturbed = asked(world, rows_of(24, 1), prompts)
    right, forward = slots.run_prompts, HFModel._begun

    def few(run, at):
        def tight(*args):
            if len(args[at]) > 3:
                raise OOM
            return run(*args)

        return tight

    monkeypatch.setattr(slots, "run_prompts", few(right, 1))
    monkeypatch.setattr(HFModel, "_begun", few(forward, 1))
    same(asked(world, rows_of(24, 1), prompts), undisturbed)


@over("exact", "llama")
def test_draws_that_had_ended_when_their_text_could_not_be_made_are_drawn_again(world, monkeypatch):
    """A row is out of its slot only once its draw is whole."""
    undisturbed, right, calls = asked(world), type(world.model).decode, []

    def decode(self, prompt, tokens):
        calls.append(prompt)
        if len(calls) in (3, 8):
            raise MemoryError
        return right(self, prompt, tokens)

    monkeypatch.setattr(type(world.model), "decode", decode)
    same(asked(world), undisturbed)


@over(*WORLDS)
def test_draws_that_were_yielded_before_are_not_drawn_again(world, monkeypatch):
    begun, got = [], set()
    right = sampling._Batch._begin

    def begin(self, places, rows):
        begun.extend((tuple(self.order.rows[r].tolist()), tuple(self.order.rows[r].tolist()) in got) for r in rows)
        right(self, places, rows)

    monkeypatch.setattr(sampling._Batch, "_begin", begin)
    memory = Memory(monkeypatch, 8, begin=5)
    for part in parts_of(world):
        assert not got & set(keys([part])), "yielded twice"
        got |= set(keys([part]))
    assert memory.failed
    assert not any(again for _, again in begun)
    assert len(begun) > len(got), "those under way begin again"


@over(*REAL)
def test_a_batch_that_did_not_fit_is_remembered(world, monkeypatch):
    memory = Memory(monkeypatch, 7, begin=1)
    one_prompt = {"prompts": PROMPTS[:1], "rows": rows_of(1, 64)}
    asked(world, **one_prompt)
    assert memory.steps[0] == 16
    assert memory.failed == 2  # 16, 8, then 4
    memory.steps.clear()
    asked(world.warped(temperature=0.5), **one_prompt)
    assert memory.steps[0] == 4
    assert memory.failed == 2


@over(*WORLDS)
def test_a_single_row_that_does_not_fit_is_one_clear_line(world, monkeypatch):
    memory = Memory(monkeypatch, 0, begin=1)
    with pytest.raises(RunError) as caught:
        asked(world, rows_of(1, 16), PROMPTS[:1])
    assert str(caught.value) == f"{world.name}: memory ran out with a single row of {1 + STEPS} tokens"
    assert memory.steps[:3] == [16, 8, 4]


@over("exact", "llama")
@pytest.mark.parametrize(
    "error", [ValueError("out of memory"), RuntimeError("shapes differ"), KeyboardInterrupt(), ZeroDivisionError()]
)
def test_other_errors_are_not_swallowed(world, error, monkeypatch):
    memory = Memory(monkeypatch, 0, error=error)
    with pytest.raises(type(error)):
        asked(world)
    assert memory.failed == 1


@pytest.mark.parametrize(
    ("world", "unfinished"),
    [
        *((name, lambda batch: batch.order.rows[batch.held[batch.held >= 0]]) for name in BY_SLOTS),  # not begun: lost
        *((name, lambda batch: batch.order.rows[batch.next :]) for name in WORLDS),  # under way: lost
        *((name, lambda batch: batch.order.rows) for name in BY_SLOTS),  # those that had ended: twice
    ],
    indirect=["world"],
)
def test_planted_rows_forgotten_when_memory_runs_out(world, unfinished, monkeypatch):
    undisturbed = asked(world, prompts=PROMPTS[:1], rows=rows_of(1, 60))
    monkeypatch.setattr(sampling._Batch, "unfinished", unfinished)
    Memory(monkeypatch, 8, begin=5)
    with pytest.raises(AssertionError):
        same(asked(world, prompts=PROMPTS[:1], rows=rows_of(1, 60)), undisturbed)


@over(*REAL)
@pytest.mark.parametrize("graphs", [(), ("cpu",)], ids=["steps", "graphs"])
def test_the_batch_that_did_not_fit_is_gone_before_the_next_is_made(world, graphs, monkeypatch):
    """What it holds is what is missing: no cycle, no traceback may keep it until Python looks for cycles."""
    held, alive = [], []
    right = HFModel.decoder

    def decoder(self, rows, width):
        made = right(self, rows, width)
        held.append(weakref.ref(made))
        return made

    monkeypatch.setattr(HFModel, "decoder", decoder)
    monkeypatch.setattr(slots, "CAPTURED", graphs)
    monkeypatch.setattr(slots.Graphs, "_capture", lambda self, width: False)
    turn = sampling._Batch._turn
    monkeypatch.setattr(
        sampling._Batch, "_turn", lambda self: alive.append(sum(ref() is not None for ref in held)) or turn(self)
    )
    memory = Memory(monkeypatch, 4)
    gc.collect()
    gc.disable()
    try:
        asked(world)
    finally:
        gc.enable()
    assert memory.failed
    assert len(held) > 4
    assert set(alive) == {1}, "decoders at once"


# --- what shares a batch


@over(*WORLDS)
def test_batch_size_and_order_of_rows_change_nothing(world):
    rows = rows_of(len(PROMPTS), EACH)
    one = asked(with_batch(world, 1), rows)
    for size in (2, 7, 64):
        for seed in (0, 1):
            shuffled = np.random.default_rng(seed).permutation(rows)
            same(asked(with_batch(world, size), shuffled), one)


@over(*WORLDS)
@pytest.mark.parametrize(("prompts", "draws"), [(1, 70), (40, 1)], ids=["many draws of one", "one of many"])
def test_few_prompts_or_many_give_what_each_row_gives_alone(world, prompts, draws):
    texts = [" ".join(np.random.default_rng(k).choice(WORDS, 1 + 5 * k % 31)) for k in range(prompts)]
    rows = rows_of(prompts, draws)
    every = asked(world, rows, texts)
    for row in (0, len(rows) // 2, len(rows) - 1):
        same(asked(world, rows[row : row + 1], texts), cut(every.take(np.array([row]))))


def cut(draws):
    """Columns up to max_tokens, as one batch has them."""
    return replace(draws, tokens=draws.tokens[:, :STEPS], token_log_prob=draws.token_log_prob[:, :STEPS])


@over(*WORLDS)
def test_one_text_at_two_places_is_drawn_alike(world):
    draws = asked(world)
    first, fourth = (draws.take(draws.prompt == c) for c in (0, 3))
    same(replace(fourth, prompt=first.prompt), first)


@over(*WORLDS)
def test_a_row_that_is_wanted_twice_comes_twice(world):
    row = np.array([[2, 5]])
    draws = asked(world, np.repeat(row, 20, axis=0))
    assert keys([draws]) == [(2, 5)] * 20
    assert len(set(draws.texts)) == 1


@over(*BY_SLOTS)
def test_slots_are_filled_again_while_others_go_on(world, monkeypatch):
    """Else the batch's last row would be waited for each time, and the test above would test less."""
    filled, steps = [], Memory(monkeypatch, 10**6).steps
    right = slots.Slots.fill

    def fill(self, places, which):
        filled.append((len(steps), len(places)))
        right(self, places, which)

    monkeypatch.setattr(slots.Slots, "fill", fill)
    with_batch(world, 8)
    asked(world, rows_of(1, 64), PROMPTS[:1])
    assert filled[0] == (0, 8)
    assert {n for at, n in filled if at > 0} & set(range(1, 8)), "some slots only"
    assert sum(n for _, n in filled) == 64


def waves(prompts, rows, max_tokens, size):
    lengths = dict(enumerate(prompts))
    queue = np.array([(c, i) for c in range(len(prompts)) for i in range(rows)])
    parts = list(sampling._waves(queue, lengths, max_tokens, size))
    np.testing.assert_array_equal(np.concatenate(parts), queue)
    return [part[:, 0].tolist() for part in parts]


def test_waves_end_where_rows_get_much_longer():
    assert waves([10, 11, 14, 30, 31, 90], 2, 2, 1) == [[0, 0, 1, 1, 2, 2], [3, 3, 4, 4], [5, 5]]
    assert waves([10, 11, 14, 30, 31, 90], 2, 2, 32) == [[0, 0, 1, 1, 2, 2, 3, 3], [4, 4, 5, 5]], "no small pieces"
    assert waves([1, 5, 10], 2, 100, 1) == [[0, 0, 1, 1, 2, 2]], "what is drawn counts"


@over(*BY_SLOTS)
def test_short_rows_are_not_as_wide_as_the_longest(world, monkeypatch):
    widths = []
    right = HFModel.decoder
    monkeypatch.setattr(HFModel, "decoder", lambda self, rows, width: widths.append(width) or right(self, rows, width))
    asked(world, rows_of(len(PROMPTS), 16))
    assert widths == [2 + STEPS, 20 + STEPS, 36 + STEPS]


@over(*BY_SLOTS)
def test_a_prompt_is_computed_once_for_all_its_draws(world, monkeypatch):
    run = []
    right = slots.run_prompts
    monkeypatch.setattr(slots, "run_prompts", lambda n, encoded, *w: run.extend(encoded) or right(n, encoded, *w))
    asked(world, rows_of(3, 40), PROMPTS[:3])
    assert sorted(map(len, run)) == [1, 2, 36]


# --- ends


@over(*WORLDS)
def test_one_token_is_drawn_without_a_step(world, monkeypatch):
    memory = Memory(monkeypatch, 10**6)
    draws = asked(world, max_tokens=1)
    assert memory.steps == []
    assert (draws.length == 1).all()
    assert draws.finished.any()
    assert not draws.finished.all()
    np.testing.assert_allclose(world.log_prob(PROMPTS, draws), draws.log_prob, atol=1e-4)


@over(*WORLDS)
def test_rows_that_all_end_at_once(world, monkeypatch):
    """Each token is an end: every row's first token is its last, and slots are filled again without a step."""
    memory = Memory(monkeypatch, 10**6)
    every = replace(world.model.vocab, eos=frozenset(range(7)))
    object.__setattr__(world.model, "__dict__", world.model.__dict__ | {"vocab": every})
    draws = asked(world)
    assert memory.steps == []
    assert (draws.length == 1).all()
    assert draws.finished.all()
    assert len(draws) == EACH * len(PROMPTS)


@over(*WORLDS)
def test_without_an_end_every_draw_is_cut(world):
    none = replace(world.model.vocab, eos=frozenset())
    object.__setattr__(world.model, "__dict__", world.model.__dict__ | {"vocab": none})
    draws = asked(world)
    assert (draws.length == STEPS).all()
    assert not draws.finished.any()


@over(*WORLDS)
def test_some_draws_end_on_their_first_token_beside_others_that_go_on(world):
    draws = asked(world, rows_of(len(PROMPTS), 40))
    assert {1, STEPS} <= set(draws.length.tolist())
    assert (draws.tokens[draws.length == 1, 1:] == -1).all()
    assert (draws.token_log_prob[draws.length == 1, 1:] == 0).all()


@over(*WORLDS)
@pytest.mark.parametrize("rows", [np.zeros((0, 2), int), []])
def test_no_rows_are_no_draws(world, rows):
    assert list(parts_of(world, rows)) == []


# --- as they finish


@over(*WORLDS)
def test_draws_come_before_the_last_row_has_begun(world, monkeypatch):
    memory = Memory(monkeypatch, 10**6)
    with_batch(world, 8)
    parts, steps = parts_of(world, rows_of(1, 200), PROMPTS[:1]), []
    for part in parts:
        steps.append(len(memory.steps))
        assert 0 < len(part) <= 16
    assert steps[0] <= 2 * STEPS
    assert steps[-1] > 10 * STEPS


@over(*WORLDS)
def test_the_caller_s_code_between_two_batches_is_its_own(world):
    """Else tensors that it makes there could not be trained."""
    for _ in parts_of(world):
        assert not torch.is_inference_mode_enabled()
        weight = torch.ones(1, requires_grad=True)
        (2 * weight).sum().backward()


@over(*WORLDS)
def test_sampling_and_scoring_inside_the_loop_disturb_nothing(world):
    """Generators over one network, one inside the other and side by side."""
    other = world.warped(temperature=0.7)
    outer, inner = asked(world), asked(other, prompts=PROMPTS[::-1])
    got = []
    for turn, part in enumerate(parts_of(world)):
        if turn % 3 == 0:
            same(asked(other, prompts=PROMPTS[::-1]), inner)
        np.testing.assert_allclose(world.log_prob(PROMPTS, part), part.log_prob, atol=1e-4)
        got.append(part)
    same(collect(got), outer)
    pairs = list(zip_longest(parts_of(world), parts_of(other, prompts=PROMPTS[::-1])))
    for side, wanted in zip(zip(*pairs, strict=True), (outer, inner), strict=True):
        same(collect(part for part in side if part is not None), wanted)


@over(*WORLDS)
def test_a_caller_that_stops_early_leaves_the_model_as_it_was(world):
    before = asked(world)
    parts = parts_of(world)
    next(parts)
    parts.close()
    same(asked(world), before)


# --- log-probabilities on the way


@over("exact", "gpt2", "llama plain")
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_log_probabilities_of_sampling_are_those_of_scoring(world, settings):
    law = world.warped(**settings)
    draws = asked(law)
    np.testing.assert_allclose(law.token_log_prob(PROMPTS, draws), draws.token_log_prob, atol=1e-4)
    np.testing.assert_allclose(law.log_prob(PROMPTS, draws), draws.log_prob, atol=1e-4)
    np.testing.assert_allclose(world.log_prob(PROMPTS, draws), draws.model_log_prob, atol=1e-4)
    if settings:
        assert (np.abs(draws.model_log_prob - draws.log_prob) > 1e-3).mean() > 0.5


# --- found in review


@over(*BY_SLOTS)
def test_memory_that_runs_out_while_draws_are_joined_loses_none(world, made, monkeypatch):
    plain = asked(fresh(made, "gpt2" if "gpt2" in world.name else "llama"))
    right, calls = sampling.Draws.concat, []

    def tight(parts):
        calls.append(len(parts))
        if len(calls) == 2:
            raise OOM
        return right(parts)

    with monkeypatch.context() as patch:
        patch.setattr(sampling.Draws, "concat", staticmethod(tight))
        parts = list(parts_of(world))
    assert len(calls) > 2
    same(collect(parts), plain)


@over(*WORLDS)
def test_memory_that_runs_out_before_the_first_row_has_begun(world, monkeypatch):
    plain = asked(world)
    right, tried = sampling._Batch._allocate, []

    def tight(batch):
        tried.append(batch.slots)
        if len(tried) == 1:
            raise OOM
        right(batch)

    monkeypatch.setattr(sampling._Batch, "_allocate", tight)
    same(asked(world), plain)
    assert tried[1] == tried[0] // 2


@over(*BY_SLOTS)
def test_what_is_learned_is_of_the_batch_that_was_begun(world, monkeypatch):
    """Memory runs out when few rows are live: the batch that held them was too large, not those few."""
    rows = rows_of(1, 16)
    right = slots.Slots.step

    def tight(decoder, ids):
        if len(ids) < decoder.rows == 16:
            raise OOM
        return right(decoder, ids)

    monkeypatch.setattr(slots.Slots, "step", tight)
    asked(world, rows, PROMPTS[:1])
    assert world.model.decoder(16, 1 + STEPS).rows in (8, 16)


@over(*REAL)
def test_a_network_that_says_no_numbers_is_one_line(world, monkeypatch):
    right = sampling._drawn
    monkeypatch.setattr(sampling, "_drawn", lambda x, *rest: right(x * torch.nan, *rest))
    with pytest.raises(RunError, match=r"output is no number \(NaN\); try dtype=float32"):
        asked(world)


@over(*BY_SLOTS)
def test_draws_of_one_token_are_yielded_by_the_batch(world):
    sizes = [len(part) for part in parts_of(world, rows_of(1, 100), PROMPTS[:1], 1)]
    assert sum(sizes) == 100 and max(sizes) <= 32


@over(*BY_SLOTS)
def test_equal_texts_are_one_prompt(world, monkeypatch):
    run = []
    right = slots.run_prompts
    monkeypatch.setattr(slots, "run_prompts", lambda n, encoded, *w: run.extend(encoded) or right(n, encoded, *w))
    asked(world, rows_of(4, 40), ("rain", "sun", "rain", "sun"))
    assert len(run) == 2


@over(*BY_SLOTS)
def test_a_model_and_the_decoder_that_it_keeps_do_not_hold_each_other(world):
    asked(world)
    model = world.model
    assert model._idle is not None and model._idle.prompts is None
    kept = weakref.ref(model._idle)
    gc.disable()
    try:
        model.forget()
        assert kept() is None
    finally:
        gc.enable()
