"""The table of bugs that `tests/bench/mutants.py` plants is up to date: each stands where it says, and is Python."""

import ast
import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "bench"))

import mutants

FEWEST = {"stats": 30, "generators": 25, "aligners": 20, "metrics": 20, "reports": 25, "store": 15}
TABLE = mutants.table()


def test_each_bug_stands_once_where_the_table_says():
    """A line that has changed is to be found again, else nothing is planted."""
    stale = {f"{m.file}: {m.bug}": found for m in TABLE if (found := mutants.occurrences(m)) != 1}
    assert stale == {}


@pytest.mark.parametrize("file", sorted({m.file for m in TABLE}))
def test_each_bug_is_python(file):
    for mutant in TABLE:
        if mutant.file == file:
            ast.parse(mutants.planted(mutant))


def test_every_room_has_bugs():
    rooms = Counter(m.file.partition("/")[0] for m in TABLE)
    assert len(TABLE) >= 150 and all(rooms[room] >= least for room, least in FEWEST.items()), rooms


def test_every_file_with_bugs_has_tests_that_are_its_own():
    """Those that mirror it, import it, or are said in `mutants.KNOWN` to cover it."""
    first = {mutant.file: mutant for mutant in TABLE}
    assert [file for file, mutant in first.items() if not mutants.near(mutant)] == []
