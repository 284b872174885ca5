"""Words that must or must not be said, as an automaton over bytes, and from it over a tokenizer's tokens.

Three machines, one inside the other: `_Matcher` follows the words from character to character, `Utf8` puts characters
together from bytes, and a token is a walk over its bytes. Words, their ends and case are those of the feature
`contains_any`; a text is read as if composed (NFC): a letter and a combining mark in two characters stay two.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property, lru_cache, reduce
from typing import Any
from unicodedata import normalize

import numpy as np

from alignbench.errors import UsageError
from alignbench.generators.base import Vocab
from alignbench.types import Array

MOST_BYTES = 2**30
"""A larger table of states by tokens is refused."""
MOST_STATES = 50_000
"""More, most of them inside a character, are refused."""
BLOCK = 64
"""States whose tokens are walked at once."""
SPACE = " "
"""In a word: white space, one character or more."""
OTHER, LETTER, BLANK = 0, 1, 2
"""Characters that no word has: white space, what belongs to a word (letters, digits, _), and all else."""
ANY, NEVER = -1, -2
"""What a word is said for, where it is not one of those that must be said."""
Symbol = int | str
"""A character that a word has, else `OTHER`, `LETTER` or `BLANK`."""
Item = tuple[int, int]
"""A word under way, and how much of it has been said."""
State = tuple[bool, frozenset[Item], frozenset[int]]
"""Whether the last character was a letter, the words under way, and what has been said of what must be."""


@dataclass(frozen=True)
class Words:
    """Words, or phrases, that a draw must say (each; any one) and never says, as the feature `contains_any` finds them.

    Raises UsageError where there are none, or one is empty.
    """

    must: tuple[str, ...] = ()
    any_of: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    ignore_case: bool = False

    def __post_init__(self) -> None:
        if not self.every:
            raise UsageError("needs at least one word")
        if not all(word.strip() for word in self.every):
            raise UsageError("has an empty word, which every text contains")

    @property
    def every(self) -> tuple[str, ...]:
        """All words: `must`, then `any_of`, then `never`."""
        return (*self.must, *self.any_of, *self.never)

    @property
    def purposes(self) -> tuple[int, ...]:
        """What each word is said for: the number of one that must be, `ANY` or `NEVER`."""
        return (*range(len(self.must)), *[ANY] * len(self.any_of), *[NEVER] * len(self.never))

    def folded(self, text: str) -> str:
        """The text as the features compare it: composed, and without case if that is ignored."""
        composed = normalize("NFC", text)
        return normalize("NFC", composed.casefold()) if self.ignore_case else composed


@dataclass(frozen=True, eq=False)
class Lexical:
    """The tokens after which the words can still be kept, in `lookahead` tokens if given, else in any number.

    A draw, finished or cut, is kept where its text keeps the words. State 0 is the first. A token that does not begin
    inside a character leads from a state there to where it leads from `outside` that character: `rows` has it; what
    the few others do, which go on with a character or say nothing, is in `parts`.
    """

    vocab: Vocab
    words: Words
    lookahead: int | None
    texts: _Texts
    rows: Array  # (M, V) int32 states after each token, from the states between characters
    parts: Array  # (S, N) int32 states after the tokens that `column` names
    column: Array  # (V,) place of a token in `parts`, -1: it has none

    def __post_init__(self) -> None:
        if not self._live[-1, 0]:
            budget = "" if self.lookahead is None else f" of {self.lookahead} tokens"
            raise UsageError(f"no draw{budget} keeps these words")

    def identity(self) -> Mapping[str, Any]:
        """The words."""
        return {"kind": "lexical", **asdict(self.words)}

    def start(self, prompt: str) -> int:
        """0: as for the feature, what the prompt says does not count, and a word may begin where it ends."""
        return 0

    def after(self, states: Array, tokens: Array) -> Array:
        """See `Masks.after`."""
        column = self.column[tokens]
        return np.where(column < 0, self.rows[self.texts.outside[states], tokens], self.parts[states, column])

    def allowed(self, states: Array, left: int) -> Array:
        """See `Masks.allowed`."""
        live = self._live[-1 if self.lookahead is None else max(left - 1, 0)]
        allowed = np.asarray(live[self.rows[self.texts.outside[states]]])
        allowed[:, self.column >= 0] = live[self.parts[states]]
        allowed[:, sorted(self.vocab.eos)] = self.texts.kept[states, None]
        return allowed

    @cached_property
    def _live(self) -> Array:
        """(1 or lookahead + 1, S) bool, by tokens left: from where a draw can still be kept."""
        leads = np.zeros((len(self.rows), len(self.parts)), dtype=bool)
        for lead, row in zip(leads, self.rows, strict=True):
            lead[row[self.column < 0]] = True
        live: list[Array] = [self.texts.kept]
        while self.lookahead is None or len(live) <= self.lookahead:
            between = np.asarray((leads & live[-1]).any(1))
            live.append(self.texts.kept | between[self.texts.outside] | live[-1][self.parts].any(1))
            if self.lookahead is None and (live[-1] == live[-2]).all():
                return np.stack(live[-1:])
        return np.stack(live)


def masks(vocab: Vocab, token_bytes: Sequence[bytes], words: Words, lookahead: int | None = None) -> Lexical:
    """Masks that keep `words`; with `lookahead` = max_tokens also tokens go that leave too few to say them in.

    A token without bytes says nothing. Raises UsageError where tokens cannot spell a word, or no draw keeps the words.
    """
    for word in dict.fromkeys((*words.must, *words.any_of)):
        _refuse_unspelt(vocab, token_bytes, Words(must=(word,), ignore_case=words.ignore_case))
    return _masks(vocab, token_bytes, words, lookahead)


def _refuse_unspelt(vocab: Vocab, token_bytes: Sequence[bytes], word: Words) -> None:
    """Raise UsageError where no tokens say the word; where each of its bytes is one, they do."""
    if set(word.must[0].encode()) <= {text[0] for text in token_bytes if len(text) == 1}:
        return
    try:
        _masks(vocab, token_bytes, word, None)
    except UsageError:
        raise UsageError(f"the tokenizer cannot spell the word '{word.must[0]}'") from None


def _masks(vocab: Vocab, token_bytes: Sequence[bytes], words: Words, lookahead: int | None) -> Lexical:
    texts = _texts(words)
    between = np.flatnonzero(texts.outside == np.arange(len(texts.outside)))
    if len(between) * len(vocab) * 4 > MOST_BYTES:
        raise UsageError(f"{len(words.every)} words take {len(between):,} states of {len(vocab):,} tokens: give fewer")
    within = [i for i, text in enumerate(token_bytes) if not text or text[0] & 0xC0 == 0x80] or [0]  # never none
    column = np.full(len(vocab), -1)
    column[within] = np.arange(len(within))
    rows = _walked(between, texts.after, token_bytes)
    parts = _walked(np.arange(len(texts.outside)), texts.after, [token_bytes[i] for i in within])
    number = np.zeros(len(texts.outside), dtype=int)
    number[between] = np.arange(len(between))
    return Lexical(vocab, words, lookahead, replace(texts, outside=number[texts.outside]), rows, parts, column)


def _walked(states: Array, after: Array, token_bytes: Sequence[bytes]) -> Array:
    """(n, V) int32 the state after the bytes of each token, from each of `states` (n,)."""
    found = np.tile(states.astype(np.int32)[:, None], (1, len(token_bytes)))
    size = np.array([len(text) for text in token_bytes])
    for k in range(int(size.max(initial=0))):
        longer = np.flatnonzero(size > k).tolist()
        byte = np.array([token_bytes[i][k] for i in longer])
        for begin in range(0, len(found), BLOCK):
            part = found[begin : begin + BLOCK]
            part[:, longer] = after[part[:, longer], byte]
    return found


@dataclass(frozen=True)
class _Texts:
    """The words followed through a text byte by byte; what is no character reads as U+FFFD, as it is decoded."""

    after: Array  # (S, 256) int32 states after each byte
    outside: Array  # (S,) the state after what has begun is cut short: the same, between characters
    kept: Array  # (S,) bool: whether a text that ends here keeps the words


@lru_cache(maxsize=32)
def _texts(words: Words) -> _Texts:
    """A state is a place in UTF-8 (-1: between characters) with the matcher's states after each kind that may follow.

    The first of these is that after U+FFFD, or between characters the matcher's own. Raises UsageError above
    `MOST_STATES`.
    """
    matcher = _Matcher(words)
    utf8 = Utf8(matcher.kinds)
    number: dict[tuple[int, tuple[int, ...]], int] = {}
    todo: list[tuple[int, tuple[int, ...]]] = []

    def numbered(place: int, states: tuple[int, ...]) -> int:
        if (place, states) not in number:
            number[place, states] = len(todo)
            todo.append((place, states))
        return number[place, states]

    def into(entry: int, after: Mapping[int, int] | Sequence[int]) -> int:
        """The state that an entry of `utf8` leads to, given the matcher's state after each kind."""
        if entry < utf8.kinds:
            return numbered(-1, (after[entry],))
        return numbered(entry - utf8.kinds, tuple(after[kind] for kind in utf8.reach[entry - utf8.kinds]))

    numbered(-1, (0,))
    rows, outside, begun = [], [], dict[int, list[int]]()
    for place, states in todo:  # grows while it is walked
        outside.append(numbered(-1, states[:1]))
        if states[0] not in begun:
            begun[states[0]] = [into(entry, matcher.after(states[0])) for entry in utf8.first]
        row = list(begun[states[0]])
        if place >= 0:  # a byte that cannot go on begins anew, after U+FFFD
            after = dict(zip(utf8.reach[place], states, strict=True))
            goes_on = enumerate(utf8.more[place], 0x80)
            row[0x80:0xC0] = [row[byte] if entry < 0 else into(entry, after) for byte, entry in goes_on]
        rows.append(row)
        if len(todo) > MOST_STATES:
            raise UsageError(f"{len(matcher.names)} words take more than {MOST_STATES:,} states: give fewer words")
    kept = np.array([matcher.keeps(states[0]) for _, states in todo])
    return _Texts(np.array(rows, dtype=np.int32), np.array(outside), kept)


