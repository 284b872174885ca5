"""Every gradient is that of its objective: exactly, all draws listed, and on the mean of 200 estimates."""

import numpy as np
import pytest
import torch
from training_worlds import (
    BASE,
    BOTH,
    FREE,
    HARD,
    PROMPTS,
    REWARD,
    STRONG,
    TARGETS,
    UNEVEN,
    Listed,
    backward,
    exact_gradient,
    gradient_of,
    moved,
    set_to,
    work_on,
    world,
)

from alignbench.aligners.training import ahead, dpg, f_dpg, losses, sft_control
from alignbench.aligners.training.batch import Batch, Known
from alignbench.aligners.training.cdpg import CDPG
from alignbench.aligners.training.dpg import DPG
from alignbench.aligners.training.f_dpg import FDPG
from alignbench.aligners.training.gdc import GDC, Adaptive
from alignbench.aligners.training.losses import divergence
from alignbench.aligners.training.sft import SFT
from alignbench.aligners.training.sft_control import SFTControl, cost
from alignbench.aligners.training.work import Work
from alignbench.generators.policy import Scorer
from alignbench.generators.warp import Warp
from alignbench.target.truth import exact_values

EPSILON = 0.01
PLAIN = {"batch": 64, "pool": 64}
OBJECTIVES = {
    "dpg": (DPG(**PLAIN), "kl"), "dpg without baseline": (DPG(baseline=False, **PLAIN), "kl"),
    "gdc": (GDC(**PLAIN), "kl"), "gdc with baseline": (GDC(baseline=True, **PLAIN), "kl"),
    "cdpg": (CDPG(batch=64), "kl"),
    **{f"f_dpg {f}": (FDPG(f=f, floor=EPSILON, **PLAIN), f) for f in ("kl", "reverse_kl", "tv", "js", "chi2")},
}  # fmt: skip
"""The aligner and the divergence whose gradient it has."""


@pytest.mark.parametrize("f", ["kl", "reverse_kl", "tv", "js", "chi2"])
def test_the_objective_in_the_curve_is_the_divergence(f):
    listed, policy = listed_of(f"f_dpg {f}", HARD, BASE), moved()
    log_pi = torch.as_tensor(policy.log_prob(PROMPTS, listed.draws))
    found = listed.mean(log_pi.exp() * torch.as_tensor(divergence(f, (listed.log_p - log_pi).numpy())))
    assert float(found) == pytest.approx(float(listed.divergence(f, log_pi)) - (f == "chi2"), rel=1e-9)


@pytest.mark.parametrize(("target", "low", "high"), [(HARD, 0.25, 0.5), (REWARD, 0.25, 0.5), (STRONG, 1.5, 2)])
def test_how_far_the_targets_of_our_world_are(target, low, high):
    listed = Listed(target=target)
    found = listed.kl(listed.log_a)
    assert low < found < high
    assert found == pytest.approx(exact_values(BASE, BASE, target, PROMPTS, 4)["divergence.kl_target"])


def test_our_world_s_logits_are_these():
    assert [Listed(target=t).kl(Listed().log_a) for t in (HARD, REWARD, STRONG)] == pytest.approx(
        [0.268655154, 0.309290140, 1.612165656], abs=1e-9
    )
    first = BASE.model.network.logits[0].exp()
    assert first.tolist() == pytest.approx([0.394941, 0.592236, 0.011505, 0.001318], abs=1e-6)
    high, low = Listed(UNEVEN).log_z.exp()
    assert high / low == pytest.approx(10, rel=0.05)


def listed_of(name, target, base=BASE):
    return Listed(base, target, float(np.log(EPSILON)) if "reverse_kl" in name else -np.inf)


def made(name, target, policy, base=BASE):
    """Work, recipe and method of an objective, Z_c as it is."""
    recipe, listed = OBJECTIVES[name][0], listed_of(name, target, base)
    work = work_on(world(target, base), policy)
    method = recipe.method(work)
    return work, recipe, with_z(method, listed.log_z.numpy())


