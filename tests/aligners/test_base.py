"""What all aligners have in common: how a recipe that names other generators is checked."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from aligner_worlds import LENGTH, PROMPTS, make_world

from alignbench.aligners.base import Setting
from alignbench.errors import UsageError
from alignbench.files import digest
from alignbench.generators.exact.world import exact
from alignbench.registry import aligner, generator, load_plugins
from alignbench.seeds import PLUGIN, Seed
from alignbench.target import Constraint
from alignbench.types import Fit

load_plugins()
NESTING = {name: "proposal" for name, entry in aligner.items() if "proposal" in entry.parameters} | {"chain": "steps"}
"""Aligner → its hyper-parameter that names aligners or generators."""


@pytest.fixture
def loader(monkeypatch):
    """A generator that may run code, which is told if it did."""
    ran = []
    monkeypatch.setattr(generator, "entries", dict(generator.entries))
    generator("loader")(lambda *, trust_remote_code=False: ran.append(trust_remote_code))
    yield
    assert not ran


@pytest.mark.parametrize("name", NESTING)
@pytest.mark.parametrize(
    "given",
    [
        "loader:trust_remote_code=true", {"name": "loader", "trust_remote_code": True},
        "{name: sir, proposal: {name: loader, trust_remote_code: true}}",
        {"name": "sir", "proposal": "loader:trust_remote_code=true"},
    ],
)  # fmt: skip
def test_no_recipe_may_ask_to_run_a_repository_s_code(loader, name, given):
    """Planted bug: a hyper-parameter that names a generator, without the guard, be the recipe made in Python or not."""
    value = [given] if name == "chain" else given
    for made in (aligner[name].thing, lambda **told: aligner[name].check(told) or aligner[name].thing(**told)):
        with pytest.raises(UsageError, match=r"trust_remote_code is not an argument; give the flag --trust_remote"):
            made(**{NESTING[name]: value})


def test_there_are_aligners_that_put_others_to_work():
    assert {"best_of_n", "chain", "quasi_rejection", "rejection", "sir"} <= set(NESTING)


# --- what a recipe that trains depends on


@dataclass(frozen=True)
class Works:
    """An aligner with work to do, which tells what that depends on besides the setting."""

    t: float = 1.0

    def identity(self, setting):
        return {"t": self.t}


def fitted(target, lam):
    return replace(target, fit=Fit(target.wanted(), np.array([[lam]]), np.array([[0.1]])))


def test_work_is_found_by_all_that_it_depends_on():
    """Planted: without prompts, length, seed, base, target or λ, the work of one setting is found for another."""
    world = make_world(Constraint("sun", "always"))
    target = fitted(replace(world.target, constraints=(Constraint("winds", "moment", 1.0),)), 0.5)
    plain = Setting(world.base, target, PROMPTS, LENGTH, Seed(0, "train"), ("rain",))
    others = {
        "base": replace(plain, given=exact(words="sun rain wind", seed=11)), "length": replace(plain, max_tokens=4),
        "prompts": replace(plain, prompts=("sun", "wind")), "seed": replace(plain, seed=Seed(1, "train")),
        "train": replace(plain, train=("wind",)), "target": replace(plain, target=world.target),
        "lam": replace(plain, target=fitted(target, 0.6)),
    }  # fmt: skip
    names = {what: digest(setting.identity_of(Works())) for what, setting in others.items()}
    names |= {"": digest(plain.identity_of(Works())), "t": digest(plain.identity_of(Works(2.0)))}
    assert len(set(names.values())) == len(names), names
    assert digest(replace(plain, outline=True).identity_of(Works())) == names[""]


def test_an_aligner_trains_on_the_task_s_prompts_for_it_unless_each_prompt_has_its_own_lambda():
    world = make_world(Constraint("sun", "always"))
    setting = Setting(world.base, world.target, PROMPTS, LENGTH, Seed(0, "train"), ("rain",))
    assert setting.train_prompts == ("rain",) and replace(setting, train=()).train_prompts == PROMPTS
    each = replace(world.target, constraints=(Constraint("winds", "moment", 1.0, per="prompt"),))
    assert replace(setting, target=each).train_prompts == PROMPTS


def test_training_draws_of_two_uses_are_apart():
    world = make_world()
    setting = Setting(world.base, world.target, PROMPTS, LENGTH, Seed(0, "train"))
    rows = np.array([[0, i] for i in range(30)])
    plain, used, again = (setting.base_draws(rows, salt).texts for salt in (0, PLUGIN, PLUGIN))
    assert used == again != plain
