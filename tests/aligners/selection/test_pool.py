"""The pool: who selects among a base's draws asks for attempts by number, so that each is made once for all."""

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from aligner_worlds import LENGTH, PROMPTS, best, keys, within
from task_on_base import TaskOnBase
from tiny_world import BASE, BRIGHT, TASK

from alignbench.aligners.base import Setting
from alignbench.aligners.prompting import few_shot as few_shot_module
from alignbench.aligners.prompting.few_shot import FewShot
from alignbench.aligners.selection import quasi_rejection as quasi_module
from alignbench.aligners.selection import rounds as rounds_module
from alignbench.aligners.selection.best_of_n import BestOfN
from alignbench.aligners.selection.quasi_rejection import QuasiRejection
from alignbench.aligners.selection.rejection import Rejection
from alignbench.aligners.selection.sir import SIR
from alignbench.generators.described import identity_of
from alignbench.generators.law import Law
from alignbench.generators.pool import NoPool
from alignbench.seeds import ATTEMPT, EXAMPLES, PILOT, Seed
from alignbench.store.draws import DrawRequest, DrawStore
from alignbench.task import load_task
from alignbench.types import Draws, collect, rows_of, silent

EACH = 16
ROWS = rows_of(len(PROMPTS), EACH)
WARM = "temperature:t=2.0"
RECIPES = {
    "base": None, "best_of_n": BestOfN(9), "rejection": Rejection(9), "sir": SIR(5), "quasi": QuasiRejection(cap=9),
}  # fmt: skip
"""None asks for more than the attempts 0 … 8 at a draw, and best-of-n for all of them."""
OF_A_PROPOSAL = {
    "best_of_n": BestOfN(9, proposal=WARM), "sir": SIR(5, WARM), "quasi": QuasiRejection(beta=9, cap=9, proposal=WARM),
}  # fmt: skip
NESTED = {
    "base": None, "rejection": Rejection(50), "best of rejection": BestOfN(3, proposal="rejection:cap=40"),
    "best of best": BestOfN(3, proposal="best_of_n:n=2"), "best of sir": BestOfN(2, proposal="sir:n=4"),
}  # fmt: skip


@pytest.fixture
def asked(monkeypatch):
    """Every (law's temperature, stream, salt, prompt, index) that laws were asked for."""
    seen, right = [], Law.sample

    def sample(self, prompts, rows, *, max_tokens, seed):
        heat = self.warp.temperature
        seen.extend((heat, seed.stream, seed.salt, prompts[c], i) for c, i in np.asarray(rows).tolist())
        return right(self, prompts, rows, max_tokens=max_tokens, seed=seed)

    monkeypatch.setattr(Law, "sample", sample)
    return seen


def made(world, recipe, pool=None):
    """The generator of a recipe, on this pool."""
    setting = Setting(world.base, world.target, PROMPTS, LENGTH, Seed(0, "train"), pool=pool or NoPool())
    return world.base if recipe is None else recipe.align(setting)


def measured(world, recipes, store, rows=ROWS):
    """Name → what the store says of its row, one after the other."""
    request = DrawRequest(PROMPTS, rows, LENGTH, Seed(1))
    generators = {name: made(world, recipe, store) for name, recipe in recipes.items()}
    return {name: store.sample(g, identity_of(g), request) for name, g in generators.items()}


def alone(world, recipe):
    """Its draws without a pool."""
    return collect(made(world, recipe).sample(PROMPTS, ROWS, max_tokens=LENGTH, seed=Seed(1))).sorted()


def same(a: Draws, b: Draws, but: tuple[str, ...] = ()) -> bool:
    """Whether draws, and what they say that they cost, are the same."""
    names = ("prompt", "index", "tokens", "length", "finished", "spent", "calls", "proposals", "accepted")
    equal = all(np.array_equal(getattr(a, name), getattr(b, name)) for name in names if name not in but)
    return equal and a.texts == b.texts and np.allclose(a.model_log_prob, b.model_log_prob, atol=1e-9)


# --- what is asked of the base ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipes", [RECIPES, OF_A_PROPOSAL, dict(reversed(RECIPES.items()))])
def test_rows_together_ask_for_what_the_hungriest_asks_for_alone(soft, asked, tmp_path, recipes):
    """Of the base, and of one proposal named by several; no draw twice; in memory and on disk."""
    alone(soft, recipes["best_of_n"])
    hungriest = set(asked)
    assert len(hungriest) == 9 * len(ROWS)
    for store in (DrawStore(None), DrawStore(tmp_path)):
        asked.clear()
        measured(soft, recipes, store)
        assert set(asked) == hungriest and len(asked) == len(hungriest)


def test_planted_without_a_pool_each_row_asks_for_itself(soft, asked):
    for recipe in RECIPES.values():
        alone(soft, recipe)
    assert len(asked) > 1.5 * len(set(asked)) == 1.5 * 9 * len(ROWS)


