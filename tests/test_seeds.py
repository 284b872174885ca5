"""Seeds: a draw's uniforms are a function of entropy, stream, salt, prompt and index, and of nothing else."""

import ast
import subprocess
import sys
from collections import defaultdict
from hashlib import sha256
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest

import alignbench
from alignbench import seeds
from alignbench.seeds import (
    ACCEPT,
    ATTEMPT,
    CODES,
    EXAMPLES,
    PAIRS,
    PICK,
    PILOT,
    PLUGIN,
    POLICY,
    RESAMPLE,
    STREAMS,
    TIES,
    TRIES,
    USES,
    WATCHED,
    Seed,
    attempts,
)


def test_uniforms_are_what_the_design_says():
    """By numpy alone: SeedSequence([entropy, stream, sha256(prompt)[:8], index])."""
    digest = int.from_bytes(sha256(b"rain").digest()[:8], "big")
    expected = np.random.default_rng(np.random.SeedSequence([7, 4, digest, 3])).random((5, 2))
    assert np.array_equal(Seed(7).uniforms("rain", 3, 5), expected)
    assert np.array_equal(Seed(7).uniforms("rain", np.int64(3), 9)[:5], expected)  # a longer limit keeps the beginning


def test_golden_values():
    """Seed(0).rng("Once upon a time", 0).random(2) of version 0.1.0; a change orphans every stored draw."""
    assert Seed(0).rng("Once upon a time", 0).random(2).tolist() == [0.2504231575887109, 0.48348365757804623]


def words(*given):
    """The first uniform of these words, by numpy alone."""
    return np.random.default_rng(np.random.SeedSequence(given)).random()


def digest(prompt):
    return int.from_bytes(sha256(prompt.encode()).digest()[:8], "big")


def test_first_attempts_keep_the_words_of_version_0_1():
    """Entropy, stream, prompt, draw, and the salt alone where there is one: stored draws stay what they are."""
    for salt, draw in product((ACCEPT, TIES, RESAMPLE), (0, 5, ATTEMPT - 1)):
        assert Seed(7, "fit").rng("rain", draw).random() == words(7, 1, digest("rain"), draw)
        assert Seed(7, "fit").salted(salt).rng("rain", draw).random() == words(7, 1, digest("rain"), draw, salt)
    assert Seed(0).salted(ACCEPT).rng("Once upon a time", 0).random() == 0.5688195007333364


def test_further_attempts_say_their_salt_too():
    for attempt, salt in product((1, 2, TRIES - 1), (0, ACCEPT, RESAMPLE)):
        told = Seed(7).salted(salt).rng("rain", 5 + attempt * ATTEMPT).random()
        assert told == words(7, 4, digest("rain"), 5, attempt, salt)


USERS = {
    "tokens": (), "coins of rejection": (ACCEPT,), "ties": (TIES,), "ties of a best-of-n in it": (TIES, 1),
    "ties of the next": (TIES, 2), "coins of sir": (RESAMPLE,), "order of examples": (PICK,),
    "tokens of examples": (EXAMPLES,), "coins of examples": (EXAMPLES, ACCEPT), "ties of examples": (EXAMPLES, TIES),
    "a policy in training": (POLICY,), "a training that is watched": (WATCHED,), "control codes": (CODES,),
    "codes in a training": (WATCHED, CODES), "pairs of draws": (PAIRS,),
    "tokens of a pilot": (PILOT,), "a plug-in": (PLUGIN,), "coins in a plug-in": (PLUGIN, ACCEPT),
}  # fmt: skip
"""Who uses random numbers, and its salts, the outer first."""


def sharing():
    """Pairs of ((who, attempt), (who, attempt)) that have the uniforms of some draw in common."""
    users = defaultdict(set)
    for stream, (who, salts), prompt, draw, attempt in product(
        STREAMS, USERS.items(), ("", "rain"), range(4), range(6)
    ):
        seed = Seed(3, stream)
        for salt in salts:
            seed = seed.salted(salt)
        first = seed.rng(prompt, draw + attempt * ATTEMPT).random()
        users[first].add((who, attempt, stream, prompt, draw))
    pairs = {frozenset(pair) for same in users.values() for pair in combinations(sorted(same), 2)}
    return {frozenset((who, attempt) for who, attempt, *_ in pair) for pair in pairs}


def test_no_two_users_of_randomness_share_a_uniform():
    """Every use at every attempt, of every draw on every stream, beside every other."""
    assert sharing() == set()


def attempt_appended(self, prompt, index):
    attempt, draw = divmod(int(index), ATTEMPT)
    said = [self.entropy, STREAMS[self.stream], digest(prompt), draw]
    return np.random.default_rng([*said, *([attempt] if attempt else []), *([self.salt] if self.salt else [])])


def index_beyond(self, prompt, index):
    said = [self.entropy, STREAMS[self.stream], digest(prompt), int(index)]
    return np.random.default_rng([*said, *([self.salt] if self.salt else [])])


@pytest.mark.parametrize("planted", [attempt_appended, index_beyond])
def test_planted_an_attempt_that_stands_where_a_salt_would(planted, monkeypatch):
    """An attempt appended alone; an index beyond 2³², which numpy splits into two words."""
    monkeypatch.setattr(Seed, "rng", planted)
    found = sharing()
    assert frozenset({("tokens", 1), ("coins of rejection", 0)}) in found
    assert frozenset({("tokens", 3), ("coins of sir", 0)}) in found


