"""A chain: each step aligns the law that the one before it made."""

from dataclasses import replace

import numpy as np
import pytest
from aligner_worlds import LENGTH, PROMPTS

from alignbench.aligners.base import Setting
from alignbench.aligners.chain import Chain
from alignbench.aligners.prompting.few_shot import FewShot
from alignbench.errors import Unsupported, UsageError
from alignbench.generators.exact.world import enumerate_draws, exact
from alignbench.registry import load_plugins
from alignbench.run.models import recipe_of
from alignbench.seeds import Seed
from alignbench.spec import Spec, parse_spec

load_plugins()
BASE = exact(words="sun rain wind", order=3, seed=3)


def align(steps, base=BASE, target=None):
    return Chain(steps).align(Setting(base, target, PROMPTS, LENGTH, Seed(0, "train")))


def test_the_law_is_that_of_all_steps():
    law = align([{"name": "prompt", "text": "wind {prompt} rain"}, "temperature:t=0.5", "top_k:k=2"])
    plain = BASE.warped(temperature=0.5, top_k=2)
    seen = [f"wind {prompt} rain" for prompt in PROMPTS]
    mine, truth = (enumerate_draws(x, p, max_tokens=LENGTH) for x, p in ((law, PROMPTS), (plain, seen)))
    assert np.array_equal(mine.tokens, truth.tokens) and np.allclose(mine.log_prob, truth.log_prob, atol=1e-12)
    for steps in (["temperature:t=0.5", "top_k:k=2"], [{"name": "prompt", "text": "wind {prompt} rain"}, "top_k:k=2"]):
        less = enumerate_draws(align(steps), PROMPTS, max_tokens=LENGTH)  # planted: a step left out
        assert len(less) != len(mine) or not np.allclose(less.log_prob, mine.log_prob, atol=1e-3)


def test_the_order_of_prompts_is_that_of_the_steps():
    assert align(["prompt:text=rain", "prompt:text=wind"]).render("sun") == "rain wind sun"
    assert align(["prompt:text=wind", "prompt:text=rain"]).render("sun") == "wind rain sun"


def test_the_identity_is_that_of_the_law_and_one_step_is_that_step():
    assert align(["top_k:k=2", "temperature:t=0.5"]).identity() == BASE.warped(top_k=2, temperature=0.5).identity()
    assert align(["top_k:k=2"]) == BASE.warped(top_k=2) == align([{"name": "chain", "steps": ["top_k:k=2"]}])


def test_steps_have_the_training_prompts(hard):
    law = Chain(["few_shot:k=2", "top_k:k=2"]).align(
        Setting(hard.base, hard.target, PROMPTS, LENGTH, Seed(0, "train"), ("wind",))
    )
    assert {prompt for prompt, _ in law.frame.drawn} == {"wind"} and law.warp.top_k == 2
    assert Chain(["few_shot:k=2", "top_k:k=2"]).shots == FewShot(2).shots == 2
    assert Chain(["top_k:k=2"]).shots == 0


@pytest.mark.parametrize(
    ("steps", "label"),
    [
        (["top_p", "temperature:t=0.5"], "{name: chain, steps: ['top_p:p=0.9', 'temperature:t=0.5']}"),
        ([{"name": "prompt", "text": "Rain,\nsun:"}, "top_k"],
         "{name: chain, steps: ['{name: prompt, text: \"Rain,\\nsun:\"}', 'top_k:k=50']}"),
        (["prompt:text=Hi.", {"name": "chain", "steps": ["top_k"]}],
         "{name: chain, steps: ['prompt:text=Hi.', '{name: chain, steps: [''top_k:k=50'']}']}"),
    ],
)  # fmt: skip
def test_the_label_says_all_steps_with_their_defaults_and_reads_as_the_same_chain(steps, label):
    found, recipe = recipe_of(Spec("chain", {"steps": steps}))
    assert found == label
    assert "\n" not in found and recipe_of(parse_spec(found, "")) == (found, recipe)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([], "chain: steps is a list of aligners, not []"), ("top_p", "chain: steps is a list of aligners, not 'top"),
        (["top_p", "best_of_n:n=4"], "chain: step 2: 'best_of_n' is driven by the target, and can be no step"),
        (["top_pp"], "chain: step 1: unknown aligner 'top_pp'. Did you mean 'top_p'?"),
        (["exact"], "chain: step 1: unknown aligner 'exact'."),
        (["top_p:q=2"], "chain: step 1 'top_p': unknown argument 'q'"),
        (["top_p:p=2"], "top_p=2: must be in"), ([3], "chain: step 1: an aligner is a name or {name: NAME"),
        (["prompt"], "chain: step 1 'prompt': 'prompt' needs the argument 'text'"),
    ],
)  # fmt: skip
def test_a_wrong_step_is_one_line(steps, message):
    with pytest.raises(UsageError) as error:
        Chain(steps)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


def test_what_is_no_law_cannot_go_on():
    with pytest.raises(Unsupported, match=r"'top_k' changes next-token probabilities, and str has none"):
        align(["top_k:k=2"], "a black box")


def test_what_a_step_says_of_its_law_is_not_lost(soft):
    """Masks, or a point mass, on a law with examples: it is still told that these are no draws of p."""
    unbounded = replace(soft.target, ranges={**soft.target.ranges, "winds": (0.0, np.inf)})
    for last in ("top_k:k=2", {"name": "constrained", "must": ["sun"]}, "greedy"):
        law = align(["few_shot:k=1", last], soft.base, unbounded)
        assert "its examples are each the best of 16 draws" in law.remark
        assert law.uncounted == "the draws of which its 1 examples are"
    assert "a point mass" in law.remark


def test_what_has_no_density_can_only_be_the_last_step(monkeypatch):
    class Box:
        def sample(self, prompts, rows, *, max_tokens, seed):
            yield from ()

    class Boxed:
        def align(self, setting):
            return Box()

    chain, setting = Chain(["top_k:k=2"]), Setting(BASE, None, PROMPTS, LENGTH, Seed(0, "train"))
    monkeypatch.setattr(Chain, "recipes", [Boxed()])
    assert isinstance(chain.align(setting), Box)
    monkeypatch.setattr(Chain, "recipes", [Boxed(), Boxed()])
    with pytest.raises(Unsupported, match=r"^chain: a Box has no log_prob, and can only be the last step$"):
        chain.align(setting)