@pytest.mark.parametrize("recipes", [RECIPES, OF_A_PROPOSAL, NESTED])
def test_rows_together_ask_for_what_any_of_them_asks_for(soft, asked, recipes):
    for recipe in recipes.values():
        alone(soft, recipe)
    wanted = set(asked)
    asked.clear()
    measured(soft, recipes, DrawStore(None))
    assert Counter(asked) == dict.fromkeys(wanted, 1)


@pytest.mark.parametrize("memory", [2**20, 5_000, 0])
def test_another_run_on_the_same_folder_draws_nothing(soft, asked, tmp_path, memory):
    """Nor do other recipes that need no further attempts."""
    first = measured(soft, RECIPES, DrawStore(tmp_path))
    asked.clear()
    store = DrawStore(tmp_path, memory)
    again = measured(soft, RECIPES | {"other": BestOfN(7), "fewer": Rejection(4)}, store)
    assert not asked and store._memory.used <= memory
    assert all(same(again[name].draws, first[name].draws) and again[name].fresh == 0 for name in RECIPES)
    assert same(again["other"].draws, alone(soft, BestOfN(7))) and again["other"].fresh == len(ROWS)


# --- what is drawn ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipes", [RECIPES, OF_A_PROPOSAL, NESTED])
@pytest.mark.parametrize("memory", [2**20, 2_000])
def test_draws_and_bills_are_the_same_with_and_without_a_pool(soft, tmp_path, recipes, memory):
    """Each row pays what it would take alone; also where memory has room for little or nothing."""
    wanted = {name: alone(soft, recipe) for name, recipe in recipes.items()}
    for folder in (None, tmp_path):
        store = DrawStore(folder, memory)
        found = measured(soft, recipes, store)
        assert store._memory.used <= memory
        assert [name for name in recipes if not same(found[name].draws, wanted[name])] == []


def test_a_row_that_is_another_s_proposal_is_found_too(soft, asked):
    """Its draws are; of tokens decoded in vain there are more or fewer, as rejection proposes by its company."""
    recipes = {"rejection": Rejection(40), "best of rejection": BestOfN(3, proposal="rejection:cap=40")}
    found = measured(soft, recipes, DrawStore(None))["best of rejection"].draws
    assert len(asked) == len(set(asked))
    plain = alone(soft, recipes["best of rejection"])
    assert same(found, plain, but=("spent", "calls"))
    assert found.spent.sum() == pytest.approx(plain.spent.sum(), rel=0.1)


def test_the_first_attempt_is_the_base_s_own_draw(hard, soft):
    """Planted bug: attempts numbered i·n + t, by which only draw 0 was."""
    for world in (hard, soft):
        base, ratio = alone(world, None), {}
        for n in (1, 2, 6):
            ratio[n] = world.target.log_ratio_of(PROMPTS, alone(world, BestOfN(n)))
        assert alone(world, BestOfN(1)).texts == base.texts
        assert (ratio[2] >= ratio[1]).all() and (ratio[6] >= ratio[2]).all() and (ratio[6] > ratio[1]).any()
        kept = alone(world, Rejection(50))
        at_once = np.flatnonzero(kept.proposals == 1)
        assert 0 < len(at_once) < len(ROWS) and keys(kept.take(at_once)) == keys(base.take(at_once))
    meets = np.isfinite(hard.target.log_ratio_of(PROMPTS, alone(hard, None)))
    assert np.array_equal(alone(hard, Rejection(50)).proposals == 1, meets)


def test_laws_hold_on_a_pool_that_is_shared(soft):
    """Best-of-n and rejection of one pool have the laws that they have alone."""
    store, each = DrawStore(None), 600
    request = DrawRequest(PROMPTS, rows_of(2, each), LENGTH, Seed(1))
    recipes = {"rejection": Rejection(), "best": BestOfN(3), "nested": BestOfN(2, proposal="rejection")}
    draws = {
        name: store.sample(g := made(soft, r, store), identity_of(g), request).draws for name, r in recipes.items()
    }
    assert draws["rejection"].accepted.all() and within(draws["rejection"], soft.p)
    assert within(draws["best"], best(soft, 3))
    assert within(draws["nested"], best_of_p(soft, 2))


def best_of_p(world, n):
    """The law of the best of n draws of p."""
    rows = np.isfinite(world.ratio)
    every, ratio = world.all.take(rows), world.ratio[rows]
    log_p = every.log_prob + ratio
    log_z = np.log(np.bincount(every.prompt, np.exp(log_p)))
    return best(replace(world, all=replace(every, log_prob=log_p - log_z[every.prompt]), ratio=ratio), n)


def overlapping(index, count, first=0, most=None):
    """Planted: the inner attempts begin at the number of the outer one."""
    return np.asarray(index)[:, None] + (first + np.arange(count)) * ATTEMPT


def test_proposals_of_rejection_are_independent(soft, asked, monkeypatch):
    """Best-of-n over rejection: no proposal of a draw is made of another's; planted: attempts numbered a + t."""
    recipe = BestOfN(3, proposal="rejection:cap=40")
    right = alone(soft, recipe)
    assert len(asked) == len(set(asked)) > 3 * len(ROWS)
    monkeypatch.setattr(rounds_module, "attempts", overlapping)
    asked.clear()
    planted = alone(soft, recipe)
    assert len(asked) > 1.2 * len(set(asked)) and planted.texts != right.texts