def test_all_users_of_randomness_are_known_here():
    """Salts are given by their names in `seeds`, by how deep a sampler stands in others of its kind, or by plug-ins."""
    named = {name for name, value in vars(seeds).items() if name.isupper() and isinstance(value, int)}
    used = set()
    for path in Path(alignbench.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "salted":
                used.add(ast.unparse(node.args[0]))
    known = {name for name in named for salts in USERS.values() if getattr(seeds, name) in salts}
    assert used - {"self._depth", "salt"} <= known, "a use of randomness that `USERS` lacks"


@pytest.mark.parametrize("salt", [-1, USES])
def test_a_salt_has_its_range(salt):
    assert Seed(3).salted(0) == Seed(3)
    with pytest.raises(ValueError, match=r"^a salt is a whole number from 0 to 255$"):
        Seed(3).salted(salt)


def test_salts_in_salts_are_told_apart():
    depths = [Seed().salted(a).salted(b).salted(c).salt for a, b, c in product(range(1, 9), range(9), range(9)) if b]
    flat = [Seed().salted(a).salt for a in range(1, USES)]
    assert len({*depths, *flat}) == len(depths) + len(flat)


def test_attempts_are_numbered_apart_from_draws():
    assert attempts(np.array([0, 7]), 3).tolist() == [[0, 2**32, 2**33], [7, 7 + 2**32, 7 + 2**33]]
    assert attempts(np.array([7]), 2, first=1).tolist() == [[7 + 2**32, 7 + 2**33]]
    assert attempts(np.zeros(0, int), 3).shape == (0, 3)


def nested(draws, *counts):
    """Sample numbers that samplers, each of so many attempts and the outer first, ask of the innermost for `draws`."""
    for count in counts:
        draws = attempts(draws, count).ravel()
    return draws


@pytest.mark.parametrize("counts", [(4, 9), (9, 4), (1, 5), (5, 1), (3, 4, 5), (2, 2, 2, 2)])
def test_attempts_of_samplers_in_samplers_share_no_draw(counts):
    """Best-of-n over rejection: the i-th attempt at the t-th proposal is one draw and no other's."""
    asked = nested(np.arange(11), *counts)
    assert len(np.unique(asked)) == asked.size == 11 * np.prod(counts)
    assert np.array_equal(np.unique(asked % ATTEMPT), np.arange(11)), "they stay attempts at the same draws"
    assert np.array_equal(np.sort(asked), np.sort(nested(np.arange(11), int(np.prod(counts))))), "and leave no gap"


def test_planted_inner_attempts_that_begin_at_the_outer_one(monkeypatch):
    """Numbered a + t, those of neighbouring proposals overlap."""
    outer = attempts(np.arange(11), 4).ravel()
    planted = (outer[:, None] + np.arange(9) * ATTEMPT).ravel()
    assert len(np.unique(planted)) < planted.size


def test_attempts_made_in_rounds_are_those_made_at_once():
    """Planted: numbered by the round's own count instead of the most that there may be."""
    draws = attempts(np.arange(3), 4).ravel()
    rounds = np.concatenate([attempts(draws, count, first, 9) for first, count in ((0, 2), (2, 1), (3, 6))], axis=1)
    assert np.array_equal(rounds, attempts(draws, 9))
    planted = np.concatenate([attempts(draws, count, first) for first, count in ((0, 2), (2, 1), (3, 6))], axis=1)
    assert len(np.unique(planted)) < planted.size


def test_more_attempts_than_there_are_numbers_for_are_refused():
    last = attempts(np.array([ATTEMPT - 1]), 1, first=TRIES - 1)
    assert last.item() == 2**63 - 1 and Seed().rng("a", last.item()).random() != Seed().rng("a", ATTEMPT - 1).random()
    for draw, count, first in ((0, 1, TRIES), (2**20 * ATTEMPT, 2**12, 0), (0, TRIES + 1, 0)):
        with pytest.raises(ValueError, match=r"^more than 2147483648 attempts at one draw: nest fewer samplers"):
            attempts(np.array([draw]), count, first)
    for most in (2**40, 10**30):  # planted bug: a product that wraps around, and is small or negative
        assert attempts(np.array([7]), 1, 3, most).item() == 7 + 3 * ATTEMPT
        with pytest.raises(ValueError, match=r"^more than 2147483648 attempts"):
            attempts(np.array([(TRIES - 1) * ATTEMPT]), 1, 0, most)


def test_nothing_is_shared_between_entropy_stream_salt_prompt_and_index():
    seen = {
        Seed(e, s, salt).rng(p, i).random()
        for e, s, salt, p, i in product((0, 1), STREAMS, (0, 1, 2), ("", "a", "b"), (0, 1))
    }
    assert len(seen) == 2 * len(STREAMS) * 3 * 3 * 2


def test_on_and_salted_change_one_thing():
    seed = Seed(3, "ref")
    assert seed.on("fit") == Seed(3, "fit") and seed.salted(2) == Seed(3, "ref", 2) and seed == Seed(3, "ref")


def test_the_same_in_another_process():
    """Planted bug: Python's salted `hash`."""
    code = "from alignbench.seeds import Seed; print(Seed(1).rng('é', 2).random())"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(other.stdout) == Seed(1).rng("é", 2).random()


@pytest.mark.parametrize("wrong", [{"stream": "test"}, {"entropy": -1}, {"salt": -1}])
def test_what_is_no_seed_is_refused(wrong):
    with pytest.raises(ValueError, match=r"unknown stream 'test'; known: ref|integers >= 0"):
        Seed(**wrong)


def test_streams_keep_their_numbers():
    assert STREAMS == {"ref": 0, "fit": 1, "heldout": 2, "train": 3, "own": 4}
