"""Best-of-n and rejection in closed form: identities, simulation, coverage."""

import math

import numpy as np
import pytest
from scipy.stats import norm
from stats_worlds import World, close, covered

from alignbench.stats import discrete
from alignbench.stats.intervals import FLAT
from alignbench.stats.selection import FORMS, PARTS, Laws, divergences, kl_base_bound, selected
from alignbench.stats.wins import of_best
from alignbench.types import Selection

BEST = Selection("best", 4)


def test_selected_is_what_best_of_n_draws():
    rng = np.random.default_rng(0)
    masses, values = rng.dirichlet(np.ones(7)), np.array([0.0, 1.0, 1.0, -np.inf, 2.0, -np.inf, 1.0])
    law = selected(masses, values, BEST)
    assert law.sum() == pytest.approx(1.0)
    pool = rng.choice(7, (200_000, 4), p=masses)
    best = pool[np.arange(len(pool)), (values[pool] + 1e-9 * rng.random(pool.shape)).argmax(axis=1)]
    hard = values[pool].max(axis=1) == -np.inf
    best[hard] = pool[hard, 0]
    assert np.bincount(best, minlength=7) / len(pool) == pytest.approx(law, abs=0.005)


def test_masses_need_no_normalising_and_carry_leading_axes():
    masses, values = np.array([[1.0, 2.0, 3.0], [0.0, 4.0, 4.0]]), np.array([0.5, -np.inf, 0.1])
    both = selected(masses, values, BEST)
    assert both[0] == pytest.approx(selected(masses[0] / 6, values, BEST))
    assert both[1, 0] == 0.0
    assert selected(masses, values, Selection("best", 1)) == pytest.approx(masses / masses.sum(axis=1, keepdims=True))


def test_first_is_the_target_itself():
    values = np.array([0.5, -np.inf, 0.1])
    assert selected(np.ones(3) / 3, values, Selection("first", 50)) == pytest.approx(discrete.normalised(values))


@pytest.mark.parametrize("n", [1, 4, 64])
def test_boolean_identities(n):
    z = 0.23
    law = selected(np.array([z, 1 - z]), np.array([0.0, -np.inf]), Selection("best", n))
    s, p, a = 1 - (1 - z) ** n, np.array([1.0, 0.0]), np.array([z, 1 - z])
    assert law[0] == pytest.approx(s, abs=1e-12)
    assert discrete.kl(law, a) == pytest.approx(s * math.log(s / z) + (1 - s) * math.log((1 - s) / (1 - z)), abs=1e-12)
    assert discrete.kl(p, law) == pytest.approx(-math.log(s), abs=1e-12)
    assert discrete.tv(p, law) == pytest.approx(1 - s, abs=1e-12)


def test_kl_from_the_base_stays_under_the_bound_for_injective_scores():
    masses = np.full(1000, 1e-3)
    bound = math.log(4) - 3 / 4
    assert discrete.kl(selected(masses, np.arange(1000.0), BEST), masses) == pytest.approx(bound, abs=2e-3)
    assert bound < 0.6363


@pytest.mark.parametrize("n", [1, 2, 4, 16, 64])
@pytest.mark.parametrize("levels", [2, 5, 40, 1000])
def test_best_of_n_keeps_under_both_bounds_whatever_ties(n, levels):
    """KL(π_n‖a) ≤ log n − (n − 1)/n and win rate ≤ n/(n + 1), ties half; both nearly met by 1,000 levels."""
    rng = np.random.default_rng(levels)
    for masses in (*rng.dirichlet(np.ones(levels), 20), np.full(levels, 1 / levels)):
        law = selected(masses, np.arange(float(levels)), Selection("best", n))
        below = np.cumsum(masses) - masses
        assert law.sum() == pytest.approx(1, abs=1e-12)
        assert discrete.kl(law, masses) <= kl_base_bound(n) + 1e-12
        assert law @ (below + masses / 2) <= n / (n + 1) + 1e-12
        assert law @ (below + masses) > n / (n + 1)  # planted: ties counted as wins
    if n <= 16:
        assert (np.cumsum(masses) ** n).sum() > 1 + 1e-6  # planted: F^n for F^n − F⁻^n
    if n <= 16 and levels == 1000:
        assert discrete.kl(law, masses) == pytest.approx(kl_base_bound(n), abs=2e-2)
        assert law @ (below + masses / 2) == pytest.approx(n / (n + 1), abs=1e-4)


