"""Which bytes each token of a vocabulary is: written once beside the draws, which hold ids alone."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

from alignbench.errors import StoreError
from alignbench.files import write_atomic

VOCAB = "vocab-{}.json.gz"


def keep_vocab(folder: Path | None, fingerprint: str, tokens: Callable[[], Sequence[bytes]]) -> None:
    """Write which bytes each token of a vocabulary is, unless `folder` has them; nothing where there is no folder."""
    if folder is not None and not (path := folder / VOCAB.format(fingerprint)).exists():
        names = [token.decode("utf-8", "surrogateescape") for token in tokens()]
        write_atomic(path, gzip.compress(json.dumps(names).encode(), mtime=0))


def read_vocab(folder: Path, fingerprint: str) -> tuple[bytes, ...] | None:
    """The bytes of each token that `keep_vocab` wrote into `folder`; None where it did not.

    Raises StoreError where the file is damaged.
    """
    path = folder / VOCAB.format(fingerprint)
    if not path.exists():
        return None
    try:
        names = json.loads(gzip.decompress(path.read_bytes()))
        return tuple(name.encode("utf-8", "surrogateescape") for name in names)
    except (OSError, EOFError, ValueError, AttributeError, zlib.error) as error:
        told = " ".join(str(error).split())
        raise StoreError(
            f"{path}: is not readable ({told}); delete it, and the `alignbench run` that wrote it makes it anew"
        ) from error
