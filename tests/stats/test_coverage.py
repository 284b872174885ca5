"""A few seeds of `tests/bench/interval_coverage.py`: no interval may be far from 95 %, a planted one is."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))

import interval_coverage as bench

SEEDS = 60
BAND = 0.95 - 4 * 0.028  # four standard errors of a share of 0.95 among 60


SLOW = ["boolean .1/.4", "λ fitted", "continuous", "resampled", "rare", "few prompts"]


@pytest.mark.parametrize("world", ["hard, tilted", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_intervals_cover(world):
    for part, tally in bench.tabulate([world], SEEDS)[world].items():
        if tally.intervals > SEEDS / 2:
            assert tally.covered >= BAND * tally.intervals, (part, str(tally))


def test_halved_intervals_are_seen(monkeypatch):
    def halved(self, seed):
        found = bench.d.log_z_of(self.world.draw(self.world.a, bench.EACH, bench.np.random.default_rng(seed)))
        return {
            "log_z": found.__class__(
                found.value, found.stderr, *((found.value + end) / 2 for end in (found.ci_low, found.ci_high))
            )
        }

    monkeypatch.setattr(bench.Bench, "measure", halved)
    tally = bench.tabulate(["tilted"], SEEDS)["tilted"]["log_z"]
    assert tally.covered < BAND * tally.intervals