def with_z(method, log_z):
    method.log_z = log_z
    if hasattr(method, "hits"):  # cdpg: as if after a thousand million draws
        method.count, method.hits = np.full(2, 1e9), np.full(2, 1e9)
        method.log_total = np.log(1e9) + log_z
    return method


def proposal_of(kind, listed, policy):
    """(B,) log q of the listed draws."""
    if kind == "uniform":
        return torch.full_like(listed.log_a, float(-np.log(len(listed.log_a) / len(PROMPTS))))
    law = {"policy": policy, "base": listed.base, "stale": moved(listed.base, seed=2)}[kind]
    return torch.as_tensor(law.log_prob(PROMPTS, listed.draws))


def expected(name, target, kind, base=BASE):
    """(E_q of the method's gradient, all draws listed; the divergence's own gradient)."""
    listed, policy = listed_of(name, target, base), moved(base)
    work, recipe, method = made(name, target, policy, base)
    log_q = proposal_of(kind, listed, policy)
    weight = log_q.exp() * len(log_q) / len(PROMPTS)
    batch = Batch(listed.draws, PROMPTS, listed.log_ratio.numpy(), listed.log_a.numpy(), log_q.numpy(), weight.numpy())
    found = backward(work, recipe, batch, lambda *a: method.loss("loss", *a))
    return found, exact_gradient(lambda log_pi: listed.divergence(OBJECTIVES[name][1], log_pi), policy, listed)


@pytest.fixture
def constant_baseline(monkeypatch):
    """Where draws are listed there are no other draws: any constant is a baseline."""
    for module in (losses, sft_control):
        if hasattr(module, "others"):
            monkeypatch.setattr(module, "others", lambda value, prompt: torch.full_like(value, 0.7))


def off(pair):
    found, exact = pair
    return float((found - exact).abs().max())


