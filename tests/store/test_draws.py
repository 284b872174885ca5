"""Draws on disk: found again by what they depend on and nothing else, kept batch by batch, never half written."""

from dataclasses import replace

import numpy as np
import pytest
from store_requests import LAW, PROMPTS, ask, request, same

from alignbench.errors import RunError, StoreError
from alignbench.generators.exact.world import exact
from alignbench.seeds import Seed
from alignbench.store.draws import DrawRequest, DrawStore
from alignbench.types import Draws, collect, rows_of


def test_what_is_stored_is_what_was_drawn(tmp_path):
    store = DrawStore(tmp_path)
    first, told = ask(store, request())
    same(first.draws, collect(LAW.sample(PROMPTS, rows_of(2, 10), max_tokens=4, seed=Seed(0))))
    assert first.fresh == 20 and sum(told) == 20 and first.seconds > 0
    for known in (store, DrawStore(tmp_path)):  # from memory, and from disk
        again, told = ask(known, request())
        same(again.draws, first.draws)
        assert again.fresh == 0 and told == [20] and again.seconds == pytest.approx(first.seconds)


def test_only_what_is_missing_is_drawn(tmp_path):
    store = DrawStore(tmp_path)
    some, _ = ask(store, request([[1, 3], [0, 2], [1, 9]]))
    assert some.fresh == 3
    whole, _ = ask(store, request())
    assert whole.fresh == 17
    same(whole.draws, ask(DrawStore(None), request())[0].draws)
    for known in (store, DrawStore(tmp_path)):
        few, _ = ask(known, request([[1, 3]]))
        assert few.fresh == 0 and 0 < few.seconds < whole.seconds


def test_draws_belong_to_the_prompt_not_to_its_place(tmp_path):
    """So tasks share draws. Planted bug: the prompt's number used as its key."""
    store = DrawStore(tmp_path)
    ask(store, request())
    for known in (store, DrawStore(tmp_path)):
        turned, _ = ask(known, request(prompts=PROMPTS[::-1]))
        assert turned.fresh == 0
        same(turned.draws, ask(DrawStore(None), request(prompts=PROMPTS[::-1]))[0].draws)
    more, _ = ask(store, request(prompts=("fog", *PROMPTS)))
    assert more.fresh == 10


@pytest.mark.parametrize(
    "other",
    [
        (request(max_tokens=5), LAW), (request(seed=Seed(1)), LAW), (request(seed=Seed(0, "ref")), LAW),
        (request(), LAW.warped(temperature=0.5)), (request(), replace(LAW, template="sun {prompt}")),
        (request(), exact(seed=1)),
    ],
)  # fmt: skip
def test_the_key_covers_all_that_a_draw_depends_on(tmp_path, other):
    store = DrawStore(tmp_path)
    ask(store, request())
    assert ask(store, *other)[0].fresh == 20
    assert ask(store, *other)[0].fresh == ask(DrawStore(tmp_path), *other)[0].fresh == 0


def test_batch_size_is_not_in_the_key(tmp_path):
    store = DrawStore(tmp_path)
    ask(store, request())
    assert ask(store, request(), exact(batch_size=64))[0].fresh == 0


class Stops:
    """A law that is interrupted after some batches."""

    def __init__(self, batches):
        self.batches = batches

    def identity(self):
        return LAW.identity()

    def sample(self, prompts, rows, *, max_tokens, seed):
        for number, batch in enumerate(LAW.sample(prompts, rows, max_tokens=max_tokens, seed=seed)):
            if number == self.batches:
                raise KeyboardInterrupt
            yield batch


