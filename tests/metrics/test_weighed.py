"""Divergences of laws that keep a proposal's draws by their weights: on exact worlds, beside the truth."""

from dataclasses import replace

import numpy as np
import pytest
import tiny_world
from exact_decoders import constrained
from paired_world import PairedWorld
from task_on_base import TaskOnBase
from tiny_world import BASE

from alignbench.aligners.base import Setting
from alignbench.aligners.selection.filtered import SOFT, Filtered
from alignbench.aligners.selection.quasi_rejection import QuasiRejection
from alignbench.aligners.selection.rejection import Rejection
from alignbench.aligners.selection.sir import SIR
from alignbench.checks.fuzz import acceptance
from alignbench.generators.exact.automaton import counts
from alignbench.generators.exact.world import enumerate_draws, exact
from alignbench.metrics import measure
from alignbench.metrics.distance import _shifted
from alignbench.metrics.prompts import left_out, picked
from alignbench.metrics.weighed import _quasi
from alignbench.registry import load_plugins
from alignbench.seeds import Seed
from alignbench.stats import discrete
from alignbench.stats.divergences import Sample
from alignbench.stats.filtered import log_rate
from alignbench.store.draws import DrawStore
from alignbench.task import load_task
from alignbench.types import silent

TASK = tiny_world.TASK.replace("draws: 200", "draws: 400") + tiny_world.BRIGHT
REWARD = "  - {feature: windy, reward: true, beta: 0.7}\n"
HOT = "temperature:t=1.5"


def masking(base=BASE, lookahead=3):
    says = counts(base.vocab, "sun", 1)
    return constrained(base, says.mapped(lambda v: (v > 0).astype(float)), lookahead=lookahead)


@pytest.fixture(scope="module")
def benches(tmp_path_factory):
    load_plugins()
    folder = tmp_path_factory.mktemp("tasks")
    found = {}
    for name, text in {"hard": TASK, "soft": TASK + REWARD}.items():
        (folder / "tiny.yaml").write_text(text)
        found[name] = TaskOnBase(load_task(folder / "tiny.yaml"), BASE, "exact", DrawStore(None), 600, Seed(0), silent)
    return found


def evidence(bench, recipe):
    return bench.measure("x", recipe.align(bench.setting))


def near(found, truth, parts, errors=4.5):
    """Whether each part is at its exact value."""
    for part in parts:
        e, exact_value = found[part], truth[f"divergence.{part}"]
        if e.value is None or abs(e.value - exact_value) > errors * (e.stderr or 0) + 1e-9:
            return False
    return True


EVERY = ("kl_target", "kl_target_within", "kl_reverse", "kl_reverse_within", "tv", "js", "kl_base")


@pytest.mark.parametrize("proposal", [None, HOT])
def test_quasi_rejection_beside_its_truth(benches, proposal):
    e = evidence(benches["soft"], QuasiRejection(beta=1.0, proposal=proposal))
    found = measure("divergence", e)
    assert e.selection.kind == "quasi" and (e.proposal is None) == (proposal is None)
    assert near(found, e.truth, EVERY) and found["kl_target"].stderr > 0
    assert e.truth["divergence.kl_target"] > 0.005
    moved = replace(e, selection=replace(e.selection, log_beta=(0.7, 0.7)))  # planted: another β
    assert not near(measure("divergence", moved), e.truth, EVERY)
    if proposal:
        planted = replace(e, proposal=None)  # planted: weights by the base's draws
        assert not near(measure("divergence", planted), e.truth, EVERY)


@pytest.mark.parametrize("lookahead", [None, 3])
def test_a_masking_proposal_under_rejection_is_p(benches, lookahead):
    for bench in benches.values():
        e = evidence(bench, Rejection(proposal=masking(lookahead=lookahead)))
        found = measure("divergence", e)
        assert e.truth["divergence.kl_target"] == pytest.approx(0, abs=1e-12)
        assert near(found, e.truth, EVERY)
        for part in ("kl_target", "kl_reverse", "tv", "js"):
            assert (found[part].value, found[part].ci_high) == (0, 0)
            assert "leaves out none of p: at most 0.0" in found[part].note