# --- what it took -----------------------------------------------------------------------------------------------------


@pytest.fixture
def slow(monkeypatch):
    """Every draw of a law takes a second, and nothing else takes any."""
    clock, right = SimpleNamespace(now=0.0), Law.sample

    def sample(self, prompts, rows, **more):
        for batch in right(self, prompts, rows, **more):
            clock.now += len(batch)
            yield batch

    monkeypatch.setattr(Law, "sample", sample)
    monkeypatch.setattr("alignbench.store.draws.time", SimpleNamespace(perf_counter=lambda: clock.now))
    return clock


@pytest.mark.parametrize("recipes", [RECIPES, OF_A_PROPOSAL, NESTED])
def test_seconds_are_what_a_row_takes_alone(soft, slow, tmp_path, recipes):
    """Whoever finds a draw pays the seconds that it took when it was made, in this run or in another."""
    wanted = {name: measured(soft, {name: recipe}, DrawStore(None))[name] for name, recipe in recipes.items()}
    assert wanted["best of best" if recipes is NESTED else "best_of_n"].seconds >= 6 * len(ROWS)
    for folder in (None, tmp_path, tmp_path):
        found = measured(soft, recipes, DrawStore(folder))
        for name, stored in found.items():
            assert stored.seconds == pytest.approx(wanted[name].seconds), name
    began, more = slow.now, {"more": BestOfN(5, proposal=WARM if recipes is OF_A_PROPOSAL else None)}
    if recipes is not NESTED:
        assert measured(soft, more, DrawStore(tmp_path))["more"].seconds == pytest.approx(5 * len(ROWS))
        assert slow.now == began


def test_what_prepares_a_row_is_no_part_of_its_seconds(soft, slow):
    """The pilot that chooses β: 2 · 200 seconds of draws on the stream `train`, whether made now or found."""
    recipe, store = QuasiRejection(acceptance=0.2, pilot=200, cap=9), DrawStore(None)
    first = measured(soft, {"quasi": recipe}, store)["quasi"].seconds
    assert slow.now == pytest.approx(first + 400)
    again = made(soft, recipe, store)  # its pilot is found, its draws are other ones
    request = DrawRequest(PROMPTS, ROWS + np.array([0, EACH]), LENGTH, Seed(1))
    began, stored = slow.now, store.sample(again, identity_of(again), request)
    assert stored.seconds == pytest.approx(slow.now - began)


# --- streams ----------------------------------------------------------------------------------------------------------

MOMENT = "  - {feature: windy, moment: 0.5}\n"


def of_the_base(tmp_path, asked):
    """(stream, salt) → the uniforms of each draw of the base in a run of several aligners."""
    (tmp_path / "tiny.yaml").write_text(TASK + BRIGHT + MOMENT)
    task = load_task(tmp_path / "tiny.yaml")
    bench = TaskOnBase(task=task, base=BASE, base_name="exact", store=DrawStore(None), draws=60, seed=Seed(7),
                       progress=silent)  # fmt: skip
    recipes = {"few_shot": FewShot(3), "quasi": QuasiRejection(acceptance=0.2, pilot=60, cap=40), "best": BestOfN(4)}
    bench.measure("base", bench.base)
    for name, recipe in recipes.items():
        framed = len(asked)
        bench.measure(name, recipe.align(bench.setting))
        if name == "few_shot":  # its own draws come after its examples, and are no draws of the base
            asked[framed:] = [row for row in asked[framed:] if row[1] == "train"]
    found = {}
    for _, stream, salt, prompt, index in asked:
        found.setdefault((stream, salt), set()).add((prompt, Seed(7, stream, salt).rng(prompt, index).random()))
    return found


def test_streams_and_uses_of_a_stream_never_share_a_draw(tmp_path, asked):
    """Examples and pilots are on `train`, each with its salt; what is measured is on `own`; references are apart."""
    found = of_the_base(tmp_path, asked)
    assert set(found) == {("fit", 0), ("heldout", 0), ("ref", 0), ("own", 0), ("train", EXAMPLES), ("train", PILOT)}
    assert len(set.union(*found.values())) == sum(map(len, found.values()))
    assert len(asked) == sum(map(len, found.values())), "and none is drawn twice"
    assert {index // ATTEMPT for _, stream, _, _, index in asked if stream in ("fit", "heldout", "ref")} == {0}


def test_planted_examples_and_pilot_that_share_their_draws(tmp_path, asked, monkeypatch):
    """As in version 0.1, where both took the first draws of `train`."""
    monkeypatch.setattr(few_shot_module, "EXAMPLES", 0)
    monkeypatch.setattr(quasi_module, "PILOT", 0)
    found = of_the_base(tmp_path, asked)
    assert ("train", 0) in found and len(found) == 5
