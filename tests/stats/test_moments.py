"""λ and its error against closed forms, exact masses and simulation."""

import numpy as np
import pytest
from scipy.special import expit, logit, rel_entr

from alignbench.errors import InfeasibleTarget, UsageError
from alignbench.stats.divergences import Sample, kl_target
from alignbench.stats.moments import Moment, fit_lambda, reachable, tilted_moments, with_lambda_error
from alignbench.types import Estimate


def boolean_world(rates, wanted=0.5):
    """Exact masses: for each prompt one atom with φ = 1 and one with 0."""
    phi = np.tile([[1 - wanted], [-wanted]], (len(rates), 1))
    mass = np.concatenate([[rate, 1 - rate] for rate in rates])
    return phi, np.log(mass), np.repeat(np.arange(len(rates)), 2)


def test_two_prompts_under_one_lambda():
    lam, _ = fit_lambda(*boolean_world([0.2, 0.02]))
    assert lam.shape == (1, 1)
    assert lam[0, 0] == pytest.approx(2.639057329615259, abs=1e-9)  # = log 14
    assert np.mean(expit(logit([0.2, 0.02]) + lam[0, 0])) == pytest.approx(0.5, abs=1e-12)


@pytest.mark.parametrize("rate", [0.001, 0.2, 0.5, 0.97])
@pytest.mark.parametrize("wanted", [0.01, 0.5, 0.999])
def test_one_boolean_moment_is_a_difference_of_logits(rate, wanted):
    lam, _ = fit_lambda(*boolean_world([rate], wanted))
    assert lam[0, 0] == pytest.approx(logit(wanted) - logit(rate), abs=1e-9)


def test_per_prompt_is_each_prompt_alone():
    lam, _ = fit_lambda(*boolean_world([0.2, 0.02]), per_prompt=True)
    assert lam == pytest.approx(np.array([[logit(0.5) - logit(0.2)], [logit(0.5) - logit(0.02)]]), abs=1e-9)


def test_prompts_are_averaged_not_pooled():
    """Planted bug: weights normalised over all draws instead of within each prompt."""
    phi, log_weight, prompt = boolean_world([0.2, 0.02])
    shifted = log_weight + np.array([5.0, -3.0])[prompt]  # another Z for each prompt: nothing may change
    assert fit_lambda(phi, shifted, prompt)[0] == pytest.approx(fit_lambda(phi, log_weight, prompt)[0], abs=1e-9)


def test_several_moments_with_a_hard_constraint_and_a_reward():
    rng = np.random.default_rng(0)
    prompt = np.repeat([0, 1, 2], 300)
    raw = np.column_stack([rng.integers(0, 2, 900), rng.normal(20, 6, 900)]).astype(float)
    log_weight = np.where(rng.random(900) < 0.4, rng.normal(size=900), -np.inf)
    phi = raw - [0.7, 25.0]
    lam, error = fit_lambda(phi, log_weight, prompt)
    weight = np.exp(log_weight + phi @ lam[0])
    means = [np.average(raw[prompt == c], axis=0, weights=weight[prompt == c]) for c in range(3)]
    assert np.mean(means, axis=0) == pytest.approx([0.7, 25.0], abs=1e-9)
    assert error.shape == (1, 2) and (error > 0).all()


def test_units_only_scale_lambda():
    rng = np.random.default_rng(1)
    phi, prompt = rng.normal(size=(200, 1)) - 0.5, np.repeat([0, 1], 100)
    lam, error = fit_lambda(phi, np.zeros(200), prompt)
    big, big_error = fit_lambda(1e6 * phi, np.zeros(200), prompt)
    assert big * 1e6 == pytest.approx(lam, rel=1e-9) and big_error * 1e6 == pytest.approx(error, rel=1e-9)


def test_stderr_is_the_spread_of_lambda_over_samples():
    rng = np.random.default_rng(2)
    prompt = np.repeat([0, 1], 400)
    fits = []
    for _ in range(300):
        hit = rng.random(800) < np.array([0.3, 0.1])[prompt]
        fits.append(fit_lambda(hit[:, None] - 0.5, np.zeros(800), prompt))
    lam, error = (np.array(x).ravel() for x in zip(*fits, strict=True))
    assert error.mean() == pytest.approx(lam.std(), rel=0.15)  # 300 runs: the spread is known within 4 %
    # closed form for one prompt: Var(logit of a share) = 1/(n m (1 − m))
    single = fit_lambda((np.arange(1000) < 200)[:, None] - 0.5, np.zeros(1000), np.zeros(1000, int))
    assert single[1][0, 0] == pytest.approx(np.sqrt(1 / (1000 * 0.2 * 0.8)), rel=1e-9)


