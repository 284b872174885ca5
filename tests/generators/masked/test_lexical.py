"""Words as masks: what they keep is what the features find, byte by byte and token by token, look-ahead included."""

from __future__ import annotations

import itertools
import random
from unicodedata import normalize

import numpy as np
import pytest

from alignbench.errors import UsageError
from alignbench.features.words import folded, word_pattern
from alignbench.generators.base import Vocab
from alignbench.generators.masked import lexical
from alignbench.generators.masked.lexical import Words

CASES = {
    "any": Words(any_of=("cat", "the dog"), ignore_case=True),
    "all": Words(must=("cat", "dog")),
    "never": Words(never=("cat", "the dog"), any_of=("a", "-a"), ignore_case=True),
    "punctuation": Words(any_of=("C++", "U.S.", "don't", "well-known"), never=("no",)),
    "folds to two letters": Words(must=("straße", "naïve"), ignore_case=True),
    "ß is ß": Words(any_of=("straße",)),
    "no spaces": Words(any_of=("日本", "a b"), must=("é",)),
    "overlaps": Words(must=("ssa", "a a"), ignore_case=True),
    "ligature": Words(must=("ﬁx",), ignore_case=True),
    "what is no character": Words(must=("\ufffd",)),
}
PIECES = (
    "cat", "dog", "Dog", "the", "C", "+", "U.", "S.", "don", "'", "’", "t", "-", "well", "_", "1", "é", "ß", "ss", "SS",
    "STRASSE", "NAÏVE", "日", "本", "a", "A", "b", "fix", "ſ", "\u212a", "İ", "No", " ", "  ", "\n", "\u00a0", " dog",
    "the  dog", "\ufffd",
)  # fmt: skip


def wanted(words, text):
    """Whether the features find all that is asked."""

    def finds(some):
        return bool(word_pattern(some, words.ignore_case).search(folded(text, words.ignore_case)))

    return (
        all(finds([word]) for word in words.must)
        and (not words.any_of or finds(list(words.any_of)))
        and not (words.never and finds(list(words.never)))
    )


def random_bytes(rng, words):
    """A text with words in it, often with a byte too many, too few or wrong."""
    likely = [*PIECES, *words.every * 12, *[" "] * 12]
    data = "".join(rng.choice(likely) for _ in range(rng.randint(0, 7))).encode()
    if data and rng.random() < 0.3:
        k = rng.randrange(len(data))
        odd = rng.choice([0x80, 0xC0, 0xC3, 0xE0, 0xE2, 0xED, 0xA0, 0xF0, 0xF4, 0x90, 0xFF, data[k]])
        data = data[:k] + bytes([odd]) + data[k + rng.randint(0, 1) :]
    return data


def disagreements(words, texts, count=600):
    """Texts, of so many, on which the machine and the features disagree; and the share that is kept."""
    rng, wrong, kept = random.Random(1), [], 0
    for _ in range(count):
        data = random_bytes(rng, words)
        text = data.decode("utf-8", "replace")
        if normalize("NFC", text) != text:
            continue
        state = 0
        for byte in data:
            state = texts.after[state, byte]
        kept += wanted(words, text)
        if texts.kept[state] != wanted(words, text):
            wrong.append(text)
    return wrong, kept


@pytest.mark.parametrize("case", CASES)
def test_the_machine_and_the_features_agree_on_every_text(case):
    wrong, kept = disagreements(CASES[case], lexical._texts(CASES[case]))
    assert not wrong
    assert kept > 2


def test_planted_words_without_their_ends(monkeypatch):
    """A machine that lets words begin inside words finds more than the feature does."""
    right = lexical._Matcher._step
    monkeypatch.setattr(lexical._Matcher, "_step", lambda self, state, symbol: right(
        self, state and (False, *state[1:]), symbol))  # fmt: skip
    lexical._texts.cache_clear()
    assert disagreements(CASES["any"], lexical._texts(CASES["any"]))[0]
    lexical._texts.cache_clear()


