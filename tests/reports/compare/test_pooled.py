"""Rows that select from one pool: differences and ranks are covered, and as narrow as what they share allows.

More seeds, rows and numbers of this are in tests/bench/pooled_differences.py.
"""

from __future__ import annotations

import numpy as np
import pytest
from pooled_world import CAPPED, PooledWorld, compared, rows_of_evidence, table

from alignbench.metrics import replicates
from alignbench.stats.ranks import ranks, tied
from alignbench.types import Array, Scored

SEEDS, EACH = 20, 48
ROWS = ("base", "rejection", CAPPED)
METRICS = ("satisfaction", "features", "acceptance")
ALIKE = ("rejection", CAPPED, "features.windy")
"""What both accept is the same draw: most of the error cancels."""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return PooledWorld(tmp_path_factory.mktemp("pooled"), soft=False, cap=4)


@pytest.fixture(scope="module")
def evidence(world):
    """The evidence of each row, by seed."""
    return [world.evidence(seed, EACH, ROWS) for seed in range(SEEDS)]


def measured(evidence):
    """By seed, each row's evidence and numbers."""
    return [{n: (e, rows_of_evidence(n, e, EACH, METRICS)) for n, e in of_seed.items()} for of_seed in evidence]


def estimates(found):
    """(first, other, number) → the difference with its interval, by seed."""
    told = {}
    for of_seed in found:
        for first, other, number, got in compared(of_seed):
            told.setdefault((first, other, number), []).append(got)
    return told


@pytest.fixture(scope="module")
def found(evidence):
    return measured(evidence)


def test_differences_of_rows_that_share_draws_are_covered(world, found):
    truth, told = world.truth(), estimates(found)
    numbers = {"satisfaction.always", "features.windy", "features.rainy", "features.words"}
    apart = [key for key in told if key[2] in numbers and truth[key[0]][key[2]] != truth[key[1]][key[2]]]
    met = [*apart, ALIKE]
    assert len(met) == 9
    for first, other, number in met:
        exact = truth[other][number] - truth[first][number]
        covered = [e.ci_low <= exact <= e.ci_high for e in told[first, other, number] if e.ci_low is not None]
        assert len(covered) > SEEDS / 2 and np.mean(covered) >= 0.8, (first, other, number)


def test_acceptance_is_covered_capped_or_not(world, found):
    truth = world.truth()
    for name in ROWS[1:]:
        exact, rates = truth[name]["acceptance.rate"], [of_seed[name][1]["acceptance.rate"] for of_seed in found]
        assert np.mean([r.estimate.ci_low <= exact <= r.estimate.ci_high for r in rates]) >= 0.8


def spread(found):
    """The mean standard error of the capped row's difference, and how far it really spreads over seeds."""
    told = estimates(found)[ALIKE]
    return np.mean([e.stderr for e in told]), np.std([e.value for e in told], ddof=1)


def by_position(scored: Scored, count: int) -> Array:
    """Planted: the block of a draw by its place among those that are left."""
    return replicates.number_in_prompt(scored.draws.prompt) % count


def test_planted_pairing_by_position_does_not_know_what_rows_share(evidence, found, monkeypatch):
    """Where one row left draws out, the n-th that is left is another sample number in each."""
    error, real = spread(found)
    assert error == pytest.approx(real, rel=0.35)
    monkeypatch.setattr(replicates, "block_of", by_position)
    alike = [{name: of_seed[name] for name in ALIKE[:2]} for of_seed in evidence]
    assert spread(measured(alike))[0] > 1.5 * error


def test_ranks_hold_the_true_ones(world, found):
    """The base is last, and both rejections are best."""
    for number in ("satisfaction.always", "features.words"):
        tables = [table([rows for _, rows in of_seed.values()], number) for of_seed in found]
        limits = [ranks(t) for t in tables]
        assert np.mean([r.low[0] <= 3 <= r.high[0] and (r.low[1:] == 1).all() for r in limits]) >= 0.8
        assert np.mean([tied(t)[1:].all() for t in tables]) >= 0.8