def fit_message(phi, log_weight=None, prompt=None, **more):
    n = len(phi)
    with pytest.raises(InfeasibleTarget) as error:
        fit_lambda(
            np.asarray(phi, float), np.zeros(n) if log_weight is None else np.asarray(log_weight),
            np.zeros(n, int) if prompt is None else np.asarray(prompt), **more,
        )  # fmt: skip
    return str(error.value)


def test_reachable_range_is_told_in_the_users_units():
    lengths = np.arange(1, 33.0)[:, None]
    asked = [Moment("length", 50.0)]
    reason = "moment 'length' = 50 cannot be reached: the base's draws span 1 to 32"
    assert fit_message(lengths - 50, moments=asked) == reason
    assert fit_message(lengths - 32, moments=[Moment("length", 32)]).endswith("= 32 cannot be reached: the base's "
                                                                              "draws span 1 to 32")  # fmt: skip
    hidden = np.where(lengths[:, 0] > 10, -np.inf, 0.0)  # planted bug: draws that a hard constraint forbids counted
    assert fit_message(lengths - 20, hidden, moments=[Moment("length", 20)]).endswith("span 1 to 10")


def test_the_range_averages_prompts():
    phi, prompt = np.array([[0.0], [1.0], [4.0], [6.0]]), np.array([0, 0, 1, 1])
    low, high = reachable(phi, prompt)
    assert (low, high) == (2.0, 3.5)
    assert fit_message(phi - 1, prompt=prompt, moments=[Moment("f", 1)]).endswith("draws span 2 to 3.5")
    assert fit_message(phi - 5, prompt=prompt, moments=[Moment("f", 5)], per_prompt=True, prompts=["a", "b"]) == (
        "prompt 0 ('a'): moment 'f' = 5 cannot be reached: the base's draws span 0 to 1"
    )


def test_constant_moment_and_unreachable_share():
    assert fit_message(np.zeros((5, 1)), moments=[Moment("f", 3)]) == (
        "moment 'f' = 3 cannot be fitted: it is 3 whatever the weights of the base's draws"
    )
    never = fit_message([[-0.5], [0.0]], moments=[Moment("pronoun.she", 0.5, share=True)])
    assert never.startswith("share 'pronoun.she' = 0.5 cannot be reached: the category occurs in none or too few")
    assert never.endswith("spans -0.5 to 0 and must have 0 inside)")
    always = fit_message([[0.5], [0.0]], moments=[Moment("pronoun.she", 0.5, share=True)])
    assert "the other listed categories occur in none" in always


def test_moments_that_exclude_each_other():
    """Each is reachable alone: a in {0, 1}, b = 1 − a; together 0.9 and 0.9 are not."""
    a = np.array([0, 1, 0, 1.0])
    raw = np.column_stack([a, 1 - a])
    asked = [Moment("a", 0.9), Moment("b", 0.9)]
    assert fit_message(raw - 0.9, moments=asked) == (
        "'a' = 0.9 and 'b' = 0.9 cannot be reached together (alone, the base's draws span 'a' 0 to 1; 'b' 0 to 1)"
    )
    twice = fit_message(raw - [0.9, 0.1], moments=[Moment("a", 0.9), Moment("b", 0.1)])
    assert twice == "'a' = 0.9 and 'b' = 0.1 say the same thing twice on the base's draws: drop one"


def test_edge_of_the_joint_range_is_refused_and_just_inside_is_not():
    raw = np.array([[0, 0], [1, 0], [0, 1.0]])  # a triangle: a + b <= 1
    assert "cannot be reached together" in fit_message(raw - 0.5, moments=[Moment("a", 0.5), Moment("b", 0.5)])
    lam, _ = fit_lambda(raw - 0.499, np.zeros(3), np.zeros(3, int))
    assert np.isfinite(lam).all()


def test_prompt_without_an_allowed_draw_is_named():
    log_weight = np.array([0.0, 0.0, -np.inf, -np.inf, -np.inf])
    message = fit_message(np.array([[1], [-1], [1], [-1], [1.0]]), log_weight, [0, 0, 1, 1, 1], prompts=["a", "b c"])
    assert message == (
        "prompt 1 ('b c'): none of the base's 3 draws satisfies the hard constraints, so λ cannot be fitted; draw "
        "more, or drop a constraint or the prompt"
    )
    with pytest.raises(UsageError, match="a reward is NaN or infinite"):
        fit_lambda(np.ones((2, 1)), np.array([0.0, np.nan]), np.zeros(2, int))