WORLDS = {"hard": World(seed=1, shares=(0.3, 0.2, 0.5)), "soft": World(seed=3, tilt=1.5)}


@pytest.mark.parametrize("name", WORLDS)
def test_truth_and_coverage(name):
    world = WORLDS[name]
    truth, seeds = world.truth(world.selected(BEST)), 120
    many = world.draw(world.a, 5000, np.random.default_rng(0))
    for part, estimate in divergences(many.prompt, many.ratio, BEST).items():
        assert estimate.value == truth[part] or close(estimate, truth[part]), part
    held = dict.fromkeys(PARTS, 0)
    for seed in range(seeds):
        ref = world.draw(world.a, 128, np.random.default_rng(seed))
        for part, estimate in divergences(ref.prompt, ref.ratio, BEST).items():
            held[part] += estimate.value == truth[part] or covered(estimate, truth[part])
    assert min(held.values()) >= 0.9 * seeds, held


def test_a_pooled_z_is_caught():
    world = World(seed=6, shares=(0.6, 0.05), prompts=2)
    ref = world.draw(world.a, 2000, np.random.default_rng(0))
    estimate = divergences(ref.prompt, ref.ratio, BEST)["kl_target"]
    truth = world.truth(world.selected(BEST))["kl_target"]
    pooled = -math.log(1 - (1 - np.exp(ref.ratio).mean()) ** 4)
    assert close(estimate, truth)
    assert abs(pooled - truth) > 4 * estimate.stderr


def test_best_of_n_breaks_a_hard_constraint_with_a_known_rate():
    prompt, r = np.zeros(100, int), np.where(np.arange(100) < 20, 0.0, -np.inf)
    answer = divergences(prompt, r, BEST)
    assert answer["kl_reverse"].value == math.inf
    assert float(answer["kl_reverse"].note.split()[0]) == pytest.approx(0.8**4, abs=0.02)
    assert answer["kl_reverse_within"].value == answer["kl_target_within"].value == 0.0
    assert answer["js"].value is None  # 20 draws of the target, 50 are needed
    assert answer["tv"].value == pytest.approx(0.8**4, abs=0.02)


def test_no_hits_leave_bounds():
    answer = divergences(np.zeros(100, int), np.full(100, -np.inf), BEST)
    assert answer["kl_target"].value is None
    assert answer["kl_target"].ci_low > 1.0
    assert answer["kl_target"].ci_high is None
    assert answer["tv"].value == 1.0
    assert answer["tv"].ci_low > 0.8


def test_rejection_is_exact_and_as_far_from_the_base_as_p():
    world = World(seed=2, shares=(0.4, 0.6), tilt=0.7)
    ref = world.draw(world.a, 2000, np.random.default_rng(0))
    answer = divergences(ref.prompt, ref.ratio, Selection("first", 100))
    assert {answer[part].value for part in PARTS if "base" not in part} == {0.0}
    assert answer["kl_target_vs_base"].value == -answer["kl_base"].value
    assert close(answer["kl_base"], world.truth(world.p)["kl_base"])
    hard = np.where(np.arange(100) < 20, 0.0, -np.inf)
    assert divergences(np.zeros(100, int), hard, Selection("first", 9))["kl_base"].value == pytest.approx(
        -math.log(0.2), abs=0.03
    )


def test_continuous_scores_find_the_law_of_their_order_statistics():
    """Scores N(0, 0.8²): quadrature of p ∝ a·exp(r) and π = n·F^(n−1)·a."""
    x = np.linspace(-9, 9, 50_001)
    a = norm.pdf(x) * (x[1] - x[0])
    p, pi = discrete.normalised(np.log(a) + 0.8 * x), a * 4 * norm.cdf(x) ** 3
    r = 0.8 * np.random.default_rng(0).normal(size=1000)
    answer = divergences(np.zeros(1000, int), r, BEST)
    truth = {
        "kl_target": discrete.kl(p, pi),
        "kl_reverse": discrete.kl(pi, p),
        "tv": discrete.tv(p, pi),
        "js": discrete.js(p, pi),
    }
    for part, value in truth.items():
        assert close(answer[part], float(value)), part
    assert float(discrete.kl(pi, a)) == pytest.approx(kl_base_bound(4), abs=1e-6)
    assert answer["kl_base"].value == pytest.approx(kl_base_bound(4), abs=2e-6)  # two scores lie within 1e-6: a tie
    assert kl_base_bound(4) == pytest.approx(math.log(4) - 3 / 4) and kl_base_bound(4) < 0.6363