def test_an_interruption_keeps_every_finished_batch(tmp_path):
    store = DrawStore(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        ask(store, request(), Stops(2))
    resumed, _ = ask(DrawStore(tmp_path), request())
    assert resumed.fresh == 20 - 2 * 7
    same(resumed.draws, ask(DrawStore(None), request())[0].draws)


def test_without_an_identity_nothing_is_kept_and_without_a_folder_in_memory_alone(tmp_path):
    store = DrawStore(tmp_path)
    for _ in range(2):
        assert store.sample(LAW, None, request(), lambda count: None).fresh == 20
    assert not list(tmp_path.iterdir())
    memory = DrawStore(None)
    assert [ask(known, request())[0].fresh for known in (memory, memory, DrawStore(None))] == [20, 0, 20]


def test_overlapping_parts_give_each_draw_once(tmp_path):
    """Two runs at a time may both have drawn a row."""
    for rows in ([[0, 0], [0, 1]], [[0, 1], [0, 2]]):
        DrawStore(tmp_path / "_").sample(LAW, LAW.identity(), request(rows), lambda count: None)
        for part in (tmp_path / "_").glob("*/*"):
            (tmp_path / "all" / part.parent.name).mkdir(parents=True, exist_ok=True)
            part.rename(tmp_path / "all" / part.parent.name / part.name)
    found, _ = ask(DrawStore(tmp_path / "all"), request([[0, 0], [0, 1], [0, 2]]))
    assert found.fresh == 0 and found.draws.index.tolist() == [0, 1, 2]


@pytest.mark.parametrize("damage", [b"", b"not a zip", b"PK\x03\x04 cut short"])
def test_a_damaged_part_is_one_line_that_names_it(tmp_path, damage):
    store = DrawStore(tmp_path)
    ask(store, request())
    part = next(tmp_path.glob("*/part-*.npz"))
    part.write_bytes(damage)
    assert ask(store, request())[0].fresh == 0, "what it has in memory it does not read again"
    with pytest.raises(StoreError) as error:
        ask(DrawStore(tmp_path), request())
    line = str(error.value)
    assert line.startswith(f"{part}: is not readable (") and "\n" not in line
    assert line.endswith("; delete it, and the `alignbench run` that wrote it makes it anew")
    part.unlink()
    assert ask(DrawStore(tmp_path), request())[0].fresh in (6, 7), "one batch"


def test_a_part_with_one_bit_flipped_is_never_read_as_draws(tmp_path):
    store = DrawStore(tmp_path)
    ask(store, request())
    part = next(tmp_path.glob("*/part-*.npz"))
    whole = part.read_bytes()
    for place in range(0, len(whole), 97):
        part.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            again = ask(DrawStore(tmp_path), request())[0].draws
        except StoreError:
            continue
        same(again, ask(DrawStore(None), request())[0].draws)  # a header byte that nobody reads


@pytest.mark.parametrize("text", ["é 日本 🙂", "\ud800"])
def test_draws_of_any_text_can_be_shelved(tmp_path, text):
    class Says:
        def sample(self, prompts, rows, *, max_tokens, seed):
            count = np.ones(len(rows), int)
            yield Draws(rows[:, 0], rows[:, 1], (text,) * len(rows), None, count, count > 0, None, None, None)

    for fresh in (2, 0):
        found = DrawStore(tmp_path).sample(Says(), {"a": "é"}, request(rows_of(1, 2), ("a",)), lambda count: None)
        assert found.fresh == fresh and found.draws.texts == (text, text)


class Lacking:
    """A generator that gives one draw less than it is asked for, or arrays of another length."""

    def __init__(self, short):
        self.short = short

    def sample(self, prompts, rows, *, max_tokens, seed):
        if self.short:
            yield Draws.from_texts(rows[:-1], ["a"] * (len(rows) - 1))
        else:
            yield replace(Draws.from_texts(rows, ["a"] * len(rows)), length=np.ones(len(rows) + 1, int))


@pytest.mark.parametrize(("short", "said"), [(True, "gave 1 of the 2 draws"), (False, "gave 2 texts and 3 of length")])
def test_what_a_generator_lacks_is_told(short, said):
    request = DrawRequest(("x",), np.array([[0, 0], [0, 1]]), 3, Seed(0))
    with pytest.raises(RunError, match=said):
        DrawStore(None).sample(Lacking(short), None, request)
