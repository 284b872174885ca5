"""Files: keys of the data alone, written in one step or not at all."""

import pytest

from alignbench.errors import StoreError
from alignbench.files import check_writable, digest, write_atomic
from alignbench.store.packed import evidence_files


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
