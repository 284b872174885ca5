"""Draws on disk: found again by what they depend on and nothing else, kept batch by batch, never half written."""

from dataclasses import replace
from math import inf, nan

import numpy as np
import pytest

from alignbench.errors import StoreError
from alignbench.files import check_writable, digest, write_atomic
from alignbench.generators.exact.world import exact
from alignbench.seeds import Seed
from alignbench.store.draws import DrawRequest, DrawStore
from alignbench.store.packed import evidence_files, pack, unpack
from alignbench.types import Cost, Draws, Estimate, Evidence, Fit, Scored, Selection, Wanted, collect, rows_of

PROMPTS = ("rain", "sun wind")
LAW = exact(batch_size=7)


ZERO = Seed(0)


def request(rows=None, prompts=PROMPTS, max_tokens=4, seed=ZERO):
    return DrawRequest(prompts, rows_of(len(prompts), 10) if rows is None else np.array(rows), max_tokens, seed)


def ask(store, wished, law=LAW):
    told = []
    return store.sample(law, law.identity(), wished, told.append), told


def same(a, b):
    assert a.texts == b.texts and np.array_equal(a.tokens, b.tokens) and np.array_equal(a.prompt, b.prompt)
    assert np.array_equal(a.index, b.index) and np.array_equal(a.log_prob, b.log_prob)


def test_what_is_stored_is_what_was_drawn(tmp_path):
    store = DrawStore(tmp_path)
    first, told = ask(store, request())
    same(first.draws, collect(LAW.sample(PROMPTS, rows_of(2, 10), max_tokens=4, seed=Seed(0))))
    assert first.fresh == 20 and sum(told) == 20 and first.seconds > 0
    again, told = ask(store, request())
    same(again.draws, first.draws)
    assert again.fresh == 0 and told == [20] and again.seconds == pytest.approx(first.seconds)


def test_only_what_is_missing_is_drawn(tmp_path):
    store = DrawStore(tmp_path)
    some, _ = ask(store, request([[1, 3], [0, 2], [1, 9]]))
    assert some.fresh == 3
    whole, _ = ask(store, request())
    assert whole.fresh == 17
    same(whole.draws, ask(DrawStore(None), request())[0].draws)
    few, _ = ask(store, request([[1, 3]]))
    assert few.fresh == 0 and 0 < few.seconds < whole.seconds


def test_draws_belong_to_the_prompt_not_to_its_place(tmp_path):
    """So tasks share draws. Planted bug: the prompt's number used as its key."""
    store = DrawStore(tmp_path)
    ask(store, request())
    turned, _ = ask(store, request(prompts=PROMPTS[::-1]))
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
    assert ask(store, *other)[0].fresh == 0


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
    resumed, _ = ask(store, request())
    assert resumed.fresh == 20 - 2 * 7
    same(resumed.draws, ask(DrawStore(None), request())[0].draws)


def test_without_a_folder_or_an_identity_nothing_is_kept(tmp_path):
    assert ask(DrawStore(None), request())[0].fresh == ask(DrawStore(None), request())[0].fresh == 20
    for _ in range(2):
        assert DrawStore(tmp_path).sample(LAW, None, request(), lambda count: None).fresh == 20
    assert not list(tmp_path.iterdir())


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
    with pytest.raises(StoreError) as error:
        ask(store, request())
    line = str(error.value)
    assert line.startswith(f"{part}: is not readable (") and "\n" not in line
    assert line.endswith("; delete it, and the `alignbench run` that wrote it makes it anew")
    part.unlink()
    assert ask(store, request())[0].fresh == 7 or ask(store, request())[0].fresh == 0


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


def evidence():
    draws = ask(DrawStore(None), request())[0].draws
    scored = Scored(draws=draws, features={"sun": np.ones(20)}, log_base=draws.log_prob, log_target=np.full(20, -inf),
                    log_gen=None, log_judge=None)  # fmt: skip
    fit = Fit(wanted=(Wanted("sun", "moment", value=0.5),), lam=np.zeros((1, 1)), lam_stderr=np.zeros((1, 1)))
    return Evidence(own=scored, ref=scored, fit=fit, prompts=PROMPTS, selection=Selection("best", 4), cost=Cost(),
                    categories={"pronoun": ("she", "he")}, truth={"divergence.tv": inf})  # fmt: skip