def test_too_few_base_draws_for_n_leave_the_bound():
    answer = divergences(np.zeros(200, int), np.random.default_rng(0).normal(size=200), Selection("best", 16))
    assert {answer[part].value for part in PARTS} == {None}
    assert "needs 512 base draws a prompt" in answer["kl_target"].note
    assert answer["kl_base"].ci_high == pytest.approx(math.log(16) - 15 / 16)


@pytest.mark.parametrize("each", [1, 2])
def test_one_or_two_base_draws_a_prompt_do_not_show_that_scores_never_tie(each):
    """Of a boolean tilt KL(π_n‖a) is far below the bound, which was printed as its value."""
    prompt, r = np.repeat(np.arange(40), each), np.tile([0.0, 0.3][:each], 40)
    kl, wins = divergences(prompt, r, BEST)["kl_base"], of_best(prompt, r, 4)
    assert (kl.value, wins.value) == (None, None)
    assert (kl.ci_high, wins.ci_high) == (kl_base_bound(4), 0.8)
    assert "whether scores tie" in kl.note and "whether scores tie" in wins.note


def test_a_tilt_that_one_draw_alone_would_show_is_no_zero_width():
    prompt, r = np.repeat([0, 1], 60), np.tile([0.0, 0.7], 60)
    kept = divergences(prompt, r, Selection("best", 1))
    assert kept["kl_base"].stderr == 0 and "by construction" in kept["kl_base"].note
    assert kept["kl_target"].stderr > 0
    level = divergences(prompt, np.repeat([0.7, 0.2], 60), BEST)  # every draw of a prompt has one weight
    for part in ("kl_reverse", "kl_base", "js"):
        assert level[part].value == pytest.approx(0.0)
        assert level[part].stderr is None and FLAT in level[part].note, part


def test_all_hits_have_an_error():
    answer = divergences(np.zeros(60, int), np.zeros(60), BEST)["kl_target"]
    assert answer.value == 0.0
    assert 0 < answer.stderr < answer.ci_high


def test_a_flat_form_keeps_its_coverage_with_two_cells():
    """KL(π_n‖a) of a boolean tilt has its maximum near a share of 0.35, where the delta interval has no width."""
    share = np.linspace(0.01, 0.99, 981)
    flat = share[np.argmax([discrete.kl(*_two(z)) for z in share])]
    truth, held, planted = float(discrete.kl(*_two(flat))), 0, 0
    for seed in range(200):
        r = np.where(np.random.default_rng(seed).random(128) < flat, 1.5, 0.0)
        estimate = divergences(np.zeros(128, int), r, BEST)["kl_base"]
        held += covered(estimate, truth)
        sums = np.stack([r == 0, r > 0], axis=1).astype(float)
        pseudo = 128 * _form(sums.sum(axis=0)) - 127 * _form(sums.sum(axis=0) - sums)  # Tukey (1958)
        planted += abs(pseudo.mean() - truth) <= 1.96 * pseudo.std(ddof=1) / 128**0.5
    assert held >= 0.93 * 200
    assert planted < 0.9 * 200


def _form(counts):
    base = counts / counts.sum(axis=-1, keepdims=True)
    return discrete.kl(selected(base, np.array([0.0, 1.5]), BEST), base)


def _two(z):
    base = np.array([1 - z, z])
    return selected(base, np.array([0.0, 1.5]), BEST), base


def by_rank(base, r, rank, n=4):
    """Every part, in a world of atoms with these masses, ratios and ranks."""
    p, pi = discrete.normalised(np.log(base) + r), selected(base, rank, Selection("best", n))
    kept = np.where(r > -np.inf, pi, 0)
    return {part: float(form(Laws(base, p, pi, kept / kept.sum()))) for part, form in FORMS.items()}


RNG = np.random.default_rng(5)
MASSES = RNG.dirichlet(np.ones(30))
RANKED = {
    "likelihood, tilted": (MASSES, 1.5 * RNG.integers(0, 2, 30), np.log(MASSES)),
    "likelihood, hard": (MASSES, np.where(RNG.random(30) < 0.4, 0.0, -np.inf), np.log(MASSES)),
    "a boolean, hard": (np.array([0.15, 0.35, 0.3, 0.2]), np.array([0, -np.inf, 0, -np.inf]), np.array([1.0, 1, 0, 0])),
    "five, p against them": (np.array([0.04, 0.1, 0.3, 0.4, 0.16]), np.array([1.0, 0.5, 0, 0, 0]), np.arange(5.0)),
}


