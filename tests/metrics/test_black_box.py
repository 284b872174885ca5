"""Bounds for a generator without a density: they hold on a world that is known, and the plug-in point would not."""

import numpy as np
import pytest
from task_on_base import TaskOnBase
from tiny_world import BASE, BRIGHT, PROMPTS, TASK

from alignbench import metrics
from alignbench.generators.exact.world import enumerate_draws
from alignbench.metrics.black_box import _draws_of_p, _joint, black_box
from alignbench.registry import load_plugins
from alignbench.seeds import Seed
from alignbench.store.draws import DrawStore
from alignbench.task import load_task
from alignbench.types import Draws, Evidence, Fit, Scored, Wanted, collect, rows_of, silent

load_plugins()


class TextOnly:
    """A law whose texts alone are seen."""

    name = "text only"

    def __init__(self, law):
        self.law = law

    def sample(self, prompts, rows, *, max_tokens, seed):
        drawn = collect(self.law.sample(prompts, rows, max_tokens=max_tokens, seed=seed))
        yield Draws.from_texts(np.stack([drawn.prompt, drawn.index], axis=1), drawn.texts)


@pytest.fixture
def measured(tmp_path):
    def measure(target, law, seed=0, draws=200):
        (tmp_path / "tiny.yaml").write_text(TASK + target)
        task = load_task(tmp_path / "tiny.yaml")
        bench = TaskOnBase(task, BASE, "exact", DrawStore(None), draws, Seed(seed), silent)
        truth = bench.measure("law", law).truth
        return metrics.measure("divergence", bench.measure("texts", TextOnly(law))), truth

    return measure


MOMENT = "  - {feature: windy, moment: 0.5}\n"


def test_far_laws_have_a_bound_above_0_and_below_the_truth(measured):
    found, truth = measured(MOMENT + BRIGHT, BASE.warped(temperature=0.3), draws=400)
    for part in ("kl_target", "tv"):
        assert found[part].value is None
        assert 0 < found[part].ci_low <= truth[f"divergence.{part}"], part
        assert "lower limit by 4 cells" in found[part].note and "of windy, bright" in found[part].note
    assert found["kl_reverse"].value == np.inf and "breaks a hard constraint" in found["kl_reverse"].note
    assert found["js"].value is None and found["log_z"].value is not None


def test_a_law_at_p_has_a_bound_of_0_and_no_more(measured):
    """The base itself, seen by its texts: with its own moment asked for, p is the base."""
    drawn = enumerate_draws(BASE, PROMPTS, max_tokens=3)
    windy = np.array(["wind" in text.split() for text in drawn.texts])
    own = float(np.exp(drawn.log_prob[windy]).sum() / 2)
    above = 0
    for seed in range(20):
        found, truth = measured(f"  - {{feature: windy, moment: {own:.4f}}}\n", BASE, seed)
        assert truth["divergence.kl_target"] < 0.02
        above += found["kl_target"].ci_low > truth["divergence.kl_target"] + 1e-9
    assert above <= 3  # 5 % of 20 is 1


def test_a_reward_has_no_cells(measured):
    found, _ = measured("  - {feature: windy, reward: true, beta: 2.0}\n", BASE)
    assert found["kl_target"].value is None and found["kl_target"].ci_low is None
    assert "tokens are not the base's" in found["kl_target"].note


def told(own=1.0, bound=0.0, component=None, each=2000):
    """Evidence on one prompt: two hard constraints, the first of which own draws keep where `own` is 1."""
    rows, zero = rows_of(1, each), np.zeros(each)
    draws = Draws.from_texts(rows, [""] * each)
    kept = {"first": np.full(each, own), "second": np.ones(each)}
    wanted = tuple(Wanted(name, "always", value=1.0) for name in kept)
    fit = Fit(wanted, np.zeros((1, 0)), np.zeros((1, 0)), log_bound=np.array([bound]))
    ref = Scored(draws, {name: np.ones(each) for name in kept}, zero, zero, None, None, component=component)
    return Evidence(own=Scored(draws, kept, zero, zero, None, None), ref=ref, fit=fit, prompts=["a"])


def test_every_hard_constraint_counts():
    assert black_box(told(own=0.0), "texts alone", 0)["kl_reverse"].value == np.inf
    assert black_box(told(own=1.0), "texts alone", 0)["kl_reverse"].value is None


def test_a_base_draw_is_one_of_p_with_the_chance_that_its_bound_tells():
    assert len(_draws_of_p(told(bound=0.0), 0)) == 2000
    assert len(_draws_of_p(told(bound=np.log(4)), 0)) == pytest.approx(500, abs=4 * 375**0.5)


def test_draws_of_a_proposal_are_no_base_draws():
    component = np.arange(2000) % 2
    assert set(component[_draws_of_p(told(component=component), 0)]) == {0}


def test_each_pair_of_cells_is_a_cell_of_its_own():
    """Also where a share and a number have the same sum."""
    both = {"hit": (Wanted("hit", "always", value=1.0), 2), "who": (Wanted("who", "distribution", "he", 0.5), 3)}
    values = {"hit": np.array([0.0, 0, 0, 1, 1, 1]), "who": np.array([-1, 0, 1, -1, 0, 1])}
    scored = Scored(Draws.from_texts(rows_of(1, 6), [""] * 6), values, *[None] * 4)
    assert sorted(_joint(scored, both).tolist()) == list(range(6))
