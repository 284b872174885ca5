"""Control codes on a table: the mixture over codes is normalised, is what is drawn, and comes to p; planted bugs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from alignbench.aligners.base import Setting
from alignbench.aligners.training import cells, control_code
from alignbench.aligners.training.control_code import CodedLaw, ControlCode
from alignbench.aligners.training.dpg import DPG
from alignbench.generators.exact.world import enumerate_draws
from alignbench.generators.policy import policy_of
from alignbench.seeds import Seed
from alignbench.target import Constraint, Target
from alignbench.target.truth import exact_values
from alignbench.testing import check, table_world
from alignbench.types import collect, rows_of

WORDS, PROMPTS, LENGTH = ("rain", "sun", "wind"), ("sun", "wind"), 3
CODES = ("rain ", "rain rain ", "rain rain rain ", "rain rain rain rain ")
"""A table reads words alone: each code is so many of them."""


def counted(word):
    return lambda prompts, draws: np.array([float(text.split().count(word)) for text in draws.texts])


def said(word):
    return lambda prompts, draws: np.array([float(word in text.split()) for text in draws.texts])


def base():
    """Each prompt behind each code is at first as it is without."""
    prompts = (*PROMPTS, *(code + prompt for code in CODES for prompt in PROMPTS))
    plain = table_world(WORDS, PROMPTS, LENGTH).model.network.logits.numpy().reshape(len(PROMPTS), -1, 4)
    return table_world(WORDS, prompts, LENGTH, logits=np.concatenate([plain] * (1 + len(CODES))))


def target(law, *constraints):
    aim = Target(constraints, {}, {"sun": (0.0, 1.0), "winds": (0.0, 3.0)},
                 measures={"sun": said("sun"), "winds": counted("wind")})  # fmt: skip
    draws = collect(law.sample(PROMPTS, rows_of(2, 300), max_tokens=LENGTH, seed=Seed(3, "fit")))
    return aim.fitted(aim.measure(PROMPTS, draws), draws.prompt, {}, np.zeros(0, int), PROMPTS)


HARD, REWARD = Constraint("sun", "always"), Constraint("winds", "reward", beta=1.0)


@pytest.mark.parametrize("recipe", [ControlCode(), DPG(baseline="prefix")], ids=["control_code", "dpg by prefix"])
def test_a_training_is_another_where_its_cells_are(recipe):
    setting = Setting(base(), target(base(), REWARD), PROMPTS, LENGTH, Seed(0, "train"))
    assert setting.target.fit is not None
    fit = replace(setting.target.fit, bins={"winds": np.array([1.5])})
    other = replace(setting, target=replace(setting.target, fit=fit))
    assert recipe.identity(other) != recipe.identity(setting)
    assert DPG().identity(other) == DPG().identity(setting)


@pytest.fixture
def coded(monkeypatch):
    """Codes as words, in the order of their names."""
    right = cells.codes_of

    def words(aim, prompts, draws):
        names = {"sun: yes": 0, "sun: no": 1, **{f"winds: {k + 1} of 4": k for k in range(4)}}
        return [CODES[names[code]] for code in right(aim, prompts, draws)]

    monkeypatch.setattr(control_code, "codes_of", words)


def mixed(law, shares):
    """A law over two codes whose policy says other things behind each."""
    policy = policy_of(law)
    with np.errstate(all="ignore"):
        rng = np.random.default_rng(1)
        policy.learner.network.logits.data += policy.learner.network.logits.new_tensor(
            rng.normal(size=policy.learner.network.logits.shape)
        )
    return CodedLaw(policy, CODES[:2], shares)


def test_the_mixture_is_normalised_and_is_what_is_drawn():
    law = mixed(base(), ((0.3, 0.7), (1.0, 0.0)))
    listed = enumerate_draws(law.policy, PROMPTS, max_tokens=LENGTH)
    mass = np.exp(law.log_prob(PROMPTS, listed))
    assert np.allclose(np.bincount(listed.prompt, mass), 1, atol=1e-12)
    assert {"rescoring_is_sampling", "draws_depend_on_their_row_alone"} <= set(check(law, PROMPTS, max_tokens=LENGTH))
    drawn = collect(law.sample(PROMPTS, rows_of(2, 2000), max_tokens=LENGTH, seed=Seed(5)))
    tokens = {tuple(row): k for k, row in enumerate(np.column_stack([listed.prompt, listed.tokens]).tolist())}
    seen = np.bincount([tokens[tuple(row)] for row in np.column_stack([drawn.prompt, drawn.tokens]).tolist()],
                       minlength=len(mass))  # fmt: skip
    off = (seen - 2000 * mass) / np.sqrt(2000 * mass + 1)
    assert (off**2).mean() < 1.3 and abs(off).max() < 5


def test_planted_a_density_of_one_code_alone():
    law = mixed(base(), ((0.3, 0.7), (1.0, 0.0)))
    listed = enumerate_draws(law.policy, PROMPTS, max_tokens=LENGTH)
    alone = replace(law, codes=CODES[:1], shares=((0.3,), (1.0,)))
    assert not np.allclose(np.bincount(listed.prompt, np.exp(alone.log_prob(PROMPTS, listed))), 1)


@pytest.mark.parametrize("asked", [HARD, REWARD], ids=["hard", "reward"])
def test_it_comes_to_p(asked, coded):
    law = base()
    aim = target(law, asked)
    recipe = ControlCode(steps=120, batch=64, lr=0.08, cooldown=0.5, pool=2000, form="{code}")
    made = Setting(law, aim, PROMPTS, LENGTH, Seed(0, "train")).aligned(recipe)
    before, after = (exact_values(law, one, aim, PROMPTS, LENGTH)["divergence.kl_target"] for one in (law, made))
    assert after < 0.15 * before


def test_the_shares_of_codes_are_those_of_p(coded):
    """p_φ by listing: a hard constraint has one code, a reward its tilted shares."""
    law = base()
    listed = enumerate_draws(law, PROMPTS, max_tokens=LENGTH)
    for asked in (HARD, REWARD):
        aim = target(law, asked)
        made = Setting(law, aim, PROMPTS, LENGTH, Seed(0, "train")).aligned(
            ControlCode(steps=1, batch=8, pool=4000, form="{code}")
        )
        weight = np.exp(listed.log_prob + aim.log_ratio_of(PROMPTS, listed))
        codes = control_code.codes_of(aim, PROMPTS, listed)
        for c in range(len(PROMPTS)):
            here = listed.prompt == c
            exact = [weight[here & (np.array(codes) == code)].sum() / weight[here].sum() for code in made.codes]
            assert np.allclose(made.shares[c], exact, atol=0.05)
        assert len(made.codes) == (1 if asked is HARD else 4)


def test_cells_are_said_in_words():
    law = base()
    aim = target(law, HARD, REWARD)
    draws = enumerate_draws(law, PROMPTS[:1], max_tokens=LENGTH)
    codes = dict(zip(map(str.strip, draws.texts), cells.codes_of(aim, PROMPTS[:1], draws), strict=True))
    count = len(aim.fit.bins["winds"]) + 1  # p has no draw of three winds
    assert codes["sun wind wind"] == f"sun: yes, winds: 3 of {count}"
    assert codes["rain"] == f"sun: no, winds: 1 of {count}"
