"""Mixtures of proposals for a rare target: bounded weights, the truth where base draws alone refuse, and mistakes."""

import numpy as np
import pytest
from stats_worlds import World, close, mixed

from alignbench.errors import UsageError
from alignbench.stats import divergences as d
from alignbench.stats import overlap as o
from alignbench.stats.jackknife import spread_of_sum
from alignbench.stats.mixture import joined_groups, log_mixture


def logs(masses):
    with np.errstate(divide="ignore"):
        return np.log(masses)


@pytest.fixture(scope="module")
def rare():
    """A target that keeps 1 % of the base, and a proposal that knows half of where it is."""
    world = World(seed=15, prompts=2, atoms=200, shares=(0.01, 0.02))
    world.g = world.p * 0.7 + world.a * 0.3
    near = np.where(np.arange(200) % 2, world.p, 0.0) + 0.2 * world.p
    return world, near / near.sum(axis=1, keepdims=True)


def draw(rare, seed, counts=(150, 150)):
    world, near = rare
    rng = np.random.default_rng(seed)
    places = [world.atoms(law, n, rng) for law, n in zip((world.a, near), counts, strict=True)]
    return [world.sample(*at) for at in places], [logs(np.stack([world.a[at], near[at]], axis=1)) for at in places]


def test_the_mixture_is_the_average_density():
    found = log_mixture(np.log([[0.5, 0.1], [0.2, 0.4]]), np.array([30, 10]))
    assert np.exp(found) == pytest.approx([0.75 * 0.5 + 0.25 * 0.1, 0.75 * 0.2 + 0.25 * 0.4])
    off = log_mixture(np.array([[-1.0, -np.inf], [-np.inf, -2.0]]), np.array([1, 0]))
    assert off.tolist() == [-1.0, -np.inf]


def test_weights_are_bounded_by_the_base_share_and_have_mean_z(rare):
    world, near = rare
    c0 = 0.25
    q = c0 * world.a + (1 - c0) * near
    w = world.P / q
    bound = (world.P / world.a).max() / c0
    assert w.max() <= bound + 1e-12
    assert (q * w).sum(axis=1) == pytest.approx(world.z, abs=1e-12)
    parts, tables = draw(rare, 0, (50, 150))
    assert np.exp(mixed(parts, tables).ratio).max() <= bound + 1e-9


def test_the_truth_where_the_base_alone_refuses(rare):
    world, _ = rare
    truth = world.truth()
    parts, tables = draw(rare, 0)
    alone, ref = parts[0], mixed(parts, tables)
    assert d.kl_target(alone).value is None
    rng = np.random.default_rng(1)
    own = world.draw(world.g, 300, rng)
    for name, found in (
        ("log_z", d.log_z_of(ref)), ("kl_target", d.kl_target(ref)), ("tv", o.tv(own, ref)),
        ("js", o.js(own, ref)), ("kl_reverse_within", d.kl_reverse_within(own, ref)),
    ):  # fmt: skip
        assert close(found, truth[name]), name


def test_each_draw_weighed_by_its_own_law_is_caught():
    """Planted: P/q_j of the law that drew it. The proposal lacks half of p, so that half of Z goes missing there."""
    world = World(seed=15, prompts=1, atoms=200, shares=(0.3,))
    near = np.where(np.arange(200) % 2, world.p, 0.0)
    near /= near.sum(axis=1, keepdims=True)
    parts, tables = draw((world, near), 3, (600, 600))
    ref = mixed(parts, tables)
    own_law = np.concatenate([table[:, j] for j, table in enumerate(tables)])
    planted = float(np.log(np.exp(ref.log_target - own_law).mean()))
    assert close(d.log_z_of(ref), float(np.log(world.z[0])))
    assert abs(planted - np.log(world.z[0])) > 4 * d.log_z_of(ref).stderr


def test_fixed_counts_make_the_interval_narrower():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0, 1, 100), rng.normal(20, 1, 100)])
    unit, component, off = np.arange(200), np.repeat([0, 1], 100), values - values.mean()
    assert spread_of_sum(off, unit, component) == pytest.approx(200, rel=0.4)
    assert spread_of_sum(off, unit) > 20 * spread_of_sum(off, unit, component)


def test_a_mixture_needs_the_base_and_normalised_laws(rare):
    parts, tables = draw(rare, 0)
    with pytest.raises(UsageError, match="no draws of the base"):
        mixed([parts[0].__class__(*(np.zeros(0),) * 4), parts[1]], [np.zeros((0, 2)), tables[1]])
    with pytest.raises(UsageError, match="normalised"):
        mixed(parts, [tables[0], tables[1] + 3.0])
    with pytest.raises(UsageError, match="by each of its laws"):
        mixed(parts, [t[:, :1] for t in tables])
    grouped = joined_groups([None, np.arange(300) // 3], [300, 300])
    assert np.unique(grouped).size == 300 + 100
    assert joined_groups([None, None], [300, 300]) is None


def test_a_mixture_whose_weights_agree_has_no_interval_of_width_zero():
    """The proposal is p: all its draws, and the few of the base's that hit, have one weight."""
    world = World(seed=9, prompts=1, atoms=200, shares=(0.01,))
    parts, tables = draw((world, world.p), 5, (40, 128))
    ref = mixed(parts, tables)
    assert d.log_z_of(ref).stderr != 0.0
    told = [d.log_z_of(mixed(*draw((world, world.p), seed, (40, 128)))) for seed in range(20)]
    assert any(e.stderr is None and "do not differ" in e.note for e in told)
    assert all(e.stderr is None or e.stderr > 1e-3 for e in told)
