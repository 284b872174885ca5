"""What a run leaves behind: rows that say what they are, strict JSON, and names that file systems take."""

import json
from math import inf, nan

import numpy as np
import pandas as pd
import pytest

from alignbench.errors import StoreError
from alignbench.files import dump, jsonable
from alignbench.registry import load_plugins
from alignbench.run import provenance, rows
from alignbench.run.rescore import rescore
from alignbench.run.rows import Row, RowKey, frame, safe_name
from alignbench.types import Cost, Estimate

KEY = RowKey(
    run_id="r1", task="little", task_version=1, task_hash="abc", generator="exact", generator_id="e1", aligner="",
    base="exact", base_id="e1", target_id="t1", judge="", seed=0, draws=9, measured="2026-11-22T00:00:00+00:00",
    signature="alignbench|seed:0",
)  # fmt: skip


def test_a_row_is_flat_and_knows_its_name():
    row = Row(KEY, "divergence", "tv", Estimate(0.5, 0.1, 0.3, 0.7, 9, note="n"), "lower", 1.5, exact=0.4)
    flat = row.flat()
    assert row.name == "divergence.tv" and Row(KEY, "perplexity", "", Estimate(1.0), "", None).name == "perplexity"
    assert (flat["task"], flat["value"], flat["ci_high"], flat["part"], flat["exact"]) == (
        "little",
        0.5,
        0.7,
        "tv",
        0.4,
    )


def test_a_frame_keeps_infinity_and_missing_apart():
    rows = [Row(KEY, "divergence", p, Estimate(v), "lower", None) for p, v in (("a", inf), ("b", None), ("c", 0.0))]
    table = frame(rows, {"little": "perplexity"})
    assert table.attrs["primary"] == {"little": "perplexity"}
    assert table.value.tolist()[0] == inf and pd.isna(table.value[1]) and table.value[2] == 0.0
    assert list(frame([], {}).columns) == list(table.columns) and len(frame([], {})) == 0


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("org/model", "org__model"), ("exact+best_of_n:n=16", "exact+best_of_n_n=16"), ("a b\tc", "a_b_c"),
        ("../../etc", "etc"), ("...", "generator"), ("", "generator"), ("日本", "日本"), ("x" * 120, "x" * 120),
        ("/", "generator"), ("hf:pretrained=a\x00b", "hf_pretrained=a_b"),
    ],
)  # fmt: skip
def test_a_label_is_a_safe_folder_name(tmp_path, label, name):
    assert safe_name(label) == name
    (tmp_path / safe_name(label)).mkdir()
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_labels_that_differ_only_past_the_limit_have_folders_of_their_own():
    first, second = (f"prompt:text={'a long instruction ' * 8}{end}" for end in ("one", "two"))
    assert safe_name(first) != safe_name(second) and safe_name(first) == safe_name(first)
    assert all(len(safe_name(word * 500).encode()) <= 120 for word in ("x", "日本", "a/"))


def test_json_is_strict():
    content = {
        "a": inf,
        "b": [-inf, nan, 1.5],
        "c": (np.float64(2), np.int64(3), np.bool_(True)),
        4: None,
        "d": {1: "é"},
    }
    assert json.loads(dump(content)) == {
        "a": "inf",
        "b": ["-inf", None, 1.5],
        "c": [2.0, 3, True],
        "4": None,
        "d": {"1": "é"},
    }
    assert jsonable(np.float64(inf)) == "inf" and jsonable(np.float32(nan)) is None and jsonable(True) is True


def test_versions_and_hardware_name_no_machine():
    import platform

    text = dump({"v": provenance.versions(), "h": provenance.hardware()})
    assert "numpy" in text and (platform.node() == "" or platform.node() not in text) and "/" not in text


def test_rescore_of_an_empty_folder(tmp_path):
    with pytest.raises(
        StoreError, match=r"holds no results \(no \*/evidence_\*\.npz\); give the --output_path of a run$"
    ):
        rescore(tmp_path)


def test_measure_follows_the_tasks_list_or_takes_all(monkeypatch):
    load_plugins()
    seen = []
    monkeypatch.setattr(rows.metrics, "measure", lambda name, evidence, **params: seen.append((name, params)) or {
        "": Estimate(1.0), "part": Estimate(None, note="why")})  # fmt: skip
    evidence = type("E", (), {"truth": {"distinct": 0.9}, "cost": Cost(seconds=2.0)})
    found = rows.measure([("distinct", {"draws": 4})], KEY, evidence)
    assert seen == [("distinct", {"draws": 4})] and [r.exact for r in found] == [0.9, None] and found[0].seconds == 2.0
    rows.measure(None, KEY, evidence)
    assert {name for name, _ in seen} >= {"divergence", "cost", "perplexity"}