def counted(world, seed, each=128, prompts=2):
    base, r, rank = world
    atom = np.random.default_rng(seed).choice(base.size, each * prompts, p=base)
    return np.repeat(np.arange(prompts), each), r[atom], rank[atom]


@pytest.mark.slow
@pytest.mark.parametrize("name", RANKED)
def test_truth_and_coverage_by_another_rank(name):
    truth, seeds, held, seen = by_rank(*RANKED[name]), 60, dict.fromkeys(PARTS, 0), dict.fromkeys(PARTS, 0)
    prompt, r, rank = counted(RANKED[name], 0, 2500)
    for part, estimate in divergences(prompt, r, BEST, rank=rank, bound=np.full(r.size, RANKED[name][1].max())).items():
        assert estimate.value == truth[part] or close(estimate, truth[part]), part
    for seed in range(seeds):
        prompt, r, rank = counted(RANKED[name], seed)
        for part, estimate in divergences(
            prompt, r, BEST, rank=rank, bound=np.full(r.size, RANKED[name][1].max())
        ).items():
            if estimate.ci_low is not None:
                seen[part] += 1
                held[part] += covered(estimate, truth[part])
    assert seen["kl_target"] == seeds
    assert all(held[part] >= 0.84 * seen[part] for part in PARTS if seen[part] > seeds / 2), (held, seen)


def test_the_rank_decides_pi_and_r_decides_p():
    """Planted: p's ratio in place of the rank, and the rank in place of the ratio."""
    prompt, r, rank = counted(RANKED["likelihood, tilted"], 0, 3000)
    truth = by_rank(*RANKED["likelihood, tilted"])["kl_target"]
    assert close(divergences(prompt, r, BEST, rank=rank)["kl_target"], truth)
    assert not close(divergences(prompt, r, BEST)["kl_target"], truth)
    assert not close(divergences(prompt, rank, BEST)["kl_target"], truth)


@pytest.mark.parametrize("r", [0.3 * RNG.normal(size=512), np.where(RNG.random(512) < 0.5, 0.0, -np.inf)])
def test_r_as_the_rank_is_r(r):
    prompt = np.repeat([0, 1], 256)
    plain, ranked = divergences(prompt, r, BEST), divergences(prompt, r, BEST, rank=r)
    for part in ("kl_target", "tv", "js", "kl_base"):
        assert ranked[part].value == pytest.approx(plain[part].value, abs=2e-3), part


def test_continuous_ranks_that_know_nothing_of_the_target():
    """p = a: KL(p‖π_n) = n − 1 − log n, and KL(π_n‖p) = KL(π_n‖a) is its bound."""
    answer = divergences(np.zeros(1024, int), np.zeros(1024), BEST, rank=np.random.default_rng(0).normal(size=1024))
    assert answer["kl_target"].value == pytest.approx(3 - math.log(4), abs=0.02)
    assert answer["kl_reverse"].value == pytest.approx(kl_base_bound(4), abs=0.01)
    assert answer["kl_base"].value == pytest.approx(kl_base_bound(4), abs=1e-4)


def test_what_a_rank_leaves_of_a_hard_constraint_is_told():
    base, r, rank = RANKED["a boolean, hard"]
    prompt, r, rank = counted(RANKED["a boolean, hard"], 0, 4000)
    broken = selected(base, np.array([1.0, 1, 0, 0]), BEST)[[1, 3]].sum()
    answer = divergences(prompt, r, BEST, rank=rank)
    assert answer["kl_reverse"].value == math.inf
    assert float(answer["kl_reverse"].note.split()[0]) == pytest.approx(broken, abs=0.02)
    assert answer["kl_reverse_within"].value > 0.1  # planted: exact by construction, as where r is the rank


def test_kl_from_the_base_needs_no_draw_of_the_target():
    prompt, rank = np.zeros(128, int), np.tile([0.0, 1.0], 64)
    answer = divergences(prompt, np.full(128, -np.inf), BEST, rank=rank)
    assert answer["kl_target"].value is None
    assert answer["kl_base"].value == pytest.approx(float(discrete.kl([1 / 16, 15 / 16], [0.5, 0.5])), abs=5e-3)


