"""What a token adds to a text is what the model decodes, for tokenizers of several kinds."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
from models import tokenizer as word_tokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from alignbench.errors import UsageError
from alignbench.generators.base import Vocab
from alignbench.generators.exact.world import exact
from alignbench.generators.token_bytes import token_bytes

EOS = "</s>"


def byte_level():
    names = pre_tokenizers.ByteLevel.alphabet()
    inner = Tokenizer(models.BPE({token: i for i, token in enumerate([*sorted(names), "Ġc", "at", EOS])}, []))
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=EOS)


def byte_fallback():
    parts = [*(f"<0x{byte:02X}>" for byte in range(256)), "▁the", "cat", "▁", "s", "é", EOS]
    inner = Tokenizer(models.BPE({token: i for i, token in enumerate(parts)}, [], byte_fallback=True))
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    inner.decoder = decoders.Sequence(steps)
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=EOS)


def model_of(tokenizer):
    names = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    return SimpleNamespace(name="tiny", tokenizer=tokenizer, vocab=Vocab(tuple(names), frozenset({names.index(EOS)})))


KINDS = {"bytes": byte_level, "fallback": byte_fallback, "words": lambda: word_tokenizer(["cat", "the", "s"])}


@pytest.mark.parametrize("kind", KINDS)
def test_the_text_of_tokens_is_their_bytes(kind):
    tokenizer = KINDS[kind]()
    found, rng = token_bytes(model_of(tokenizer)), random.Random(0)
    assert found[-1] == b"" and all(found[:-1])
    first = tokenizer.convert_tokens_to_ids("at" if kind == "bytes" else "cat")
    before = tokenizer.decode([first])
    valid = 0
    for _ in range(300):
        ids = [rng.randrange(len(found)) for _ in range(rng.randint(1, 3))]
        try:
            text = b"".join(found[i] for i in ids).decode()
        except UnicodeDecodeError:
            continue
        valid += 1
        assert tokenizer.decode([first, *ids], skip_special_tokens=True)[len(before) :] == text
    assert valid > 50


def test_parts_of_a_character_are_its_bytes():
    for kind in ("bytes", "fallback"):
        model = model_of(KINDS[kind]())
        assert {bytes([byte]) for byte in range(256)} <= set(token_bytes(model))


def test_in_an_exact_world_a_token_is_a_space_and_its_word():
    assert token_bytes(exact(words="sun rain").model) == (b" sun", b" rain", b"")


def test_a_tokenizer_that_says_nothing_plain_is_refused():
    with pytest.raises(UsageError, match="tiny: none of its tokens is a plain word or letter"):
        token_bytes(model_of(word_tokenizer(["日", "!"])))
