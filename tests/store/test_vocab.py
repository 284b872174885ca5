"""What tokens spell: written once beside the draws, read back to the byte."""

import pytest

from alignbench.errors import StoreError
from alignbench.store.vocab import keep_vocab, read_vocab


def test_a_vocabulary_is_written_once_and_read_exactly(tmp_path):
    tokens = (b"", b"\xff", "é".encode(), b"a\x00", "\ud800".encode("utf-8", "surrogatepass"))
    keep_vocab(tmp_path, "abc", lambda: tokens)
    keep_vocab(tmp_path, "abc", lambda: (b"other",))
    keep_vocab(None, "abc", lambda: tokens)
    assert read_vocab(tmp_path, "abc") == tokens and read_vocab(tmp_path, "def") is None
    (tmp_path / "vocab-def.json.gz").write_bytes(b"no")
    with pytest.raises(StoreError, match="is not readable"):
        read_vocab(tmp_path, "def")