@pytest.mark.parametrize("kind", ["uniform", "policy", "base", "stale"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_mean_gradient_is_that_of_the_objective(name, kind, constant_baseline):
    for target in TARGETS.values():
        assert off(expected(name, target, kind)) < 1e-8


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_mean_gradient_where_z_differs_tenfold(name, constant_baseline):
    assert off(expected(name, HARD, "stale", UNEVEN)) < 1e-8


@pytest.mark.parametrize("target", [HARD, REWARD, BOTH], ids=["hard", "reward", "both"])
def test_sft_has_the_gradient_of_kl(target):
    """Draws of p weigh 1, base draws P/(aZ)."""
    listed, policy = Listed(target=target), moved()
    work, recipe = work_on(world(target), policy), SFT(batch=64)
    method = recipe.method(work)
    weight = listed.log_p.exp().numpy() * len(listed.draws) / len(PROMPTS)
    batch = Batch(listed.draws, PROMPTS, listed.log_ratio.numpy(), listed.log_a.numpy(), weight=weight)
    found = backward(work, recipe, batch, lambda *a: method.loss("loss", *a))
    assert off((found, exact_gradient(lambda log_pi: listed.divergence("kl", log_pi), policy, listed))) < 1e-8


def control_of(listed, log_pi, strength):
    """(−E_a log π, λ·E_π[c]), means over prompts."""
    main = listed.mean(listed.log_a.exp() * -log_pi)
    return main, strength * listed.mean(log_pi.exp() * cost(listed.log_ratio))


@pytest.mark.parametrize("target", [HARD, REWARD], ids=["hard", "reward"])
def test_both_terms_of_sft_control(target, constant_baseline):
    listed, policy, recipe = Listed(target=target), moved(), SFTControl(batch=64, weight=0.6)
    work = work_on(world(target), policy)
    method = recipe.method(work)
    log_q, each = proposal_of("uniform", listed, policy), len(listed.draws) / len(PROMPTS)
    weight = listed.log_a.exp().numpy() * each
    batch = Batch(listed.draws, PROMPTS, listed.log_ratio.numpy(), listed.log_a.numpy(), log_q.numpy(), weight)
    for number, term in enumerate(("main", "control")):
        found = backward(work, recipe, batch, lambda *a, term=term: method.loss(term, *a))
        exact = exact_gradient(lambda log_pi, n=number: control_of(listed, log_pi, 0.6)[n], policy, listed)
        assert off((found, exact)) < 1e-8, term


# --- where p is reached, and where nothing is asked


@pytest.mark.parametrize("name", ["dpg", "gdc with baseline", "cdpg", *(n for n in OBJECTIVES if "f_dpg" in n)])
def test_the_gradient_of_each_draw_vanishes_at_p(name):
    """With a baseline; so that none is left of the noise."""
    assert noise_at_p(name) < 1e-10


def noise_at_p(name):
    listed = listed_of(name, REWARD)
    policy = set_to(moved(), listed.log_p.exp(), listed.draws)
    work, recipe, method = made(name, REWARD, policy)
    if name == "f_dpg tv":  # whose slope jumps at p: a hair beside it, on the same side for all
        method.log_z = method.log_z + 1e-9
    return float(gradient_of(work, method, recipe).abs().max())


@pytest.mark.parametrize("name", OBJECTIVES)
def test_where_nothing_is_asked_the_base_stands_still(name, constant_baseline):
    listed, policy = Listed(target=FREE), moved(by=0.0)
    work, recipe, method = made(name, FREE, policy)
    log_q = proposal_of("uniform", listed, policy)
    batch = Batch(listed.draws, PROMPTS, listed.log_ratio.numpy(), listed.log_a.numpy(), log_q.numpy())
    if name == "f_dpg tv":
        method.log_z = method.log_z + 1e-9
    assert float(backward(work, recipe, batch, lambda *a: method.loss("loss", *a)).abs().max()) < 1e-9


# --- E_π[w_c] = 1


def mean_weight(work, method, listed):
    """(C,) E_π[p/π] by the Z_c that the method has, all draws listed."""
    log_pi = torch.as_tensor(work.policy.log_prob(PROMPTS, listed.draws))
    batch = Batch(listed.draws, PROMPTS, listed.log_ratio.numpy(), listed.log_a.numpy())
    known = Known.of(batch, log_pi)
    return np.bincount(listed.draws.prompt, (log_pi.exp() * (known.log_p(method.log_z) - log_pi).exp()).numpy())


def own_weights(recipe, steps=0):
    listed, policy = Listed(UNEVEN, HARD), moved(UNEVEN)
    work = work_on(world(HARD, UNEVEN), policy)
    method = recipe.method(work)
    for step in range(steps):
        method.batches(step)
    return mean_weight(work, method, listed)


WEIGHED = [(DPG(pool=6000), 0), (FDPG(f="js", pool=6000), 0), (GDC(pool=6000), 0), (CDPG(batch=6000, renew=1), 2)]


@pytest.mark.parametrize(("recipe", "steps"), WEIGHED, ids=["dpg", "f_dpg", "gdc", "cdpg"])
def test_weights_have_mean_one_for_each_prompt(recipe, steps):
    """Z_c are ten times apart; a wrong one is invisible to where a table ends. 4 standard errors: 4·√((1 − Z)/(Zn))."""
    assert own_weights(recipe, steps) == pytest.approx(1, abs=4 * np.sqrt(0.92 / (0.08 * 6000)))


def test_planted_one_z_for_all_prompts(monkeypatch):
    right = Work.log_z
    monkeypatch.setattr(Work, "log_z", lambda self, batch: np.full(2, np.log(np.exp(right(self, batch)).mean())))
    found = own_weights(DPG(pool=6000))
    assert abs(found - 1).max() > 0.4


# --- the mean of 200 estimates, through the draws and passes of a training

ESTIMATES = 200
AHEAD = {"batch": 64, "renew": ESTIMATES, "pool": 64, "steps": ESTIMATES}
SAMPLED = {
    "dpg": DPG(**AHEAD), "dpg without baseline": DPG(baseline=False, **AHEAD),
    "dpg half replayed": DPG(replay=0.5, **AHEAD),
    "gdc": GDC(**AHEAD), "gdc with baseline": GDC(baseline=True, **AHEAD),
    "cdpg": CDPG(batch=64, renew=ESTIMATES, steps=ESTIMATES),
    **{f"f_dpg {f}": FDPG(f=f, floor=EPSILON, **AHEAD) for f in ("kl", "reverse_kl", "tv", "js", "chi2")},
    "sft": SFT(batch=64, steps=ESTIMATES), "sft_control": SFTControl(batch=128, renew=ESTIMATES, steps=ESTIMATES),
}  # fmt: skip
OWN_DRAWS = {**AHEAD, "renew": 1}


def estimates(name, base=BASE, recipe=None, target=HARD, count=ESTIMATES):
    """The largest |t| of the mean of `count` estimates, over 16 directions."""
    recipe, listed, policy = recipe or SAMPLED[name], listed_of(name, target, base), moved(base)
    work = work_on(world(target, base), policy)
    method = recipe.method(work)
    if hasattr(method, "log_z"):
        with_z(method, listed.log_z.numpy())
    if hasattr(method, "copy"):
        stale = moved(base, seed=2)
        method.copy.parameters[0].data.copy_(stale.parameters[0].data)
    exact = exact_gradient(lambda log_pi: objective(name, listed, log_pi), policy, listed)
    directions = torch.randn((*exact.shape, 16), generator=torch.Generator().manual_seed(5), dtype=exact.dtype)
    gaps = [gradient_of(work, method, recipe, step) - exact for step in range(count)]
    found = torch.einsum("nrv,rvk->nk", torch.stack(gaps), directions)
    return float((found.mean(0) / (found.std(0) / np.sqrt(count))).abs().max())


def objective(name, listed, log_pi):
    if name == "sft_control":
        return sum(control_of(listed, log_pi, SAMPLED[name].weight))
    return listed.divergence(name.split()[1] if name.startswith("f_dpg") else "kl", log_pi)


OFTEN = ("dpg", "dpg without baseline", "gdc", "cdpg", "f_dpg js", "sft", "sft_control")


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in OFTEN)) for n in SAMPLED])
def test_the_mean_of_estimates_is_the_exact_gradient(name):
    assert estimates(name) < 4


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [DPG(**OWN_DRAWS), FDPG(f="js", **OWN_DRAWS)], ids=["dpg", "f_dpg js"])
def test_the_mean_of_estimates_of_draws_made_now(recipe):
    assert estimates("f_dpg js" if isinstance(recipe, FDPG) else "dpg", recipe=recipe) < 4