def test_every_character_is_put_together_from_its_bytes():
    """Kinds by code point come out of UTF-8 again, and none of what is no UTF-8."""
    kinds = (np.arange(0x110000) * 7919) % 251 + 1
    kinds[0xFFFD] = 0
    utf8 = lexical.Utf8(kinds)

    def entry(data):
        found = utf8.first[data[0]]
        for byte in data[1:]:
            found = utf8.more[found - utf8.kinds][byte - 0x80]
        return found

    for code in [*range(0x3000), *range(0x3000, 0x110000, 997), 0xFFFD, 0x10FFFF]:
        if not 0xD800 <= code < 0xE000:
            assert entry(chr(code).encode()) == kinds[code]
    for data in (b"\xe0\x9f", b"\xed\xa0", b"\xf0\x8f", b"\xf4\x90"):
        assert entry(data) == -1
    assert {utf8.first[byte] for byte in (0x80, 0xBF, 0xC0, 0xC1, 0xF5, 0xFF)} == {0}


# --- over tokens: every sequence of a few tokens, parts of characters among them

TOKENS = (b" cat", b"cat", b"s", b" ", b"\xc3", b"\xa9", b"", b"")  # the last is EOS, the one before it says nothing
VOCAB = Vocab(tuple(map(repr, range(8))), frozenset({7}))
STEPS = 3


def sequences():
    """Every draw of at most STEPS tokens, finished or cut."""
    for length in range(STEPS + 1):
        for said in itertools.product(range(7), repeat=length):
            yield from ([(*said, 7)] if length < STEPS else [said])


def walked(masks, said):
    """Whether the masks allow each token of a draw."""
    state = np.array([masks.start("")])
    for t, token in enumerate(said):
        if not masks.allowed(state, STEPS - t)[0, token]:
            return False
        state = masks.after(state, np.array([token]))
    return True


@pytest.mark.parametrize(
    "words", [Words(must=("cat",)), Words(never=("cat",)), Words(any_of=("é", "cats"), never=("cat",))]
)
def test_looking_ahead_allows_just_the_draws_that_are_kept(words):
    masks = lexical.masks(VOCAB, TOKENS, words, STEPS)
    for said in sequences():
        text = b"".join(TOKENS[i] for i in said).decode("utf-8", "replace")
        assert walked(masks, said) == wanted(words, text), (said, text)


def test_without_looking_ahead_a_draw_may_be_cut_before_its_word():
    words = Words(must=("cat",))
    masks = lexical.masks(VOCAB, TOKENS, words)
    allowed = {said for said in sequences() if walked(masks, said)}
    kept = {s for s in sequences() if wanted(words, b"".join(TOKENS[i] for i in s).decode("utf-8", "replace"))}
    assert kept < allowed
    assert all(len(said) == STEPS and 7 not in said for said in allowed - kept)


def test_words_that_tokens_cannot_spell(monkeypatch):
    with pytest.raises(UsageError, match=r"^the tokenizer cannot spell the word 'dog'$"):
        lexical.masks(VOCAB, TOKENS, Words(any_of=("cat", "dog")))
    with pytest.raises(UsageError, match="no draw of 1 tokens keeps these words"):
        lexical.masks(VOCAB, TOKENS, Words(any_of=("é",)), 1)
    with pytest.raises(UsageError, match="no draw keeps these words"):
        lexical.masks(VOCAB, TOKENS, Words(must=("cat",), never=("cat",)))
    monkeypatch.setattr(lexical, "MOST_STATES", 500)
    lexical._texts.cache_clear()  # another test may have made these
    with pytest.raises(UsageError, match="1 words take more than 500 states: give fewer words"):
        lexical._texts(Words(must=("sun",)))
    with pytest.raises(UsageError, match="needs at least one word"):
        Words()