def equal(a, b):
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
    if hasattr(a, "__dataclass_fields__"):
        return type(a) is type(b) and all(equal(getattr(a, n), getattr(b, n)) for n in a.__dataclass_fields__)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(v, b[k]) for k, v in a.items())
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def test_evidence_comes_back_as_it_was(tmp_path):
    record = {"evidence": evidence(), "key": {"seed": 0}, "metrics": [["distinct", {"draws": 8}]], "none": None}
    (tmp_path / "e.npz").write_bytes(pack(record))
    again = unpack(tmp_path / "e.npz")
    assert equal(record["evidence"], again["evidence"]) and again["key"] == {"seed": 0} and again["none"] is None
    assert [(name, dict(params)) for name, params in again["metrics"]] == [("distinct", {"draws": 8})]


@pytest.mark.parametrize("text", ["", "é 日本 🙂", "\ud800", "a\x00b", "\n\r"])
def test_any_text_survives(tmp_path, text):
    (tmp_path / "e.npz").write_bytes(pack({"text": text, "number": nan, "big": inf}))
    again = unpack(tmp_path / "e.npz")
    assert again["text"] == text and np.isnan(again["number"]) and again["big"] == inf


@pytest.mark.parametrize("text", ["é 日本 🙂", "\ud800"])
def test_draws_of_any_text_can_be_shelved(tmp_path, text):
    class Says:
        def sample(self, prompts, rows, *, max_tokens, seed):
            count = np.ones(len(rows), int)
            yield Draws(rows[:, 0], rows[:, 1], (text,) * len(rows), None, count, count > 0, None, None, None)

    for fresh in (2, 0):
        found = DrawStore(tmp_path).sample(Says(), {"a": "é"}, request(rows_of(1, 2), ("a",)), lambda count: None)
        assert found.fresh == fresh and found.draws.texts == (text, text)


def test_a_pickle_is_never_loaded(tmp_path):
    """Planted: an object array, whose loading would run code."""
    np.savez(tmp_path / "e.npz", tree=np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(StoreError, match="is not readable"):
        unpack(tmp_path / "e.npz")


def test_a_record_of_an_unknown_kind_is_refused(tmp_path):
    whole = pack({"a": Estimate(1.0)})
    (tmp_path / "e.npz").write_bytes(whole)
    assert unpack(tmp_path / "e.npz")["a"] == Estimate(1.0)
    tree = np.frombuffer(b'{"type": "Popen", "fields": {}}', dtype=np.uint8)
    np.savez(tmp_path / "e.npz", tree=tree)
    with pytest.raises(StoreError, match="is not readable"):
        unpack(tmp_path / "e.npz")


def test_a_write_that_fails_leaves_the_old_file_and_no_scraps(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write_atomic(path, "old")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(StoreError, match=r"a\.txt: cannot be written: No space left on device$"):
        write_atomic(path, "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_file_in_the_folders_place_is_found_by_the_probe(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(StoreError, match=r"taken.*: cannot be written: "):
        check_writable(tmp_path / "taken" / "out")
    check_writable(tmp_path / "new" / "folder")
    assert list((tmp_path / "new" / "folder").iterdir()) == []


def test_a_digest_is_of_the_data_alone():
    assert digest({"a": 1, "b": [1.5, None]}) == digest({"b": [1.5, None], "a": 1}) != digest({"a": 1, "b": [1.5, 0]})
    assert digest({}) == "44136fa355b3678a"  # sha256 of "{}"


def test_evidence_files_are_listed_in_order(tmp_path):
    for name in ("b/evidence_t_1.npz", "a/evidence_t_2.npz", "a/other.npz", "evidence_t_3.npz"):
        write_atomic(tmp_path / name, "")
    assert [str(p.relative_to(tmp_path)) for p in evidence_files(tmp_path)] == [
        "a/evidence_t_2.npz",
        "b/evidence_t_1.npz",
    ]