def test_tilted_moments_cover_the_truth():
    """p: rates .3 and .1 tilted by λ = 1; 95 % intervals, 400 runs: 0.95 ± 4 · 0.011."""
    rng = np.random.default_rng(3)
    prompt, truth, covered = np.repeat([0, 1], 300), np.mean(expit(logit([0.3, 0.1]) + 1.0)), 0
    for _ in range(400):
        hit = (rng.random(600) < np.array([0.3, 0.1])[prompt]).astype(float)
        answer = tilted_moments(hit[:, None], hit, prompt, ["hit"], np.ones(600))["hit"]
        covered += answer.ci_low <= truth <= answer.ci_high
    assert abs(covered / 400 - 0.95) < 0.044


def test_tilted_moments_refuse_what_they_cannot_say():
    none = tilted_moments(np.ones((200, 1)), np.repeat([0.0, -np.inf], 100), np.repeat([0, 1], 100), ["f"])["f"]
    assert none.value is None and "prompt number 2" in none.note
    few = tilted_moments(np.ones((200, 1)), np.where(np.arange(200) < 30, 0, -np.inf), np.zeros(200, int), ["f"])["f"]
    assert few.value is None and "30 draws" in few.note
    flat = tilted_moments(np.ones((200, 1)), np.zeros(200), np.zeros(200, int), ["f"])["f"]
    assert flat.value == pytest.approx(1) and flat.stderr is None and flat.note.startswith("no interval")


def test_distribution_of_three_categories_with_a_hard_constraint_checked_by_hand():
    """Shares .2/.3/.5 among the listed; others stay free: λ_k = log of wanted over base share, up to a constant."""
    base = np.array([0.4, 0.2, 0.1, 0.3])  # three listed categories and the rest
    wanted, listed = np.array([0.2, 0.3, 0.5]), np.array([1, 1, 1, 0])
    phi = np.eye(4)[:, :2] - wanted[:2] * listed[:, None]
    phi = np.concatenate([phi, phi])  # the same again, forbidden
    log_weight = np.concatenate([np.log(base), np.full(4, -np.inf)])
    lam, _ = fit_lambda(phi, log_weight, np.zeros(8, int))
    p = np.exp(np.log(base) + phi[:4] @ lam[0])
    assert p[:3] / p[:3].sum() == pytest.approx(wanted, abs=1e-12)
    ratio = np.log(wanted / base[:3])
    assert lam[0] == pytest.approx(ratio[:2] - ratio[2], abs=1e-9)


def test_without_the_error_of_lambda_the_interval_of_a_divergence_is_too_narrow():
    """KL(p‖a) at λ*, whose slope in λ is λ·Var_p(φ) and not 0 as that of the dual; λ̂ from as many draws as KL."""
    m, wanted, n, held, bare = 0.1, 0.7, 256, 0, 0
    truth = float(rel_entr([wanted, 1 - wanted], [m, 1 - m]).sum())
    prompt = np.zeros(n, int)
    for seed in range(200):
        fit, ref = (np.random.default_rng(seed).random((2, n)) < m).astype(float) - wanted
        lam, error = fit_lambda(fit[:, None], np.zeros(n), prompt)
        at = lambda shift, lam=lam, ref=ref: {"kl": kl_target(tilted(prompt, ref, (lam + shift)[0, 0]))}
        plain, carried = at(np.zeros((1, 1)))["kl"], with_lambda_error(at, error)["kl"]
        if plain.value is not None:
            held += carried.ci_low <= truth <= carried.ci_high
            bare += plain.ci_low <= truth <= plain.ci_high
    assert held >= (0.95 - 4 * 0.0154) * 200
    assert bare < (0.95 - 4 * 0.0154) * 200  # planted: λ̂ taken for λ*


def tilted(prompt, phi, lam):
    """The base as a generator, and a target of weights exp(λφ)."""
    level = np.zeros(phi.size)
    return Sample(prompt, level, lam * phi, level, bound=np.full(phi.size, lam * phi.max()))


def test_the_slope_is_that_of_the_quantity():
    def measure(shift):
        return {"it": Estimate(float(3 * shift[0, 0] - shift[0, 1]), 0.1, -0.2, 0.2)}

    carried = with_lambda_error(measure, np.array([[0.5, 1.0]]))["it"]
    assert carried.stderr == pytest.approx(np.hypot(0.1, 3 * 0.5 + 1.0))
    missing = with_lambda_error(lambda s: {"it": Estimate.missing("why")}, np.ones((1, 1)))
    assert missing["it"].note == "why"
