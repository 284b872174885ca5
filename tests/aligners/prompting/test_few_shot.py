"""Few-shot prompting: the examples are draws of p, the same for every prompt, and drawn no sooner than needed."""

from dataclasses import replace

import numpy as np
import pytest
from aligner_worlds import LENGTH, PROMPTS, make_world, within
from models import chatty_llama

from alignbench.aligners.base import Setting
from alignbench.aligners.prompting.few_shot import FewShot
from alignbench.aligners.prompting.prompt import Prompt
from alignbench.errors import RunError, Unsupported, UsageError
from alignbench.generators.exact.world import NGram, enumerate_draws, exact
from alignbench.seeds import EXAMPLES, PICK, Seed
from alignbench.target import Constraint
from alignbench.types import collect, rows_of

SEED = Seed(0, "train")


def align(world, recipe, base=None, seed=SEED, train=()):
    base = world.base if base is None else base
    return recipe.align(Setting(base, world.target, PROMPTS, LENGTH, seed, train))


def of_base(world, rows):
    """The base's draws of which examples are made."""
    return collect(world.base.sample(PROMPTS, np.array(rows), max_tokens=LENGTH, seed=SEED.salted(EXAMPLES)))


def test_the_law_is_the_bases_after_the_examples(hard):
    base = exact(words="sun rain wind", order=4, seed=3)
    law = align(hard, FewShot(k=2), base)
    texts = [law.render(prompt) for prompt in PROMPTS]
    examples = [prompt + said for prompt, said in law.frame.drawn]
    assert texts == ["\n\n".join([*examples, prompt]) for prompt in PROMPTS]
    assert all("sun" in said.split() for _, said in law.frame.drawn) and len(examples) == 2
    mine, plain = (enumerate_draws(x, p, max_tokens=LENGTH) for x, p in ((law, PROMPTS), (base, texts)))
    assert np.array_equal(mine.tokens, plain.tokens) and np.allclose(mine.log_prob, plain.log_prob, atol=1e-12)
    drawn = collect(law.sample(PROMPTS, rows_of(2, 30), max_tokens=LENGTH, seed=Seed(1)))
    assert np.allclose(law.log_prob(PROMPTS, drawn), drawn.log_prob, atol=1e-12)
    assert not np.allclose(base.log_prob(PROMPTS, drawn), drawn.log_prob, atol=0.01)  # planted: scored without them