@pytest.mark.parametrize("recipe", [Rejection, QuasiRejection, SIR])
def test_a_proposal_that_lacks_some_of_p(benches, recipe):
    """The masks rule wind out: KL(p‖π) is infinite, and the rest is of p on what is left."""
    calm = counts(BASE.vocab, "wind", 1).mapped(lambda v: (v == 0).astype(float))
    sampler = recipe(proposal=constrained(BASE, calm)).align(benches["hard"].setting)
    e = benches["hard"].measure("x", sampler)
    found = measure("divergence", e)
    assert found["kl_target"].value == found["kl_target_within"].value == e.truth["divergence.kl_target"] == np.inf
    assert "of the target's mass" in found["kl_target"].note
    if recipe is not SIR:  # quasi-rejection with β = 1 is rejection, since P ≤ q where q masks the base
        assert near(found, e.truth, ("kl_reverse", "kl_reverse_within", "tv", "js", "kl_base"))
        assert e.truth["divergence.tv"] > 0.2
    else:
        assert found["tv"].value is found["tv"].ci_high is None and "does not reach all of p" in found["tv"].note
    planted = replace(e, ref=replace(e.ref, log_gen=e.ref.log_base))  # q as if it reached everything
    assert measure("divergence", planted)["kl_target"].value != np.inf


@pytest.mark.parametrize("proposal", [None, HOT, "masking"])
def test_sir_beside_its_truth(benches, proposal):
    given = masking() if proposal == "masking" else proposal
    e = evidence(benches["soft"], SIR(3, proposal=given))
    found = measure("divergence", e)
    assert near(found, e.truth, EVERY) and found["kl_target"].stderr > 0
    assert e.truth["divergence.kl_target"] > 0.003 and "closed form" in found["kl_target"].note
    single = replace(e, selection=replace(e.selection, n=1))  # planted: one draw
    assert not near(measure("divergence", single), e.truth, ("kl_target",))


@pytest.mark.parametrize("proposal", [None, HOT, "temperature:t=0.6"])
def test_a_filter_beside_its_truth(benches, proposal):
    """Cold proposals have heavy weights P/q: there the density of q over AR tells the KLs."""
    for name, bench in benches.items():
        e = evidence(bench, Filtered(proposal=proposal))
        found = measure("divergence", e)
        assert e.selection.kind == ("first" if proposal is None and name == "hard" else "filtered")
        cold = proposal not in (None, HOT)
        assert near(found, e.truth, [part for part in EVERY if part not in ("tv", "js") or not cold])
        assert (SOFT in found["kl_target"].note) == (name == "soft")
        assert ("density of q over AR" in found["kl_target"].note) == cold
        if proposal:
            law, told = Filtered(proposal=proposal).align(bench.setting), measure("acceptance", e)
            ar = acceptance(bench, law)["acceptance.rate"]
            assert near(told, {"divergence.rate": ar}, ["rate"])
            assert e.cost.calls == e.cost.tokens and told["proposals_per_draw"].value > 2
            log_ar = log_rate(*e.proposed.T).value
            bare = replace(found["kl_target"], value=found["kl_target"].value - log_ar)  # planted: AR left out
            assert not near({"kl_target": bare}, e.truth, ("kl_target",))
            assert near(found, e.truth, ["kl_target_vs_base", "kl_asked", "kl_collateral"])
            both = found["kl_asked"].value + found["kl_collateral"].value
            assert both == pytest.approx(found["kl_target"].value) and found["kl_collateral"].stderr < 0.1


def test_few_proposals_tell_ar_less_well_and_all_that_rests_on_it(benches):
    """Planted: a part by the density of q over AR without the error of AR."""
    e = evidence(benches["soft"], Filtered(proposal="temperature:t=0.6"))
    few = e.proposed[np.concatenate([np.flatnonzero(e.proposed[:, 0] == c)[:8] for c in (0, 1)])]
    found, rate = measure("divergence", replace(e, proposed=few)), log_rate(*few.T)
    for part in ("kl_target", "kl_collateral", "kl_target_vs_base", "kl_reverse"):
        assert found[part].stderr > rate.stderr > 0.15, part