class Utf8:
    """How bytes make characters, each of a kind, a whole number; kind 0 is that of U+FFFD.

    An entry below `kinds` is a kind, one from there on a place inside a character (its number plus `kinds`), -1 a byte
    that cannot go on. `first` has the entries of the 256 bytes between characters, `more` of the 64 continuation bytes
    at each place, `reach` the kinds that may come of a place, 0 first.
    """

    def __init__(self, kinds: Array) -> None:
        self.kinds = int(kinds.max()) + 1
        self.more: list[list[int]] = []
        self.reach: list[tuple[int, ...]] = []
        self._known: dict[tuple[int, ...], int] = {}
        two = self._places(kinds)
        three = [two[i : i + 64] for i in range(0, len(two), 64)]
        three[0] = [-1] * 32 + three[0][32:]  # shorter ways to say the same are no UTF-8
        three[0x0D] = three[0x0D][:32] + [-1] * 32  # nor are surrogates
        four = self._places(np.array(three))
        heads = self._places(np.array([-1] * 16 + four[16:] + [-1] * 48))  # U+10000 … U+10FFFF, after F0 … F4
        self.first = [*kinds[:0x80].tolist(), *[0] * 0x42, *two[2:32], *four[:16], *heads, *[0] * 11]

    def _places(self, rows: Array) -> list[int]:
        """The entries of rows of 64 entries each; equal rows are one place."""
        return [self._place(tuple(row)) for row in rows.reshape(-1, 64).tolist()]

    def _place(self, row: tuple[int, ...]) -> int:
        if row not in self._known:
            self._known[row] = len(self.more) + self.kinds
            self.more.append(list(row))
            deep = [self.reach[e - self.kinds] if e >= self.kinds else (e,) for e in set(row) if e >= 0]
            self.reach.append((0, *sorted({kind for several in deep for kind in several} - {0})))
        return self._known[row]