def test_the_mean_of_estimates_under_a_temperature():
    assert estimates("dpg", BASE.warped(temperature=0.6)) < 4


# --- planted

FEW = 60


def test_planted_sign(monkeypatch, constant_baseline):
    monkeypatch.setattr(dpg, "likelihood", lambda log_pi, weight: (weight * log_pi).mean())
    assert off(expected("dpg", HARD, "policy")) > 0.01
    assert estimates("dpg", count=FEW) > 10


def test_planted_baseline_that_is_not_centred(monkeypatch):
    """f′ as it is, π/q with 1 to be added: noise at p where there is none."""
    monkeypatch.setattr(losses, "others", lambda value, prompt: torch.zeros_like(value))
    assert noise_at_p("f_dpg kl") > 1e-3
    plain = losses.matching
    monkeypatch.setattr(dpg, "matching", lambda *a, baseline: plain(*a, baseline=False))
    assert noise_at_p("dpg") > 1e-3


def test_planted_a_mean_with_the_draw_itself(monkeypatch):
    """Of two draws each is then weighed by half of their difference: half the gradient."""
    recipe = FDPG(f="js", **{**AHEAD, "batch": 4})
    assert estimates("f_dpg js", recipe=recipe, target=REWARD, count=FEW) < 4
    right = losses.others

    def with_itself(value, prompt):
        count = torch.bincount(prompt)[prompt]
        return (right(value, prompt) * (count - 1) + value) / count

    monkeypatch.setattr(losses, "others", with_itself)
    assert estimates("f_dpg js", recipe=recipe, target=REWARD) > 5


