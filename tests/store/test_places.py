"""Where draws are: found again by prompt and sample number, the last place of each, in arrays once they are many."""

import sys

import numpy as np
import pytest

from alignbench.seeds import ATTEMPT
from alignbench.store import places
from alignbench.store.places import Places


@pytest.mark.parametrize("recent", [3, 10_000])
def test_each_row_is_found_at_its_last_place(monkeypatch, recent):
    monkeypatch.setattr(places, "RECENT", recent)
    held, by_hand, rng = Places(), {}, np.random.default_rng(0)
    for part in range(40):
        rows = [(f"prompt {c}", int(i) + int(t) * ATTEMPT) for c, i, t in rng.integers(0, (3, 20, 4), size=(5, 3))]
        rows = list(dict.fromkeys(rows))
        held.add(rows, part)
        by_hand |= {row: (part, position) for position, row in enumerate(rows)}
        if part % 7 == 6:
            held.forget(part - 3)
            by_hand = {row: place for row, place in by_hand.items() if place[0] != part - 3}
    for c in range(4):
        index = np.array([i + t * ATTEMPT for i in range(20) for t in range(4)])
        expected = [by_hand.get((f"prompt {c}", i), (-1, -1)) for i in index.tolist()]
        assert held.find(f"prompt {c}", index).tolist() == [list(place) for place in expected]


def test_a_hundred_thousand_rows_take_little_memory():
    held = Places()
    for part in range(400):
        held.add([("rain", part * 256 + i) for i in range(256)], part)
    assert sum(table.nbytes for table in held.settled.values()) + sys.getsizeof(held.recent) < 4e6