def test_a_filter_of_a_proposal_that_lacks_some_of_p(benches):
    e = evidence(benches["hard"], Filtered(proposal="top_p:p=0.8"))
    found = measure("divergence", e)
    assert found["kl_target"].value == found["kl_collateral"].value == e.truth["divergence.kl_target"] == np.inf
    assert "of the target's mass" in found["kl_target"].note
    assert near(found, e.truth, ("kl_reverse", "kl_reverse_within", "kl_base")) and found["tv"].value is None
    planted = replace(e, ref=replace(e.ref, log_gen=e.ref.log_base))  # q as if it reached everything
    assert measure("divergence", planted)["kl_target"].value != np.inf


def test_a_filter_that_keeps_what_the_base_cannot_say(benches):
    """P/q is 0 there, and π is not: weights would take it for a broken constraint."""
    base, q = BASE.warped(top_k=2), exact(words="sun rain wind", seed=8)
    bench = benches["hard"].anew(base=base)
    e = evidence(bench, Filtered(proposal={"name": "exact", "words": "sun rain wind", "seed": 8}))
    found = measure("divergence", e)
    assert e.truth is None and found["kl_reverse"].value == found["kl_base"].value == np.inf
    assert found["tv"].value is None and "what the base cannot say" in found["tv"].note
    every, truth = enumerate_draws(q, e.prompts, max_tokens=3), []
    log_a, keeps = base.log_prob(e.prompts, every), np.array(["sun" in text for text in every.texts])
    for rows in (every.prompt == c for c in range(len(e.prompts))):
        pi, p = (np.where(keeps, np.exp(x), 0.0)[rows] for x in (every.log_prob, log_a))
        truth.append(discrete.kl(p / p.sum(), pi / pi.sum()))
    assert near(found, {"divergence.kl_target": np.mean(truth)}, ("kl_target",))


def test_lambda_moves_the_target_and_not_the_filter(benches, tmp_path):
    (tmp_path / "tiny.yaml").write_text(TASK + "  - {feature: windy, moment: 0.4}\n")
    e = evidence(benches["hard"].anew(task=load_task(tmp_path / "tiny.yaml")), Filtered(proposal=HOT))
    found, asked = measure("divergence", e), measure("divergence", e, at="asked")
    assert asked["kl_target"].stderr > found["kl_target"].stderr and asked["kl_base"] == found["kl_base"]
    assert "λ" in found["kl_target"].note and "λ" not in found["kl_base"].note


def test_where_weights_tell_nothing_features_do(benches):
    e = evidence(benches["soft"], SIR(3, proposal=HOT))
    few = np.sort(np.concatenate([np.flatnonzero(e.proposal.draws.prompt == c)[:8] for c in (0, 1)]))
    found = measure("divergence", replace(e, proposal=picked(e.proposal, few)))
    for part in ("kl_reverse", "tv"):
        assert found[part].value is None and "are needed" in found[part].note, part
        assert found[part].ci_low is not None and "by 2 cells" in found[part].note, part


def test_hard_constraints_on_the_base_are_met_exactly(benches):
    for recipe in (QuasiRejection(), QuasiRejection(beta=0.3), SIR(8)):
        e = evidence(benches["hard"], recipe)
        found = measure("divergence", e)
        assert near(found, e.truth, EVERY) and found["kl_target"].value == found["tv"].ci_high == 0
        assert e.truth["divergence.kl_target"] == pytest.approx(0, abs=1e-12)


def test_own_draws_are_scored_under_the_base(benches):
    """Not by what the proposal's model said of them."""
    e = evidence(benches["soft"], QuasiRejection(proposal={"name": "exact", "words": "sun rain wind", "seed": 8}))
    assert e.own.log_base == pytest.approx(BASE.log_prob(e.prompts, e.own.draws))
    other = exact(words="sun rain wind", seed=8)
    assert e.ref.log_gen == pytest.approx(other.log_prob(e.prompts, e.ref.draws))
    assert e.proposal.log_base == pytest.approx(BASE.log_prob(e.prompts, e.proposal.draws))


def test_the_bill_of_proposals(benches):
    e = evidence(benches["soft"], QuasiRejection(beta=1.0, cap=3, proposal=HOT))
    assert e.cost.exhausted > 0 and e.cost.calls > e.cost.tokens
    assert e.cost.proposals == e.proposed[:, 1].sum() and e.cost.kept == len(e.own.draws)
    rate = measure("acceptance", e)["rate"]
    assert 0 < rate.ci_low < e.cost.kept / e.cost.proposals < rate.ci_high < 1