def test_planted_off_policy_baseline_without_its_ratio(monkeypatch, constant_baseline):
    monkeypatch.setattr(dpg, "matching", lambda log_pi, log_p, log_q, baseline: (log_p - log_q).exp() - 1)
    assert off(expected("dpg", HARD, "policy")) < 1e-8
    assert off(expected("dpg", HARD, "stale")) > 1e-3
    assert off(expected("gdc with baseline", HARD, "base")) > 1e-3


def test_planted_js_that_is_twice_ours(monkeypatch, constant_baseline):
    right = losses.SLOPES["js"]
    monkeypatch.setattr(losses, "SLOPES", {**losses.SLOPES, "js": lambda log_t: 2 * right(log_t)})
    monkeypatch.setattr(f_dpg, "SLOPES", losses.SLOPES)
    assert off(expected("f_dpg js", HARD, "policy")) > 1e-3


def test_planted_eos_left_out(monkeypatch):
    right = Scorer.forward

    def without(self, prompts, draws):
        found = right(self, prompts, draws)
        last = torch.arange(found.shape[1]) == torch.as_tensor(draws.length)[:, None] - 1
        return torch.where(last & torch.as_tensor(draws.finished)[:, None], 0, found)

    monkeypatch.setattr(Scorer, "forward", without)
    assert off(expected("dpg", HARD, "policy")) > 1e-3
    assert estimates("dpg", count=FEW) > 5


def test_planted_temperature_in_sampling_alone(monkeypatch):
    right = Scorer.__init__
    monkeypatch.setattr(Scorer, "__init__", lambda self, law: right(self, ahead.replace(law, warp=Warp())))
    assert estimates("dpg", BASE.warped(temperature=0.6), count=FEW) > 5


def test_planted_stale_proposal_without_its_ratio(monkeypatch):
    right = ahead.OwnDraws.batch

    def as_if_own(self, step, law):
        batch = right(self, step, law)
        return ahead.replace(batch, log_proposal=self.work.policy.log_prob(PROMPTS, batch.draws))

    monkeypatch.setattr(ahead.OwnDraws, "batch", as_if_own)
    assert estimates("gdc with baseline", count=FEW) > 5


def test_planted_replayed_draws_as_if_they_were_own(monkeypatch):
    right = ahead.BaseDraws.batch

    def as_if_own(self, rows):
        batch = right(self, rows)
        return ahead.replace(batch, log_proposal=self.work.policy.log_prob(PROMPTS, batch.draws))

    monkeypatch.setattr(ahead.BaseDraws, "batch", as_if_own)
    assert estimates("dpg half replayed") > 5


def test_gdc_never_learns_from_an_older_proposal(monkeypatch):
    """Nor after a change amid draws that were made for several steps."""
    monkeypatch.setattr(Adaptive, "gains", lambda self, batch, log_pi: np.ones(len(batch)))
    policy = moved()
    method = GDC(batch=16, pool=64, renew=4, adapt=3).method(work_on(world(), policy))
    for step in range(8):
        batch = method.batches(step)["loss"]
        assert batch.log_proposal == pytest.approx(method.copy.log_prob(PROMPTS, batch.draws))
        policy.parameters[0].data += 0.1
        method.after(step, {"loss": (batch, policy.log_prob(PROMPTS, batch.draws))})
    assert method.adopted == 6