class _Matcher:
    """The words as they are said, character by character; its states are numbered as they are met, 0 is the first."""

    def __init__(self, words: Words) -> None:
        self.words, self.purposes = words, words.purposes
        self.names = [tuple(SPACE.join(words.folded(word).split())) for word in words.every]
        self.wanted = frozenset(self.purposes) - {NEVER}
        self.named = {char for name in self.names for char in name} - {SPACE}
        self.symbols: dict[tuple[Symbol, ...], int] = {}
        self.kinds = self._kinds()
        self.states: list[State | None] = [(False, frozenset(), frozenset())]
        self.number: dict[State | None, int] = {self.states[0]: 0}
        self.rows: dict[int, list[int]] = {}

    def _kinds(self) -> Array:
        """(0x110000,) the kind of each character: the symbols that it is when folded."""
        self._kind("\ufffd")  # is kind 0
        kinds = np.array([self._kind((kind,)) for kind in (OTHER, LETTER, BLANK)])[_classes()]
        for char in self.named | _changed(self.words.ignore_case):
            kinds[ord(char)] = self._kind(self.words.folded(char))
        return np.asarray(kinds)

    def _kind(self, chars: Sequence[Symbol]) -> int:
        symbols = tuple(c if isinstance(c, int) or c in self.named else int(_classes()[ord(c)]) for c in chars)
        return self.symbols.setdefault(symbols, len(self.symbols))

    def after(self, number: int) -> list[int]:
        """The numbers of the states after each kind of character."""
        if number not in self.rows:
            self.rows[number] = [self._numbered(self._said(self.states[number], kind)) for kind in self.symbols]
        return self.rows[number]

    def _numbered(self, state: State | None) -> int:
        if state not in self.number:
            self.number[state] = len(self.states)
            self.states.append(state)
        return self.number[state]

    def _said(self, state: State | None, symbols: tuple[Symbol, ...]) -> State | None:
        return reduce(self._step, symbols, state)

    def keeps(self, number: int) -> bool:
        """Whether a draw that ends here is kept."""
        ended = self._step(self.states[number], BLANK)
        return ended is not None and ended[2] == self.wanted

    def _step(self, state: State | None, symbol: Symbol) -> State | None:
        """The state after a character; None where a word was said that never is."""
        if state is None:
            return None
        after_letter, items, said = state
        kind = symbol if isinstance(symbol, int) else int(_classes()[ord(symbol)])
        ended = {self.purposes[k] for k, i in items if i == len(self.names[k])} if kind != LETTER else set()
        if NEVER in ended:
            return None
        said |= ended
        waiting = [k for k, purpose in enumerate(self.purposes) if purpose not in said]
        under_way = set(items) if after_letter else {*items, *((k, 0) for k in waiting)}
        going = frozenset(
            item for k, i in under_way if k in waiting for item in _further((k, i), self.names[k], symbol, kind)
        )
        return (kind == LETTER and bool(waiting), going, said)


def _further(item: Item, name: tuple[str, ...], symbol: Symbol, kind: int) -> Iterator[Item]:
    """Where a word is after one more character, if it still is under way."""
    word, at = item
    if at < len(name) and (kind == BLANK if name[at] == SPACE else symbol == name[at]):
        yield word, at + 1
    if at and name[at - 1] == SPACE and kind == BLANK:
        yield item


@cache
def _classes() -> Array:
    """(0x110000,) `LETTER`, `BLANK` or `OTHER` of each character, as regular expressions see it."""
    text = "".join(map(chr, range(0x110000)))
    found = np.full(0x110000, OTHER)
    for pattern, kind in ((r"\w+", LETTER), (r"\s+", BLANK)):
        for match in re.finditer(pattern, text):
            found[match.start() : match.end()] = kind
    return found


@cache
def _changed(ignore_case: bool) -> frozenset[str]:
    """The characters that folding changes."""
    words = Words(("-",), ignore_case=ignore_case)
    return frozenset(c for c in map(chr, range(0x110000)) if not 0xD800 <= ord(c) < 0xE000 and words.folded(c) != c)
