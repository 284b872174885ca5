"""Records as files: what comes back is what was packed, and nothing in a file is run."""

from math import inf, nan
from pathlib import Path

import numpy as np
import pytest
from store_requests import ask, request

from alignbench.errors import StoreError
from alignbench.store.draws import DrawStore
from alignbench.store.packed import pack, unpack
from alignbench.types import Cost, Estimate, Evidence, Fit, Scored, Selection, Wanted

PROMPTS = ("rain", "sun wind")


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


def test_lists_come_back_as_what_frozen_dataclasses_hold(tmp_path):
    (tmp_path / "e.npz").write_bytes(pack({"prompts": PROMPTS, "nested": [[1], (2, 3)]}))
    assert unpack(tmp_path / "e.npz") == {"prompts": PROMPTS, "nested": ((1,), (2, 3))}


@pytest.mark.parametrize("text", ["", "é 日本 🙂", "\ud800", "a\x00b", "\n\r"])
def test_any_text_survives(tmp_path, text):
    (tmp_path / "e.npz").write_bytes(pack({"text": text, "number": nan, "big": inf}))
    again = unpack(tmp_path / "e.npz")
    assert again["text"] == text and np.isnan(again["number"]) and again["big"] == inf


def test_a_pickle_is_never_loaded(tmp_path):
    """Planted: an object array, whose loading would run code, here one that makes a folder."""

    class Runs:
        def __reduce__(self):
            return Path.mkdir, (tmp_path / "ran",)

    np.savez(tmp_path / "e.npz", tree=np.array([Runs()], dtype=object), allow_pickle=True)
    with pytest.raises(StoreError, match="is not readable"):
        unpack(tmp_path / "e.npz")
    assert not (tmp_path / "ran").exists()


def test_a_record_of_an_unknown_kind_is_refused(tmp_path):
    whole = pack({"a": Estimate(1.0)})
    (tmp_path / "e.npz").write_bytes(whole)
    assert unpack(tmp_path / "e.npz")["a"] == Estimate(1.0)
    tree = np.frombuffer(b'{"type": "Popen", "fields": {}}', dtype=np.uint8)
    np.savez(tmp_path / "e.npz", tree=tree)
    with pytest.raises(StoreError, match="is not readable"):
        unpack(tmp_path / "e.npz")
