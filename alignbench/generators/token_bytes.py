"""What each token adds to a text, as bytes: what automata over texts are lifted to tokens by."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from alignbench.errors import UsageError
from alignbench.generators.base import Model, Steering, Vocab, WithTokenizer

BYTE = re.compile(r"<0x([0-9A-F]{2})>")
UNREADABLE = "\ufffd"


def token_bytes(model: Model) -> tuple[bytes, ...]:
    """(V,) bytes that each token adds to a continuation; b"" for ids that are no text (EOS, special, unknown).

    The tokenizer's own decoding says them, after a token of plain text; where a token is only a part of a character,
    its name does (byte-level BPE, byte fallback). In an exact world a token is a space and its word. Raises UsageError
    where a tokenizer does not name the bytes of such a part.
    """
    while isinstance(model, Steering):  # a steered model says its base's tokens
        model = model.base.model
    if isinstance(model, WithTokenizer):
        return _of_tokenizer(model.tokenizer, model.vocab, model.name)
    eos = model.vocab.eos
    return tuple(b"" if i in eos else f" {word}".encode() for i, word in enumerate(model.vocab.tokens))


def _of_tokenizer(tokenizer: Any, vocab: Vocab, name: str) -> tuple[bytes, ...]:
    said = [i for i in range(min(len(vocab), len(tokenizer))) if i not in vocab.eos]
    alone = _decoded(tokenizer, [[i] for i in said])
    plain = next((k for k, text in enumerate(alone) if text.strip().isalnum() and text.isascii()), None)
    if plain is None:
        raise UsageError(f"{name}: none of its tokens is a plain word or letter, so that no text can be steered")
    before, anchor = alone[plain], said[plain]
    found = [b""] * len(vocab)
    for i, text in zip(said, _decoded(tokenizer, [[anchor, i] for i in said]), strict=True):
        text = text[len(before) :]
        found[i] = _part(vocab.tokens[i], name) if UNREADABLE in text else text.encode("utf-8", "surrogatepass")
    return tuple(found)


def _decoded(tokenizer: Any, rows: Sequence[list[int]]) -> list[str]:
    return [str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)) for ids in rows]


def _part(token: str, name: str) -> bytes:
    """The bytes of a token that is no text by itself, from its name."""
    if one := BYTE.fullmatch(token):
        return bytes.fromhex(one[1])
    if all(char in _byte_of() for char in token):
        return bytes(_byte_of()[char] for char in token)
    if UNREADABLE in token:
        return token.encode()
    raise UsageError(f"{name}: the tokenizer does not say which bytes its token {token!r} is")


@cache
def _byte_of() -> dict[str, int]:
    """The character that stands for each byte in the names of byte-level BPE (Radford et al. 2019).

    Bytes that are printable characters of Latin-1 stand for themselves, the others follow from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(0x100 + k): b for k, b in enumerate(others)}