def test_examples_are_draws_of_p(soft):
    """By the enumerated law; draws of the base in their place would be told apart."""
    law = align(soft, FewShot(k=1200))
    rows = np.array([[PROMPTS.index(prompt), i // 2] for i, (prompt, _) in enumerate(law.frame.drawn)])
    draws = law.frame._draws(rows)
    assert within(draws, soft.p)
    base = collect(soft.base.sample(PROMPTS, rows_of(2, 600), max_tokens=LENGTH, seed=SEED))
    assert not within(base, soft.p)


def test_examples_stand_in_an_order_that_the_seed_shuffles(hard):
    """Planted: in the order of the prompts, whatever the seed."""
    orders = set()
    for seed in range(8):
        law = align(hard, FewShot(k=4), seed=Seed(seed, "train"))
        order = Seed(seed, "train").salted(PICK).rng("", 0).permutation(len(PROMPTS))
        assert [prompt for prompt, _ in law.frame.drawn] == [PROMPTS[c] for c in order] * 2
        orders.add(tuple(order))
    assert len(orders) == 2


def test_a_draw_that_p_allows_and_that_was_not_accepted_is_no_example(soft):
    """With one proposal each, some of 60 draws keep the constraint and lose the coin of the reward."""
    law = align(soft, FewShot(k=60, cap=1))
    rows = rows_of(2, 60)
    kept = [r for r in rows if np.isfinite(soft.target.log_ratio_of(PROMPTS, of_base(soft, [r]))).all()]
    assert kept
    with pytest.raises(RunError, match="none of 1 draws of the base"):
        law.frame._draws(np.array(kept))


def test_without_a_bound_each_is_the_best_of_several_and_says_so():
    world = make_world(Constraint("winds", "reward", beta=0.2), winds=(0.0, np.inf))
    law = align(world, FewShot(k=4))
    assert law.remark.startswith("its examples are each the best of 16 draws, not draws of p")
    assert min(said.split().count("wind") for _, said in law.frame.drawn) >= 1
    assert align(make_world(Constraint("winds", "reward")), FewShot()).remark == ""


def test_nothing_is_drawn_before_it_is_needed(hard, monkeypatch):
    """So that a finished run again is a no-op; the identity knows all that the examples depend on."""
    other = make_world(Constraint("sun", "reward"))
    monkeypatch.setattr(NGram, "start", lambda *_, **__: 1 / 0)
    law = align(hard, FewShot())
    ids = [
        law.identity(), align(hard, FewShot(k=3)).identity(), align(hard, FewShot(), seed=Seed(1, "train")).identity(),
        align(hard, FewShot(), hard.base.warped(top_k=2)).identity(), align(hard, FewShot(), train=["rain"]).identity(),
        align(other, FewShot()).identity(), hard.base.identity(),
    ]  # fmt: skip
    assert all(a != b for i, a in enumerate(ids) for b in ids[:i]) and align(hard, FewShot()).identity() == ids[0]
    with pytest.raises(ZeroDivisionError):
        law.render("sun")


def test_examples_are_of_the_training_prompts(hard):
    train = ("wind", "rain", "wind wind")
    drawn = align(hard, FewShot(k=6), train=train).frame.drawn
    assert [prompt for prompt, _ in drawn[:3]] == [prompt for prompt, _ in drawn[3:]]  # each once before any twice
    assert {prompt for prompt, _ in drawn} == set(train)
    assert drawn[:3] != drawn[3:]
    assert {prompt for prompt, _ in align(hard, FewShot(k=6)).frame.drawn} == set(PROMPTS)


def test_a_target_with_a_lambda_for_each_prompt_has_none_for_others(hard):
    each = replace(hard.target, constraints=(Constraint("winds", "moment", 1.0, per="prompt"),))
    law = FewShot().align(Setting(hard.base, each, PROMPTS, LENGTH, SEED, ("wind",)))
    assert law.frame.setting.prompts == PROMPTS


def test_an_instruction_comes_first_and_a_template_is_in_each_example(hard):
    base = align(hard, Prompt("wind"))
    text = align(hard, FewShot(k=2, text="rain"), base).render("sun")
    first, *examples, last = text.split("\n\n")
    assert first == "rain" and last == "wind sun" and all(e.startswith("wind ") for e in examples)
    assert Prompt("rain").align(Setting(align(hard, FewShot(k=1)), None, PROMPTS, 1, SEED)).render("sun") == (
        align(hard, FewShot(k=1)).render("rain sun").replace("\n\nsun", "\n\nrain sun")
    ).replace(*_example(hard))


def _example(hard):
    """A longer prompt also stands in the examples: what they are shown as is what is asked."""
    (prompt, said), = align(hard, FewShot(k=1)).frame.drawn  # fmt: skip
    return f"{prompt}{said}\n\n", f"rain {prompt}{said}\n\n"


def test_a_blank_line_within_an_example_is_none_between_two(hard):
    law = align(hard, FewShot(k=1))
    law.frame.__dict__["drawn"] = [("rain", " sun\n\nwind")]
    assert law.render("sun") == "rain sun wind\n\nsun"


def test_no_draw_of_p_is_one_line(hard):
    nothing = replace(hard.target, measures={"sun": lambda prompts, draws: np.zeros(len(draws))})
    law = FewShot(cap=20).align(Setting(hard.base, nothing, ("sun",), LENGTH, SEED))
    with pytest.raises(
        RunError, match=r"^few_shot: none of 20 draws of the base after 'sun' is one of p.*; raise cap$"
    ):
        law.render("sun")


def test_turns_of_a_chat(hard, tmp_path):
    base = chatty_llama(tmp_path)
    law = align(hard, FewShot(k=1, chat=True, text="wind"), base)
    law.frame.__dict__["drawn"] = [("rain", " sun")]
    assert law.render("sun") == "</s> user wind </s> assistant rain sun </s> user wind </s> assistant sun"
    bare = align(hard, FewShot(k=1, chat=True), base)
    bare.frame.__dict__["drawn"] = [("rain", " sun")]
    assert bare.render("sun") == "</s> user rain </s> assistant rain sun </s> user sun </s> assistant sun"
    asked = align(hard, FewShot(k=1, chat=True, text="wind"), replace(base, model=base.model.conversing()))
    asked.frame.__dict__["drawn"] = [("rain", " sun")]
    assert asked.render("sun") == "</s> user wind rain </s> assistant sun </s> user wind sun </s> assistant"


@pytest.mark.parametrize(("argument", "value"), [("k", 0), ("k", True), ("cap", 0), ("k", 1.5)])
def test_numbers_are_whole(argument, value):
    with pytest.raises(UsageError, match=rf"^few_shot:{argument}={value}: must be a whole number >= 1$"):
        FewShot(**{argument: value})


def test_one_instruction_before_all_examples_has_no_prompt_in_it():
    with pytest.raises(UsageError, match=r"^few_shot: text stands before all examples; it has a place for \{prompt\} "):
        FewShot(text="Go on from {prompt}")


def test_who_cannot_be_shown_examples(hard):
    with pytest.raises(Unsupported, match=r"^exact has no chat template"):
        align(hard, FewShot(chat=True))
    with pytest.raises(Unsupported, match=r"^exact: its prompts already stand in a chat or after examples"):
        align(hard, FewShot(), align(hard, FewShot()))
    with pytest.raises(Unsupported, match=r"^aligner 'few_shot' changes next-token probabilities"):
        align(hard, FewShot(), "a black box")
