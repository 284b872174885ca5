"""Token masks from a regular expression: an automaton over bytes, lifted to whatever the tokens spell.

The expression means what Python's ``re.fullmatch`` says of a draw's text. Its automaton is built by outlines-core over
single bytes (over 49,152 tokens ``.{0,100}`` took 1.1 GB; over bytes it takes 2 MB), and tokens walk through it: 1 to
4 ms for each state.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from typing import Any

import numpy as np

from alignbench.errors import UsageError, brief
from alignbench.generators.base import Vocab
from alignbench.types import Array

END = "\U0010ffff"  # put after the pattern; a noncharacter, which no text has
MOST_STATES = 20_000  # 8 MB of distances a million pairs; beyond, a pattern is refused
MOST_CHARACTERS = 1000  # of a pattern written out: ``.{0,1000}`` is 19,000 states over bytes
REFUSED = {
    "ASSERT": "looks ahead or behind", "ASSERT_NOT": "looks ahead or behind",
    "AT": "has an anchor (the whole draw is matched: leave ^ and $ out)",
    "GROUPREF": "refers back to a group", "GROUPREF_EXISTS": "refers back to a group",
    "ATOMIC_GROUP": "has an atomic group", "POSSESSIVE_REPEAT": "has a possessive repetition",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Regular:
    """The masks of a regular expression; a state is a state of its automaton over bytes, the last one is dead.

    `first`: what follows a match is free, so that a text is kept from its first match on. `lookahead`: tokens are
    masked after which no match fits in the tokens left; a draw that is cut in a match counts as one.
    """

    vocab: Vocab
    spelt: tuple[bytes, ...]
    pattern: str
    include_prompt: bool = False
    first: bool = False
    lookahead: bool = False

    def __post_init__(self) -> None:
        if not self.include_prompt and np.isinf(self._least[self._first]):
            said = {byte for token in self.spelt for byte in token}
            lacking = "".join(chr(byte) for byte in sorted(self._bytes - said) if byte < 0x80)
            why = f" (none of them has {brief(lacking)})" if lacking else ""
            raise UsageError(f"regex {brief(self.pattern)}: no text that the tokens spell matches it{why}")

    def identity(self) -> Mapping[str, Any]:
        """See `Masks.identity`."""
        return {"kind": "regex", "regex": self.pattern, "include_prompt": self.include_prompt, "first": self.first,
                "lookahead": self.lookahead, "vocab": self.vocab.fingerprint}  # fmt: skip

    def start(self, prompt: str) -> int:
        """See `Masks.start`; raises UsageError where a prompt that is to match already cannot."""
        if not self.include_prompt:
            return self._first
        state = self._first
        for byte in prompt.encode("utf-8", "surrogatepass"):
            state = int(self._table[state, byte])
        if np.isinf(self._least[state]):
            raise UsageError(f"regex {brief(self.pattern)}: nothing after the prompt {brief(prompt)} can match")
        return state

    def after(self, states: Array, tokens: Array) -> Array:
        """See `Masks.after`."""
        return self._walked(np.asarray(states), np.asarray(tokens))

    def allowed(self, states: Array, left: int) -> Array:
        """See `Masks.allowed`."""
        most = max(left - 1, 0) if self.lookahead else sys.maxsize
        distinct, which = np.unique(np.asarray(states), return_inverse=True)
        rows = self._least[np.stack([self._row(int(state)) for state in distinct])] <= most
        rows[:, sorted(self.vocab.eos)] = self._accepting[distinct, None]
        return np.asarray(rows[which])

    @cached_property
    def _automaton(self) -> tuple[Array, Array, int]:
        return _automaton(self.pattern, self.first)

    @property
    def _table(self) -> Array:
        return self._automaton[0]

    @property
    def _accepting(self) -> Array:
        return self._automaton[1]

    @property
    def _first(self) -> int:
        return self._automaton[2]

    @property
    def _bytes(self) -> set[int]:
        """Bytes that lead anywhere."""
        return set(np.flatnonzero((self._table != len(self._table) - 1).any(0)).tolist())

    @cached_property
    def _texts(self) -> tuple[Array, Array]:
        """(V, longest) bytes of each token and (V,) how many; a token without text has none."""
        length = np.array([len(token) for token in self.spelt])
        table = np.zeros((len(length), max(int(length.max()), 1)), dtype=np.uint8)
        for i, token in enumerate(self.spelt):
            table[i, : len(token)] = np.frombuffer(token, dtype=np.uint8)
        return table, length

    def _walked(self, states: Array, tokens: Array) -> Array:
        """(R,) states after the bytes of a token (R,) in each; dead after a token without text."""
        table, length = self._texts
        dead = len(self._table) - 1
        reached = np.where(length[tokens] > 0, states, dead)
        going = np.flatnonzero(reached != dead)
        for t in range(table.shape[1]):
            going = going[(length[tokens[going]] > t) & (reached[going] != dead)]
            if not going.size:
                break
            reached[going] = self._table[reached[going], table[tokens[going], t]]
        return reached

    @cached_property
    def _row(self) -> Callable[[int], Array]:
        """State → (V,) the state after each token; 200 KB each for 49,152 tokens, the last 256 kept."""
        every = np.arange(len(self.vocab))
        return lru_cache(maxsize=256)(lambda state: self._walked(np.full(len(every), state), every).astype(np.int32))

    @cached_property
    def _least(self) -> Array:
        """(S,) the least tokens from each state to a match; infinite where these tokens reach none."""
        states = len(self._table)
        before: list[list[int]] = [[] for _ in range(states)]
        for state in range(states - 1):
            for reached in np.flatnonzero(np.bincount(self._row(state), minlength=states)[:-1]):
                before[reached].append(state)
        least = np.where(self._accepting, 0.0, np.inf)
        edge = np.flatnonzero(self._accepting).tolist()
        while edge:  # breadth first, backwards
            step = least[edge[0]] + 1
            edge = [state for state in {s for e in edge for s in before[e]} if least[state] > step]
            least[edge] = step
        return least


def _automaton(pattern: str, first: bool) -> tuple[Array, Array, int]:
    """(S, 256) state after each byte, (S,) whether a text may end there, and the first state; the last state is dead.

    A pattern means all of its matches: outlines-core alone stops at the first alternative (``a|ab`` never says ab), so
    END is put after it, and a text matches where END may follow.
    """
    try:
        from outlines_core import Index, Vocabulary
    except ImportError:
        raise UsageError("regex needs outlines-core: pip install 'alignbench[constrained]'") from None
    plain = f"(?:{translated(pattern)}){END}"
    try:
        index = Index(plain, Vocabulary(256, {bytes([byte]): [byte] for byte in range(256)}))
    except ValueError as error:
        nothing = "Found no transitions" in str(error)
        why = "nothing matches it, or a part of it" if nothing else f"no automaton of it ({brief(str(error))})"
        raise UsageError(f"regex {brief(pattern)}: {why}") from None
    number = {state: i for i, state in enumerate(index.get_transitions())}
    table, accepting = _dense(index, number)
    if first:
        table[accepting] = np.flatnonzero(accepting)[:, None]
    return table, accepting, number[index.get_initial_state()]


def _dense(index: Any, number: Mapping[int, int]) -> tuple[Array, Array]:
    dead = len(number)
    if dead > MOST_STATES:
        raise UsageError(f"regex: its automaton has {dead} states; at most {MOST_STATES} are followed")
    table = np.full((dead + 1, 256), dead, dtype=np.int32)
    for state, row in index.get_transitions().items():
        for byte, after in row.items():
            if byte < 256:  # 256 is its end of text
                table[number[state], byte] = number[after]
    ended = np.arange(dead + 1)
    for byte in END.encode():
        ended = table[ended, byte]
    return table, np.isin(ended, [number[state] for state in index.get_final_states()])


def translated(pattern: str) -> str:
    """`pattern` as Python reads it, in the plainest syntax: escaped characters, classes as ranges, groups.

    Python's own parser reads it, so that classes, flags and escapes mean what `matches` says of them; only case
    folding is outlines-core's. Raises UsageError on what is no regular expression, and on what no automaton can do.
    """
    from re import _parser  # type: ignore[attr-defined]  # the one reader that agrees with `re`

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sets such as [[a], which Python reads as sets of characters
            re.compile(pattern)
            parsed = _parser.parse(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise UsageError(f"regex {brief(pattern)} is no regular expression: {error}") from None
    if _size(parsed) > MOST_CHARACTERS:
        raise UsageError(f"regex {brief(pattern)}: its repetitions spell out more than {MOST_CHARACTERS} characters")
    try:
        return _sequence(parsed, parsed.state.flags)
    except _Irregular as error:
        raise UsageError(f"regex {brief(pattern)} {error}; no automaton over tokens can follow that") from None


class _Irregular(Exception):
    """What a pattern has that no automaton follows."""


def _size(nodes: Iterable[tuple[Any, Any]]) -> int:
    """Characters of a pattern whose limited repetitions are written out."""
    total = 0
    for kind, value in nodes:
        if str(kind) in ("MAX_REPEAT", "MIN_REPEAT"):
            total += max(value[0] if str(value[1]) == "MAXREPEAT" else value[1], 1) * _size(value[2])
        else:
            inner = value[1] if str(kind) == "BRANCH" else [value[3]] if str(kind) == "SUBPATTERN" else ()
            total += sum(map(_size, inner)) if inner else 1
    return total


def _sequence(nodes: Iterable[tuple[Any, Any]], flags: int) -> str:
    return "".join(_node(str(kind), value, flags) for kind, value in nodes)


def _node(kind: str, value: Any, flags: int) -> str:
    if kind in REFUSED:
        raise _Irregular(REFUSED[kind])
    if kind in ("MAX_REPEAT", "MIN_REPEAT"):
        least, most, repeated = value
        limit = "" if str(most) == "MAXREPEAT" else most
        return f"(?:{_sequence(repeated, flags)}){{{least},{limit}}}"
    if kind == "BRANCH":
        return f"(?:{'|'.join(_sequence(branch, flags) for branch in value[1])})"
    if kind == "SUBPATTERN":
        _, added, removed, inner = value
        return f"(?:{_sequence(inner, (flags | added) & ~removed)})"
    if kind == "ANY":
        return "(?s:.)" if flags & re.DOTALL else r"[^\n]"
    if flags & re.ASCII and flags & re.IGNORECASE:  # outlines-core takes \u212a, the sign of kelvins, for a k even so
        raise _Irregular("has the flags a and i at once")
    return f"(?{'i' if flags & re.IGNORECASE else ''}:{_characters(kind, value, flags)})"


def _characters(kind: str, value: Any, flags: int) -> str:
    """One character of a set; `kind` is LITERAL, NOT_LITERAL or IN."""
    if kind != "IN":
        return f"[{'^' if kind == 'NOT_LITERAL' else ''}{_escaped(value)}]"
    return f"[{''.join(_member(str(part), of, flags) for part, of in value)}]"


def _member(kind: str, value: Any, flags: int) -> str:
    if kind == "NEGATE":
        return "^"
    if kind == "RANGE":
        return f"{_escaped(value[0])}-{_escaped(value[1])}"
    return _category(str(value), bool(flags & re.ASCII)) if kind == "CATEGORY" else _escaped(value)


def _escaped(code: int) -> str:
    return f"\\x{{{code:X}}}"


@cache
def _category(name: str, ascii_only: bool) -> str:
    r"""Python's \d, \s, \w or the opposite of one, as ranges of characters."""
    letter = name.removeprefix("CATEGORY_").removeprefix("NOT_")[0].lower()
    runs = re.findall(rf"\{letter}+", _every_character(), re.ASCII if ascii_only else 0)
    found = "".join(f"{_escaped(ord(run[0]))}-{_escaped(ord(run[-1]))}" for run in runs)
    return f"[{'^' if 'NOT_' in name else ''}{found}]"


@cache
def _every_character() -> str:
    return "".join(map(chr, (*range(0xD800), *range(0xE000, sys.maxunicode + 1))))