def test_the_bill_says_what_is_not_in_it(benches):
    for recipe, said in (
        (QuasiRejection(tv=0.1, pilot=40), "not counted: the 40 draws of the proposal a prompt that choose β"),
        (SIR(2, proposal="few_shot:k=1"), "not counted: the draws of which its 1 examples are"),
        (QuasiRejection(beta=2.0), ""),
    ):
        found = measure("cost", evidence(benches["hard"], recipe))
        for part in ("calls_per_draw", "tokens_per_draw", "proposals_per_draw"):
            assert found[part].note == "; ".join(filter(None, ("measured once: no interval", said)))


def test_memory_kept_for_the_next_batch_is_let_go(benches):
    """Also that of a proposal of a proposal."""
    let_go = []

    class Draws:
        def __init__(self, name, proposal=None):
            self.proposal, self.sample, self.forget = proposal, BASE.sample, lambda: let_go.append(name)

    benches["hard"].draw("x", Draws("outer", Draws("inner", Draws("innermost"))), "own")
    assert let_go == ["outer", "inner", "innermost"]


def test_a_prompt_is_left_out_of_the_proposal_and_of_beta(benches):
    e = evidence(benches["soft"], QuasiRejection(tv=0.1, proposal=HOT))
    less = left_out(e, 0)
    assert less.selection.log_beta == e.selection.log_beta[1:] and set(less.proposal.draws.prompt) == {0}
    assert np.array_equal(less.proposal.log_gen, e.proposal.log_gen[e.proposal.draws.prompt == 1])
    assert measure("divergence", less)["kl_base"].value is not None


def test_the_shift_of_lambda_moves_the_proposal(benches):
    e = evidence(benches["soft"], QuasiRejection(proposal=HOT))
    phi = np.ones((len(e.proposal.draws), 1))
    e = replace(e, proposal=replace(e.proposal, phi=phi))
    assert _shifted(e, np.array([[0.3]])).proposal.log_target == pytest.approx(e.proposal.log_target + 0.3)
    each = np.arange(len(e.prompts))[:, None] / 10  # a λ for each prompt has an error for each
    moved = _shifted(e, each).proposal.log_target
    assert moved == pytest.approx(e.proposal.log_target + each[e.proposal.draws.prompt, 0])


def test_a_finished_run_needs_no_pilot(tmp_path, benches, monkeypatch):
    """Identity does not ask for β, so that stored draws are found without it."""
    bench = benches["soft"].anew(store=DrawStore(tmp_path))
    recipe = QuasiRejection(acceptance=0.05, pilot=30)
    first = evidence(bench, recipe)
    again = bench.anew()
    setting = Setting(again.base, again.target, again.prompts, 3, again.seed.on("train"))
    sampler = recipe.align(setting)
    assert again.draw("x", sampler, "own").fresh == 0 and "log_beta" not in vars(sampler)
    assert first.selection.log_beta == sampler.selection.log_beta


def test_each_prompt_has_its_own_beta():
    """Two prompts together are the mean of each alone; planted: both by prompt 0's β."""
    rng, each = np.random.default_rng(0), 2000
    prompt, r = np.repeat([0, 1], each), rng.choice([0.0, 1.0, 2.0], 2 * each, p=[0.5, 0.3, 0.2])
    zero, log_beta = np.zeros(2 * each), np.array([0.3, 1.2])
    whole = Sample(prompt, zero, r, zero, log_proposal=zero)
    found = _quasi(whole, log_beta, zero)
    alone = [_quasi(replace(whole.take(prompt == c), prompt=np.zeros(each, int)), log_beta[c:], zero[:each])
             for c in (0, 1)]  # fmt: skip
    for part in ("kl_target", "tv", "kl_base"):
        assert found[part].value == pytest.approx(np.mean([one[part].value for one in alone]), rel=1e-6), part
    assert alone[0]["tv"].value > 1.5 * alone[1]["tv"].value


def test_a_law_that_truncates_is_told_what_it_may_leave_out():
    plain = PairedWorld(1).evidence(0)[0]
    for truncates in (True, False):
        note = measure("divergence", replace(plain, truncates=truncates))["kl_target"].note
        assert ("π truncates; target mass it leaves uncovered" in note) == truncates