@pytest.mark.parametrize(
    ("rank", "n", "told"),
    [
        (np.arange(128.0), 16, "needs 512 base draws a prompt, not 128"),
        (np.zeros(128), 4, "all have one rank"),
        (np.arange(128.0) < 4, 4, "4 of 128 base draws of a prompt have one of two ranks, 10 are needed"),
        (np.arange(4096.0), 100, "too small for a float"),
    ],
)
def test_what_base_draws_do_not_show_of_a_rank_is_refused(rank, n, told):
    size = rank.size
    answer = divergences(np.zeros(size, int), np.zeros(size), Selection("best", n), rank=rank)
    assert {answer[part].value for part in PARTS} == {None}
    assert told in answer["kl_target"].note
    assert answer["kl_base"].ci_high == pytest.approx(kl_base_bound(n))


def test_a_rank_that_shuns_the_target_leaves_too_few_draws_in_common():
    rng = np.random.default_rng(0)
    u = rng.random(512)
    r = np.where(rng.random(512) < (1 - u) ** 2, 0.0, -np.inf)
    answer = divergences(np.zeros(512, int), r, Selection("best", 16), rank=u)
    for part in ("tv", "js", "kl_reverse_within"):
        assert answer[part].value is None and "carry it" in answer[part].note, part
    assert answer["kl_target"].value > 10


def test_a_rank_that_no_draw_shows_is_put_in_numbers():
    """Five ranks, the lowest rare: where no draw has it, the upper limit allows for it and the note says so."""
    rank = np.repeat([1.0, 2.0, 3.0, 4.0], [20, 60, 80, 40])
    prompt, r = np.zeros(rank.size, int), np.zeros(rank.size)
    found = divergences(prompt, r, Selection("best", 4), None, rank)
    more = 3 * 3 / 200 * np.log(200 / 3)
    assert f"a rank lower than all seen, which could add {more:.2g} nats" in found["kl_target"].note
    assert "lower" not in found["kl_reverse"].note
    assert found["kl_target"].ci_high > found["kl_target"].value + more
    for seen in (np.append(rank[1:], 0.0), np.arange(200.0), np.repeat([0.0, 1.0], 100)):  # once; all apart; two ranks
        assert "lower" not in divergences(prompt, r, Selection("best", 4), None, seen)["kl_target"].note


def test_a_rare_lowest_rank_is_covered():
    """Share 0.005 of the base and more of p: without the allowance 73 %; some runs that hardly drew it are refused."""
    base, r = np.array([0.005, 0.2, 0.3, 0.3, 0.195]), np.log([2.0, 1.0, 1.35, 1.22, 1.1])
    truth, held, told = by_rank(base, r, np.arange(5.0))["kl_target"], 0, 0
    for seed in range(40):
        prompt, drawn, rank = counted((base, r, np.arange(5.0)), seed)
        found = divergences(prompt, drawn, BEST, rank=rank, bound=np.full(drawn.size, r.max()))["kl_target"]
        told += found.value is not None
        held += found.value is not None and covered(found, truth)
    assert told > 20 and held >= 0.93 * told


@pytest.mark.slow
def test_js_and_tv_of_cells_near_the_gate_are_covered():
    """The base, of which the gate of 50 lets 4 of 5 runs pass: 91 % by the slope alone."""
    base, r = np.array([0.661, 0.268, 0.033, 0.026, 0.012]), np.array([0.0, 0.53, 1.06, 1.58, 2.11])
    truth, held, told = by_rank(base, r, r, 1), 0, 0
    for seed in range(80):
        prompt, drawn, _ = counted((base, r, r), seed, prompts=3)
        found = divergences(prompt, drawn, Selection("best", 1), bound=np.full(drawn.size, r.max()))
        for part in ("tv", "js"):
            told += found[part].value is not None
            held += found[part].value is not None and covered(found[part], truth[part])
    assert told >= 100 and held >= 0.93 * told


def test_one_draw_by_a_rank_is_exactly_the_base():
    rng = np.random.default_rng(0)
    rank, prompt = rng.integers(0, 2, 256).astype(float), np.repeat([0, 1], 128)
    found = divergences(prompt, np.full(256, 0.3), Selection("best", 1), None, rank)
    assert all(found[part].value == 0 for part in PARTS)
