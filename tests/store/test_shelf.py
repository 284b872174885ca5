"""Shelves: what a run holds in memory is bounded, and further attempts are kept without what follows from their ids."""

import json
from dataclasses import replace

import numpy as np
import pytest
from store_requests import LAW, PROMPTS, ask, request, same

from alignbench.generators.hf.factory import hf
from alignbench.seeds import ATTEMPT, Seed, attempts
from alignbench.store.draws import DrawRequest, DrawStore
from alignbench.store.packed import unpack
from alignbench.types import collect, rows_of

TRIES = np.array([[c, i + t * ATTEMPT] for c in range(2) for i in range(5) for t in range(4)])
"""Prompt and sample number of four attempts at five draws of a prompt each."""


class Counted:
    """A law that counts how often each row is asked of it."""

    def __init__(self, law=LAW):
        self.law, self.asked = law, []

    def identity(self):
        return self.law.identity()

    def sample(self, prompts, rows, *, max_tokens, seed):
        self.asked += [(prompts[c], i) for c, i in rows.tolist()]
        return self.law.sample(prompts, rows, max_tokens=max_tokens, seed=seed)


class Speaks(Counted):
    """One that can tell the texts of ids."""

    def texts_of(self, prompts, draws):
        return self.law.texts_of(prompts, draws)


def get(store, law, rows=TRIES):
    return store.draws(law, PROMPTS, np.array(rows), max_tokens=4, seed=Seed(0))


@pytest.mark.parametrize("memory", [0, 1, 700, 3000])
@pytest.mark.parametrize("kind", [Counted, Speaks])
def test_with_a_folder_what_memory_has_no_room_for_is_read_again_and_not_drawn(tmp_path, memory, kind):
    law, store = kind(), DrawStore(tmp_path, memory)
    first = get(store, law)
    for rows in (TRIES, TRIES[::-1], TRIES[::3]):
        same(get(store, law, rows), first.take([TRIES.tolist().index(row) for row in rows.tolist()]))
        assert store._memory.used <= memory and _held(store) <= memory
    assert len(law.asked) == len(set(law.asked)) == len(TRIES)


@pytest.mark.parametrize(("memory", "again"), [(0, True), (2000, True), (100_000, False)])
def test_without_a_folder_what_memory_has_no_room_for_is_drawn_again(memory, again):
    """And the shelf forgets where it was."""
    law, store = Speaks(), DrawStore(None, memory)
    first = get(store, law)
    for _ in range(3):
        same(get(store, law), first)
        assert store._memory.used == _held(store) <= memory
        assert {row for shelf in store._shelves.values() for row in shelf.places.recent} == _rows_held(store)
    assert (len(law.asked) > len(TRIES)) == again


def test_what_was_used_last_is_kept_longest():
    """Whichever shelf it is on."""
    law, (one, two, three) = Counted(), (TRIES[t:20:4] for t in (1, 2, 3))
    store = DrawStore(None, 1400)  # two of three
    for rows in (one, two, one, three):
        get(store, law, rows)
    asked = len(law.asked)
    get(store, law, one)
    assert len(law.asked) == asked
    get(store, law, two)
    assert len(law.asked) > asked == 15


def _held(store):
    return sum(part.bytes for part, _ in store._memory.parts.values())


def _rows_held(store):
    return {row for part, _ in store._memory.parts.values() for row in part.rows}


def test_a_part_that_is_kept_twice_is_counted_once(tmp_path):
    """Planted bug: its bytes counted again, and no room left for others."""
    store = DrawStore(tmp_path)
    get(store, Speaks())
    get(store, Counted())  # draws anew what it cannot spell
    assert store._memory.used == _held(store)


def texts_in(folder):
    """The name of each file of draws, and the texts and token log-probabilities in it."""
    found = {}
    for path in sorted(folder.glob("*/*-*.npz")):
        draws = unpack(path)["draws"]
        found[path.name] = draws.texts, draws.token_log_prob, draws.index
    return found


