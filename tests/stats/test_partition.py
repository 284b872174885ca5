"""Which cells draws of p and of π fill: ten of each in every prompt, dependent draws counted once."""

from __future__ import annotations

import numpy as np

from alignbench.stats.divergences import Sample
from alignbench.stats.partition import EACH, celled


def cells_of(ref, own, own_group=None):
    """Cells of one prompt by codes, all draws of p alike."""
    ref, own = np.asarray(ref), np.asarray(own)
    zero, one = np.zeros(ref.size), np.zeros(ref.size, int)
    sample = Sample(one, zero, zero, zero)
    return celled(sample, ref, np.zeros(own.size, int), own, own_group, coarse=False)


def codes(*counts):
    return np.repeat(np.arange(len(counts)), counts)


def test_a_cell_needs_ten_draws_of_p_and_ten_own():
    assert EACH == 10
    full = cells_of(codes(20, 20, 20), codes(20, 20, 20))
    assert full.count == 3 and not full.coarse and not full.refused
    for ref, own in (((9, 20, 20), (20, 20, 20)), ((20, 20, 20), (9, 20, 20)), ((1, 20, 20), (20, 20, 20))):
        joined = cells_of(codes(*ref), codes(*own))
        assert joined.refused or (joined.count < 3 and joined.coarse), (ref, own)


def test_own_draws_of_one_group_count_once():
    """Twenty copies of two draws are two."""
    own = codes(20, 20, 20)
    alone, copied = np.arange(own.size), np.arange(own.size) // 10
    assert cells_of(codes(20, 20, 20), own, alone).count == 3
    some = cells_of(codes(20, 20, 20), own, copied)
    assert some.refused or (some.count < 3 and some.coarse)
