"""Bounds of log Z: both sides, hard constraints, coverage."""

import math

import numpy as np
import pytest
from stats_worlds import World

from alignbench.errors import UsageError
from alignbench.stats.bounds import log_z_bounds, run_log_z

WORLD = World(seed=3, prompts=1, tilt=1.5)
LOG_Z = float(np.log(WORLD.z[0]))


def runs(world, count, particles, rng, seeing):
    """log Ẑ of runs of importance sampling from the base; `seeing`: the first particle is an exact draw of p."""
    atom = rng.choice(world.a.shape[1], (count, particles), p=world.a[0])
    if seeing:
        atom[:, 0] = rng.choice(world.a.shape[1], count, p=world.p[0])
    return run_log_z(world.r[0][atom].ravel(), np.repeat(np.arange(count), particles))


def test_each_side_is_on_its_side():
    rng = np.random.default_rng(0)
    below, above = (runs(WORLD, 20_000, 4, rng, seeing) for seeing in (False, True))
    assert below.mean() < LOG_Z - 0.01 < LOG_Z + 0.01 < above.mean()
    found = log_z_bounds(below, above)
    assert found.value is None
    assert found.ci_low < LOG_Z < found.ci_high
    swapped = log_z_bounds(above, below)  # planted: the exact draw in the wrong runs
    assert swapped.ci_low > LOG_Z > swapped.ci_high


def test_coverage_of_both_together():
    rng, held = np.random.default_rng(1), 0
    for _ in range(500):
        found = log_z_bounds(*(runs(WORLD, 8, 16, rng, seeing) for seeing in (False, True)))
        held += found.ci_low <= LOG_Z <= found.ci_high
    assert held >= 0.95 * 500


def test_hard_constraints_have_no_lower_side():
    below = run_log_z(np.array([0.0, -np.inf, -np.inf, -np.inf]), np.array([0, 0, 1, 1]))
    assert below.tolist() == [pytest.approx(-math.log(2)), -math.inf]
    found = log_z_bounds(below, np.array([-0.5, -0.4]))
    assert found.ci_low is None and "−∞" in found.note
    assert found.ci_high > -0.5


def test_limits_are_those_of_student_s_t():
    """Two runs have one degree of freedom: t = 12.706, from a table."""
    found = log_z_bounds(np.array([-1.0, -2.0]), np.array([1.0, 3.0]))
    assert found.ci_low == pytest.approx(-1.5 - 12.706 * 0.5, abs=1e-3)
    assert found.ci_high == pytest.approx(2.0 + 12.706, abs=1e-3)


def test_what_is_missing_is_said():
    assert "no draw of p" in log_z_bounds(np.array([-1.0, -1.1])).note
    one = log_z_bounds(np.array([-1.0]))
    assert (one.ci_low, one.ci_high) == (None, None)
    assert "2 runs" in one.note
    with pytest.raises(UsageError, match="at least one run"):
        log_z_bounds(np.zeros(0))
    with pytest.raises(UsageError, match="cannot have weight 0"):
        log_z_bounds(np.zeros(2), np.array([0.0, -np.inf]))