@pytest.mark.parametrize("made", ["words", "gpt2"])
def test_attempts_are_files_of_their_own_without_what_ids_tell(tmp_path, tiny_gpt2, made):
    """Texts come back equal to those that sampling gave, by prompt, also where it is another run that asks."""
    law = LAW if made == "words" else hf(pretrained=str(tiny_gpt2))
    plain = collect(law.sample(PROMPTS, TRIES, max_tokens=4, seed=Seed(0))).sorted()
    drawn = get(DrawStore(tmp_path), law, plain_rows(plain))
    assert drawn.texts == plain.texts
    for name, (texts, token_log_prob, index) in texts_in(tmp_path).items():
        first = name.startswith("part-")
        assert ((index < ATTEMPT) == first).all() and name.startswith(("part-", "attempts-"))
        assert any(texts) == first and (token_log_prob is not None) == first
    again = get(DrawStore(tmp_path), Unable(law), plain_rows(plain))
    same(again, drawn)
    assert np.array_equal(again.length, plain.length) and np.array_equal(again.finished, plain.finished)
    np.testing.assert_allclose(again.log_prob, plain.log_prob, atol=1e-4)
    swapped = DrawStore(tmp_path).draws(Unable(law), PROMPTS[::-1], TRIES, max_tokens=4, seed=Seed(0))
    by_prompt = {(1 - c, i): text for c, i, text in zip(drawn.prompt, drawn.index, drawn.texts, strict=True)}
    assert swapped.texts == tuple(by_prompt[c, i] for c, i in TRIES.tolist())


def plain_rows(draws):
    return np.stack([draws.prompt, draws.index], axis=1)


class Unable(Speaks):
    """A law that is to find all of its draws."""

    def sample(self, prompts, rows, *, max_tokens, seed):
        raise AssertionError(f"{len(rows)} draws were not found")


def test_texts_that_ids_do_not_tell_are_kept(tmp_path):
    """A generator without `texts_of`, whose texts may be anything."""

    class Shouts(Counted):
        def sample(self, prompts, rows, **more):
            for batch in super().sample(prompts, rows, **more):
                yield replace(batch, texts=tuple(text.upper() + "!" for text in batch.texts))

    law = Shouts()
    first = get(DrawStore(tmp_path), law)
    same(get(DrawStore(tmp_path), law), first)
    assert len(law.asked) == len(TRIES) and all(text.endswith("!") for text in first.texts)


def test_planted_attempts_without_texts_are_not_given_to_who_cannot_spell_them(tmp_path):
    """Planted bug: an empty text for one that is not; they are drawn again, once a run."""
    first, mute, store = get(DrawStore(tmp_path), LAW), Counted(), DrawStore(tmp_path)
    for _ in range(3):
        same(get(store, mute), first)
    assert {i // ATTEMPT for _, i in mute.asked} == {1, 2, 3}
    assert len(mute.asked) == len(set(mute.asked))
    same(get(DrawStore(tmp_path), mute), first)


def test_attempts_are_read_only_where_one_is_asked_for(tmp_path, monkeypatch):
    get(DrawStore(tmp_path), LAW)
    for path in tmp_path.glob("*/attempts-*.npz"):
        path.write_bytes(b"not a zip")
    wished = DrawRequest(PROMPTS, rows_of(2, 5), 4, Seed(0))
    assert DrawStore(tmp_path).sample(LAW, LAW.identity(), wished).fresh == 0


def test_streams_and_salts_have_shelves_of_their_own(tmp_path):
    law, store = Counted(), DrawStore(tmp_path)
    for seed in (Seed(0), Seed(0, "train"), Seed(0, "train").salted(5), Seed(0, "train").salted(6), Seed(1)):
        store.draws(law, PROMPTS, TRIES, max_tokens=4, seed=seed)
    assert len(law.asked) == 5 * len(TRIES) and len(list(tmp_path.iterdir())) == 5


def test_rows_come_in_the_order_asked_for(tmp_path):
    rows = np.random.default_rng(0).permutation(attempts(np.arange(9), 3).ravel())
    asked = np.stack([rows % 2, rows], axis=1)
    for _ in range(2):
        assert np.array_equal(plain_rows(get(DrawStore(tmp_path), LAW, asked)), asked)


def test_first_draws_stay_where_version_0_1_had_them(tmp_path):
    """Their key has no salt, and their file nothing of attempts."""
    store = DrawStore(tmp_path)
    ask(store, request())
    key = unpack_key(tmp_path)
    assert set(key) == {"identity", "max_tokens", "seed", "stream", "format"} and key["format"] == 1
    assert all(name.startswith("part-") for name in texts_in(tmp_path))


def unpack_key(folder):
    return json.loads(next(folder.glob("*/key.json")).read_text())


def test_batches_that_begin_with_the_same_draw_are_files_of_their_own(tmp_path):
    """Two processes may have shared out the rows otherwise: what one has written the other must not replace."""
    law = Speaks()
    for rows in ([[0, 0], [0, 1]], [[0, 0], [0, 2]]):
        get(DrawStore(tmp_path), law, np.array(rows))
        shelf = next(iter(tmp_path.iterdir()))
        for path in shelf.glob("*.npz"):
            path.rename(path.with_suffix(".kept"))
    assert len({path.name for path in shelf.glob("*.kept")}) == 2
